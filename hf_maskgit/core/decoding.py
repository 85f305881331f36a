"""The decoding loop, and one pass of it in five sentences; neither knows a model.

`fill_masks` reveals masks pass by pass, asking a callable for logits; `reveal_step` is one pass, a
pure function of the rows and of the uniforms it is given.

Letters: B rows, R rows still being decoded, L length, V vocabulary, S steps, N masked positions.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor

from .decoding_noise import RowNoise
from .decoding_state import DecodingState, Pass
from .decoding_turn import CriticFn, LogitsFn, Turn
from .noise import signed
from .position_logits import LateLogits
from .sampler import Sampler
from .sampler_contenders import Contenders, noise_of
from .sampler_orders import Look
from .sampler_paces import annealing, annealing_by_reveals, reveal_probability
from .sampler_rules import Rules, Timetable, rules_of
from .sampler_scores import Distribution, likeliest_tokens, log_probability

# Looks at the rows (B, L) after each pass and may return them changed.
StepCallback = Callable[[int, DecodingState], DecodingState | None]
# Makes one pass of some rows, see `reveal_step`, or lets somebody make it with others.
StepFn = Callable[..., DecodingState]
# Tells which rows (R,) need no further pass, given their indices and the state of these rows.
StopFn = Callable[[Tensor, DecodingState], Tensor]


class Filled(NamedTuple):
    """A decoded batch.

    Attributes:
        text: (B, L) long. Masks are left only in rows that were stopped.
        passes: (B,) long, passes of the denoiser in which each row took part.
        pass_rows: (B,) long, rows of these passes that were texts of it; as many as passes, but
            where a pace asks for several texts of a row in one.
        critic_passes: (B,) long, passes of the critic likewise.
        reveal_steps: (B, L) long, the step that revealed the token that stands there, from 0; -1
            where it was known or is still masked. A step is a pass, but where a pace makes more.
        log_probabilities: (B, L) float, see `DecodingState`.
        log_weights: (B,) float64 with patterns, else None; see `MaskGitGenerationOutput`.
        alternatives: (B, L, K, 2) float64 where they are kept, else None; see `DecodingState`.
    """

    text: Tensor
    passes: Tensor
    pass_rows: Tensor
    critic_passes: Tensor
    reveal_steps: Tensor
    log_probabilities: Tensor
    log_weights: Tensor | None = None
    alternatives: Tensor | None = None


class Planner:
    """Tells for every pass what the pace asks; fixed when decoding starts.

    Args:
        state: all rows before the first pass.
        sampler: pace, steps, schedule, blocks.
    """

    def __init__(self, state: DecodingState, sampler: Sampler) -> None:
        self._sampler, self._rules = sampler, rules_of(sampler)
        self._total = state.masked.sum(1)  # (B,)
        self._table = self._timetable()

    def _timetable(self) -> Timetable:
        pace, remask = self._rules.pace, self._rules.remask
        if remask.plan is not None:
            return remask.plan(self._sampler, self._total)
        return pace.plan(self._sampler, self._total)

    def unfinished(self, state: DecodingState, step: int) -> Tensor:
        """Tell which rows (B,) this pass still has work for."""
        unfinished = state.masked.any(1)
        if self._rules.remask.rate is not None:  # a row without masks may get some again
            unfinished |= (self._total > 0) & (step < self._sampler.steps)
        return unfinished

    def plan(
        self, state: DecodingState, rows: Tensor, step: int, last_revealed: Tensor | None = None
    ) -> Pass:
        """Return what is asked of some rows in the pass after `step` others.

        Args:
            state: the rows as they are.
            rows: (R,) long, which they are.
            step: passes before this one.
            last_revealed: (R,) long, tokens that each row's pass before revealed; None for none.
        """
        table = self._table
        zero = torch.zeros(len(rows), 1, dtype=torch.float64, device=rows.device)
        asked = Pass(
            temperature_scale=self._temperature_scale(state, rows, step),
            remaining=torch.zeros_like(rows),
            reveal_rate=zero,
            remask_rate=zero,
            block=state.active_block,
            last_revealed=torch.zeros_like(rows) if last_revealed is None else last_revealed,
        )
        if self._rules.pace.by_steps and step >= self._sampler.steps:
            # Only a callback leaves masks behind the last pass: they go now, block by block.
            return asked._replace(reveal_rate=zero + 1)
        if table.remaining is not None:
            # Behind its last row, of zeros, only a callback leaves masks.
            planned = min(step, len(table.remaining) - 1)
            return asked._replace(remaining=table.remaining[planned, rows])
        if table.before is None:
            return asked
        before, after, block = (
            cast(Tensor, t)[step, rows][:, None] for t in (table.before, table.after, table.block)
        )
        rate = zero
        remask = self._rules.remask
        if remask.rate is not None and (table.remasks is None or bool(table.remasks[step])):
            tokens = state.revealed & (state.block == block)
            rate = remask.rate(self._sampler, before, after, state, tokens)
        reveal_rate = reveal_probability(before, after, rate if remask.makes_up else zero)
        return asked._replace(reveal_rate=reveal_rate, remask_rate=rate, block=block)

    def _temperature_scale(self, state: DecodingState, rows: Tensor, step: int) -> Tensor:
        """Return (R,) float64 falling to 0: the share of steps, or of masks, still to come."""
        # How many passes it takes may not be known beforehand; each reveals one mask at least.
        by_reveals = annealing_by_reveals(state.masked.sum(1), self._total[rows])
        if self._rules.pace.by_steps:
            by_steps = max(annealing(step, self._sampler.steps), 0.0)
            return torch.full_like(by_reveals, by_steps)
        return by_reveals


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
    step_fn: StepFn | None = None,
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
        step_fn: makes a pass in place of `reveal_step`, whose arguments it gets.
    """
    keys = torch.tensor([signed(seed) for seed in seeds], device=state.text.device)
    planner = Planner(state, sampler)
    noise = RowNoise(keys, lengths, state.text.shape[1], rules_of(sampler).pace.uniforms)
    meter, contenders = _Meter(logits_fn, critic_fn, lengths), Contenders()
    reveal_steps = torch.full_like(state.text, -1)
    stopped = torch.zeros_like(state.masked[:, 0])
    step = 0
    while True:
        rows = (planner.unfinished(state, step) & ~stopped).nonzero().squeeze(1)
        if len(rows) == 0:  # finished rows cost nothing
            break
        # Most passes are of all rows, which then need not be picked and put back.
        is_all = len(rows) == len(keys)
        current = state if is_all else state.rows(rows)
        last_revealed = (reveal_steps[rows] == step - 1).sum(1) if step else None
        after = (step_fn or reveal_step)(
            meter.logits,
            rows,
            current,
            planner.plan(current, rows, step, last_revealed),
            noise.of(rows, step),
            sampler,
            meter.scores,
            contenders,
        )
        state = after if is_all else state.with_rows(rows, after)
        if on_step_end is not None:
            state = on_step_end(step, state) or state
        newly = current.masked
        if not is_all:
            newly = torch.zeros_like(state.masked).index_copy_(0, rows, newly)
        reveal_steps.masked_fill_(newly & ~state.masked, step).masked_fill_(state.masked, -1)
        if stop_fn is not None:
            stopped[rows] = stop_fn(rows, state if is_all else state.rows(rows))
        step += 1
    kept = state.log_probabilities, state.log_weights, state.alternatives
    counts = meter.passes, meter.pass_rows, meter.critic_passes
    return Filled(state.text, *counts, reveal_steps, *kept)


class _Meter:
    """Asks denoiser and critic, of the rows that have a position to look at alone, and counts."""

    def __init__(self, logits_fn: LogitsFn, critic_fn: CriticFn | None, lengths: Tensor) -> None:
        self._logits_fn, self._critic_fn = logits_fn, critic_fn
        self.passes, self.critic_passes = torch.zeros_like(lengths), torch.zeros_like(lengths)
        self.pass_rows = torch.zeros_like(lengths)

    def logits(self, rows: Tensor, text: Tensor, positions: Tensor) -> Tensor | LateLogits:
        asked = _asked(rows, text, positions)
        # A row that is asked for several texts has one pass, and as many rows.
        self.passes[asked[0]] += 1
        self.pass_rows.index_add_(0, asked[0], torch.ones_like(asked[0]))
        return self._logits_fn(*asked)

    def scores(self, rows: Tensor, text: Tensor, positions: Tensor) -> Tensor:
        asked = _asked(rows, text, positions)
        self.critic_passes[asked[0]] += 1
        return cast(CriticFn, self._critic_fn)(*asked)


def _asked(rows: Tensor, text: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Leave out the rows without a position to look at: of (R,), (R, L) and (R, L)."""
    busy = positions.any(1).nonzero().squeeze(1)
    if len(busy) == len(rows):
        return rows, text, positions
    return rows[busy], text[busy], positions[busy]


def reveal_step(
    logits_fn: LogitsFn,
    rows: Tensor,
    state: DecodingState,
    asked: Pass,
    uniforms: Tensor,
    sampler: Sampler,
    critic_fn: CriticFn | None = None,
    contenders: Contenders | None = None,
) -> DecodingState:
    """Make one pass: choose masked positions of each row and reveal them, perhaps remask others.

    1. The masks of the block compete, with some remaskings its revealed tokens too.
    2. The order scores them; some orders draw a token at each mask first.
    3. The pace chooses which positions are to hold a token.
    4. Chosen masks get theirs: the one drawn already, or one drawn now; or the pace writes them.
    5. Tokens that lost, or whose coin fell so, are masked again.

    Args:
        logits_fn: the denoiser, see `LogitsFn`.
        rows: (R,) long, indices of the rows, as `logits_fn` knows them.
        state: the rows before the pass.
        asked: what the pace asks of this pass.
        uniforms: (R, L, C) float64 in [0, 1), see `Turn`.
        sampler: order, pace, remasking, temperatures.
        critic_fn: the critic, where the sampler asks one.
        contenders: of the decoding, so that masks which cannot be chosen are not asked for.

    Returns:
        The rows after the pass.
    """
    rules = rules_of(sampler)
    competes = rules.remask.competes
    turn = Turn(logits_fn, rows, state, asked, uniforms, sampler, critic_fn, competes)
    turn = turn.with_outlook()
    # 1. Who competes.
    positions = turn.competing
    if rules.order.asks is None:
        return _step(turn, rules, positions)
    seen: Look | None = None
    if contenders is not None:
        turn, positions, seen = contenders.of(turn, rules, positions)
    asked_for = rules.order.asks(turn, positions)
    if seen is not None:
        asked_for = asked_for & ~cast(Tensor, seen.known)
    # The head is run on some rows at a time, and what it gives is used up before the next ones.
    for index, part in turn.parts(asked_for):
        if part.state is state:  # which has no other rows
            return _step(part, rules, positions, seen)
        of_part = None if seen is None else seen.of(index)
        state = state.with_rows(index, _step(part, rules, positions[index], of_part))
    return state


def _step(turn: Turn, rules: Rules, positions: Tensor, seen: Look | None = None) -> DecodingState:
    """Do as `reveal_step`, for rows whose logits are known or wanted at the chosen places alone.

    `seen` is what the order has found out already, about some of the positions.
    """
    competes, state, sampler = turn.tokens_compete, turn.state, turn.sampler
    # 2. The order looks.
    if seen is None:
        look = rules.order.look(turn, positions)
    else:
        look = seen.beside(rules.order.look(turn, positions & ~cast(Tensor, seen.known)))
    look = look._replace(scores=_weighed(look.scores, turn, positions, rules))
    # 3. The pace chooses.
    kept = rules.pace.choose(turn, look, positions)
    chosen = kept & state.masked
    # 4. Chosen masks get their tokens.
    after = (rules.pace.write or _write)(turn, look, chosen)
    # 5. Others are masked again.
    if competes:
        return after.remask(positions & state.revealed & ~kept, sampler.mask_token_id)
    if rules.remask.rate is None:
        return after
    # Only what stood there before this pass; what it revealed stays for now. Its coin is its
    # own: where a token stands, the order has no use for one.
    back = state.revealed & turn.here & (turn.coins < turn.asked.remask_rate)
    return after.remask(back, sampler.mask_token_id)


def _weighed(scores: Tensor, turn: Turn, positions: Tensor, rules: Rules) -> Tensor:
    """Weigh the scores (R, L) as the remasking wants it, and add Gumbel noise to them."""
    if rules.remask.weigh is not None:
        scores = rules.remask.weigh(turn, scores)
    noise = noise_of(turn, rules, positions)
    if noise is None:
        return scores
    return scores.masked_scatter(positions, scores[positions] + noise.to(scores.dtype))


def _write(turn: Turn, look: Look, chosen: Tensor) -> DecodingState:
    """Write a token at each of the chosen masks (R, L) bool."""
    rules = rules_of(turn.sampler)
    wanted = turn.sampler.records_probabilities or rules.remask.keeps_probabilities
    if look.logits is not None:
        # Of the places that the order looked at, those that were chosen, in row-major order.
        taken = chosen[cast(Tensor, look.known)]
        given = None if look.drawn is None else look.drawn[taken]
        if given is not None and not wanted:
            return turn.state.reveal(chosen, given, None)
        logits = look.logits.only(taken)
    elif bool(chosen.any()):  # chosen without a look, so that logits are computed here alone
        logits, given = turn.logits(chosen, scored=wanted), None
    else:
        return turn.state
    draw = turn.drawer(logits, chosen)

    def read(block: Distribution, which: slice) -> tuple[Tensor, ...]:
        drawn = draw(block, which) if given is None else given[which]
        if not wanted:
            return (drawn,)
        count = turn.state.num_alternatives
        others = (likeliest_tokens(block, count),) if count else ()
        return (drawn, log_probability(block, drawn), *others)

    drawn, *kept = logits.read(read)
    after = turn.state.reveal(chosen, drawn, *kept)
    if not turn.sampler.records_probabilities:
        return after
    return turn.weighed(after, logits, chosen, given is None and _is_plain(turn.sampler, rules))


def _is_plain(sampler: Sampler, rules: Rules) -> bool:
    """Tell whether tokens come from the denoiser's own distributions, and stay."""
    warm = sampler.do_sample and sampler.temperature == 1 and not sampler.anneal_temperature
    stays = rules.remask.rate is None and not rules.remask.competes
    return warm and stays and not sampler.changes_scores
