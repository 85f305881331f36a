"""Which masked positions go first: the table of orders, one row per value.

An order looks at the places that compete in a pass and scores them; some ask the denoiser for that,
some draw a token first. The formulas are in `sampler_scores`.

Letters: R rows still being decoded, L length, V vocabulary, N positions; p the denoiser's
distribution at a position.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor

from .decoding_turn import Turn
from .position_logits import PositionLogits
from .sampler_scores import (
    Distribution,
    PositionScore,
    log_probability,
    margin,
    negative_entropy,
    top_log_probability,
)


class Look(NamedTuple):
    """What an order has found out about the places that compete.

    Attributes:
        scores: (R, L) float, highest first; what stands elsewhere means nothing.
        known: (R, L) bool, the N places whose logits are known; None where none were asked for.
        logits: theirs.
        drawn: (N,) long, a token for each, where the order draws before it chooses.
    """

    scores: Tensor
    known: Tensor | None = None
    logits: PositionLogits | None = None
    drawn: Tensor | None = None

    def of(self, rows: Tensor) -> "Look":
        """Return what was found out about some rows (n,), in their order, at places that it knows.

        Args:
            rows: ascending.
        """
        known, logits = cast(Tensor, self.known), cast(PositionLogits, self.logits)
        here = torch.zeros_like(known)
        here[rows] = known[rows]
        taken = here[known]
        drawn = None if self.drawn is None else self.drawn[taken]
        return Look(self.scores[rows], known[rows], logits.only(taken), drawn)

    def beside(self, other: "Look") -> "Look":
        """Return both of two looks at the same rows and different places."""
        mine, theirs = cast(Tensor, self.known), cast(Tensor, other.known)
        known = mine | theirs
        parts = [
            (of[known], cast(PositionLogits, look.logits))
            for of, look in ((mine, self), (theirs, other))
        ]
        drawn = None
        if self.drawn is not None and other.drawn is not None:
            drawn = placed(self.drawn, mine).masked_scatter(theirs, other.drawn)[known]
        return Look(
            torch.where(mine, self.scores, other.scores), known, PositionLogits.beside(parts), drawn
        )


@dataclass(frozen=True)
class Order:
    """Which masked positions go first: one row of the table.

    Attributes:
        help: which go first, after "those".
        look: scores the places (R, L) bool that compete in a turn.
        asks: the places (R, L) bool where it asks for logits, given those; None asks nowhere.
        source: the paper or project.
        noise: option that scales the Gumbel noise on its scores; None where it takes none.
        choice_temperature: what that option is where nobody sets it, for the orders that read it.
        draws: it is random in itself.
        reads: options of its own.
        asks_critic: its scores are the token critic's log-odds.
        in_nats: its scores are entropies, with a minus sign.
        most: no score of it is higher; None where nothing says so.
        blind: it looks at no logits and no tokens, so that it is known before either.
        competing: the remasking that `can_mask_prev_unmasked` means with it.
        of_classes: of a pattern's law, sums over classes of tokens tell its scores.
    """

    help: str
    look: Callable[[Turn, Tensor], Look]
    asks: Callable[[Turn, Tensor], Tensor] | None = None
    source: str = ""
    noise: str | None = None
    choice_temperature: float = 0.0
    draws: bool = False
    reads: tuple[str, ...] = ()
    asks_critic: bool = False
    in_nats: bool = False
    most: float | None = None
    blind: bool = False
    competing: str = "confidence"
    of_classes: bool = False


def _by_position(score: PositionScore, whole: bool = True) -> Callable[[Turn, Tensor], Look]:
    """Score masks by what is known before a token is drawn there.

    `whole` scores look at all tokens, others only at the likeliest, which may be known without.

    Such orders, and those that look at no logits, keep the distribution of an exact denoiser at one
    reveal per pass; a score of the drawn token does not (arXiv 2510.04525).
    """

    def look(turn: Turn, places: Tensor) -> Look:
        logits = turn.logits(places, kept=_is_kept(turn, whole or turn.tokens_compete))
        standing = _standing(turn, places)
        (scores,) = logits.read(lambda block, which: (standing(block, which, score(block)),))
        return Look(placed(scores, places), places, logits)

    return look


def _by_drawn_token(turn: Turn, places: Tensor) -> Look:
    logits = turn.logits(places, kept=_is_kept(turn))
    standing = _standing(turn, places)
    draw = turn.drawer(logits, places)

    def read(block: Distribution, which: slice) -> tuple[Tensor, Tensor]:
        drawn = draw(block, which)
        return drawn, standing(block, which, log_probability(block, drawn))

    drawn, scores = logits.read(read)
    return Look(placed(scores, places), places, logits, drawn)


def _is_kept(turn: Turn, whole: bool = True) -> bool:
    """Tell whether logits will be read several times, as a pattern's law reads them itself."""
    return whole and turn.state.patterns is not None


def _there(turn: Turn, places: Tensor) -> Tensor:
    return places


def _at_all_masks(turn: Turn, places: Tensor) -> Tensor:
    # A critic reads a whole text, so a token is drawn at every mask, in all blocks.
    return turn.state.masked


def _by_critic(turn: Turn, places: Tensor) -> Look:
    masks = _at_all_masks(turn, places)
    logits = turn.logits(masks, kept=_is_kept(turn))
    draw = turn.drawer(logits, masks)
    (drawn,) = logits.read(lambda block, which: (draw(block, which),))
    return Look(placed(turn.critic_scores(drawn, places), places), masks, logits, drawn)


def _by_chance(turn: Turn, places: Tensor) -> Look:
    return Look(turn.coins)


def _from_the_left(turn: Turn, places: Tensor) -> Look:
    column = torch.arange(places.shape[1], device=places.device, dtype=turn.coins.dtype)
    return Look(-column.expand(places.shape))


def _standing(turn: Turn, places: Tensor) -> Callable[[Distribution, slice, Tensor], Tensor]:
    """Return what scores a revealed token as it stands, and leaves the scores of masks."""
    if not turn.tokens_compete:
        return lambda block, which, of_masks: of_masks
    is_mask, tokens = turn.state.masked[places], turn.state.text[places]  # (N,)

    def scores(block: Distribution, which: slice, of_masks: Tensor) -> Tensor:
        # At a mask, the id that stands there is the mask itself, and its score is not taken.
        return torch.where(is_mask[which], of_masks, log_probability(block, tokens[which]))

    return scores


def placed(scores: Tensor, places: Tensor) -> Tensor:
    """Spread (N,) over places (R, L) bool: scores 5 7 at places 0 1 0 1 give 0 5 0 7."""
    field = torch.zeros(places.shape, dtype=scores.dtype, device=scores.device)
    return field.masked_scatter(places, scores)


# Without noise the surest positions come first in every text, and by the time the unsure ones are
# drawn the temperature is near 0: texts of one prompt are alike. How much noise makes them differ
# at equal quality was measured, see docs/samplers.md; it is in the unit of the score.
ORDERS: dict[str, Order] = {
    "top_probability": Order(
        "where max p is highest",
        _by_position(top_log_probability, whole=False),
        _there,
        "arXiv 2510.04525 (choose the place, then draw)",
        noise="choice_temperature",
        choice_temperature=2.0,
        most=0.0,
        of_classes=True,
    ),
    "margin": Order(
        "where the two likeliest tokens are furthest apart",
        _by_position(margin),
        _there,
        "arXiv 2502.06768",
        noise="choice_temperature",
        choice_temperature=1.0,
        most=1.0,
    ),
    "entropy": Order(
        "where the entropy of p is lowest",
        _by_position(negative_entropy),
        _there,
        noise="choice_temperature",
        choice_temperature=2.0,
        in_nats=True,
        most=0.0,
    ),
    "confidence": Order(
        "where the token just drawn is likeliest; texts repeat more",
        _by_drawn_token,
        _there,
        "MaskGIT, arXiv 2202.04200; x-transformers",
        noise="choice_temperature",
        choice_temperature=4.5,
        most=0.0,
    ),
    "critic": Order(
        "where a token critic finds the token just drawn most likely right; one critic pass more "
        "per step",
        _by_critic,
        _at_all_masks,
        "arXiv 2209.04439",
        noise="noise_level_scale",
        reads=("noise_level_scale",),
        asks_critic=True,
        competing="critic",
    ),
    "random": Order("any", _by_chance, draws=True, blind=True),
    "left_to_right": Order("the leftmost", _from_the_left, blind=True),
}
# Orders whose scores are log-probabilities, of one kind with that of a token that stands there.
LOG_PROBABILITIES = ("top_probability", "confidence")
BLIND = tuple(name for name, row in ORDERS.items() if row.blind)
