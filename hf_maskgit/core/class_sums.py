"""Sums and maxima of scores over classes of tokens: all that a pattern asks of a vocabulary.

A vocabulary is the longest row that a pass reads. It is gone through once: its scores are put in an
order in which some tokens of one class, a group, stand at the same distance from each other, so
that sums go by many numbers at once, and what is left to sum up by class is a thirty-second of it.

Letters: n positions, V vocabulary, C classes, G groups of m tokens each.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

_MOST_MEMBERS = 32
_MOST_PADDING = 0.25  # of the vocabulary


class Grouping(NamedTuple):
    """Tokens in groups of one class each.

    Attributes:
        order: (m G,) long, the token at every place; the members of group g stand at g, G + g, ...
        padding: (P,) long, places where none stands.
        class_of: (G,) long, the class of every group.
        classes: C.
    """

    order: Tensor
    padding: Tensor
    class_of: Tensor
    classes: int


class ClassSums(NamedTuple):
    """What is known of every class at n positions.

    Attributes:
        maxima: (n, C), the highest score of each; -inf where it has none.
        masses: (n, C) float64, logarithms of the sums of its exponentials.
        warm: the same of the scores divided by temperatures, where these were given.
    """

    maxima: Tensor
    masses: Tensor
    warm: Tensor | None


def grouping_of(class_of: Tensor, classes: int) -> Grouping:
    """Put the tokens of each class, (V,) long, into groups."""
    size, device = len(class_of), class_of.device
    members = _MOST_MEMBERS
    while members > 1 and (members - 1) * classes > _MOST_PADDING * size:
        members //= 2
    counts = torch.bincount(class_of, minlength=classes)
    groups = -(-counts // members)  # of each class
    total = int(groups.sum())
    by_class = class_of.argsort(stable=True)
    # The n-th token of a class is the (n / m)-th member of its (n % m)-th group or so: which is
    # which does not matter, as long as each has a place of its own.
    own = class_of[by_class]
    nth = torch.arange(size, device=device) - (counts.cumsum(0) - counts)[own]
    group = (groups.cumsum(0) - groups)[own] + nth // members
    place = nth % members * total + group
    order = torch.zeros(members * total, dtype=torch.long, device=device)
    filled = torch.zeros_like(order, dtype=torch.bool)
    order[place], filled[place] = by_class, True
    of_group = torch.arange(classes, device=device).repeat_interleave(groups)
    return Grouping(order, (~filled).nonzero().squeeze(1), of_group, classes)


def class_sums(scores: Tensor, grouping: Grouping, temperature: Tensor | None = None) -> ClassSums:
    """Find maxima and masses of the classes.

    Args:
        scores: (n, V) float, logits with -inf at what cannot stand there.
        grouping: of the V tokens.
        temperature: (n,) float, > 0, of masses that are wanted besides; at 1 they cost nothing.
    """
    total = len(grouping.class_of)
    whole = _in_groups(scores, grouping)
    found = whole.view(len(scores), -1, total)
    nothing = scores.new_full((len(scores), grouping.classes), -torch.inf)
    of_class = grouping.class_of.expand(len(scores), total)
    maxima = nothing.scatter_reduce(-1, of_class, found.amax(1), "amax")
    # Each class by its own likeliest token, so that none is too unlikely to be a number.
    level = maxima.where(maxima.isfinite(), 0)
    of_groups = level.index_select(-1, grouping.class_of)[:, None]
    found = in_bits_(found.sub_(of_groups)).exp2_()
    masses = _log_sums(found, grouping) + level.double()
    if temperature is None or bool((temperature == 1).all()):
        return ClassSums(maxima, masses, None if temperature is None else masses)
    info = torch.finfo(scores.dtype)  # beyond, nothing divided by it would be nan
    divisor = temperature.double().clamp(info.tiny, info.max)[:, None]
    # Into the same memory once more: fresh pages would cost more than all of this.
    found = _in_groups(scores, grouping, whole).view_as(found).sub_(of_groups)
    found = in_bits_(found.div_(divisor[..., None].to(scores.dtype))).exp2_()
    warm = _log_sums(found, grouping) + level.double() / divisor
    return ClassSums(maxima, masses, torch.where(temperature[:, None] == 1, masses, warm))


def _in_groups(scores: Tensor, grouping: Grouping, into: Tensor | None = None) -> Tensor:
    """Put scores (n, V) in the order of the groups, (n, m G): what fills them up adds nothing."""
    found = torch.index_select(scores, -1, grouping.order, out=into)
    return found.index_fill_(-1, grouping.padding, -torch.inf) if len(grouping.padding) else found


def in_bits_(nats: Tensor) -> Tensor:
    """Turn logarithms into those to base 2, in place: torch's `exp2` is three times its `exp`."""
    return nats.mul_(1 / math.log(2))


def _log_sums(numbers: Tensor, grouping: Grouping) -> Tensor:
    """Return logarithms of the sums over the groups of each class, (n, m, G) -> (n, C) float64."""
    zeros = torch.zeros(len(numbers), grouping.classes, dtype=torch.float64, device=numbers.device)
    return zeros.index_add_(-1, grouping.class_of, numbers.sum(1).double()).log_()
