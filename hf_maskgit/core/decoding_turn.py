"""One pass as its rules see it: the rows, what is asked, and what may be asked of the networks.

Letters: R rows still being decoded, L length, V vocabulary, N positions.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import torch
from torch import Tensor

from .finite import check_critic_scores, check_processed, check_same_shape
from .pattern_pass import PatternLaw, Warp
from .pattern_rows import RowPatterns
from .position_logits import LateLogits, PositionLogits
from .sampler import Sampler
from .sampler_scores import Distribution, draw, likeliest

# logits_fn(rows (R,), text (R, L), positions (R, L) bool) -> (N, V): the denoiser's logits at the
# given positions, in row-major order, of the given rows of the batch; computed, or still to be.
LogitsFn = Callable[[Tensor, Tensor, Tensor], Tensor | LateLogits]
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
        patterns: what the rows must look like, or None.
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
            patterns=None if self.patterns is None else self.patterns.rows(index),
            log_weights=None if self.log_weights is None else self.log_weights[index],
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
        last_revealed: (R,) long, tokens that the row's pass before revealed; 0 where none was.
    """

    temperature_scale: Tensor
    remaining: Tensor
    reveal_rate: Tensor
    remask_rate: Tensor
    block: Tensor
    last_revealed: Tensor


@dataclass(frozen=True)
class Turn:
    """One pass of some rows, with the questions that orders, paces and remaskings may put.

    Args:
        logits_fn: the denoiser.
        rows: (R,) long, indices of the rows, as `logits_fn` knows them.
        state: the rows before the pass.
        asked: what the pace asks of this pass.
        uniforms: (R, L, C) float64 in [0, 1), per position: one to draw with, one for the order of
            masks or the remasking of tokens, and the others that a pace asks for.
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
    def competing(self) -> Tensor:
        """Places (R, L) bool that compete: the masks of the block, or its tokens too."""
        return self.here if self.tokens_compete else self.here & self.state.masked

    @property
    def coins(self) -> Tensor:
        """One uniform (R, L) per position, for the order of masks or the remasking of tokens."""
        return self.uniforms[..., 1]

    def of_texts(self, index: Tensor, state: DecodingState) -> "Turn":
        """Return the same pass of other texts (S, L), the n-th of them in place of row index[n]."""
        asked, uniforms = Pass(*(of_rows[index] for of_rows in self.asked)), self.uniforms[index]
        return replace(self, rows=self.rows[index], state=state, asked=asked, uniforms=uniforms)

    def logits(self, positions: Tensor, kept: bool = False) -> PositionLogits:
        """Ask the denoiser for its logits (N, V) at positions (R, L) bool.

        Rows with a pattern are asked for at all masks of their block, whose law it is. `kept`
        computes all now, for many readings.
        """
        state, sampler, asked = self.state, self.sampler, positions
        if state.patterns is not None:
            up_to = state.block <= self.asked.block
            asked = state.patterns.asked(positions, state.masked, up_to)
        logits = PositionLogits(
            self.logits_fn(self.rows, state.text, asked),
            sampler.suppressed,
            sampler.end_ids,
            state.can_end[asked],
            None if state.allowed is None else state.allowed[asked],
            state.allowed_table,
            # what a processor or warper of the user's makes of a part may differ
            whole=sampler.changes_scores,
            kept=kept or state.patterns is not None,
        )
        if state.patterns is None:
            return logits
        law = PatternLaw(state.patterns, logits, state.text, state.masked, asked)
        logits = logits.given(law)
        wanted = positions[asked]
        return logits if bool(wanted.all()) else logits.only(wanted)  # not to copy them for nothing

    def weighed(
        self, after: DecodingState, logits: PositionLogits, chosen: Tensor, exact: bool
    ) -> DecodingState:
        """Add what a pass does to the importance weights of rows with patterns.

        Args:
            after: the rows with the tokens of the pass.
            logits: that these were drawn from.
            chosen: (R, L) bool, where.
            exact: whether their probabilities are known; otherwise the weights become nan.
        """
        law = logits.condition
        if not isinstance(law, PatternLaw) or after.log_weights is None:
            return after
        added = law.log_weights(chosen, after.text).to(chosen.device)
        added = added if exact else torch.full_like(added, torch.nan)
        return replace(after, log_weights=after.log_weights + added)

    def parts(self, places: Tensor) -> Iterator[tuple[Tensor, "Turn"]]:
        """Ask the denoiser once, and go through the rows in parts whose logits fit side by side.

        Args:
            places: (R, L) bool, where each part will ask.

        Yields:
            Which rows, (n,) long, and their turn.
        """
        if self.state.patterns is not None:  # its law asks where it needs to
            yield torch.arange(len(places), device=places.device), self
            return
        found = self.logits_fn(self.rows, self.state.text, places)
        if not isinstance(found, LateLogits) or self.sampler.changes_scores:
            # What a processor or warper of the user's makes of a part may differ.
            everyone = torch.arange(len(places), device=places.device)
            yield everyone, replace(self, logits_fn=lambda *_: found)
            return
        for first, last, logits in found.packed(places.sum(1).tolist()):
            rows = torch.arange(first, last, device=places.device)
            part = self.of_texts(rows, self.state.rows(rows))
            yield rows, replace(part, logits_fn=lambda *_, found=logits: found)

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
    ) -> Callable[[Distribution, slice], Tensor]:
        """Return what draws one token at each of some positions.

        Args:
            logits: of the positions.
            positions: (R, L) bool, N of them.

        Returns:
            A function of n distributions and of which of the N they belong to, that returns (n,)
            long. It raises a ValueError when a `logits_processor` leaves nothing to emit, or makes
            scores of nan.
        """
        if isinstance(logits.condition, PatternLaw):
            return self._joint_drawer(logits, logits.condition)
        sampler = self.sampler
        rows = positions.nonzero()[:, 0]  # (N,) the row of each position
        uniforms = self.uniforms[..., 0][positions]
        temperature = self.temperature_at(self.asked.temperature_scale)[rows]
        num_cold = int((temperature == 0).sum())

        def drawn(block: Distribution, which: slice) -> Tensor:
            scores, text = self.processed(block.logits, logits, which, rows[which])
            block = block if scores is block.logits else Distribution(scores)
            if num_cold == len(temperature):
                return likeliest(scores)
            warm = self.warm(block, temperature[which])
            if sampler.warpers:
                warm = Distribution(self.filtered(warm.logits, text))
            tokens = draw(warm, uniforms[which])
            if not num_cold:
                return tokens
            return torch.where(temperature[which] == 0, likeliest(scores), tokens)

        return drawn

    def temperature_at(self, scale: Tensor) -> Tensor:
        """Return temperatures at scales, where they are annealed; 0 takes the likeliest."""
        if not self.sampler.do_sample:
            return torch.zeros_like(scale)
        scale = scale if self.sampler.anneal_temperature else torch.ones_like(scale)
        return self.sampler.temperature * scale

    def _joint_drawer(
        self, logits: PositionLogits, law: PatternLaw
    ) -> Callable[[Distribution, slice], Tensor]:
        """Draw a whole text of every row; its tokens at some positions are what is drawn there."""
        warm = self.temperature_at(self.asked.temperature_scale)
        warps, uniforms = self.pattern_warps(law, warm[law.rows]), self.uniforms[..., 0]
        path, scores_of = law.path(*warps, warm == 0, uniforms)

        def drawn(block: Distribution, which: slice) -> Tensor:
            index = logits.index[which]
            scores = scores_of(law.logits.at(index), index)
            tokens = draw(scores, path.uniforms[index])
            return torch.where(path.likeliest[index], likeliest(scores), tokens)

        return drawn

    def pattern_warps(
        self, law: PatternLaw, temperature: Tensor
    ) -> tuple[Warp | None, Warp | None]:
        """Return what warps scores at temperatures (N,), and what filters them, for a law."""

        def warp(scores: Tensor, index: Tensor) -> Tensor:
            scores, _ = self.processed(scores, law.logits, index, law.rows[index])
            return self.warm(Distribution(scores), temperature[index]).logits

        def filtering(scores: Tensor, index: Tensor) -> Tensor:
            return self.filtered(scores, self.state.text[law.rows[index]])

        warps = self.sampler.processors or bool(((temperature != 0) & (temperature != 1)).any())
        return warp if warps else None, filtering if self.sampler.warpers else None

    def warm(self, block: Distribution, temperature: Tensor) -> Distribution:
        """Return n distributions at temperatures (n,), those at 0 as at 1."""
        sampler, scores = self.sampler, block.logits
        if sampler.temperature == 1 and not sampler.anneal_temperature and not sampler.warpers:
            return block
        # Beyond these, -inf or nothing divided by it would give nan. At 0 another token is taken.
        info = torch.finfo(scores.dtype)
        divisor = temperature.to(scores.dtype).clamp(info.tiny, info.max)[:, None]
        divisor = divisor.masked_fill(temperature[:, None] == 0, 1.0)
        # Less the greatest of its row, which changes no probability, no quotient overflows.
        warm = (scores - block.highest[:, None]).div_(divisor)
        if sampler.warpers:
            asked = scores / divisor  # what a warper expects, unless it overflows
            warm = asked if bool(asked.amax(-1).isfinite().all()) else warm
        return Distribution(warm)

    def filtered(self, scores: Tensor, text: Tensor) -> Tensor:
        """Return the scores (n, V) that warpers make, of their rows' text (n, L)."""
        if not self.sampler.warpers:
            return scores
        return self.sampler.warpers(cast(torch.LongTensor, text), cast(torch.FloatTensor, scores))

    def processed(
        self, scores: Tensor, logits: PositionLogits, which: Tensor | slice, rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the scores (n, V) that processors make, and the text (n, L) that they see."""
        # Processors read a whole row per position: (n, L) is built for them alone.
        text = self.state.text[rows if self.sampler.changes_scores else slice(0)]
        if not self.sampler.processors:
            return scores, text
        # A processor may edit in place, and may bring back what the distribution excludes.
        given, scores, words = scores, scores.clone(), cast(torch.LongTensor, text)
        for processor in self.sampler.processors:
            scores = processor(words, cast(torch.FloatTensor, scores))
            check_same_shape("logits_processor", scores, given)
        scores = logits.restrict(scores, which)
        check_processed(scores)
        return scores, text
