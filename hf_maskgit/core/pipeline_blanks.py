"""Texts with blanks: how they are written, and where their masks stand once they have a length."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .blank_lengths import Blank
from .options import shown

# "{blank" ends a word: "{blanket}" is text. What follows is checked, so that a slip is no text.
BLANK = re.compile(r"\{blank(?!\w)(?P<rest>[^{}]*\}?)")
# Where fields are asked for, every word in braces is one.
_FIELD = r"\{(?P<name>[^\W\d]\w*)(?P<rest>[^{}]*\}?)"
_UNNAMED = "blank"
_LENGTHS = re.compile(r"(?::(?P<low>\d+)(?:-(?P<high>\d+))?)?\}")
MOST_DIGITS = 6  # of the length of a blank: its masks are written out before they are counted


@dataclass(frozen=True)
class Holes:
    """A text that is split at its blanks and masks.

    Attributes:
        typed: the k + 1 stretches around the k holes, as typed.
        blanks: what each hole is; None for a mask token, which stands for itself.
        names: of the holes that are fields, None of the others.
        with_fields: whether fields were looked for.
    """

    typed: tuple[str, ...]
    blanks: tuple[Blank | None, ...]
    names: tuple[str | None, ...]
    with_fields: bool

    def counts(self, lengths: Sequence[int]) -> list[int | None]:
        """Give each hole its tokens, the blanks theirs in order; None for a mask token."""
        of_blanks = iter(lengths)
        return [None if blank is None else next(of_blanks) for blank in self.blanks]

    def masked(self, mask: str, counts: Sequence[int | None]) -> str:
        """Write the text with masks in its holes."""
        filled = (mask * (count or 1) for count in counts)
        return self.typed[0] + "".join(
            hole + after for hole, after in zip(filled, self.typed[1:], strict=True)
        )


@dataclass(frozen=True)
class Template:
    """A text whose blanks have lengths.

    Attributes:
        typed: the k + 1 stretches around the k spans, as typed.
        spans: first and last-plus-one token of each span, counted without padding.
        holes: the number of the hole that each span begins with.
        names: of the spans that are fields; None where no fields were looked for.
    """

    typed: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    holes: tuple[int, ...]
    names: tuple[str | None, ...] | None


def split_at_holes(
    text: str, mask: str, unnamed: Blank, of_name: Mapping[str | None, Blank] | None = None
) -> Holes:
    """Split a text at its blanks and masks.

    Args:
        text: as typed.
        mask: the mask token.
        unnamed: the lengths of a blank that names none.
        of_name: the same for some fields, which are looked for where this is given; None for a
            blank without a name.

    Raises:
        ValueError: for a blank that is none, or a text without a hole.
    """
    typed: list[str] = []
    blanks: list[Blank | None] = []
    names: list[str | None] = []
    start = 0
    written = BLANK.pattern if of_name is None else _FIELD
    for hole in re.finditer(f"{re.escape(mask)}|{written}", text):
        typed.append(text[start : hole.start()])
        start = hole.end()
        rest, name = hole["rest"], hole.groupdict().get("name")
        names.append(None if name == _UNNAMED else name)
        lengths = (of_name or {}).get(names[-1], unnamed)
        blanks.append(None if rest is None else _bounds(hole[0], rest, lengths))
    typed.append(text[start:])
    if not blanks:
        named = None if of_name is not None else re.search(_FIELD, text)
        raise ValueError(
            f"There is nothing to fill in {text!r}. Write {mask} for each token to fill, or "
            "{blank}, {blank:3} or {blank:2-5} for a span of tokens."
            + (f" {named[0]} is a field where `patterns` is given, if only {{}}." if named else "")
        )
    return Holes(tuple(typed), tuple(blanks), tuple(names), of_name is not None)


def locate(holes: Holes, counts: Sequence[int | None], ids: Sequence[int], mask: int) -> Template:
    """Find each span among the tokens; masks side by side are one.

    With "a {blank:2} b [MASK] [MASK]" and the ids [CLS] a m m b m m [SEP]:

        counts   2, None, None             what the holes are
        typed    "a ", " b ", " ", ""      what stands around the three
        spans    (2, 4), (5, 7)            the two masks have become one span
        result   "a ", " b ", ""           and the space between them is gone

    Args:
        holes: the text.
        counts: tokens of each hole, None for a mask token.
        ids: what the tokenizer made of it.
        mask: the id of the mask.

    Raises:
        ValueError: where the tokenizer reads another number of masks.
    """
    places = [i for i, token in enumerate(ids) if token == mask]
    expected = sum(count or 1 for count in counts)
    if len(places) != expected:
        raise ValueError(
            f"The text has {expected} masks with its blanks, the tokenizer reads "
            f"{len(places)}. If `tokenizer_kwargs` cut the text, shorten it instead."
        )
    stretches = [holes.typed[0]]
    spans: list[tuple[int, int]] = []
    begins: list[int] = []
    grows = False  # whether the last span is of mask tokens
    at = 0
    for number, (count, after) in enumerate(zip(counts, holes.typed[1:], strict=True)):
        first = places[at]
        at += count or 1
        stop = places[at - 1] + 1
        if grows and count is None and spans[-1][1] == first and not stretches[-1].strip():
            spans[-1] = (spans[-1][0], stop)
            stretches[-1] = after
        else:
            spans.append((first, stop))
            begins.append(number)
            stretches.append(after)
        grows = count is None
    names = tuple(holes.names[number] for number in begins) if holes.with_fields else None
    return Template(tuple(stretches), tuple(spans), tuple(begins), names)


def _bounds(blank: str, rest: str, unnamed: Blank) -> Blank:
    """Read the least and the greatest length of a blank."""
    parsed = _LENGTHS.fullmatch(rest)
    if parsed is None:
        raise ValueError(
            f"{blank!r} is no blank; write {{blank}}, {{blank:3}} for three tokens or "
            "{blank:2-5} for two to five."
        )
    if parsed["low"] is None:
        return unnamed
    if max(len(number or "") for number in parsed.groups()) > MOST_DIGITS:
        raise ValueError(
            f"{shown(blank)} is longer than any text; a blank takes fewer than "
            f"{10**MOST_DIGITS:,} tokens."
        )
    low = int(parsed["low"])
    high = low if parsed["high"] is None else int(parsed["high"])
    if not 1 <= low <= high:
        raise ValueError(
            f"{blank!r} has no length; a blank takes at least 1 token, and the smaller number "
            "comes first."
        )
    return Blank(low, high)
