"""The training loss: weighted masked cross-entropy, as a sum.

It is divided once, by the number of all maskable tokens of the optimizer update (over
micro-batches and processes), never by the number of chosen ones: only then is the weighted loss an
estimate of the bound on the negative log-likelihood per token (MDLM, arXiv 2406.07524, eq. 10).
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED_LABEL = -100  # torch's and transformers' mark of a position without a label

# Logits per block, by whether they lie on a CPU: 1 MiB of float32 stays in its cache; a GPU wants
# large kernels, and there the block only bounds the memory.
_BLOCK_ELEMENTS = {True: 2**18, False: 2**26}


def forbid(logits: Tensor, token_ids: Tensor) -> Tensor:
    """Return the logits in float32 with -inf at the ids that can never be emitted.

    Training, `nelbo` and the sampler all pass through here, so that they speak of one
    distribution.

    Args:
        logits: (..., V), any float dtype; left untouched.
        token_ids: (K,) long, the forbidden ids.
    """
    return at_least_float32(logits).index_fill(-1, token_ids.to(logits.device), -torch.inf)


def at_least_float32(logits: Tensor) -> Tensor:
    """Return logits of half precision in float32, others as they are."""
    return logits if logits.dtype == torch.float64 else logits.float()


class _BlockwiseCrossEntropy(torch.autograd.Function):
    """Cross-entropy by blocks of rows: half the time on a CPU, a third of the memory anywhere.

    The logits are the largest tensor of a training pass. Whole float32 copies of them (of the
    probabilities, and of both gradients) would go through memory several times; a block stays in
    the cache, and only the gradient is kept, in the logits' own dtype.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, forbidden_token_ids: Tensor) -> Tensor:
        wants = ctx.needs_input_grad[0]
        nll, gradient = _by_blocks(logits, labels, forbidden_token_ids, wants_slopes=wants)
        ctx.save_for_backward(gradient)
        return nll

    @staticmethod
    def backward(ctx: Any, nll_gradient: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * nll_gradient[:, None].to(gradient.dtype), None, None


def _by_blocks(
    logits: Tensor,
    labels: Tensor,
    forbidden_token_ids: Tensor,
    *,
    wants_slopes: bool,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Return the cross-entropies (N,), and the gradient (N, V) of their weighted sum or None."""
    exact = torch.float64 if logits.dtype == torch.float64 else torch.float32
    nll = torch.empty(len(labels), dtype=exact, device=logits.device)
    # float16 has no room for small probabilities before a scaled loss multiplies them.
    kept = exact if logits.dtype == torch.float16 else logits.dtype
    slopes = torch.empty_like(logits, dtype=kept) if wants_slopes else None
    rows = max(1, _BLOCK_ELEMENTS[logits.device.type == "cpu"] // logits.shape[-1])
    for start in range(0, len(labels), rows):
        block = slice(start, start + rows)
        target = labels[block, None]
        log_probability = forbid(logits[block], forbidden_token_ids).log_softmax(-1)
        nll[block] = -log_probability.gather(-1, target).squeeze(-1)
        if slopes is not None:  # probability - one-hot
            slope = log_probability.exp_()
            slope.scatter_add_(-1, target, slope.new_full(target.shape, -1.0))
            if weights is not None:
                slope *= weights[block, None]
            slopes[block] = slope
    return nll, slopes


def cross_entropy_and_slopes(
    logits: Tensor, labels: Tensor, forbidden_token_ids: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what `cross_entropy` does, and the gradient of its weighted sum, without autograd.

    Args:
        logits: (N, V), any float dtype.
        labels: (N,) long, none of them forbidden; -100 costs nothing.
        forbidden_token_ids: (K,) long, ids whose probability is 0.
        weights: (N,) float, of each position in the sum.

    Returns:
        (N,) in nats, and (N, V) in the logits' dtype.
    """
    ignored = labels < 0
    nll, slopes = _by_blocks(
        logits.detach(),
        labels.clamp_min(0),
        forbidden_token_ids,
        wants_slopes=True,
        weights=weights.masked_fill(ignored, 0.0),
    )
    return nll.masked_fill(ignored, 0.0), cast(Tensor, slopes)


def cross_entropy(logits: Tensor, labels: Tensor, forbidden_token_ids: Tensor) -> Tensor:
    """Return -log p(label) at each position, float32 (float64 for float64 logits).

    Args:
        logits: (N, V), any float dtype.
        labels: (N,) long, none of them forbidden; -100 costs nothing.
        forbidden_token_ids: (K,) long, ids whose probability is 0.

    Returns:
        (N,) in nats; its gradient cannot be differentiated again.
    """
    target = labels.clamp_min(0)
    if torch.compiler.is_compiling():  # a compiler makes its own blocks
        nll = F.cross_entropy(forbid(logits, forbidden_token_ids), target, reduction="none")
    else:
        nll = _BlockwiseCrossEntropy.apply(logits, target, forbidden_token_ids)
    return torch.where(labels < 0, 0.0, nll)


def weighted_sum(nll: Tensor, weights: Tensor | None) -> Tensor:
    """Sum the weighted cross-entropy over the chosen positions.

    Args:
        nll: (N,) from `cross_entropy`; N may be 0 (the sum is then 0 and still has a gradient).
        weights: (N,) float, or None for the plain masked cross-entropy of MaskGIT.

    Returns:
        The sum in nats, a scalar of the same dtype.
    """
    return (nll if weights is None else nll * weights.to(nll.dtype)).sum()
