"""What is masked again: each function against a slow and obvious version; a few scores as well."""

import itertools
import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from hf_maskgit.core.sampler_paces import reveal_probability
from hf_maskgit.core.sampler_remasks import (
    by_confidence,
    capped,
    largest_remask_rate,
    loop_mask_rates,
    rescaled,
)
from hf_maskgit.core.sampler_scores import margin, negative_entropy
from hf_maskgit.core.schedules import get_schedule


def double(value):
    return torch.tensor(value, dtype=torch.float64)


# --- rates ---------------------------------------------------------------------------------------


@pytest.mark.wide
@given(after=st.floats(0, 1), more=st.floats(1e-6, 1))
def test_the_largest_rate_is_where_all_masks_need_to_be_revealed(after, more):
    """Found by trying: the highest sigma up to 1 at which the masks are no more than planned."""
    before = after + more
    assume(before <= 1)

    def exceeds(sigma):
        """Tell whether the new masks alone, every old one revealed, are more than planned."""
        return sigma * (1 - before) > after

    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if exceeds(middle) else (middle, high)
    found = low if exceeds(1.0) else 1.0
    assert float(largest_remask_rate(double(before), double(after))) == pytest.approx(found)


def test_the_largest_rate_written_out():
    """min(1, (1 - alpha_s) / alpha_t) with alpha = 1 - mask rate."""
    before, after = double([1.0, 0.9, 0.5, 0.3, 0.1]), double([0.9, 0.5, 0.3, 0.1, 0.0])
    assert largest_remask_rate(before, after).tolist() == pytest.approx([1, 1, 0.6, 1 / 7, 0])
    assert capped(before, after, 0.2).tolist() == pytest.approx([0.2, 0.2, 0.2, 1 / 7, 0])
    assert rescaled(before, after, 0.2).tolist() == pytest.approx([0.2, 0.2, 0.12, 0.2 / 7, 0])


def test_at_the_largest_rate_all_that_was_masked_is_revealed():
    """Or nothing is left to remask: both ends of what keeps the mask rate."""
    before, after = double([0.5, 0.3, 0.1]), double([0.3, 0.1, 0.05])
    sigma = largest_remask_rate(before, after)
    assert reveal_probability(before, after, sigma).tolist() == pytest.approx([1, 1, 1])
    assert (sigma * (1 - before)).tolist() == pytest.approx(after.tolist())


@pytest.mark.wide
@given(
    confidences=st.lists(
        st.lists(st.floats(0.001, 1), min_size=4, max_size=4), min_size=1, max_size=3
    ),
    flags=st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=3, max_size=3),
)
def test_confidence_shares_the_rate_out_among_the_revealed(confidences, flags):
    flags = flags[: len(confidences)]
    rates = by_confidence(
        double([[0.5]] * len(confidences)),
        double([[0.3]] * len(confidences)),
        double(confidences).log(),
        torch.tensor(flags),
    )
    for row, (ps, revealed) in enumerate(zip(confidences, flags, strict=True)):
        weights = [math.exp(-p) if r else 0.0 for p, r in zip(ps, revealed, strict=True)]
        total = sum(weights) or 1.0
        assert rates[row].tolist() == pytest.approx([0.6 * w / total for w in weights])


# --- the loop ------------------------------------------------------------------------------------


def line(points, t):
    """Piecewise linear through (time, value), times falling."""
    for (t0, v0), (t1, v1) in itertools.pairwise(points):
        if t0 >= t >= t1:
            return v0 if t0 == t1 else v1 + (v0 - v1) * (t - t1) / (t0 - t1)
    raise AssertionError(t)


@pytest.mark.parametrize("steps", [4, 20, 1000])
def test_the_loop_follows_the_lines_of_the_paper(steps):
    """Linear down to 1 - alpha_on at t_on, level to t_off, down to 0."""
    before, after, looping = loop_mask_rates(steps, get_schedule("linear"), 0.55, 0.05, 0.9)
    points = [(1.0, 1.0), (0.55, 0.1), (0.05, 0.1), (0.0, 0.0)]
    times = [1 - i / steps for i in range(steps + 1)]
    expected = [line(points, t) for t in times]
    assert before.tolist() == pytest.approx(expected[:-1])
    assert after.tolist() == pytest.approx(expected[1:])
    for i in range(steps):
        level = times[i] <= 0.55 and times[i + 1] >= 0.05 - 1e-12
        assert bool(looping[i]) == level, times[i]


def test_a_step_that_reaches_just_to_an_end_of_the_loop_lies_in_it():
    _, _, looping = loop_mask_rates(4, get_schedule("linear"), 0.75, 0.25, 0.9)
    assert looping.tolist() == [False, True, True, False]  # from 1, 0.75, 0.5 and 0.25


@pytest.mark.wide
@given(
    steps=st.integers(1, 60),
    schedule=st.sampled_from(["linear", "cosine"]),
    t_on=st.floats(0.01, 1),
    share=st.floats(0, 0.99),
    alpha_on=st.floats(0.01, 0.99),
    eta=st.floats(0, 1),
)
def test_the_loop_runs_down_and_asks_for_nothing_impossible(
    steps, schedule, t_on, share, alpha_on, eta
):
    before, after, looping = loop_mask_rates(
        steps, get_schedule(schedule), t_on, share * t_on, alpha_on
    )
    assert float(before[0]) == 1
    assert float(after[-1]) == 0
    assert torch.equal(before[1:], after[:-1])
    assert bool((after <= before + 1e-12).all())
    assert not bool(looping[-1])
    sigma = torch.where(looping, capped(before, after, eta), 0.0)
    left = before * (1 - reveal_probability(before, after, sigma)) + (1 - before) * sigma
    assert torch.allclose(left, after, atol=1e-8), "the plan's mask rates are not kept"


# --- scores --------------------------------------------------------------------------------------


@pytest.mark.wide
@given(
    st.lists(
        st.lists(st.floats(0, 1), min_size=4, max_size=4).filter(lambda p: sum(p) > 0.1),
        min_size=1,
        max_size=4,
    )
)
def test_margin_and_entropy_are_those_of_a_loop(laws):
    laws = [[p / sum(law) for p in law] for law in laws]
    logits = double(laws).log() + 7.0
    for got_margin, got_entropy, law in zip(
        margin(logits).tolist(), negative_entropy(logits).tolist(), laws, strict=True
    ):
        first, second = sorted(law)[-1:-3:-1]
        assert got_margin == pytest.approx(first - second, abs=1e-9)
        terms = [p * math.log(p) for p in law if p > 0]
        assert got_entropy == pytest.approx(math.fsum(terms), abs=1e-9)


def test_margin_and_entropy_where_one_token_is_possible():
    certain = torch.tensor([[-torch.inf, 2.0, -torch.inf]])
    assert margin(certain).tolist() == [1]
    assert negative_entropy(certain).tolist() == [0]
    assert margin(torch.zeros(1, 1)).tolist() == [1]
