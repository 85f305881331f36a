"""Schedules: values, derivative, inverse, and what is no schedule."""

import math

import pytest
import torch
from scipy.integrate import quad

from hf_maskgit import get_schedule
from hf_maskgit.core.schedules import SCHEDULES, Schedule


def bowl(t):
    return (t + t * t) / 2


def smoothstep(t):
    return t * t * (3 - 2 * t)


def exponential(t):
    return torch.expm1(3 * t) / math.expm1(3)


# Each with its mask rate, loss weight and inverse in closed form, on Python floats.
CLOSED_FORMS = {
    "linear": ("linear", lambda t: t, lambda t: 1 / t, lambda r: r),
    "cosine": (
        "cosine",
        lambda t: math.cos(math.pi / 2 * (1 - t)),
        lambda t: math.pi / 2 / math.tan(math.pi / 2 * t),
        lambda r: 1 - math.acos(r) * 2 / math.pi,
    ),
    "bowl": (
        bowl,
        lambda t: t * (1 + t) / 2,
        lambda t: (1 + 2 * t) / (t * (1 + t)),
        lambda r: (math.sqrt(1 + 8 * r) - 1) / 2,
    ),
    "exponential": (
        exponential,
        lambda t: (math.exp(3 * t) - 1) / (math.exp(3) - 1),
        lambda t: 3 / (1 - math.exp(-3 * t)),
        lambda r: math.log(1 + r * (math.exp(3) - 1)) / 3,
    ),
}
TIMES = torch.linspace(0, 1, 101, dtype=torch.float64)
each_schedule = pytest.mark.parametrize(
    "schedule", ["linear", "cosine", bowl, smoothstep, exponential]
)


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_rate_weight_and_inverse_are_the_closed_forms(name):
    given, rate, weight, inverse = CLOSED_FORMS[name]
    schedule = get_schedule(given)
    times = TIMES[1:].tolist()
    assert schedule.mask_rate(TIMES[1:]).tolist() == pytest.approx([*map(rate, times)], abs=1e-12)
    weights = schedule.loss_weight(TIMES[1:]).tolist()
    assert weights == pytest.approx([*map(weight, times)], rel=1e-9, abs=1e-12)
    assert schedule.inverse(TIMES[1:]).tolist() == pytest.approx([*map(inverse, times)], abs=1e-7)


@each_schedule
def test_the_loss_weight_is_the_slope_of_the_logarithm_of_the_mask_rate(schedule):
    schedule = get_schedule(schedule)
    t, step = TIMES[5:-5], 1e-6
    slope = (schedule.mask_rate(t + step).log() - schedule.mask_rate(t - step).log()) / (2 * step)
    torch.testing.assert_close(schedule.loss_weight(t), slope, rtol=1e-7, atol=1e-7)


@each_schedule
def test_the_expected_weight_of_a_position_is_one_whatever_the_schedule(schedule):
    schedule = get_schedule(schedule)

    def weight_times_rate(t):
        time = torch.tensor(t, dtype=torch.float64)
        return float(schedule.loss_weight(time) * schedule.mask_rate(time))

    assert quad(weight_times_rate, 0, 1)[0] == pytest.approx(1, abs=1e-7)


@each_schedule
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_inverse_undoes_the_mask_rate_and_is_exact_at_both_ends(schedule, dtype):
    schedule, values = get_schedule(schedule), TIMES.to(dtype).view(1, -1)
    tolerance = {"rtol": 0, "atol": 5e-4 if dtype == torch.float32 else 1e-7}
    torch.testing.assert_close(schedule.inverse(schedule.mask_rate(values)), values, **tolerance)
    torch.testing.assert_close(schedule.mask_rate(schedule.inverse(values)), values, **tolerance)
    assert schedule.inverse(values)[0, [0, -1]].tolist() == [0, 1]


@each_schedule
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_are_finite_and_never_negative_at_every_time_above_zero(schedule, dtype):
    weights = get_schedule(schedule).loss_weight(TIMES[1:].to(dtype))
    assert weights.dtype == dtype
    assert weights.shape == TIMES[1:].shape
    assert bool((weights >= 0).all())
    assert bool(weights.isfinite().all())


@each_schedule
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_derivative_does_not_depend_on_the_gradient_mode_around_it(schedule, mode):
    schedule = get_schedule(schedule)
    expected = schedule.loss_weight(TIMES[1:])
    with mode():
        assert torch.equal(schedule.loss_weight(TIMES[1:].clone()), expected)


def test_a_schedule_is_found_by_name_made_of_a_function_or_passed_through():
    assert [get_schedule(name).name for name in ("linear", "cosine")] == ["linear", "cosine"]
    own = get_schedule(bowl)
    assert own.name is None
    assert get_schedule(own) is own
    assert repr(get_schedule("linear")) == "Schedule('linear')"
    assert "bowl" in repr(own)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            "sigmoid",
            r"Unknown schedule 'sigmoid'; choose from 'linear', 'cosine', or pass a function",
        ),
        (0.5, r"A schedule is a name or a function, got float; choose from 'linear', 'cosine'"),
        (None, r"A schedule is a name or a function, got NoneType"),
    ],
)
def test_what_names_no_schedule_is_refused(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        get_schedule(given)


@pytest.mark.parametrize(
    ("mask_rate", "sentence"),
    [
        (
            lambda t: 1 - t,
            r"runs from 1 to 0; a schedule must rise strictly from mask_rate\(0\) = 0",
        ),
        (lambda t: t / 2, r"runs from 0 to 0\.5; a schedule must rise strictly"),
        (lambda t: t.clamp_min(0.1), r"runs from 0\.1 to 1;"),
        (lambda t: t + torch.sin(6 * math.pi * t) / 3, r"does not rise at t = 0\.[01]"),
        (lambda t: (2 * t).clamp_max(1), r"does not rise at t = 0\.5; a schedule must rise"),
        (lambda t: torch.where(t == 0.5, torch.nan, t), r"does not rise at t = 0\.(4|5)"),
        (
            lambda t: t.mean(),
            r"returned \(\) for times of shape \(1025,\); it must map a float tensor",
        ),
        (lambda t: t.tolist(), r"returned list for times of shape \(1025,\)"),
    ],
)
def test_a_function_that_is_no_schedule_is_refused_when_it_is_given(mask_rate, sentence):
    with pytest.raises(ValueError, match=sentence):
        Schedule(mask_rate)


@pytest.mark.parametrize("function", ["mask_rate", "loss_weight", "inverse"])
@pytest.mark.parametrize("bad", [-0.01, 1.01, math.nan])
def test_a_value_outside_the_unit_interval_is_refused(function, bad):
    what = "mask rate" if function == "inverse" else "time"
    with pytest.raises(ValueError, match=rf"The {what} must lie in \[0, 1\], got values from"):
        getattr(get_schedule("cosine"), function)(torch.tensor([0.5, bad]))


@pytest.mark.parametrize("function", ["mask_rate", "loss_weight", "inverse"])
def test_whole_numbers_are_no_times(function):
    with pytest.raises(ValueError, match=r"must be a float tensor, got dtype torch\.int64"):
        getattr(get_schedule("linear"), function)(torch.tensor([0, 1]))


@pytest.mark.parametrize(
    ("mask_rate", "sentence"),
    [
        (lambda t: t.detach() ** 2, "its derivative is 0, so it is not differentiable"),
        (
            lambda t: torch.from_numpy(t.numpy() ** 2),
            "not differentiable by torch, .* torch functions",
        ),
    ],
)
def test_a_function_that_autodiff_cannot_follow_is_refused_when_it_is_given(mask_rate, sentence):
    """Its loss weight would be 0, or fail in the middle of training."""
    with pytest.raises(ValueError, match=sentence):
        Schedule(mask_rate)


def test_a_schedule_that_is_detached_on_a_stretch_is_refused():
    with pytest.raises(ValueError, match="derivative is 0"):
        get_schedule(lambda t: torch.where(t < 0.5, t.detach(), t))


def test_a_schedule_may_be_flat_at_a_point():
    get_schedule(lambda t: 4 * (t - 0.5) ** 3 + 0.5)


def test_a_wrong_inverse_is_refused():
    with pytest.raises(
        ValueError, match=r"at the time that it gives for 0\.\d+, the fraction masked is 0\.\d+"
    ):
        Schedule(lambda t: t**2, inverse=lambda rate: rate)
    with pytest.raises(ValueError, match="`inverse` is not the schedule's.* bisection"):
        Schedule(lambda t: t, inverse=lambda rate: rate * torch.nan)
    right = Schedule(lambda t: t**2, inverse=torch.sqrt)
    assert right.inverse(torch.tensor(0.25)).item() == 0.5


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_library_s_own_schedules_pass_the_check_of_a_user_s(name):
    """They are made without it when the package is imported, which would take long."""
    own = SCHEDULES[name]
    assert own.name == name
    Schedule(own.mask_rate, inverse=own.inverse)
