"""From texts to training examples: tokenise, then frame or pack, and report what became of them.

Whatever is cut or dropped is counted and reported.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from ..core.unknown_tokens import Reading
from .framing import BATCH, Framing, framing_of
from .tokenising import Form, reading_of, tokenize_texts


@dataclass(frozen=True)
class DataReport:
    """What became of the texts. All fields count from 0.

    Attributes:
        texts: texts, without the empty ones.
        examples: training examples made of them.
        tokens: tokens of all examples, framing included.
        cut_texts, cut_tokens: texts longer than an example, and tokens cut off from them.
        empty_texts: texts dropped because no token of theirs could be masked.
        words, unknown_words: of the texts, and those of them that the tokenizer does not know.
        sources: of a mixture, how many texts each source gives, by its name.
        filled: share of the room in the blocks that tokens take up; None where nothing is packed.
    """

    texts: int
    examples: int
    tokens: int
    cut_texts: int
    cut_tokens: int
    empty_texts: int = 0
    words: int = 0
    unknown_words: int = 0
    sources: Mapping[str, int] = field(default_factory=dict)
    filled: float | None = None

    @property
    def reading(self) -> Reading:
        """How much of the texts the tokenizer knew."""
        return Reading(self.words, self.unknown_words)

    def __str__(self) -> str:
        """Say it in a few sentences."""
        mixed = ", ".join(f"{count:,} of {name}" for name, count in self.sources.items())
        return (
            f"{self.texts:,} texts became {self.examples:,} examples of {self.tokens:,} tokens; "
            f"{self.cut_texts:,} texts were too long and lost {self.cut_tokens:,} tokens. "
            f"{self.reading.percent} of the words are unknown to the tokenizer."
            + (f" Its sources: {mixed}." if mixed else "")
            + ("" if self.filled is None else f" The blocks are filled to {self.filled:.1%}.")
        )


def hold_out(texts: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Split texts at random into a training and a held-out part, the same for the same seed.

    Args:
        texts: at least 2 rows.
        fraction: share of the texts that is held out, in (0, 1); at least one text.
        seed: of the random choice.

    Raises:
        ValueError: when either part would be empty.
    """
    held_out = max(1, round(len(texts) * fraction))
    if not 0 < fraction < 1 or held_out >= len(texts):
        raise ValueError(
            "`validation_fraction` must lie between 0 and 1 and leave texts to learn from, got "
            f"{fraction} of {len(texts)} texts."
        )
    parts = texts.train_test_split(test_size=held_out, seed=seed)
    return parts["train"], parts["test"]


def hold_out_groups(
    texts: Dataset, column: str, fraction: float, seed: int
) -> tuple[Dataset, Dataset]:
    """Split texts into a training and a held-out part, with no group on both sides.

    Neighbouring texts (the verses of a chapter, say) share phrases, which would leak.

    Args:
        texts: at least 2 groups.
        column: integers that name each text's group.
        fraction: share of the groups that is held out, rounded.
        seed: of the random choice.
    """
    group_of = torch.tensor(texts[column][:])
    groups = group_of.unique()
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed))
    held_out = torch.isin(group_of, groups[order[: round(fraction * len(groups))]])
    rows = [part.nonzero().squeeze(1) for part in (~held_out, held_out)]
    return texts.select(rows[0]), texts.select(rows[1])


def evenly_spaced(dataset: Dataset, limit: int | None) -> Dataset:
    """Keep `limit` rows spread over the whole data set, always the same ones; None keeps all."""
    if limit is None or limit >= len(dataset):
        return dataset
    return dataset.select([i * len(dataset) // limit for i in range(limit)])


def check_max_length(max_length: int, max_positions: int | None) -> None:
    """Raise a ValueError when examples would be longer than what the encoder takes.

    Args:
        max_length: longest example in tokens, framing included.
        max_positions: `model.max_positions`; None is no limit.
    """
    if max_positions is not None and max_length > max_positions:
        raise ValueError(
            f"`max_length` is {max_length} tokens, but the encoder takes {max_positions} at most; "
            f"set max_length={max_positions} or less."
        )


def prepare_examples(
    texts: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    text_column: str = "text",
    max_length: int = 512,
    pack: str | bool = "no",
    too_long: str = "cut",
    drop_empty_texts: bool = False,
    num_proc: int | None = None,
    max_unknown_share: float | None = None,
    form: Form | None = None,
) -> tuple[Dataset, DataReport]:
    """Turn texts into examples for `DataCollatorForMaskGit`.

    Args:
        texts: a data set with a column of strings.
        tokenizer: one with a mask token.
        text_column: name of that column.
        max_length: longest example in tokens, framing included.
        pack: "joined" joins the texts and cuts blocks of `max_length` tokens (the last block of
            every 1,000 texts is shorter; nothing is lost), instead of one example per text ("no").
            True is "joined".
        too_long: "cut" what exceeds `max_length`, "split" it into several examples, or "refuse".
        drop_empty_texts: drop texts that tokenise to nothing instead of refusing them.
        num_proc: processes that tokenise; None tokenises in this one.
        max_unknown_share: see `Tolerance`; None is its default.
        form: of rows that hold anything else than a text, instead of `text_column`.

    Returns:
        A data set with the columns `input_ids` (list of ids), `example_id` (row number, the key
        of the example's noise) and what `Framing` adds, and the report of what was cut or dropped.

    Raises:
        ValueError: for a missing mask token or column, texts that are empty or hold the mask or
            the padding token, and a `max_length` without room for a text.
    """
    form = form or Form(text_column)
    bodies = tokenize_texts(texts, tokenizer, form, drop_empty_texts, num_proc, max_unknown_share)
    framing = framing_of(tokenizer, form, max_length=max_length, too_long=too_long, pack=pack)
    examples, report = frame_texts(bodies, framing)
    return examples, replace(report, empty_texts=len(texts) - len(bodies))


def frame_texts(bodies: Dataset, framing: Framing) -> tuple[Dataset, DataReport]:
    """Frame or pack tokenised texts; result as for `prepare_examples`.

    Args:
        bodies: from `tokenize_texts`.
        framing: how.

    Raises:
        FaultyRowError: for a text that is too long, where that is refused.
    """
    examples = bodies.map(
        _frame,
        batched=True,
        batch_size=BATCH,
        remove_columns=bodies.column_names,
        fn_kwargs=framing.as_arguments(),
        desc="Framing texts" if framing.pack == "no" else "Packing texts",
    )
    # Lengths are a column of their own, so that no id has to be read again to count them.
    lengths = bodies.with_format("numpy")["num_tokens"][:]
    excess = (lengths - framing.capacity).clip(min=0)
    cut = excess if framing.cuts else np.zeros_like(lengths)
    reading = reading_of(bodies)
    tokens = int(examples.with_format("numpy")["num_tokens"][:].sum())
    room = len(examples) * framing.max_length
    report = DataReport(
        texts=len(bodies),
        examples=len(examples),
        tokens=tokens,
        cut_texts=int((cut > 0).sum()),
        cut_tokens=int(cut.sum()),
        words=reading.words,
        unknown_words=reading.unknown,
        filled=None if framing.pack == "no" else tokens / room,
    )
    return _numbered(examples.remove_columns("num_tokens")), report


def _numbered(examples: Dataset) -> Dataset:
    """Give each example the key of its noise, wherever it is shuffled to."""
    return examples.add_column("example_id", np.arange(len(examples)))


def _frame(bodies: dict[str, list[Any]], **framing: Any) -> dict[str, list[Any]]:
    return Framing(**framing)(bodies)
