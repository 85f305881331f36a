"""What a regular language can say of SMILES: bonds, branches and ring numbers, up to a depth.

OpenSMILES 1.0, sections 2 and 3.4. Held are: bonds between two things that they can bind, branches
that are closed, rings that are closed, their numbers taken as canonical SMILES take them: the
lowest that is free. Not held: branches deeper than was asked for, rings of fewer than three atoms,
a bond told at both ends of a ring, and what chemistry asks: valences, and aromatic rings that have
a Kekulé form.

With `valences` atoms have no more bonds than they may, sulfur, phosphorus and what stands in
brackets aside. That needs SMILES without aromatic atoms, whose rings have double bonds instead
(Kekulé's form), and without bonds told at ring numbers. What is left to chemistry are rings of
fewer than three atoms.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

import torch

from ..core.pattern_automaton import NEVER, Automaton, smallest

_ATOM = re.compile(r"\[[^\[\]]+\]|Br|Cl|[BCNOPSFI]|[bcnops]|\*")
_AROMATIC = re.compile(r"\[?[0-9]*[a-z]")
_BONDS = {"-": 1, "/": 1, "\\": 1, ":": 1, "=": 2, "#": 3, "$": 4}
# OpenSMILES 3.1.5. Sulfur and phosphorus take more than one number, and brackets tell their own.
_VALENCES = {"B": 3, "C": 4, "N": 3, "O": 2, "F": 1, "Cl": 1, "Br": 1, "I": 1}
_ANY = 99  # as good as no limit
_MOST_STATES = 2**15  # before equal ones are merged


class _Last(Enum):
    """What stands before the next token."""

    START = "nothing"
    ATOM = "an atom, or a ring number of it"
    BOND = "a bond that an atom or a ring number may follow"
    BRANCH_BOND = "a bond that an atom must follow"
    OPENED = "the opening bracket of a branch"
    CLOSED = "the closing bracket of a branch"


_BEHIND_ATOM = frozenset({_Last.ATOM, _Last.CLOSED})
_BEHIND_BOND = frozenset({_Last.BOND, _Last.BRANCH_BOND})


class _Token(NamedTuple):
    """What a token is to the automaton.

    Attributes:
        kind: "atom", "bond", a bracket, or a ring number.
        bonds: how many an atom may have, and how many a bond counts for.
    """

    kind: str
    bonds: int = 0


class _Rules(NamedTuple):
    """What SMILES are held to, see `smiles_automaton`; `numbers` are the rings' in order."""

    depth: int
    numbers: Sequence[int]
    valences: bool


class _State(NamedTuple):
    """What of a text so far decides how it may go on.

    Attributes:
        last: what stands before the next token.
        bonds: how many more the last atom may have; before an atom, what the bond counts for.
        branches: of atoms with an open branch, how many more each may have, the last one last;
            before them what the text is attached to.
        rings: numbers that are open.
    """

    last: _Last
    bonds: int
    branches: tuple[int, ...]
    rings: frozenset[int]


def smiles_automaton(
    texts: Sequence[str | None],
    depth: int,
    rings: Collection[int],
    attached: bool,
    valences: bool = False,
) -> Automaton:
    """Make the automaton of SMILES over tokens that are atoms, bonds, brackets and ring numbers.

    Args:
        texts: of each id; None where it has none.
        depth: branches within branches, at most.
        rings: numbers from 1 to 9 that rings may have.
        attached: of what stands behind an atom: it may begin with a bond.
        valences: let no atom have more bonds than its valence, and none be aromatic.

    Raises:
        ValueError: for bad counts, a vocabulary without atoms, or too many states.
    """
    numbers = sorted(set(rings))
    if type(depth) is not int or depth < 0:
        raise ValueError(f"`depth` must be a whole number from 0, got {depth!r}.")
    if not all(type(n) is int and 1 <= n <= 9 for n in numbers):
        raise ValueError(f"`rings` must be numbers from 1 to 9, got {rings!r}.")
    rules = _Rules(depth, numbers, valences)
    kinds = [_token(text, rules) for text in texts]
    if "atom" not in {token.kind for token in kinds if token is not None}:
        raise ValueError(
            "The vocabulary has no token that is one atom, such as C or [nH]; a pattern of SMILES "
            "needs a tokenizer with a token for each atom, bond, bracket and ring number."
        )
    known = sorted({kind for kind in kinds if kind is not None})
    begin = _Last.OPENED if attached else _Last.START
    found = {_State(begin, 0, (_ANY,), frozenset()): 0}
    rows, todo = [], list(found)
    while todo:
        state, row = todo.pop(0), []
        for token in known:
            behind = _after(state, token, rules)
            if behind is not None and behind not in found:
                found[behind] = len(found)
                todo.append(behind)
            row.append(-1 if behind is None else found[behind])
        rows.append(row)
        if len(found) > _MOST_STATES:
            raise ValueError(
                f"SMILES of {depth} branches within each other and {len(numbers)} ring numbers "
                f"make more than {_MOST_STATES:,} states; ask for fewer."
            )
    nowhere = len(found)
    step = torch.tensor(rows)
    step = torch.cat([torch.full((nowhere, 1), nowhere), step.where(step >= 0, nowhere)], 1)
    number: Mapping[_Token | None, int] = {None: NEVER, **{k: i for i, k in enumerate(known, 1)}}
    class_of = torch.tensor([number[kind] for kind in kinds])
    final = torch.tensor([_may_end(state) for state in found])
    return smallest(Automaton(step, final, class_of, 0))


def _token(text: str | None, rules: _Rules) -> _Token | None:
    """Tell what a token is; None for one that stands in no such SMILES."""
    if text is None:
        return None
    if _ATOM.fullmatch(text):
        if not rules.valences:
            return _Token("atom", _ANY)
        return None if _AROMATIC.match(text) else _Token("atom", _VALENCES.get(text, _ANY))
    if text in _BONDS:
        if not rules.valences:
            return _Token("bond", 1)
        return None if text == ":" else _Token("bond", _BONDS[text])
    if text in ("(", ")"):
        return _Token(text)
    is_ring = len(text) == 1 and text.isdecimal() and int(text) in rules.numbers
    return _Token(text) if is_ring else None


def _after(state: _State, token: _Token, rules: _Rules) -> _State | None:
    """Return the state behind a token of some kind; None where it cannot stand."""
    last, bonds, branches, rings = state
    if token.kind == "atom":
        if last is _Last.START:
            return state._replace(last=_Last.ATOM, bonds=token.bonds)
        bonded = state if last in _BEHIND_BOND else _bonded(state, 1)
        order = bonds if last in _BEHIND_BOND else 1
        if bonded is None or token.bonds < order:
            return None
        return bonded._replace(last=_Last.ATOM, bonds=_less(token.bonds, order))
    if token.kind == "bond":
        # Numbers stand behind their atom, before its branches.
        behind = {_Last.OPENED: _Last.BRANCH_BOND, _Last.CLOSED: _Last.BRANCH_BOND}
        behind[_Last.ATOM] = _Last.BOND
        bonded = _bonded(state, token.bonds) if last in behind else None
        return bonded and bonded._replace(last=behind[last], bonds=token.bonds)
    if token.kind == "(":
        stands = last in _BEHIND_ATOM and bonds > 0 and len(branches) <= rules.depth
        return _State(_Last.OPENED, 0, (*branches, bonds), rings) if stands else None
    if token.kind == ")":
        stands = last in _BEHIND_ATOM and len(branches) > 1
        return _State(_Last.CLOSED, branches[-1], branches[:-1], rings) if stands else None
    return _behind_number(state, int(token.kind), rules)


def _bonded(state: _State, order: int) -> _State | None:
    """Let the atom that a bond leaves have it; None where it has no more."""
    if state.last is _Last.OPENED:
        *before, left = state.branches
        # One bond stays for what comes behind the branch: a text that could end there need not
        # open one, and half of the states are enough.
        return state._replace(branches=(*before, _less(left, order))) if left > order else None
    return state if state.bonds >= order else None


def _behind_number(state: _State, number: int, rules: _Rules) -> _State | None:
    last, bonds, branches, rings = state
    if last is _Last.BOND and not rules.valences:
        bonds = _ANY
    elif last is not _Last.ATOM or bonds < 1:
        return None  # of a bond told at a number it is not known here what the other end has left
    if number not in rings and number != min(set(rules.numbers) - rings):
        return None
    return _State(_Last.ATOM, _less(bonds, 1), branches, rings ^ {number})


def _less(bonds: int, order: int) -> int:
    return bonds if bonds == _ANY else bonds - order


def _may_end(state: _State) -> bool:
    return state.last in _BEHIND_ATOM and len(state.branches) == 1 and not state.rings
