"""Which stratum of the times of an update each of its examples has, in however many shares."""

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, TypeGuard

import torch
from torch import Tensor

_SHOWN = 8  # values named in an error
_MOST = 2**53  # examples of an update: float64 tells their strata apart


def ranks(draws: Tensor) -> Tensor:
    """Rank draws, the lowest 0.

    Args:
        draws: (B,) float.

    Returns:
        (B,) long, a permutation of 0..B-1.
    """
    # The first argsort lists the examples in the order of their draws, the second turns that
    # list into each one's rank: draws 0.7 0.1 0.4 -> 1 2 0 -> ranks 2 0 1, a permutation that
    # depends on the draws alone and not on where an example stands in the batch.
    return draws.argsort().argsort()


def strata_given(features: Sequence[Mapping[str, Any]]) -> tuple[Tensor, int] | None:
    """Read the strata that the examples of a batch bring along.

    Args:
        features: each with a `time_stratum`, a pair (which, of how many), or all without.

    Returns:
        The stratum of each, (B,) long, and how many examples the whole update has; None where the
        examples bring none.

    Raises:
        ValueError: for strata that the examples of one update do not have.
    """
    given = [feature.get("time_stratum") for feature in features]
    if all(pair is None for pair in given):
        return None
    pairs = [tuple(pair) for pair in given if _is_pair_of_integers(pair)]
    taken, counts = {which for which, _ in pairs}, {count for _, count in pairs}
    num_strata = max(counts, default=0)
    in_range = num_strata <= _MOST and all(0 <= which < num_strata for which in taken)
    # As many strata as examples: none is missing, and no two have the same.
    if len(taken) < len(given) or len(counts) > 1 or not in_range:
        raise ValueError(
            "The examples of a batch must be of one update: each with a `time_stratum` (which, of "
            f"how many) of its own, counted from 0, or all without; got {given[:_SHOWN]}. "
            "`DataCollatorForMaskGit.strata` ranks the examples of an update."
        )
    return torch.tensor([int(which) for which, _ in pairs]), int(num_strata)


def _is_pair_of_integers(value: Any) -> TypeGuard[Sequence[int]]:
    is_pair = isinstance(value, Sequence) and len(value) == 2
    return is_pair and all(isinstance(part, Integral) for part in value)
