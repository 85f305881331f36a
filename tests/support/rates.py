"""Mask rates and their inverses, written out: the oracle of the tests of the forward process."""

import numpy as np
import pytest

from hf_maskgit import get_schedule
from hf_maskgit.core.schedules import Schedule

RATES = {
    "linear": (lambda t: t, lambda r: r),
    "cosine": (lambda t: np.sin(np.pi * t / 2), lambda r: np.arcsin(r) * 2 / np.pi),
    "square": (lambda t: t**2, lambda r: r**0.5),
}
each_schedule = pytest.mark.parametrize("schedule", RATES)


def schedule_of(name: str) -> Schedule:
    """Make the library's schedule of that name; "square" is a function of a user's own."""
    return get_schedule(RATES["square"][0] if name == "square" else name)
