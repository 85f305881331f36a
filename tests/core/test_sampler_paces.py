"""How many a pass reveals: each function against a slow and obvious version, row by row."""

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from hf_maskgit.core.sampler_paces import (
    block_sizes,
    mask_rates_by_blocks,
    remaining_by_blocks,
    remaining_counts,
    reveal_probability,
    shares,
    step_times,
    within_entropy_budget,
    within_factor,
    within_threshold,
)
from hf_maskgit.core.schedules import get_schedule

SCHEDULES = {"linear": lambda t: t, "cosine": lambda t: math.sin(math.pi / 2 * t)}

# --- blocks --------------------------------------------------------------------------------------


@given(num_masked=st.integers(0, 50), block_length=st.none() | st.integers(1, 60))
def test_block_sizes_count_masks_off_one_by_one(num_masked, block_length):
    sizes = [0]
    for _ in range(num_masked):
        if sizes[-1] == block_length:
            sizes.append(0)
        sizes[-1] += 1
    assert block_sizes(num_masked, block_length) == sizes


@given(num_blocks=st.integers(1, 20), size=st.integers(1, 9), more=st.integers(0, 60))
def test_steps_are_dealt_out_to_equal_blocks_in_turn(num_blocks, size, more):
    steps = num_blocks + more
    dealt = [0] * num_blocks
    for step in range(steps):
        dealt[step % num_blocks] += 1
    assert shares(steps, [size] * num_blocks) == dealt


@pytest.mark.wide
@given(
    full=st.integers(0, 12),
    size=st.integers(2, 20),
    last=st.integers(1, 20),
    more=st.integers(0, 99),
)
def test_a_shorter_block_gets_its_share_of_the_steps(full, size, last, more):
    sizes = [size] * full + [min(last, size)]
    steps = len(sizes) + more
    found = shares(steps, sizes)
    assert sum(found) == steps
    assert min(found) >= 1
    for block, share in zip(sizes, found, strict=True):
        # A remainder goes to the first blocks, one each; nobody is a whole step short.
        assert (
            share == 1 or steps * block / sum(sizes) - 1 < share <= steps * block / sum(sizes) + 1
        )
        assert share >= block or steps < sum(sizes), "as many steps as masks reveal one at a time"


def test_step_times_fall_evenly_from_one_to_zero():
    assert step_times(4).tolist() == [1, 0.75, 0.5, 0.25, 0]
    assert step_times(1).dtype == torch.float64


def plan_by_hand(num_masked, steps, schedule, block_length, every_step_reveals):
    """Masks left after each step: block by block, a loop over its steps."""
    sizes = block_sizes(num_masked, block_length)
    plan = []
    for i, (size, share) in enumerate(zip(sizes, shares(steps, sizes), strict=True)):
        left, behind = size, sum(sizes[i + 1 :])
        for step in range(1, share + 1):
            if left == 0 and step > 1:
                break  # this block is done before its steps are
            target = math.floor(size * SCHEDULES[schedule](1 - step / share) + 1e-9)
            left = max(min(target, left - 1 if every_step_reveals else left), 0)
            plan.append(behind + left)
    return plan + [0] * (steps - len(plan))


@pytest.mark.wide
@given(
    totals=st.lists(st.integers(0, 20), min_size=1, max_size=4),
    more=st.integers(0, 25),
    schedule=st.sampled_from(["linear", "cosine"]),
    block_length=st.none() | st.integers(1, 22),
    every_step_reveals=st.booleans(),
)
def test_the_plan_by_blocks_is_that_of_a_loop(
    totals, more, schedule, block_length, every_step_reveals
):
    steps = max(len(block_sizes(n, block_length)) for n in totals) + more
    plan = remaining_by_blocks(
        torch.tensor(totals), steps, get_schedule(schedule), block_length, every_step_reveals
    )
    assert plan.dtype == torch.long
    by_hand = [
        plan_by_hand(total, steps, schedule, block_length, every_step_reveals) for total in totals
    ]
    # Steps that no row has a use for are not planned, where every step reveals.
    used = steps
    if every_step_reveals:
        used = max(row.index(0) + 1 for row in by_hand)
    assert plan.T.tolist() == [row[:used] for row in by_hand]


def test_a_plan_by_blocks_written_out():
    """7 masks by 3 and 8 steps: three steps for each of the first blocks, two for the last."""
    linear = get_schedule("linear")
    plan = remaining_by_blocks(torch.tensor([7, 3, 0]), 8, linear, 3)
    assert plan[:, 0].tolist() == [6, 5, 4, 3, 2, 1, 0]
    assert plan[:, 1].tolist() == [2, 1, 0, 0, 0, 0, 0]
    assert plan[:, 2].tolist() == [0] * 7


def test_one_block_of_all_is_the_plan_without_blocks():
    totals, cosine = torch.tensor([5, 9, 64]), get_schedule("cosine")
    for steps in (1, 6, 18):
        whole = remaining_counts(totals, cosine.mask_rate(step_times(steps)[1:]))
        for block_length in (None, 64, 100):
            assert torch.equal(remaining_by_blocks(totals, steps, cosine, block_length), whole)


@pytest.mark.wide
@given(
    num_masked=st.integers(0, 40),
    steps=st.integers(1, 60),
    schedule=st.sampled_from(list(SCHEDULES)),
)
def test_a_plan_that_may_wait_is_the_schedule_to_the_mask(num_masked, steps, schedule):
    rates = get_schedule(schedule).mask_rate(step_times(steps)[1:])
    plan = remaining_counts(torch.tensor([num_masked]), rates, every_step_reveals=False)[:, 0]
    rate = SCHEDULES[schedule]
    expected = [math.floor(num_masked * rate(1 - s / steps) + 1e-9) for s in range(1, steps + 1)]
    assert plan.tolist() == expected


@pytest.mark.wide
@given(
    totals=st.lists(st.integers(0, 20), min_size=1, max_size=3),
    more=st.integers(0, 12),
    schedule=st.sampled_from(["linear", "cosine"]),
    block_length=st.none() | st.integers(1, 22),
)
def test_mask_rates_by_blocks_are_those_of_a_loop(totals, more, schedule, block_length):
    steps = max(len(block_sizes(n, block_length)) for n in totals) + more
    block, before, after = mask_rates_by_blocks(
        torch.tensor(totals), steps, get_schedule(schedule), block_length
    )
    rate = SCHEDULES[schedule]
    for row, total in enumerate(totals):
        step = 0
        for number, share in enumerate(shares(steps, block_sizes(total, block_length))):
            for i in range(share):
                assert int(block[step, row]) == number
                assert float(before[step, row]) == pytest.approx(rate(1 - i / share), abs=1e-12)
                nxt = rate(1 - (i + 1) / share)
                assert float(after[step, row]) == pytest.approx(nxt, abs=1e-12)
                step += 1
        assert step == steps


# --- coin flips ----------------------------------------------------------------------------------


@pytest.mark.wide
@given(
    after=st.floats(0, 1),
    more=st.floats(1e-6, 1),
    share=st.floats(0, 1),
)
def test_revealing_makes_up_for_remasking(after, more, share):
    """What was masked and stays, and what is masked again, are together the rate after it."""
    before = after + more
    assume(before <= 1)
    alpha = 1 - before
    largest = min(1.0, after / alpha) if alpha > 0 else 1.0
    sigma = share * largest
    reveal = float(
        reveal_probability(
            torch.tensor(before).double(), torch.tensor(after).double(), torch.tensor(sigma)
        )
    )
    assert 0 <= reveal <= 1
    assert before * (1 - reveal) + alpha * sigma == pytest.approx(after, abs=1e-6)


def test_reveal_probability_of_plain_ancestral_sampling():
    """(mask rate t - mask rate s) / mask rate t; the last step reveals everything."""
    before, after = torch.tensor([1.0, 0.8, 0.5]).double(), torch.tensor([0.8, 0.5, 0.0]).double()
    assert reveal_probability(before, after).tolist() == pytest.approx([0.2, 0.375, 1.0])
    nothing_masked = torch.zeros(1).double()
    assert reveal_probability(nothing_masked, nothing_masked).tolist() == [0]


def test_the_last_step_reveals_every_mask_to_the_last_bit():
    """However few are left: a probability a hair below 1 would leave a mask behind some day."""
    before = torch.cat([torch.linspace(1e-3, 1, 1000), torch.tensor([1e-9, 1e-15])]).double()
    assert reveal_probability(before, torch.zeros_like(before)).eq(1).all()


# --- certainty -----------------------------------------------------------------------------------

CERTAINTIES = [0.0, 0.05, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99, 1.0]
ENTROPIES = [0.0, 0.01, 0.05, 0.25, 0.5, 1.0]  # sums of the binary fractions are exact enough


@st.composite
def rows_of(draw, values):
    """Values and candidates, two lists of lists of the same shape."""
    height, width = draw(st.integers(1, 3)), draw(st.integers(1, 6))

    def field(cells):
        row = st.lists(cells, min_size=width, max_size=width)
        return draw(st.lists(row, min_size=height, max_size=height))

    return field(st.sampled_from(values)), field(st.booleans())


def best_first(values, candidates):
    """Places of the candidates, the highest first, of equals the leftmost."""
    return sorted((i for i, c in enumerate(candidates) if c), key=lambda i: (-values[i], i))


def marked(answer):
    return [set(row.nonzero().squeeze(1).tolist()) for row in answer]


@pytest.mark.wide
@given(rows_of(CERTAINTIES), st.sampled_from([0.0, 0.2, 0.6, 0.93, 1.0]))
def test_threshold_takes_the_certain_and_the_best(rows, threshold):
    probabilities, candidates = rows
    scores = torch.tensor(probabilities, dtype=torch.float64).log()
    answer = marked(within_threshold(scores, torch.tensor(candidates), threshold))
    for row, certainty, allowed in zip(answer, probabilities, candidates, strict=True):
        order = best_first(certainty, allowed)
        certain = {i for i in order if certainty[i] >= threshold - 1e-12}
        assert row == certain | set(order[:1])


@pytest.mark.wide
@given(rows_of(CERTAINTIES), st.sampled_from([1e-9, 0.35, 0.8, 1.7, 100.0]))
def test_factor_takes_the_largest_number_that_fits(rows, factor):
    """Written out: try every n; the n-th best has probability p, and (n + 1)(1 - p) < factor."""
    probabilities, candidates = rows
    scores = torch.tensor(probabilities, dtype=torch.float64).log()
    answer = marked(within_factor(scores, torch.tensor(candidates), factor))
    for row, certainty, allowed in zip(answer, probabilities, candidates, strict=True):
        order = best_first(certainty, allowed)
        fits = [
            n for n in range(1, len(order) + 1) if (n + 1) * (1 - certainty[order[n - 1]]) < factor
        ]
        assert row == set(order[: max(fits, default=1)])


@pytest.mark.wide
@given(rows_of(ENTROPIES), st.sampled_from([0.0, 0.03, 0.3, 0.77, 10.0]), st.booleans())
def test_entropy_budget_takes_the_longest_run_that_fits(rows, budget, by_entropy):
    """Sum less maximum of the entropies of the first n, one more at a time until too much."""
    entropies, candidates = rows
    scores = [[-h if by_entropy else h for h in row] for row in entropies]
    answer = within_entropy_budget(
        torch.tensor(scores, dtype=torch.float64),
        torch.tensor(entropies, dtype=torch.float64),
        torch.tensor(candidates),
        budget,
    )
    for row, value, entropy, allowed in zip(
        marked(answer), scores, entropies, candidates, strict=True
    ):
        order = best_first(value, allowed)
        taken = order[:1]
        for place in order[1:]:
            run = [entropy[i] for i in [*taken, place]]
            if sum(run) - max(run) > budget + 1e-12:
                break
            taken.append(place)
        assert row == set(taken)


def test_one_is_revealed_whatever_the_rule():
    """Certainty 0, an unbounded entropy, a rule that nothing meets."""
    scores = torch.tensor([[-torch.inf, -torch.inf, -3.0]])
    candidates = torch.tensor([[True, True, False]])
    first = [{0}]
    assert marked(within_threshold(scores, candidates, 1.0)) == first
    assert marked(within_factor(scores, candidates, 1e-9)) == first
    entropies = torch.full((1, 3), 10.0)
    assert marked(within_entropy_budget(scores, entropies, candidates, 0.0)) == first


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("block_length", [None, 3])
def test_a_plan_is_as_long_as_its_rows_can_use(schedule, block_length):
    """100,000 steps of 7 masks are 7 passes of one, and are planned as such."""
    masks = torch.tensor([7, 0, 4])
    plan = remaining_by_blocks(masks, 100_000, get_schedule(schedule), block_length)
    assert plan.tolist() == [[max(int(n) - s, 0) for n in masks] for s in range(1, 8)]


def test_where_tokens_compete_every_step_is_planned():
    plan = remaining_by_blocks(
        torch.tensor([2]), 5, get_schedule("linear"), None, every_step_reveals=False
    )
    assert plan[:, 0].tolist() == [1, 1, 0, 0, 0]  # the floor of 2 (4/5, 3/5, 2/5, 1/5, 0)
