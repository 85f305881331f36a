"""The decoding loop: reveal masks pass by pass, asking a callable for logits.

`fill_masks` is the loop and `reveal_step` one pass, a pure function; neither knows a model.

Letters: B rows, R rows still being decoded, L length, V vocabulary, S steps, N masked positions.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, cast

import torch
from torch import Tensor
from transformers import LogitsProcessorList

from .losses import forbid
from .noise import keyed_generator
from .sampling import (
    POSITION_SCORES,
    annealing,
    draw,
    drawn_log_probability,
    gumbel,
    highest,
    remaining_counts,
)
from .schedules import Schedule

# logits_fn(rows (R,), text (R, L), positions (R, L) bool) -> (N, V): the denoiser's logits at the
# given positions, in row-major order, of the given rows of the batch.
LogitsFn = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Sampler:
    """The choices of one decoding, every field resolved.

    Attributes:
        steps: S, passes at most.
        schedule: how much is left masked after each of them.
        order: which positions go first, one of `ORDERS`.
        do_sample: draw tokens; False takes the likeliest.
        temperature: divides the logits before a token is drawn.
        anneal_temperature: scale it down to 0 over the steps.
        choice_temperature: scale of the Gumbel noise on the order, annealed likewise.
        processors: change the scores (N, V) of the positions about to be drawn, given their rows'
            text (N, L); applied before the temperature.
        warpers: the same, applied after it.
        suppressed: (K,) long, ids that are never emitted.
        end_ids: (E,) long, ids that end a text; emitted only where nothing known stands behind.
    """

    steps: int
    schedule: Schedule
    suppressed: Tensor
    end_ids: Tensor
    order: str = "top_probability"
    do_sample: bool = True
    temperature: float = 1.0
    anneal_temperature: bool = True
    choice_temperature: float = 0.0
    processors: LogitsProcessorList = field(default_factory=LogitsProcessorList)
    warpers: LogitsProcessorList = field(default_factory=LogitsProcessorList)

    def temperature_at(self, step: int) -> float:
        """Return the temperature of a step; 0 means the likeliest token."""
        if not self.do_sample:
            return 0.0
        return self.temperature * (annealing(step, self.steps) if self.anneal_temperature else 1.0)


@dataclass(frozen=True)
class DecodingState:
    """Rows in the middle of decoding.

    Attributes:
        text: (R, L) long, rows packed to right padding.
        masked: (R, L) bool, positions still to reveal; all others never change.
        can_end: (R, L) bool, positions where an end of text may stand.
    """

    text: Tensor
    masked: Tensor
    can_end: Tensor


class Filled(NamedTuple):
    """A decoded batch.

    Attributes:
        text: (B, L) long, without masks.
        passes: (B,) long, passes in which each row took part.
        reveal_steps: (B, L) long, the pass that revealed a position, from 0; -1 where it was known.
    """

    text: Tensor
    passes: Tensor
    reveal_steps: Tensor


def fill_masks(
    logits_fn: LogitsFn,
    state: DecodingState,
    lengths: Tensor,
    sampler: Sampler,
    seeds: Sequence[int],
) -> Filled:
    """Reveal every masked position.

    Args:
        logits_fn: the denoiser, see `LogitsFn`.
        state: the B rows before decoding.
        lengths: (B,) long, tokens of each row that are not padding.
        sampler: order, schedule, temperatures.
        seeds: one per row; a row's result depends on its own text and seed alone.
    """
    text, masked = state.text, state.masked
    passes = torch.zeros_like(lengths)
    reveal_steps = torch.full_like(text, -1)
    times = 1 - torch.arange(1, sampler.steps + 1, dtype=torch.float64) / sampler.steps
    rates = sampler.schedule.mask_rate(times).to(text.device)
    remaining = remaining_counts(masked.sum(1), rates)  # (S, B)
    for step in range(sampler.steps):
        rows = masked.any(1).nonzero().squeeze(1)  # finished rows cost nothing
        if len(rows) == 0:
            break
        current = DecodingState(text[rows], masked[rows], state.can_end[rows])
        revealed = reveal_step(
            functools.partial(logits_fn, rows),
            current,
            current.masked.sum(1) - remaining[step, rows],
            row_uniforms(seeds, lengths, rows, step, text.shape[1]),
            sampler,
            step,
        )
        text = text.index_copy(0, rows, revealed.text)
        still_masked = masked.index_copy(0, rows, revealed.masked)
        reveal_steps[masked & ~still_masked] = step
        masked = still_masked
        passes[rows] += 1
    return Filled(text, passes, reveal_steps)


def reveal_step(
    logits_fn: Callable[[Tensor, Tensor], Tensor],
    state: DecodingState,
    counts: Tensor,
    uniforms: Tensor,
    sampler: Sampler,
    step: int,
) -> DecodingState:
    """Make one pass: choose `counts` masked positions of each row and reveal them.

    The three kinds of order differ in when the choice is made. `random` chooses before the pass,
    so that logits are computed only where a token is drawn; `top_probability` after the pass and
    before drawing; `confidence` after drawing a token everywhere.

    Args:
        logits_fn: the denoiser for these rows, (text (R, L), positions (R, L) bool) -> (N, V).
        state: the rows before the pass.
        counts: (R,) long, positions to reveal, at least 1 where a row has masks.
        uniforms: (R, L, 2) float64 in [0, 1): one to draw with and one for the order, per position.
        sampler: order and temperatures.
        step: passes done before this one.

    Returns:
        The rows after the pass.
    """
    to_draw, to_order = uniforms.unbind(-1)

    def law(positions: Tensor) -> Tensor:
        """Return the logits (N, V) of the law: without ids that cannot be emitted."""
        return _suppress(logits_fn(state.text, positions), state, positions, sampler)

    def tokens(logits: Tensor, positions: Tensor) -> Tensor:
        return _draw_tokens(logits, state, positions, to_draw[positions], sampler, step)

    if sampler.order == "random":
        chosen = highest(to_order, state.masked, counts)
        text = state.text.masked_scatter(chosen, tokens(law(chosen), chosen))
        return replace(state, text=text, masked=state.masked & ~chosen)

    logits = law(state.masked)
    if sampler.order in POSITION_SCORES:
        chosen = _choose(
            POSITION_SCORES[sampler.order](logits), state, counts, to_order, sampler, step
        )
        drawn = tokens(logits[chosen[state.masked]], chosen)
    else:
        everywhere = tokens(logits, state.masked)
        scores = drawn_log_probability(logits, everywhere)
        chosen = _choose(scores, state, counts, to_order, sampler, step)
        drawn = everywhere[chosen[state.masked]]
    text = state.text.masked_scatter(chosen, drawn)
    return replace(state, text=text, masked=state.masked & ~chosen)


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


def _choose(
    scores: Tensor,
    state: DecodingState,
    counts: Tensor,
    uniforms: Tensor,
    sampler: Sampler,
    step: int,
) -> Tensor:
    """Mark the best-scored masked positions, Gumbel noise added; scores (N,) -> (R, L) bool."""
    if sampler.choice_temperature:
        scale = sampler.choice_temperature * annealing(step, sampler.steps)
        scores = scores + scale * gumbel(uniforms[state.masked]).to(scores.dtype)
    field_of_scores = torch.zeros(state.text.shape, dtype=scores.dtype, device=scores.device)
    return highest(field_of_scores.masked_scatter(state.masked, scores), state.masked, counts)


def _suppress(logits: Tensor, state: DecodingState, positions: Tensor, sampler: Sampler) -> Tensor:
    """Return (N, V) logits with -inf at what cannot be emitted at these positions."""
    logits = forbid(logits, sampler.suppressed)
    inside = (~state.can_end[positions]).nonzero()  # (I, 1)
    logits[inside, sampler.end_ids] = -torch.inf
    return logits


def _draw_tokens(
    logits: Tensor,
    state: DecodingState,
    positions: Tensor,
    uniforms: Tensor,
    sampler: Sampler,
    step: int,
) -> Tensor:
    """Draw one token at each position, (N, V) -> (N,) long."""
    if sampler.processors or sampler.warpers:
        text = cast(torch.LongTensor, state.text[positions.nonzero()[:, 0]])  # (N, L)
    if sampler.processors:
        # A processor may edit in place, and may bring back what the law excludes.
        processed = sampler.processors(text, cast(torch.FloatTensor, logits.clone()))
        logits = _suppress(processed, state, positions, sampler)
    temperature = sampler.temperature_at(step)
    if temperature == 0:
        return logits.argmax(-1)
    logits = logits / temperature
    if sampler.warpers:
        logits = sampler.warpers(text, cast(torch.FloatTensor, logits))
    return draw(logits, uniforms)
