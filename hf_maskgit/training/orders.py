"""Which rows each update of an epoch takes: shuffled, or grouped by length to pad little."""

import torch
from datasets import Dataset
from torch import Tensor

from ..core.noise import keyed_generator

# Updates that are sorted by length together. More would pad less, and make updates less random.
GROUPED_UPDATES = 50


def shuffled_updates(num_examples: int, update_size: int, seed: int, epoch: int) -> Tensor:
    """Shuffle the examples of an epoch and cut them into updates.

    Args:
        num_examples: how many there are.
        update_size: examples of one update; those that fill none are left out of this epoch.
        seed: of the run.
        epoch: passes before this one.

    Returns:
        (updates, update_size) long, the rows of the examples.
    """
    generator = torch.Generator().manual_seed(seed + epoch)
    order = torch.randperm(num_examples, generator=generator)
    return order[: num_examples // update_size * update_size].view(-1, update_size)


def grouped_updates(lengths: Tensor, update_size: int, seed: int, epoch: int) -> Tensor:
    """Shuffle the examples of an epoch, and put those of about one length into one update.

    1. Shuffle as `shuffled_updates` does, which leaves out the same examples. 2. Sort each chunk of
    `GROUPED_UPDATES` updates by length and cut it anew. 3. Shuffle the updates, and within each the
    examples, so that all processes get shares alike.

    An example is as likely to be in the first update as in any other, but who stands beside it is
    of about its length: a single update is no random sample of the texts.

    Args:
        lengths: (examples,) long, tokens of each.
        update_size: examples of one update.
        seed: of the run.
        epoch: passes before this one.

    Returns:
        (updates, update_size) long, the rows of the examples.
    """
    updates = shuffled_updates(len(lengths), update_size, seed, epoch)
    generator = keyed_generator(seed, epoch, update_size)
    grouped = [
        # stable, so that equal lengths stay in their random order
        rows.flatten()[lengths[rows.flatten()].argsort(stable=True)].view(-1, update_size)
        for rows in updates.split(GROUPED_UPDATES)
    ]
    together = torch.cat(grouped) if grouped else updates
    together = together[torch.randperm(len(together), generator=generator)]
    within = torch.rand(together.shape, generator=generator).argsort(1)
    return together.gather(1, within)


def lengths_of(examples: Dataset) -> Tensor:
    """Count the tokens of each example, (examples,) long.

    Args:
        examples: column `input_ids`.
    """
    rows = examples.select_columns("input_ids").with_format("arrow").iter(10_000)
    parts = [
        torch.tensor(table["input_ids"].combine_chunks().value_lengths().to_numpy()).long()
        for table in rows
    ]
    return torch.cat(parts)


def padding_share(lengths: Tensor, updates: Tensor, batch_size: int) -> float:
    """Tell which share of all positions is padding, where passes of an update are sorted by length.

    Args:
        lengths: (examples,) long, tokens of each.
        updates: (updates, update_size) long, the rows of each.
        batch_size: examples per forward pass.
    """
    real = positions = 0
    for rows in lengths[updates].sort(1, descending=True).values:
        for piece in rows.split(batch_size):
            real += int(piece.sum())
            positions += int(piece.max()) * len(piece)
    return 1 - real / positions


def batches_of_one_length(examples: Dataset, size: int, seed: int) -> list[list[int]]:
    """Put examples of about the same length together: half of the work may be padding otherwise.

    Args:
        examples: column `input_ids`.
        size: examples per batch; those that fill none are left out.
        seed: of the order of the batches, and of the order among examples of equal length.

    Returns:
        Rows of each batch, as a `batch_sampler` gives them.
    """
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([len(ids) for ids in examples["input_ids"]])
    # less than one token of noise: it mixes equal lengths and keeps the others in order
    by_length = (lengths + torch.rand(len(lengths), generator=generator)).argsort()
    batches = by_length[: len(lengths) // size * size].view(-1, size)
    return batches[torch.randperm(len(batches), generator=generator)].tolist()
