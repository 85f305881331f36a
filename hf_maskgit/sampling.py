"""Pure functions of the sampler: scores of positions, how many to reveal, how to draw a token.

Letters: B rows, L length, V vocabulary, S steps, N masked positions of all rows together (in
row-major order, as `masked.nonzero()` lists them). Nothing here knows a model.
"""

from collections.abc import Callable

import torch
from torch import Tensor

_ROUNDING = 1e-9  # a float64 product meant to be an integer may lie a hair below it


def remaining_counts(num_masked: Tensor, mask_rates: Tensor) -> Tensor:
    """Plan how many positions of each row are still masked after each step.

    After step s the schedule leaves floor(N mask_rate(1 - (s + 1) / S)) masks, as in MaskGIT
    (arXiv 2202.04200, section 3.2), and every step reveals at least one. A row that has fewer masks
    than there are steps is therefore finished early.

    Args:
        num_masked: (B,) long, masks of each row at the start.
        mask_rates: (S,) float64, the schedule's mask rate at the end of each step, falling to 0.

    Returns:
        (S, B) long; the last row is 0.
    """
    remaining = num_masked
    plan = []
    for target in (mask_rates[:, None] * num_masked + _ROUNDING).floor().long():
        remaining = torch.minimum(target, remaining - 1).clamp_min(0)
        plan.append(remaining)
    return torch.stack(plan)


def highest(scores: Tensor, candidates: Tensor, counts: Tensor) -> Tensor:
    """Mark in each row the candidates with the highest scores; of equals the leftmost.

    Args:
        scores: (B, L) float.
        candidates: (B, L) bool.
        counts: (B,) long, how many to mark; a row with fewer candidates gets all of them.

    Returns:
        (B, L) bool.
    """
    # A candidate may itself score -inf and still goes before every other place.
    finite = scores.clamp_min(torch.finfo(scores.dtype).min).masked_fill(~candidates, -torch.inf)
    best_first = finite.argsort(dim=1, descending=True, stable=True)
    rank = torch.arange(scores.shape[1], device=scores.device).expand_as(best_first)
    ranks = torch.empty_like(best_first).scatter_(1, best_first, rank)
    return (ranks < counts[:, None]) & candidates


def top_log_probability(logits: Tensor) -> Tensor:
    """Score each position by the log-probability of its likeliest token, (N, V) -> (N,)."""
    return logits.amax(-1) - logits.logsumexp(-1)


def drawn_log_probability(logits: Tensor, tokens: Tensor) -> Tensor:
    """Score each position by the log-probability of the token drawn there, (N, V), (N,) -> (N,)."""
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
    cumulative = logits.softmax(-1).cumsum(-1)  # (N, V)
    if cumulative.device.type != "cpu":
        # A parallel sum may fall by a rounding error where a token has no probability.
        cumulative = cumulative.cummax(-1).values
    total = cumulative[:, -1:].contiguous()
    target = uniforms.to(cumulative.dtype)[:, None] * total
    tokens = torch.searchsorted(cumulative, target, right=True)
    last_possible = torch.searchsorted(cumulative, total)
    return torch.minimum(tokens, last_possible).squeeze(-1)


def gumbel(uniforms: Tensor) -> Tensor:
    """Turn uniforms in [0, 1) into standard Gumbel noise, same shape, always finite."""
    tiny = torch.finfo(uniforms.dtype).tiny
    return -(-uniforms.clamp_min(tiny).log()).clamp_min(tiny).log()


def annealing(step: int, steps: int) -> float:
    """Return the fraction of steps still to come after this one, (S - 1) / S falling to 0.

    The ancestor's `steps_until_x0 / steps`; scales the temperature and the choice noise.
    """
    return (steps - 1 - step) / steps


PositionScore = Callable[[Tensor], Tensor]

# Scores of a position that are known before a token is drawn there, (N, V) -> (N,). They, and
# `random`, keep the law of an exact denoiser at one reveal per pass; `confidence` looks at the
# drawn token and does not (arXiv 2510.04525).
POSITION_SCORES: dict[str, PositionScore] = {"top_probability": top_log_probability}
ORDERS: tuple[str, ...] = (*POSITION_SCORES, "confidence", "random")
PACES: tuple[str, ...] = ("schedule",)
