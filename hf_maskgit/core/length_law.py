"""How long the texts were that training saw: a histogram that a checkpoint stores, and its law.

Lengths are of the text alone: tokens without the framing and without what fills it up behind its
end. Those below 64 are counted one by one, longer ones in bins about 3 % wide, so that a histogram
has a few hundred entries at most.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .options import shown

_FINE_BITS = 6  # 2 ** 6 lengths are counted one by one, and then 2 ** 5 bins per doubling


def bin_of(length: int) -> tuple[int, int]:
    """Return the least length of the bin that a length falls into, and how many lengths it has."""
    width = 1 << max(0, length.bit_length() - _FINE_BITS)
    return length - length % width, width


def histogram(counted: Iterable[tuple[int, int]]) -> dict[str, int]:
    """Put lengths into bins.

    Args:
        counted: pairs of a length of at least 1, and how many texts have it.

    Returns:
        Texts by the least length of their bin, in order; texts as JSON has them for keys.
    """
    bins: dict[int, int] = {}
    for length, count in sorted(counted):
        start, _ = bin_of(length)
        bins[start] = bins.get(start, 0) + count
    return {str(start): count for start, count in bins.items()}


def check_histogram(lengths: Any) -> None:
    """Refuse what `histogram` does not make.

    Raises:
        ValueError: naming the first entry that is none.
    """
    if not isinstance(lengths, Mapping) or not lengths:
        raise ValueError(
            "`lengths` must give how many texts of each length training saw, such as {'12': 3}, "
            f"or be None where nobody knows; got {shown(lengths)}."
        )
    for key, count in lengths.items():
        is_length = isinstance(key, str) and key.isdecimal() and 0 < int(key) < 2**31
        if not is_length or type(count) is not int or count < 1 or bin_of(int(key))[0] != int(key):
            raise ValueError(
                f"`lengths` holds {shown(key)}: {shown(count)}; its keys are texts, the least "
                "length of each bin ('1' to '63' one by one), its values count one text or more."
            )


@dataclass(frozen=True)
class LengthLaw:
    """The law of a length T drawn from a histogram; within a bin every length is equally likely.

    Args:
        lengths: see `histogram`.
    """

    lengths: Mapping[str, int]

    @cached_property
    def _table(self) -> tuple[Tensor, Tensor]:
        """Every length that has a probability, (K,) long in order, and its weight, (K,) float64."""
        bins = [(*bin_of(int(start)), count) for start, count in self.lengths.items()]
        values = torch.cat([torch.arange(start, start + width) for start, width, _ in bins])
        weights = [torch.full((width,), count / width).double() for _, width, count in bins]
        order = values.argsort()
        return values[order], torch.cat(weights)[order]

    @property
    def longest(self) -> int:
        """The greatest length that can be drawn."""
        return int(self._table[0][-1])

    def weights(self, lengths: Tensor) -> Tensor:
        """Return how many texts had each of these lengths, long -> float64 of the same shape."""
        values, weights = self._table
        place = torch.searchsorted(values, lengths).clamp_max(len(values) - 1)
        return torch.where(values[place] == lengths, weights[place], 0.0)

    def draw(self, least: Sequence[int], most: Sequence[int], uniforms: Tensor) -> Tensor:
        """Draw T of every row, given that least <= T <= most.

        Args:
            least: R lower bounds of it.
            most: R upper bounds.
            uniforms: (R,) float64 in [0, 1), one per row.

        Returns:
            (R,) long; 0 where no length of the histogram lies between the bounds.
        """
        values, weights = self._table
        drawn = torch.zeros(len(uniforms), dtype=torch.long)
        for row, (low, high) in enumerate(zip(least, most, strict=True)):
            inside = (values >= low) & (values <= high)
            if bool(inside.any()):
                drawn[row] = values[inside][pick(weights[inside], float(uniforms[row]))]
        return drawn


def pick(weights: Tensor, uniform: float) -> int:
    """Draw an index in proportion to weights (K,) float64, some above 0, by inverting their sum."""
    total = weights.cumsum(0)
    place = int(torch.searchsorted(total, uniform * total[-1], right=True))
    # a uniform just below 1 may round up to the total
    return min(place, int(weights.nonzero()[-1]))
