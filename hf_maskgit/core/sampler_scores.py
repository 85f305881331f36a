"""Pure functions of the sampler: how positions are scored, and how a token is drawn.

Letters: B rows, L length, V vocabulary, N positions of all rows together (in row-major order, as
`masked.nonzero()` lists them). Nothing here knows a model.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def highest(scores: Tensor, candidates: Tensor, counts: Tensor) -> Tensor:
    """Mark in each row the candidates with the highest scores; of equals the leftmost.

    Args:
        scores: (B, L) float.
        candidates: (B, L) bool.
        counts: (B,) long, how many to mark; a row with fewer candidates gets all of them.

    Returns:
        (B, L) bool.
    """
    return (ranks(scores, candidates) < counts[:, None]) & candidates


def ranks(scores: Tensor, candidates: Tensor) -> Tensor:
    """Rank each row's candidates from the highest score (0) down; the rest comes behind them.

    Args:
        scores: (B, L) float.
        candidates: (B, L) bool.

    Returns:
        (B, L) long; of equal scores the leftmost comes first.
    """
    # A row scored 5 2 9 7, with the third place no candidate: best first stand the places 3 0 1 2,
    # so that the places rank 1 2 3 0. A candidate may itself score -inf and still goes before
    # every place that is none.
    finite = scores.clamp_min(torch.finfo(scores.dtype).min).masked_fill(~candidates, -torch.inf)
    best_first = finite.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(scores.shape[1], device=scores.device).expand_as(best_first)
    # The inverse of the permutation: who stands at place i of the order has rank i.
    return torch.empty_like(best_first).scatter_(1, best_first, places)


def top_log_probability(logits: Tensor) -> Tensor:
    """Score each position by the log-probability of its likeliest token, (N, V) -> (N,)."""
    return logits.amax(-1) - logits.logsumexp(-1)


def margin(logits: Tensor) -> Tensor:
    """Score each position by how far its likeliest token leads, (N, V) -> (N,) in [0, 1].

    The difference of the two highest probabilities (arXiv 2502.06768).
    """
    # With a vocabulary of one token it leads by its whole probability.
    two = logits.topk(min(2, logits.shape[-1]), -1).values
    probabilities = (two - logits.logsumexp(-1, keepdim=True)).exp()
    return 2 * probabilities[:, 0] - probabilities.sum(-1)


def negative_entropy(logits: Tensor) -> Tensor:
    """Score each position by its entropy with a minus sign, (N, V) -> (N,) nats, at most 0."""
    return -torch.special.entr(logits.softmax(-1)).sum(-1)


def log_probability(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return the log-probability of one token per position, (N, V), (N,) -> (N,)."""
    return logits.gather(-1, tokens[:, None]).squeeze(-1) - logits.logsumexp(-1)


def draw(logits: Tensor, uniforms: Tensor) -> Tensor:
    """Draw one token per position by inverting the cumulative distribution.

    One uniform number per position instead of a noise field of the size of the logits.

    Args:
        logits: (N, V) float32 or float64; -inf marks a token that cannot be drawn.
        uniforms: (N,) float, in [0, 1).

    Returns:
        (N,) long. Never a token of probability 0: a uniform of 0 skips the empty start of the
        distribution, and one that rounds to the total takes the last token that has any
        probability.
    """
    # Probabilities .2 0 .8 cumulate to .2 .2 1: a uniform below .2 finds id 0, any other id 2.
    cumulative = logits.softmax(-1).cumsum(-1)  # (N, V)
    if cumulative.device.type != "cpu":
        # A parallel sum may fall by a rounding error where a token has no probability.
        cumulative = cumulative.cummax(-1).values
    # A float32 total may be 0.99999994, so the uniform is measured against it and not against 1.
    total = cumulative[:, -1:].contiguous()
    target = uniforms.to(cumulative.dtype)[:, None] * total
    tokens = torch.searchsorted(cumulative, target, right=True)
    last_possible = torch.searchsorted(cumulative, total)
    # Of a row of nan no comparison holds; whoever meets one must find it, and not an id that is
    # beyond the vocabulary.
    return torch.minimum(tokens, last_possible).clamp_max(logits.shape[-1] - 1).squeeze(-1)


def gumbel(uniforms: Tensor) -> Tensor:
    """Turn uniforms in [0, 1) into standard Gumbel noise, same shape, always finite."""
    # A uniform of exactly 0, and a logarithm that rounds to 0, would give an infinity.
    tiny = torch.finfo(uniforms.dtype).tiny
    return -(-uniforms.clamp_min(tiny).log()).clamp_min(tiny).log()


# A score of a position that is known before a token is drawn there, (N, V) -> (N,).
PositionScore = Callable[[Tensor], Tensor]
