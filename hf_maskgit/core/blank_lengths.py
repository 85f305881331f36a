"""How long the blanks of a text become: a table of the ways to decide it, one row per value.

Letters: m blanks of a text, T its tokens without framing, h(T) how many texts of that length
training saw.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import torch

from .configuration_maskgit import MaskGitConfig
from .length_law import LengthLaw, pick
from .noise import keyed_generator

_LENGTH_STREAM = 0x626C616E6B  # tells these draws from those of `generate` under the same seed
MOST_CANDIDATES = 128  # texts that one text with blanks is filled as, to compare them


class Blank(NamedTuple):
    """A range of lengths.

    Attributes:
        low: the least.
        high: the greatest; None where the caller leaves it to the lengths of training.
    """

    low: int
    high: int | None


class Blanks(NamedTuple):
    """The blanks of one text, and what their lengths may hang on.

    Attributes:
        ranges: m of them, in the order of the text.
        base: tokens of the text, framing left out, with every blank at its least length.
        room: tokens that the encoder takes beyond that.
        config: of the model.
        fitting: by the number of a blank, the lengths that its pattern takes.
    """

    ranges: Sequence[Blank]
    base: int
    room: int
    config: MaskGitConfig
    fitting: Mapping[int, Sequence[int]] = MappingProxyType({})

    @property
    def spans(self) -> list[Sequence[int]]:
        """The lengths that each blank may have."""
        return [
            self.fitting.get(number)
            or range(low, (low + self._longest if high is None else high) + 1)
            for number, (low, high) in enumerate(self.ranges)
        ]

    @property
    def _longest(self) -> int:
        """How much longer than its least length a blank may be where nobody says."""
        lengths = self.config.lengths
        longest = 0 if lengths is None else LengthLaw(lengths).longest - self.base
        return max(0, min(longest, self.room))


def _uniform(blanks: Blanks, key: int) -> list[tuple[int, ...]]:
    """Draw every length evenly from its range."""
    lengths: list[int] = []
    draws: torch.Generator | None = None
    for span in blanks.spans:
        if len(span) > 1 and draws is None:
            draws = keyed_generator(key, _LENGTH_STREAM)
        # before the first blank of an open length there is nothing to draw from, nor to draw
        drawn = (
            span[0] if draws is None else torch.randint(span[0], span[-1] + 1, (), generator=draws)
        )
        lengths.append(int(drawn))
    return [tuple(lengths)]


def _sampled(blanks: Blanks, key: int) -> list[tuple[int, ...]]:
    """Draw T from h given the ranges, and of the lengths that come to T one choice evenly."""
    lengths = blanks.config.lengths
    if lengths is None:
        raise ValueError(
            "length='sampled' draws from the lengths of the texts that the model was trained on, "
            "and its configuration has no `lengths`: it was trained before they were stored, or on "
            "a stream or on packed blocks. Use length='uniform'."
        )
    law, spans = LengthLaw(lengths), blanks.spans
    most = max(0, min(sum(len(span) - 1 for span in spans), blanks.room, law.longest - blanks.base))
    ways = ways_to_sum([len(span) for span in spans], most)
    weights = law.weights(blanks.base + torch.arange(most + 1))
    # what no choice of lengths comes to cannot be drawn; of all others h alone decides
    weights = weights * torch.tensor([float(n > 0) for n in ways[0]], dtype=torch.float64)
    if not bool(weights.any()):
        raise ValueError(
            f"length='sampled' finds no length: with its blanks the text has from {blanks.base} to "
            f"{blanks.base + most} tokens, framing left out, and training saw no text as long; its "
            f"longest had {law.longest}. Give the blanks other lengths, or use length='uniform'."
        )
    draws = keyed_generator(key, _LENGTH_STREAM)
    left = pick(weights, _uniform_number(draws))
    chosen = []
    for place, span in enumerate(spans):
        # so that every choice that comes to what is left is as likely as every other
        of_each = [ways[place + 1][left - n] for n in range(min(len(span) - 1, left) + 1)]
        shares = torch.tensor([n / ways[place][left] for n in of_each], dtype=torch.float64)
        extra = pick(shares, _uniform_number(draws))
        chosen.append(span[0] + extra)
        left -= extra
    return [tuple(chosen)]


def _candidates(blanks: Blanks, key: int) -> list[tuple[int, ...]]:
    """Return every choice of lengths, the shortest text first."""
    spans = blanks.spans
    count = math.prod(len(span) for span in spans)
    if count > MOST_CANDIDATES:
        raise ValueError(
            f"length='likeliest' and 'pattern' try a text once for every choice of lengths, which "
            f"here are {count:,}; {MOST_CANDIDATES} at most are compared. Narrow the ranges of the "
            "blanks."
        )
    return sorted(itertools.product(*spans), key=lambda chosen: (sum(chosen), chosen))


def _uniform_number(draws: torch.Generator) -> float:
    return float(torch.rand((), generator=draws, dtype=torch.float64))


def ways_to_sum(sizes: Sequence[int], most: int) -> list[list[int]]:
    """Count the choices of numbers 0 <= n_i < sizes[i] by what they sum to.

    Args:
        sizes: m of them.
        most: the greatest sum that is asked for.

    Returns:
        For i = 0..m the number of choices of those from i on that sum to 0..most.
    """
    ways = [[1] + [0] * most]
    for size in reversed(sizes):
        below = [0, *itertools.accumulate(ways[0])]  # how many come to less than each sum
        ways.insert(0, [below[s + 1] - below[max(0, s + 1 - size)] for s in range(most + 1)])
    return ways


@dataclass(frozen=True)
class BlankLengths:
    """One way to decide the lengths of the blanks.

    Attributes:
        help: what it does.
        choose: returns the lengths of all blanks, a tuple for each text that is to be filled; of
            several the likeliest filled one is kept.
        reads_histogram: whether a blank without a number, where no `blank_lengths` are given, may
            be as long as the texts of training.
        with_patterns: whether it goes by every length alone, so that a pattern may leave some out.
        by_mass: whether the patterns choose, before anything is filled.
    """

    help: str
    choose: Callable[[Blanks, int], list[tuple[int, ...]]]
    reads_histogram: bool = False
    with_patterns: bool = False
    by_mass: bool = False


LENGTHS: dict[str, BlankLengths] = {
    "uniform": BlankLengths("every length of a range is equally likely", _uniform),
    "sampled": BlankLengths(
        "the length of the whole text is drawn from those that training saw", _sampled, True
    ),
    "likeliest": BlankLengths(
        "every length is tried, and that of the likeliest filled text is kept",
        _candidates,
        with_patterns=True,
    ),
    "pattern": BlankLengths(
        "every length has the share of the first pass that the patterns take in it",
        _candidates,
        with_patterns=True,
        by_mass=True,
    ),
}


def prior_nats(config: MaskGitConfig, lengths: Sequence[int]) -> list[float]:
    """Weigh whole texts by their length T alone: -ln of (h(T) + 1), up to a constant.

    One text more of every length, or one that training happened not to see would be impossible.

    Args:
        config: has h, or has none: then every length weighs the same.
        lengths: T of each text.
    """
    if config.lengths is None:
        return [0.0] * len(lengths)
    seen = LengthLaw(config.lengths).weights(torch.tensor(lengths))
    return [-math.log(count + 1) for count in seen.tolist()]
