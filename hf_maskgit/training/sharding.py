"""FSDP2: weights, gradients and averages in shards, one per process.

A layer is whole only while it works. Accelerate decides whether to shard (`accelerate launch
--use_fsdp --fsdp_version 2`); what is sharded is decided here, because an LM head that is tied to
the embeddings, weight and bias, has to stay in one group with them. Files of a run hold whole
tensors, so that a checkpoint of a sharded run is one like any other.
"""

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from .adapters import has_adapters

_FORMATS = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}
_RESHARDS = "reshards_after_forward"  # of a layer; what is around the layers stays whole until then


def check_engine(accelerator: Accelerator) -> None:
    """Refuse a way to split a model that no checkpoint can be written of without pickles.

    Raises:
        ValueError: naming those that can.
    """
    kind = accelerator.distributed_type.value
    if kind in ("DEEPSPEED", "MEGATRON_LM", "XLA") or (kind == "FSDP" and not accelerator.is_fsdp2):
        name = "the first version of FSDP" if kind == "FSDP" else kind
        raise ValueError(
            f"Accelerate is set up for {name}, and a checkpoint of such a run cannot be written "
            "without pickles. Train with whole copies of the model, one per process (MULTI_GPU, "
            "MULTI_CPU), or with its weights in shards by FSDP2 (--use_fsdp --fsdp_version 2)."
        )


def shard_on_cpus(accelerator: Accelerator) -> None:
    """Let several CPU processes shard as well where that is asked for, which Accelerate leaves out.

    It reads the same settings for them and then makes whole copies without a word.
    """
    asked = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if asked and accelerator.distributed_type == DistributedType.MULTI_CPU:
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
        for state in (PartialState._shared_state, accelerator.state.__dict__):
            state["distributed_type"] = DistributedType.FSDP


def shard(accelerator: Accelerator, model: nn.Module) -> None:
    """Shard a model, if that is asked for; before its optimizer is made.

    Each layer of an encoder is a group of its own, and all else together one more.

    Args:
        accelerator: says whether, and how.
        model: the same weights in every process; changed in place.

    Raises:
        ValueError: for a model with adapters.
    """
    if not accelerator.is_fsdp2:
        return
    if has_adapters(model):
        raise ValueError(
            "`lora_r` and FSDP do not go together: adapters are small, and what they are added to "
            "does not learn. Train with whole copies of the model (without --use_fsdp), or without "
            "`lora_r`."
        )
    plugin, device = accelerator.state.fsdp_plugin, accelerator.device
    kind = _FORMATS[accelerator.mixed_precision]
    # Only weights are cast: a loss weight such as 127/3 would be rounded, and the loss with it.
    policy = MixedPrecisionPolicy(
        param_dtype=kind,
        reduce_dtype=None if kind is None else torch.float32,
        cast_forward_inputs=False,
    )
    how: dict[str, Any] = {
        "mesh": init_device_mesh(device.type, (accelerator.num_processes,)),
        "mp_policy": policy,
        "offload_policy": plugin.cpu_offload,
    }
    # It warns of operations in place on what a pass returns; there are none.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    model.to(device)
    for layer in layers_of(model):
        fully_shard(layer, **how, reshard_after_forward=plugin.reshard_after_forward)
        setattr(layer, _RESHARDS, plugin.reshard_after_forward)
    fully_shard(model, **how)


def layers_of(model: nn.Module) -> list[nn.Module]:
    """Return the layers of the encoders in a model: the entries of its outermost module lists."""
    if isinstance(model, nn.ModuleList):
        return [entry for entry in model if any(True for _ in entry.parameters())]
    return [layer for part in model.children() for layer in layers_of(part)]


@contextmanager
def whole_weights(model: nn.Module) -> Iterator[None]:
    """Have all weights whole for a while, so that a process may work with the model on its own.

    Passes over a sharded model wait for each other, and processes that measure shares of texts, or
    one that writes a text, do not make equally many. All processes enter and leave together.

    Args:
        model: sharded, or not.
    """
    groups = [part for part in model.modules() if isinstance(part, FSDPModule)]
    for group in groups:
        group.set_reshard_after_forward(False, recurse=False)
        group.unshard()
    try:
        yield
    finally:
        for group in groups:
            group.reshard()
            group.set_reshard_after_forward(getattr(group, _RESHARDS, False), recurse=False)


def whole(tensor: Tensor, keep: bool = True) -> Tensor:
    """Return a tensor whole, without its gradient.

    Args:
        tensor: of a shard, every process must ask.
        keep: whether this process is to have it; the others get nothing instead of a shard.
    """
    tensor = tensor.detach()
    if not isinstance(tensor, DTensor):
        return tensor
    gathered = tensor.full_tensor()
    return gathered.cpu() if keep else gathered.new_empty(0)


def is_sharded(tensor: Tensor) -> bool:
    """Tell whether this process holds only a part of a tensor."""
    return isinstance(tensor, DTensor)


def as_part_of(tensor: Tensor, values: Tensor) -> Tensor:
    """Return whole values as a tensor like another one: of a shard, this process's part of them.

    Args:
        tensor: of the same shape, with the device, the format and the shards wanted.
        values: whole.
    """
    values = values.to(tensor.device, tensor.dtype)
    if not isinstance(tensor, DTensor):
        return values
    return distribute_tensor(values, tensor.device_mesh, tensor.placements, src_data_rank=None)


def whole_state(model: nn.Module, keep: bool = True) -> dict[str, Tensor]:
    """Return what `state_dict` does, whole; tied weights are one tensor here too.

    Args:
        model: sharded, or not.
        keep: see `whole`.
    """
    state = model.state_dict()
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
    state = model.state_dict()
    tied = _tied(state)
    missing = [names[0] for names in tied if not values.keys() & set(names)]
    unknown = sorted(values.keys() - state.keys())
    if missing or unknown:
        return missing, unknown
    for name in values:
        if values[name].shape != state[name].shape:
            raise RuntimeError(
                f"size mismatch for {name}: {tuple(values[name].shape)}, and in this run's model "
                f"{tuple(state[name].shape)}"
            )
    for name in values:
        state[name].copy_(as_part_of(state[name], values[name]))
    return missing, unknown


def _tied(state: Mapping[str, Tensor]) -> list[list[str]]:
    """Group the names of a `state_dict` by the memory that they name."""
    groups: dict[Any, list[str]] = {}
    for name, tensor in state.items():
        local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
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
