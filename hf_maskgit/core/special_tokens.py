"""What the library knows of its tokens: what a tokenizer says, and which part each id can play.

One id may play several parts: GPT-2's only special token begins a text, ends it, pads it and stands
for what is unknown. What follows from that is decided here and nowhere else. Of the lines that fit
an id, the first counts:

| an id that ... | labelled in training | drawn at random | written by `generate` |
|---|---|---|---|
| is the mask, or has no text | no | no | no |
| ends a text | yes | no | yes, behind all that is known |
| stands for what is unknown | yes | no | no |
| frames a text, pads it, or is special | no | no | no |
| is none of these | yes | yes | yes |

Padding that is also the end or the unknown token is told from it by the attention mask alone.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase

from .token_pattern import fingerprint

# The parts that one id can have, as `MaskGitConfig` names them.
SINGLE_IDS = ("mask_token_id", "pad_token_id", "bos_token_id", "eos_token_id", "unk_token_id")


def special_ids(fields: Mapping[str, Any]) -> set[int]:
    """Return the ids that play any part but that of a word; none of them is drawn at random.

    Args:
        fields: the token fields of `MaskGitConfig` by name, as `tokenizer_fields` returns them.
    """
    ids = {fields[name] for name in SINGLE_IDS} - {None}
    for name in ("special_token_ids", "prefix_ids", "suffix_ids"):
        ids |= set(fields[name] or [])
    return ids


def never_emitted(fields: Mapping[str, Any], num_rows: int | None = None) -> set[int]:
    """Return the ids that are no prediction: their probability is 0, and no label holds them.

    Args:
        fields: see `special_ids`.
        num_rows: rows of the embedding table; None leaves out those behind the tokenizer's ids.
    """
    ids = special_ids(fields) - {fields["eos_token_id"], fields["unk_token_id"]}
    ids |= {fields["mask_token_id"]} - {None}
    ids |= set(fields.get("unassigned_token_ids") or [])
    if num_rows is not None and fields["num_token_ids"] is not None:
        ids |= set(range(fields["num_token_ids"], num_rows))
    return ids


def never_written(fields: Mapping[str, Any], num_rows: int | None = None) -> set[int]:
    """Return the ids that never stand in a text of the model's: `never_emitted` and the unknown.

    The unknown token may stand in a text of the user's, so it has probability in the loss; nobody
    wants to read it. Where it also ends a text it is written for that.

    Args:
        fields: see `special_ids`.
        num_rows: see `never_emitted`.
    """
    unknown = {fields["unk_token_id"]} - {fields["eos_token_id"], None}
    return never_emitted(fields, num_rows) | unknown


def ordinary_ids(fields: Mapping[str, Any]) -> list[int]:
    """Return the ids that random tokens are drawn from, sorted: what has a text and no other part.

    Args:
        fields: see `special_ids`; `num_token_ids` must be known.
    """
    others = special_ids(fields) | set(fields.get("unassigned_token_ids") or [])
    return [i for i in range(fields["num_token_ids"]) if i not in others]


def tokenizer_fields(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Read off a tokenizer what `MaskGitConfig` stores about it.

    `bos_token_id` and `eos_token_id` fall back to the classification and separator tokens, which
    play these parts in BERT.

    Raises:
        ValueError: when the tokenizer has no mask token, or none of its own, or knows no word.
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
    named, special = token_table(tokenizer)
    fields: dict[str, Any] = {
        "mask_token_id": tokenizer.mask_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.cls_token_id if bos is None else bos,
        "eos_token_id": tokenizer.sep_token_id if eos is None else eos,
        "unk_token_id": tokenizer.unk_token_id,
        "special_token_ids": sorted(special),
        "prefix_ids": prefix_ids,
        "suffix_ids": suffix_ids,
        # The highest id and not the number of tokens, because a vocabulary may have gaps.
        "num_token_ids": max(named) + 1,
        "unassigned_token_ids": sorted(set(range(max(named) + 1)) - named),
        "tokenizer_fingerprint": fingerprint(tokenizer),
    }
    check_mask_is_alone(fields)
    if not ordinary_ids(fields):
        raise ValueError(
            f"The {type(tokenizer).__name__} knows {len(named)} tokens, and none of them a word; "
            "it seems to be made without its vocabulary, and every text would be unknown. Give "
            "the encoder's own, as AutoTokenizer.from_pretrained() loads it; where there is only "
            "its file, transformers takes that as `vocab=`, and passes over `vocab_file=`."
        )
    return fields


def check_mask_is_alone(fields: Mapping[str, Any]) -> None:
    """Refuse a mask that plays another part: what is hidden could not be told from what is not.

    Args:
        fields: see `special_ids`.

    Raises:
        ValueError: naming the other part.
    """
    mask = fields["mask_token_id"]
    if mask is None:
        return
    for name in (*SINGLE_IDS[1:], "prefix_ids", "suffix_ids"):
        value = fields[name]
        if mask in (value if isinstance(value, list) else [value]):
            raise ValueError(
                f"The id {mask} is `mask_token_id` and stands in `{name}`, too; a mask must be a "
                "token of its own. Add one with tokenizer.add_special_tokens("
                '{"mask_token": "[MASK]"}) and give the encoder a row for it.'
            )


def padding_alone(tokenizer: PreTrainedTokenizerBase, fields: Mapping[str, Any]) -> int | None:
    """Return the id of padding; None where there is none, or where it plays another part as well.

    One that also ends texts, say, stands in texts that are not padded at all.

    Args:
        tokenizer: that pads.
        fields: the model's, see `special_ids`.
    """
    roles = ("bos", "eos", "unk", "cls", "sep")
    parts = {getattr(tokenizer, f"{role}_token_id", None) for role in roles}
    parts |= {fields.get(name) for name in ("bos_token_id", "eos_token_id", "unk_token_id")}
    parts |= {i for name in ("prefix_ids", "suffix_ids") for i in fields.get(name) or []}
    return None if tokenizer.pad_token_id in parts else tokenizer.pad_token_id


def token_table(tokenizer: PreTrainedTokenizerBase) -> tuple[set[int], set[int]]:
    """Return the ids that have a text, and those of them that are special.

    `all_special_ids` lists the special tokens that have a name of their own, as `mask_token`; the
    tokenizer's table marks others, such as those that are reserved for later.
    """
    added = tokenizer.added_tokens_decoder
    # A blank line in a file of tokens becomes the token "", which no text holds.
    named = {i for token, i in tokenizer.get_vocab().items() if token} | set(added)
    marked = {i for i, token in added.items() if token.special}
    return named, marked | set(tokenizer.all_special_ids)


def rows_needed(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return how many rows a table of embeddings must have: the greatest id and one more."""
    return max(token_table(tokenizer)[0]) + 1


def check_tokenizer(fields: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer by which a model may write what nobody can read.

    It has another mask, or no text for an id, or it takes the id for a special one and drops it
    from texts. Of a model that was stored before its table was (`unassigned_token_ids` is None)
    only the mask is looked at.

    Args:
        fields: the model's, see `special_ids`.
        tokenizer: that its texts will go through.

    Raises:
        ValueError: naming such ids, and how to tell the model of them.
    """
    masks = tokenizer.mask_token_id, fields["mask_token_id"]
    if None not in masks and masks[0] != masks[1]:
        raise ValueError(
            f"The tokenizer's mask token has the id {masks[0]}, the model's {masks[1]}. Pass the "
            "tokenizer that the model was trained with."
        )
    if fields.get("unassigned_token_ids") is None or fields["num_token_ids"] is None:
        return
    named, special = token_table(tokenizer)
    written = set(range(fields["num_token_ids"])) - never_written(fields)
    for ids, what in (
        (written - named, "for which the tokenizer has no text"),
        # What ends a text is written to be dropped from it.
        (written & special - {fields["eos_token_id"]}, "which are special to the tokenizer"),
    ):
        if ids:
            raise ValueError(
                f"The model may write the ids {_first(ids)}, {what}. If this is its own tokenizer, "
                "grown since, and the table padded perhaps, tell it: "
                "model.config.read_tokenizer(tokenizer); in training set `resize_embeddings`."
            )


def check_size(fields: Mapping[str, Any], num_tokens: int) -> None:
    """Refuse a table of embeddings that is too small for the tokens it must hold.

    Args:
        fields: the model's, see `special_ids`.
        num_tokens: rows it is to have.

    Raises:
        ValueError: for tokens that play a part, or that a vocabulary with gaps has at its end.
    """
    cut = {i for i in special_ids(fields) if i >= num_tokens}
    gaps = set(fields.get("unassigned_token_ids") or [])
    if gaps:  # the number of tokens is then not that of rows, which every tutorial takes it for
        cut |= set(range(num_tokens, fields["num_token_ids"])) - gaps
    if cut:
        raise ValueError(
            f"A table of {num_tokens} rows has none for the ids {_first(cut)} of the model's "
            "tokenizer. It needs as many as the greatest id and one more, which len(tokenizer) is "
            "not where ids are left out: max(tokenizer.get_vocab().values()) + 1."
        )


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


def _first(ids: Iterable[int]) -> str:
    shown = sorted(ids)
    return ", ".join(map(str, shown[:5])) + (f" and {len(shown) - 5} more" if shown[5:] else "")
