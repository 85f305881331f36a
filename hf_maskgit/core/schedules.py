"""Schedules: how much of a text is hidden at time t.

Time runs as in MDLM (arXiv 2406.07524): t = 0 is the clean text, t = 1 the fully masked one.
`mask_rate(t)` is the expected fraction of maskable positions hidden at t; it rises from 0 to 1.
In MDLM's letters mask_rate = 1 - alpha. MaskGIT (arXiv 2202.04200) writes the same cosine curve
over the progress of decoding, r = 1 - t, as cos(pi r / 2).

This file alone knows the formulas; training and decoding both ask it.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

_GRID_POINTS = 1025  # resolution of the check of a user's own schedule
_END_TOLERANCE = 1e-6  # a float32 cosine misses its ends by about 1e-7
_RISING_SHARE = 0.99  # of the grid, where the derivative must be positive
_BISECTIONS = 60  # halvings of [0, 1]: below the spacing of float64


class Schedule:
    """A strictly rising map from time in [0, 1] to the fraction masked in [0, 1].

    Args:
        mask_rate: function of a float tensor of times, any shape, values in [0, 1], that returns
            the fractions masked, same shape. Must be differentiable by torch.
        inverse: its inverse where a closed form is known; otherwise bisection is used.
        name: what `MaskGitConfig` stores; None for a user's own function, which JSON cannot hold.

    Raises:
        ValueError: when `mask_rate` does not start at 0, end at 1 and rise strictly in between,
            torch cannot differentiate it, or `inverse` is not its inverse.
    """

    def __init__(
        self,
        mask_rate: Callable[[Tensor], Tensor],
        inverse: Callable[[Tensor], Tensor] | None = None,
        name: str | None = None,
    ) -> None:
        self._mask_rate = mask_rate
        self._inverse = inverse
        self.name = name
        self._check()

    def __repr__(self) -> str:
        """Name the schedule."""
        return f"Schedule({self.name or self._mask_rate!r})"

    def mask_rate(self, t: Tensor) -> Tensor:
        """Return the expected fraction of maskable positions hidden at time t.

        Args:
            t: times in [0, 1], float tensor of any shape.

        Returns:
            Fractions in [0, 1], same shape and dtype.

        Raises:
            ValueError: for times outside [0, 1].
        """
        return self._mask_rate(_unit_interval(t, "time"))

    def loss_weight(self, t: Tensor) -> Tensor:
        """Return mask_rate'(t) / mask_rate(t), the weight of the cross-entropy at time t.

        MDLM eq. 10 with alpha = 1 - mask_rate. Linear gives 1/t, cosine (pi/2) cot(pi t/2). The
        derivative comes from forward-mode autodiff, so a user's schedule needs one function only.

        Args:
            t: times in (0, 1], float tensor of any shape.

        Returns:
            Weights >= 0, same shape and dtype; infinite at t = 0, nan if the slope there is 0.

        Raises:
            ValueError: for times outside [0, 1].
        """
        t = _unit_interval(t, "time")
        rate, slope = torch.func.jvp(self._mask_rate, (t,), (torch.ones_like(t),))[:2]
        # The cosine's slope at t = 1 is zero up to the sign of rounding.
        return slope.clamp_min(0) / rate

    def inverse(self, rate: Tensor) -> Tensor:
        """Return the time at which the given fraction is masked.

        Args:
            rate: fractions in [0, 1], float tensor of any shape.

        Returns:
            Times in [0, 1], same shape and dtype; exact at both ends.

        Raises:
            ValueError: for fractions outside [0, 1].
        """
        rate = _unit_interval(rate, "mask rate")
        time = self._inverse(rate) if self._inverse is not None else self._bisect(rate)
        return torch.where(rate <= 0, 0.0, torch.where(rate >= 1, 1.0, time)).to(rate.dtype)

    def _bisect(self, rate: Tensor) -> Tensor:
        target = rate.double()
        low, high = torch.zeros_like(target), torch.ones_like(target)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            below = self._mask_rate(middle) < target
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return high

    def _check(self) -> None:
        grid = torch.linspace(0, 1, _GRID_POINTS, dtype=torch.float64)
        try:
            rates = self._mask_rate(grid)
        except Exception as error:
            raise ValueError(
                "The schedule fails when it is called with a tensor of times "
                f"({type(error).__name__}: {error}); it must map them to fractions masked."
            ) from error
        advice = "a schedule must rise strictly from mask_rate(0) = 0 to mask_rate(1) = 1"
        if not isinstance(rates, Tensor) or rates.shape != grid.shape:
            got = tuple(rates.shape) if isinstance(rates, Tensor) else type(rates).__name__
            raise ValueError(
                f"The schedule returned {got} for times of shape {tuple(grid.shape)}; it must map "
                "a float tensor to a float tensor of the same shape."
            )
        start, end = float(rates[0]), float(rates[-1])
        if abs(start) > _END_TOLERANCE or abs(end - 1) > _END_TOLERANCE:
            raise ValueError(f"The schedule runs from {start:.4g} to {end:.4g}; {advice}.")
        falls = (rates.diff() <= 0).nonzero()
        if len(falls) or not bool(rates.isfinite().all()):
            where = float(grid[falls[0]]) if len(falls) else float(grid[~rates.isfinite()][0])
            raise ValueError(f"The schedule does not rise at t = {where:.4g}; {advice}.")
        self._check_derivative(grid[1:-1])
        if self._inverse is not None:
            self._check_inverse(rates, self._inverse)

    def _check_inverse(self, rates: Tensor, inverse: Callable[[Tensor], Tensor]) -> None:
        # The weights of exact counts come from the inverse: a wrong one biases the loss silently.
        again = self._mask_rate(inverse(rates))
        worst = int((again - rates).abs().nan_to_num(torch.inf).argmax())
        if not abs(float(again[worst] - rates[worst])) <= _END_TOLERANCE:
            raise ValueError(
                f"`inverse` is not the schedule's: at the time that it gives for "
                f"{float(rates[worst]):.4g}, the fraction masked is {float(again[worst]):.4g}. "
                "Leave it out; the inverse is then found by bisection."
            )

    def _check_derivative(self, t: Tensor) -> None:
        try:
            slope = torch.func.jvp(self._mask_rate, (t,), (torch.ones_like(t),))[1]
        except RuntimeError as error:
            raise ValueError(
                "The schedule is not differentiable by torch, which its loss weight needs: compute "
                f"it with torch functions of the tensor it is given ({error})."
            ) from error
        # An inflection may be flat at a point, a stretch may not.
        if float((slope > 0).double().mean()) < _RISING_SHARE:
            raise ValueError(
                "The schedule rises where its derivative is 0, so it is not differentiable by "
                "torch; do not detach the tensor it is given."
            )


def get_schedule(schedule: "str | Callable[[Tensor], Tensor] | Schedule") -> Schedule:
    """Return the schedule of that name, or make one of a user's `mask_rate` function.

    Args:
        schedule: "linear", "cosine", a function from times to fractions masked, or a `Schedule`.

    Raises:
        ValueError: for an unknown name or a function that is no schedule.
    """
    if isinstance(schedule, Schedule):
        return schedule
    if isinstance(schedule, str):
        if schedule not in SCHEDULES:
            raise ValueError(
                f"Unknown schedule {schedule!r}; choose from {', '.join(map(repr, SCHEDULES))}, or "
                "pass a function from time to the fraction masked."
            )
        return SCHEDULES[schedule]
    if callable(schedule):
        return Schedule(schedule)
    raise ValueError(
        f"A schedule is a name or a function, got {type(schedule).__name__}; choose from "
        f"{', '.join(map(repr, SCHEDULES))}."
    )


def _unit_interval(values: Tensor, what: str) -> Tensor:
    if not values.is_floating_point():
        raise ValueError(f"The {what} must be a float tensor, got dtype {values.dtype}.")
    if not bool(((values >= 0) & (values <= 1)).all()):  # also catches nan
        raise ValueError(
            f"The {what} must lie in [0, 1], got values from {float(values.min()):.4g} to "
            f"{float(values.max()):.4g}."
        )
    return values


def _linear(t: Tensor) -> Tensor:
    return t * 1.0  # a new tensor: autodiff needs a function, not an alias


def _cosine(t: Tensor) -> Tensor:
    return torch.sin(math.pi / 2 * t)


def _cosine_inverse(rate: Tensor) -> Tensor:
    return torch.asin(rate) * (2 / math.pi)


class _Own(Schedule):
    """One of this library's, which its tests check: to differentiate takes torch long at first."""

    def _check(self) -> None:
        pass


SCHEDULES: dict[str, Schedule] = {
    "linear": _Own(_linear, inverse=_linear, name="linear"),
    "cosine": _Own(_cosine, inverse=_cosine_inverse, name="cosine"),
}
