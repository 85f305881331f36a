"""Which words of a text its tokenizer did not know, found without reading it a second time."""

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from .unknown_tokens import Reading, check_each_read, has_other_role, unknown_id_of

_MOST_EXAMPLES = 3  # of a text
_LONGEST_EXAMPLE, _LONGEST_START = 24, 40  # characters of a word, and of a text
# Ideographs and kana stand without spaces between them, and each is a word to most tokenizers.
_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_IDEOGRAPHS}]|[^\s{_IDEOGRAPHS}]+")
_INSIDE_A_WORD = re.compile(rf"[^\W{_IDEOGRAPHS}]{{2}}")
_MARKS = "\u2581\u0120 "  # how tokens write the space before a word
_RARE = "\ua66e"  # a letter that stands in one manuscript, and in no vocabulary but of bytes


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
            ids = encoded["input_ids"][i]
            row = ids.tolist() if isinstance(ids, Tensor) else list(ids)
            if self.unknown_id not in row and not self._drops:
                # Everything that was typed is known: nothing has to be looked at closely.
                readings.append(Reading(len(row) - sum(map(self._wordless.__contains__, row))))
            elif encodings is None:
                readings.append(self._count(text, row, _placed(text, self._pieces(row))))
            else:
                readings.append(self._count(text, encodings[i].ids, encodings[i].offsets))
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
        edges = text[max(0, start - 1) : start + 1], text[max(0, stop - 1) : stop + 1]
        left_over = any(map(_INSIDE_A_WORD.fullmatch, edges)) and len(typed.split()) == 1
        if self._reads_symbols or left_over:
            return max(1, len("".join(typed.split())))
        return max(1, len(_WORD.findall(typed)))

    def _is_role(self, text: str, place: tuple[int, int] | None) -> bool:
        """Tell an end of text (or the like) from what is unknown, where both are one token."""
        if self.unknown_id is None or not has_other_role(self.tokenizer, self.unknown_id):
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
    def _drops(self) -> bool:
        """Whether what is unknown leaves no token at all, found by asking."""
        if self.unknown_id is not None or not self.tokenizer.is_fast:
            return False
        try:
            return not self.tokenizer(_RARE, add_special_tokens=False)["input_ids"]
        except Exception:  # of no class of its own; such a tokenizer refuses what it does not know
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


def check_texts(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    max_unknown_share: float | None = None,
) -> None:
    """Refuse a text that is mostly unknown to the tokenizer; warn of all in one sentence.

    Args:
        tokenizer: that the texts will go through.
        texts: each for itself, as prompts are; an empty one has nothing unknown.
        max_unknown_share: see `Tolerance`.

    Raises:
        ValueError: showing the first such text.
    """
    readings = TextReader(tokenizer).read(texts, tokenizer(list(texts), verbose=False))
    check_each_read(readings, lambda i: named(texts[i]), "the texts", max_unknown_share)


def named(text: str) -> str:
    """Name a text for a sentence by how it begins: "the text 'In the beginning'"."""
    return f"the text {text if len(text) <= _LONGEST_START else text[:_LONGEST_START] + '...'!r}"


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


def _shortened(word: str) -> str:
    return word if len(word) <= _LONGEST_EXAMPLE else word[:_LONGEST_EXAMPLE] + "..."
