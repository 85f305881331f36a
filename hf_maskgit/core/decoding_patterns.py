"""Patterns of the rows of one call: bound to their spans, and refused where they cannot be met.

Letters: R returned rows, L length, W places of a span, P patterns, Q states, C classes, V
vocabulary, T rows of the table of allowed ids.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from .class_sums import grouping_of
from .decoding_layout import PackedRows
from .decoding_state import DecodingState
from .pattern_automaton import Automaton
from .pattern_moves import Chains, moves_of
from .pattern_rows import RowPatterns
from .pattern_sweeps import reach
from .sampler import Sampler
from .token_pattern import TokenPattern, as_pattern

# One for all rows, or one or None for each row, given or returned.
Patterns = TokenPattern | Sequence[TokenPattern | None]


def with_patterns(
    state: DecodingState,
    rows: PackedRows,
    sampler: Sampler,
    patterns: Patterns | None,
    vocab_size: int,
    tokenizer: PreTrainedTokenizerBase | None = None,
    exact: bool = False,
    check: bool = True,
) -> DecodingState:
    """Bind patterns to the rows of a state before the first pass.

    Args:
        state: the R rows.
        rows: where their columns stand.
        sampler: what it suppresses, and what ends a text.
        patterns: see `Patterns`.
        vocab_size: V.
        tokenizer: whose text the patterns must speak of, where the caller gives it.
        exact: whether texts end at their last mask alone, since its number was chosen by them.
        check: whether rows are refused that cannot match.

    Raises:
        TypeError: for something else than patterns.
        ValueError: for patterns that do not fit the rows or the vocabulary, or that cannot be
            met.
    """
    if patterns is None:
        return state
    of_rows = per_row(patterns, len(state.text))
    used = list(dict.fromkeys(pattern for pattern in of_rows if pattern is not None))
    zeros = torch.zeros(len(state.text), dtype=torch.float64, device=state.text.device)
    if not used:  # such as one row of a batch, decoded alone
        return replace(state, log_weights=zeros)
    for pattern in used:
        _check_vocabulary(pattern, sampler, tokenizer)
    may_end = bool((state.can_end & state.masked).any()) and len(sampler.end_ids) > 0
    ends = may_end and not exact
    automata = [
        _with_end(pattern.in_vocabulary(vocab_size), sampler.end_ids.cpu(), ends)
        for pattern in used
    ]
    which = torch.tensor([-1 if p is None else used.index(p) for p in of_rows])
    _check_masks(state.masked.cpu(), which)
    bound = _bind(state, sampler, which, automata)
    if check:
        _check_possible(state, rows, bound, of_rows, ends)
    return replace(state, patterns=bound, log_weights=zeros)


def per_row(patterns: Patterns, num_rows: int, repeats: int = 1) -> list[TokenPattern | None]:
    """Give each of the R rows its pattern, None for none.

    Args:
        patterns: see `Patterns`.
        num_rows: R.
        repeats: returned rows per row that was given.

    Raises:
        TypeError: for something else than patterns.
        ValueError: for a number of them that does not fit.
    """
    if not isinstance(patterns, Sequence) or isinstance(patterns, str):
        return [as_pattern(patterns)] * num_rows
    known: dict[int, TokenPattern] = {}  # of one object one pattern, also where it is taken over
    given = [None if p is None else known.setdefault(id(p), as_pattern(p)) for p in patterns]
    if len(given) not in (num_rows, num_rows // repeats):
        raise ValueError(
            f"`pattern` has {len(given)} entries for {num_rows} returned rows; give one pattern, "
            "or one or None for each row, given or returned."
        )
    return [pattern for pattern in given for _ in range(num_rows // len(given))]


def _check_vocabulary(
    pattern: TokenPattern, sampler: Sampler, tokenizer: PreTrainedTokenizerBase | None
) -> None:
    if tokenizer is not None:
        pattern.check_tokenizer(tokenizer)
    if pattern.mask_token_id not in (None, sampler.mask_token_id):
        raise ValueError(
            f"The pattern was compiled for a tokenizer whose mask is {pattern.mask_token_id}; the "
            f"model's is {sampler.mask_token_id}. Compile it with the model's own tokenizer."
        )


def _check_masks(masked: Tensor, which: Tensor) -> None:
    without = ((which >= 0) & ~masked.any(1)).nonzero()
    if len(without):
        raise ValueError(
            f"Returned row {int(without[0])} has a `pattern` and no mask that it could speak of; "
            "give None for it, or ask for `max_new_tokens`."
        )


def _with_end(automaton: Automaton, end_ids: Tensor, ends: bool) -> Automaton:
    """Let a text of the language end before its last place: the last class and state say so."""
    if not ends:
        return automaton
    step, final, class_of, start = automaton
    states, classes = step.shape
    # The number of nowhere moves up by one: `states` is now the end, where anything may follow.
    step = step.masked_fill(step == states, states + 1)
    ending = torch.where(final, states, states + 1)[:, None]
    behind = torch.full((1, classes + 1), states)
    step = torch.cat([torch.cat([step, ending], 1), behind])
    final = torch.cat([final, torch.ones(1, dtype=torch.bool)])
    return Automaton(step, final, class_of.index_fill(0, end_ids, classes), start)


def _bind(
    state: DecodingState, sampler: Sampler, which: Tensor, automata: Sequence[Automaton]
) -> RowPatterns:
    # All automata are padded to one size: rows with different patterns are decoded side by side.
    device, most = state.text.device, len(automata)
    states = max((len(a.final) for a in automata), default=1)
    classes = max((a.step.shape[1] for a in automata), default=1)
    # A row without a pattern has one state and no place, so that nothing is asked of it.
    final, ended = torch.zeros(2, most + 1, states, dtype=torch.bool)
    final[most, 0] = True
    start = torch.zeros(most + 1, dtype=torch.long)
    for number, automaton in enumerate(automata):
        own = len(automaton.final)
        final[number, :own] = automaton.final
        ended[number, :own] = (automaton.step == torch.arange(own)[:, None]).all(1)
        start[number] = automaton.start
    span = _span(state.masked) & (which >= 0).to(device)[:, None]
    class_of = torch.stack([a.class_of for a in automata] or [torch.zeros(0).long()]).to(device)
    position = torch.arange(span.shape[1], device=device)
    first = torch.where(span, position, span.shape[1]).amin(1) * span.any(1)
    bound = RowPatterns(
        which.to(device),
        span,
        first,
        moves_of([*(a.step for a in automata), torch.full((1, classes), 1)]),
        final[which],
        start[which],
        ended[which],
        torch.ones(len(which), int(span.sum(1).max()), classes, dtype=torch.bool),
        class_of,
        tuple(grouping_of(own, classes) for own in class_of),
    )
    return replace(bound, possible=_possible(state, sampler, bound, classes))


def _span(masked: Tensor) -> Tensor:
    """Mark everything from a row's first mask to its last, (R, L) -> (R, L) bool."""
    counted = masked.long()
    return (counted.cumsum(1) > 0) & (counted.flip(1).cumsum(1).flip(1) > 0)


def _possible(state: DecodingState, sampler: Sampler, bound: RowPatterns, classes: int) -> Tensor:
    """Tell of which classes something may be emitted, (R, W, C) bool, on the CPU."""
    vocab_size = bound.class_of.shape[1]
    device = state.text.device
    table = state.allowed_table
    if table is None:
        table = torch.ones(1, vocab_size, dtype=torch.bool, device=device)
    table = table.index_fill(1, sampler.suppressed, False)
    without_ends = table.index_fill(1, sampler.end_ids, False)
    some = torch.stack(
        [
            torch.zeros(len(part), classes, device=device).index_add(1, class_of, part.float()) > 0
            for part in (table, without_ends)
            for class_of in bound.class_of
        ]
    )  # (2 P, T, C)
    places = bound.places
    allowed = torch.zeros_like(state.text) if state.allowed is None else state.allowed
    # Half of the table is for places with known tokens behind them, where no text may end.
    later = torch.where(state.can_end.gather(1, places), 0, len(bound.class_of))
    number = bound.pattern.clamp_min(0)[:, None] + later
    return some[number, allowed.gather(1, places)].cpu()


def _check_possible(
    state: DecodingState,
    rows: PackedRows,
    bound: RowPatterns,
    of_rows: Sequence[TokenPattern | None],
    ends: bool,
) -> None:
    """Refuse rows that cannot match, each for its reason.

    Raises:
        ValueError: naming row, column and lengths.
    """
    # With every place open, it only counts whether there is a way.
    chains = bound.chains(bound.span)
    masses = bound.known_masses(state.text, state.masked)
    ways = reach(masses, chains).ways[:, 0].gather(1, chains.start[:, None])
    impossible = (ways.squeeze(1) == 0).nonzero()
    if len(impossible) == 0:
        return
    row = int(impossible[0])
    pattern = of_rows[row]
    assert pattern is not None
    most = int(chains.inside[row].sum())
    may_end = ends and bool(state.can_end[row].any())
    _check_lengths(row, pattern, most, pattern.lengths(most), may_end)
    place = _dead_end(chains, row, masses[row, :most])
    if place is None:
        raise ValueError(
            f"Returned row {row} cannot match {pattern!r}: what is known between its masks fits in "
            f"itself, but no text of the pattern comes to its end in these {most} tokens."
        )
    position = int(bound.first[row]) + place
    column = int((rows.layout.arranged[row] == rows.layout.packed[row, position]).nonzero())
    if bool(state.masked[row, position]):
        raise ValueError(
            f"Returned row {row} cannot match {pattern!r}: the mask in column {column} may hold "
            "nothing that the pattern takes there. Look at the known tokens before it, at "
            "`allowed_token_ids` and at what is suppressed."
        )
    token = int(state.text[row, position])
    raise ValueError(
        f"Returned row {row} cannot match {pattern!r}: the known token {token} in column {column} "
        "contradicts it. A pattern speaks of all from a row's first mask to its last."
    )


def _check_lengths(
    row: int, pattern: TokenPattern, most: int, possible: Tensor, ends: bool
) -> None:
    if bool(possible.any() if ends else possible[most]):
        return
    longest = "any number" if pattern.longest is None else str(pattern.longest)
    between = ""
    if pattern.shortest <= most and (pattern.longest is None or most <= pattern.longest):
        between = ", but not this number"
    raise ValueError(
        f"Returned row {row} has {most} tokens from its first mask to its last, and {pattern!r} "
        f"takes from {pattern.shortest} to {longest}{between}; give it another number of masks."
    )


def _dead_end(chains: Chains, row: int, masses: Tensor) -> int | None:
    """Return a row's first place (of (W, C) masses) behind which no state is left, or None."""
    source, target, sort, takes = (part[chains.which[row]] for part in chains.moves[:4])
    reached = torch.zeros(chains.final.shape[1] + 1, dtype=torch.bool)
    reached[chains.start[row]] = True
    for place, mass in enumerate(masses):
        passed = reached[source] & (takes & (mass > -torch.inf)).any(1)[sort]
        reached = torch.zeros_like(reached).index_fill(0, target[passed], True)
        reached[-1] = False
        if not bool(reached.any()):
            return place
    return None
