"""Weights in the order in which oneDNN reads them, made once for all passes of a decoding.

oneDNN multiplies by blocks of a weight, which it cuts anew in every product. In one of few rows,
such as those of the LM head where few tokens are looked for, or a pass of an attention cache, that
takes as long as the product itself. Weights stay as they are while a text is written, so that the
blocks can be kept; with them, of a weight in float32 under autocast in bfloat16, what it was cast
to. They take as much memory as the weights in the number format of the product. Decodings at the
same time share them, and the last one takes them along.

Letters: N positions, I and O widths of what goes in and comes out.
"""

import weakref
from typing import Any

import torch
from torch import Tensor, nn

from .quick_dropout import is_plain

# Below it, calls in Python weigh more than products.
LEAST_WIDTH = 128
# Products from which on it is worth it: cutting takes as long as some three products save by it.
_FROM_USE = 3
# Bytes of a decoding's packed weights at most; the other weights stay as they are.
_MOST_BYTES = 2**30
# Blocks are laid out for about so many rows; those for one are as good for a thousand (measured).
_ROWS = 64

Key = tuple[int, torch.dtype]  # the `id` of a weight, and what it is multiplied in


def found(name: str) -> Any:
    """Return an operation of oneDNN, or None where it is missing or not made for the processor."""
    if not torch.backends.mkldnn.is_available():
        return None
    # Nobody has measured it on others.
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return None
    return getattr(torch.ops.mkldnn, name, None)


PRODUCT = found("_linear_pointwise")
_REORDER = found("_reorder_linear_weight")
_BF16 = found("_is_mkldnn_bf16_supported")


class _Packed:
    """A weight and its blocks.

    Args:
        weight: (O, I); it is kept, so that no other has its `id`.
        dtype: what it is multiplied in.
    """

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        self.weight, self._seen = weight, _state_of(weight)
        self.blocks: Tensor = _REORDER(weight.detach().to(dtype), _ROWS)

    @property
    def is_of_now(self) -> bool:
        """Whether the weight has not changed since."""
        return self._seen == _state_of(self.weight)


# Of all decodings that are going on.
_SHARED: weakref.WeakValueDictionary[Key, _Packed] = weakref.WeakValueDictionary()


class PackedWeights:
    """The weights of one decoding, packed once they have been met some times."""

    def __init__(self) -> None:
        self._uses: dict[Key, int] = {}
        self._packed: dict[Key, _Packed] = {}
        self._bytes = 0

    def product(self, states: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
        """Return the linear map (.., O) of states (.., I) by a packed weight (O, I).

        It is what torch makes of it, under autocast too: in the same number format.

        Args:
            states: what is mapped.
            weight: by what.
            bias: (O,) or None.

        Returns:
            None where the weight is not packed, because it is met for the first times, cannot be,
            is not worth it or is too much; or where somebody may ask for gradients.
        """
        dtype = _dtype_of(states, weight, bias)
        if dtype is None:
            return None
        packed = self._of(weight, dtype)
        if packed is None:
            return None
        bias = None if bias is None else bias.to(dtype)
        mapped: Tensor = PRODUCT(states.to(dtype), packed.blocks, bias, "none", [], "")
        return mapped

    def takes(self, weight: Tensor) -> bool:
        """Tell whether a weight of a model, and so probably the others, would be packed now."""
        return _dtype_of(weight, weight) is not None

    def _of(self, weight: Tensor, dtype: torch.dtype) -> _Packed | None:
        key = id(weight), dtype
        packed = self._packed.get(key)
        if packed is not None and packed.is_of_now:
            return packed
        uses = self._uses[key] = self._uses.get(key, 0) + 1
        if uses < _FROM_USE:
            return None
        size = 0 if packed is not None else weight.numel() * dtype.itemsize
        if self._bytes + size > _MOST_BYTES:
            return None
        self._bytes += size
        packed = _SHARED.get(key)
        if packed is None or not packed.is_of_now:
            packed = _SHARED[key] = _Packed(weight, dtype)
        self._packed[key] = packed
        return packed


def _state_of(weight: Tensor) -> tuple[int, int]:
    return weight._version, weight.data_ptr()


def _dtype_of(states: Tensor, weight: Tensor, bias: Tensor | None = None) -> torch.dtype | None:
    """Return what a linear map is multiplied in by packed blocks, or None where it is not.

    Not where a weight is computed, as another one may be next time.
    """
    if (
        torch.is_grad_enabled()
        or None in (PRODUCT, _REORDER)
        or type(weight) is not nn.Parameter
        or weight.is_inference()
        or weight.ndim != 2
        or min(weight.shape) < LEAST_WIDTH
        or not all(map(is_plain, (states, weight) if bias is None else (states, weight, bias)))
        or states.ndim < 2
        or not states.numel()
    ):
        return None
    dtype = weight.dtype
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
    elif states.dtype != dtype or (bias is not None and bias.dtype != dtype):
        return None  # torch has a word to say to that
    if dtype == torch.bfloat16:
        return dtype if _BF16 is not None and _BF16() else None
    return dtype if dtype == torch.float32 else None
