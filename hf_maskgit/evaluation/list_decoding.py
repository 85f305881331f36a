"""List operations decoded with their exact denoisers, by every order and pace: how often right.

What is measured is the sampler, which `fill_masks` is: see `list_tasks`.

Letters: R rows, n items.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..core.noise import mix
from ..core.sampler_orders import ORDERS
from ..core.sampler_rules import PACES
from .list_tasks import Asked, ListTask, expected_accuracy
from .table_denoisers import TableDenoiser, fill_by


class Measured(NamedTuple):
    """How often answers were right.

    Attributes:
        accuracy: the share of right ones.
        tokens_per_pass: n over the mean number of passes.
        expected: the accuracy in closed form.
        deviation: how far `accuracy` lies from it, in standard errors of so many samples; infinite
            where only one value is possible and it is another.
    """

    accuracy: float
    tokens_per_pass: float
    expected: float
    deviation: float


def measure(task: ListTask, asked: Asked, samples: int, seed: int = 0) -> Measured:
    """Decode answers to random lists with the exact denoiser, and compare with the closed form.

    Args:
        task: the list operation.
        asked: the sampler.
        samples: answers, each to a list of its own.
        seed: of lists and answers.
    """
    expected = expected_accuracy(task, asked)
    n = asked.items
    draws = torch.Generator().manual_seed(mix(seed, samples))
    items = torch.rand(samples, n, generator=draws).argsort(1)
    text = torch.cat([items, torch.full_like(items, n + 1)], 1)
    filled = fill_by(denoiser_of(task, n), text, asked.sampler, seed)
    right = task.is_right(items, filled.text[:, n:])
    accuracy = float(right.double().mean())
    tokens_per_pass = n / float(filled.passes.double().mean())
    return Measured(accuracy, tokens_per_pass, expected, _deviation(accuracy, expected, samples))


def _deviation(accuracy: float, expected: float, samples: int) -> float:
    off, error = accuracy - expected, math.sqrt(expected * (1 - expected) / samples)
    if error:
        return off / error
    return math.copysign(math.inf, off) if off else 0.0


def denoiser_of(task: ListTask, items: int) -> TableDenoiser:
    """Return the exact denoiser of a task.

    Its texts (R, 2 n) are a list of ids 0..n-1 and an answer; id n is the newcomer, n + 1 the mask.
    """

    def logits(rows: Tensor, text: Tensor, positions: Tensor) -> Tensor:
        law = task.law(text[:, :items], text[:, items:])  # (R, n, n + 2)
        return law.log()[positions[:, items:]]

    return logits


def every_sampler(items: int) -> list[dict[str, Any]]:
    """List a sampler for every order and pace that go together, each at several speeds."""
    found = []
    for pace, knobs in _SPEEDS.items():
        for order in PACES[pace].orders or ORDERS:
            if not ORDERS[order].asks_critic:
                found += [{"order": order, "pace": pace, **knob} for knob in knobs(items)]
    return found


def _steps(items: int) -> list[dict[str, Any]]:
    halves = [items // 2**i for i in range(items.bit_length())]
    return [{"steps": steps} for steps in sorted({1, *halves} - {0})]


# Limits that are none of the probabilities 1 / m and 1 - 1 / m, nor small multiples of them.
_SPEEDS: dict[str, Callable[[int], list[dict[str, Any]]]] = {
    "schedule": _steps,
    "ancestral": _steps,
    "first_hitting": lambda items: [{}],
    "threshold": lambda items: [
        *({"confidence_threshold": value} for value in (0.97, 0.72, 0.42)),
        *({"threshold_factor": value} for value in (0.53, 1.57)),
    ],
    "entropy_bound": lambda items: [{"entropy_budget": value} for value in (0.1, 0.8, 2.1)],
    "speculative": lambda items: [{}],
}
