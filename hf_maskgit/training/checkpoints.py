"""Checkpoints: where a run stands, which one is the newest, which ones stay.

    output_dir/                 the final model, its tokenizer, training_options.yaml and the log
    output_dir/best/            the model with the lowest bound on held-out texts; where a critic
                                alone learns, the one whose critic judges them best
    output_dir/checkpoint-500/  everything needed to go on exactly after update 500

A checkpoint is written under another name first and renamed when it is whole, so that a run killed
while writing never leaves half a checkpoint to resume from. Accelerate keeps optimizer and random
states as pickles: resume only from checkpoints of your own. The model folders hold none.
"""

import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator

BEST_FOLDER = "best"
LOG_NAME = "training_log.jsonl"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_UNFINISHED = ".partial"


@dataclass
class Progress:
    """How far a run has come, and what must not change when it is resumed.

    Attributes:
        setting: what decides which examples an update holds, and what the optimizer remembers.
        step: updates taken.
        epoch: passes finished.
        updates_in_epoch: updates taken in the present pass.
        best_nats: lowest bound on held-out texts so far, nats per token; None before the first.
        best_auroc: the same where a critic alone learns, its highest AUROC.
    """

    setting: dict[str, float]
    step: int = 0
    epoch: int = 0
    updates_in_epoch: int = 0
    best_nats: float | None = None
    best_auroc: float | None = None

    def advance(self, epoch_updates: int) -> None:
        """Count one more update."""
        self.step += 1
        self.updates_in_epoch += 1
        if self.updates_in_epoch == epoch_updates:
            self.epoch, self.updates_in_epoch = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers, for Accelerate's checkpoints."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a checkpoint's numbers.

        Raises:
            ValueError: when the run that wrote them had other settings.
        """
        for name, value in self.setting.items():
            written = state["setting"].get(name)  # an older version may not have known it
            if written != value:
                raise ValueError(
                    f"The checkpoint was written with {name} = {written}, this run "
                    f"has {value}, and a checkpoint goes on as it began. Use the same value, or "
                    "start a new run from the model in its folder `best`."
                )
        self.__dict__.update(state)


def checkpoints(output_dir: str | Path) -> list[Path]:
    """List the whole checkpoints of a run, oldest first."""
    found = [path for path in Path(output_dir).glob("*") if _CHECKPOINT.fullmatch(path.name)]
    return sorted(found, key=_step)


def find_checkpoint(resume_from_checkpoint: str, output_dir: str | Path) -> Path:
    """Return the checkpoint folder to resume from.

    Args:
        resume_from_checkpoint: its path, or "latest" for the newest one in `output_dir`.
        output_dir: folder of the run.

    Raises:
        ValueError: when there is none, or when the run in `output_dir` has gone further: two
            futures of one checkpoint in one folder would be mistaken for each other.
    """
    if resume_from_checkpoint == "latest":
        found = checkpoints(output_dir)
        if not found:
            raise ValueError(
                f"There is no checkpoint in {str(output_dir)!r} to resume from; leave "
                "`resume_from_checkpoint` out to start anew."
            )
        return found[-1]
    path = Path(resume_from_checkpoint)
    if not _CHECKPOINT.fullmatch(path.name) or not (path / "random_states_0.pkl").exists():
        raise ValueError(
            f"{resume_from_checkpoint!r} is no checkpoint folder of a training run. Name one such "
            "as 'output/checkpoint-500', or 'latest'."
        )
    # Two futures of one checkpoint in one folder could not be told apart.
    later = [other.name for other in checkpoints(output_dir) if _step(other) > _step(path)]
    if later:
        raise ValueError(
            f"`output_dir` {str(output_dir)!r} holds {' and '.join(later)}, later than "
            f"{path.name}. Resume from 'latest', remove what is later, or name another folder."
        )
    return path


def how_to_go_on(output_dir: str | Path, recipe_name: str) -> str:
    """Say what is left of an interrupted run, and how to go on with it.

    Args:
        output_dir: folder of the run.
        recipe_name: name in it of the recipe with the run's options.
    """
    found = checkpoints(output_dir)
    if not found:
        return (
            f"Interrupted before the first checkpoint in {str(output_dir)!r}; to start anew there, "
            "add `overwrite_output_dir`."
        )
    return (
        f"Interrupted. The newest checkpoint is {str(found[-1])!r}; to go on from it, start the "
        f"script as before with these options: {Path(output_dir) / recipe_name} "
        "--resume_from_checkpoint latest"
    )


def check_output_dir(output_dir: str | Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse to write over another run.

    Raises:
        ValueError: when the folder holds anything and neither resuming nor overwriting is wanted.
    """
    path = Path(output_dir)
    if path.exists() and not path.is_dir():
        raise ValueError(f"`output_dir` {str(path)!r} is a file; name a folder.")
    if path.is_dir() and any(path.iterdir()) and not (resume or overwrite):
        raise ValueError(
            f"`output_dir` {str(path)!r} is not empty. Name another folder, go on with "
            "resume_from_checkpoint=latest, or replace its run with overwrite_output_dir."
        )


def clear_run(output_dir: str | Path) -> None:
    """Delete what a former run left that a new one would not replace; other files stay."""
    path = Path(output_dir)
    for old in (*checkpoints(path), *path.glob(f"checkpoint-*{_UNFINISHED}"), path / BEST_FOLDER):
        shutil.rmtree(old, ignore_errors=True)
    (path / LOG_NAME).unlink(missing_ok=True)


def save_checkpoint(accelerator: Accelerator, output_dir: str | Path, step: int, keep: int) -> Path:
    """Save the whole state of a run after update `step` and keep the `keep` newest checkpoints."""
    path = Path(output_dir) / f"checkpoint-{step}"
    unfinished = path.with_name(path.name + _UNFINISHED)
    accelerator.save_state(str(unfinished))
    accelerator.wait_for_everyone()  # a checkpoint is whole when the last process has written
    if accelerator.is_main_process:
        unfinished.rename(path)
        for old in checkpoints(output_dir)[:-keep]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()
    return path


def _step(path: Path) -> int:
    found = _CHECKPOINT.fullmatch(path.name)
    assert found is not None
    return int(found[1])
