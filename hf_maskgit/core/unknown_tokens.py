"""What a tokenizer did not know of a text: counted where texts come in, warned of, refused.

A word that is not in the vocabulary becomes the unknown token. Nothing of it reaches the model, and
a text of unknown tokens alone is learned and predicted without a fault; so a tokenizer that does
not fit its texts shows in no loss and in no bound. Texts are counted by words, since one unknown
token may stand for a whole text (`text_reader` counts them); where only ids are left, by tokens.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from .options import check, option, options_of

logger = logging.get_logger(__name__)

_WORTH_A_WARNING = 0.01  # share of unknown words; vocabularies that fit their texts stay below
_MOST_EXAMPLES = 3

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
        *others, last = map(repr, self.examples or [""])
        shown = f"{', '.join(others)} and {last}" if others else last
        return (
            f"The tokenizer does not know {self.unknown:,} of the {self.words:,} {self.noun} of "
            f"{what} ({self.percent}){', such as ' + shown if self.examples else ''}"
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


def has_other_role(tokenizer: PreTrainedTokenizerBase, unknown_id: int) -> bool:
    """Tell whether the unknown token also ends, begins, pads or masks a text."""
    named = ("mask", "pad", "bos", "eos", "cls", "sep")
    return unknown_id in {getattr(tokenizer, f"{role}_token_id") for role in named}


def read_examples(
    examples: Iterable[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase
) -> Reading:
    """Count the unknown tokens of examples with `input_ids`, in one pass over them."""
    unknown_id = unknown_id_of(tokenizer)
    if unknown_id is None or has_other_role(tokenizer, unknown_id) or _COUNTED.get():
        return Reading(noun="tokens")
    special = set(tokenizer.all_special_ids) - {unknown_id}
    tokens, unknown = 0, 0
    for example in examples:
        ids = example["input_ids"]
        row: list[int] = ids.tolist() if hasattr(ids, "tolist") else list(ids)
        tokens += len(row) - sum(map(special.__contains__, row))
        unknown += row.count(unknown_id)
    return Reading(tokens, unknown, noun="tokens")


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


class RunningCount:
    """Watches the batches of a training for unknown tokens.

    The first batch is refused where it is mostly unknown; of what comes later a warning is given,
    once. A run that has begun is never stopped for one batch.

    Args:
        fields: the token fields of `MaskGitConfig` by name.
        max_unknown_share: see `Tolerance`.
    """

    def __init__(self, fields: Mapping[str, Any], max_unknown_share: float | None = None) -> None:
        self.fields, self.limit = fields, checked_limit(max_unknown_share)
        self.seen, self.is_told = Reading(noun="tokens"), False

    def add(self, input_ids: Tensor, attention_mask: Tensor) -> None:
        """Count a batch of clean texts, (B, L) long with (B, L), 1 at real tokens.

        Raises:
            ValueError: for a first batch that is mostly unknown.
        """
        config = SimpleNamespace(**self.fields)
        before, rows = self.seen, read_ids_of(config, input_ids, attention_mask)
        self.seen = sum_of([before, *rows], "tokens")
        if before.words == 0:
            check_read(self.seen, "the first batch", self.limit)
        elif not self.is_told:
            check_read(self.seen, "the batches so far", 1)
        self.is_told |= self.seen.share > _WORTH_A_WARNING


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
    readings = read_ids_of(config, input_ids, attention_mask)
    check_each_read(readings, lambda i: f"row {i} of {name}", name, max_unknown_share)


def check_each_read(
    readings: Sequence[Reading],
    one: Callable[[int], str],
    together: str,
    max_unknown_share: float | None = None,
) -> None:
    """Refuse a text among several of which too much is unknown; warn of all in one sentence.

    Args:
        readings: of the texts.
        one: names a text by its number.
        together: names all of them.
        max_unknown_share: see `Tolerance`.

    Raises:
        ValueError: naming the first such text.
    """
    limit = checked_limit(max_unknown_share)
    for i, reading in enumerate(readings):
        if reading.share > limit:
            check_read(reading, one(i), limit)
    check_read(sum_of(readings, readings[0].noun if readings else "words"), together, limit)
