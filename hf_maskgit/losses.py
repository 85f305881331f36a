"""Losses as sums and counts, in float32.

A sum is divided once, by the number of all maskable tokens of the optimizer update (over
micro-batches and processes), never by the number of chosen ones: only then is the weighted loss an
estimate of the bound on the negative log-likelihood per token (MDLM, arXiv 2406.07524, eq. 10).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class LossSum:
    """A loss before its division.

    Attributes:
        sum: weighted sum of the losses in nats, float32 scalar.
        count: number of summands, long scalar.
    """

    sum: Tensor
    count: Tensor


def forbid(logits: Tensor, token_ids: Tensor) -> Tensor:
    """Return the logits in float32 with -inf at the ids that can never be emitted.

    Training, `nelbo` and the sampler all pass through here, so that they speak of one law.

    Args:
        logits: (..., V), any float dtype; left untouched.
        token_ids: (K,) long, the forbidden ids.
    """
    if logits.dtype not in (torch.float32, torch.float64):
        logits = logits.float()
    return logits.index_fill(-1, token_ids.to(logits.device), -torch.inf)


def masked_cross_entropy(
    logits: Tensor, labels: Tensor, weights: Tensor | None, forbidden_token_ids: Tensor
) -> LossSum:
    """Sum the weighted cross-entropy over the chosen positions.

    Args:
        logits: (N, V), any float dtype; N may be 0 (the sum is then 0 and still has a gradient).
        labels: (N,) long, the true ids, none of them forbidden.
        weights: (N,) float, or None for the plain masked cross-entropy of MaskGIT.
        forbidden_token_ids: (K,) long, ids whose probability is 0.

    Returns:
        The sum in nats and N.
    """
    nll = F.cross_entropy(forbid(logits, forbidden_token_ids), labels, reduction="none")  # (N,)
    if weights is not None:
        nll = nll * weights.to(nll.dtype)
    return LossSum(nll.sum(), torch.tensor(labels.numel(), device=labels.device))
