"""The noise of a decoding: a stream for each row, the same in whatever batch it stands.

Letters: B rows, R of them, L length, C numbers per position.
"""

import torch
from torch import Tensor

from .noise import keyed_uniforms, mixed

# A draw is dozens of small operations, which take about as long for the numbers of many passes.
_PASSES_AT_ONCE = 8
_MOST_NUMBERS = 2**20  # that are drawn at once, but for those of one pass


def row_uniforms(
    seeds: Tensor, lengths: Tensor, rows: Tensor, step: Tensor | int, width: int, count: int = 2
) -> Tensor:
    """Draw the noise of one pass, (R, L, C) float64 in [0, 1), each row from a stream of its own.

    Keyed by (row seed, pass) and counted from the first position, so that neither the other rows of
    the batch nor its padding change it; 0 at padding.

    Args:
        seeds: (B,) long.
        lengths: (B,) long, tokens of each row that are not padding.
        rows: (R,) long, which rows.
        step: passes before this one; (R,) long, where the rows are at different ones.
        width: L.
        count: C, numbers per position.
    """
    noise = keyed_uniforms(mixed(seeds[rows], step), count * width).view(len(rows), width, count)
    padding = torch.arange(width, device=rows.device) >= lengths[rows, None]
    return noise.masked_fill_(padding[..., None], 0.0)


class RowNoise:
    """What `row_uniforms` draws in pass after pass, drawn for some passes at once.

    Args:
        seeds: (B,) long.
        lengths: (B,) long, tokens of each row that are not padding.
        width: L.
        count: C, numbers per position.
    """

    def __init__(self, seeds: Tensor, lengths: Tensor, width: int, count: int) -> None:
        self._of_rows, self._shape = (seeds, lengths), (width, count)
        numbers = max(1, len(seeds) * width * count)
        self._at_once = max(1, min(_PASSES_AT_ONCE, _MOST_NUMBERS // numbers))
        self._first, self._drawn = 0, seeds.new_empty(0)  # the passes that are drawn, (P, B, L, C)

    def of(self, rows: Tensor, step: int) -> Tensor:
        """Return the noise of one pass, (R, L, C).

        Args:
            rows: (R,) long, which rows, in ascending order.
            step: passes before this one.
        """
        if not self._first <= step < self._first + len(self._drawn):
            self._first, self._drawn = step, self._draw(step)
        drawn: Tensor = self._drawn[step - self._first]
        return drawn if len(rows) == len(drawn) else drawn[rows]

    def _draw(self, first: int) -> Tensor:
        seeds, lengths = self._of_rows
        size, device = len(seeds), seeds.device
        rows = torch.arange(size, device=device).repeat(self._at_once)
        steps = torch.arange(first, first + self._at_once, device=device).repeat_interleave(size)
        noise = row_uniforms(seeds, lengths, rows, steps, *self._shape)
        return noise.view(self._at_once, size, *self._shape)
