"""A context and what may follow it, as token ids: split where the text is, never by a length.

Both are tokenised as one text *without* special tokens, which is how a model met such texts, and
the framing is put around afterwards. Tokenised with them, `[CLS] context [SEP]` and `[CLS] context
continuation [SEP]` share no beginning as long as the context: who cuts the second by the length of
the first judges `[SEP]` alone where the continuation is a single token.
"""

from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

_SHOWN = 60  # characters of a text in a sentence about it


class Pair(NamedTuple):
    """Token ids of a context and of its continuation, which make up the ids of the whole text.

    Attributes:
        context_ids: without special tokens of a frame.
        continuation_ids: likewise, at least one.
        merged: whether letters of the context went into the first token of the continuation.
    """

    context_ids: list[int]
    continuation_ids: list[int]
    merged: bool


def split_pair(tokenizer: PreTrainedTokenizerBase, context: str, continuation: str) -> Pair:
    """Tokenise a context with its continuation, and tell which tokens are whose.

    Of `" the cat"` and `" sat"` the tokens are those of `" the cat sat"`. A token that holds the
    end of the context and the beginning of the continuation is the continuation's: where the space
    between them belongs to a word, say, or where both are pieces of one word.

    Args:
        tokenizer: of the model.
        context: may be empty.
        continuation: what is judged.

    Raises:
        ValueError: for a continuation that adds no token, and for the mask token in either, which
            would be read as hidden.
    """
    whole, given, without_space = (
        list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
        for text in (context + continuation, context, context.rstrip())
    )
    if tokenizer.mask_token_id in whole:
        raise ValueError(
            f"The text {(context + continuation)[:_SHOWN]!r} holds the mask token "
            f"{tokenizer.mask_token!r}, and only whole texts are judged. Leave it out, or write it "
            "otherwise."
        )
    shared = next(
        (i for i, (one, other) in enumerate(zip(whole, given, strict=False)) if one != other),
        min(len(whole), len(given)),
    )
    if shared == len(whole):
        raise ValueError(
            f"The continuation {continuation[:_SHOWN]!r} of {context[-_SHOWN:]!r} has no token of "
            "its own for this tokenizer, so nothing of it can be judged. Give it letters."
        )
    return Pair(whole[:shared], whole[shared:], shared < len(without_space))


def framed_example(
    context_ids: list[int], judged_ids: list[int], prefix_ids: list[int], suffix_ids: list[int]
) -> dict[str, Any]:
    """Put the framing around a context and what is judged.

    Returns:
        `input_ids`, and `maskable`, 1 at what is judged.
    """
    given = len(prefix_ids) + len(context_ids)
    maskable = [0] * given + [1] * len(judged_ids) + [0] * len(suffix_ids)
    return {
        "input_ids": [*prefix_ids, *context_ids, *judged_ids, *suffix_ids],
        "maskable": maskable,
    }
