"""The log of a run, a JSON line per telling; what a killed run told too much is taken back."""

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from ..evaluation.texts import SampleText
from .finiteness import CALMER, NotFiniteError
from .run_files import check_folder, in_every_process, replace_text, told_if_it_fails
from .trackers import tell_texts

logger = logging.getLogger(__name__)
LOG_NAME = "training_log.jsonl"
SAMPLES_NAME = "samples.jsonl"
METRICS_NAME, CURVES_NAME = "metrics.json", "curves.png"  # made of it at the end
_ADVICE = "Make room, or see to the folder, and resume from 'latest'."


class RunLog:
    """Where the numbers of a run go: its file, and the trackers.

    Args:
        accelerator: knows the processes and the trackers.
        folder: of the run.
    """

    def __init__(self, accelerator: Accelerator, folder: Path) -> None:
        self.accelerator = accelerator
        self.path, self.samples = folder / LOG_NAME, folder / SAMPLES_NAME

    def tell(self, step: int, values: dict[str, float]) -> None:
        """Tell of an update, once; every process must call this.

        Args:
            step: updates taken.
            values: what there is to tell, by name.

        Raises:
            NotFiniteError: when a value is nan or infinite; nothing is told.
            FolderGoneError: when the folder of the run was removed.
            RuntimeError: when the line cannot be written.
        """
        for name, value in values.items():
            if not math.isfinite(value):
                raise NotFiniteError(f"The {name} is {value} after update {step}. {CALMER}")
        self.accelerator.log(values, step=step)

        self._append(self.path, step, [values])

    def tell_texts(self, step: int, texts: Sequence[SampleText]) -> None:
        """Tell what a model wrote; every process must call this.

        Args:
            step: updates taken.
            texts: in the order of their prompts.

        Raises:
            FolderGoneError: when the folder of the run was removed.
            RuntimeError: when a line cannot be written.
        """
        self._append(self.samples, step, [asdict(text) for text in texts])
        if self.accelerator.is_main_process:
            tell_texts(self.accelerator, step, texts)
            for text in texts:
                nats = "" if text.nats_per_token is None else f" ({text.nats_per_token:.2f} nats)"
                logger.info("After update %d%s: %r", step, nats, text.text)

    def cut_after(self, step: int, evaluation_due: bool = False) -> None:
        """Forget the lines behind an update, see `cut_after`; every process may call this.

        Args:
            step: the last update whose lines stay.
            evaluation_due: whether the evaluation after it is to be told anew.
        """
        if self.accelerator.is_main_process:
            cut_after(self.path, step, evaluation_due)
            cut_after(self.samples, step - evaluation_due)

    def _append(self, path: Path, step: int, lines: Sequence[Mapping[str, Any]]) -> None:
        def write() -> None:
            if self.accelerator.is_main_process:
                for line in lines:
                    append_line(path, step, line)

        in_every_process(self.accelerator, write)


def is_evaluation(values: Mapping[str, Any]) -> bool:
    """Tell whether a line says what an evaluation has found."""
    return any(name.startswith("eval_") for name in values)


def append_line(log: Path, step: int, values: Mapping[str, Any]) -> None:
    """Add a line.

    Args:
        log: the file; made where it is missing.
        step: updates taken.
        values: what there is to tell, finite.

    Raises:
        FolderGoneError: when the folder was removed.
        RuntimeError: when the line cannot be written.
    """
    check_folder(log.parent)
    with told_if_it_fails(log, _ADVICE), log.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps({"step": step, **values}, ensure_ascii=False) + "\n")


def read_lines(log: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a log; what is none, such as a last one that was cut, is left out.

    Args:
        log: the file.

    Raises:
        ValueError: where there is none.
    """
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ValueError(f"There is no log of a run: {str(log)!r}: {error.strerror}.") from error
    for line in filter(str.strip, text.split("\n")):
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(values, dict) and isinstance(values.get("step"), int):
            yield values


def cut_after(log: Path, step: int, evaluation_due: bool = False) -> None:
    """Forget the lines behind an update, which are told again.

    What is no line of a log, such as a last one that was cut when its run was killed, is left out
    and counted in a warning.

    Args:
        log: the file; nothing happens where it is missing.
        step: the last update whose lines stay.
        evaluation_due: whether what an evaluation after it has found goes as well.

    Raises:
        RuntimeError: when it cannot be read or written.
    """
    if not log.exists():
        return
    with told_if_it_fails(log, _ADVICE):
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
        kept, unreadable = [], 0
        for line in filter(str.strip, lines):
            try:
                values = json.loads(line)
                is_told = values["step"] <= step - (evaluation_due and is_evaluation(values))
                kept += [line + "\n"] if is_told else []
            except (ValueError, TypeError, KeyError, RecursionError):
                unreadable += 1
        replace_text(log, "".join(kept))
    if unreadable:
        logger.warning("%d lines of %s cannot be read and are left out.", unreadable, log.name)
