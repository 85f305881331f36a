"""The denoiser's logits at the positions of a pass, read block by block.

They are the largest tensor of a pass. Whole float32 copies of them (restricted, exponentiated,
summed up) would go through memory several times, which under bf16 takes longer than the encoder;
a block of rows stays in the cache, and every number of it is read once.

Letters: N positions, V vocabulary, n positions of a block.
"""

from collections.abc import Callable
from copy import copy
from typing import Protocol

import torch
from torch import Tensor

from .finite import check_highest
from .losses import forbid

_BLOCK = 2**19  # logits of a block: 2 MiB in float32


class Condition(Protocol):
    """What is known of a text beside its distributions; it makes their scores conditional ones."""

    def weigh(self, scores: Tensor, index: Tensor) -> Tensor:
        """Return the scores (n, V) of some positions, (n,) long of all those it knows."""


class PositionLogits:
    """Logits (N, V) at N positions, with -inf at what cannot stand there wherever they are read.

    Args:
        raw: (N, V), any float dtype; left untouched.
        suppressed: (K,) long, ids that are never emitted.
        end_ids: (E,) long, ids that end a text.
        can_end: (N,) bool, where an end may stand.
        allowed: (N,) long, the row of `allowed_table` that a position keeps to, or None.
        allowed_table: (K, V) bool, ids that may be emitted, or None.
        whole: read all positions as one block.
    """

    def __init__(
        self,
        raw: Tensor,
        suppressed: Tensor,
        end_ids: Tensor,
        can_end: Tensor,
        allowed: Tensor | None = None,
        allowed_table: Tensor | None = None,
        whole: bool = False,
    ) -> None:
        self._raw, self._suppressed, self._end_ids = raw, suppressed, end_ids
        self._can_end, self._allowed, self._table = can_end, allowed, allowed_table
        self._rows = len(raw) if whole else max(1, _BLOCK // max(1, raw.shape[-1]))
        self.condition: Condition | None = None
        self.index = torch.zeros(0, dtype=torch.long)  # (N,) as the condition counts them

    def __len__(self) -> int:
        """Return N."""
        return len(self._raw)

    def at(self, index: Tensor | slice) -> Tensor:
        """Return some rows, (n, V) in float32 or float64."""
        scores = self.restrict(self._raw[index], index)
        return scores if self.condition is None else self.condition.weigh(scores, self.index[index])

    def given(self, condition: Condition) -> "PositionLogits":
        """Return the same positions with conditional scores."""
        whole = copy(self)
        whole.condition = condition
        whole.index = torch.arange(len(self), device=self._raw.device)
        return whole

    def only(self, chosen: Tensor) -> "PositionLogits":
        """Return those of some positions, (N,) bool."""
        part = copy(self)
        part._raw, part._can_end = self._raw[chosen], self._can_end[chosen]
        if self.condition is not None:
            part.index = self.index[chosen]
        part._allowed = None if self._allowed is None else self._allowed[chosen]
        return part

    def restrict(self, logits: Tensor, index: Tensor | slice) -> Tensor:
        """Give -inf to every id that cannot stand at its position.

        Args:
            logits: (n, V) of these positions.
            index: which they are.

        Returns:
            A copy, in float32 at least.
        """
        logits = forbid(logits, self._suppressed)
        # An end of text with known tokens behind it would cut them off.
        ends = logits[:, self._end_ids]
        logits[:, self._end_ids] = ends.masked_fill(~self._can_end[index, None], -torch.inf)
        if self._allowed is not None and self._table is not None:
            logits = logits.masked_fill(~self._table[self._allowed[index]], -torch.inf)
        return logits

    def read(self, function: Callable[[Tensor, slice], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Apply a function to block after block, and see that the logits are a distribution.

        Args:
            function: of (n, V) and of which positions these are; returns tensors (n,).

        Returns:
            Its tensors, (N,) each.

        Raises:
            ValueError: for logits that are not finite.
        """
        found, highest = [], []
        for first in range(0, max(1, len(self)), max(1, self._rows)):
            which = slice(first, first + self._rows)
            block = self.at(which)
            highest.append(block.amax(-1))
            found.append(function(block, which))
        check_highest(torch.cat(highest))
        return tuple(torch.cat(parts) for parts in zip(*found, strict=True))
