"""FSDP2: weights, gradients and averages in shards, one per process.

A layer is whole only while it works. Accelerate decides whether to shard (`accelerate launch
--use_fsdp --fsdp_version 2`); what is sharded is decided here, because an LM head that is tied to
the embeddings, weight and bias, has to stay in one group with them.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from .adapters import has_adapters
from .arguments import TrainArguments
from .engine import Engine

_FORMATS = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}
_RESHARDS = "reshards_after_forward"  # of a layer; what is around the layers stays whole until then


class FSDP2(Engine):
    """Weights, gradients and averages in shards, by `shard` below."""

    def check(self, accelerator: Accelerator, options: TrainArguments) -> None:
        """See `Engine`."""
        options.check_whole_matrices(
            "FSDP", "Train with whole copies of the model (without --use_fsdp)"
        )

    def layout(self, accelerator: Accelerator) -> str:
        """See `Engine`."""
        return "FSDP2"

    def shard(self, accelerator: Accelerator, model: nn.Module) -> None:
        """See `Engine`."""
        shard(accelerator, model)

    def whole_weights(self, model: nn.Module) -> AbstractContextManager[None]:
        """See `Engine`."""
        return whole_weights(model)


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
    """Shard a model, before its optimizer is made.

    Each layer of an encoder is a group of its own, and all else together one more.

    Args:
        accelerator: says how.
        model: the same weights in every process; changed in place.

    Raises:
        ValueError: for a model with adapters.
    """
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
