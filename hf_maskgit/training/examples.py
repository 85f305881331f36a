"""From texts to training examples: tokenise, then frame or pack.

A text becomes body ids, without any special token around them. A training example is

    prefix + body + suffix

with the tokenizer's own template (`[CLS] ... [SEP]` in BERT) as prefix and suffix. *Framing* makes
one example of each text and cuts what is too long; *packing* joins the texts, each closed by the
end-of-text token, and cuts the stream into blocks, so that no token is lost and nothing is padded.
Whatever is cut or dropped is counted and reported.
"""

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict, IterableDataset
from transformers import PreTrainedTokenizerBase

from ..core.special_tokens import never_emitted, padding_alone, tokenizer_fields
from ..core.text_reader import TextReader
from ..core.unknown_tokens import Reading, check_read, sum_of

logger = logging.getLogger(__name__)

_ROWS_WITH_EXAMPLES = 10  # texts that are looked through for examples of unknown words
_PACKING_BATCH = 1000  # texts joined into one stream; the last block of each stream is shorter


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
    """

    texts: int
    examples: int
    tokens: int
    cut_texts: int
    cut_tokens: int
    empty_texts: int = 0
    words: int = 0
    unknown_words: int = 0

    @property
    def reading(self) -> Reading:
        """How much of the texts the tokenizer knew."""
        return Reading(self.words, self.unknown_words)

    def __str__(self) -> str:
        """Say it in two sentences."""
        return (
            f"{self.texts:,} texts became {self.examples:,} examples of {self.tokens:,} tokens; "
            f"{self.cut_texts:,} texts were too long and lost {self.cut_tokens:,} tokens. "
            f"{self.reading.percent} of the words are unknown to the tokenizer."
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
    pack: bool = False,
    drop_empty_texts: bool = False,
    num_proc: int | None = None,
    max_unknown_share: float | None = None,
) -> tuple[Dataset, DataReport]:
    """Turn texts into examples for `DataCollatorForMaskGit`.

    Args:
        texts: a data set with a column of strings.
        tokenizer: one with a mask token.
        text_column: name of that column.
        max_length: longest example in tokens, framing included.
        pack: join the texts and cut blocks of `max_length` tokens (the last block of every 1,000
            texts is shorter; nothing is lost), instead of one example per text (what exceeds
            `max_length` is cut off).
        drop_empty_texts: drop texts that tokenise to nothing instead of refusing them.
        num_proc: processes that tokenise; None tokenises in this one.
        max_unknown_share: see `Tolerance`; None is its default.

    Returns:
        A data set with the columns `input_ids` (list of ids) and `example_id` (row number, the key
        of the example's noise), and the report of what was cut or dropped.

    Raises:
        ValueError: for a missing mask token or column, texts that are empty or hold the mask or
            the padding token, and a `max_length` without room for a text.
    """
    bodies = tokenize_texts(
        texts, tokenizer, text_column, drop_empty_texts, num_proc, max_unknown_share
    )
    examples, report = frame_texts(bodies, tokenizer, max_length=max_length, pack=pack)
    return examples, replace(report, empty_texts=len(texts) - len(bodies))


def frame_texts(
    bodies: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int = 512,
    pack: bool = False,
) -> tuple[Dataset, DataReport]:
    """Frame or pack tokenised texts; arguments and result as for `prepare_examples`.

    Args:
        bodies: from `tokenize_texts`.
        tokenizer: the same.
        max_length: longest example in tokens, framing included.
        pack: whether to pack.

    Raises:
        ValueError: for a `max_length` without room for a text, or a tokenizer without a token to
            put between packed texts.
    """
    fields = tokenizer_fields(tokenizer)
    capacity = _body_capacity(max_length, fields["prefix_ids"], fields["suffix_ids"])
    examples = bodies.map(
        _frame,
        batched=True,
        batch_size=_PACKING_BATCH,
        input_columns="input_ids",
        remove_columns=bodies.column_names,
        fn_kwargs={
            "prefix_ids": fields["prefix_ids"],
            "suffix_ids": fields["suffix_ids"],
            "capacity": capacity,
            "end_of_text": _end_of_text(tokenizer, fields) if pack else None,
        },
        desc="Packing texts" if pack else "Framing texts",
    )
    # Lengths are a column of their own, so that no id has to be read again to count them.
    lengths = bodies.with_format("numpy")["num_tokens"][:]
    cut = np.zeros_like(lengths) if pack else (lengths - capacity).clip(min=0)
    reading = reading_of(bodies)
    report = DataReport(
        texts=len(bodies),
        examples=len(examples),
        tokens=int(examples.with_format("numpy")["num_tokens"][:].sum()),
        cut_texts=int((cut > 0).sum()),
        cut_tokens=int(cut.sum()),
        words=reading.words,
        unknown_words=reading.unknown,
    )
    ids = np.arange(len(examples))  # the key of each example's noise, wherever it is shuffled to
    return examples.remove_columns("num_tokens").add_column("example_id", ids), report


def tokenize_texts(
    texts: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    text_column: str = "text",
    drop_empty_texts: bool = False,
    num_proc: int | None = None,
    max_unknown_share: float | None = None,
) -> Dataset:
    """Tokenise a column without framing and without cutting; see `prepare_examples`.

    Returns:
        A data set with the columns `input_ids` and `num_tokens`, and of `Reading` `num_words`,
        `num_unknown` and `unknown_words` (a line each), one row per text that is not empty.

    Raises:
        ValueError: for a stream or anything else that is no data set with rows to be numbered; and
            naming the row, for a text that is no string, tokenises to nothing (unless
            `drop_empty_texts`) or holds the mask or the padding token; and for texts that are
            mostly unknown to the tokenizer.
    """
    _check_is_dataset(texts)
    if text_column not in texts.column_names:
        raise ValueError(
            f"The data set has no column {text_column!r}; its columns are {texts.column_names}. "
            "Name the one that holds the texts with `text_column`."
        )

    fields = tokenizer_fields(tokenizer)
    hidden = never_emitted(fields)  # a text of these alone teaches nothing
    padding = padding_alone(tokenizer, fields)
    reader = TextReader(tokenizer)

    def tokenize(batch: list[str], rows: list[int]) -> dict[str, list[Any]]:
        for text, row in zip(batch, rows, strict=True):
            if not isinstance(text, str):
                raise ValueError(
                    f"Row {row} of column {text_column!r} holds {type(text).__name__}, not a text."
                )
        encoded = tokenizer(batch, add_special_tokens=False, verbose=False)
        kept, read = [], []
        readings = reader.read(batch, encoded)
        for body, reading, row in zip(encoded["input_ids"], readings, rows, strict=True):
            _check_lacks(body, row, tokenizer, tokenizer.mask_token_id, "mask")
            if not hidden.issuperset(body):
                _check_lacks(body, row, tokenizer, padding, "padding")  # batches would not tell
                kept.append(body)
                read.append(reading)
            elif not drop_empty_texts:
                raise ValueError(
                    f"The text in row {row} has no token that could be masked. Remove it, or "
                    "set `drop_empty_texts` to drop such texts and report their number."
                )
        return {
            "input_ids": kept,
            "num_tokens": [len(body) for body in kept],
            "num_words": [reading.words for reading in read],
            "num_unknown": [reading.unknown for reading in read],
            "unknown_words": ["\n".join(reading.examples) for reading in read],
        }

    bodies = texts.map(
        tokenize,
        batched=True,
        with_indices=True,
        input_columns=text_column,
        remove_columns=texts.column_names,
        num_proc=num_proc,
        desc="Tokenising",
    )
    if len(bodies) == 0:
        raise ValueError(f"All {len(texts)} texts of column {text_column!r} are empty.")
    if len(bodies) < len(texts):
        logger.info("%d empty texts of %d were dropped.", len(texts) - len(bodies), len(texts))
    check_read(reading_of(bodies), f"the texts in column {text_column!r}", max_unknown_share)
    return bodies


def reading_of(bodies: Dataset) -> Reading:
    """Add up how much of the texts from `tokenize_texts` the tokenizer knew."""
    columns = bodies.with_format("numpy")
    unknown = columns["num_unknown"][:]
    rows = bodies.select(unknown.nonzero()[0][:_ROWS_WITH_EXAMPLES])
    examples = sum_of(Reading(examples=tuple(text.split("\n"))) for text in rows["unknown_words"])
    return Reading(int(columns["num_words"][:].sum()), int(unknown.sum()), examples.examples)


def batches_of_one_length(examples: Dataset, size: int, seed: int) -> list[list[int]]:
    """Put examples of about the same length together: half of the work may be padding otherwise.

    Args:
        examples: column `input_ids`.
        size: examples per batch; those that fill none are left out.
        seed: of the order of the batches, and of the order among examples of equal length.

    Returns:
        Rows of each batch, as a `batch_sampler` gives them.
    """
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([len(ids) for ids in examples["input_ids"]])
    # less than one token of noise: it mixes equal lengths and keeps the others in order
    by_length = (lengths + torch.rand(len(lengths), generator=generator)).argsort()
    batches = by_length[: len(lengths) // size * size].view(-1, size)
    return batches[torch.randperm(len(batches), generator=generator)].tolist()


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


def _check_is_dataset(texts: Any) -> None:
    if isinstance(texts, Dataset):
        return
    if isinstance(texts, IterableDataset):
        raise ValueError(
            "The texts are a stream, an IterableDataset, whose rows have no number; each example's "
            "masks are keyed by one, and every pass shuffles them all. Take a part as a data set, "
            "`Dataset.from_list(list(stream.take(100_000)))`, or load it without `streaming`."
        )
    advice = (
        f"name one of its splits {sorted(texts)}"
        if isinstance(texts, DatasetDict)
        else ("make one, for example with `Dataset.from_dict({'text': texts})`")
    )
    raise ValueError(
        f"The texts must be a `datasets.Dataset`, got {type(texts).__name__}; {advice}."
    )


def _check_lacks(body: list[int], row: int, tokenizer: Any, token: int | None, role: str) -> None:
    if token in body:
        raise ValueError(
            f"The text in row {row} contains the {role} token "
            f"{tokenizer.convert_ids_to_tokens(token)!r} itself, which no text may hold: it marks "
            f"what is {'hidden' if role == 'mask' else 'no text'}. Remove it from the text."
        )


def _body_capacity(max_length: int, prefix_ids: list[int], suffix_ids: list[int]) -> int:
    framing = len(prefix_ids) + len(suffix_ids)
    if max_length <= framing:
        raise ValueError(
            f"`max_length` must be at least {framing + 1} tokens: the tokenizer puts {framing} "
            f"special tokens around a text, and a text needs at least one; got {max_length}."
        )
    return max_length - framing


def _end_of_text(tokenizer: PreTrainedTokenizerBase, fields: dict[str, Any]) -> int:
    if fields["eos_token_id"] is None:
        raise ValueError(
            f"{type(tokenizer).__name__} has neither an end-of-text nor a separator token to put "
            "between packed texts. Add one, or train without `pack`."
        )
    return int(fields["eos_token_id"])


def _frame(
    bodies: list[list[int]],
    prefix_ids: list[int],
    suffix_ids: list[int],
    capacity: int,
    end_of_text: int | None,
) -> dict[str, list[Any]]:
    if end_of_text is None:
        parts = [body[:capacity] for body in bodies]
    else:
        parts = pack_bodies(bodies, capacity, end_of_text)
    examples = [[*prefix_ids, *part, *suffix_ids] for part in parts]
    return {"input_ids": examples, "num_tokens": [len(example) for example in examples]}
