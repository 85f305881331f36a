"""Examples filled with ends of text up to a window, so that a model learns where texts end.

Without it an example is as long as its text, and a model writes exactly as many tokens as it is
asked for. Here a text shorter than the window is followed by ends of text, which are masked and
count in the loss like every token:

    [CLS] a b c [SEP]    becomes, with a window of 8,    [CLS] a b c . . . [SEP]

("." the end of text, in BERT the separator). All windows are of one size, or an example's size
would tell where its text ends. Decoding that starts from a window of masks then draws the length
along with the text; what stands behind the first end is cut off.
"""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from datasets import Dataset, IterableDataset
from transformers import PreTrainedTokenizerBase

from ..core.special_tokens import tokenizer_fields
from .lengths import example_sizes

logger = logging.getLogger(__name__)

Examples = TypeVar("Examples", Dataset, IterableDataset)

LAST = object()  # as the last token has it
# What stands at an end of text in each column of the tokens; None is the end's own id.
FILLERS: dict[str, Any] = {
    "input_ids": None,
    "labels": None,
    "attention_mask": 1,
    "token_type_ids": LAST,
    "maskable": 1,
}


def fill_ends(examples: Examples, tokenizer: PreTrainedTokenizerBase, window: int) -> Examples:
    """Fill examples that are shorter than a window with ends of text.

    Args:
        examples: framed, with a column `input_ids`; `attention_mask`, `token_type_ids`, `maskable`
            and `labels`, where there are any, are filled likewise. Of a prompt with its completion
            (`maskable` 0 at the prompt) the completion is filled.
        tokenizer: knows the framing, and what ends a text.
        window: tokens of a filled example, framing included. One that is as long or longer stays
            as it is: it shows no end.

    Returns:
        The same examples, filled. Say `config.end_fill = window` of the model that learns from
        them: `generate(num_tokens="window")` reads it.

    Raises:
        ValueError: for a tokenizer that ends no text, or a window without room for a text.
    """
    fill_one = filler_of(tokenizer, window)
    columns = getattr(examples, "column_names", None) or []
    known = [name for name in FILLERS if name in columns] if columns else list(FILLERS)

    def fill(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        rows = [dict(zip(batch, row, strict=True)) for row in zip(*batch.values(), strict=True)]
        filled = [fill_one(row) for row in rows]
        return {name: [row[name] for row in filled] for name in known if name in batch}

    told = {"desc": "Filling with ends of text"}
    described: dict[str, Any] = told if isinstance(examples, Dataset) else {}
    return examples.map(fill, batched=True, **described)


def filler_of(
    tokenizer: PreTrainedTokenizerBase, window: int
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Return what fills one example with ends of text; see `fill_ends`, also for the errors."""
    fields = tokenizer_fields(tokenizer)
    check_window(window, fields)
    return partial(
        filled_example,
        window=window,
        end=int(fields["eos_token_id"]),
        suffix_ids=fields["suffix_ids"],
    )


def filled_example(
    example: Mapping[str, Any], window: int, end: int, suffix_ids: list[int]
) -> dict[str, Any]:
    """Put ends of text behind the text of one example, before the framing that closes it.

    Args:
        example: columns of the tokens, lists or arrays.
        window: tokens there are to be.
        end: id of the end of text.
        suffix_ids: the framing behind a text.

    Returns:
        All its columns, those of `FILLERS` filled.
    """
    ids = list(example["input_ids"])
    missing = max(0, window - len(ids))
    closing = len(suffix_ids) if suffix_ids and ids[-len(suffix_ids) :] == suffix_ids else 0
    filled = dict(example)
    for name, filler in FILLERS.items():
        if name in example and example[name] is not None:
            values = list(example[name])
            value = end if filler is None else values[-1] if filler is LAST else filler
            behind = len(values) - closing
            filled[name] = [*values[:behind], *[value] * missing, *values[behind:]]
    return filled


def check_window(window: int, fields: Mapping[str, Any]) -> None:
    """Refuse a window that cannot be filled.

    Args:
        window: tokens of a filled example.
        fields: from `tokenizer_fields`.

    Raises:
        ValueError: where there is nothing to fill it with, or no room for a text.
    """
    if fields["eos_token_id"] is None:
        raise ValueError(
            "The tokenizer has neither an end-of-text nor a separator token to fill texts with. "
            "Add one, or train without `end_fill`."
        )
    framing = len(fields["prefix_ids"]) + len(fields["suffix_ids"])
    if type(window) is not int or window < framing + 2:
        raise ValueError(
            f"`end_fill` must be at least {framing + 2} tokens: the tokenizer puts {framing} "
            f"around a text, and a text of one token needs one more to end; got {window!r}."
        )


def fill_and_tell(
    what: str, examples: Dataset, tokenizer: PreTrainedTokenizerBase, window: int | None
) -> Dataset:
    """Fill examples as `fill_ends` does and log how many had room; None leaves them as they are.

    Args:
        what: they are, for the log.
        examples: see `fill_ends`.
        tokenizer: see there.
        window: see there, or None.
    """
    if window is None:
        return examples
    filled = fill_ends(examples, tokenizer, window)
    added = example_sizes(filled) - example_sizes(examples)
    if not added.any():
        raise ValueError(
            f"No example is shorter than end_fill={window} tokens, so that none shows where its "
            "text ends. Set `end_fill`, and `max_length` with it, above the length of most texts."
        )
    logger.info(
        "%s data: %s of %s examples were shorter than the window of %d tokens and got %s ends of "
        "text; the others show none.",
        what,
        f"{(added > 0).sum():,}",
        f"{len(added):,}",
        window,
        f"{added.sum():,}",
    )
    return filled
