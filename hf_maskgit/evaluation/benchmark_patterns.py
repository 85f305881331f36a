"""Patterns that speed is measured with: one that asks as much as it can, and two as users write.

They are patterns of ids, so that neither a tokenizer nor a compiler is needed; the vocabulary has
classes of the sizes that WordPiece's has. To add a pattern is to add a row to `PATTERNS`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..core.pattern_automaton import Automaton, smallest
from ..core.token_pattern import TokenPattern
from .benchmark_shapes import Sizes

# Shares of the vocabulary; the rest are special tokens, punctuation and other alphabets.
_WORDS, _PIECES, _NUMBERS = 0.69, 0.19, 0.03
_MARKS = 64  # ids of tokens that stand for themselves, such as a quote or the name of a property
_BEFORE_DATE = 60  # places of a sentence before its date


def states_of_64(sizes: Sizes, states: int = 64, classes: int = 48) -> TokenPattern:
    """Build what costs most: from most states one class goes on, from some all.

    Nearly every state is possible at nearly every place until much is known.

    Args:
        sizes: of the model, for its vocabulary.
        states: of the automaton.
        classes: of tokens, drawn at random; those that no state tells apart become one.
    """
    generator = torch.Generator().manual_seed(0)
    class_of = torch.randint(1, classes, (sizes.vocab_size,), generator=generator)
    only = torch.randint(1, classes, (states,), generator=generator)
    step = torch.full((states, classes), states)  # the number of nowhere
    for state in range(states):
        after = (state + 1) % states
        if state % 16 == 0:
            step[state, 1:] = state
        step[state, only[state]] = after
    final = torch.ones(states, dtype=torch.bool)
    return TokenPattern(smallest(Automaton(step, final, class_of, 0)))


def record(sizes: Sizes) -> TokenPattern:
    """Build a JSON object of six properties, four texts of any length and two numbers."""
    marks, words, pieces, numbers = _vocabulary(sizes)
    (opens, closes, quote, colon, comma), names = marks[:5], marks[5:11]
    any_piece = [*words, *pieces, *numbers]
    text = [[quote], [*words, *numbers], (any_piece, 0, None), [quote]]
    number = [(numbers, 1, 3)]
    elements: list[Any] = [[opens]]
    for place, name in enumerate(names):
        value = number if place % 3 == 1 else text
        elements += [[quote], [name], (pieces, 0, 1), [quote], [colon], *value]
        elements += [[comma] if name != names[-1] else [closes]]
    return TokenPattern.from_token_classes(elements, sizes.vocab_size)


def date_in_sentence(sizes: Sizes) -> TokenPattern:
    """Build a date such as 2026-11-29 among places of which nothing is asked."""
    marks, *_, numbers = _vocabulary(sizes)
    dash, digits = marks[0], numbers[:10]
    years, days = numbers[10:210], [*digits, *numbers[210:241]]
    date: list[Any] = [years, [dash], days, [dash], days]
    anything = list(range(sizes.vocab_size))
    behind = sizes.length - _BEFORE_DATE - len(date)
    elements = [(anything, _BEFORE_DATE, _BEFORE_DATE), *date, (anything, behind, behind)]
    return TokenPattern.from_token_classes(elements, sizes.vocab_size)


def _vocabulary(sizes: Sizes) -> Sequence[list[int]]:
    """Deal out the ids: marks, words, pieces that continue a word, and numbers."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randperm(sizes.vocab_size, generator=generator)
    counts = [_MARKS, *(int(share * len(ids)) for share in (_WORDS, _PIECES, _NUMBERS))]
    return [part.tolist() for part in ids[: sum(counts)].split(counts)]


PATTERNS: dict[str, Callable[[Sizes], TokenPattern]] = {
    "pattern of 64 states": states_of_64,
    "a JSON record": record,
    "a date in a sentence": date_in_sentence,
}
