"""Batches of a stream: each process's and each worker's lanes, update after update.

Every update takes equally many examples of each lane. A process has as many lanes as the others,
and deals them out to its workers; what these make of an update is put together. With its examples
each worker tells where its lanes stand behind them: what a checkpoint keeps is where the lanes
stood at the last update that was taken, however many were prepared beyond it.
"""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import fsspec.asyn
import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from .checkpoints import Progress
from .collator import DataCollatorForMaskGit
from .passes import kept_random_state, masked_on
from .run_files import read_json, write_json
from .streams import LaneState, StreamedExamples
from .time_samplers import TIME_SAMPLERS, TimeSampler
from .updates import WithExampleIds


class Part(NamedTuple):
    """What one worker makes of one update.

    Attributes:
        batch: its lanes' examples with their noise; empty behind a fault.
        states: where its lanes stand behind them.
        fault: why there is none; a row that is no text, say.
    """

    batch: dict[str, Tensor]
    states: list[LaneState]
    fault: Exception | None = None


class StreamParts(IterableDataset[Part]):
    """The parts of a process's updates, made by whichever worker asks.

    Args:
        stream: whose examples.
        collator: masks them; its epoch stays 0, as the ids of a stream are never used again.
        lanes: numbers of the process's lanes.
        update_size: examples of a whole update.
        states: where lanes stand, by number; those that are not in it begin.
    """

    def __init__(
        self,
        stream: StreamedExamples,
        collator: DataCollatorForMaskGit,
        lanes: range,
        update_size: int,
        states: dict[int, LaneState],
    ) -> None:
        self.stream, self.collator, self.lanes = stream, collator, lanes
        self.update_size, self.states = update_size, states

    def __iter__(self) -> Iterator[Part]:
        """Yield this worker's part of update after update, without end."""
        worker = get_worker_info()
        numbers = self.lanes
        if worker is not None:
            fsspec.asyn.reset_lock()  # of the process that this one is a copy of
            numbers = self.lanes[worker.id :: worker.num_workers]
        collate = WithExampleIds(self.collator.draw)
        each = self.update_size // self.stream.num_lanes
        try:
            lanes = [self.stream.lane(number, self.states.get(number)) for number in numbers]
            while True:
                # Lanes advance together, so that one lane tells the ids of the whole update.
                first = lanes[0].examples * self.stream.num_lanes
                strata = self.collator.strata(range(first, first + self.update_size))
                features = [example for lane in lanes for example in lane.take(each)]
                for example in features:
                    stratum = strata[example["example_id"] - first]
                    example["time_stratum"] = stratum, self.update_size
                yield Part(collate(features), [lane.state for lane in lanes])
        except (ValueError, RuntimeError) as fault:
            # As a value: a loader would tell it with the traceback of another process.
            kind = RuntimeError if isinstance(fault, RuntimeError) else ValueError
            while True:
                yield Part({}, [], kind(str(fault)))


class StreamBatches:
    """The batches of a run on a stream, as `UpdateBatches` are those of a data set.

    Args:
        stream: whose examples.
        collator: masks them.
        update_size: examples of one update.
        process_index: this process.
        num_processes: how many share an update.
        device: where batches go.
        num_workers: processes that prepare them; more than the process has lanes would idle.
        time_sampler: says how much of the texts each update masks.

    Raises:
        ValueError: for a number of lanes that the processes, or an update, cannot be divided by.
    """

    def __init__(
        self,
        stream: StreamedExamples,
        collator: DataCollatorForMaskGit,
        update_size: int,
        process_index: int,
        num_processes: int,
        device: torch.device,
        num_workers: int = 0,
        time_sampler: TimeSampler = TIME_SAMPLERS["uniform"],
    ) -> None:
        lanes = stream.num_lanes
        if lanes % num_processes or update_size % lanes:
            raise ValueError(
                f"`stream_lanes` is {lanes}, and an update has {update_size} examples of "
                f"{num_processes} processes: the processes must divide the lanes, and the lanes "
                "the examples. Set `stream_lanes` to a number that does both."
            )
        own = lanes // num_processes
        self.stream, self.collator, self.update_size = stream, collator, update_size
        self.lanes = range(process_index * own, (process_index + 1) * own)
        self.process_index, self.device = process_index, device
        self.num_workers, self.time_sampler = min(num_workers, own), time_sampler
        self.states: dict[int, LaneState] = {}

    def from_where_it_stands(self, progress: Progress) -> Iterator[dict[str, Tensor]]:
        """Yield batches for ever, from where the lanes stand; see `UpdateBatches`."""
        parts = StreamParts(
            self.stream, self.collator, self.lanes, self.update_size, dict(self.states)
        )
        loader: DataLoader[Any] = DataLoader(
            parts, batch_size=None, collate_fn=_as_it_is, num_workers=self.num_workers
        )
        with kept_random_state(self.device):
            loaded = iter(loader)
            first = next(loaded)
        made: Iterator[Part] = chain([first], loaded)
        while True:
            # The loader takes the workers in turn, and so an update's parts come together.
            together = [next(made) for _ in range(max(1, self.num_workers))]
            for part in together:
                if part.fault is not None:
                    raise part.fault
                self.states.update({state["lane"]: state for state in part.states})
            drawn = joined([part.batch for part in together], self.collator.tokenizer.pad_token_id)
            # only now, because what an update masks may follow from the one before
            schedule = self.time_sampler.schedule(progress.time_moments)
            yield masked_on(self.device, self.collator, drawn, schedule)

    def write(self, folder: Path) -> None:
        """Write where this process's lanes stand into a checkpoint."""
        states = [self.states[number] for number in sorted(self.states) if number in self.lanes]
        write_json(folder / _states_file(self.process_index), {"lanes": states})

    def read(self, folder: Path) -> None:
        """Go on where all lanes stood, however many processes had them.

        Raises:
            ValueError: for a checkpoint that does not tell it of every lane.
        """
        found: dict[int, LaneState] = {}
        for path in sorted(folder.glob(_states_file("*"))):
            stored = read_json(path)
            lanes = stored.get("lanes") if isinstance(stored, dict) else None
            for state in lanes if isinstance(lanes, list) else []:
                found[state["lane"]] = state
        if sorted(found) != list(range(self.stream.num_lanes)):
            raise ValueError(
                f"{str(folder)!r} does not tell where the {self.stream.num_lanes} lanes of the "
                f"stream stood (it has {len(found)}). Resume with the same `stream_lanes`, from a "
                "checkpoint of a run on a stream."
            )
        self.states = found


def joined(parts: list[dict[str, Tensor]], pad_token_id: int) -> dict[str, Tensor]:
    """Put parts of one update together, in the order of their examples' ids.

    Args:
        parts: what `DataCollatorForMaskGit.draw` makes of each, with an `example_id` (b,).
        pad_token_id: what fills up their `input_ids`.

    Returns:
        One batch (B, L), the same however many parts it came in.
    """
    width = max(part["input_ids"].shape[1] for part in parts)

    def widened(name: str, tensor: Tensor) -> Tensor:
        missing = width - tensor.shape[1] if tensor.ndim > 1 else 0
        if not missing:
            return tensor
        # (b, l) or (b, l, n): the second dimension is the one that grows
        sides = [0, 0] * (tensor.ndim - 2) + [0, missing]
        return pad(tensor, sides, value=pad_token_id if name == "input_ids" else 0)

    whole = {name: torch.cat([widened(name, part[name]) for part in parts]) for name in parts[0]}
    order = whole["example_id"].argsort()
    return {name: tensor[order] for name, tensor in whole.items()}


def _states_file(process_index: int | str) -> str:
    return f"stream_states_{process_index}.json"


def _as_it_is(part: Any) -> Any:
    return part
