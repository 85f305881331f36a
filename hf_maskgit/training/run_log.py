"""The log of a run, a JSON line per telling; what a killed run told too much is taken back."""

import json
import logging
import math
from pathlib import Path

from accelerate import Accelerator

from .finiteness import CALMER, NotFiniteError
from .run_files import check_folder, in_every_process, replace_text, told_if_it_fails

logger = logging.getLogger(__name__)
LOG_NAME = "training_log.jsonl"
_ADVICE = "Make room, or see to the folder, and resume from 'latest'."


class RunLog:
    """Where the numbers of a run go: its file, and the trackers.

    Args:
        accelerator: knows the processes and the trackers.
        folder: of the run.
    """

    def __init__(self, accelerator: Accelerator, folder: Path) -> None:
        self.accelerator, self.path = accelerator, folder / LOG_NAME

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

        def write() -> None:
            if self.accelerator.is_main_process:
                append_line(self.path, step, values)

        in_every_process(self.accelerator, write)

    def cut_after(self, step: int) -> None:
        """Forget the lines behind an update, see `cut_after`."""
        if self.accelerator.is_main_process:
            cut_after(self.path, step)


def append_line(log: Path, step: int, values: dict[str, float]) -> None:
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
        lines.write(json.dumps({"step": step, **values}) + "\n")


def cut_after(log: Path, step: int) -> None:
    """Forget the lines behind an update, which are told again.

    What is no line of a log, such as a last one that was cut when its run was killed, is left out
    and counted in a warning.

    Args:
        log: the file; nothing happens where it is missing.
        step: the last update whose lines stay.

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
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except (ValueError, TypeError, KeyError, RecursionError):
                unreadable += 1
        replace_text(log, "".join(kept))
    if unreadable:
        logger.warning("%d lines of %s cannot be read and are left out.", unreadable, log.name)
