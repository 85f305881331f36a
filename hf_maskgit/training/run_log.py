"""The log of a run, a JSON line per telling; what a killed run told too much is taken back."""

import json
import logging
from pathlib import Path

from .run_files import check_folder, replace_text, told_if_it_fails

logger = logging.getLogger(__name__)
LOG_NAME = "training_log.jsonl"
_ADVICE = "Make room, or see to the folder, and resume from 'latest'."


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
