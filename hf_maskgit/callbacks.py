"""What `transformers.Trainer` needs to be told about masked diffusion."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import has_length

from .core.configuration_maskgit import MaskGitConfig
from .training.collator import DataCollatorForMaskGit
from .training.lengths import note_length_of

__all__ = ["SetEpochCallback"]


class SetEpochCallback(TrainerCallback):
    """Tell the collator of every new epoch, so that `Trainer` masks each example anew.

    The noise of examples with an `example_id` is keyed by the epoch, which `Trainer` does not tell
    its collator: without this callback every epoch would show the same masks. With it, and with
    `remove_unused_columns=False` (or Trainer drops the ids), a resumed run goes on exactly.

    Of a stream, an iterable data set of unknown length, the epoch is the number of the pass. Such a
    run is resumed exactly within its first pass; later ones are refused, because Trainer would skip
    all batches of the run in a single pass.

    Args:
        collator: the one that Trainer got as `data_collator`.

    Raises:
        ValueError: when training begins with `dataloader_persistent_workers`, or resumes in a later
            pass over a stream.
    """

    def __init__(self, collator: DataCollatorForMaskGit) -> None:
        self.collator = collator
        self._next_pass = 0  # over a stream

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Refuse what would show other masks than an uninterrupted run; note how long texts are."""
        config = getattr(kwargs.get("model"), "config", None)
        if isinstance(config, MaskGitConfig):
            note_length_of(config, getattr(kwargs.get("train_dataloader"), "dataset", None))
        if args.dataloader_persistent_workers and args.dataloader_num_workers:
            raise ValueError(
                "dataloader_persistent_workers=True keeps the collator of the first epoch, so "
                "every epoch would show the same masks; set it to False."
            )
        if not _is_stream(kwargs):
            return
        self._next_pass = int(state.epoch or 0)
        if self._next_pass and not args.ignore_data_skip:
            raise ValueError(
                f"This checkpoint stands in pass {self._next_pass + 1} over a stream of unknown "
                f"length, and Trainer would skip {state.global_step} updates in one pass to find "
                "its place. Resume from a checkpoint of the first pass, train on a data set with a "
                "length, or set ignore_data_skip=True to begin that pass anew."
            )

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set the epoch before the loader starts its workers."""
        if _is_stream(kwargs):
            # Trainer takes all updates for one epoch: after 3 of 12, a pass over, it says 0.25
            self.collator.set_epoch(self._next_pass)
            self._next_pass += 1
        else:
            self.collator.set_epoch(int(state.epoch or 0))


def _is_stream(told: dict[str, Any]) -> bool:
    """Tell whether the loader that Trainer tells its callbacks of has no length."""
    loader = told.get("train_dataloader")
    return loader is not None and not has_length(loader)
