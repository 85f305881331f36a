"""One pass as its rules see it: the rows, what is asked, and what may be asked of the networks.

Letters: R rows still being decoded, L length, V vocabulary, N positions.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from .decoding_state import DecodingState, Pass
from .finite import check_critic_scores, check_processed, check_same_shape
from .pattern_pass import Conditioned, PatternLaw
from .pattern_reading import Warp
from .pattern_rows import Outlook
from .position_logits import LateLogits, PositionLogits
from .sampler import Sampler
from .sampler_scores import Distribution, draw, likeliest

# logits_fn(rows (R,), text (R, L), positions (R, L) bool) -> (N, V): the denoiser's logits at the
# given positions, in row-major order, of the given rows of the batch; computed, or still to be.
LogitsFn = Callable[[Tensor, Tensor, Tensor], Tensor | LateLogits]
# The same for a critic: (N,) log-odds that the token at each position is right.
CriticFn = Callable[[Tensor, Tensor, Tensor], Tensor]


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
        outlook: of rows with patterns, where it is known.
    """

    logits_fn: LogitsFn
    rows: Tensor
    state: DecodingState
    asked: Pass
    uniforms: Tensor
    sampler: Sampler
    critic_fn: CriticFn | None = None
    tokens_compete: bool = False
    outlook: Outlook | None = None

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
        return replace(
            self,
            rows=self.rows[index],
            state=state,
            asked=asked,
            uniforms=uniforms,
            outlook=None,
        )

    def with_outlook(self) -> "Turn":
        """Return the same pass, with what is known of rows with patterns beforehand."""
        if self.state.patterns is None or self.outlook is not None:
            return self
        return replace(self, outlook=self._outlook(torch.zeros_like(self.here)))

    def _outlook(self, positions: Tensor) -> Outlook:
        state = self.state
        assert state.patterns is not None
        up_to = state.block <= self.asked.block
        if self.outlook is not None and not bool((positions & ~up_to).any()):
            return self.outlook
        return state.patterns.outlook(state.text, state.masked, ~(up_to | positions))

    def with_needed(self, positions: Tensor) -> Tensor:
        """Add to positions (R, L) bool the masks whose logits a pattern's law needs besides."""
        if self.state.patterns is None:
            return positions
        return positions | self._needed(positions, self._outlook(positions))

    def _needed(self, positions: Tensor, outlook: Outlook) -> Tensor:
        state = self.state
        assert state.patterns is not None
        # What processors make of a place is not known before it is seen.
        span = state.patterns.span & (state.block <= self.asked.block) & state.masked
        needed = span if self.sampler.changes_scores else outlook.apart
        return needed & positions.any(1, keepdim=True)  # a row that is not asked costs nothing

    def logits(self, positions: Tensor, kept: bool = False, scored: bool = True) -> PositionLogits:
        """Ask the denoiser for its logits (N, V) at positions (R, L) bool.

        Rows with a pattern are asked besides for all masks that have a say in its law.

        Args:
            positions: where.
            kept: compute all now, for many readings.
            scored: probabilities are asked for, besides tokens at the temperature of the pass.
        """
        state, sampler, asked = self.state, self.sampler, positions
        if state.patterns is not None:
            outlook = self._outlook(positions)
            asked = positions | self._needed(positions, outlook)
        found = self.logits_fn(self.rows, state.text, asked)
        if state.patterns is not None and isinstance(found, LateLogits):
            # What was read once is read no more, but for the tokens that are drawn.
            kept = kept or (len(found) <= found.rows and not outlook.readings)
        logits = PositionLogits(
            found,
            sampler.suppressed,
            sampler.end_ids,
            state.can_end[asked],
            None if state.allowed is None else state.allowed[asked],
            state.allowed_table,
            # what a processor or warper of the user's makes of a part may differ
            whole=sampler.changes_scores,
            kept=kept,
        )
        if state.patterns is None:
            return logits
        temperature = None
        if scored and not sampler.processors:
            temperature = self.temperature_at(self.asked.temperature_scale)[asked.nonzero()[:, 0]]
            temperature = temperature.where(temperature > 0, 1.0)
            temperature = None if bool((temperature == 1).all()) else temperature
        law = PatternLaw(state.patterns, logits, asked, state.masked, outlook, temperature)
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
        law, weights = logits.condition, after.log_weights
        if weights is None:
            return after
        added = torch.zeros_like(weights)  # of rows that are free of them all
        if isinstance(law, PatternLaw):
            added = law.log_weights(chosen, after.text).to(chosen.device)
        added = added if exact else torch.full_like(added, torch.nan)
        return replace(after, log_weights=weights + added)

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
            is_all = len(rows) == len(places)
            part = self if is_all else self.of_texts(rows, self.state.rows(rows))
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
            given = block.given if isinstance(block, Conditioned) else law.logits.at(index)
            scores = scores_of(given, index)
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
