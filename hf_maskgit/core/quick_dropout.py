"""Dropout by sixteen random bits per number, four numbers at a draw.

torch draws a number in [0, 1) for each entry that dropout looks at, one after the other on a CPU;
in an update that is as much work as a quarter of the encoder. Here one draw of 64 bits decides on
four entries. A share to be dropped is rounded to 1/65,536, and what is kept is scaled by the share
as it was rounded, so that its mean is what it was.
"""

from typing import Any

import torch
from torch import Tensor, nn

_BITS = 16
_AS_BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16}
_PER_DRAW = 64 // _BITS


def is_plain(tensor: Tensor) -> bool:
    """Tell whether a tensor holds numbers in float32 or bfloat16 on a CPU, and is nothing else."""
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.device.type == "cpu"
        and tensor.dtype in (torch.float32, torch.bfloat16)
    )


def can_drop(given: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> bool:
    """Tell whether `drop` takes what `dropout` is given, and whether anything is dropped."""
    return training and not inplace and 0 < p < 1 and is_plain(given) and given.numel() > 0


def drop(given: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Return what `dropout` does, of a tensor of any shape; see `can_drop`."""
    return only(given, kept(given.shape, p)) * (1 / kept_share(p))


def kept_share(p: float) -> float:
    """Return the share of entries that `kept` keeps in the mean."""
    return 1 - _bound(p) / 2**_BITS


def kept(shape: torch.Size, p: float) -> Tensor:
    """Draw which entries of a tensor are kept, bool, from torch's global generator."""
    draws = -(-shape.numel() // _PER_DRAW)
    # Of all numbers of 64 bits, so that each of their parts is any of 16 bits.
    drawn = torch.empty(draws, dtype=torch.int64).random_(-(2**63), None)
    bits = drawn.view(torch.int16)[: shape.numel()].view(shape)
    return bits >= _bound(p) - 2 ** (_BITS - 1)


def only(tensor: Tensor, there: Tensor) -> Tensor:
    """Return what is there (bool) of a tensor of numbers, and 0 elsewhere."""
    found: Tensor = _Only.apply(tensor, there)
    return found


class _Only(torch.autograd.Function):
    """A product with 0 and 1 by bits: a conversion of bool to bfloat16 takes ten times as long."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, there: Tensor) -> Tensor:
        ctx.save_for_backward(there)
        bits = _AS_BITS[tensor.dtype]
        return (tensor.view(bits) & -there.to(bits)).view(tensor.dtype)

    @staticmethod
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor, None]:
        return only(slopes, ctx.saved_tensors[0]), None


def _bound(p: float) -> int:
    """Return how many of the numbers of 16 bits mean that an entry is dropped; never all."""
    return min(round(p * 2**_BITS), 2**_BITS - 1)
