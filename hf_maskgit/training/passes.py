"""Batches without end: pass after pass over the examples, from where a run stands."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import chain
from typing import Any

import torch
from accelerate import skip_first_batches
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader

from .checkpoints import Progress
from .collator import DataCollatorForMaskGit
from .updates import WithExampleIds


def kept_random_state(device: torch.device) -> AbstractContextManager[None]:
    """Leave torch's global generators as they were: dropout must not notice what happens inside."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def training_loader(
    examples: Dataset, collator: DataCollatorForMaskGit, batch_size: int, num_workers: int
) -> DataLoader[Any]:
    """Make the loader of the examples, shuffled, in whole batches.

    Args:
        examples: columns `input_ids` and `example_id`.
        collator: masks a batch.
        batch_size: examples per batch.
        num_workers: processes that prepare batches.
    """
    return DataLoader(
        examples,  # type: ignore[arg-type]  # a map-style data set all the same
        batch_size=batch_size,
        shuffle=True,
        drop_last=True,  # a short update would be a step of another size
        collate_fn=WithExampleIds(collator),
        num_workers=num_workers,
    )


def update_batches(
    loader: DataLoader[Any],
    collator: DataCollatorForMaskGit,
    progress: Progress,
    device: torch.device,
) -> Iterator[dict[str, Tensor]]:
    """Yield batches for ever, from where `progress` stands.

    Whoever takes them advances `progress`. Starting a loader draws from torch's global generator,
    and a resumed run starts one loader more than an uninterrupted one; so that state is put back.
    """
    while True:
        collator.set_epoch(progress.epoch)
        loader.set_epoch(progress.epoch)  # type: ignore[attr-defined]  # Accelerate's loaders have it
        batches = iter(skip_first_batches(loader, progress.updates_in_epoch))
        with kept_random_state(device):
            first = next(batches)
        yield from chain([first], batches)
