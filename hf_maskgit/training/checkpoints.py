"""Checkpoints: where a run stands, which one is the newest whole one, which ones stay.

    output_dir/                 the final model, its tokenizer, training_options.yaml, the log, and
                                what it came to: metrics.json, curves.png, samples.jsonl
    output_dir/best/            the model with the lowest bound on held-out texts; where a critic
                                alone learns, the one whose critic judges them best
    output_dir/checkpoint-500/  everything needed to go on exactly after update 500

A checkpoint is written under another name first and renamed when it is whole, so that a run killed
while writing never leaves half a checkpoint to resume from; one that is damaged later is found by
its manifest. It holds safetensors and JSON, and nothing of a run's folder is ever unpickled.
"""

import logging
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from .adapters import ADAPTER_FOLDER
from .manifest import MANIFEST_NAME, DamagedCheckpointError, check_whole, write_manifest
from .run_facts import PLACE_IN_THE_DATA, Facts, check_same
from .run_files import (
    UNFINISHED,
    check_folder,
    in_every_process,
    read_json,
    told_if_it_fails,
    write_json,
)
from .run_log import CURVES_NAME, LOG_NAME, METRICS_NAME, SAMPLES_NAME
from .time_samplers import Moments, are_moments
from .trackers import ID_NAME

logger = logging.getLogger(__name__)
BEST_FOLDER = "best"
LAST_FILE = "README.md"  # that a run writes, so that it is finished where this is
PROGRESS_FILE = "progress.json"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


@dataclass
class Progress:
    """How far a run has come, and what must not change when it is resumed.

    Attributes:
        setting: what shapes the run, by name: its facts.
        step: updates taken.
        epoch: passes finished.
        updates_in_epoch: updates taken in the present pass.
        best_nats: lowest bound on held-out texts so far, nats per token; None before the first.
        best_auroc: the same where a critic alone learns, its highest AUROC.
        since_best: evaluations since the best one.
        skipped: updates that were left out, because they held numbers that are none.
        skipped_in_a_row: those of them since the last one that was taken.
        evaluation_due: whether the evaluation after the last update is still to be made.
        time_moments: what `time_samplers` measured; None where nothing was.
    """

    setting: Facts
    step: int = 0
    epoch: int = 0
    updates_in_epoch: int = 0
    best_nats: float | None = None
    best_auroc: float | None = None
    since_best: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    evaluation_due: bool = False
    time_moments: Moments | None = None

    def advance(self, epoch_updates: int | None) -> None:
        """Count one more update; None is a stream, whose passes are its own affair."""
        self.step += 1
        self.updates_in_epoch += 1
        if self.updates_in_epoch == epoch_updates:
            self.epoch, self.updates_in_epoch = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers and words."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any], allowed: Sequence[str] = ()) -> set[str]:
        """Take over a checkpoint's numbers.

        Args:
            state: from `state_dict`.
            allowed: names of the settings that may be others than there.

        Returns:
            The names of those that are. Where one of them decides the order of the data, the pass
            that was going on is left and the next one begins: there is no place in another order.

        Raises:
            ValueError: when the run that wrote them had other settings, or they are no progress.
        """
        check_progress(state)
        changed = check_same(state["setting"], self.setting, allowed)
        self.__dict__.update({**state, "setting": self.setting})
        if changed.intersection(PLACE_IN_THE_DATA) and self.updates_in_epoch:
            self.epoch, self.updates_in_epoch = self.epoch + 1, 0
        return changed


def check_progress(state: Any) -> None:
    """Raise a ValueError for what `Progress.state_dict` would not return."""
    kinds: dict[str, tuple[type, ...]] = {
        "setting": (dict,),
        "best_nats": (float, type(None)),
        "best_auroc": (float, type(None)),
        "evaluation_due": (bool,),
        "time_moments": (list, type(None)),
    }
    for field in fields(Progress):
        value = state.get(field.name)
        is_kind = type(value) in kinds.get(field.name, (int,))
        is_kind = is_kind and (field.name != "time_moments" or are_moments(value))
        if not is_kind or (type(value) is int and value < 0):
            raise ValueError(f"its {PROGRESS_FILE!r} has {value!r} as {field.name!r}")


def checkpoints(output_dir: str | Path) -> list[Path]:
    """List the whole checkpoints of a run, oldest first."""
    found = [path for path in Path(output_dir).glob("*") if _CHECKPOINT.fullmatch(path.name)]
    return sorted(found, key=_step)


def find_checkpoint(resume_from_checkpoint: str, output_dir: str | Path) -> Path:
    """Return the checkpoint folder to resume from.

    Args:
        resume_from_checkpoint: its path, or "latest" for the newest whole one in `output_dir`;
            damaged ones are named in a warning and passed over.
        output_dir: folder of the run.

    Raises:
        ValueError: when there is none, when the one named is not whole, or when the run in
            `output_dir` has gone further: two futures of one checkpoint in one folder would be
            mistaken for each other.
    """
    if resume_from_checkpoint == "latest":
        found = checkpoints(output_dir)
        if not found:
            raise ValueError(
                f"There is no checkpoint in {str(output_dir)!r} to resume from; leave "
                "`resume_from_checkpoint` out to start anew."
            )
        faults = []
        for path in reversed(found):
            fault = fault_of(path)
            if fault is None:
                return path
            faults.append(f"{path.name}: {fault}")
            logger.warning("Passing over %s, which is damaged: %s.", path.name, fault)
        raise ValueError(
            f"No checkpoint in {str(output_dir)!r} is whole ({'; '.join(faults)}). Nothing can be "
            "resumed; start a new run, from the model in its folder `best` where there is one."
        )
    path = Path(resume_from_checkpoint)
    if not _CHECKPOINT.fullmatch(path.name) or not path.is_dir():
        raise ValueError(
            f"{resume_from_checkpoint!r} is no checkpoint folder of a training run. Name one such "
            "as 'output/checkpoint-500', or 'latest'."
        )
    fault = fault_of(path)
    if fault is not None:
        raise ValueError(
            f"The checkpoint {resume_from_checkpoint!r} is damaged: {fault}. Resume from another "
            "one, or from 'latest', the newest that is whole."
        )
    # Two futures of one checkpoint in one folder could not be told apart.
    further = [other for other in checkpoints(output_dir) if _step(other) > _step(path)]
    later = [other.name for other in further if fault_of(other) is None]
    if later:
        raise ValueError(
            f"`output_dir` {str(output_dir)!r} holds {' and '.join(later)}, later than "
            f"{path.name}. Resume from 'latest', remove what is later, or name another folder."
        )
    return path


def fault_of(path: Path) -> str | None:
    """Say what is wrong with a checkpoint, as the end of a sentence; None where it is whole."""
    try:
        check_whole(path, _step(path))
    except DamagedCheckpointError as fault:
        return str(fault)
    except OSError as error:
        return f"it cannot be read ({error})"
    return None


def read_progress(checkpoint: Path) -> dict[str, Any]:
    """Read the progress of a whole checkpoint.

    Raises:
        ValueError: when its file holds anything else.
    """
    try:
        state = read_json(checkpoint / PROGRESS_FILE)
        check_progress(state)
    except ValueError as error:
        raise ValueError(f"The checkpoint {str(checkpoint)!r} is damaged: {error}.") from error
    return state


def how_to_go_on(output_dir: str | Path, overwrites: bool = False) -> str:
    """Say what is left of an interrupted run, and how to go on with it.

    Args:
        output_dir: folder of the run.
        overwrites: whether the command had `overwrite_output_dir`, which would delete it.
    """
    newest = next((p for p in reversed(checkpoints(output_dir)) if fault_of(p) is None), None)
    if newest is None:
        return (
            f"Interrupted before the first checkpoint in {str(output_dir)!r}; the same command "
            "begins anew."
        )
    command = "the same command" + overwrites * " without `overwrite_output_dir`"
    return f"Interrupted. The newest checkpoint is {str(newest)!r}; {command} goes on from it."


def clear_run(output_dir: str | Path) -> None:
    """Delete what a former run left that a new one would not replace; other files stay."""
    path = Path(output_dir)
    halves = path.glob(f"checkpoint-*{UNFINISHED}"), path.glob(f"model{UNFINISHED}")
    parts = path / BEST_FOLDER, path / ADAPTER_FOLDER
    for old in (*checkpoints(path), *chain(*halves), *parts):
        shutil.rmtree(old, ignore_errors=True)
    # the last one, too: where it is, a run is taken for finished
    for name in (LOG_NAME, SAMPLES_NAME, METRICS_NAME, CURVES_NAME, ID_NAME, LAST_FILE):
        (path / name).unlink(missing_ok=True)


def save_checkpoint(
    accelerator: Accelerator,
    output_dir: str | Path,
    progress: Progress,
    keep: int,
    write: Callable[[Path], None],
) -> Path:
    """Save the whole state of a run and keep the `keep` newest checkpoints.

    Args:
        accelerator: knows the processes, all of which call this.
        output_dir: folder of the run.
        progress: where it stands.
        keep: checkpoints that stay; older ones go once the new one is whole.
        write: writes this process's part of the state into a folder.

    Raises:
        RuntimeError: when it cannot be written; what was there before is as it was.
    """
    path = Path(output_dir) / f"checkpoint-{progress.step}"
    unfinished = path.with_name(path.name + UNFINISHED)
    advice = "Checkpoints that were there before are as they were; make room, or see to the folder."

    def prepare() -> None:
        if accelerator.is_main_process:
            check_folder(Path(output_dir))
            with told_if_it_fails(path, advice):
                shutil.rmtree(unfinished, ignore_errors=True)  # what a killed run left there
                unfinished.mkdir()

    def write_part() -> None:
        with told_if_it_fails(path, advice):
            write(unfinished)

    def finish() -> None:
        if not accelerator.is_main_process:
            return
        with told_if_it_fails(path, advice):
            write_json(unfinished / PROGRESS_FILE, progress.state_dict())
            write_manifest(unfinished, progress.step)
            if path.exists():  # a damaged one that was passed over
                shutil.rmtree(path)
            unfinished.rename(path)
        # Damaged ones were no use, so they do not count; nor are they removed, for their owner.
        whole = [old for old in checkpoints(output_dir) if (old / MANIFEST_NAME).exists()]
        for old in whole[:-keep]:
            shutil.rmtree(old, ignore_errors=True)

    try:
        for work in (prepare, write_part, finish):  # each begins when all have done the one before
            in_every_process(accelerator, work)
            accelerator.wait_for_everyone()
    except BaseException:
        if accelerator.is_main_process:
            shutil.rmtree(unfinished, ignore_errors=True)  # its room may be what is missing
        raise
    return path


def _step(path: Path) -> int:
    found = _CHECKPOINT.fullmatch(path.name)
    assert found is not None
    return int(found[1])
