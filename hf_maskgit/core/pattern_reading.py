"""What a pass says of classes of tokens, read from its logits block by block.

Letters: C classes, V vocabulary, N positions that were asked for.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .class_sums import Grouping, class_sums, in_bits_
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


class Readings:
    """What was read of the masks of one pass, so that no law of it reads one a second time."""

    def __init__(self) -> None:
        self._kept: dict[bool, tuple[Tensor, OfClasses]] = {}

    def __bool__(self) -> bool:
        """Tell whether anything was read."""
        return bool(self._kept)

    def of(self, places: Tensor, is_warm: bool, read: Callable[[Tensor], OfClasses]) -> OfClasses:
        """Return the sums at places, of which those that are not known yet are read.

        Args:
            places: (N,) long, each mask's number; in order, and none twice.
            is_warm: whether masses at other temperatures are among them.
            read: of (N,) bool, reads these.
        """
        if is_warm not in self._kept:
            self._kept[is_warm] = places, read(torch.ones_like(places, dtype=torch.bool))
            return self._kept[is_warm][1]
        known, sums = self._kept[is_warm]
        new = ~torch.isin(places, known)
        if bool(new.any()):
            known = torch.cat([known, places[new]])
            found = read(new)
            sums = OfClasses(*(torch.cat(parts) for parts in zip(sums, found, strict=True)))
            self._kept[is_warm] = known, sums
        ordered, number = known.sort()
        index = number[torch.searchsorted(ordered, places)]
        return OfClasses(*(part[index] for part in sums))


def read_classes(
    logits: PositionLogits,
    groupings: tuple[Grouping, ...],
    pattern: Tensor,
    plain: Tensor,
    scores: Warp | None = None,
    temperature: Tensor | None = None,
) -> OfClasses:
    """Sum up the classes at all positions.

    Args:
        logits: of the N positions.
        groupings: of each pattern.
        pattern: (N,) long, which one each has; -1 for none.
        plain: (N, C) bool, all classes that may stand at places where these weigh the same: what is
            read of all together is dealt out among them. None of them where they are told apart.
        scores: what becomes of the scores first; None for nothing.
        temperature: (N,) float, > 0, of masses that are wanted besides.
    """

    def read(block: Distribution, which: slice) -> tuple[Tensor, ...]:
        index = torch.arange(len(pattern), device=block.logits.device)[which]
        warped = block.logits if scores is None else scores(block.logits, index)
        warmth = None if temperature is None else temperature[index]
        together = plain[index]
        alone = ~together.any(-1)
        if not bool(alone.any()):
            return _dealt_out(warped, together, temperature is not None)
        if len(groupings) == 1 and bool(alone.all()):  # as it often is, and without a copy
            return _sums(warped, groupings[0], warmth)
        # Without a pattern all classes weigh the same, whichever they are.
        own = pattern[index].clamp_min(0).masked_fill(~alone, -1)
        numbers = own.unique().tolist()
        parts = [(own == number).nonzero().squeeze(1) for number in numbers]
        found = [
            _dealt_out(warped[mine], together[mine], temperature is not None)
            if number < 0
            else _sums(warped[mine], groupings[number], None if warmth is None else warmth[mine])
            for number, mine in zip(numbers, parts, strict=True)
        ]
        order = torch.cat(parts).argsort()
        return tuple(torch.cat(part)[order] for part in zip(*found, strict=True))

    maxima, masses, level, *warm = logits.read(read)
    return OfClasses(maxima, masses, level, warm[0] if warm else masses)


def _dealt_out(scores: Tensor, classes: Tensor, is_warm: bool) -> tuple[Tensor, ...]:
    """Do as `_sums` where the classes (n, C) bool share equally what all tokens together are."""
    share = -classes.sum(-1, keepdim=True).double().log()
    masses = share.expand(classes.shape).masked_fill(~classes, -torch.inf)
    top = scores.amax(-1, keepdim=True)
    level = in_bits_(scores - top).exp2_().sum(-1, keepdim=True).double().log_() + top.double()
    maxima = top.expand(classes.shape).masked_fill(~classes, -torch.inf)
    return (maxima, masses, level, masses) if is_warm else (maxima, masses, level)


def _sums(scores: Tensor, grouping: Grouping, temperature: Tensor | None) -> tuple[Tensor, ...]:
    of = class_sums(scores, grouping, temperature)
    # Of 1 in all, so that what stands behind an end of text comes to nothing in nats.
    level = of.masses.logsumexp(-1, keepdim=True)
    if of.warm is None:
        return of.maxima, of.masses - level, level
    return of.maxima, of.masses - level, level, of.warm.log_softmax(-1)
