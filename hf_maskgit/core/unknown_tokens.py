"""What a tokenizer did not know of a text: counted where texts come in, warned of, refused.

A word that is not in the vocabulary becomes the unknown token. Nothing of it reaches the model, and
a text of unknown tokens alone is learned and predicted without a fault; so a tokenizer that does
not fit its texts shows in no loss and in no bound. Texts are counted by words, since one unknown
token may stand for a whole text (`TextReader`); where only ids are left, by tokens.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from .options import check, option, options_of

logger = logging.get_logger(__name__)

_WORTH_A_WARNING = 0.01  # share of unknown words; vocabularies that fit their texts stay below
_MOST_EXAMPLES = 3
_LONGEST_EXAMPLE = 24  # characters
# Ideographs and kana stand without spaces between them, and each is a word to most tokenizers.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\s\u3040-\u30ff\u3400-\u9fff]+")
_MARKS = "\u2581\u0120 "  # how tokens write the space before a word
_RARE = "\ua66e"  # a letter that stands in one manuscript, and in no vocabulary but of bytes

_COUNTED: ContextVar[bool] = ContextVar("unknown tokens are counted already", default=False)


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How much unknown text is taken; declares the option and holds none."""

    max_unknown_share: float = option(
        0.5,
        "Largest share of a text's words that may be unknown to the tokenizer; above 0.01 a "
        "warning says which words are.",
        int,
        float,
        low=0,
        high=1,
        noun="share",
    )


@dataclass(frozen=True)
class Reading:
    """How much of some texts their tokenizer knew.

    Attributes:
        words: words, unknown ones included; symbols, where a token is a single one.
        unknown: those that no token of the vocabulary stands for.
        examples: up to three of them as typed.
        noun: what is counted.
    """

    words: int = 0
    unknown: int = 0
    examples: tuple[str, ...] = ()
    noun: str = "words"

    @property
    def share(self) -> float:
        """The share of unknown words, in [0, 1]; 0 of no words."""
        return self.unknown / self.words if self.words else 0.0

    @property
    def percent(self) -> str:
        """The share in words: "12.5 %"."""
        return f"{100 * self.share:.3g} %"

    def of(self, what: str) -> str:
        """Say it in a sentence without its end: "The tokenizer does not know ..."."""
        shown = " and ".join(map(repr, self.examples))
        return (
            f"The tokenizer does not know {self.unknown:,} of the {self.words:,} {self.noun} of "
            f"{what} ({self.percent}){', such as ' + shown if shown else ''}"
        )


def sum_of(readings: Iterable[Reading], noun: str = "words") -> Reading:
    """Add up the readings of several texts."""
    words, unknown, examples = 0, 0, dict[str, None]()
    for reading in readings:
        words, unknown = words + reading.words, unknown + reading.unknown
        if len(examples) < _MOST_EXAMPLES:
            examples.update(dict.fromkeys(reading.examples))
    return Reading(words, unknown, tuple(examples)[:_MOST_EXAMPLES], noun)


def check_read(reading: Reading, what: str, max_unknown_share: float | None = None) -> None:
    """Refuse texts of which too much is unknown; warn where more than a little is.

    Args:
        reading: of the texts.
        what: names them in the sentence: "the prompt".
        max_unknown_share: see `Tolerance`; None is its default.

    Raises:
        ValueError: saying how much is unknown, with examples, and what to do.
    """
    limit = checked_limit(max_unknown_share)
    if reading.share > limit:
        raise ValueError(
            f"{reading.of(what)}, so the model would see next to nothing of it. Use the tokenizer "
            "that belongs to the model and to the texts, or write them as it expects them (upper "
            "or lower case, spaces between words). To go on all the same, raise "
            f"`max_unknown_share`, which is {limit}."
        )
    if reading.share > _WORTH_A_WARNING:
        logger.warning(
            "%s: the model sees the unknown token in their place. Is this the tokenizer of the "
            "model, and are the texts written as it expects them (upper or lower case, spaces)?",
            reading.of(what),
        )


def checked_limit(max_unknown_share: float | None) -> float:
    """Return the largest share that is taken, the default where none is named.

    Raises:
        ValueError: for one outside [0, 1].
    """
    if max_unknown_share is None:
        return Tolerance.max_unknown_share
    check("max_unknown_share", max_unknown_share, options_of(Tolerance)["max_unknown_share"])
    return max_unknown_share


@contextmanager
def counted_before() -> Iterator[None]:
    """Inside, ids are not counted: their texts were, and by words."""
    token = _COUNTED.set(True)
    try:
        yield
    finally:
        _COUNTED.reset(token)


def unknown_id_of(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the id of what is not in the vocabulary; None where nothing is left out by an id."""
    if tokenizer.unk_token_id is not None:
        return int(tokenizer.unk_token_id)
    # Made from its parts, a tokenizer may know such a token that nobody named to transformers.
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    name = getattr(getattr(backend, "model", None), "unk_token", None)
    return None if name is None else backend.token_to_id(name)


# --- ids -----------------------------------------------------------------------------------------


def read_ids(
    input_ids: Tensor,
    attention_mask: Tensor | None,
    unknown_id: int | None,
    special_ids: Iterable[int | None],
) -> list[Reading]:
    """Count the unknown tokens of each row.

    Args:
        input_ids: (B, L) long.
        attention_mask: (B, L), 1 at real tokens; None means that all are.
        unknown_id: the unknown token's.
        special_ids: of tokens that are no part of a text; an end of text that is the unknown token
            as well tells nothing, and nothing is counted.

    Returns:
        One per row.
    """
    special = {i for i in special_ids if i is not None}
    if unknown_id is None or unknown_id in special or _COUNTED.get():
        return [Reading(noun="tokens")] * len(input_ids)
    outside = torch.tensor(sorted(special), dtype=torch.long, device=input_ids.device)
    read = ~torch.isin(input_ids, outside)
    if attention_mask is not None:
        read &= attention_mask == 1
    unknown = read & (input_ids == unknown_id)
    counts = torch.stack([read.sum(1), unknown.sum(1)], 1).tolist()
    return [Reading(words, missing, noun="tokens") for words, missing in counts]


def read_ids_of(config: Any, input_ids: Tensor, attention_mask: Tensor | None) -> list[Reading]:
    """Count the unknown tokens of each row by what a `MaskGitConfig` knows; see `read_ids`."""
    unknown_id = getattr(config, "unk_token_id", None)
    roles = ("mask", "pad", "bos", "eos")
    special = {getattr(config, f"{role}_token_id", None) for role in roles}
    special |= set(config.prefix_ids or []) | set(config.suffix_ids or [])
    others = set(getattr(config, "special_token_ids", None) or []) - {unknown_id}
    return read_ids(input_ids, attention_mask, unknown_id, special | others)


def check_rows_read(
    config: Any,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    name: str,
    max_unknown_share: float | None = None,
) -> None:
    """Refuse rows of ids of which too much is unknown; warn of all together.

    Args:
        config: a `MaskGitConfig`.
        input_ids: (B, L) long.
        attention_mask: (B, L), 1 at real tokens; None means that all are.
        name: of the ids, for the sentence.
        max_unknown_share: see `Tolerance`.

    Raises:
        ValueError: naming the first such row, since each is a text of its own.
    """
    readings, limit = (
        read_ids_of(config, input_ids, attention_mask),
        checked_limit(max_unknown_share),
    )
    for i, reading in enumerate(readings):
        if reading.share > limit:
            check_read(reading, f"row {i} of {name}", limit)
    check_read(sum_of(readings, "tokens"), name, limit)


# --- texts ---------------------------------------------------------------------------------------


class TextReader:
    """Counts the words that a tokenizer did not know, in texts that it has read.

    Nothing is tokenised a second time. A word is what stands between spaces; where an unknown token
    took the place of several, each counts. Where a token of the vocabulary is one symbol (a residue
    of a protein), every symbol does: seven in lower case are one unknown token and seven unknown
    residues. A tokenizer without unknown token that leaves out what it does not know is found by
    asking it; what stands under none of its tokens is then unknown.

    Args:
        tokenizer: any of transformers.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.unknown_id = unknown_id_of(tokenizer)

    def read(self, texts: Sequence[str], encoded: Any) -> list[Reading]:
        """Count the words of each text.

        Args:
            texts: as typed, B.
            encoded: what `tokenizer(texts, ...)` made of them, with or without special tokens.

        Returns:
            One reading per text.
        """
        encodings = getattr(encoded, "encodings", None)
        readings = []
        for i, text in enumerate(texts):
            ids = encoded["input_ids"][i] if encodings is None else encodings[i].ids
            row = ids.tolist() if isinstance(ids, Tensor) else list(ids)
            if self.unknown_id not in row and not self._drops:
                # Everything that was typed is known: nothing has to be looked at closely.
                readings.append(Reading(len(row) - sum(map(self._wordless.__contains__, row))))
            elif encodings is None:
                readings.append(self._count(text, row, _placed(text, self._pieces(row))))
            else:
                readings.append(self._count(text, row, encodings[i].offsets))
        return readings

    def _count(self, text: str, row: list[int], places: Sequence[Any]) -> Reading:
        """Count one text whose tokens stand at these places, (first, last plus one) or None."""
        words, stretches = 0, []
        for token, place in zip(row, places, strict=True):
            # An end of text that is the unknown token as well stands where nothing was typed.
            if token == self.unknown_id:
                stretches += [] if self._is_role(text, place) else [place]
            elif token not in self._wordless:
                words += 1
        if self._drops:
            stretches += _uncovered(text, places)
        counts = [self._words_of(text, place) for place in stretches]
        typed = [text[slice(*place)].strip() for place in stretches if place is not None]
        examples = [word for word in dict.fromkeys(typed) if word][:_MOST_EXAMPLES]
        return Reading(words + sum(counts), sum(counts), tuple(map(_shortened, examples)))

    def _words_of(self, text: str, place: tuple[int, int] | None) -> int:
        """Count the words, or the symbols, of an unknown stretch of text; at least 1."""
        if place is None:
            return 1
        start, stop = place
        typed = text[start:stop]
        # Letters that a known token of the same word touches were left over of that word.
        left_over = text[start - 1 : start + 1].isalnum() if start else False
        left_over |= text[stop - 1 : stop + 1].isalnum() and stop < len(text)
        if self._reads_symbols or (left_over and not _is_spaced(typed)):
            return max(1, len("".join(typed.split())))
        return max(1, len(_WORD.findall(typed)))

    def _is_role(self, text: str, place: tuple[int, int] | None) -> bool:
        """Tell an end of text (or the like) from what is unknown, where both are one token."""
        if self.unknown_id is None or not self._has_roles:
            return False
        typed = "" if place is None else text[slice(*place)]
        return not typed or typed == self.tokenizer.convert_ids_to_tokens(self.unknown_id)

    def _pieces(self, row: list[int]) -> list[str | None]:
        """Return what each token is written as in a text; None for the unknown one."""
        tokens = self.tokenizer.convert_ids_to_tokens(row)
        return [
            None if token == self.unknown_id else str(piece).strip(_MARKS).removeprefix("##")
            for token, piece in zip(row, tokens, strict=True)
        ]

    @cached_property
    def _has_roles(self) -> bool:
        named = ("mask", "pad", "bos", "eos", "cls", "sep")
        return self.unknown_id in {getattr(self.tokenizer, f"{role}_token_id") for role in named}

    @cached_property
    def _drops(self) -> bool:
        """Whether what is unknown leaves no token at all, found by asking."""
        if self.unknown_id is not None or not self.tokenizer.is_fast:
            return False
        try:
            return not self.tokenizer(_RARE, add_special_tokens=False)["input_ids"]
        except (
            Exception
        ):  # the tokenizers library has no other class; such a one reads no rare word
            return False

    @cached_property
    def _wordless(self) -> frozenset[int]:
        """Ids of tokens that are no word: special ones, and a space that stands alone."""
        spaces = [i for token, i in self.tokenizer.get_vocab().items() if not token.strip(_MARKS)]
        return frozenset({*spaces, *self.tokenizer.all_special_ids} - {self.unknown_id})

    @cached_property
    def _reads_symbols(self) -> bool:
        """Whether a token is one symbol, and stands beside the next without a space."""
        ids = {token.strip(_MARKS): i for token, i in sorted(self.tokenizer.get_vocab().items())}
        special = {*self.tokenizer.all_special_ids, self.unknown_id}
        symbols = {token: i for token, i in ids.items() if token and i not in special}
        single = [token for token in symbols if len(token) == 1 and token.isalpha()][:2]
        if len(single) < 2 or sum(map(len, symbols)) >= 2 * len(symbols):
            return False
        read = self.tokenizer("".join(single), add_special_tokens=False)["input_ids"]
        return bool(list(read) == [symbols[token] for token in single])


def _placed(text: str, pieces: Sequence[str | None]) -> list[tuple[int, int] | None]:
    """Find the place of each token in a text, for tokenizers that do not tell.

    Args:
        text: as typed.
        pieces: of the tokens, None for an unknown one.

    Returns:
        Their places; an unknown token has what lies between its neighbours, None where nothing
        does, and so has one that is not found.
    """
    places: list[tuple[int, int] | None] = []
    at, waiting = 0, []
    lowered = text.lower()
    if len(lowered) != len(text):  # a letter that is two in lower case would shift all places
        lowered = text
    for i, piece in enumerate(pieces):
        places.append(None)
        if piece is None:
            waiting.append(i)
            continue
        found = min(
            (n for n in (text.find(piece, at), lowered.find(piece, at)) if n >= 0), default=None
        )
        if found is None or not piece:
            continue
        _share_out(text, (at, found), waiting, places)
        at, waiting = found + len(piece), []
        places[i] = (found, at)
    _share_out(text, (at, len(text)), waiting, places)
    return places


def _share_out(
    text: str, gap: tuple[int, int], waiting: list[int], places: list[tuple[int, int] | None]
) -> None:
    """Give each of the unknown tokens in a gap a word of it, and the last one the rest."""
    words = [m.span() for m in re.compile(r"\S+").finditer(text, *gap)]
    for i, token in enumerate(waiting):
        if i < len(words):
            last = words[-1] if i + 1 == len(waiting) else words[i]
            places[token] = (words[i][0], last[1])


def _uncovered(text: str, places: Sequence[Any]) -> list[tuple[int, int]]:
    """Return the stretches of letters and digits that stand under no token."""
    open_ = [c.isalnum() for c in text]
    for start, stop in filter(None, places):
        open_[start:stop] = [False] * (stop - start)
    marks = "".join("x" if is_open else " " for is_open in open_)
    return [found.span() for found in re.finditer("x+", marks)]


def _is_spaced(typed: str) -> bool:
    return len(typed.split()) > 1


def _shortened(word: str) -> str:
    return word if len(word) <= _LONGEST_EXAMPLE else word[:_LONGEST_EXAMPLE] + "..."
