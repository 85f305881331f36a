"""What a configuration stores of a tokenizer: its special ids and what it puts around a text."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase


def never_emitted(fields: Mapping[str, Any]) -> set[int]:
    """Return the special ids that are no prediction: all but the end of text and the unknown token.

    Args:
        fields: the token fields of `MaskGitConfig` by name, as `tokenizer_fields` returns them.
    """
    ids = set(fields["special_token_ids"] or [])
    ids |= {fields["mask_token_id"], fields["pad_token_id"], fields["bos_token_id"]}
    return ids - {fields["eos_token_id"], fields["unk_token_id"], None}


def tokenizer_fields(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Read off a tokenizer what `MaskGitConfig` stores about it.

    `bos_token_id` and `eos_token_id` fall back to the classification and separator tokens, which
    play these parts in BERT.

    Raises:
        ValueError: when the tokenizer has no mask token of its own.
    """
    if tokenizer.mask_token_id is None:
        raise ValueError(
            f"{type(tokenizer).__name__} has no mask token, without which nothing can be masked. "
            'Add one with tokenizer.add_special_tokens({"mask_token": "[MASK]"}) and give the '
            "encoder a row for it with resize_token_embeddings(len(tokenizer))."
        )
    if tokenizer.mask_token_id == tokenizer.unk_token_id:
        raise ValueError(
            f"The tokenizer names {tokenizer.mask_token!r} as its mask token but does not know "
            "it: it becomes the unknown token, so that every unknown word would be a mask. Add it "
            "with tokenizer.add_special_tokens."
        )
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    prefix_ids, suffix_ids = framing(tokenizer)
    return {
        "mask_token_id": tokenizer.mask_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.cls_token_id if bos is None else bos,
        "eos_token_id": tokenizer.sep_token_id if eos is None else eos,
        "unk_token_id": tokenizer.unk_token_id,
        "special_token_ids": sorted(set(tokenizer.all_special_ids)),
        "prefix_ids": prefix_ids,
        "suffix_ids": suffix_ids,
        # The highest id and not the number of tokens, because a vocabulary may have gaps.
        "num_token_ids": max(tokenizer.get_vocab().values()) + 1,
    }


def framing(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the ids that the tokenizer's template puts before and behind one text.

    Found by asking, not by looking for special ids: an unknown token inside a text is no framing.
    """
    framed = list(tokenizer(tokenizer.mask_token)["input_ids"])
    bare = list(tokenizer(tokenizer.mask_token, add_special_tokens=False)["input_ids"])
    # [CLS] [MASK] [SEP] beside [MASK]: what stands before and behind it is the template. The mask
    # alone may become more than one id, where a tokenizer puts a space of its own before a text.
    start = framed.index(bare[0])
    return framed[:start], framed[start + len(bare) :]
