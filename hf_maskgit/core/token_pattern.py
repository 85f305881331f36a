"""A pattern: a regular language over the tokens of one vocabulary, held as small tensors.

It is compiled once, from a regular expression or the like (`hf_maskgit.Pattern` does that, and
checkpoints do not carry it), and then kept as one file or used over many calls.

Letters: Q states, C classes of tokens, V vocabulary.
"""

import hashlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import Any, Self

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from .argument_checks import check_is_tokenizer, check_whole, kind_of
from .options import shown
from .pattern_automaton import (
    NEVER,
    Automaton,
    Element,
    of_both,
    of_elements,
    possible_lengths,
    shortest_and_longest,
)
from .pattern_files import MARKS, read_pattern, write_pattern
from .tokenizer_memory import decoder_of, per_tokenizer

_MOST_TOKENS = 100_000  # of an element that is repeated; nothing holds longer texts


@dataclass(frozen=True, eq=False)
class TokenPattern:
    """Which rows of tokens a text may consist of.

    Args:
        automaton: the language.
        source: what it was made from, for people.
        fingerprint: of the tokenizer for whose text it was compiled, see `fingerprint`; "" where it
            speaks of ids alone.
        mask_token_id: that tokenizer's mask; None where it has none.
        spaced: whether the spaces that decoding puts between any two tokens belong to its texts;
            None where it speaks of ids alone.
    """

    automaton: Automaton
    source: str = ""
    fingerprint: str = ""
    mask_token_id: int | None = None
    spaced: bool | None = None

    def __repr__(self) -> str:
        """Show source and size."""
        states, classes = self.automaton.step.shape
        kind = type(self).__name__
        return f"<{kind} {shown(self.source)}: {states} states, {classes} classes of tokens>"

    @classmethod
    def from_token_classes(cls, elements: Sequence[Any], vocab_size: int) -> Self:
        """Make the pattern of sets of token ids, one behind the other.

        `[[5], ([6, 7], 2, 4), [5]]` is token 5, then two to four tokens that are 6 or 7, then 5.

        Args:
            elements: each a list of ids, for one token of them; or a tuple of such a list, the
                fewest and the most tokens of it; None as the most sets no limit.
            vocab_size: V.

        Raises:
            ValueError: for ids outside the vocabulary, bad counts, or no text at all.
        """
        check_whole("vocab_size", vocab_size, 1)
        if isinstance(elements, str) or not isinstance(elements, Sequence) or not elements:
            raise ValueError(
                "`elements` must be a list of lists of token ids, or of tuples (ids, least, most), "
                f"got {elements!r}."
            )
        parsed = [_element(element, vocab_size) for element in elements]
        return cls(of_elements(parsed, vocab_size), f"{len(elements)} token classes")

    def __and__(self, other: "TokenPattern") -> Self:
        """Return the pattern of the texts that match both, as `brackets & rings`.

        Raises:
            ValueError: for patterns of two tokenizers, without a text in common, or too large.
        """
        if not isinstance(other, TokenPattern):
            return NotImplemented
        if self.fingerprint and other.fingerprint and self.fingerprint != other.fingerprint:
            raise ValueError(
                f"{self!r} and {other!r} were compiled for two tokenizers, so that no text belongs "
                "to both; compile both with the model's own."
            )
        marked = self if self.fingerprint else other
        marks = marked.fingerprint, marked.mask_token_id, marked.spaced
        source = f"{self.source} and {other.source}"
        return type(self)(of_both(self.automaton, other.automaton), source, *marks)

    @cached_property
    def _extremes(self) -> tuple[int, int | None]:
        return shortest_and_longest(self.automaton)

    @property
    def shortest(self) -> int:
        """The fewest tokens that a text of the pattern has."""
        return self._extremes[0]

    @property
    def longest(self) -> int | None:
        """The most tokens that a text of the pattern has; None where there is no limit."""
        return self._extremes[1]

    def lengths(self, most: int) -> Tensor:
        """Tell which numbers of tokens from 0 to `most` a text may have, (most + 1,) bool."""
        check_whole("most", most, 0)
        return possible_lengths(self.automaton, most)

    def matches(self, ids: Sequence[int] | Tensor) -> bool:
        """Tell whether a row of tokens belongs to the pattern.

        Raises:
            ValueError: for anything but one row of ids.
        """
        step, final, class_of, state = self.automaton
        row = ids.tolist() if isinstance(ids, Tensor) else ids
        if not _is_row(row):
            raise ValueError(
                f"`ids` must be one row of token ids, such as [5, 6], got {kind_of(ids)}."
            )
        for token in row:
            known = 0 <= token < len(class_of)
            state = int(step[state, class_of[token]]) if known else len(final)
            if state == len(final):
                return False
        return bool(final[state])

    def in_vocabulary(self, vocab_size: int) -> Automaton:
        """Return the automaton over as many ids as a model has, which may be more.

        Raises:
            ValueError: for a model that has fewer.
        """
        step, final, class_of, start = self.automaton
        if len(class_of) > vocab_size:
            raise ValueError(
                f"The pattern was made for a vocabulary of {len(class_of)} tokens, the model's has "
                f"{vocab_size}; make it with the model's own tokenizer."
            )
        # Embeddings are often padded to a round number of rows.
        more = class_of.new_full((vocab_size - len(class_of),), NEVER)
        return Automaton(step, final, torch.cat([class_of, more]), start)

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Refuse a tokenizer whose text is another one's than the pattern was compiled for.

        Raises:
            ValueError: saying what to do.
        """
        if self.fingerprint and self.fingerprint != fingerprint(tokenizer):
            raise ValueError(
                "The pattern was compiled for another tokenizer than this one, whose tokens stand "
                "for other texts. Compile it anew with the model's own tokenizer."
            )

    def check_fingerprint(self, known: str | None) -> None:
        """Refuse a model that was made with another tokenizer, where it is known with which.

        Args:
            known: `tokenizer_fingerprint` of its configuration.

        Raises:
            ValueError: saying what to do.
        """
        if self.fingerprint and known and self.fingerprint != known:
            raise ValueError(
                "The pattern was compiled for another tokenizer than the model was made with, "
                "whose tokens stand for other texts. Compile it anew with the model's own; if the "
                "tokenizer has changed since, tell model.config.read_tokenizer(tokenizer), or give "
                "generate(tokenizer=...), which is then compared instead."
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the pattern to a file: `.safetensors` in that format, else JSON."""
        write_pattern(path, self.automaton, {name: getattr(self, name) for name in MARKS})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a pattern that `save` wrote: the suffix tells the format.

        Raises:
            FileNotFoundError: where there is no file.
            ValueError: for a file that is something else, or damaged.
        """
        automaton, marks = read_pattern(path)
        return cls(automaton, **marks)


def as_pattern(value: Any) -> TokenPattern:
    """Return a pattern as this module's own, also one of another copy of this code.

    Raises:
        TypeError: for something else, saying how a pattern is made.
    """
    if isinstance(value, TokenPattern):
        return value
    # A checkpoint that carries its code has a class of its own beside the package's.
    if all(hasattr(value, name) for name in ("automaton", *MARKS)):
        return TokenPattern(Automaton(*value.automaton), *(getattr(value, n) for n in MARKS))
    raise TypeError(
        f"`pattern` must be a Pattern, or a list with one or None per row, got {kind_of(value)}; "
        "make one by hf_maskgit.Pattern.from_regex(regex, tokenizer) or the like."
    )


@per_tokenizer
def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return what tells tokenizers apart whose tokens stand for different texts."""
    check_is_tokenizer(tokenizer)
    # What the tokens are, and how they are put together; not how texts are cut into them.
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: (item[1], item[0]))
    known = [vocabulary, decoder_of(tokenizer)]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:32]


def _element(element: Any, vocab_size: int) -> Element:
    ids, least, most = element if _is_counted(element) else (element, 1, 1)
    counts = least, least if most is None else most
    if not all(type(n) is int and 0 <= n <= _MOST_TOKENS for n in counts) or counts[0] > counts[1]:
        raise ValueError(
            f"The counts of a token class must be whole numbers from 0 to {_MOST_TOKENS:,}, the "
            f"fewest not above the most, or None as the most; got {least!r} and {most!r}."
        )
    if not isinstance(ids, Collection) or not all(type(i) is int for i in ids) or not len(ids):
        raise ValueError(f"A token class must be a list of token ids, got {ids!r}.")
    outside = [i for i in ids if not 0 <= i < vocab_size]
    if outside:
        raise ValueError(
            f"A token class names the id {outside[0]}; the vocabulary has 0 to {vocab_size - 1}."
        )
    return Element(frozenset(ids), least, most)


def _is_row(value: Any) -> bool:
    is_list = isinstance(value, Collection) and not isinstance(value, str | Mapping)
    return is_list and all(isinstance(one, Integral) for one in value)


def _is_counted(element: Any) -> bool:
    is_tuple = isinstance(element, tuple) and len(element) == 3
    return is_tuple and isinstance(element[0], Collection)
