"""One pass as its rules see it: the rows, what is asked, and what may be asked of the networks.

Letters: R rows still being decoded, L length, V vocabulary, N positions.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import torch
from torch import Tensor

from .finite import check_critic_scores, check_processed, check_same_shape
from .position_logits import PositionLogits
from .sampler import Sampler
from .sampler_scores import draw

# logits_fn(rows (R,), text (R, L), positions (R, L) bool) -> (N, V): the denoiser's logits at the
# given positions, in row-major order, of the given rows of the batch.
LogitsFn = Callable[[Tensor, Tensor, Tensor], Tensor]
# The same for a critic: (N,) log-odds that the token at each position is right.
CriticFn = Callable[[Tensor, Tensor, Tensor], Tensor]


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
    """

    text: Tensor
    masked: Tensor
    can_end: Tensor
    block: Tensor
    log_probabilities: Tensor
    allowed: Tensor | None = None
    allowed_table: Tensor | None = None

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
        )

    def with_rows(self, index: Tensor, rows: "DecodingState") -> "DecodingState":
        """Put some rows back."""
        # `can_end`, `block` and `allowed` never change, so that they need not be put back.
        return replace(
            self,
            text=self.text.index_copy(0, index, rows.text),
            masked=self.masked.index_copy(0, index, rows.masked),
            log_probabilities=self.log_probabilities.index_copy(0, index, rows.log_probabilities),
        )

    def reveal(
        self, positions: Tensor, tokens: Tensor, log_probabilities: Tensor | None = None
    ) -> "DecodingState":
        """Write (N,) tokens at (R, L) bool positions."""
        kept = self.log_probabilities
        if log_probabilities is not None:
            kept = kept.masked_scatter(positions, log_probabilities.to(kept.dtype))
        return replace(
            self,
            text=self.text.masked_scatter(positions, tokens),
            masked=self.masked & ~positions,
            log_probabilities=kept,
        )

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
    """

    temperature_scale: Tensor
    remaining: Tensor
    reveal_rate: Tensor
    remask_rate: Tensor
    block: Tensor


@dataclass(frozen=True)
class Turn:
    """One pass of some rows, with the questions that orders, paces and remaskings may put.

    Args:
        logits_fn: the denoiser.
        rows: (R,) long, indices of the rows, as `logits_fn` knows them.
        state: the rows before the pass.
        asked: what the pace asks of this pass.
        uniforms: (R, L, 2) float64 in [0, 1), per position: one to draw with, one for the order of
            masks or the remasking of tokens.
        sampler: the options.
        critic_fn: the critic, where an order asks one.
        tokens_compete: whether revealed tokens compete with masks for their places.
    """

    logits_fn: LogitsFn
    rows: Tensor
    state: DecodingState
    asked: Pass
    uniforms: Tensor
    sampler: Sampler
    critic_fn: CriticFn | None = None
    tokens_compete: bool = False

    @property
    def here(self) -> Tensor:
        """Places (R, L) bool of the block that is worked on."""
        return self.state.block == self.asked.block

    @property
    def coins(self) -> Tensor:
        """One uniform (R, L) per position, for the order of masks or the remasking of tokens."""
        return self.uniforms[..., 1]

    def logits(self, positions: Tensor) -> PositionLogits:
        """Ask the denoiser for its logits (N, V) at positions (R, L) bool."""
        state, sampler = self.state, self.sampler
        return PositionLogits(
            self.logits_fn(self.rows, state.text, positions),
            sampler.suppressed,
            sampler.end_ids,
            state.can_end[positions],
            None if state.allowed is None else state.allowed[positions],
            state.allowed_table,
            # what a processor or warper of the user's makes of a part may differ
            whole=sampler.changes_scores,
        )

    def critic_scores(self, drawn: Tensor, positions: Tensor) -> Tensor:
        """Ask the critic: (N,) at positions (R, L) bool of the text with `drawn` at every mask.

        Raises:
            ValueError: for scores of nan.
        """
        text = self.state.text.masked_scatter(self.state.masked, drawn)
        scores = cast(CriticFn, self.critic_fn)(self.rows, text, positions)
        check_critic_scores(scores)
        return scores

    def drawer(
        self, logits: PositionLogits, positions: Tensor
    ) -> Callable[[Tensor, slice], Tensor]:
        """Return what draws one token at each of some positions.

        Args:
            logits: of the positions.
            positions: (R, L) bool, N of them.

        Returns:
            A function of scores (n, V) and of which of the N they belong to, that returns (n,)
            long. It raises a ValueError when a `logits_processor` leaves nothing to emit, or makes
            scores of nan.
        """
        sampler = self.sampler
        rows = positions.nonzero()[:, 0]  # (N,) the row of each position
        uniforms = self.uniforms[..., 0][positions]
        scale = torch.ones_like(uniforms)
        if sampler.anneal_temperature:
            scale = self.asked.temperature_scale[rows]
        temperature = sampler.temperature * scale
        greedy = not sampler.do_sample or bool((temperature == 0).all())

        def drawn(scores: Tensor, which: slice) -> Tensor:
            # Processors read a whole row per position: (n, L) is built for them alone.
            text = self.state.text[rows[which] if sampler.changes_scores else slice(0)]
            if sampler.processors:
                scores = self._processed(scores, cast(torch.LongTensor, text), logits, which)
            if greedy:
                return scores.argmax(-1)
            return self._sampled(scores, text, uniforms[which], temperature[which])

        return drawn

    def _sampled(
        self, scores: Tensor, text: Tensor, uniforms: Tensor, temperature: Tensor
    ) -> Tensor:
        largest = torch.finfo(scores.dtype).max  # beyond it, -inf divided would give nan
        temperature = temperature.to(scores.dtype).clamp_max(largest)
        # At temperature 0 the likeliest token is taken; dividing by it would give nan.
        cold = temperature == 0
        divisor = torch.where(cold, 1, temperature)[:, None]
        # Less the greatest of its row, which changes no probability, no quotient overflows.
        warm = (scores - scores.amax(-1, keepdim=True)) / divisor
        if self.sampler.warpers:
            asked = scores / divisor  # what a warper expects, unless it overflows
            warm = asked if bool(asked.amax(-1).isfinite().all()) else warm
            words = cast(torch.LongTensor, text)
            warm = self.sampler.warpers(words, cast(torch.FloatTensor, warm))
        return torch.where(cold, scores.argmax(-1), draw(warm, uniforms))

    def _processed(
        self, scores: Tensor, text: torch.LongTensor, logits: PositionLogits, which: slice
    ) -> Tensor:
        # A processor may edit in place, and may bring back what the distribution excludes.
        given = scores
        scores = scores.clone()
        for processor in self.sampler.processors:
            scores = processor(text, cast(torch.FloatTensor, scores))
            check_same_shape("logits_processor", scores, given)
        scores = logits.restrict(scores, which)
        check_processed(scores)
        return scores
