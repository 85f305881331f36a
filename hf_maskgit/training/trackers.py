"""Trackers through Accelerate: TensorBoard, Weights & Biases, Trackio and others by their names.

Every tracker gets the options of the run and the numbers of its log. Sample texts go to those that
know tables or texts: the rows of `_TABLES`.
"""

import json
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import get_available_trackers

from ..evaluation.texts import SampleText
from .run_files import replace_text, told_if_it_fails

PROJECT = "hf_maskgit"
ID_NAME = "run_id.txt"  # under which trackers know the run, also when it is resumed
_COLUMNS = ["prompt", "text", "seed", "nats_per_token"]
_SAMPLES = "samples"


def check_tracker(name: str | None) -> None:
    """Refuse a tracker that is not installed.

    Args:
        name: of a tracker, "all" for those that are installed, or None.

    Raises:
        ValueError: naming those that are.
    """
    installed = sorted(str(tracker) for tracker in get_available_trackers())
    if name not in (None, "all", *installed):
        raise ValueError(
            f"The tracker {name!r} is not installed; installed are "
            f"{', '.join(installed) or 'none'}. Install it or leave `log_with` out."
        )


def start_trackers(
    accelerator: Accelerator, folder: Path, options: Mapping[str, Any], step: int
) -> None:
    """Begin a run in every tracker, or go on with it.

    Args:
        accelerator: knows which trackers are asked for.
        folder: of the run; a file in it keeps its id.
        options: of the run, by name.
        step: updates taken before; what a killed run told beyond them is told again.

    Raises:
        RuntimeError: when a tracker cannot be started.
    """
    if not accelerator.log_with:
        return
    known_as = _id_of(folder) if accelerator.is_main_process else ""
    name = f"{folder.resolve().name}-{known_as}"
    # Of what is told twice TensorBoard forgets the first, Weights & Biases the second, which is
    # the same to the bit; Trackio keeps both.
    how = {
        "tensorboard": {"purge_step": step + 1} if step else {},
        "wandb": {"id": known_as, "name": name, "resume": "allow", "dir": str(folder)},
        "trackio": {"name": name, "resume": "allow", "embed": False},
    }
    try:
        accelerator.init_trackers(PROJECT, plain_values(options), how)
    except Exception as error:  # of each tracker's own kind
        raise RuntimeError(
            f"A tracker of --log_with cannot be started: {' '.join(str(error).split())} What needs "
            "an account works without one where it is told so, such as with WANDB_MODE=offline; "
            "or leave `log_with` out."
        ) from error


def plain_values(options: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """Write what is neither a number nor a word as JSON: trackers take nothing else."""
    return {
        name: value if isinstance(value, str | int | float) else json.dumps(value, default=str)
        for name, value in options.items()
    }


def tell_texts(accelerator: Accelerator, step: int, texts: Sequence[SampleText]) -> None:
    """Show sample texts in the trackers that know texts.

    Args:
        accelerator: knows the trackers.
        step: updates taken.
        texts: in the order of their prompts.
    """
    rows = [[getattr(text, column) for column in _COLUMNS] for text in texts]
    for tracker in accelerator.trackers:
        if tracker.name in _TABLES:
            _TABLES[tracker.name](tracker, step, rows)


def _as_text(tracker: Any, step: int, rows: list[list[Any]]) -> None:
    # Indented, which Markdown shows as it is: what a model writes is no markup.
    lines = [f"    {nats}\t{text!r}" for _, text, _, nats in rows]
    tracker.log({_SAMPLES: "\n".join([f"    {_COLUMNS[-1]}\ttext", *lines])}, step=step)


def _as_wandb_table(tracker: Any, step: int, rows: list[list[Any]]) -> None:
    tracker.log_table(_SAMPLES, columns=_COLUMNS, data=rows, step=step)


def _as_trackio_table(tracker: Any, step: int, rows: list[list[Any]]) -> None:
    table = sys.modules["trackio"].Table  # the tracker has imported it; nobody else needs it
    tracker.log({_SAMPLES: table(columns=_COLUMNS, data=rows)}, step=step)


_TABLES: dict[str, Callable[[Any, int, list[list[Any]]], None]] = {
    "tensorboard": _as_text,
    "wandb": _as_wandb_table,
    "trackio": _as_trackio_table,
}


def _id_of(folder: Path) -> str:
    """Return the id of the run in a folder; a new run gets one."""
    path = folder / ID_NAME
    with told_if_it_fails(path, "Make room, or see to the folder."):
        if not path.exists():
            replace_text(path, secrets.token_hex(4) + "\n")
        return path.read_text(encoding="utf-8").strip()
