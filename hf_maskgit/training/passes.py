"""Batches without end: each process's share of update after update, from where a run stands.

Every process knows the order of all examples, a function of (seed, epoch), and cuts it into the
same whole updates. Of each it takes its share, as many examples as the others, side by side. So
nothing is said between processes, and what an update holds does not depend on how many there are.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as MapDataset

from ..core.schedules import Schedule
from .checkpoints import Progress
from .collator import DataCollatorForMaskGit
from .time_samplers import TIME_SAMPLERS, TimeSampler
from .updates import WithExampleIds


def kept_random_state(device: torch.device) -> AbstractContextManager[None]:
    """Leave torch's global generators as they were: dropout must not notice what happens inside."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def masked_on(
    device: torch.device,
    collator: DataCollatorForMaskGit,
    drawn: Mapping[str, Tensor],
    schedule: Schedule | None,
) -> dict[str, Tensor]:
    """Choose and corrupt on the device that the update is made on, and not beside it.

    That is some forty small operations. On a CPU whose cores prepare the next updates they took
    longer than a GPU takes for the update itself.

    Args:
        device: of the update.
        collator: which has drawn.
        drawn: what it drew, on the CPU.
        schedule: how much is masked at each time; None is the collator's own.

    Returns:
        What the collator makes of it, on `device`.
    """
    knows_float64 = device.type != "mps"
    if knows_float64:
        drawn = {name: tensor.to(device) for name, tensor in drawn.items()}
    masked = collator.mask(drawn, schedule)
    return {name: tensor.to(device) for name, tensor in masked.items()}


class UpdateOrder(Sampler[list[int]]):
    """Which rows each update takes, update after update of one epoch.

    Args:
        updates_of: gives the rows of an epoch's updates, (updates, update_size) long.
    """

    def __init__(self, updates_of: Callable[[int], Tensor]) -> None:
        self.updates_of = updates_of
        self._epoch, self._first = 0, 0

    def begin_at(self, epoch: int, update: int) -> None:
        """Set where the next iteration begins: an epoch, and an update in it."""
        self._epoch, self._first = epoch, update

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the rows of one whole update after the other."""
        for rows in self.updates_of(self._epoch)[self._first :]:
            yield rows.tolist()


class UpdateShares(MapDataset[list[dict[str, Any]]]):
    """One process's share of an update, by the rows of the whole update.

    Args:
        examples: columns `input_ids` and `example_id`.
        collator: ranks the examples of the epoch that it was set to.
        process_index: this process.
        num_processes: how many share an update; they divide its size.
    """

    def __init__(
        self,
        examples: Dataset,
        collator: DataCollatorForMaskGit,
        process_index: int = 0,
        num_processes: int = 1,
    ) -> None:
        self.examples, self.collator = examples, collator
        self.process_index, self.num_processes = process_index, num_processes
        self._ids = examples.select_columns("example_id")

    def __getitem__(self, rows: list[int]) -> list[dict[str, Any]]:
        """Return this process's examples of the update, each with its stratum in the whole."""
        strata = self.collator.strata(self._ids[rows]["example_id"])
        share = len(rows) // self.num_processes
        own = slice(self.process_index * share, (self.process_index + 1) * share)
        return [
            {**example, "time_stratum": (stratum, len(rows))}
            for example, stratum in zip(
                self.examples.__getitems__(rows[own]), strata[own], strict=True
            )
        ]


class UpdateBatches:
    """The batches of a run: of each update, this process's share, masked.

    Args:
        shares: gives the examples.
        order: of the updates.
        device: where batches go.
        num_workers: processes that prepare them.
        time_sampler: says how much of the texts each update masks.

    Attributes:
        order: may be replaced before the first batch is taken.
    """

    def __init__(
        self,
        shares: UpdateShares,
        order: UpdateOrder,
        device: torch.device,
        num_workers: int = 0,
        time_sampler: TimeSampler = TIME_SAMPLERS["uniform"],
    ) -> None:
        self.shares, self.order = shares, order
        self.device, self.num_workers = device, num_workers
        self.time_sampler = time_sampler

    def from_where_it_stands(self, progress: Progress) -> Iterator[dict[str, Tensor]]:
        """Yield batches for ever, from where `progress` stands.

        Whoever takes them advances `progress`. Starting a loader draws from torch's global
        generator, and a resumed run starts one loader more than an uninterrupted one; so that state
        is put back.
        """
        loader: DataLoader[Any] = DataLoader(
            self.shares,
            sampler=self.order,  # an update is what a loader without batches calls an example
            batch_size=None,
            collate_fn=WithExampleIds(self.shares.collator.draw),
            num_workers=self.num_workers,
        )
        while True:
            # before the workers start, which get copies
            self.shares.collator.set_epoch(progress.epoch)
            self.order.begin_at(progress.epoch, progress.updates_in_epoch)
            with kept_random_state(self.device):
                batches = iter(loader)
                first = next(batches)
            for drawn in chain([first], batches):
                # only now, because what an update masks may follow from the one before
                schedule = self.time_sampler.schedule(progress.time_moments)
                yield masked_on(self.device, self.shares.collator, drawn, schedule)

    def write(self, folder: Path) -> None:
        """Write nothing into a checkpoint: its progress tells all."""

    def read(self, folder: Path) -> None:
        """Read nothing from a checkpoint."""
