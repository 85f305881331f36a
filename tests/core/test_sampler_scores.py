"""Laws of the sampler's pure functions, each against a slow and obvious version."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hf_maskgit.core.sampler_orders import ORDERS
from hf_maskgit.core.sampler_paces import annealing, remaining_counts
from hf_maskgit.core.sampler_rules import PACES
from hf_maskgit.core.sampler_scores import (
    draw,
    draw_by,
    gumbel,
    highest,
    likeliest,
    log_probability,
    top_log_probability,
)
from hf_maskgit.core.schedules import get_schedule
from tests.support.grids import wide
from tests.support.oracles_sampling import chi_square


def mask_rates(schedule, steps):
    times = 1 - torch.arange(1, steps + 1, dtype=torch.float64) / steps
    return get_schedule(schedule).mask_rate(times)


# --- how many ------------------------------------------------------------------------------------


@pytest.mark.wide
def test_linear_plan_is_exact_integer_arithmetic():
    num_masked = torch.arange(129)
    for steps in range(1, 129):
        plan = remaining_counts(num_masked, mask_rates("linear", steps))
        left = num_masked.clone()
        for step in range(steps):
            planned = num_masked * (steps - 1 - step) // steps
            left = torch.minimum(planned, (left - 1).clamp_min(0))
            assert torch.equal(plan[step], left), (steps, step)


def test_cosine_plan_floors_no_product_that_is_a_whole_number():
    """cos(pi/3) is one half, so after two of three steps half the masks are left, to the mask."""
    num_masked = torch.arange(2, 10_001, 2)
    plan = remaining_counts(num_masked, mask_rates("cosine", 3))
    assert torch.equal(plan[1, 1:], num_masked[1:] // 2)


def test_cosine_plan_is_that_of_maskgit():
    """MaskGIT, section 3.2: after step s of S, floor(N cos(pi s / 2S)) are still masked."""
    num_masked = torch.tensor([97, 256, 500])
    plan = remaining_counts(num_masked, mask_rates("cosine", 12))
    for step in range(1, 13):
        for row, n in enumerate(num_masked.tolist()):
            assert plan[step - 1, row] == math.floor(n * math.cos(math.pi * step / 24) + 1e-9)


@pytest.mark.parametrize("numbers", [range(1, 200), wide(range(200, 513))], ids=str)
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_with_as_many_steps_as_masks_every_step_reveals_exactly_one(schedule, numbers):
    for n in numbers:
        plan = remaining_counts(torch.tensor([n]), mask_rates(schedule, n))[:, 0]
        assert plan.tolist() == list(range(n - 1, -1, -1)), n


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("steps", [512, 513, 700, 1000, 1024])
def test_with_more_steps_than_masks_every_step_reveals_one_until_none_is_left(schedule, steps):
    num_masked = torch.arange(513)
    plan = remaining_counts(num_masked, mask_rates(schedule, steps))
    for step in range(steps):
        assert torch.equal(plan[step], (num_masked - step - 1).clamp_min(0)), step


@pytest.mark.wide
@given(
    num_masked=st.lists(st.integers(0, 600), min_size=1, max_size=4),
    steps=st.integers(1, 40),
    schedule=st.sampled_from(["linear", "cosine", lambda t: t**3, lambda t: 1 - (1 - t) ** 4]),
)
def test_every_plan_reveals_at_least_one_per_step_and_ends_at_none(num_masked, steps, schedule):
    start = torch.tensor(num_masked)
    plan = torch.cat([start[None], remaining_counts(start, mask_rates(schedule, steps))])
    revealed = -plan.diff(dim=0)
    assert bool((revealed >= (plan[:-1] > 0)).all())
    assert plan[-1].tolist() == [0] * len(num_masked)


# --- which ---------------------------------------------------------------------------------------


@pytest.mark.wide
@given(st.data())
def test_highest_marks_the_first_of_the_sorted_candidates(data):
    """Against sorting each row by (score falling, place rising) and taking the first of it."""
    rows, width = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 7))

    def field(values):
        row = st.lists(values, min_size=width, max_size=width)
        return data.draw(st.lists(row, min_size=rows, max_size=rows))

    scores = field(st.sampled_from([-math.inf, -2.0, -1.0, 0.0, 0.5, 3.0]))
    candidates = field(st.booleans())
    counts = data.draw(st.lists(st.integers(0, width + 1), min_size=rows, max_size=rows))
    marked = highest(torch.tensor(scores), torch.tensor(candidates), torch.tensor(counts))
    for row in range(rows):
        places = [i for i in range(width) if candidates[row][i]]
        best = sorted(places, key=lambda i: (-scores[row][i], i))[: counts[row]]
        assert marked[row].nonzero().squeeze(1).tolist() == sorted(best)


def test_a_score_of_minus_infinity_does_not_keep_a_candidate_from_being_marked():
    scores = torch.tensor([[0.0, 0.0, -torch.inf]])
    only_last = torch.tensor([[False, False, True]])
    assert torch.equal(highest(scores, only_last, torch.tensor([1])), only_last)


def test_scores_are_log_probabilities():
    logits = torch.randn(50, 9, dtype=torch.float64) * 4
    logits[:, 3] = -torch.inf
    tokens = torch.randint(4, 9, (50,))
    law = logits.exp() / logits.exp().sum(1, keepdim=True)
    assert torch.allclose(top_log_probability(logits).exp(), law.max(1).values)
    assert torch.allclose(log_probability(logits, tokens).exp(), law[range(50), tokens])


def test_scores_survive_logits_beyond_the_range_of_exp():
    logits = torch.tensor([[1e4, 1e4, -1e4]])
    assert top_log_probability(logits).item() == pytest.approx(math.log(0.5), abs=1e-3)


def test_the_closed_tables():
    scored = {"top_probability", "margin", "entropy"}
    assert scored < set(ORDERS) >= {"confidence", "random"}
    assert next(iter(PACES)) == "schedule"


# --- drawing -------------------------------------------------------------------------------------


def law_of(*probabilities, dtype=torch.float32):
    return torch.tensor([probabilities], dtype=dtype).log()


ALMOST_ONE = 1 - 2**-53  # the largest float64 below 1; as a float32 it is 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("law", "uniform", "token"),
    [
        ((0.0, 0.0, 0.3, 0.7), 0.0, 2),  # not the forbidden id 0
        ((0.3, 0.7, 0.0, 0.0), ALMOST_ONE, 1),  # not the id behind the last possible one
        ((0.0, 1.0, 0.0), 0.0, 1),
        ((0.0, 1.0, 0.0), ALMOST_ONE, 1),
        ((0.5, 0.0, 0.5), 0.5, 2),  # a border belongs to the token behind it, never to an empty one
        ((0.5, 0.0, 0.5), 0.5 - 1e-6, 0),
        ((0.25, 0.25, 0.5), 0.3, 1),
    ],
)
def test_draw_inverts_the_distribution_and_never_hits_an_empty_place(law, uniform, token, dtype):
    uniforms = torch.tensor([uniform], dtype=torch.float64)
    assert draw(law_of(*law, dtype=dtype), uniforms).tolist() == [token]


@pytest.mark.parametrize("size", [3, 1000, 30_522])
def test_no_uniform_reaches_a_token_without_probability(size):
    """Float32 totals may miss 1 from either side; both ends are tried on many laws."""
    logits = torch.randn(64, size) * 5
    forbidden = torch.rand(64, size) < 0.5
    forbidden[:, 0] = forbidden[:, -1] = True
    forbidden[:, 1] = False
    logits = logits.masked_fill(forbidden, -torch.inf)
    for uniform in (0.0, 2.0**-60, 0.5, 1 - 2.0**-24, 1 - 2.0**-25, ALMOST_ONE):
        tokens = draw(logits, torch.full((64,), uniform, dtype=torch.float64))
        assert not bool(forbidden.gather(1, tokens[:, None]).any()), uniform


@pytest.mark.wide
@given(
    law=st.lists(st.integers(0, 9), min_size=2, max_size=8).filter(any),
    uniform=st.floats(0, 1, exclude_max=True),
)
def test_draw_is_the_inverse_of_the_cumulative_distribution(law, uniform):
    borders = np.cumsum(law) / sum(law)
    slack = np.abs(borders - uniform).min()
    if 0 < slack < 1e-12:
        return  # on either side of a border by rounding alone
    expected = int(np.searchsorted(borders, uniform, side="right"))
    token = draw(law_of(*map(float, law), dtype=torch.float64), torch.tensor([uniform]).double())
    assert law[int(token)] > 0
    assert slack == 0 or int(token) == expected


@pytest.mark.parametrize("size", [127, 128, 129, 300, 1024])
def test_a_draw_from_many_tokens_is_the_inverse_too(size):
    """In chunks, some of them empty; every border and every middle is tried."""
    random = np.random.default_rng(size)
    law = random.integers(0, 9, size) * (random.random(size) < 0.3)
    law[20:150] = 0
    law[size - 1] = 0
    law[3] = 1
    borders = np.cumsum(law)
    uniforms = (np.arange(2 * borders[-1]) + 0.5) / (2 * borders[-1])
    expected = np.searchsorted(borders, uniforms * borders[-1], side="right")
    logits = law_of(*map(float, law), dtype=torch.float64).expand(len(uniforms), -1)
    assert draw(logits, torch.tensor(uniforms)).tolist() == expected.tolist()
    some = borders[borders < borders[-1]] / borders[-1]
    at_borders = draw(logits[:1].expand(len(some), -1), torch.tensor(some))
    assert (law[at_borders.numpy()] > 0).all()


@pytest.mark.wide
def test_draws_from_many_tokens_follow_the_law_in_float32():
    """Chi-square of 200,000 draws against the softmax; false alarm 1e-6 for a fresh seed."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1000, generator=generator)
    logits[100:300] = -torch.inf
    uniforms = torch.rand(200_000, dtype=torch.float64, generator=generator)
    counts = torch.zeros(1000)
    for some in uniforms.split(20_000):
        counts += torch.bincount(draw(logits.expand(len(some), -1), some), minlength=1000)
    law = logits.double().softmax(-1)
    assert counts[law == 0].sum() == 0
    assert chi_square(counts[law > 0].numpy(), law[law > 0].numpy()) > 1e-6
    shifted = law[law > 0].roll(1).numpy()
    assert chi_square(counts[law > 0].numpy(), shifted) < 1e-12, "the test has no power"


def test_a_draw_does_not_depend_on_the_rows_beside_it():
    logits, uniforms = torch.randn(9, 500) * 3, torch.rand(9)
    alone = [int(draw(logits[i : i + 1], uniforms[i : i + 1])) for i in range(9)]
    assert draw(logits, uniforms).tolist() == alone


@pytest.mark.parametrize("size", [5, 128, 330, 30_522])
def test_rows_that_are_no_numbers_give_ids_of_the_vocabulary(size):
    """So that whoever checks for nan finds it, and not an index out of bounds."""
    nothing = torch.full((2, size), torch.nan)
    uniforms = torch.tensor([0.0, 0.99])
    for tokens in (draw(nothing, uniforms), draw_by(nothing, uniforms)):
        assert ((tokens >= 0) & (tokens < size)).all()


@pytest.mark.parametrize("size", [1, 5, 128, 129, 700])
def test_the_likeliest_is_the_first_of_the_greatest(size):
    logits = torch.randint(4, (50, size), generator=torch.Generator().manual_seed(0)).float()
    logits[:, size // 2 :] = logits[:, size // 2 :].masked_fill(
        logits[:, size // 2 :] == 0, -torch.inf
    )
    expected = [row.index(max(row)) for row in logits.tolist()]
    assert likeliest(logits).tolist() == expected
    assert likeliest(logits.masked_fill(logits > -9, -torch.inf)).tolist() == [0] * 50


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_follow_the_law(dtype):
    """Chi-square of 100,000 draws against the softmax; false alarm 1e-6 for a fresh seed."""
    law = torch.tensor([0.0, 0.3, 0.001, 0.0, 0.2, 0.449, 0.05, 0.0])
    logits = (law.log() + 3).to(dtype).expand(100_000, -1)
    uniforms = torch.rand(100_000, dtype=torch.float64)
    counts = np.bincount(draw(logits, uniforms).numpy(), minlength=8)
    assert counts[law.numpy() == 0].sum() == 0
    assert chi_square(counts[law.numpy() > 0], law[law > 0].numpy()) > 1e-6
    shifted = law[law > 0].roll(1).numpy()
    assert chi_square(counts[law.numpy() > 0], shifted) < 1e-12, "the test has no power"


class OfAnAccelerator(torch.Tensor):
    """Says that it lies there; its sums fall where nothing is added, as parallel ones may."""

    device = torch.device("cuda")

    def cumsum(self, dim):
        sums = super().cumsum(dim)
        sums[0, 1] -= 1e-3
        return sums


def test_a_parallel_sum_that_falls_makes_no_token_of_probability_zero_possible():
    laws = torch.tensor([[0.5, 0.0, 0.5], [0.0, 0.0, 1.0]])
    logits = laws.log().as_subclass(OfAnAccelerator)
    assert draw(logits, torch.tensor([0.4995, 0.4995])).tolist() == [0, 2]


def test_draw_leaves_its_arguments_alone():
    logits, uniforms = torch.randn(5, 7), torch.rand(5)
    before = logits.clone(), uniforms.clone()
    draw(logits, uniforms)
    assert torch.equal(logits, before[0])
    assert torch.equal(uniforms, before[1])


# --- noise and annealing -------------------------------------------------------------------------


def test_gumbel_noise_follows_the_gumbel_law():
    """Kolmogorov-Smirnov on 20,000 values; false alarm 1e-6 for a fresh seed."""
    noise = gumbel(torch.rand(20_000, dtype=torch.float64)).numpy()
    assert stats.kstest(noise, "gumbel_r").pvalue > 1e-6
    assert stats.kstest(-noise, "gumbel_r").pvalue < 1e-12, "the test has no power"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gumbel_noise_is_finite_and_rises_with_its_uniform(dtype):
    uniforms = torch.tensor([0.0, 1e-30, 0.1, 0.5, 0.9, 1 - 2**-24], dtype=dtype)
    noise = gumbel(uniforms)
    assert bool(noise.isfinite().all())
    assert bool((noise.diff() >= 0).all())
    assert noise.dtype == dtype


@pytest.mark.parametrize("steps", [1, 2, 18])
def test_annealing_falls_evenly_to_zero(steps):
    fractions = [annealing(step, steps) for step in range(steps)]
    assert fractions == pytest.approx(np.linspace(1 - 1 / steps, 0, steps).tolist())
    assert fractions[-1] == 0
