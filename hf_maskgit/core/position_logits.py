"""The denoiser's logits at the positions of a pass, read block by block.

They are the largest tensor of a pass. Whole, they would go through memory several times, which
takes longer than the encoder under bf16, and where the memory is given out anew for every pass, its
pages cost more than the numbers. So the LM head itself is run on some positions at a time, where it
can be (`LateLogits`), and what it gives is read in blocks of rows that stay in the cache.

Letters: N positions, V vocabulary, n positions of a block.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from typing import Protocol, cast

import torch
from torch import Tensor

from .finite import check_highest
from .losses import at_least_float32
from .sampler_scores import Distribution

_BLOCK = 2**19  # logits of a block: 2 MiB in float32


class Condition(Protocol):
    """What is known of a text beside its distributions; it makes their scores conditional ones."""

    def weigh(self, scores: Tensor, index: Tensor) -> Tensor:
        """Return the scores (n, V) of some positions, (n,) long of all those it knows."""

    def distribution(self, scores: Callable[[], Tensor], index: Tensor) -> Distribution:
        """Do so for the distributions, with scores that need not be asked for."""


class LateLogits:
    """Logits (N, V) that are computed where they are read, some positions at a time.

    Args:
        compute: of (n, ..), some of what they are computed of; returns their logits (n, V), which
            nobody else has.
        of: (N, ..), what each is computed of: hidden states, or which of all positions it is.
        rows: how many it had best compute at a time.
    """

    def __init__(self, compute: Callable[[Tensor], Tensor], of: Tensor, rows: int) -> None:
        self.compute, self.of, self.rows = compute, of, rows

    def __len__(self) -> int:
        """Return N."""
        return len(self.of)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """Compute some of them, (n, V)."""
        return self.compute(self.of[index])

    @property
    def device(self) -> torch.device:
        """Where they will be."""
        return self.of.device

    def only(self, index: Tensor | slice) -> "LateLogits":
        """Return those of some positions, not computed yet."""
        return LateLogits(self.compute, self.of[index], self.rows)

    def packed(self, counts: Sequence[int]) -> Iterator[tuple[int, int, "LateLogits"]]:
        """Cut them between texts of so many positions each, as many as fit or one at a time.

        Yields:
            The first text, the one behind the last, and their logits.
        """
        first = position = 0
        while first < len(counts):
            last, size = first + 1, counts[first]
            while last < len(counts) and size + counts[last] <= self.rows:
                size, last = size + counts[last], last + 1
            yield first, last, self.only(slice(position, position + size))
            first, position = last, position + size


def later(function: Callable[..., Tensor], *logits: Tensor | LateLogits) -> Tensor | LateLogits:
    """Apply a function of logits (n, V) at the same positions; late, where some of them are.

    Args:
        function: of the logits at any positions, returns new ones.
        logits: (N, V) each.
    """
    late = [each for each in logits if isinstance(each, LateLogits)]
    if not late:
        return function(*logits)
    positions = torch.arange(len(late[0]), device=late[0].device)
    compute = lambda which: function(*(each[which] for each in logits))  # noqa: E731
    return LateLogits(compute, positions, min(each.rows for each in late))


def joined(parts: Sequence[tuple[Tensor, Tensor | LateLogits]]) -> Tensor | LateLogits:
    """Put logits together whose positions alternate; late, where all of them are.

    Args:
        parts: where each stands, (N,) bool, and its logits; together they have all N.
    """
    if not all(isinstance(logits, LateLogits) for _, logits in parts):
        here, first = parts[0][0], parts[0][1][:]
        whole = first.new_empty(len(here), first.shape[-1])
        for where, logits in parts:
            whole[where] = logits[:]
        return whole
    late = [cast(LateLogits, logits) for _, logits in parts]
    at_a_time = min(each.rows for each in late)
    if all(each.compute == late[0].compute for each in late):  # all at once, then
        of = late[0].of.new_empty(len(parts[0][0]), *late[0].of.shape[1:])
        for (where, _), logits in zip(parts, late, strict=True):
            of[where] = logits.of
        return LateLogits(late[0].compute, of, at_a_time)
    number = torch.stack([where.long().cumsum(0) - 1 for where, _ in parts])  # within its part

    def compute(which: Tensor) -> Tensor:
        found = [logits[number[i, which][where[which]]] for i, (where, logits) in enumerate(parts)]
        whole = found[0].new_empty(len(which), found[0].shape[-1])
        for (where, _), logits in zip(parts, found, strict=True):
            whole[where[which]] = logits
        return whole

    positions = torch.arange(number.shape[1], device=number.device)
    return LateLogits(compute, positions, at_a_time)


class PositionLogits:
    """Logits (N, V) at N positions, with -inf at what cannot stand there wherever they are read.

    Args:
        raw: (N, V), any float dtype; a tensor is left untouched.
        suppressed: (K,) long, ids that are never emitted.
        end_ids: (E,) long, ids that end a text.
        can_end: (N,) bool, where an end may stand.
        allowed: (N,) long, the row of `allowed_table` that a position keeps to, or None.
        allowed_table: (K, V) bool, ids that may be emitted, or None.
        whole: read all positions as one block.
        kept: compute all now, for many readings.
    """

    def __init__(
        self,
        raw: Tensor | LateLogits,
        suppressed: Tensor,
        end_ids: Tensor,
        can_end: Tensor,
        allowed: Tensor | None = None,
        allowed_table: Tensor | None = None,
        whole: bool = False,
        kept: bool = False,
    ) -> None:
        self._raw = raw[:] if (whole or kept) and isinstance(raw, LateLogits) else raw
        self._suppressed, self._end_ids = suppressed, end_ids
        self._can_end, self._allowed, self._table = can_end, allowed, allowed_table
        self._whole = whole
        self._restricted: Tensor | None = None  # all of `raw`, where they are kept so
        if kept and isinstance(raw, LateLogits):  # computed just now: nobody else has them
            self._raw = self._restricted = self._restrict(cast(Tensor, self._raw), slice(None))
        self._keeps = False  # logits that are late, once they are computed
        self.condition: Condition | None = None
        self.index = torch.zeros(0, dtype=torch.long)  # (N,) as the condition counts them

    @classmethod
    def beside(cls, parts: Sequence[tuple[Tensor, "PositionLogits"]]) -> "PositionLogits":
        """Put logits together whose positions alternate; what is read of them is copied then.

        Args:
            parts: where each stands, (N,) bool, and its logits, that no condition changes; together
                they have all N.
        """
        (here, first), *_ = parts
        whole = copy(first)
        late = [
            (where, LateLogits(part.at, torch.arange(len(part), device=where.device), len(here)))
            for where, part in parts
        ]
        whole._raw, whole._restricted = joined(late), None
        whole._can_end = torch.empty_like(here)
        whole._allowed = None if first._allowed is None else first._allowed.new_empty(len(here))
        for where, part in parts:
            whole._can_end[where] = part._can_end
            if whole._allowed is not None and part._allowed is not None:
                whole._allowed[where] = part._allowed
        return whole

    def __len__(self) -> int:
        """Return N."""
        return len(self._raw)

    @property
    def at_a_time(self) -> int | None:
        """How many positions are computed at a time; None where all are there already."""
        return self._raw.rows if isinstance(self._raw, LateLogits) else None

    def at(self, index: Tensor | slice) -> Tensor:
        """Return some rows, (n, V) in float32 or float64."""
        scores = self._given_at(index)
        return scores if self.condition is None else self.condition.weigh(scores, self.index[index])

    def _given_at(self, index: Tensor | slice) -> Tensor:
        """Return them without a condition."""
        if self._keeps and isinstance(self._raw, LateLogits):
            self._raw = self._restricted = self._restrict(self._raw[:], slice(None))
        if self._restricted is not None:
            return at_least_float32(self._restricted[index])
        return self.restrict(self._raw[index], index)

    def _distribution(self, index: slice) -> Distribution:
        if self.condition is None:
            return Distribution(self._given_at(index))
        return self.condition.distribution(lambda: self._given_at(index), self.index[index])

    def given(self, condition: Condition) -> "PositionLogits":
        """Return the same positions with conditional scores."""
        whole = copy(self)
        whole.condition = condition
        whole.index = torch.arange(len(self), device=self._raw.device)
        return whole

    def only(self, chosen: Tensor | slice) -> "PositionLogits":
        """Return those of some positions, (N,) bool or a slice."""
        part = copy(self)
        raw = self._raw
        if self._restricted is not None:
            part._raw = part._restricted = self._restricted[chosen]
        else:
            part._raw = raw.only(chosen) if isinstance(raw, LateLogits) else raw[chosen]
        part._can_end = self._can_end[chosen]
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
        exact = at_least_float32(logits)
        return self._restrict(exact.clone() if exact is logits else exact, index)

    def _restrict(self, logits: Tensor, index: Tensor | slice) -> Tensor:
        """Do so in place."""
        logits.index_fill_(-1, self._suppressed.to(logits.device), -torch.inf)
        if len(self._end_ids):
            # An end of text with known tokens behind it would cut them off.
            ends = logits[:, self._end_ids]
            logits[:, self._end_ids] = ends.masked_fill(~self._can_end[index, None], -torch.inf)
        if self._allowed is not None and self._table is not None:
            logits.masked_fill_(~self._table[self._allowed[index]], -torch.inf)
        return logits

    def read(
        self, function: Callable[[Distribution, slice], tuple[Tensor, ...]]
    ) -> tuple[Tensor, ...]:
        """Apply a function to block after block, and see that the logits are a distribution.

        Args:
            function: of n distributions and of which positions these are; returns tensors (n,).

        Returns:
            Its tensors, (N,) each.

        Raises:
            ValueError: for logits that are not finite.
        """
        found, witnesses = [], []
        for first, part in self._parts():
            raw = part._raw
            width = _BLOCK // raw.rows if isinstance(raw, LateLogits) else raw.shape[-1]
            rows = len(part) if self._whole else max(1, _BLOCK // max(1, width))
            for start in range(0, max(1, len(part)), max(1, rows)):
                end = min(start + rows, len(part))
                block = part._distribution(slice(start, end))
                found.append(function(block, slice(first + start, first + end)))
                if self.condition is None:  # else it has seen to that
                    witnesses.append(block.witness)
        if witnesses:
            check_highest(torch.cat(witnesses))
        return tuple(torch.cat(parts) for parts in zip(*found, strict=True))

    def _parts(self) -> Iterator[tuple[int, "PositionLogits"]]:
        """Yield parts whose logits are there, each with the number of its first position."""
        raw = self._raw
        if not isinstance(raw, LateLogits):
            yield 0, self
            return
        for first in range(0, max(1, len(raw)), raw.rows):
            which = slice(first, first + raw.rows)
            part = self if len(raw) <= raw.rows else self.only(which)  # so few are kept
            part._keeps = True
            if part.condition is None:  # else what is asked may be known without them
                part._given_at(slice(0, 0))
            yield first, part
