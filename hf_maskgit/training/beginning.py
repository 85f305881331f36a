"""Where a run begins: at its first update, or where the same command was interrupted before."""

from pathlib import Path
from typing import NamedTuple

from .checkpoints import LAST_FILE, checkpoints, find_checkpoint
from .recipes import RECIPE_NAME
from .run_files import UNFINISHED
from .run_lock import LOCK_NAME

_NOBODYS = (LOCK_NAME, RECIPE_NAME + UNFINISHED)  # left by a run that was killed as it began


class Beginning(NamedTuple):
    """Where a run begins.

    Attributes:
        checkpoint: to go on from, whole; None is the first update.
        clears: whether what a former run left in the folder goes.
        reason: a sentence, where nobody asked for it.
    """

    checkpoint: Path | None
    clears: bool
    reason: str | None = None


def where_to_begin(
    output_dir: str | Path, resume_from_checkpoint: str | None, overwrite: bool
) -> Beginning:
    """Find out where a run begins, and refuse to write over another one.

    A run that was interrupted goes on from its newest whole checkpoint, or begins anew where it had
    none yet; so that the same command, started again however often, comes to one end.

    Args:
        output_dir: folder of the run; it need not be there.
        resume_from_checkpoint: a checkpoint, or "latest"; None lets the folder decide.
        overwrite: whether to replace what is there.

    Raises:
        ValueError: for a folder that holds anything but an interrupted run, and see
            `find_checkpoint`.
    """
    path = Path(output_dir)
    if path.exists() and not path.is_dir():
        raise ValueError(f"`output_dir` {str(path)!r} is a file; name a folder.")
    if resume_from_checkpoint is not None:
        return Beginning(find_checkpoint(resume_from_checkpoint, path), clears=False)
    names = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    if overwrite or not names.difference(_NOBODYS):
        return Beginning(None, clears=overwrite)
    if LAST_FILE in names:
        raise ValueError(
            f"`output_dir` {str(path)!r} holds a finished run. Name another folder, replace it "
            "with overwrite_output_dir, or train it for longer with resume_from_checkpoint=latest "
            "and `allow_changes`."
        )
    if RECIPE_NAME not in names:
        raise ValueError(
            f"`output_dir` {str(path)!r} is not empty, and what it holds is no interrupted run. "
            "Name another folder, or write into this one all the same with overwrite_output_dir."
        )
    if not checkpoints(path):
        said = f"The interrupted run in {str(path)!r} had no checkpoint yet and begins anew."
        return Beginning(None, clears=True, reason=said)
    newest = find_checkpoint("latest", path)
    said = f"Going on with the interrupted run in {str(path)!r} from {newest.name}."
    return Beginning(newest, clears=False, reason=said)
