"""What `transformers.Trainer` needs to be told about masked diffusion."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .masking import DataCollatorForMaskGit


class SetEpochCallback(TrainerCallback):
    """Tell the collator of every new epoch, so that `Trainer` masks each example anew.

    The noise of examples with an `example_id` is keyed by the epoch, which `Trainer` does not tell
    its collator: without this callback every epoch would show the same masks. With it, and with
    `remove_unused_columns=False` (or Trainer drops the ids), a resumed run goes on exactly.

    Args:
        collator: the one that Trainer got as `data_collator`.

    Raises:
        ValueError: when training begins with `dataloader_persistent_workers`.
    """

    def __init__(self, collator: DataCollatorForMaskGit) -> None:
        self.collator = collator

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Refuse loaders whose workers keep an old copy of the collator."""
        if args.dataloader_persistent_workers and args.dataloader_num_workers:
            raise ValueError(
                "dataloader_persistent_workers=True keeps the collator of the first epoch, so "
                "every epoch would show the same masks; set it to False."
            )

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set the epoch before the loader starts its workers."""
        self.collator.set_epoch(int(state.epoch or 0))
