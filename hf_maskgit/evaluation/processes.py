"""One evaluation by all processes of `accelerate launch`: the figures are those of one process."""

import math
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from .batches import sorted_batches
from .bound import NelboOutput

Result = TypeVar("Result")


def num_processes() -> int:
    """Count the processes that a launcher started together; 1 without one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return 1  # without a launcher no process group is begun
    return int(_state().num_processes)


def _state() -> Any:
    return PartialState()  # whose attributes are set where no type checker looks


def own_place() -> tuple[int, int]:
    """Tell which process this is, and of how many, by what the launcher said: no group is begun."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def own_device() -> torch.device:
    """Return the accelerator of this process, the one of its number on this machine; or the CPU."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return torch.device("cpu")
    number = int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device(accelerator.type, number % torch.accelerator.device_count())


def is_main_process() -> bool:
    """Tell whether this is the process that speaks."""
    return num_processes() == 1 or bool(_state().is_main_process)


def in_shares(
    measure: Callable[..., Result], texts: Sequence[Any], batch_size: int
) -> list[Result]:
    """Measure every process's share of the batches; all get the results of all that had one.

    Args:
        measure: called with `batch_size`, `progress` and `share`.
        texts: that it measures.
        batch_size: texts per pass.
    """
    world = num_processes()
    rank = int(_state().process_index) if world > 1 else 0
    how = {"batch_size": batch_size, "progress": rank == 0, "share": (rank, world)}
    # with fewer batches than processes some have none
    parts = [measure(**how)] if rank < math.ceil(len(texts) / batch_size) else []
    return list(gather_object(parts)) if world > 1 else parts


def bound_in_shares(
    measure: Callable[..., NelboOutput], texts: Sequence[Any], batch_size: int
) -> NelboOutput:
    """Put the bounds that the processes find into the order of the texts; see `in_shares`."""
    batches, world = sorted_batches(texts, batch_size), num_processes()
    order = [
        i
        for rank in range(min(world, len(batches)))
        for i in sorted(i for batch in batches[rank::world] for i in batch)
    ]
    found = NelboOutput.concatenate(in_shares(measure, texts, batch_size))
    return found.at(torch.tensor(order).argsort())
