"""Rows in the middle of decoding, and what a pass asks of them.

Letters: R rows still being decoded, L length, V vocabulary, N positions.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from .pattern_rows import RowPatterns


@dataclass(frozen=True)
class DecodingState:
    """Rows in the middle of decoding.

    Attributes:
        text: (R, L) long, rows packed to right padding.
        masked: (R, L) bool, positions still to reveal.
        can_end: (R, L) bool, positions where an end of text may stand.
        block: (R, L) long, which block a position belongs to, from 0; -1 where it is known and
            never changes.
        log_probabilities: (R, L) float, of each revealed token when it was revealed, by the
            denoiser's distribution without temperature and filters; 0 elsewhere. Kept when asked
            for.
        allowed: (R, L) long or None, row of `allowed_table` that a position keeps to.
        allowed_table: (K, V) bool or None, ids that may be emitted.
        patterns: what the rows must look like, or None.
        alternatives: (R, L, K, 2) float64 or None, id and log-probability of the K likeliest tokens
            of each place when it was revealed, by the same distribution; -1 and -inf behind the
            last.
        log_weights: (R,) float64 with patterns, else None: logarithms of importance weights, see
            `MaskGitGenerationOutput`. Kept when asked for.
    """

    text: Tensor
    masked: Tensor
    can_end: Tensor
    block: Tensor
    log_probabilities: Tensor
    allowed: Tensor | None = None
    allowed_table: Tensor | None = None
    patterns: RowPatterns | None = None
    log_weights: Tensor | None = None
    alternatives: Tensor | None = None

    @classmethod
    def start(
        cls,
        text: Tensor,
        masked: Tensor,
        can_end: Tensor,
        block_length: int | None = None,
        allowed: Tensor | None = None,
        allowed_table: Tensor | None = None,
    ) -> "DecodingState":
        """Make the state before the first pass; masks are counted into blocks from the left.

        With `block_length` 2 the row `a m m b m` has the blocks `-1 0 0 -1 1`.
        """
        index = masked.long().cumsum(1) - 1
        block = index.div(block_length, rounding_mode="floor") if block_length else index * 0
        zeros = torch.zeros(text.shape, device=text.device)
        block = block.masked_fill(~masked, -1)
        return cls(text, masked, can_end, block, zeros, allowed, allowed_table)

    def keeping(self, num_alternatives: int) -> "DecodingState":
        """Return rows of which the likeliest tokens of each place are kept, so many."""
        if not num_alternatives:
            return self
        nothing = torch.tensor([-1.0, -torch.inf], dtype=torch.float64, device=self.text.device)
        shape = *self.text.shape, num_alternatives, 2
        return replace(self, alternatives=nothing.expand(shape).contiguous())

    @property
    def revealed(self) -> Tensor:
        """Positions (R, L) bool that were masked and now hold a token."""
        return (self.block >= 0) & ~self.masked

    @property
    def active_block(self) -> Tensor:
        """First block of each row that has masks left, (R, 1) long; behind all where none has."""
        behind_all = torch.iinfo(self.block.dtype).max
        return self.block.masked_fill(~self.masked, behind_all).amin(1, keepdim=True)

    def rows(self, index: Tensor) -> "DecodingState":
        """Pick some of the rows."""
        return replace(
            self,
            text=self.text[index],
            masked=self.masked[index],
            can_end=self.can_end[index],
            block=self.block[index],
            log_probabilities=self.log_probabilities[index],
            allowed=None if self.allowed is None else self.allowed[index],
            patterns=None if self.patterns is None else self.patterns.rows(index),
            log_weights=None if self.log_weights is None else self.log_weights[index],
            alternatives=None if self.alternatives is None else self.alternatives[index],
        )

    def with_rows(self, index: Tensor, rows: "DecodingState") -> "DecodingState":
        """Put some rows back."""
        # The others never change, so that they need not be put back.
        return replace(
            self,
            text=self.text.index_copy(0, index, rows.text),
            masked=self.masked.index_copy(0, index, rows.masked),
            log_probabilities=self.log_probabilities.index_copy(0, index, rows.log_probabilities),
            log_weights=(
                None
                if self.log_weights is None or rows.log_weights is None
                else self.log_weights.index_copy(0, index, rows.log_weights)
            ),
            alternatives=(
                None
                if self.alternatives is None or rows.alternatives is None
                else self.alternatives.index_copy(0, index, rows.alternatives)
            ),
        )

    def reveal(
        self,
        positions: Tensor,
        tokens: Tensor,
        log_probabilities: Tensor | None = None,
        alternatives: Tensor | None = None,
    ) -> "DecodingState":
        """Write (N,) tokens at (R, L) bool positions."""
        kept, others = self.log_probabilities, self.alternatives
        if others is not None and alternatives is not None:  # (N, K, 2)
            others = others.masked_scatter(positions[..., None, None], alternatives)
        if log_probabilities is not None:
            kept = kept.masked_scatter(positions, log_probabilities.to(kept.dtype))
        return replace(
            self,
            text=self.text.masked_scatter(positions, tokens),
            masked=self.masked & ~positions,
            log_probabilities=kept,
            alternatives=others,
        )

    @property
    def num_alternatives(self) -> int:
        """K, of which the likeliest tokens are kept; 0 where none are."""
        return 0 if self.alternatives is None else self.alternatives.shape[2]

    def remask(self, positions: Tensor, mask_token_id: int) -> "DecodingState":
        """Hide tokens again at (R, L) bool positions."""
        return replace(
            self,
            text=self.text.masked_fill(positions, mask_token_id),
            masked=self.masked | positions,
            log_probabilities=self.log_probabilities.masked_fill(positions, 0.0),
        )


class Pass(NamedTuple):
    """What the pace asks of one pass, for each row.

    Attributes:
        temperature_scale: (R,) float64, from below 1 down to 0 in the last pass: scales temperature
            and choice noise.
        remaining: (R,) long, masks left in the whole row after it, where the pace counts them,
            else 0.
        reveal_rate: (R, 1) float64, probability of being revealed where coins are flipped, else 0.
        remask_rate: (R, 1) or (R, L) float64, the same for being masked again, else 0.
        block: (R, 1) long, the block that is worked on.
        last_revealed: (R,) long, tokens that the row's pass before revealed; 0 where none was.
    """

    temperature_scale: Tensor
    remaining: Tensor
    reveal_rate: Tensor
    remask_rate: Tensor
    block: Tensor
    last_revealed: Tensor
