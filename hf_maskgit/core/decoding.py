"""The decoding loop: reveal masks pass by pass, asking a callable for logits.

`fill_masks` is the loop and `reveal_step` one pass, a pure function; neither knows a model.

Letters: B rows, R rows still being decoded, L length, V vocabulary, S steps, N masked positions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import torch
from torch import Tensor

from .losses import forbid
from .noise import keyed_generator
from .sampler import BLIND_ORDERS, COMPETING, REMDM, Sampler
from .sampler_paces import (
    mask_rates_by_blocks,
    remaining_by_blocks,
    reveal_probability,
    within_entropy_budget,
    within_factor,
    within_threshold,
)
from .sampler_remasks import by_confidence, capped, loop_mask_rates, rescaled
from .sampler_scores import (
    POSITION_SCORES,
    draw,
    gumbel,
    highest,
    log_probability,
    negative_entropy,
)

# logits_fn(rows (R,), text (R, L), positions (R, L) bool) -> (N, V): the denoiser's logits at the
# given positions, in row-major order, of the given rows of the batch.
LogitsFn = Callable[[Tensor, Tensor, Tensor], Tensor]
# The same for a critic: (N,) log-odds that the token at each position is right.
CriticFn = Callable[[Tensor, Tensor, Tensor], Tensor]
# Looks at the rows (B, L) after each pass and may return them changed.
StepCallback = Callable[[int, "DecodingState"], "DecodingState | None"]
# Tells which rows (R,) need no further pass, given their indices and the state of these rows.
StopFn = Callable[[Tensor, "DecodingState"], Tensor]


@dataclass(frozen=True)
class DecodingState:
    """Rows in the middle of decoding.

    Attributes:
        text: (R, L) long, rows packed to right padding.
        masked: (R, L) bool, positions still to reveal.
        can_end: (R, L) bool, positions where an end of text may stand.
        block: (R, L) long, which block a position belongs to, from 0; -1 where it is known and
            never changes.
        log_probabilities: (R, L) float, of each revealed token when it was revealed, under the
            denoiser's law without temperature and filters; 0 elsewhere. Kept when asked for.
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
        """Make the state before the first pass; masks are counted into blocks from the left."""
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
        """First block of each row that has masks left, (R, 1) long."""
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
        return replace(
            self,
            text=self.text.index_copy(0, index, rows.text),
            masked=self.masked.index_copy(0, index, rows.masked),
            log_probabilities=self.log_probabilities.index_copy(0, index, rows.log_probabilities),
        )

    def reveal(
        self, positions: Tensor, tokens: Tensor, log_probabilities: Tensor | None
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
        heat: (R,) float64, scale of the temperatures, 1 falling to 0.
        masked: (R,) long, masks of the whole row before the pass.
        remaining: (R,) long, the same after it, where the pace counts them, else 0.
        reveal_rate: (R, 1) float64, probability of being revealed where coins are flipped, else 0.
        remask_rate: (R, 1) or (R, L) float64, the same for being masked again, else 0.
        block: (R, 1) long, the block that is worked on.
    """

    heat: Tensor
    masked: Tensor
    remaining: Tensor
    reveal_rate: Tensor
    remask_rate: Tensor
    block: Tensor


class Filled(NamedTuple):
    """A decoded batch.

    Attributes:
        text: (B, L) long. Masks are left only in rows that were stopped.
        passes: (B,) long, passes of the denoiser in which each row took part.
        critic_passes: (B,) long, passes of the critic likewise.
        reveal_steps: (B, L) long, the pass that revealed the token that stands there, from 0; -1
            where it was known or is still masked.
        log_probabilities: (B, L) float, see `DecodingState`.
    """

    text: Tensor
    passes: Tensor
    critic_passes: Tensor
    reveal_steps: Tensor
    log_probabilities: Tensor


class Planner:
    """Tells for every pass what the pace asks; fixed when decoding starts.

    Args:
        state: all rows before the first pass.
        sampler: pace, steps, schedule, blocks.
    """

    def __init__(self, state: DecodingState, sampler: Sampler) -> None:
        self._sampler = sampler
        self._total = state.masked.sum(1)  # (B,)
        by_blocks = (self._total, sampler.steps, sampler.schedule, sampler.block_length)
        if sampler.pace == "schedule":
            reveals = sampler.remask not in COMPETING  # further passes then correct
            self._remaining = remaining_by_blocks(*by_blocks, every_step_reveals=reveals)  # (S, B)
        elif sampler.remask == "remdm_loop":
            before, after, self._looping = loop_mask_rates(
                sampler.steps,
                sampler.schedule,
                sampler.remdm_t_on,
                sampler.remdm_t_off,
                sampler.remdm_alpha_on,
            )
            everyone = (sampler.steps, len(self._total))
            self._before = before[:, None].expand(everyone).to(self._total.device)
            self._after = after[:, None].expand(everyone).to(self._total.device)
            self._block = self._total.new_zeros(everyone)
        elif sampler.pace == "ancestral":
            self._block, self._before, self._after = mask_rates_by_blocks(*by_blocks)

    def unfinished(self, state: DecodingState, step: int) -> Tensor:
        """Tell which rows (B,) this pass still has work for."""
        unfinished = state.masked.any(1)
        if self._sampler.remask in REMDM:  # a row without masks may get some again
            unfinished |= (self._total > 0) & (step < self._sampler.steps)
        return unfinished

    def plan(self, state: DecodingState, rows: Tensor, step: int) -> Pass:
        """Return what is asked of these rows, (R,) long, in the pass after `step` others."""
        sampler = self._sampler
        masked = state.masked.sum(1)
        left = (masked - 1).clamp_min(0).double() / self._total[rows].clamp_min(1)
        heat = sampler.heat(step, left)
        nothing = torch.zeros(len(rows), 1, dtype=torch.float64, device=rows.device)
        none_left = torch.zeros_like(rows)
        if sampler.goes_by_steps and step >= sampler.steps:
            # Only a callback leaves masks behind the last step: they go now, block by block.
            return Pass(heat, masked, none_left, nothing + 1, nothing, state.active_block)
        if sampler.pace == "schedule":
            remaining = self._remaining[step, rows]
            return Pass(heat, masked, remaining, nothing, nothing, state.active_block)
        if sampler.pace != "ancestral":
            return Pass(heat, masked, none_left, nothing, nothing, state.active_block)
        before = self._before[step, rows][:, None]
        after = self._after[step, rows][:, None]
        block = self._block[step, rows][:, None]
        remask_rate, pressure = nothing, nothing
        if sampler.remask == "remdm_cap":
            remask_rate = pressure = capped(before, after, sampler.remdm_eta)
        elif sampler.remask == "remdm_rescale":
            remask_rate = pressure = rescaled(before, after, sampler.remdm_eta)
        elif sampler.remask == "remdm_loop" and bool(self._looping[step]):
            remask_rate = pressure = capped(before, after, sampler.remdm_eta)
        elif sampler.remask == "remdm_conf":
            # Only revealed tokens have a rate of their own, so masks are revealed as without it.
            here = state.revealed & (state.block == block)
            remask_rate = by_confidence(before, after, state.log_probabilities, here)
        reveal_rate = reveal_probability(before, after, pressure)
        return Pass(heat, masked, none_left, reveal_rate, remask_rate, block)


def fill_masks(
    logits_fn: LogitsFn,
    state: DecodingState,
    lengths: Tensor,
    sampler: Sampler,
    seeds: Sequence[int],
    *,
    critic_fn: CriticFn | None = None,
    stop_fn: StopFn | None = None,
    on_step_end: StepCallback | None = None,
) -> Filled:
    """Reveal every masked position.

    Args:
        logits_fn: the denoiser, see `LogitsFn`.
        state: the B rows before decoding.
        lengths: (B,) long, tokens of each row that are not padding.
        sampler: order, pace, remasking, temperatures.
        seeds: one per row; a row's result depends on its own text and seed alone.
        critic_fn: the critic, where the sampler asks one.
        stop_fn: which rows need no further pass although they hold masks.
        on_step_end: called after every pass with its number, from 0, and all rows.
    """
    planner = Planner(state, sampler)
    meter = _Meter(logits_fn, critic_fn, lengths)
    reveal_steps = torch.full_like(state.text, -1)
    stopped = torch.zeros_like(state.masked[:, 0])
    step = 0
    while True:
        rows = (planner.unfinished(state, step) & ~stopped).nonzero().squeeze(1)
        if len(rows) == 0:  # finished rows cost nothing
            break
        current = state.rows(rows)
        after = reveal_step(
            meter.logits,
            rows,
            current,
            planner.plan(current, rows, step),
            row_uniforms(seeds, lengths, rows, step, state.text.shape[1]),
            sampler,
            meter.scores,
        )
        state = state.with_rows(rows, after)
        if on_step_end is not None:
            state = on_step_end(step, state) or state
        newly = torch.zeros_like(state.masked)
        newly[rows] = current.masked
        reveal_steps[newly & ~state.masked] = step
        reveal_steps[state.masked] = -1
        if stop_fn is not None:
            stopped[rows] = stop_fn(rows, state.rows(rows))
        step += 1
    return Filled(
        state.text, meter.passes, meter.critic_passes, reveal_steps, state.log_probabilities
    )


class _Meter:
    """Asks denoiser and critic, of the rows that have a position to look at alone, and counts."""

    def __init__(self, logits_fn: LogitsFn, critic_fn: CriticFn | None, lengths: Tensor) -> None:
        self._logits_fn, self._critic_fn = logits_fn, critic_fn
        self.passes, self.critic_passes = torch.zeros_like(lengths), torch.zeros_like(lengths)

    def logits(self, rows: Tensor, text: Tensor, positions: Tensor) -> Tensor:
        busy = positions.any(1)
        self.passes[rows[busy]] += 1
        return self._logits_fn(rows[busy], text[busy], positions[busy])

    def scores(self, rows: Tensor, text: Tensor, positions: Tensor) -> Tensor:
        busy = positions.any(1)
        self.critic_passes[rows[busy]] += 1
        return cast(CriticFn, self._critic_fn)(rows[busy], text[busy], positions[busy])


def reveal_step(
    logits_fn: LogitsFn,
    rows: Tensor,
    state: DecodingState,
    plan: Pass,
    uniforms: Tensor,
    sampler: Sampler,
    critic_fn: CriticFn | None = None,
) -> DecodingState:
    """Make one pass: choose masked positions of each row and reveal them, perhaps remask others.

    Orders differ in when the choice is made. `random` and `left_to_right` choose before the pass,
    so that logits are computed only where a token is drawn; scores of a position after the pass and
    before drawing; `confidence` and `critic` after drawing a token everywhere.

    Args:
        logits_fn: the denoiser, see `LogitsFn`.
        rows: (R,) long, indices of the rows, as `logits_fn` knows them.
        state: the rows before the pass.
        plan: what the pace asks of this pass.
        uniforms: (R, L, 2) float64 in [0, 1), per position: one to draw with, one for the order of
            masks or the remasking of tokens.
        sampler: order, pace, remasking, temperatures.
        critic_fn: the critic, where the sampler asks one.

    Returns:
        The rows after the pass.
    """
    to_draw, to_order = uniforms[..., 0], uniforms[..., 1]
    here = state.block == plan.block  # (R, L)

    def law(positions: Tensor) -> Tensor:
        """Return the logits (N, V) of the law: without ids that cannot be emitted."""
        return _restrict(logits_fn(rows, state.text, positions), state, positions, sampler)

    def tokens(logits: Tensor, positions: Tensor) -> Tensor:
        return _draw_tokens(logits, state, positions, to_draw[positions], sampler, plan)

    def critic(drawn: Tensor, positions: Tensor) -> Tensor:
        """Score the positions (N,) of the text as it is when `drawn` stands at every mask."""
        text = state.text.masked_scatter(state.masked, drawn)
        return cast(CriticFn, critic_fn)(rows, text, positions)

    if sampler.remask in COMPETING:
        return _compete(law, tokens, critic, state, plan, to_order, sampler)
    candidates = state.masked & here
    if sampler.order in BLIND_ORDERS:
        chosen = _choose_blindly(candidates, plan, to_order, sampler)
        after = state
        if bool(chosen.any()):
            logits = law(chosen)
            after = _commit(state, chosen, logits, tokens(logits, chosen), sampler)
    elif sampler.order == "critic":
        logits = law(state.masked)
        drawn = tokens(logits, state.masked)
        chosen = _choose(critic(drawn, candidates), None, candidates, plan, to_order, sampler)
        taken = chosen[state.masked]
        after = _commit(state, chosen, logits[taken], drawn[taken], sampler)
    else:
        logits = law(candidates)
        if sampler.order == "confidence":
            everywhere = tokens(logits, candidates)
            scores = log_probability(logits, everywhere)
        else:
            scores = POSITION_SCORES[sampler.order](logits)
        chosen = _choose(scores, logits, candidates, plan, to_order, sampler)
        taken = chosen[candidates]
        logits = logits[taken]
        drawn = everywhere[taken] if sampler.order == "confidence" else tokens(logits, chosen)
        after = _commit(state, chosen, logits, drawn, sampler)
    if sampler.remask in REMDM:
        # Only what stood there before this pass; what it revealed stays for now. Its coin is its
        # own: where a token stands, the order has no use for one.
        back = state.revealed & here & (to_order < plan.remask_rate)
        after = after.remask(back, sampler.mask_token_id)
    return after


def row_uniforms(
    seeds: Sequence[int], lengths: Tensor, rows: Tensor, step: int, width: int
) -> Tensor:
    """Draw the noise of one pass, (R, L, 2) float64 in [0, 1), each row from a stream of its own.

    Keyed by (row seed, pass) and as long as the row alone, so that neither the other rows of the
    batch nor its padding change it.
    """
    noise = torch.zeros(len(rows), width, 2, dtype=torch.float64)
    row_lengths = lengths.tolist()
    for i, row in enumerate(rows.tolist()):
        generator = keyed_generator(seeds[row], step)
        length = row_lengths[row]
        noise[i, :length] = torch.rand(length, 2, generator=generator, dtype=torch.float64)
    return noise.to(rows.device)


def _compete(
    law: Callable[[Tensor], Tensor],
    tokens: Callable[[Tensor, Tensor], Tensor],
    critic: Callable[[Tensor, Tensor], Tensor],
    state: DecodingState,
    plan: Pass,
    uniforms: Tensor,
    sampler: Sampler,
) -> DecodingState:
    """Let masks and revealed tokens of the block compete; the worst `remaining` are masked.

    A mask is scored by the order, a revealed token by the token that stands there: P2
    (arXiv 2502.03540) with a planner and `p2_eta` on the revealed ones; with eta = 1 it is the
    ancestor's `can_mask_prev_unmasked` or Token-Critic (arXiv 2209.04439).
    """
    arena = state.block == plan.block
    drawn = None
    if sampler.order == "critic":
        logits = law(state.masked)
        drawn = tokens(logits, state.masked)
        scores = critic(drawn, arena)
        if sampler.remask == "p2":
            scores = torch.nn.functional.logsigmoid(scores)  # P2 scales log-probabilities
    else:
        logits_of_all = law(arena)
        is_mask = state.masked[arena]
        logits = logits_of_all[is_mask]
        if sampler.order == "confidence":
            drawn = tokens(logits, state.masked & arena)
            of_masks = log_probability(logits, drawn)
        else:
            of_masks = POSITION_SCORES[sampler.order](logits)
        # At a mask, the id that stands there is the mask itself: overwritten in the next line.
        scores = log_probability(logits_of_all, state.text[arena])
        scores = scores.masked_scatter(is_mask, of_masks)
    if sampler.remask == "p2":
        scores = torch.where(state.masked[arena], scores, sampler.p2_eta * scores)
    field_of_scores = _field(scores, arena, plan, uniforms, sampler)
    left_here = plan.remaining - (state.masked & ~arena).sum(1)
    keep = highest(field_of_scores, arena, arena.sum(1) - left_here)
    chosen = keep & state.masked
    base = state.masked if sampler.order == "critic" else state.masked & arena
    taken = chosen[base]
    logits = logits[taken]
    drawn = tokens(logits, chosen) if drawn is None else drawn[taken]
    after = _commit(state, chosen, logits, drawn, sampler)
    return after.remask(arena & state.revealed & ~keep, sampler.mask_token_id)


def _commit(
    state: DecodingState, chosen: Tensor, logits: Tensor, drawn: Tensor, sampler: Sampler
) -> DecodingState:
    kept = log_probability(logits, drawn) if sampler.needs_probabilities else None
    return state.reveal(chosen, drawn, kept)


def _choose_blindly(candidates: Tensor, plan: Pass, uniforms: Tensor, sampler: Sampler) -> Tensor:
    """Mark positions (R, L) bool without a look at the logits."""
    if sampler.pace == "ancestral":
        return candidates & (uniforms < plan.reveal_rate)
    if sampler.order == "left_to_right":
        place = torch.arange(candidates.shape[1], device=candidates.device, dtype=uniforms.dtype)
        uniforms = -place.expand_as(uniforms)
    return highest(uniforms, candidates, _counts(plan, sampler))


def _choose(
    scores: Tensor,
    logits: Tensor | None,
    candidates: Tensor,
    plan: Pass,
    uniforms: Tensor,
    sampler: Sampler,
) -> Tensor:
    """Mark the positions (R, L) bool that scores (N,) and pace agree on."""
    placed = _field(scores, candidates, plan, uniforms, sampler)
    if sampler.pace == "threshold":
        if sampler.threshold_factor is not None:
            return within_factor(placed, candidates, sampler.threshold_factor)
        return within_threshold(placed, candidates, sampler.confidence_threshold)
    if sampler.pace == "entropy_bound":
        entropies = -placed
        if sampler.order != "entropy":  # whose scores they are already
            entropies = torch.zeros_like(placed)
            entropies[candidates] = -negative_entropy(cast(Tensor, logits))
        return within_entropy_budget(placed, entropies, candidates, sampler.entropy_budget)
    return highest(placed, candidates, _counts(plan, sampler))


def _counts(plan: Pass, sampler: Sampler) -> Tensor:
    """Count the positions (R,) to reveal: one, or what brings the row to its plan."""
    one = torch.ones_like(plan.remaining)
    if sampler.pace == "first_hitting":
        return one
    return torch.maximum(plan.masked - plan.remaining, one)


def _field(
    scores: Tensor, positions: Tensor, plan: Pass, uniforms: Tensor, sampler: Sampler
) -> Tensor:
    """Put scores (N,) in their places (R, L), Gumbel noise added."""
    critical = sampler.order == "critic"
    noise_scale = sampler.noise_level_scale if critical else sampler.choice_temperature
    if noise_scale and sampler.do_sample:
        scale = noise_scale * plan.heat[positions.nonzero()[:, 0]]
        scores = scores + (scale * gumbel(uniforms[positions])).to(scores.dtype)
    placed = torch.zeros(positions.shape, dtype=scores.dtype, device=scores.device)
    return placed.masked_scatter(positions, scores)


def _restrict(logits: Tensor, state: DecodingState, positions: Tensor, sampler: Sampler) -> Tensor:
    """Return (N, V) logits with -inf at what cannot be emitted at these positions."""
    logits = forbid(logits, sampler.suppressed)
    inside = (~state.can_end[positions]).nonzero()  # (I, 1)
    logits[inside, sampler.end_ids] = -torch.inf
    if state.allowed is not None:
        table = cast(Tensor, state.allowed_table)
        logits = logits.masked_fill(~table[state.allowed[positions]], -torch.inf)
    return logits


def _draw_tokens(
    logits: Tensor,
    state: DecodingState,
    positions: Tensor,
    uniforms: Tensor,
    sampler: Sampler,
    plan: Pass,
) -> Tensor:
    """Draw one token at each position, (N, V) -> (N,) long."""
    rows = positions.nonzero()[:, 0]  # (N,)
    text = cast(torch.LongTensor, state.text[rows] if sampler.changes_scores else rows)  # (N, L)
    if sampler.processors:
        # A processor may edit in place, and may bring back what the law excludes.
        processed = sampler.processors(text, cast(torch.FloatTensor, logits.clone()))
        logits = _restrict(processed, state, positions, sampler)
        if not bool((logits > -torch.inf).any(-1).all()):
            raise ValueError(
                "`logits_processor` leaves nothing to emit at a position: every id that may stand "
                "there has the score -inf; let it keep one."
            )
    if not sampler.do_sample:
        return logits.argmax(-1)
    heat = plan.heat[rows] if sampler.anneal_temperature else torch.ones_like(uniforms)
    temperature = (sampler.temperature * heat).to(logits.dtype)
    cold = temperature == 0
    if bool(cold.all()):
        return logits.argmax(-1)
    warm = logits / torch.where(cold, 1, temperature)[:, None]
    if sampler.warpers:
        warm = sampler.warpers(text, cast(torch.FloatTensor, warm))
    drawn = draw(warm, uniforms)
    return torch.where(cold, logits.argmax(-1), drawn) if bool(cold.any()) else drawn
