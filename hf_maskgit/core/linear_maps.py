"""Linear maps by oneDNN, which torch brings along and asks in half precision only.

In float32 torch has the linear maps of a CPU multiplied by its BLAS. That library writes rows of a
width such as BERT's 30,522 words at two thirds of its own speed, as most of them begin at no
aligned address, and is slower at an encoder's layers too. The sums are the same, in another order.
The operation is the one to which torch's compiler turns linear maps on a CPU; where it is missing,
the map is torch's own.

Letters: N positions, I and O widths of what goes in and comes out.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .packed_weights import LEAST_WIDTH, PRODUCT, PackedWeights
from .quick_attention import attend, can_attend
from .quick_dropout import can_drop, drop

# What is done in place of an operation of torch's, and whether it can be.
_INSTEAD: dict[Callable[..., Any], tuple[Callable[..., bool], Callable[..., Any]]] = {
    F.scaled_dot_product_attention: (can_attend, attend),
    F.dropout: (can_drop, drop),
}
# Sums of gradients (O, I) by the `id` of the weight, to which those of a backward pass are added.
Sums = dict[int, Tensor]


def quick_products(
    model: Any, packs: PackedWeights | None = None, compiled: bool | None = None
) -> contextlib.AbstractContextManager[Any]:
    """Let the linear maps of a model within go by oneDNN, where that is worth it.

    Not where a module is compiled: a compiler chooses by itself. What is returned can be entered
    again and again, in one thread.

    Args:
        model: whose passes are made within, forward and backward; what is no module, and stands for
            a model, has them made elsewhere.
        packs: the weights of a decoding whose passes these are.
        compiled: what `is_compiled` says of the model; None has it asked.
    """
    if not isinstance(model, nn.Module):
        return contextlib.nullcontext()
    wide = (p for p in model.parameters() if p.ndim == 2 and min(p.shape) >= LEAST_WIDTH)
    weights = next(wide, None)  # the others are likely to be the same
    if (
        weights is None
        or not (is_quick(weights) or (packs is not None and packs.takes(weights)))
        or torch.compiler.is_compiling()
        or (is_compiled(model) if compiled is None else compiled)
    ):
        return contextlib.nullcontext()
    return LinearMaps(packs=packs)


def is_compiled(model: Any) -> bool:
    """Tell whether a module of a model is compiled; of what is no module, nobody knows it is."""
    modules = model.modules() if isinstance(model, nn.Module) else ()
    return any(module._compiled_call_impl for module in modules)


class LinearMaps(TorchFunctionMode):
    """Within, linear maps in float32 on a CPU are multiplied by oneDNN.

    Attention and dropout are done in the ways of `quick_attention` and `quick_dropout`, where these
    are faster.

    Args:
        sums: where gradients of some weights are summed, instead of being handed to autograd: those
            of the weights that it holds already.
        packs: weights that are packed, in bfloat16 too.
    """

    def __init__(self, sums: Sums | None = None, packs: PackedWeights | None = None) -> None:
        super().__init__()
        self._sums, self._packs = sums or {}, packs

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Stand in for a linear map, and do all else as it is done without."""
        kwargs = kwargs or {}
        if func in _INSTEAD:
            can, instead = _INSTEAD[func]
            return (instead if can(*args, **kwargs) else func)(*args, **kwargs)
        if func is not F.linear or kwargs:
            return func(*args, **kwargs)
        packed = None if self._packs is None else self._packs.product(*args)
        if packed is not None:
            return packed
        if _is_plain(*args):
            states, weight, *rest = args
            bias = rest[0] if rest else None
            if not torch.is_grad_enabled():
                return PRODUCT(states, weight, bias, "none", [], "")
            return _Linear.apply(states, weight, bias, self._sums.get(id(weight)))
        return func(*args)


def is_quick(tensor: Tensor) -> bool:
    """Tell whether oneDNN takes what is like a tensor now: float32 on a CPU, nothing quantised."""
    return (
        PRODUCT is not None
        and type(tensor) in (Tensor, nn.Parameter)
        and tensor.device.type == "cpu"
        and tensor.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
    )


def _is_plain(states: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Tell whether oneDNN can take a linear map, and whether that is worth it."""
    given = (states, weight) if bias is None else (states, weight, bias)
    return (
        all(map(is_quick, given))
        and states.ndim > 1
        and states.numel() > 0
        and weight.ndim == 2
        and min(weight.shape) >= LEAST_WIDTH
    )


class _Linear(torch.autograd.Function):
    """`linear` of (..., I), with the same gradients; they can be differentiated again."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, added_to: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(states, weight)
        ctx.added_to = added_to
        product: Tensor = PRODUCT(states, weight, bias, "none", [], "")
        return product

    @staticmethod
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor | None, ...]:
        states, weight = ctx.saved_tensors
        needs, added_to = ctx.needs_input_grad, ctx.added_to
        flat, rows = slopes.reshape(-1, len(weight)), states.reshape(-1, states.shape[-1])
        of_states = of_weight = None
        # Somebody may want gradients of gradients, which only torch's own products have.
        if needs[0] and torch.is_grad_enabled():
            of_states = slopes @ weight
        elif needs[0]:
            of_states = PRODUCT(slopes, weight.t(), None, "none", [], "")
        if needs[1] and added_to is not None:
            # Fresh memory for as many numbers costs a quarter of the product.
            torch.addmm(added_to, flat.t(), rows, out=added_to)
        elif needs[1]:  # here BLAS is the faster one
            of_weight = flat.t() @ rows
        return of_states, of_weight, flat.sum(0) if needs[2] else None, None
