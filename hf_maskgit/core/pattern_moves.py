"""Automata as sweeps go through them: moves from state to state, each by a set of classes.

A state has few states behind it, however many classes of tokens lead there: all that lead from one
state to another make one move, and few sets of classes serve for many moves.

Letters: K automata, R rows, W places of a row, Q states, C classes, P moves, U sets of classes.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .pattern_automaton import Automaton
from .pattern_bundles import Bundles, bundles_of

_MOST_MEMBERS = 2**24  # of all sets together, while equal ones are looked for
_MOST_SETS = 4  # for each class; beyond, a class is a set of its own


class Moves(NamedTuple):
    """The moves of some automata, padded to one size.

    Attributes:
        source: (K, P) long, the state that a move leaves; Q behind the last move.
        target: (K, P) long, the one that it leads to, likewise.
        kind: (K, P) long, its set.
        takes: (K, U, C) bool, the sets.
        leaving: (K, Q, D) long, the moves that leave each state; P - 1 for none.
        bundles: of each of the K automata.
    """

    source: Tensor
    target: Tensor
    kind: Tensor
    takes: Tensor
    leaving: Tensor
    bundles: tuple[Bundles, ...]


class Chains(NamedTuple):
    """The automata of some rows, padded to one size.

    Attributes:
        moves: of the K automata.
        which: (R,) long, the automaton of each row.
        final: (R, Q) bool.
        start: (R,) long.
        ended: (R, Q) bool, states behind the end of a text: whatever follows is no part of it.
        inside: (R, W) bool, the places that a row has; they come first.
        open: (R, W) bool, places of which nothing is asked but that something fits.
    """

    moves: Moves
    which: Tensor
    final: Tensor
    start: Tensor
    ended: Tensor
    inside: Tensor
    open: Tensor

    @property
    def bundles(self) -> Bundles | None:
        """Those of the one automaton that all rows have; None where they have several."""
        used = self.which.unique().tolist()
        return self.moves.bundles[used[0]] if len(used) == 1 else None


def chains_of(automaton: Automaton, inside: Tensor) -> Chains:
    """Return the chains of rows (R, W) bool that all have one automaton, and no open places."""
    rows, final = len(inside), automaton.final.expand(len(inside), -1)
    return Chains(
        moves_of([automaton.step]),
        torch.zeros(rows, dtype=torch.long),
        final,
        torch.full((rows,), automaton.start),
        torch.zeros_like(final),
        inside,
        torch.zeros_like(inside),
    )


def moves_of(steps: list[Tensor]) -> Moves:
    """Return the moves of automata, (Q, C) long each, the state after a class or Q for nowhere."""
    states = max(len(step) for step in steps)
    found = [_moves(step) for step in steps]
    most = max(source.numel() for source, _, _, _ in found) + 1  # the last is no move
    source, target, kind = (
        torch.stack([_padded(part[i], most, fill) for part in found])
        for i, fill in enumerate((states, states, 0))
    )
    classes = max(step.shape[1] for step in steps)
    sets = max(len(takes) for *_, takes in found)
    takes = torch.zeros(len(steps), sets, classes, dtype=torch.bool)
    for number, (*_, own) in enumerate(found):
        takes[number, : own.shape[0], : own.shape[1]] = own
    leaving = [_leaving(source, states, most) for source, *_ in found]
    width = max(rows.shape[1] for rows in leaving)
    leaving = [
        torch.cat([rows, rows.new_full((states, width - rows.shape[1]), most - 1)], 1)
        for rows in leaving
    ]
    bundles = tuple(bundles_of(*of[:3], states) for of in found)
    return Moves(source, target, kind, takes, torch.stack(leaving), bundles)


def _padded(part: Tensor, size: int, fill: int) -> Tensor:
    return torch.cat([part, part.new_full((size - len(part),), fill)])


def _moves(step: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return source, target and kind of the moves, (P,) each, and the sets (U, C) bool."""
    states, classes = step.shape
    source, by = (step < states).nonzero(as_tuple=True)
    if len(source) == 0:
        return source, source, source, torch.zeros(1, classes, dtype=torch.bool)
    target = step[source, by]
    pairs, number = (source * states + target).unique(return_inverse=True)
    if len(pairs) * classes <= _MOST_MEMBERS:
        members = torch.zeros(len(pairs), classes, dtype=torch.bool)
        members[number, by] = True
        takes, kind = members.unique(dim=0, return_inverse=True)
        if len(takes) <= _MOST_SETS * classes:
            return pairs // states, pairs % states, kind, takes
    return source, target, by, torch.eye(classes, dtype=torch.bool)


def _leaving(source: Tensor, states: int, most: int) -> Tensor:
    """List the moves of every state, (Q, D) long; `most - 1` for none. They stand by source."""
    counts = torch.bincount(source, minlength=states)
    moves = torch.arange(len(source)).split(counts.tolist())
    return pad_sequence(list(moves), batch_first=True, padding_value=most - 1)
