"""Works beside each other in one run: their seconds in turn, and the bytes that each needs.

A machine is never as fast twice: its clock and its other users change from minute to minute. So
what is compared is run in turn, round by round, each round beginning with another work, and every
time is divided by that of the floor in the same round. Medians and quartiles of the rounds are
told: a round that was disturbed moves neither.

Bytes are those of torch's own allocator, beyond what it had handed out before: counted by CUDA on
a GPU, by torch's profiler on a CPU. What a library takes behind torch's back is not in them.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from .progress import ProgressBar


@dataclass(frozen=True)
class Contestant:
    """A work that is compared with others.

    Attributes:
        name: of the work.
        work: does it once.
        floor: name of the contestant that its times are divided by.
        check: does it once more, and returns facts about what it did; raises where it was not done.
        peak: does so much of it as takes as many bytes as the whole; None is the whole.
        most_rounds: in which it is timed, where it takes long; None is all.
        seconds: does it once and returns what a part of it took; None times the whole.
    """

    name: str
    work: Callable[[], Any]
    floor: str
    check: Callable[[], Mapping[str, float]]
    peak: Callable[[], Any] | None = None
    most_rounds: int | None = None
    seconds: Callable[[], float] | None = None

    def is_timed_in(self, number: int) -> bool:
        """Tell whether it is timed in a round, counted from 0."""
        return self.most_rounds is None or number < self.most_rounds


@dataclass(frozen=True)
class Timing:
    """What one work took.

    Attributes:
        name: of the work.
        floor: name of the work that it is divided by.
        seconds: of each round.
        ratios: to the floor in the same round.
        peak_bytes: at most, beyond what was held before; None where nobody counted.
        facts: what its check found.
    """

    name: str
    floor: str
    seconds: tuple[float, ...]
    ratios: tuple[float, ...]
    peak_bytes: int | None
    facts: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Return everything, medians and quartiles included, as JSON takes it."""
        return {
            "name": self.name,
            "floor": self.floor,
            "seconds": list(self.seconds),
            "seconds_quartiles": quartiles(self.seconds),
            "ratio_quartiles": quartiles(self.ratios),
            "peak_bytes": self.peak_bytes,
            **self.facts,
        }


def quartiles(values: Sequence[float]) -> list[float]:
    """Return the lower quartile, the median and the upper quartile of at least one value."""
    if len(values) == 1:
        return [values[0]] * 3
    return statistics.quantiles(values, n=4, method="inclusive")


def measure(
    contestants: Sequence[Contestant],
    rounds: int,
    device: torch.device,
    *,
    counts_bytes: bool = True,
    told: ProgressBar | None = None,
) -> list[Timing]:
    """Run every work once to warm up and be checked, once to count its bytes, then in turn.

    Args:
        contestants: among them every floor that is named.
        rounds: timed, at least 1.
        device: where the works are done.
        counts_bytes: whether their memory is told; counting slows the pass that is counted.
        told: of each work that is done, `number_of_works` in all.

    Raises:
        RuntimeError: of a check, for a work that was not done.
    """
    tell = (lambda: None) if told is None else told.update
    facts: dict[str, Mapping[str, float]] = {}
    peaks: dict[str, int | None] = {}
    for one in contestants:
        facts[one.name] = one.check()
        tell()
        peaks[one.name] = peak_bytes(one.peak or one.work, device) if counts_bytes else None
    seconds: dict[str, list[float]] = {one.name: [] for one in contestants}
    for number in range(rounds):
        first = number % len(contestants)
        for one in [*contestants[first:], *contestants[:first]]:
            if one.is_timed_in(number):
                timed = (
                    partial(seconds_of, one.work, device) if one.seconds is None else one.seconds
                )
                seconds[one.name].append(timed())
                tell()
    return [
        Timing(
            one.name,
            one.floor,
            tuple(seconds[one.name]),
            # what is timed in fewer rounds is so in the first
            tuple(a / b for a, b in zip(seconds[one.name], seconds[one.floor], strict=False)),
            peaks[one.name],
            facts[one.name],
        )
        for one in contestants
    ]


def header_of(cell: Any) -> dict[str, Any]:
    """Return what says which cell was measured, as JSON takes it: its `name` and its `sizes`."""
    return {"name": cell.name, "sizes": asdict(cell.sizes)}


def number_of_works(contestants: Sequence[Contestant], rounds: int) -> int:
    """Return how many works `measure` does, but for those whose bytes are counted."""
    timed = sum(one.is_timed_in(number) for one in contestants for number in range(rounds))
    return len(contestants) + timed


def seconds_of(work: Callable[[], Any], device: torch.device) -> float:
    """Time one call, from an idle device until the device is done."""
    synchronise(device)
    start = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has done all that was asked of it; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_bytes(work: Callable[[], Any], device: torch.device) -> int:
    """Return how many bytes torch held at most within a call, beyond those before it."""
    if device.type == "cuda":
        synchronise(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        synchronise(device)
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # or the profiler tells that it begins and ends
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    events: list[Any] = profiled.profiler.kineto_results.events()
    # Every allocation and release of the allocator, those within a kernel too.
    changes = sorted((e.start_ns(), i, e.nbytes()) for i, e in enumerate(events) if _is_change(e))
    held = most = 0
    for _, _, change in changes:
        held += change
        most = max(most, held)
    return most


def _is_change(event: Any) -> bool:
    return bool(event.name() == "[memory]")


class _EnoughError(Exception):
    """What is looked at has been done."""


@contextmanager
def counted_passes(encoder: nn.Module, most: int | None = None) -> Iterator[list[tuple[int, int]]]:
    """Count the passes of an encoder within: a list that grows by rows and tokens per row of each.

    Args:
        encoder: whose passes are meant, those of a copy of it that is made within, too.
        most: passes; what asks for another one ends there, and so does what is within.
    """
    shapes: list[tuple[int, int]] = []

    def note(module: nn.Module, arguments: Any, keywords: Any) -> None:
        if len(shapes) == most:
            raise _EnoughError
        given = [*arguments, *keywords.values()]
        text = next(value for value in given if isinstance(value, torch.Tensor))
        shapes.append((text.shape[0], text.shape[1]))

    handle = encoder.register_forward_pre_hook(note, with_kwargs=True)
    try:
        with suppress(_EnoughError):
            yield shapes
    finally:
        handle.remove()


def beginning_of(work: Callable[[], Any], encoder: nn.Module, passes: int) -> Callable[[], None]:
    """Return what does the beginning of a work: all before an encoder's pass behind the first few.

    Args:
        work: makes passes.
        encoder: whose passes are counted.
        passes: that are made.
    """

    def begin() -> None:
        with counted_passes(encoder, most=passes):
            work()

    return begin


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> tuple[float, float]:
    """Fit seconds = c size^e by least squares of the logarithms.

    Args:
        sizes: at least two different ones, > 0.
        seconds: > 0, one for each.

    Returns:
        e, and its standard error, which is 0 for two points.
    """
    x = torch.tensor(sizes, dtype=torch.float64).log()
    y = torch.tensor(seconds, dtype=torch.float64).log()
    x, y = x - x.mean(), y - y.mean()
    slope = (x * y).sum() / (x * x).sum()
    free = len(sizes) - 2
    error = (
        ((y - slope * x).square().sum() / (free * (x * x).sum())).sqrt()
        if free
        else x.new_zeros(())
    )
    return float(slope), float(error)
