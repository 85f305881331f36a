"""Pure functions of the sampler: how positions are scored, and how a token is drawn.

Letters: B rows, L length, V vocabulary, N positions of all rows together (in row-major order, as
`masked.nonzero()` lists them). Nothing here knows a model.
"""

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

_CHUNK = 128  # tokens of a chunk, of which one is found before the token in it


class Distribution:
    """Logits (N, V) with what several questions to them share, computed once.

    Args:
        logits: (N, V) float32 or float64; -inf marks a token that cannot be drawn. Left untouched.
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def __len__(self) -> int:
        """Return N."""
        return len(self.logits)

    @classmethod
    def of(cls, logits: "Tensor | Distribution") -> "Distribution":
        """Return the distributions of logits, or these as they are."""
        return logits if isinstance(logits, Distribution) else cls(logits)

    @cached_property
    def highest(self) -> Tensor:
        """Highest logit of each, (N,)."""
        return self.logits.amax(-1)

    @cached_property
    def probabilities(self) -> Tensor:
        """Probabilities (N, V)."""
        return self.logits.softmax(-1)

    @cached_property
    def top(self) -> Tensor:
        """Highest probability of each, (N,); nan where the logits are no distribution."""
        return self.probabilities.amax(-1)

    def of_tokens(self, tokens: Tensor) -> Tensor:
        """Logits of one token each, (N,) -> (N,)."""
        return self.logits.gather(-1, tokens[:, None]).squeeze(-1)

    @property
    def witness(self) -> Tensor:
        """Numbers (N,) that are finite where the logits are a distribution."""
        return self.top if "top" in self.__dict__ else self.highest


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


def top_log_probability(logits: Tensor | Distribution) -> Tensor:
    """Score each position by the log-probability of its likeliest token, (N, V) -> (N,)."""
    return Distribution.of(logits).top.log()


def margin(logits: Tensor | Distribution) -> Tensor:
    """Score each position by how far its likeliest token leads, (N, V) -> (N,) in [0, 1].

    The difference of the two highest probabilities (arXiv 2502.06768).
    """
    # With a vocabulary of one token it leads by its whole probability.
    of = Distribution.of(logits).probabilities
    two = of.topk(min(2, of.shape[-1]), -1).values
    return 2 * two[:, 0] - two.sum(-1)


def negative_entropy(logits: Tensor | Distribution) -> Tensor:
    """Score each position by its entropy with a minus sign, (N, V) -> (N,) nats, at most 0."""
    return -torch.special.entr(Distribution.of(logits).probabilities).sum(-1)


def log_probability(logits: Tensor | Distribution, tokens: Tensor) -> Tensor:
    """Return the log-probability of one token per position, (N, V), (N,) -> (N,)."""
    of = Distribution.of(logits)
    # Less the highest, a logit is the logarithm of the token's odds against the likeliest one; a
    # probability itself may be too small for its dtype.
    odds = of.of_tokens(tokens) - of.highest
    return odds + of.top.log()


def likeliest_tokens(logits: Tensor | Distribution, count: int) -> Tensor:
    """Return ids and log-probabilities of the likeliest tokens, (N, V) -> (N, `count`, 2) float64.

    The likeliest first; -1 and -inf stand behind the last that has a probability.
    """
    of = Distribution.of(logits)
    odds, ids = of.logits.topk(min(count, of.logits.shape[-1]), -1)
    logs = odds - of.highest[:, None] + of.top.log()[:, None]
    found = torch.stack([ids.double().masked_fill(odds == -torch.inf, -1), logs.double()], -1)
    rest = found.new_tensor([-1.0, -torch.inf]).expand(len(found), count - found.shape[1], 2)
    return torch.cat([found, rest], 1)


def draw(logits: Tensor | Distribution, uniforms: Tensor) -> Tensor:
    """Draw one token per position by inverting the cumulative distribution.

    One uniform number per position instead of a noise field of the size of the logits, and two
    short searches instead of a long one: for the chunk of tokens that it falls into, among their
    sums, and for the token in it.

    Args:
        logits: (N, V) float32 or float64; -inf marks a token that cannot be drawn.
        uniforms: (N,) float, in [0, 1).

    Returns:
        (N,) long. Never a token of probability 0: a uniform of 0 skips the empty start of the
        distribution, and one that rounds to the total takes the last token that has any
        probability.
    """
    # Probabilities .2 0 .8 cumulate to .2 .2 1: a uniform below .2 finds id 0, any other id 2.
    return draw_by(Distribution.of(logits).probabilities, uniforms)


def draw_by(of: Tensor, uniforms: Tensor) -> Tensor:
    """Draw one token per position as `draw`, with probabilities in proportion to (N, V) weights."""
    uniforms = uniforms.double()[:, None]
    if of.shape[-1] <= _CHUNK:
        return _found(of, uniforms)[0].squeeze(-1)
    chunk, target, cumulative = _found(_by_chunks(of, torch.sum), uniforms)
    inside, tokens = _chunk_of(of, chunk.squeeze(-1), 0.0)
    place, *_ = _found(inside, _within(chunk, target, cumulative))
    return tokens.gather(-1, place).squeeze(-1)


def likeliest(logits: Tensor) -> Tensor:
    """Return the token of the highest logit at each position, of equals the first, (N, V) -> (N,).

    As `argmax`, which goes over a long row number by number where a maximum goes by many at once.
    """
    inside, tokens = _chunk_of(logits, _by_chunks(logits, torch.amax).argmax(-1), -torch.inf)
    return tokens.gather(-1, inside.argmax(-1, keepdim=True)).squeeze(-1)


def _by_chunks(rows: Tensor, take: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Take the sum or maximum of every chunk of tokens, (N, V) -> (N, C); the last may be short."""
    whole = rows.shape[-1] // _CHUNK
    parts = [take(rows[:, : whole * _CHUNK].unflatten(-1, (whole, _CHUNK)), -1)] if whole else []
    if rows.shape[-1] > whole * _CHUNK:
        parts.append(take(rows[:, whole * _CHUNK :], -1)[:, None])
    return torch.cat(parts, -1)


def _chunk_of(rows: Tensor, chunk: Tensor, behind: float) -> tuple[Tensor, Tensor]:
    """Pick one chunk of each row.

    Args:
        rows: (N, V).
        chunk: (N,) long, which.
        behind: what stands behind the end of a short one.

    Returns:
        Its numbers and the ids of its tokens, (N, c) each; behind the end, the last token's.
    """
    size = rows.shape[-1]
    place = torch.arange(min(_CHUNK, size), device=rows.device)
    tokens = (chunk * _CHUNK)[:, None] + place
    inside = tokens.clamp_max(size - 1)
    return rows.gather(-1, inside).masked_fill(tokens >= size, behind), inside


def _found(weights: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find where uniforms fall among weights.

    Args:
        weights: (N, C), at least 0.
        uniforms: (N, 1) float64, in [0, 1).

    Returns:
        (N, 1) long, an index whose weight is not 0; (N, 1) float64, the uniforms as shares of the
        total; (N, C) float64, the weights summed up.
    """
    cumulative = weights.double().cumsum(-1)
    if cumulative.device.type != "cpu":
        # A parallel sum may fall by a rounding error where there is no weight.
        cumulative = cumulative.cummax(-1).values
    # The uniform is measured against the total as it was rounded, and not against 1.
    total = cumulative[:, -1:].contiguous()
    target = uniforms * total
    place = torch.searchsorted(cumulative, target, right=True)
    last_possible = torch.searchsorted(cumulative, total)
    # Of a row of nan no comparison holds; whoever meets one must find it, and not an id that is
    # beyond the vocabulary.
    place = torch.minimum(place, last_possible).clamp_max(weights.shape[-1] - 1)
    return place, target, cumulative


def _within(place: Tensor, target: Tensor, cumulative: Tensor) -> Tensor:
    """Say where in what they hit uniforms fall: (N, 1) float64 in [0, 1), uniform given that.

    Args:
        place: (N, 1), as `_found` returns all three.
        target: (N, 1).
        cumulative: (N, C).
    """
    before = cumulative.gather(-1, (place - 1).clamp_min(0)).masked_fill(place == 0, 0.0)
    hit = cumulative.gather(-1, place) - before
    return ((target - before) / hit).clamp(0, 1 - 2.0**-53)


def gumbel(uniforms: Tensor) -> Tensor:
    """Turn uniforms in [0, 1) into standard Gumbel noise, same shape, always finite."""
    # A uniform of exactly 0, and a logarithm that rounds to 0, would give an infinity.
    tiny = torch.finfo(uniforms.dtype).tiny
    return -(-uniforms.clamp_min(tiny).log()).clamp_min(tiny).log()


# A score of a position that is known before a token is drawn there, (N, V) -> (N,).
PositionScore = Callable[[Distribution], Tensor]
