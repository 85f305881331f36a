"""Moves of one automaton, in bundles: all that lead to one state by one set of classes.

Where all rows have one automaton, a sweep need not look at every move of every row. It goes by
states side by side with all rows of each, in the order of memory, and multiplies by a set of
classes once for a bundle instead of once for a move.

Letters: R rows, Q states, S = Q + 1 with nowhere, P moves, U sets of classes, B bundles.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Groups(NamedTuple):
    """Groups of rows of a table.

    Attributes:
        members: (N,) long, rows of the table, group by group.
        begin: (M,) long, where among these each group begins.
    """

    members: Tensor
    begin: Tensor

    def sums(self, table: Tensor) -> Tensor:
        """Sum up a table (T, R) over every group, (M, R)."""
        if len(self.members) == 0:
            return table.new_zeros(len(self.begin), table.shape[1])
        return torch.nn.functional.embedding_bag(self.members, table, self.begin, mode="sum")


class Bundles(NamedTuple):
    """The bundles of an automaton, by set.

    Attributes:
        target: (B,) long, the state that each leads to.
        kind: (B,) long, its set.
        sources: the states that it leaves.
        by_source: of every state (S), the bundles of the moves that leave it.
        by_target: of every state (S), the bundles that lead to it.
    """

    target: Tensor
    kind: Tensor
    sources: Groups
    by_source: Groups
    by_target: Groups

    def back(self, ways: Tensor, sets: Tensor) -> Tensor:
        """Go a place to the left: ways (S, R) behind it and masses (U, R) of its sets, (S, R)."""
        parts = ways.index_select(0, self.target).mul_(sets.index_select(0, self.kind))
        return self.by_source.sums(parts)

    def on(self, came: Tensor, sets: Tensor) -> Tensor:
        """Go a place to the right: ways (S, R) that come before it, (S, R) behind it."""
        parts = self.sources.sums(came).mul_(sets.index_select(0, self.kind))
        return self.by_target.sums(parts)

    def through(self, came: Tensor, ways: Tensor, number: int) -> Tensor:
        """Sum up over the moves of each of U sets what comes and goes on, (S, R) each, (U, R)."""
        parts = self.sources.sums(came).mul_(ways.index_select(0, self.target))
        return came.new_zeros(number, came.shape[1]).index_add_(0, self.kind, parts)


def bundles_of(source: Tensor, target: Tensor, kind: Tensor, states: int) -> Bundles:
    """Put the moves (P,) of an automaton of Q states into bundles."""
    size = states + 1
    pairs, bundle = (kind * size + target).unique(return_inverse=True)
    target, kind = pairs % size, pairs // size
    return Bundles(
        target,
        kind,
        _groups(bundle, source, len(pairs)),
        _groups(source, bundle, size),
        _groups(target, torch.arange(len(pairs)), size),
    )


def _groups(number: Tensor, members: Tensor, count: int) -> Groups:
    """Group members (N,) by number (N,)."""
    counts = torch.bincount(number, minlength=count)
    return Groups(members[number.argsort(stable=True)], counts.cumsum(0) - counts)
