"""From bodies to examples: frame, cut, split or pack them.

A training example is

    prefix + body + suffix

with the tokenizer's own template (`[CLS] ... [SEP]` in BERT) as prefix and suffix. *Framing* makes
one example of each text; what is too long is cut, split or refused. *Packing* fills blocks:
"joined" closes each text by the end-of-text token, joins them all and cuts the stream, so that no
token is lost and nothing is padded; "separate" puts whole framed texts side by side, each of which
sees itself alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..core.special_tokens import tokenizer_fields
from .tokenising import FaultyRowError, Form

_OPEN_BLOCKS = 64  # that a text is still put into
BATCH = 1000  # texts that are packed together; the last block of each such stream is shorter

# A part of a body: ids, and 0 at each that is given; None where none is.
Part = tuple[list[int], list[int] | None]


@dataclass(frozen=True)
class Framing:
    """How bodies become examples.

    Attributes:
        prefix_ids, suffix_ids: what stands around each text.
        max_length: longest example in tokens, framing included.
        too_long: "cut", "split" or "refuse" a text that is longer.
        pack: "no", "joined" or "separate".
        end_of_text: id put behind each text of a joined stream; None where there is none.
    """

    prefix_ids: list[int]
    suffix_ids: list[int]
    max_length: int
    too_long: str = "cut"
    pack: str = "no"
    end_of_text: int | None = None

    @property
    def capacity(self) -> int:
        """Tokens of a text that fit into an example."""
        return self.max_length - len(self.prefix_ids) - len(self.suffix_ids)

    @property
    def cuts(self) -> bool:
        """Whether tokens may be lost."""
        return self.too_long == "cut" and self.pack != "joined"

    def __call__(self, bodies: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """Frame or pack some bodies.

        Args:
            bodies: columns of `Tokenising`.

        Returns:
            The columns `input_ids` and `num_tokens`, and where it matters `maskable` and
            `document_ids`.

        Raises:
            FaultyRowError: for a text that is too long, where that is refused, or whose prompt
                leaves no room.
        """
        return _PACKINGS[self.pack](bodies, self)

    def as_arguments(self) -> dict[str, Any]:
        """Return what a cache is keyed by, and what makes an equal one."""
        return asdict(self)


def framing_of(
    tokenizer: PreTrainedTokenizerBase,
    form: Form,
    *,
    max_length: int,
    too_long: str = "cut",
    pack: str | bool = "no",
) -> Framing:
    """Decide how a tokenizer's texts are framed.

    Args:
        tokenizer: whose template it is.
        form: of the data.
        max_length: longest example in tokens.
        too_long: see `Framing`.
        pack: likewise; True is "joined" and False "no".

    Raises:
        ValueError: for a `max_length` without room for a text, choices that do not go together, or
            a tokenizer without a token to put between packed texts.
    """
    fields = tokenizer_fields(tokenizer)
    around = (fields["prefix_ids"], fields["suffix_ids"]) if form.framed else ([], [])
    num = len(around[0]) + len(around[1])
    if max_length <= num:
        raise ValueError(
            f"`max_length` must be at least {num + 1} tokens: the tokenizer puts {num} "
            f"special tokens around a text, and a text needs at least one; got {max_length}."
        )
    if isinstance(pack, bool):
        pack = "joined" if pack else "no"
    check_framing(form, too_long, pack)
    end = _end_of_text(tokenizer, fields) if pack == "joined" else None
    prefix_ids, suffix_ids = around
    return Framing(prefix_ids, suffix_ids, max_length, too_long, pack, end)


def check_framing(form: Form, too_long: str, pack: str) -> None:
    """Raise a ValueError for choices that do not exist, or do not go together."""
    for name, value, choices in (
        ("too_long", too_long, TOO_LONG),
        ("pack", pack, _PACKINGS),
    ):
        if value not in choices:
            raise ValueError(f"`{name}` must be one of {', '.join(choices)}, got {value!r}.")
    if form.fixes_tokens and pack == "joined":
        raise ValueError(
            "pack='joined' cuts blocks wherever they are full, and would tear completions from "
            "their prompts. Use pack='separate', which keeps each whole, or 'no'."
        )
    if form.fixes_tokens and too_long == "split":
        raise ValueError(
            "too_long='split' would tear completions from their prompts. Use 'cut', which takes "
            "from the end of the completion, or 'refuse'."
        )


def pack_bodies(bodies: list[list[int]], capacity: int, end_of_text: int) -> list[list[int]]:
    """Close each body with the end-of-text id, join them all and cut the stream into blocks.

    Args:
        bodies: lists of token ids, in order.
        capacity: tokens per block, at least 1; the last block holds what remains.
        end_of_text: id put behind every body.
    """
    # Of the bodies [a, b, c] and [d, e], with room for 4: [a b c .] [d e .], "." the end of text.
    stream = [token for body in bodies for token in (*body, end_of_text)]
    return [stream[i : i + capacity] for i in range(0, len(stream), capacity)]


def _cut(ids: list[int], capacity: int) -> list[slice]:
    return [slice(0, capacity)]


def _split(ids: list[int], capacity: int) -> list[slice]:
    return [slice(i, i + capacity) for i in range(0, len(ids), capacity)]


# What becomes of a text longer than an example: which parts of it are kept. None refuses it.
TOO_LONG: dict[str, Callable[[list[int], int], list[slice]] | None] = {
    "cut": _cut,
    "split": _split,
    "refuse": None,
}


def _parts(bodies: Mapping[str, Sequence[Any]], framing: Framing) -> list[Part]:
    """Cut, split or refuse what is too long."""
    found: list[Part] = []
    keep = TOO_LONG[framing.too_long]
    fixed = bodies.get("maskable") or [None] * len(bodies["input_ids"])
    for ids, maskable, row in zip(bodies["input_ids"], fixed, bodies["row"], strict=True):
        if len(ids) <= framing.capacity:
            found.append((ids, maskable))
            continue
        if keep is None:
            raise FaultyRowError(
                f"The text in row {row} has {len(ids):,} tokens, and an example has room for "
                f"{framing.capacity:,}. Raise `max_length`, or set `too_long` to 'cut' or 'split'.",
                row,
            )
        for part in keep(ids, framing.capacity):
            free = None if maskable is None else maskable[part]
            if free is not None and not any(free):
                raise FaultyRowError(
                    f"What is given in row {row} takes up all of an example's "
                    f"{framing.capacity:,} tokens and leaves no room for what is to be learned. "
                    "Raise `max_length`, or shorten it.",
                    row,
                )
            found.append((ids[part], free))
    return found


def _frame(bodies: Mapping[str, Sequence[Any]], framing: Framing) -> dict[str, list[Any]]:
    return _columns([_framed(part, framing) for part in _parts(bodies, framing)])


def _framed(part: Part, framing: Framing) -> Part:
    ids, maskable = part
    before, behind = framing.prefix_ids, framing.suffix_ids
    if maskable is not None:
        maskable = [*[0] * len(before), *maskable, *[0] * len(behind)]
    return [*before, *ids, *behind], maskable


def _columns(examples: list[Part]) -> dict[str, list[Any]]:
    made: dict[str, list[Any]] = {
        "input_ids": [ids for ids, _ in examples],
        "num_tokens": [len(ids) for ids, _ in examples],
    }
    if examples and examples[0][1] is not None:
        made["maskable"] = [maskable for _, maskable in examples]
    return made


def _join(bodies: Mapping[str, Sequence[Any]], framing: Framing) -> dict[str, list[Any]]:
    assert framing.end_of_text is not None
    blocks = pack_bodies(list(bodies["input_ids"]), framing.capacity, framing.end_of_text)
    return _columns([_framed((block, None), framing) for block in blocks])


def _pack(bodies: Mapping[str, Sequence[Any]], framing: Framing) -> dict[str, list[Any]]:
    """Put whole framed texts side by side: each into the first block that has room for it."""
    blocks: list[list[Part]] = []
    room: list[int] = []
    for ids, maskable in _parts(bodies, framing):
        # Told here, as only the outermost framing of a block is found by its ids.
        part = _framed((ids, [1] * len(ids) if maskable is None else maskable), framing)
        size = len(part[0])
        recent = range(max(0, len(blocks) - _OPEN_BLOCKS), len(blocks))
        place = next((number for number in recent if room[number] >= size), None)
        if place is None:
            place = len(blocks)
            blocks.append([])
            room.append(framing.max_length)
        blocks[place].append(part)
        room[place] -= size
    made = _columns(
        [
            (
                [i for ids, _ in block for i in ids],
                [free for _, maskable in block for free in maskable or ()],
            )
            for block in blocks
        ]
    )
    made["document_ids"] = [
        [number for number, (ids, _) in enumerate(block, 1) for _ in ids] for block in blocks
    ]
    return made


# How examples are filled.
_PACKINGS: dict[str, Callable[[Mapping[str, Sequence[Any]], Framing], dict[str, list[Any]]]] = {
    "no": _frame,
    "joined": _join,
    "separate": _pack,
}
PACKINGS = tuple(_PACKINGS)


def _end_of_text(tokenizer: PreTrainedTokenizerBase, fields: dict[str, Any]) -> int:
    if fields["eos_token_id"] is None:
        raise ValueError(
            f"{type(tokenizer).__name__} has neither an end-of-text nor a separator token to put "
            "between packed texts. Add one, or train without `pack`."
        )
    return int(fields["eos_token_id"])
