"""What a regular language can say of SMILES: bonds, branches and ring numbers, up to a depth.

OpenSMILES 1.0, sections 2 and 3.4. Held are: bonds between two things that they can bind, branches
that are closed, rings that are closed, their numbers taken as canonical SMILES take them: the
lowest that is free. Not held: branches deeper than was asked for, rings of fewer than three atoms,
a bond told at both ends of a ring, and what chemistry asks: valences, and aromatic rings that have
a Kekulé form.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

import torch

from ..core.pattern_automaton import MOST_STATES, NEVER, Automaton, smallest

_ATOM = re.compile(r"\[[^\[\]]+\]|Br|Cl|[BCNOPSFI]|[bcnops]|\*")
_BONDS = frozenset("-=#$:/\\~")


class _Last(Enum):
    """What stands before the next token."""

    START = "nothing"
    ATOM = "an atom, or a ring number of it"
    BOND = "a bond that an atom or a ring number may follow"
    BRANCH_BOND = "a bond that an atom must follow"
    OPENED = "the opening bracket of a branch"
    CLOSED = "the closing bracket of a branch"


class _State(NamedTuple):
    """What of a text so far decides how it may go on.

    Attributes:
        last: what stands before the next token.
        depth: branches that are open.
        rings: numbers that are open.
    """

    last: _Last
    depth: int
    rings: frozenset[int]


def smiles_automaton(
    texts: Sequence[str | None], depth: int, rings: Collection[int], attached: bool
) -> Automaton:
    """Make the automaton of SMILES over tokens that are atoms, bonds, brackets and ring numbers.

    Args:
        texts: of each id; None where it has none.
        depth: branches within branches, at most.
        rings: numbers from 1 to 9 that rings may have.
        attached: of what stands behind an atom: it may begin with a bond.

    Raises:
        ValueError: for bad counts, a vocabulary without atoms, or too many states.
    """
    numbers = sorted(set(rings))
    if type(depth) is not int or depth < 0:
        raise ValueError(f"`depth` must be a whole number from 0, got {depth!r}.")
    if not all(type(n) is int and 1 <= n <= 9 for n in numbers):
        raise ValueError(f"`rings` must be numbers from 1 to 9, got {rings!r}.")
    kinds = [_kind(text, numbers) for text in texts]
    if "atom" not in kinds:
        raise ValueError(
            "The vocabulary has no token that is one atom, such as C or [nH]; a pattern of SMILES "
            "needs a tokenizer with a token for each atom, bond, bracket and ring number."
        )
    known = sorted({kind for kind in kinds if kind is not None})
    found = {_State(_Last.OPENED if attached else _Last.START, 0, frozenset()): 0}
    rows, todo = [], list(found)
    while todo:
        state, row = todo.pop(0), []
        for kind in known:
            behind = _after(state, kind, depth, numbers)
            if behind is not None and behind not in found:
                found[behind] = len(found)
                todo.append(behind)
            row.append(-1 if behind is None else found[behind])
        rows.append(row)
        if len(found) > 8 * MOST_STATES:
            raise ValueError(
                f"SMILES of {depth} branches within each other and {len(numbers)} ring numbers "
                f"make more than {8 * MOST_STATES:,} states; ask for fewer."
            )
    nowhere = len(found)
    step = torch.tensor(rows)
    step = torch.cat([torch.full((nowhere, 1), nowhere), step.where(step >= 0, nowhere)], 1)
    number: Mapping[str | None, int] = {None: NEVER, **{k: i for i, k in enumerate(known, 1)}}
    class_of = torch.tensor([number[kind] for kind in kinds])
    final = torch.tensor([_may_end(state) for state in found])
    return smallest(Automaton(step, final, class_of, 0))


def _kind(text: str | None, numbers: Collection[int]) -> str | None:
    """Tell what a token is; None for one that stands in no such SMILES."""
    if text is None:
        return None
    if _ATOM.fullmatch(text):
        return "atom"
    if text in _BONDS:
        return "bond"
    if text in ("(", ")"):
        return text
    return text if len(text) == 1 and text.isdecimal() and int(text) in numbers else None


def _after(state: _State, kind: str, depth: int, numbers: Sequence[int]) -> _State | None:
    """Return the state behind a token of some kind; None where it cannot stand."""
    last, open_branches, rings = state
    if kind == "atom":
        return _State(_Last.ATOM, open_branches, rings)
    if kind == "bond":
        # Numbers stand behind their atom, before its branches.
        follows = {_Last.OPENED: _Last.BRANCH_BOND, _Last.CLOSED: _Last.BRANCH_BOND}
        follows[_Last.ATOM] = _Last.BOND
        return state._replace(last=follows[last]) if last in follows else None
    if kind == "(":
        stands = last in (_Last.ATOM, _Last.CLOSED) and open_branches < depth
        return _State(_Last.OPENED, open_branches + 1, rings) if stands else None
    if kind == ")":
        stands = last in (_Last.ATOM, _Last.CLOSED) and open_branches > 0
        return _State(_Last.CLOSED, open_branches - 1, rings) if stands else None
    if last not in (_Last.ATOM, _Last.BOND):
        return None
    number = int(kind)
    if number in rings:
        return _State(_Last.ATOM, open_branches, rings - {number})
    free = min(set(numbers) - rings)
    return _State(_Last.ATOM, open_branches, rings | {number}) if number == free else None


def _may_end(state: _State) -> bool:
    ended = state.last in (_Last.ATOM, _Last.CLOSED)
    return ended and state.depth == 0 and not state.rings
