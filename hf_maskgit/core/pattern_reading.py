"""What a pass says of classes of tokens, read from its logits block by block.

Letters: C classes, V vocabulary, N positions that were asked for.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .class_sums import Grouping, class_sums
from .position_logits import PositionLogits
from .sampler_scores import Distribution

# Scores (n, V) of some positions, by which of the N they are, as a token is to be drawn from them.
Warp = Callable[[Tensor, Tensor], Tensor]


class OfClasses(NamedTuple):
    """What the denoiser says of the classes at N positions, (N, C) each.

    `maxima` is of its scores, `masses` and `warm` (at other temperatures, if these are asked for)
    are logarithms of probabilities; scores are these and `level` (N, 1).
    """

    maxima: Tensor
    masses: Tensor
    level: Tensor
    warm: Tensor


def read_classes(
    logits: PositionLogits,
    groupings: tuple[Grouping, ...],
    pattern: Tensor,
    scores: Warp | None = None,
    temperature: Tensor | None = None,
) -> OfClasses:
    """Sum up the classes at all positions.

    Args:
        logits: of the N positions.
        groupings: of each pattern.
        pattern: (N,) long, which one each has; -1 for none.
        scores: what becomes of the scores first; None for nothing.
        temperature: (N,) float, > 0, of masses that are wanted besides.
    """

    def read(block: Distribution, which: slice) -> tuple[Tensor, ...]:
        index = torch.arange(len(pattern), device=block.logits.device)[which]
        warped = block.logits if scores is None else scores(block.logits, index)
        warmth = None if temperature is None else temperature[index]
        if len(groupings) == 1:  # as it mostly is, and without a copy
            return _sums(warped, groupings[0], warmth)
        # Without a pattern all classes weigh the same, whichever they are.
        own = pattern[index].clamp_min(0)
        numbers = own.unique().tolist()
        parts = [(own == number).nonzero().squeeze(1) for number in numbers]
        found = [
            _sums(warped[mine], groupings[number], None if warmth is None else warmth[mine])
            for number, mine in zip(numbers, parts, strict=True)
        ]
        order = torch.cat(parts).argsort()
        return tuple(torch.cat(part)[order] for part in zip(*found, strict=True))

    maxima, masses, level, *warm = logits.read(read)
    return OfClasses(maxima, masses, level, warm[0] if warm else masses)


def _sums(scores: Tensor, grouping: Grouping, temperature: Tensor | None) -> tuple[Tensor, ...]:
    of = class_sums(scores, grouping, temperature)
    # Of 1 in all, so that what stands behind an end of text comes to nothing in nats.
    level = of.masses.logsumexp(-1, keepdim=True)
    if of.warm is None:
        return of.maxima, of.masses - level, level
    return of.maxima, of.masses - level, level, of.warm.log_softmax(-1)
