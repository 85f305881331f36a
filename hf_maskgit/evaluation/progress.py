"""How far long work is: a bar in a terminal, in a log a line now and then.

A bar redraws its line many times a second. In a file or in the log of a cluster each of those is a
line of its own, so what is no terminal gets lines: of what is logged anyway, and one a minute. Both
say how long the rest will take, at the pace since the beginning.
"""

import logging
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from huggingface_hub.utils.tqdm import disable_progress_bars
from tqdm.auto import tqdm
from transformers.utils.logging import disable_progress_bar

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 60.0
# From how many seconds on each unit is used, its length in seconds, and its name.
_UNITS = ((48 * 3600, 86400, "days"), (90 * 60, 3600, "h"), (90, 60, "min"), (0, 1, "s"))


def duration(seconds: float) -> str:
    """Write a time in the largest unit that leaves a number to think with: "40 s", "2.5 h"."""
    length, unit = next((length, unit) for least, length, unit in _UNITS if seconds >= least)
    number = seconds / length
    return f"{number:.0f} {unit}" if number >= 10 or length == 1 else f"{number:.1f} {unit}"


def draws_bars() -> bool:
    """Tell whether a bar can be redrawn in its place: in a terminal, or in a notebook."""
    in_notebook = any(kind.__module__ == "tqdm.notebook" for kind in tqdm.__mro__)
    return in_notebook or sys.stderr.isatty()


class ProgressBar:
    """A context in which a number of things is done.

    Args:
        what: is done, a word or two.
        total: how many things.
        unit: one of them, in the singular.
        done: how many are done already.
        shown: False shows nothing, for all processes but one.
        tells_pace: say in a log how many are done in a second, as a bar does.
    """

    def __init__(
        self,
        what: str,
        total: int,
        unit: str,
        *,
        done: int = 0,
        shown: bool = True,
        tells_pace: bool = False,
    ) -> None:
        self._what, self._total, self._unit, self._done = what, total, unit, done
        self._tells_pace = tells_pace
        self._lines = shown and not draws_bars()
        bar = shown and not self._lines
        self._bar = tqdm(desc=what, total=total, initial=done, unit=unit, disable=not bar)
        self._begun_at, self._begun_with = time.monotonic(), done
        self._said_at, self._said_of = self._begun_at, done

    def update(self, number: int = 1) -> None:
        """Note that some more are done."""
        self._done += number
        self._bar.update(number)
        if time.monotonic() - self._said_at >= SECONDS_BETWEEN_LINES:
            self._say({})

    def tell(self, values: Mapping[str, float]) -> None:
        """Show numbers beside the bar, or log them in a line of their own."""
        self._bar.set_postfix(values)
        self._say(values)

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()
        if error is None and self._said_of != self._done:  # how it ended, if nobody said it
            self._say({})

    def _say(self, values: Mapping[str, Any]) -> None:
        if not self._lines:
            return
        now, done = time.monotonic(), self._done
        told = "".join(f", {name} {value:.4g}" for name, value in values.items())
        units = self._unit if self._total == 1 else f"{self._unit}s"
        if self._begun_with < done < self._total:
            pace = (now - self._begun_at) / (done - self._begun_with)
            if self._tells_pace and pace > 0:
                units += f", {1 / pace:.4g} a second"
            units += f", {duration((self._total - done) * pace)} left"
        logger.info("%s: %d of %d %s%s", self._what, done, self._total, units, told)
        self._said_at, self._said_of = now, done


def no_bars_of_others_in_logs() -> None:
    """Where there is no terminal, keep the bars of the libraries below from flooding the log."""
    if draws_bars():
        return
    disable_progress_bar()  # of transformers
    disable_progress_bars()  # of huggingface_hub
    # An import of it takes a second, and without one it draws no bar.
    if (datasets := sys.modules.get("datasets")) is not None:
        datasets.disable_progress_bars()
