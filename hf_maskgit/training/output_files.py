"""Where the results of a program go: whether they can, and replace nothing that it reads."""

import errno
import glob
import os
import select
import sys
from pathlib import Path

from safetensors import SafetensorError

from ..evaluation.benchmark_report import figure_class_of_matplotlib

_NOT_TAKEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # by a disk


def check_output(path: str | None, *inputs: str | None) -> None:
    """Make sure that results can be written there, before work begins; None is the screen.

    Args:
        path: of the results.
        *inputs: files that are read, or patterns with `*`, which are not to be written over.

    Raises:
        ValueError: when they cannot, or would replace what is read.
    """
    if path is None:
        return
    folder = Path(path).parent
    if not folder.is_dir():
        raise ValueError(f"There is no folder {str(folder)!r} for {path!r}; make it first.")
    if Path(path).is_dir():
        raise ValueError(f"{path!r} is a folder; name a file in it.")
    if not os.access(path if Path(path).exists() else folder, os.W_OK):
        raise ValueError(f"{path!r} cannot be written: permission denied.")
    named = [name for name in inputs if name is not None]
    read = [file for name in named for file in (name, *glob.glob(name)) if os.path.isfile(file)]
    if any(os.path.exists(path) and os.path.samefile(path, file) for file in read):
        raise ValueError(
            f"{path!r} is a file that is read, and would be replaced by what is written; name "
            "another one."
        )


def check_picture(path: str | None, *inputs: str | None) -> None:
    """Make sure that matplotlib can draw a picture there, before work begins; None is no picture.

    Args:
        path: of the picture, whose ending says of which kind.
        *inputs: see `check_output`.

    Raises:
        ImportError: when matplotlib is not installed.
        ValueError: when it draws no pictures of that kind, and as `check_output`.
    """
    if path is None:
        return
    check_output(path, *inputs)
    kinds = figure_class_of_matplotlib()().canvas.get_supported_filetypes()
    if Path(path).suffix.removeprefix(".").lower() not in kinds:
        raise ValueError(
            f"{path!r} is to be a picture, and its ending must be one of "
            f"{', '.join(f'.{kind}' for kind in sorted(kinds))}."
        )


def disk_failure(error: BaseException) -> str | None:
    """Say in a sentence that a disk did not take what was written; None of any other error."""
    if isinstance(error, OSError):
        cause = error.strerror if error.errno in _NOT_TAKEN else None
    else:  # safetensors has the system's words in its own message
        words = [os.strerror(number) for number in _NOT_TAKEN] * isinstance(error, SafetensorError)
        cause = next((told for told in words if told in str(error)), None)
    if cause is None:
        return None
    named = getattr(error, "filename", None)
    place = "What is written" if named is None else repr(os.fspath(named))
    return f"{place} cannot be written: {cause}. Make room, or name a place that has some."


def reader_has_left() -> bool:
    """Tell whether nobody reads the output any more, as behind `| head`; then it goes nowhere."""
    if not hasattr(select, "poll"):  # pragma: no cover  # Windows
        return False
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    left = any(event & select.POLLERR for _, event in output.poll(0))
    if left:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # what is left would fail as Python ends
    return left
