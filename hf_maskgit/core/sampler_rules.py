"""The three choices of a sampler: a table each for order, pace and remasking, one row per value.

- `order`: which masked positions go first;
- `pace`: how many per pass;
- `remask`: which revealed tokens are masked again.

A row says all there is to know of its value: what it does, what it goes with, which options it
reads, whether it draws. To add a value is to add a row. What goes together, which option has an
effect and what greedy decoding refuses follows from the rows, in `sampler_choices`. The formulas
are in `sampler_scores`, `sampler_paces` and `sampler_remasks`; `decoding` puts the rows together.

Letters: R rows, L length, V vocabulary, S steps, N positions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from .decoding_turn import DecodingState, Turn
from .sampler import Sampler
from .sampler_paces import (
    mask_rates_by_blocks,
    remaining_by_blocks,
    within_entropy_budget,
    within_factor,
    within_threshold,
)
from .sampler_remasks import by_confidence, capped, loop_mask_rates, rescaled
from .sampler_scores import (
    POSITION_SCORES,
    PositionScore,
    highest,
    log_probability,
    negative_entropy,
)


class Look(NamedTuple):
    """What an order has found out about the places that compete.

    Attributes:
        scores: (R, L) float, highest first; 0 elsewhere.
        masks: (R, L) bool, the masks whose logits are known; None where none were asked for.
        logits: (N, V), theirs.
        drawn: (N,) long, a token for each, where the order draws before it chooses.
    """

    scores: Tensor
    masks: Tensor | None = None
    logits: Tensor | None = None
    drawn: Tensor | None = None


@dataclass(frozen=True)
class Order:
    """One row of the table.

    Attributes:
        look: scores the places (R, L) bool that compete in a turn.
        noise: option that scales the Gumbel noise on its scores; None where there are no scores.
        draws: it is random in itself.
        reads: options of its own.
        asks_critic: its scores are the token critic's log-odds.
        in_nats: its scores are entropies, with a minus sign.
        competing: the remasking that `can_mask_prev_unmasked` means with it.
    """

    look: Callable[[Turn, Tensor], Look]
    noise: str | None = None
    draws: bool = False
    reads: tuple[str, ...] = ()
    asks_critic: bool = False
    in_nats: bool = False
    competing: str = "confidence"


def _by_position(score: PositionScore) -> Callable[[Turn, Tensor], Look]:
    """Score masks by what is known before a token is drawn there."""

    def look(turn: Turn, places: Tensor) -> Look:
        logits, masks = turn.logits(places), turn.state.masked & places
        of_masks = logits[turn.state.masked[places]]
        return Look(_with_tokens(turn, places, logits, score(of_masks)), masks, of_masks)

    return look


def _by_drawn_token(turn: Turn, places: Tensor) -> Look:
    logits, masks = turn.logits(places), turn.state.masked & places
    of_masks = logits[turn.state.masked[places]]
    drawn = turn.draw(of_masks, masks)
    scores = _with_tokens(turn, places, logits, log_probability(of_masks, drawn))
    return Look(scores, masks, of_masks, drawn)


def _by_critic(turn: Turn, places: Tensor) -> Look:
    # A critic reads a whole text, so a token is drawn at every mask, in all blocks.
    masks = turn.state.masked
    logits = turn.logits(masks)
    drawn = turn.draw(logits, masks)
    return Look(_placed(turn.critic_scores(drawn, places), places), masks, logits, drawn)


def _by_chance(turn: Turn, places: Tensor) -> Look:
    return Look(turn.coins)


def _from_the_left(turn: Turn, places: Tensor) -> Look:
    column = torch.arange(places.shape[1], device=places.device, dtype=turn.coins.dtype)
    return Look(-column.expand(places.shape))


def _with_tokens(turn: Turn, places: Tensor, logits: Tensor, of_masks: Tensor) -> Tensor:
    """Put the scores of masks in their places; a revealed token is scored as it stands."""
    is_mask = turn.state.masked[places]  # (N,)
    if len(of_masks) < len(logits):
        # At a mask, the id that stands there is the mask itself: overwritten in the next line.
        standing = log_probability(logits, turn.state.text[places])
        of_masks = standing.masked_scatter(is_mask, of_masks)
    return _placed(of_masks, places)


def _placed(scores: Tensor, places: Tensor) -> Tensor:
    """Spread (N,) over (R, L): scores 5 7 at places 0 1 0 1 give 0 5 0 7."""
    field = torch.zeros(places.shape, dtype=scores.dtype, device=scores.device)
    return field.masked_scatter(places, scores)


ORDERS: dict[str, Order] = {
    **{
        name: Order(
            _by_position(score), noise="choice_temperature", in_nats=score is negative_entropy
        )
        for name, score in POSITION_SCORES.items()
    },
    "confidence": Order(_by_drawn_token, noise="choice_temperature"),
    "critic": Order(
        _by_critic,
        noise="noise_level_scale",
        reads=("noise_level_scale",),
        asks_critic=True,
        competing="critic",
    ),
    "random": Order(_by_chance, draws=True),
    "left_to_right": Order(_from_the_left),
}


class Timetable(NamedTuple):
    """What is fixed about every step when decoding starts; a pace fills in what it goes by.

    Attributes:
        remaining: (S, B) long, masks left after each step.
        block: (S, B) long, the block that each step works on.
        before: (S, B) float64, mask rate of that block before the step.
        after: (S, B) float64, the same after it.
        remasks: (S,) bool, steps in which tokens may go back.
    """

    remaining: Tensor | None = None
    block: Tensor | None = None
    before: Tensor | None = None
    after: Tensor | None = None
    remasks: Tensor | None = None


@dataclass(frozen=True)
class Pace:
    """One row of the table.

    Attributes:
        choose: marks (R, L) bool the places of (R, L) bool that are to hold a token.
        orders: that it goes with; the first is what an unset one becomes. None means all.
        by_steps: `steps` limits the passes; the others take as many as they need.
        draws: it is random in itself.
        reads: options of its own.
        plan: the timetable for (B,) masks, where it goes by one; told whether tokens compete.
    """

    choose: Callable[[Turn, Look, Tensor], Tensor]
    orders: tuple[str, ...] | None = None
    by_steps: bool = False
    draws: bool = False
    reads: tuple[str, ...] = ()
    plan: Callable[[Sampler, Tensor, bool], Timetable] = lambda *_: Timetable()


def _to_plan(turn: Turn, look: Look, places: Tensor) -> Tensor:
    """So many that the row comes to its plan; at least one, unless tokens compete with masks."""
    elsewhere = (turn.state.masked & ~places).sum(1)  # masks of later blocks stay masks
    counts = places.sum(1) - (turn.asked.remaining - elsewhere)
    return highest(look.scores, places, counts.clamp_min(0 if turn.tokens_compete else 1))


def _by_coin(turn: Turn, look: Look, places: Tensor) -> Tensor:
    return places & (turn.coins < turn.asked.reveal_rate)


def _one(turn: Turn, look: Look, places: Tensor) -> Tensor:
    return highest(look.scores, places, torch.ones_like(turn.asked.masked))


def _sure_enough(turn: Turn, look: Look, places: Tensor) -> Tensor:
    sampler = turn.sampler
    if sampler.threshold_factor is not None:
        return within_factor(look.scores, places, sampler.threshold_factor)
    return within_threshold(look.scores, places, sampler.confidence_threshold)


def _within_budget(turn: Turn, look: Look, places: Tensor) -> Tensor:
    if ORDERS[turn.sampler.order].in_nats:
        entropies = -look.scores
    else:
        entropies = _placed(-negative_entropy(cast(Tensor, look.logits)), places)
    return within_entropy_budget(look.scores, entropies, places, turn.sampler.entropy_budget)


def _counts(sampler: Sampler, total: Tensor, tokens_compete: bool) -> Timetable:
    by_blocks = (total, sampler.steps, sampler.schedule, sampler.block_length)
    # Where tokens compete, a step may also just exchange one of them for another.
    return Timetable(remaining_by_blocks(*by_blocks, every_step_reveals=not tokens_compete))


def _rates(sampler: Sampler, total: Tensor, tokens_compete: bool) -> Timetable:
    by_blocks = (total, sampler.steps, sampler.schedule, sampler.block_length)
    block, before, after = mask_rates_by_blocks(*by_blocks)
    return Timetable(block=block, before=before, after=after)


PACES: dict[str, Pace] = {
    "schedule": Pace(_to_plan, by_steps=True, plan=_counts),
    "ancestral": Pace(_by_coin, ("random",), by_steps=True, draws=True, plan=_rates),
    "first_hitting": Pace(_one, ("random",), draws=True),
    # A threshold on a probability wants an order whose scores are log-probabilities.
    "threshold": Pace(
        _sure_enough,
        ("top_probability", "confidence"),
        reads=("confidence_threshold", "threshold_factor"),
    ),
    "entropy_bound": Pace(
        _within_budget, ("entropy", "margin", "top_probability"), reads=("entropy_budget",)
    ),
}


@dataclass(frozen=True)
class Remask:
    """One row of the table.

    Attributes:
        orders: that it goes with; the first is what an unset one becomes. None means all.
        paces: likewise.
        planned: which of the orders depends on `p2_planner`.
        competes: revealed tokens of the block compete with masks for their place.
        weigh: changes the scores (R, L) of a turn before tokens and masks compete.
        rate: rate (R, 1) or (R, L) at which each revealed token goes back, given sampler, mask
            rates (R, 1) before and after the step, the rows and (R, L) bool where their tokens are.
        makes_up: more masks are revealed, as many as go back on average.
        plan: a timetable of its own, over the whole text, instead of the pace's.
        draws: it is random in itself.
        reads: options of its own.
        keeps_probabilities: it looks at a token's log-probability at its reveal.
    """

    orders: tuple[str, ...] | None = None
    paces: tuple[str, ...] | None = None
    planned: bool = False
    competes: bool = False
    weigh: Callable[[Turn, Tensor], Tensor] | None = None
    rate: Callable[[Sampler, Tensor, Tensor, DecodingState, Tensor], Tensor] | None = None
    makes_up: bool = True
    plan: Callable[[Sampler, Tensor], Timetable] | None = None
    draws: bool = False
    reads: tuple[str, ...] = ()
    keeps_probabilities: bool = False


def _by_p2(turn: Turn, scores: Tensor) -> Tensor:
    # P2 scales log-probabilities of what is revealed; log-odds of a critic are made such first.
    if ORDERS[turn.sampler.order].asks_critic:
        scores = torch.nn.functional.logsigmoid(scores)
    return torch.where(turn.state.masked, scores, turn.sampler.p2_eta * scores)


def _capped(
    sampler: Sampler, before: Tensor, after: Tensor, state: DecodingState, tokens: Tensor
) -> Tensor:
    return capped(before, after, sampler.remdm_eta)


def _rescaled(
    sampler: Sampler, before: Tensor, after: Tensor, state: DecodingState, tokens: Tensor
) -> Tensor:
    return rescaled(before, after, sampler.remdm_eta)


def _by_confidence(
    sampler: Sampler, before: Tensor, after: Tensor, state: DecodingState, tokens: Tensor
) -> Tensor:
    return by_confidence(before, after, state.log_probabilities, tokens)


def _loop(sampler: Sampler, total: Tensor) -> Timetable:
    before, after, looping = loop_mask_rates(
        sampler.steps,
        sampler.schedule,
        sampler.remdm_t_on,
        sampler.remdm_t_off,
        sampler.remdm_alpha_on,
    )
    everyone = (sampler.steps, len(total))
    before, after = (t[:, None].expand(everyone).to(total.device) for t in (before, after))
    return Timetable(None, total.new_zeros(everyone), before, after, looping)


# Competing needs a plan of how many masks are left. The scores of a mask and of a token must be of
# one kind: log-probabilities both, or a critic's both.
_CONTEST: dict[str, Any] = {"paces": ("schedule",), "competes": True}
_LOG_PROBABILITIES = ("top_probability", "confidence")
# ReMDM is defined for masks and tokens that each flip a coin of their own.
_COIN: dict[str, Any] = {"orders": ("random",), "paces": ("ancestral",), "draws": True}

REMASKS: dict[str, Remask] = {
    "never": Remask(),
    "confidence": Remask(_LOG_PROBABILITIES, **_CONTEST),
    "critic": Remask(("critic",), **_CONTEST),
    "p2": Remask(
        (*_LOG_PROBABILITIES, "critic"),
        planned=True,
        weigh=_by_p2,
        reads=("p2_eta", "p2_planner"),
        **_CONTEST,
    ),
    "remdm_cap": Remask(rate=_capped, reads=("remdm_eta",), **_COIN),
    "remdm_rescale": Remask(rate=_rescaled, reads=("remdm_eta",), **_COIN),
    # Only revealed tokens have a rate of their own, so masks are revealed as without it.
    "remdm_conf": Remask(rate=_by_confidence, makes_up=False, keeps_probabilities=True, **_COIN),
    "remdm_loop": Remask(
        rate=_capped,
        plan=_loop,
        reads=("remdm_eta", "remdm_t_on", "remdm_t_off", "remdm_alpha_on"),
        **_COIN,
    ),
}


class Rules(NamedTuple):
    """The rows of a sampler's choices."""

    order: Order
    pace: Pace
    remask: Remask


def rules_of(sampler: Sampler) -> Rules:
    """Look up a sampler's choices."""
    return Rules(ORDERS[sampler.order], PACES[sampler.pace], REMASKS[sampler.remask])
