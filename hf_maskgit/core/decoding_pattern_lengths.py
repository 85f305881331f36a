"""As many new tokens as a pattern takes, by what the first pass says of each number.

Letters: B rows, R returned rows, M rows that are measured (B, or R where copies differ), P prompt
columns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .blank_lengths import MOST_CANDIDATES, prior_nats
from .decoding_constraints import AllowedTokens
from .decoding_lengths import Room
from .decoding_patterns import per_row
from .decoding_prompts import Prompts
from .decoding_start import Asked
from .decoding_state import DecodingState
from .decoding_turn import LogitsFn
from .length_law import pick
from .noise import keyed_generator
from .pattern_pass import PatternLaw
from .position_logits import PositionLogits
from .sampler import Sampler
from .token_pattern import TokenPattern

_MASS_STREAM = 0x6D617373  # tells the draw of a row's number from those of its passes


@dataclass(frozen=True)
class FirstPass:
    """What it takes to ask for the first pass of rows with patterns.

    Args:
        begin: binds prompts to their patterns and to the denoiser, as decoding would start.
        asked: by the call.
        sampler: whether numbers are drawn, and what is never written.
    """

    begin: Callable[[Asked, Prompts, bool], tuple[DecodingState, LogitsFn]]
    asked: Asked
    sampler: Sampler

    def choose(self, room: Room) -> Tensor:
        """Choose the number of new tokens of each returned row, (R,) long.

        A number has the probability with which the first pass, all new tokens masked, writes a text
        of the pattern in exactly so many, times (h + 1), h the training texts of the whole length,
        where they are known. It is drawn by the row's seed; greedily the likeliest is taken, of
        equals the least. Without a pattern the number of the call counts, where that `yields`.

        Raises:
            ValueError: for a row without a pattern, with one that sets no limit, or with none that
                fits; for ids that are allowed by column.
        """
        if room.yields and self.asked.pattern is None:
            return room.asked
        _check_columns(self.asked.allowed_token_ids)
        patterns = self._of_rows(room)
        stride = room.repeats if self._alike(patterns, room) else 1
        measured = range(0, len(patterns), stride)
        candidates = [_candidates(room, row, patterns[row]) for row in measured]
        # Copies of one row would all get the same answer, so that one of them asks.
        asked = self.asked._replace(pattern=patterns[::stride])
        masses = self._log_masses(asked, room, candidates, stride)
        # Lengths of training are those of whole texts, of which a part is known.
        known, chosen = room.known.tolist(), []
        for row, seed in enumerate(room.seeds):
            numbers, logs = candidates[row // stride], masses[row // stride]
            prior = prior_nats(room.config, [known[row] + number for number in numbers])
            logs = logs[: len(numbers)] - torch.tensor(prior, dtype=torch.float64)
            chosen.append(numbers[self._pick(logs, seed)])
        return torch.tensor(chosen, device=room.known.device)

    def _of_rows(self, room: Room) -> list[TokenPattern]:
        pattern = self.asked.pattern
        given = [] if pattern is None else per_row(pattern, len(room.known), room.repeats)
        without = next((row for row, one in enumerate(given or [None]) if one is None), None)
        if without is not None:
            raise ValueError(
                "num_tokens='pattern' goes by the lengths that a `pattern` takes, and returned row "
                f"{without} has none; give every row one, or `max_new_tokens` with "
                "num_tokens='fixed'."
            )
        return [pattern for pattern in given if pattern is not None]

    def _alike(self, patterns: Sequence[TokenPattern], room: Room) -> bool:
        """Tell whether all copies of a row ask the same of the first pass."""
        count, rows = room.repeats, range(len(patterns))
        same = all(patterns[row] is patterns[row - row % count] for row in rows)
        limits = room.most.tolist()
        same = same and all(limits[row] == limits[row - row % count] for row in rows)
        negative = self.asked.negative_prompt_ids
        return same and (negative is None or len(negative) in (1, len(patterns) // count))

    def _log_masses(
        self, asked: Asked, room: Room, candidates: list[list[int]], stride: int
    ) -> list[Tensor]:
        """Ask for the first pass of every number of every row: of each row (K,) float64."""
        found = []
        for place in range(max(map(len, candidates))):
            # Rows with fewer numbers to try go on with their last.
            numbers = [numbers[min(place, len(numbers) - 1)] for numbers in candidates]
            new = torch.tensor(numbers, device=room.known.device)
            begun = self.begin(asked, room.pack(new, stride), False)
            found.append(log_mass_of(*begun, self.sampler))
        return list(torch.stack(found, 1))

    def _pick(self, logs: Tensor, seed: int) -> int:
        if not bool(logs.isfinite().any()):
            return 0  # which decoding refuses, saying why
        if not self.sampler.do_sample:
            return int(logs.argmax())
        # The row's own stream, so that its neighbours change nothing.
        draws = keyed_generator(seed, _MASS_STREAM)
        uniform = float(torch.rand((), generator=draws, dtype=torch.float64))
        return pick((logs - logs.max()).exp(), uniform)


def log_mass_of(state: DecodingState, denoise: LogitsFn, sampler: Sampler) -> Tensor:
    """Return the log-probability that one pass writes texts of the patterns, (M,) float64.

    Args:
        state: M rows before it, each with a pattern.
        denoise: their denoiser.
        sampler: what it suppresses, and what ends a text.
    """
    assert state.patterns is not None
    rows, masked = torch.arange(len(state.text), device=state.text.device), state.masked
    # The law of one pass over all blocks: a number is not chosen for the first of them alone.
    logits = PositionLogits(
        denoise(rows, state.text, masked),
        sampler.suppressed,
        sampler.end_ids,
        state.can_end[masked],
        None if state.allowed is None else state.allowed[masked],
        state.allowed_table,
    )
    outlook = state.patterns.outlook(state.text, masked, torch.zeros_like(masked))
    return PatternLaw(state.patterns, logits, masked, masked, outlook).log_mass


def _check_columns(allowed: AllowedTokens | None) -> None:
    of_all = isinstance(allowed, Sequence) and all(type(token) is int for token in allowed)
    if allowed is not None and not of_all:
        raise ValueError(
            "`allowed_token_ids` name columns, and with num_tokens='pattern' it is not known "
            "beforehand how many there are; give one list of ids for all, or `max_new_tokens` with "
            "num_tokens='fixed'."
        )


def _candidates(room: Room, row: int, pattern: TokenPattern) -> list[int]:
    """Return the numbers of new tokens, from 1, with which a row has a length of its pattern."""
    known, most = int(room.spanned[row]), int(room.most[row])
    if pattern.longest is None and not room.limited:
        raise ValueError(
            f"num_tokens='pattern' finds no most for returned row {row}: {pattern!r} takes any "
            f"number of tokens from {pattern.shortest}. Name the most as `max_new_tokens`, or "
            "bound what repeats."
        )
    if pattern.longest is not None:
        most = min(most, pattern.longest - known)
    possible = pattern.lengths(known + max(most, 0)).tolist()
    numbers = [n for n in range(1, most + 1) if possible[known + n]]
    if not numbers:
        longest = "any number" if pattern.longest is None else str(pattern.longest)
        held = f", of which the row holds {known} from its first mask on" if known else ""
        raise ValueError(
            f"num_tokens='pattern' finds no number for returned row {row}: {pattern!r} takes from "
            f"{pattern.shortest} to {longest} tokens{held}, and there is room for "
            f"{max(int(room.most[row]), 0)} more. Shorten the prompt, or ask less of the pattern."
        )
    if len(numbers) > MOST_CANDIDATES:
        raise ValueError(
            f"num_tokens='pattern' tries a row once with every number of tokens that its pattern "
            f"takes, which for returned row {row} are {len(numbers):,}; {MOST_CANDIDATES} at most "
            "are compared. Name a smaller `max_new_tokens`, or bound what repeats."
        )
    return numbers
