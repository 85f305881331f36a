"""Which revealed tokens are masked again: the pure functions behind each `remask`.

Letters: B rows, L length, S steps.
"""

import torch
from torch import Tensor

from .sampler_paces import step_times
from .schedules import Schedule


def largest_remask_rate(before: Tensor, after: Tensor) -> Tensor:
    """Return the highest remask rate that leaves the marginals of masked diffusion as they are.

    sigma_max = min(1, (1 - alpha_s) / alpha_t), alpha = 1 - mask rate (ReMDM, arXiv 2503.00307).
    In the last step, after = 0, it is 0.

    Args:
        before: mask rate at time t, float64.
        after: mask rate at the later step s < t, same shape.
    """
    # Where at least as many masks will be left as there are tokens now, all tokens may go back.
    alpha = 1 - before
    return torch.where(alpha <= after, 1.0, after / alpha.clamp_min(torch.finfo(alpha.dtype).tiny))


def capped(before: Tensor, after: Tensor, eta: float) -> Tensor:
    """ReMDM-cap: sigma = min(eta, sigma_max)."""
    return largest_remask_rate(before, after).clamp_max(eta)


def rescaled(before: Tensor, after: Tensor, eta: float) -> Tensor:
    """ReMDM-rescale: sigma = eta sigma_max."""
    return eta * largest_remask_rate(before, after)


def by_confidence(
    before: Tensor, after: Tensor, log_probabilities: Tensor, revealed: Tensor
) -> Tensor:
    """ReMDM-conf: sigma_i = sigma_max softmax_i(-p_i) over each row's revealed tokens.

    Args:
        before: (B, 1) mask rate at time t, float64.
        after: (B, 1) mask rate at the later step.
        log_probabilities: (B, L) float, of each token when it was revealed.
        revealed: (B, L) bool; prompt and padding are none, so they take no share of the softmax.

    Returns:
        (B, L) float64, 0 where nothing was revealed.
    """
    # Of unsure tokens more go back: a softmax over minus the probability at the reveal.
    doubt = (-log_probabilities.double().exp()).masked_fill(~revealed, -torch.inf)
    share = doubt.softmax(1).nan_to_num(0.0)  # a row with nothing revealed
    return largest_remask_rate(before, after) * share


def loop_mask_rates(
    steps: int, schedule: Schedule, t_on: float, t_off: float, alpha_on: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Plan ReMDM-loop: unmask to a share alpha_on, stay there remasking, then finish.

    From t = 1 to t_on the schedule runs down to a mask rate of 1 - alpha_on, from t_on to t_off it
    stays there, and from t_off to 0 it runs down to 0 (arXiv 2503.00307). With the
    linear schedule these are the straight lines of the paper.

    Args:
        steps: S.
        schedule: the shape of the way down.
        t_on: where the loop starts, at most 1.
        t_off: where it ends, at least 0 and less than `t_on`.
        alpha_on: share of tokens revealed during the loop, in (0, 1).

    Returns:
        Mask rates before and after each step and whether the step remasks, each (S,).
    """
    times = step_times(steps)
    first = (times - t_on).clamp_min(0) / max(1 - t_on, 1 / steps)
    last = times / t_off if t_off else torch.ones_like(times)
    rates = torch.where(
        times > t_on,
        1 - alpha_on * (1 - schedule.mask_rate(first.clamp(0, 1))),
        torch.where(times < t_off, schedule.mask_rate(last.clamp(0, 1)), 1.0) * (1 - alpha_on),
    )
    # Whatever the numbers are, it starts fully masked and leaves no mask behind.
    rates[0], rates[-1] = 1.0, 0.0
    before, after = rates[:-1], rates[1:]
    # A step remasks if it lies in the loop with both its ends, and never if it is the last.
    looping = (times[:-1] <= t_on) & (times[1:] >= t_off)
    return before, after, looping & (after > 0)
