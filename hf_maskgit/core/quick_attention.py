"""Attention of a CPU by two products and a softmax, block by block, where torch's own is slower.

The fused attention that torch has for a CPU is slower than these in bfloat16, and knows no dropout:
with it, torch goes over whole tensors (B, h, A, L), one operation after the other, and takes half
of an update for it. Here what is done to some heads stays in the cache. The weights are those of
torch but for rounding.

Letters: B rows, h heads, A queries and L keys of a row, d width of a head, m matrices of a block.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .quick_dropout import is_plain, kept, kept_share, only

# Scores of a block: about as many as a cache holds (measured).
_BLOCK = {torch.bfloat16: 2**20, torch.float32: 2**18}
# In bfloat16 and heads as narrow, torch's own is as fast.
_NARROW = 16

Which = tuple[slice, slice]  # rows and heads


def can_attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> bool:
    """Tell whether `attend` takes what torch's attention is given, and is faster."""
    given = (query, key, value)
    if (
        is_causal
        or enable_gqa
        or not 0 <= dropout_p < 1
        or not all(is_plain(one) and one.ndim == 4 and one.numel() for one in given)
        or not query.shape[:2] == key.shape[:2] == value.shape[:2]
        or len({one.dtype for one in given}) > 1
        or not (attn_mask is None or (type(attn_mask) is Tensor and attn_mask.dtype == torch.bool))
        # which casts
        or (torch.is_autocast_enabled("cpu") and query.dtype != torch.get_autocast_dtype("cpu"))
    ):
        return False
    return dropout_p > 0 or (query.dtype == torch.bfloat16 and query.shape[-1] > _NARROW)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Return what `scaled_dot_product_attention` does, (B, h, A, d); see `can_attend`.

    Args:
        query: (B, h, A, d).
        key: (B, h, L, d).
        value: likewise.
        attn_mask: bool, broadcast over (B, h, A, L), which keys are seen; None is all. What sees
            none attends to all alike.
        dropout_p: share of the weights that is dropped.
        is_causal: False.
        scale: of the scores; None is 1 / sqrt(d).
        enable_gqa: False.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if attn_mask is not None:
        attn_mask = attn_mask.expand(*query.shape[:3], key.shape[2])
    attended: Tensor = _Attention.apply(query, key, value, attn_mask, dropout_p, scale)
    return attended


class _Attention(torch.autograd.Function):
    """Attention (B, h, A, d); its gradients can be differentiated again."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        dropout_p: float,
        scale: float,
    ) -> Tensor:
        rows, heads, queries, _ = query.shape
        attended = query.new_empty(rows, queries, heads, value.shape[3]).transpose(1, 2)
        saved: list[Tensor] = []
        for which in _blocks(query, key):
            q, k, v = _of_block(which, query, key, value)
            weights = _weights(q, k, None if mask is None else mask[which], scale)
            there = [kept(weights.shape, dropout_p)] if dropout_p else []
            if there and any(ctx.needs_input_grad):  # else they are soon made again
                saved += [weights, *there]
            attended[which] = _mixed(weights, v, there, dropout_p).view(attended[which].shape)
        ctx.save_for_backward(query, key, value, mask, *saved)
        ctx.dropout_p, ctx.scale = dropout_p, scale
        return attended

    @staticmethod
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, mask, *saved = ctx.saved_tensors
        given, dropout_p, scale = (query, key, value), ctx.dropout_p, ctx.scale
        needs = ctx.needs_input_grad[:3]
        found = [
            torch.zeros_like(one) if need else None for one, need in zip(given, needs, strict=True)
        ]
        for number, which in enumerate(_blocks(query, key)):
            q, k, v, slope = _of_block(which, *given, slopes)
            seen = None if mask is None else mask[which]
            there = saved[2 * number + 1 : 2 * number + 2]
            if torch.is_grad_enabled():  # somebody may want gradients of gradients
                mixed = _mixed(_weights(q, k, seen, scale), v, there, dropout_p)
                asked = [one for one, need in zip((q, k, v), needs, strict=True) if need]
                some = iter(torch.autograd.grad(mixed, asked, slope, create_graph=True))
                made = [next(some) if need else None for need in needs]
            else:
                weights = saved[2 * number] if saved else _weights(q, k, seen, scale)
                made = [*_slopes(q, k, v, slope, weights, there, dropout_p, scale)]
            for whole, part in zip(found, made, strict=True):
                if whole is not None and part is not None:
                    whole[which] = part.view(whole[which].shape)
        return *found, None, None, None


def _blocks(query: Tensor, key: Tensor) -> Iterator[Which]:
    """Cut rows, and heads where one row is too much, into blocks whose scores a cache holds."""
    rows, heads, queries, _ = query.shape
    matrices = max(1, _BLOCK[query.dtype] // (queries * key.shape[2]))
    at_once = max(1, matrices // heads)
    for row in range(0, rows, at_once):
        for head in range(0, heads, min(matrices, heads)):
            yield slice(row, row + at_once), slice(head, head + min(matrices, heads))


def _of_block(which: Which, *given: Tensor) -> list[Tensor]:
    """Take the matrices (m, ., .) of some rows and heads."""
    return [one[which].flatten(0, 1) for one in given]


def _weights(query: Tensor, key: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Return the weights (m, A, L) of queries (m, A, d) for keys (m, L, d)."""
    unused = query.new_zeros(())
    scores = torch.baddbmm(unused, query, key.transpose(1, 2), beta=0, alpha=scale)
    if mask is not None:
        least = torch.finfo(scores.dtype).min
        scores = scores.view(mask.shape).masked_fill(~mask, least).view(scores.shape)
    return scores.softmax(-1)


def _mixed(weights: Tensor, value: Tensor, there: Sequence[Tensor], dropout_p: float) -> Tensor:
    """Return values (m, L, d) mixed by weights (m, A, L), of which only some are kept."""
    for kept_ones in there:
        weights, value = only(weights, kept_ones), value * (1 / kept_share(dropout_p))
    return weights @ value


def _slopes(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    slopes: Tensor,
    weights: Tensor,
    there: Sequence[Tensor],
    dropout_p: float,
    scale: float,
) -> tuple[Tensor, ...]:
    """Return the gradients of a block's queries, keys and values.

    Args:
        query: (m, A, d).
        key: (m, L, d).
        value: likewise.
        slopes: (m, A, d), gradients of what the block attends to.
        weights: (m, A, L).
        there: which of them are kept, where some are dropped.
        dropout_p: share that is.
        scale: of the scores.
    """
    used = weights
    for kept_ones in there:
        used, slopes = only(weights, kept_ones), slopes * (1 / kept_share(dropout_p))
    of_weights = slopes @ value.transpose(1, 2)
    for kept_ones in there:
        of_weights = only(of_weights, kept_ones)
    of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
    unused = query.new_zeros(())
    return (
        torch.baddbmm(unused, of_scores, key, beta=0, alpha=scale),
        torch.baddbmm(unused, of_scores.transpose(1, 2), query, beta=0, alpha=scale),
        used.transpose(1, 2) @ slopes,
    )
