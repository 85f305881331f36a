"""Tensors of which each process holds a part: whole for files, and parts of what files hold.

FSDP2 holds its parts as `DTensor`. DeepSpeed's ZeRO-3 leaves a weight empty between the passes and
its part beside it in `ds_tensor`: flat, as long in each process, with padding behind the last one.
Files of a run hold whole tensors, so that a checkpoint of a sharded run is one like any other.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


def held(tensor: Tensor) -> Tensor:
    """Return what this process holds of a tensor, in the memory where it lies.

    Args:
        tensor: whole, or in shards.
    """
    part: Tensor | None = getattr(tensor, "ds_tensor", None)
    return tensor.detach() if part is None else part.detach()


def is_sharded(tensor: Tensor) -> bool:
    """Tell whether this process holds only a part of a tensor."""
    return isinstance(tensor, DTensor) or hasattr(tensor, "ds_tensor")


def size_of(tensor: Tensor) -> int:
    """Count the numbers of a tensor in all processes together."""
    return shape_of(tensor).numel()


def shape_of(tensor: Tensor) -> torch.Size:
    """Return the shape that a tensor has as a whole."""
    return torch.Size(getattr(tensor, "ds_shape", tensor.shape))


def whole(tensor: Tensor, keep: bool = True, values: Tensor | None = None) -> Tensor:
    """Return a tensor whole, without its gradient.

    Args:
        tensor: of a shard, every process must ask.
        keep: whether this process is to have it; the others get nothing instead of a shard.
        values: other numbers that lie as those that are `held` of the tensor, to be returned in
            their place.
    """
    part = held(tensor) if values is None else values
    if isinstance(part, DTensor):
        gathered = part.full_tensor()
    elif hasattr(tensor, "ds_tensor"):
        gathered = _joined(tensor, part)
    else:
        return part
    return gathered.cpu() if keep else gathered.new_empty(0)


def _joined(weight: Any, part: Tensor) -> Tensor:
    """Join the parts of all processes of a weight under ZeRO-3."""
    group = weight.ds_process_group
    parts = part.new_empty(torch.distributed.get_world_size(group) * part.numel())
    torch.distributed.all_gather_into_tensor(parts, part.contiguous(), group=group)
    return parts[: size_of(weight)].view(shape_of(weight))


def as_part_of(tensor: Any, values: Tensor) -> Tensor:
    """Return whole values as this process holds a tensor: of a shard, its part of them.

    Args:
        tensor: of the same shape, with the device, the format and the shards wanted.
        values: whole.
    """
    part = held(tensor)
    values = values.to(part.device, part.dtype)
    if isinstance(part, DTensor):
        return distribute_tensor(values, part.device_mesh, part.placements, src_data_rank=None)
    if hasattr(tensor, "ds_tensor"):
        start = torch.distributed.get_rank(tensor.ds_process_group) * part.numel()
        own = values.flatten()[start : start + part.numel()]
        return nn.functional.pad(own, (0, part.numel() - own.numel()))
    return values


def whole_state(model: nn.Module, keep: bool = True) -> dict[str, Tensor]:
    """Return what `state_dict` does, whole; tied weights are one tensor here too.

    Args:
        model: sharded, or not.
        keep: see `whole`.
    """
    state = model.state_dict(keep_vars=True)
    found = {}
    for names in _tied(state):
        found.update(dict.fromkeys(names, whole(state[names[0]], keep)))
    return {name: found[name] for name in state}


@torch.no_grad()
def fill_state(model: nn.Module, values: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """Give a model other weights.

    Args:
        model: sharded, or not; untouched where a name does not fit.
        values: whole, by the names of its `state_dict`, tied ones by any one of theirs.

    Returns:
        The names that are missing, and those that are unknown.

    Raises:
        RuntimeError: for a tensor of another shape.
    """
    state = model.state_dict(keep_vars=True)
    tied = _tied(state)
    missing = [names[0] for names in tied if not values.keys() & set(names)]
    unknown = sorted(values.keys() - state.keys())
    if missing or unknown:
        return missing, unknown
    for name in values:
        if values[name].shape != shape_of(state[name]):
            raise RuntimeError(
                f"size mismatch for {name}: {tuple(values[name].shape)}, and in this run's model "
                f"{tuple(shape_of(state[name]))}"
            )
    for name in values:
        held(state[name]).copy_(as_part_of(state[name], values[name]))
    return missing, unknown


def _tied(state: Mapping[str, Tensor]) -> list[list[str]]:
    """Group the names of a `state_dict` by the memory that they name."""
    groups: dict[Any, list[str]] = {}
    for name, tensor in state.items():
        part = held(tensor)
        local = part.to_local() if isinstance(part, DTensor) else part
        place = (local.data_ptr(), local.shape, local.dtype) if local.numel() else name
        groups.setdefault(place, []).append(name)
    return list(groups.values())


def untied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out what a state holds a second time, under the name that comes later.

    Args:
        state: from `whole_state`.
    """
    first: dict[int, str] = {}
    for name, tensor in state.items():
        first.setdefault(id(tensor), name)
    return {name: state[name].contiguous() for name in first.values()}
