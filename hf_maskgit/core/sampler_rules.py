"""The choices of a sampler: a table each for order, pace and remasking, one row per value.

- `order`: which masked positions go first, in `sampler_orders`;
- `pace`: how many per pass, here;
- `remask`: which revealed tokens are masked again, here.

A row says all there is to know of its value: what it is and who found it, what it does, what it
goes with, which options it reads, whether it draws. To add a value is to add a row. What goes
together, which option has an effect, what greedy decoding refuses and what the documentation says
follows from the rows, in `sampler_choices`. The formulas are in `sampler_scores`, `sampler_paces`
and `sampler_remasks`; `decoding` puts the rows together.

Letters: B rows of the batch, R rows still being decoded, L length, V vocabulary, S steps, N
positions, and in formulas N masks of a row at the start.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import torch
from torch import Tensor

from .decoding_state import DecodingState
from .decoding_turn import Turn
from .position_logits import PositionLogits
from .sampler import Sampler
from .sampler_orders import BLIND, LOG_PROBABILITIES, ORDERS, Look, Order, placed
from .sampler_paces import (
    mask_rates_by_blocks,
    remaining_by_blocks,
    within_entropy_budget,
    within_factor,
    within_threshold,
)
from .sampler_remasks import by_confidence, capped, loop_mask_rates, rescaled
from .sampler_scores import highest, negative_entropy
from .sampler_speculation import next_drafts, write_verified


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
    """How many positions a pass reveals: one row of the table.

    Attributes:
        help: which are revealed in a pass.
        choose: marks (R, L) bool the places of (R, L) bool that are to hold a token.
        write: writes tokens at the chosen places in a way of its own, or at some of them. It asks
            for several texts of a row at once, so that nothing is kept from pass to pass. None
            writes what the order drew, or draws.
        source: the paper or project.
        orders: that it goes with; the first is what an unset one becomes. None means all.
        takes_noise: noise on the scores means something; the others go by them as they are.
        draws: it is random in itself.
        uniforms: numbers that it needs per position and pass.
        reads: options of its own; one that does not read `steps` takes the passes it needs.
        plan: the timetable for (B,) masks, where it goes by one.
        counts: of a turn and places (R, L) bool, how many it chooses, (R,) long, of those with the
            highest scores; None where it must look first. Fewer places of masks change nothing.
    """

    help: str
    choose: Callable[[Turn, Look, Tensor], Tensor]
    write: Callable[[Turn, Look, Tensor], DecodingState] | None = None
    source: str = ""
    orders: tuple[str, ...] | None = None
    takes_noise: bool = False
    draws: bool = False
    uniforms: int = 2
    reads: tuple[str, ...] = ()
    plan: Callable[[Sampler, Tensor], Timetable] = lambda *_: Timetable()
    counts: Callable[[Turn, Tensor], Tensor] | None = None

    @property
    def by_steps(self) -> bool:
        """Whether `steps` limits the passes."""
        return "steps" in self.reads


def _planned(turn: Turn, places: Tensor) -> Tensor:
    """So many that the row comes to its plan; at least one, unless tokens compete with masks.

    A row of 7 masks in blocks of 4 that is to have 5 left: 3 of them stand in the later block, so
    that 2 of the 4 places stay masks and 2 are chosen.
    """
    elsewhere = (turn.state.masked & ~places).sum(1)  # masks of later blocks stay masks
    counts = places.sum(1) - (turn.asked.remaining - elsewhere)
    tokens_compete = REMASKS[turn.sampler.remask].competes
    return counts.clamp_min(0 if tokens_compete else 1)


def _to_plan(turn: Turn, look: Look, places: Tensor) -> Tensor:
    return highest(look.scores, places, _planned(turn, places))


def _by_coin(turn: Turn, look: Look, places: Tensor) -> Tensor:
    return places & (turn.coins < turn.asked.reveal_rate)


def _one(turn: Turn, look: Look, places: Tensor) -> Tensor:
    return highest(look.scores, places, torch.ones_like(turn.asked.remaining))


def _sure_enough(turn: Turn, look: Look, places: Tensor) -> Tensor:
    sampler = turn.sampler
    if sampler.threshold_factor is not None:
        return within_factor(look.scores, places, sampler.threshold_factor)
    return within_threshold(look.scores, places, sampler.confidence_threshold)


def _within_budget(turn: Turn, look: Look, places: Tensor) -> Tensor:
    if ORDERS[turn.sampler.order].in_nats:
        entropies = -look.scores
    else:
        logits = cast(PositionLogits, look.logits)
        (scores,) = logits.read(lambda block, which: (negative_entropy(block),))
        entropies = placed(-scores, cast(Tensor, look.known))
    return within_entropy_budget(look.scores, entropies, places, turn.sampler.entropy_budget)


def _drafted_and_one_more(turn: Turn, look: Look, places: Tensor) -> Tensor:
    drafts = next_drafts(turn.asked.last_revealed, turn.sampler.draft_length)
    return highest(look.scores, places, drafts + 1)


def _counts(sampler: Sampler, total: Tensor) -> Timetable:
    by_blocks = (total, sampler.steps, sampler.schedule, sampler.block_length)
    # Where tokens compete, a step may also just exchange one of them for another.
    tokens_compete = REMASKS[sampler.remask].competes
    return Timetable(remaining_by_blocks(*by_blocks, every_step_reveals=not tokens_compete))


def _rates(sampler: Sampler, total: Tensor) -> Timetable:
    by_blocks = (total, sampler.steps, sampler.schedule, sampler.block_length)
    block, before, after = mask_rates_by_blocks(*by_blocks)
    return Timetable(block=block, before=before, after=after)


PACES: dict[str, Pace] = {
    "schedule": Pace(
        "so many that `floor(N mask_rate(1 - s/S))` are left after pass s, at least one",
        _to_plan,
        source="MaskGIT, arXiv 2202.04200",
        takes_noise=True,
        reads=("steps", "schedule"),
        plan=_counts,
        counts=_planned,
    ),
    "ancestral": Pace(
        "each mask with probability `(alpha_s - alpha_t) / (1 - alpha_t)`; a pass that reveals "
        "nothing is not made",
        _by_coin,
        source="MDLM, arXiv 2406.07524",
        orders=("random",),
        draws=True,
        reads=("steps", "schedule"),
        plan=_rates,
    ),
    "first_hitting": Pace(
        "one, anywhere: the distribution of `ancestral` for S to infinity in N passes; `steps` "
        "does not count",
        _one,
        source="arXiv 2409.02908",
        orders=("random",),
        draws=True,
    ),
    "threshold": Pace(
        "all with max p (order `confidence`: p of the drawn token) >= `confidence_threshold`; or, "
        "with `threshold_factor` f, the n best for the largest n with `(n + 1)(1 - p_n) < f`; at "
        "least one",
        _sure_enough,
        source="Fast-dLLM, arXiv 2505.22618",
        orders=LOG_PROBABILITIES,
        reads=("confidence_threshold", "threshold_factor"),
    ),
    "entropy_bound": Pace(
        "the longest best-first run with (sum of entropies - largest entropy) <= "
        "`entropy_budget`; at least one",
        _within_budget,
        source="EB-Sampler, arXiv 2505.24857",
        orders=("entropy", "margin", "top_probability"),
        reads=("entropy_budget",),
    ),
    "speculative": Pace(
        "the distribution of one per pass in fewer passes: the next ones are drafted in one, at "
        "most `draft_length`, and verified in another; those that fit are kept, and the first that "
        "does not is drawn anew; `steps` does not count",
        _drafted_and_one_more,
        write=write_verified,
        source="ASSD, arXiv 2504.20456",
        orders=BLIND,
        uniforms=4,
        reads=("draft_length",),
    ),
}


@dataclass(frozen=True)
class Remask:
    """Which revealed tokens are masked again: one row of the table.

    Attributes:
        help: which go back.
        source: the paper or project.
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

    help: str = ""
    source: str = ""
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
_CONTEST = Remask(paces=("schedule",), competes=True)
# ReMDM is defined for masks and tokens that each flip a coin of their own.
_COIN = Remask(
    source="ReMDM, arXiv 2503.00307", orders=("random",), paces=("ancestral",), draws=True
)

REMASKS: dict[str, Remask] = {
    "never": Remask("nothing"),
    "confidence": replace(
        _CONTEST,
        help="the revealed token competes, by its probability given the text as it is now, with "
        "what the masks are to get",
        source="the idea of x-transformers' `can_mask_prev_unmasked`",
        orders=LOG_PROBABILITIES,
    ),
    "critic": replace(
        _CONTEST,
        help="the same by a critic's score",
        source="Token-Critic, arXiv 2209.04439",
        orders=("critic",),
    ),
    "p2": replace(
        _CONTEST,
        help="as `confidence` (`p2_planner='self'`) or `critic` (log-probability of being right), "
        "the log-probability of revealed tokens times `p2_eta`; 1 (the default) with 'self' is "
        "`confidence`",
        source="P2, arXiv 2502.03540",
        orders=(*LOG_PROBABILITIES, "critic"),
        planned=True,
        weigh=_by_p2,
        reads=("p2_eta", "p2_planner"),
    ),
    "remdm_cap": replace(
        _COIN,
        help="each revealed token with probability `sigma = min(remdm_eta, sigma_max)`",
        rate=_capped,
        reads=("remdm_eta",),
    ),
    "remdm_rescale": replace(
        _COIN,
        help="each with probability `sigma = remdm_eta sigma_max`",
        rate=_rescaled,
        reads=("remdm_eta",),
    ),
    # Only revealed tokens have a rate of their own, so masks are revealed as without it.
    "remdm_conf": replace(
        _COIN,
        help="each with probability `sigma_i = sigma_max softmax_i(-p_i)`, p_i the probability of "
        "token i when it was revealed",
        rate=_by_confidence,
        makes_up=False,
        keeps_probabilities=True,
    ),
    "remdm_loop": replace(
        _COIN,
        help="as `remdm_cap` while t runs from `remdm_t_on` to `remdm_t_off` with a share "
        "`remdm_alpha_on` revealed; none before and after",
        rate=_capped,
        plan=_loop,
        reads=("remdm_eta", "remdm_t_on", "remdm_t_off", "remdm_alpha_on"),
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
