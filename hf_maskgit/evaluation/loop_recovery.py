"""Loops of antibodies redesigned: what is recovered of the real ones, and by counting alone.

Recovery of a loop is the share of its residues that are the real ones. Errors are standard errors
of means over domains.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

from .antibodies import LOOPS, Domain

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"


class Estimate(NamedTuple):
    """A mean with its standard error, 0 of a single value."""

    mean: float
    std_error: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        """Average one or more independent values."""
        mean = sum(values) / len(values)
        squares = sum((value - mean) ** 2 for value in values)
        return cls(mean, (squares / (len(values) - 1) / len(values)) ** 0.5 if squares else 0.0)


def recovered(written: str, real: str) -> float:
    """Return the share of places with the real residue, in [0, 1].

    Raises:
        ValueError: for texts of different lengths.
    """
    return sum(a == b for a, b in zip(written, real, strict=True)) / len(real)


def disagreement(texts: Sequence[str]) -> float:
    """Return the share of places in which two of some equally long texts differ, over all pairs."""
    pairs = list(combinations(texts, 2))
    return sum(1 - recovered(one, other) for one, other in pairs) / len(pairs)


def distance(one: Domain, other: Domain) -> float:
    """Return the share of IMGT numbers, of those that either domain has, with unlike residues."""
    first = dict(zip(one.numbers, one.residues, strict=True))
    second = dict(zip(other.numbers, other.residues, strict=True))
    names = first.keys() | second.keys()
    return sum(first.get(name) != second.get(name) for name in names) / len(names)


class CountedLoops:
    """How often each residue stands in a loop, and at each place of it, in chains of one kind.

    A domain is judged by the others alone: its own residues are taken out of the counts first.

    Args:
        domains: all that are counted.
    """

    def __init__(self, domains: Sequence[Domain]) -> None:
        self._in_loop: dict[tuple[str, str], Counter[str]] = {}
        self._at: dict[tuple[str, str], Counter[str]] = {}
        for domain in domains:
            for loop in LOOPS:
                for i in domain.places(loop):
                    residue, place = domain.residues[i], (domain.chain, domain.numbers[i])
                    self._in_loop.setdefault((domain.chain, loop), Counter())[residue] += 1
                    self._at.setdefault(place, Counter())[residue] += 1

    def recovery(self, domain: Domain, loop: str) -> dict[str, float]:
        """Return what counting recovers of a loop of one of the domains, by the way of counting.

        The first two are expectations over draws: of twenty equally likely residues, and by their
        frequency in the loop. The others take the most frequent residue, of the loop, and of the
        place by its IMGT number; of equally frequent ones the first of the alphabet.
        """
        real, places = domain.text_of(loop), domain.places(loop)
        others = self._in_loop[domain.chain, loop] - Counter(real)
        likeliest = _most_frequent(others) if others else RESIDUES[0]
        at_place = ""
        for i in places:
            left = self._at[domain.chain, domain.numbers[i]] - Counter(domain.residues[i])
            at_place += _most_frequent(left) if left else likeliest
        total = max(others.total(), 1)
        return {
            "any residue": 1 / len(RESIDUES),
            "by frequency": sum(others[one] / total for one in real) / len(real),
            "most frequent of the loop": recovered(likeliest * len(real), real),
            "most frequent of the place": recovered(at_place, real),
        }


def _most_frequent(counts: Counter[str]) -> str:
    return min(counts, key=lambda residue: (-counts[residue], residue))
