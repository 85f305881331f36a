"""How a run writes its files: aside, down to the disk, then in place at once; failures are told."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors import SafetensorError
from torch import nn

from .shards import size_of

T = TypeVar("T")
UNFINISHED = ".partial"  # ending of what is being written
_BYTES_PER_NUMBER = 4  # of weights, their averages and the optimizer's, all float32


class FolderGoneError(RuntimeError):
    """The folder of a run was removed or moved away while the run was going on."""


@contextmanager
def told_if_it_fails(path: Path, advice: str) -> Iterator[None]:
    """Turn the failures of a disk into one sentence.

    Args:
        path: what is written.
        advice: what to do, as sentences.

    Raises:
        RuntimeError: naming the file, the cause and the way out.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        # safetensors has the system's words in its own message: "... No space left on device ..."
        cause = getattr(error, "strerror", None) or str(error)
        raise RuntimeError(f"Cannot write {str(path)!r}: {cause}. {advice}") from error


def check_folder(folder: Path) -> None:
    """Raise FolderGoneError when the folder of a run is no longer there."""
    if not folder.is_dir():
        raise FolderGoneError(f"The folder {str(folder)!r} was removed while the run went on.")


def in_every_process(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """Do something in every process; where it fails in one, all of them raise.

    A process that fails alone leaves the others waiting for it.

    Raises:
        OSError, ValueError, RuntimeError: the failure of one process, in all of them.
    """
    result, failure = None, None
    try:
        result = work()
    except (OSError, ValueError, RuntimeError) as error:
        failure = error
    if accelerator.num_processes > 1:
        told = gather_object([failure and (type(failure), str(failure))])
        others = [of_one for of_one in told if of_one is not None]
        if others and failure is None:
            kind, sentence = others[0]
            raise kind(sentence)
    if failure is not None:
        raise failure
    return result  # type: ignore[return-value]  # of `work`, which did not fail


def sync(path: Path) -> None:
    """Wait until a file, or the list of files of a folder, lies on the disk itself."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def write_json(path: Path, value: Any) -> None:
    """Write a new file, numbers to the last bit; nan and infinities are refused by `json`."""
    path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        ValueError: for a file that is not there or holds anything else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"its file {path.name!r} cannot be read ({error})") from error
    if not isinstance(value, dict):
        raise ValueError(f"its file {path.name!r} holds {type(value).__name__}, not an object")
    return value


def replace_text(path: Path, text: str) -> None:
    """Write a text file so that at every moment there is the old one or the new one, whole."""
    aside = path.with_name(path.name + UNFINISHED)
    aside.write_text(text, encoding="utf-8")
    sync(aside)
    aside.replace(path)


def move_files(source: Path, target: Path) -> None:
    """Move every file of one folder into another, each at once, and remove the first folder."""
    for path in sorted(source.iterdir()):
        sync(path)
        path.replace(target / path.name)
    source.rmdir()


def bytes_of_run(
    model: nn.Module,
    num_checkpoints: int,
    num_models: int,
    *,
    remembered: int,
    averages: bool = False,
) -> int:
    """Estimate what a run will write: weights, and in checkpoints what the optimizer remembers.

    Args:
        model: with what does not learn frozen.
        num_checkpoints: most checkpoints at one time, the one being written included.
        num_models: finished models beside them.
        remembered: numbers that the optimizer remembers.
        averages: whether averages of the weights are kept too.
    """
    weights = sum(size_of(p) for p in model.parameters())
    trained = sum(size_of(p) for p in model.parameters() if p.requires_grad)
    checkpoint = weights + remembered + averages * trained
    return _BYTES_PER_NUMBER * (num_checkpoints * checkpoint + num_models * weights)


def check_room(folder: Path, needed: int) -> None:
    """Refuse a run that would fill its disk, before there is work to lose.

    Raises:
        ValueError: saying what it needs and what there is.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ValueError(
            f"The run will need about {needed / 1e6:,.1f} MB in {str(folder)!r}, and "
            f"{free / 1e6:,.1f} MB are free there. Make room, lower `keep_checkpoints`, or name "
            "another `output_dir`."
        )
