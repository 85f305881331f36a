"""How many positions a pass reveals: the pure functions behind each `pace`.

Letters: B rows, L length, S steps, N masked positions of a row at the start, P passes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .sampler_scores import ranks
from .schedules import Schedule

_ROUNDING = 1e-9  # a float64 product meant to be an integer may lie a hair below it


def remaining_counts(
    num_masked: Tensor, mask_rates: Tensor, every_step_reveals: bool = True
) -> Tensor:
    """Plan how many positions of each row are still masked after each step.

    After step s the schedule leaves floor(N mask_rate(1 - (s + 1) / S)) masks, as in MaskGIT
    (arXiv 2202.04200, section 3.2), and every step reveals at least one. A row that has fewer masks
    than there are steps is therefore finished early.

    Args:
        num_masked: (B,) long, masks of each row at the start.
        mask_rates: (S,) float64, the schedule's mask rate at the end of each step, falling to 0.
        every_step_reveals: False lets a step leave as many masks as it found: where revealed tokens
            are masked again, it may still exchange one for another.

    Returns:
        (S, B) long; the last row is 0.
    """
    # 5 masks over 4 linear steps: the schedule wants 3 2 1 0 left. 2 masks over 4: it wants 1 1 0
    # 0, and since every step reveals one they are done after 1 0.
    remaining = num_masked
    plan = []
    for target in (mask_rates[:, None] * num_masked + _ROUNDING).floor().long():
        remaining = torch.minimum(target, remaining - int(every_step_reveals)).clamp_min(0)
        plan.append(remaining)
    return torch.stack(plan)


def remaining_by_blocks(
    num_masked: Tensor,
    steps: int,
    schedule: Schedule,
    block_length: int | None,
    every_step_reveals: bool = True,
) -> Tensor:
    """Plan as `remaining_counts`, block by block from the left; all blocks share the steps.

    The first masks of a row form its first block, and so on; the last block may be shorter. Each
    block runs through the whole schedule in its share of the steps. A block that has fewer masks
    than steps hands over early.

    Args:
        num_masked: (B,) long, masks of each row at the start.
        steps: S, at least the number of blocks of every row.
        schedule: how much of a block is left masked.
        block_length: masks per block; None makes one block of all.
        every_step_reveals: see `remaining_counts`.

    Returns:
        (P, B) long, masks of the whole row left after each step; the last row is 0. P is S, or less
        where every step reveals and no row has as many masks as there are steps.
    """
    # Rows of as many masks share a plan, so that a large batch costs no more than its few lengths.
    plans: dict[int, list[int]] = {}
    for total in set(num_masked.tolist()):
        plan = []
        sizes = block_sizes(total, block_length)
        behind = total
        for size, share in zip(sizes, shares(steps, sizes), strict=True):
            behind -= size
            rates = schedule.mask_rate(step_times(share)[1:])
            if every_step_reveals:  # a block has no use for more steps than masks
                rates = rates[: max(size, 1)]
            left = remaining_counts(torch.tensor([size]), rates, every_step_reveals)[:, 0].tolist()
            # The next block starts as soon as this one is finished.
            plan += [behind + n for n in left[: left.index(0) + 1]]
        plans[total] = plan
    passes = max(map(len, plans.values())) if every_step_reveals else steps
    padded = {n: torch.tensor(plan + [0] * (passes - len(plan))) for n, plan in plans.items()}
    return torch.stack([padded[n] for n in num_masked.tolist()], 1).to(num_masked.device)


def mask_rates_by_blocks(
    num_masked: Tensor, steps: int, schedule: Schedule, block_length: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Tell where in time each step stands, when every block runs from fully masked to clean.

    The arguments are the first four of `remaining_by_blocks`.

    Returns:
        Block that each step works on (S, B) long, from 0; mask rates of that block before and after
        the step, both (S, B) float64.
    """
    plans: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
    for total in set(num_masked.tolist()):
        sizes = block_sizes(total, block_length)
        rates = [schedule.mask_rate(step_times(share)) for share in shares(steps, sizes)]
        numbers = [torch.full((len(rate) - 1,), i) for i, rate in enumerate(rates)]
        plans[total] = (
            torch.cat(numbers),
            torch.cat([rate[:-1] for rate in rates]),
            torch.cat([rate[1:] for rate in rates]),
        )
    columns = [plans[n] for n in num_masked.tolist()]
    block, before, after = (
        torch.stack(tensors, 1).to(num_masked.device) for tensors in zip(*columns, strict=True)
    )
    return block, before, after


def block_sizes(num_masked: int, block_length: int | None) -> list[int]:
    """Cut a number of masks into blocks, at least one: 7 by 3 gives [3, 3, 1]."""
    if block_length is None or num_masked <= block_length:
        return [num_masked]
    full, rest = divmod(num_masked, block_length)
    return [block_length] * full + [rest] * (rest > 0)


def shares(steps: int, sizes: Sequence[int]) -> list[int]:
    """Share out the steps by the size of the blocks: floor, at least 1; the rest to the first ones.

    With as many steps as masks every block has as many steps as masks of its own.

    Args:
        steps: S, at least one per block.
        sizes: masks of each block; all alike but for a shorter last one.
    """
    if len(sizes) == 1:
        return [steps]
    # 10 steps over 4, 4 and 2 masks are 4, 4 and 2; 9 steps are 3 + 1, 3 + 1 and 1.
    floor = [max(1, steps * size // sum(sizes)) for size in sizes]
    remainder = steps - sum(floor)
    return [share + (i < remainder) for i, share in enumerate(floor)]


def step_times(steps: int) -> Tensor:
    """Return the S + 1 times that S even steps run through, from 1 (masked) to 0, float64."""
    return 1 - torch.arange(steps + 1, dtype=torch.float64) / steps


def annealing(step: int, steps: int) -> float:
    """Return the fraction of steps still to come after this one, (S - 1) / S falling to 0.

    The ancestor's `steps_until_x0 / steps`; scales the temperature and the noise on the order.
    """
    return (steps - 1 - step) / steps


def annealing_by_reveals(left: Tensor, total: Tensor) -> Tensor:
    """Return the fraction of masks still to come after the next one is revealed, float64.

    (N - 1) / N falling to 0, as `annealing` with one reveal per step.

    Args:
        left: long, masks that are left.
        total: N, long, of the same shape.
    """
    return (left - 1).clamp_min(0).double() / total.clamp_min(1)


def reveal_probability(before: Tensor, after: Tensor, remask_rate: Tensor | float = 0.0) -> Tensor:
    """Return with what probability one masked position is revealed between two times.

    (alpha_s - (1 - sigma) alpha_t) / (1 - alpha_t) with alpha = 1 - mask rate: MDLM's posterior
    (arXiv 2406.07524) for sigma = 0, ReMDM's (arXiv 2503.00307) for a remask rate sigma.

    Args:
        before: mask rate at time t, float64.
        after: mask rate at the later step s < t, same shape.
        remask_rate: sigma, same shape.
    """
    # In this form the last step, after = 0, gives 1 to the last bit: no mask is left behind.
    more = before - after + remask_rate * (1 - before)
    return (more / before.clamp_min(torch.finfo(before.dtype).tiny)).clamp(0, 1)


def within_threshold(scores: Tensor, candidates: Tensor, threshold: float) -> Tensor:
    """Mark the candidates of at least this probability, in each row the best one at least.

    Fast-dLLM (arXiv 2505.22618).

    Args:
        scores: (B, L) float, log-probabilities.
        candidates: (B, L) bool.
        threshold: probability in [0, 1].

    Returns:
        (B, L) bool.
    """
    best = ranks(scores, candidates) == 0
    return candidates & (best | (scores.exp() >= threshold))


def within_factor(scores: Tensor, candidates: Tensor, factor: float) -> Tensor:
    """Mark the n likeliest candidates for the largest n with (n + 1)(1 - p_n) < factor.

    p_n is the n-th highest probability: Fast-dLLM's rule with a factor (arXiv 2505.22618). At least
    one is marked.

    Args:
        scores: (B, L) float, log-probabilities.
        candidates: (B, L) bool.
        factor: greater than 0.

    Returns:
        (B, L) bool.
    """
    # Rank 0 is n = 1, hence n + 1 is the rank plus 2; -expm1(log p) is 1 - p without rounding p
    # to 1 first. A later n may fit where an earlier one does not: the largest counts.
    place = ranks(scores, candidates)
    fits = candidates & ((place + 2) * -scores.expm1() < factor)
    counts = torch.where(fits, place + 1, 0).amax(1).clamp_min(1)
    return candidates & (place < counts[:, None])


def within_entropy_budget(
    scores: Tensor, entropies: Tensor, candidates: Tensor, budget: float
) -> Tensor:
    """Mark the longest best-first run of candidates whose joint error is bounded.

    A run is taken while the sum of its entropies less the largest of them stays within the budget
    (EB-Sampler, arXiv 2505.24857): a bound on the mutual information that is lost when all
    are drawn at once. At least one is marked.

    Args:
        scores: (B, L) float, best first.
        entropies: (B, L) float, nats.
        candidates: (B, L) bool.
        budget: nats, at least 0.

    Returns:
        (B, L) bool.
    """
    # Entropies .1 .3 .2, best first, sum to .1 .4 .6; less the largest so far that is 0 .1 .3.
    place = ranks(scores, candidates)
    in_order = torch.zeros_like(entropies).scatter(1, place, entropies * candidates)
    lost = in_order.cumsum(1) - in_order.cummax(1).values
    # One position alone loses nothing, whatever rounding says; what follows only adds.
    counts = (lost <= budget).long().cumprod(1).sum(1).clamp_min(1)
    return candidates & (place < counts[:, None])
