"""Finite automata over tokens: trimmed, made small, put together from elements, and measured.

Tokens that no state tells apart form a class, so that an automaton is a table of states and
classes, however large the vocabulary is.

Letters: Q states, C classes, V vocabulary.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

NEVER = 0  # the class of tokens that stand in no text of the language
MOST_STATES = 2**14
# A pass goes through all of them at every position, for every row.
MOST_TRANSITIONS = 2**18
_MOST_ROUNDS = 200
_MOST_PAIRS = 2 * MOST_STATES  # of states of two automata, most of which may be equal


class Automaton(NamedTuple):
    """A deterministic automaton.

    Attributes:
        step: (Q, C) long, the state after a class; Q is nowhere. Class `NEVER` leads nowhere.
        final: (Q,) bool, where a text may be over.
        class_of: (V,) long, the class of every token.
        start: the state before the first token.
    """

    step: Tensor
    final: Tensor
    class_of: Tensor
    start: int

    @property
    def nowhere(self) -> int:
        """Q."""
        return len(self.final)


class Element(NamedTuple):
    """Some tokens in a row that are all of one set.

    Attributes:
        ids: the set.
        least: so many at least.
        most: so many at most; None sets no limit.
    """

    ids: frozenset[int]
    least: int
    most: int | None


def smallest(automaton: Automaton) -> Automaton:
    """Return the automaton of the same language with the fewest states and classes.

    Raises:
        ValueError: for a language without any text, or with too many states even so.
    """
    return checked_size(minimal(automaton))


def minimal(automaton: Automaton) -> Automaton:
    """Return the automaton of the same language with the fewest states, however many these are.

    Raises:
        ValueError: for a language without any text.
    """
    step, final = _useful(automaton)
    nowhere = automaton.nowhere
    if not bool(final.any()):
        raise ValueError(
            "The pattern is met by no text that this vocabulary can write; look for what it asks "
            "and excludes at once, and for characters that no token holds."
        )
    block = _blocks(step, final)
    # One state stands for its block; blocks from which no text comes to an end are nowhere.
    first = torch.full((int(block.max()) + 1,), nowhere).scatter_reduce(
        0, block, torch.arange(nowhere), "amin"
    )
    alive = (step[first] != nowhere).any(1) | final[first]
    number = torch.where(alive, alive.long().cumsum(0) - 1, int(alive.sum()))
    of_all = torch.cat([number[block], alive.sum().reshape(1)])  # nowhere too
    merged = of_all[step[first[alive]]]
    class_of, columns = _merged_classes(merged, automaton.class_of, int(alive.sum()))
    return Automaton(columns, final[first[alive]], class_of, int(of_all[automaton.start]))


def _blocks(step: Tensor, final: Tensor) -> Tensor:
    """Number the states, equal ones with the same number: Moore's refinement, (Q,) long."""
    # States are told apart by where they lead, until nothing changes. A long chain takes as many
    # rounds as it has links, and has none to merge: then all states stay.
    block = final.long()
    for _ in range(_MOST_ROUNDS):
        of_all = torch.cat([block, block.new_tensor([-1])])  # nowhere is alone
        finer = torch.cat([block[:, None], of_all[step]], 1).unique(dim=0, return_inverse=True)[1]
        if bool((block == finer).all()):
            return block
        block = finer
    return torch.arange(len(final))


def checked_size(automaton: Automaton) -> Automaton:
    """Return an automaton that is small enough to be asked at every position of a pass.

    Raises:
        ValueError: for one that is not, naming its size and the limit.
    """
    states, classes = automaton.step.shape
    if states > MOST_STATES or states * classes > MOST_TRANSITIONS:
        raise ValueError(
            f"The pattern makes an automaton of {states:,} states and {classes:,} classes of "
            f"tokens, {states * classes:,} transitions; {MOST_STATES:,} states and "
            f"{MOST_TRANSITIONS:,} transitions are the limit. Bound what repeats, or ask less."
        )
    return automaton


def has_texts(automaton: Automaton) -> bool:
    """Tell whether any text belongs to the language."""
    return bool(_useful(automaton)[1].any())


def _useful(automaton: Automaton) -> tuple[Tensor, Tensor]:
    """Leave out what is never reached or never comes to an end: (Q, C) and (Q,) of what stays."""
    step, nowhere = automaton.step, automaton.nowhere
    ends = torch.cat([automaton.final, torch.zeros(1, dtype=torch.bool)])
    for more in _growing(ends, lambda ends: torch.cat([ends[step].any(1), ends[-1:]])):
        ends = more
    step = step.masked_fill(~ends[step], nowhere)
    reached = torch.zeros_like(ends)
    reached[automaton.start] = ends[automaton.start]

    def behind(reached: Tensor) -> Tensor:
        found = torch.zeros_like(reached)
        found[step[reached[:-1]].flatten()] = True
        return found.index_fill(0, torch.tensor([nowhere]), False)

    for more in _growing(reached, behind):
        reached = more
    reached = reached[:-1]
    return step.masked_fill(~reached[:, None], nowhere), automaton.final & reached


def _growing(marks: Tensor, more: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
    """Add to the marks what follows from them, until nothing new does."""
    while True:
        grown = marks | more(marks)
        if bool((grown == marks).all()):
            return
        marks = grown
        yield marks


def _merged_classes(step: Tensor, class_of: Tensor, nowhere: int) -> tuple[Tensor, Tensor]:
    """Merge equal columns of (Q, C); the class that leads nowhere becomes `NEVER`."""
    number = tokens_by_class(step, len(step) + 1)
    classes = int(number.max()) + 1
    some = torch.empty(classes, dtype=torch.long).scatter_(
        0, number, torch.arange(step.shape[1])
    )  # a column of each class
    columns = step[:, some]
    never = (columns == nowhere).all(0)
    order = torch.where(never, 0, 1).cumsum(0)  # 1, 2, ... of those that lead somewhere
    columns = torch.cat([torch.full((len(step), 1), nowhere), columns[:, ~never]], 1)
    # The numbers of classes stay in the order of their first tokens but for this one.
    renamed = torch.where(never, NEVER, order)
    return renamed[number[class_of]], columns


def tokens_by_class(step: Tensor, base: int) -> Tensor:
    """Number the different columns of (Q, V) from 0: (V,) long."""
    number = torch.zeros(step.shape[1], dtype=torch.long)
    # As many rows at once as 63 bits hold beside the numbers so far.
    at_once = max(1, int((62 - math.log2(step.shape[1] + 1)) / math.log2(base)))
    for rows in step.split(at_once):
        for row in rows:
            number = number * base + row
        number = number.unique(return_inverse=True)[1]
    return number


def of_elements(elements: Sequence[Element], vocab_size: int) -> Automaton:
    """Make the automaton of elements one behind the other.

    Raises:
        ValueError: for a language without any text, or with too many states.
    """
    membership = torch.zeros(vocab_size, len(elements), dtype=torch.bool)
    for number, element in enumerate(elements):
        membership[list(element.ids), number] = True
    sets, class_of = membership.unique(dim=0, return_inverse=True)
    slots = _Slots.of(elements)
    of_class = [slots.of_elements(members.nonzero()[:, 0].tolist()) for members in sets]
    # Subsets of places where the next token may stand: the powerset construction.
    numbers = {slots.closure(1): 0}
    rows, todo = [], deque(numbers)
    while todo:
        places = todo.popleft()
        row = []
        for members in of_class:
            taken = places & members
            behind = slots.closure((taken & slots.loops) | (taken & ~slots.loops) << 1)
            if behind and behind not in numbers:
                numbers[behind] = len(numbers)
                todo.append(behind)
            row.append(numbers[behind] if behind else -1)
        rows.append(row)
        if len(numbers) > MOST_STATES:
            raise _too_large()
    step = torch.tensor(rows, dtype=torch.long)
    final = torch.tensor([bool(places >> slots.size & 1) for places in numbers])
    return smallest(Automaton(step.masked_fill(step < 0, len(final)), final, class_of, 0))


def _too_large() -> ValueError:
    return ValueError(
        f"The elements make an automaton of more than {MOST_STATES:,} states, which is the limit; "
        "bound what repeats, or ask less."
    )


class _Slots(NamedTuple):
    """Places of single tokens one behind the other; sets of them are the bits of a whole number.

    Attributes:
        size: how many; the place behind the last is the end.
        starts: of each element, and behind the last one.
        optional: those that may stay empty.
        loops: those that take any number of tokens.
    """

    size: int
    starts: list[int]
    optional: int
    loops: int

    @classmethod
    def of(cls, elements: Sequence[Element]) -> "_Slots":
        """Lay elements one behind the other.

        Raises:
            ValueError: for more places than an automaton has states.
        """
        sizes = [one.least + 1 if one.most is None else one.most for one in elements]
        starts = [0, *accumulate(sizes)]
        if starts[-1] > MOST_STATES:
            raise _too_large()
        optional = loops = 0
        for (start, end), one in zip(pairwise(starts), elements, strict=True):
            optional |= _bits(start + one.least, end)
            loops |= 0 if one.most is not None else _bits(end - 1, end)
        return cls(starts[-1], starts, optional, loops)

    def of_elements(self, numbers: Sequence[int]) -> int:
        """Return the places of some elements."""
        return sum(_bits(self.starts[number], self.starts[number + 1]) for number in numbers)

    def closure(self, places: int) -> int:
        """Add to some places those that come next because these may stay empty."""
        # A sum carries from the first of them to the end of a row of optional places.
        carried = self.optional + (places & self.optional)
        return places | (carried ^ self.optional)


def _bits(start: int, end: int) -> int:
    """Return the places from `start` on, before `end`."""
    return (1 << end) - (1 << start)


def possible_lengths(automaton: Automaton, most: int) -> Tensor:
    """Tell which lengths from 0 to `most` the texts of the language have, (most + 1,) bool."""
    reached = torch.zeros(automaton.nowhere + 1, dtype=torch.bool)
    reached[automaton.start] = True
    possible = []
    for _ in range(most + 1):
        possible.append(bool((reached[:-1] & automaton.final).any()))
        behind = automaton.step[reached[:-1]].flatten()
        reached = torch.zeros_like(reached)
        reached[behind] = True
        reached[-1] = False
    return torch.tensor(possible)


def shortest_and_longest(automaton: Automaton) -> tuple[int, int | None]:
    """Return the fewest and most tokens of a text; None for the most where there is no limit."""
    # Without a circle every text has fewer tokens than there are states; with one, among the
    # lengths from Q to 2 Q - 1 there is one that goes round it once more.
    states = automaton.nowhere
    lengths = possible_lengths(automaton, 2 * states).nonzero().squeeze(1).tolist()
    longest = None if lengths[-1] >= states else lengths[-1]
    return lengths[0], longest


def of_both(first: Automaton, second: Automaton) -> Automaton:
    """Make the automaton of the texts that belong to two languages of one vocabulary.

    Raises:
        ValueError: for languages that share no text, or with too many states.
    """
    # A class of both is a class of each; ids that one of them does not know are in none.
    size = max(len(first.class_of), len(second.class_of))
    classes = [
        torch.cat([a.class_of, a.class_of.new_full((size - len(a.class_of),), NEVER)])
        for a in (first, second)
    ]
    choices, class_of = torch.stack(classes).unique(dim=1, return_inverse=True)
    base = second.nowhere
    pairs = torch.tensor([first.start * base + second.start])  # of states, one number each
    todo, rows = pairs, []
    while len(todo):
        one, two = first.step[todo // base], second.step[todo % base]
        one, two = one[:, choices[0]], two[:, choices[1]]
        nowhere = (one == first.nowhere) | (two == base)
        rows.append((one * base + two).masked_fill(nowhere, -1))
        found = rows[-1][rows[-1] >= 0].unique()
        todo = found[~torch.isin(found, pairs)]
        pairs = torch.cat([pairs, todo])
        if len(pairs) > _MOST_PAIRS:
            raise ValueError(
                f"Together the two patterns make an automaton of more than {_MOST_PAIRS:,} states; "
                f"{MOST_STATES:,} are the limit once it is made small. Bound what repeats, or ask "
                "less."
            )
    numbers, order = pairs.sort()
    behind = torch.cat(rows)
    step = order[torch.searchsorted(numbers, behind.clamp_min(0)).clamp_max(len(pairs) - 1)]
    final = first.final[pairs // base] & second.final[pairs % base]
    return smallest(Automaton(step.masked_fill(behind < 0, len(pairs)), final, class_of, 0))
