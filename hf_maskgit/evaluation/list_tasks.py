"""List operations of ParallelBench (arXiv 2510.04767): exact denoisers, accuracy in closed form.

A row is a list of n items and n masks for the answer: the list itself (`copy`), the list with one
item, any of them, replaced by a newcomer (`replace`), or its items in any order (`shuffle`). All
right answers are equally likely. A denoiser that knows this law exactly is a function of the row,
so nothing is trained, and what goes wrong is the doing of the sampler alone: tokens that are drawn
in one pass do not know of each other. How often that happens is a sum over the ways that decoding
can go, `expected_accuracy`; `list_decoding` counts how often it does.

Letters: R rows, n items, m masks that are left, k tokens that a pass reveals, N positions.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..core.sampler import Sampler
from ..core.sampler_paces import mask_rates_by_blocks, remaining_by_blocks, reveal_probability
from .table_denoisers import plain_sampler

_EDGE = 1e-9  # numbers nearer to each other than this differ by rounding alone
# What the closed forms read of a sampler; all else stands at what samples the denoiser's own law.
OPTIONS = ("steps", "schedule", "confidence_threshold", "threshold_factor", "entropy_budget")


@dataclass(frozen=True)
class ListTask:
    """A list operation: one row of the table.

    Attributes:
        help: which answers are right.
        probabilities: probability of each token at a mask, while m masks are left and nothing is
            decided or wrong.
        law: (R, n) long lists, (R, n) long answers with masks -> (R, n, n + 2) float64, the
            probability of each token at each mask.
        is_right: (R, n) lists, (R, n) answers -> (R,) bool.
        goes_on: the chance that k tokens drawn side by side fit together and leave the rest as
            open as it was, and that they fit and decide all the rest; given m and k.
        once: the one of these tokens that an answer holds exactly once; None where there is none.
    """

    help: str
    probabilities: Callable[[int], list[float]]
    law: Callable[[Tensor, Tensor], Tensor]
    is_right: Callable[[Tensor, Tensor], Tensor]
    goes_on: Callable[[int, int], tuple[float, float]]
    once: int | None = None


def _copied(items: Tensor, answer: Tensor) -> Tensor:
    return _one_hot(items)


def _one_hot(items: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(items, items.shape[1] + 2).double()


def _replaced(items: Tensor, answer: Tensor) -> Tensor:
    newcomer, mask = items.shape[1], items.shape[1] + 1
    open_ = ~(answer == newcomer).any(1) & (answer == mask).any(1)
    chance = open_ / (answer == mask).sum(1).clamp_min(1).double()  # of the newcomer, at each mask
    law = _one_hot(items) * (1 - chance)[:, None, None]
    law[..., newcomer] = chance[:, None]
    return law


def _shuffled(items: Tensor, answer: Tensor) -> Tensor:
    taken = torch.nn.functional.one_hot(answer, items.shape[1] + 2).amax(1)  # (R, n + 2)
    free = 1 - taken.double()
    free[:, items.shape[1] :] = 0
    # Once two are alike the row is wrong, and more items are free than there are masks.
    return (free / free.sum(1, keepdim=True).clamp_min(1))[:, None].expand(-1, items.shape[1], -1)


def _has_one_newcomer(items: Tensor, answer: Tensor) -> Tensor:
    other = answer != items
    return (other.sum(1) == 1) & ((answer == items.shape[1]) == other).all(1)


def _none_or_one(m: int, k: int) -> tuple[float, float]:
    return (1 - 1 / m) ** k, k / m * (1 - 1 / m) ** max(k - 1, 0)


TASKS: dict[str, ListTask] = {
    "copy": ListTask(
        "the list as it is",
        lambda m: [1.0],
        _copied,
        lambda items, answer: (items == answer).all(1),
        lambda m, k: (1.0, 0.0),
    ),
    "replace": ListTask(
        "the list with one item, any, replaced by a newcomer",
        lambda m: [1 - 1 / m, 1 / m],
        _replaced,
        _has_one_newcomer,
        _none_or_one,
        once=1,
    ),
    "shuffle": ListTask(
        "the items in any order",
        lambda m: [1 / m] * m,
        _shuffled,
        lambda items, answer: (items.sort(1).values == answer.sort(1).values).all(1),
        lambda m, k: (math.perm(m, k) / m**k, 0.0),
    ),
}


def draws_first(order: str) -> bool:
    """Tell whether an order chooses places by the tokens that were drawn there."""
    return _WAYS[order] is _likeliest_first


class Asked(NamedTuple):
    """A sampler for lists of n items.

    Attributes:
        items: n.
        sampler: all options.
    """

    items: int
    sampler: Sampler


def ask(items: int, options: Mapping[str, Any]) -> Asked:
    """Complete the options of a sampler; what they leave open samples the denoiser's own law.

    Args:
        items: n, at least 2.
        options: `order`, `pace` and those of `OPTIONS`.

    Raises:
        ValueError: for fewer items, other options, or choices that do not go together or have no
            closed form.
    """
    if items < 2:
        raise ValueError(f"A list needs at least 2 items, got {items}.")
    known = ("order", "pace", *OPTIONS)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(
            f"The accuracy in closed form knows {', '.join(known)}, got {', '.join(unknown)}."
        )
    return Asked(items, plain_sampler(items + 1, {"steps": items, **options}))


def expected_accuracy(task: ListTask, asked: Asked) -> float:
    """Return the probability that an answer is right, by a sum over the ways of decoding.

    With m masks left, a pass reveals k of them with a probability that pace and order decide. Right
    so far and still open, they stay so with probability a_k, and with probability b_k they decide
    the rest; hence A(m) = sum_k P(k) (a_k A(m - k) + b_k), and A(0) = 1 where nothing is to be
    decided. At k per pass that is the product of m! / ((m - k)! m^k) for `shuffle`.

    Raises:
        ValueError: for a limit so near to a probability of the task that rounding would decide.
    """
    plan, ways = _COUNTS[asked.sampler.pace](asked), _WAYS[asked.sampler.order]

    @cache
    def accuracy(step: int, m: int) -> float:
        if m == 0:  # a list without a newcomer is wrong
            return float(task.once is None)
        return sum(
            chance * (open_ * (accuracy(step + 1, m - k) if open_ else 0.0) + decided)
            for chance, k, open_, decided in ways(task, m, step, plan)
        )

    found = accuracy(0, asked.items)
    return float(round(found)) if abs(found - round(found)) < _EDGE else found  # of certain answers


# Given the step, the probabilities that m masks are taken by, best first, and the entropy of each:
# how many of them a pass reveals, with which chance.
Plan = Callable[[int, Sequence[float], float], dict[int, float]]
# What a pass may do: its chance, how many it reveals, and as `ListTask.goes_on`.
Ways = Iterator[tuple[float, int, float, float]]


def _side_by_side(task: ListTask, m: int, step: int, plan: Plan) -> Ways:
    """Take masks that look alike, so that what is drawn there does not depend on the choice."""
    law = task.probabilities(m)
    entropy = -sum(p * math.log(p) for p in law if p > 0)
    for k, chance in plan(step, [max(law)] * m, entropy).items():
        yield chance, k, *task.goes_on(m, k)


def _likeliest_first(task: ListTask, m: int, step: int, plan: Plan) -> Ways:
    """Draw at every mask and take the likelier tokens first: newcomers last."""
    law = task.probabilities(m)
    if task.once is None or math.isclose(*law):  # all drawn tokens are equally likely
        yield from _side_by_side(task, m, step, plan)
        return
    keep, new = law
    for drawn in range(m + 1):  # newcomers at the m masks
        chance = math.comb(m, drawn) * new**drawn * keep ** (m - drawn)
        if not chance:
            continue
        best_first = sorted([keep] * (m - drawn) + [new] * drawn, reverse=True)
        for k, share in plan(step, best_first, math.nan).items():
            taken = max(0, k - (m - drawn))
            yield chance * share, k, float(taken == 0), float(taken == 1)


def _planned(asked: Asked) -> Plan:
    sampler, total = asked.sampler, torch.tensor([asked.items])
    left = remaining_by_blocks(total, sampler.steps, sampler.schedule, None)[:, 0].tolist()
    return lambda step, best_first, entropy: {len(best_first) - left[step]: 1.0}


def _by_coins(asked: Asked) -> Plan:
    sampler, total = asked.sampler, torch.tensor([asked.items])
    _, before, after = mask_rates_by_blocks(total, sampler.steps, sampler.schedule, None)
    rates = reveal_probability(before, after)[:, 0].tolist()

    def plan(step: int, best_first: Sequence[float], entropy: float) -> dict[int, float]:
        m, p = len(best_first), rates[step]
        chances = {k: math.comb(m, k) * p**k * (1 - p) ** (m - k) for k in range(m + 1)}
        return {k: chance for k, chance in chances.items() if chance}  # none is left at the end

    return plan


def _one(asked: Asked) -> Plan:
    return lambda step, best_first, entropy: {1: 1.0}


def _sure_enough(asked: Asked) -> Plan:
    threshold, factor = asked.sampler.confidence_threshold, asked.sampler.threshold_factor

    def plan(step: int, best_first: Sequence[float], entropy: float) -> dict[int, float]:
        if factor is not None:
            fits = [
                n
                for n, p in enumerate(best_first, 1)
                if _less("threshold_factor", (n + 1) * (1 - p), factor)
            ]
            return {max(fits, default=1): 1.0}
        sure = sum(_less("confidence_threshold", threshold, p) for p in best_first)
        return {max(sure, 1): 1.0}

    return plan


def _within_budget(asked: Asked) -> Plan:
    budget = asked.sampler.entropy_budget

    def plan(step: int, best_first: Sequence[float], entropy: float) -> dict[int, float]:
        # Where nothing is uncertain nothing is lost, whatever the budget.
        fits = [
            n
            for n in range(1, len(best_first) + 1)
            if n == 1 or not entropy or _less("entropy_budget", (n - 1) * entropy, budget)
        ]
        return {max(fits): 1.0}

    return plan


def _less(name: str, smaller: float, greater: float) -> bool:
    if abs(smaller - greater) < _EDGE:
        raise ValueError(
            f"With these lists `{name}` is compared with {smaller:g}, which it equals up to "
            "rounding: no closed form tells which way that goes. Choose another value."
        )
    return smaller < greater


# What a pass may do, by order.
_WAYS: dict[str, Callable[[ListTask, int, int, Plan], Ways]] = {
    "top_probability": _side_by_side,
    "margin": _side_by_side,
    "entropy": _side_by_side,
    "confidence": _likeliest_first,
    "random": _side_by_side,
    "left_to_right": _side_by_side,
}
# How many of m masks a pass reveals, by pace. Drafting and verifying keeps the law of one per pass.
_COUNTS: dict[str, Callable[[Asked], Plan]] = {
    "schedule": _planned,
    "ancestral": _by_coins,
    "first_hitting": _one,
    "threshold": _sure_enough,
    "entropy_bound": _within_budget,
    "speculative": _one,
}
