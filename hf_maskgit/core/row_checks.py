"""What rows of tokens must hold, wherever they come in: calls of the model, and data sets.

A mistake here has a plausible result: padding that nothing marks is read as text, and ids of
another tokenizer are words, too. So it is looked for before any encoder works.

Letters: B rows, L columns.
"""

from array import array
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .argument_checks import check_tensor, kind_of

_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)


def check_rows(
    config: Any,
    input_ids: Any,
    attention_mask: Any,
    token_type_ids: Any = None,
    prefix: str = "",
) -> None:
    """Refuse rows that cannot be read.

    Args:
        config: of the model; gives the vocabulary, the token types and the padding id.
        input_ids: (B, L) integers.
        attention_mask: (B, L), 1 at real tokens, or None.
        token_type_ids: (B, L) integers, or None.
        prefix: of the arguments' names in the caller's call.

    Raises:
        TypeError: for anything but tensors.
        ValueError: for a wrong shape, ids outside the vocabulary, and padding that nothing marks.
    """
    ids_name, mask_name = f"{prefix or 'input_'}ids", f"{prefix}attention_mask"
    text_config = config.get_text_config() if hasattr(config, "get_text_config") else None
    readable = not isinstance(input_ids, Tensor) or can_be_read(input_ids)
    # A denoiser made of a table has no vocabulary.
    vocab_size = getattr(text_config, "vocab_size", None) if readable else None
    check_ids(ids_name, input_ids, vocab_size)
    for name, tensor in ((mask_name, attention_mask), ("token_type_ids", token_type_ids)):
        if tensor is not None:
            check_beside(ids_name, input_ids, name, tensor)
    if not readable:
        return
    if token_type_ids is not None and text_config is not None:
        check_token_types(token_type_ids, text_config)
    if attention_mask is None:
        advice = "pass the tokenizer's."
        check_padding(f"`{ids_name}` hold", input_ids, config.pad_token_id, mask_name, advice)
    else:
        check_mask(mask_name, attention_mask)


def check_ids(name: str, value: Any, vocab_size: int | None) -> None:
    """Refuse anything but ids of the vocabulary in rows, (B, L); None says of no vocabulary.

    Raises:
        TypeError: for something else than a tensor.
        ValueError: for another shape, numbers that are no integers, or ids out of range.
    """
    check_tensor(name, value)
    no_integers = value.is_floating_point() or value.is_complex() or value.dtype in _UNSIGNED
    if value.ndim == 2 and not value.numel():
        raise ValueError(
            f"`{name}` hold no token: {value.shape[0]} rows of length {value.shape[1]}."
        )
    if value.ndim != 2 or no_integers:
        advice = " Torch does not reckon with these: pass .long()." * (value.dtype in _UNSIGNED)
        raise ValueError(
            f"`{name}` must be integers of shape (batch, length), got dtype {value.dtype} and "
            f"shape {tuple(value.shape)}.{advice}"
        )
    if vocab_size is not None and bool(((value < 0) | (value >= vocab_size)).any()):
        raise ValueError(
            f"`{name}` run from {int(value.min())} to {int(value.max())}; the vocabulary has 0 to "
            f"{vocab_size - 1}. Is this the model's own tokenizer?"
        )


def check_beside(ids_name: str, ids: Tensor, name: str, value: Any) -> None:
    """Refuse anything but a tensor with an entry for each of the ids (B, L).

    Raises:
        TypeError: for something else than a tensor.
        ValueError: for another shape.
    """
    check_tensor(name, value)
    if value.shape != ids.shape:
        raise ValueError(
            f"`{name}` must have the shape of `{ids_name}`, {tuple(ids.shape)}, got "
            f"{tuple(value.shape)}."
        )


def check_mask(name: str, value: Tensor) -> None:
    """Refuse a mask that holds anything but 0 and 1.

    Raises:
        ValueError: for anything else.
    """
    if not bool(((value == 0) | (value == 1)).all()):
        raise ValueError(f"`{name}` must hold 0 (padding) and 1 (real tokens) only.")


def check_token_types(value: Tensor, encoder: Any) -> None:
    """Refuse token types that the encoder has no row for.

    Args:
        value: (B, L).
        encoder: its configuration.

    Raises:
        ValueError: saying which it takes.
    """
    if value.is_floating_point() or value.is_complex():
        raise ValueError(f"`token_type_ids` must be integers, got dtype {value.dtype}.")
    known = getattr(encoder, "type_vocab_size", None)
    if value.numel() == 0 or not known:
        return
    low, high = int(value.min()), int(value.max())
    if low < 0 or high >= known:
        raise ValueError(
            f"`token_type_ids` run from {low} to {high}; the encoder has types 0 to {known - 1}."
        )


def check_padding(what: str, ids: Tensor, padding: int | None, mask_name: str, advice: str) -> None:
    """Refuse padding that no attention mask tells from text.

    Without a mask it would be read as text, silently and with a plausible result.

    Args:
        what: the ids, as the beginning of the sentence.
        ids: given without an attention mask.
        padding: the id of padding; None means that there is none.
        mask_name: what the caller calls the mask.
        advice: what to do, as the end of the sentence.

    Raises:
        ValueError: when the padding id occurs.
    """
    if padding is not None and padding in ids:
        raise ValueError(
            f"{what} the padding id {padding} and no `{mask_name}` says which tokens are real; "
            f"{advice}"
        )


def check_longest(longest: int, limit: int | None) -> None:
    """Refuse a text that is longer than the encoder's table of positions.

    Args:
        longest: tokens of the longest text, padding left out.
        limit: `max_positions` of the model; None sets none.

    Raises:
        ValueError: saying how long it is.
    """
    if limit is not None and longest > limit:
        raise ValueError(
            f"The longest text has {longest} tokens, the encoder takes {limit}; shorten it."
        )


def check_example(value: Any) -> None:
    """Refuse anything but an example as tokenizers and data sets give it.

    Raises:
        TypeError: for something else.
    """
    if not isinstance(value, Mapping) or "input_ids" not in value:
        raise TypeError(
            "An example must be a dict with `input_ids`, as a tokenizer returns it, got "
            f"{kind_of(value)}."
        )


def check_padding_of_example(example: Mapping[str, Any], name: str, padding: int | None) -> None:
    """Refuse an example of a data set that is padded already and has no `attention_mask`.

    Args:
        example: with `input_ids`, a flat sequence of integers.
        name: of the example, in the error.
        padding: its id, from `special_tokens.padding_alone`; None means that there is none.

    Raises:
        ValueError: saying what to keep.
    """
    if padding is not None and "attention_mask" not in example:
        ids = whole_numbers("input_ids", example["input_ids"])
        advice = (
            "keep the tokenizer's (return_attention_mask=True), or do not pad: batches are padded "
            "when they are made."
        )
        check_padding(f"{name} holds", ids, padding, "attention_mask", advice)


def whole_numbers(name: str, value: Any) -> Tensor:
    """Return a column of an example as a tensor, (L,) long.

    Raises:
        ValueError: for anything but a list of whole numbers.
    """
    try:
        if type(value) is list and set(map(type, value)) == {int}:
            # As data sets give it: several times as fast as torch's own reading of a list.
            return torch.frombuffer(array("q", value), dtype=torch.long)
        numbers_ = torch.as_tensor(value)
        real = numbers_.real if numbers_.is_complex() else numbers_  # or torch warns of the rest
        whole = real.long()
        # Compared only where need be: torch compares no 16 bits without a sign, as files hold them.
        kept = not real.is_floating_point() or bool((whole == real).all())
        fits = numbers_.ndim == 1 and real is numbers_ and kept
    # torch has an error of its own for everything that is no number.
    except (TypeError, ValueError, RuntimeError, OverflowError):
        fits = False
    if not fits:
        raise ValueError(
            f"`{name}` of an example must be a list of whole numbers, got {kind_of(value)}."
        )
    return whole


def token_column(feature: Mapping[str, Any], name: str, absent: int) -> Tensor:
    """Return a column of an example, one entry per token; `absent` everywhere if it has none.

    Raises:
        TypeError: for something that is no example.
        ValueError: when it holds anything but whole numbers, or more or fewer of them than the text
            has tokens.
    """
    check_example(feature)
    num_tokens = len(whole_numbers("input_ids", feature["input_ids"]))
    if name not in feature:
        return torch.full((num_tokens,), absent)
    values = whole_numbers(name, feature[name])
    if len(values) != num_tokens:
        raise ValueError(
            f"`{name}` has {len(values)} entries for a text of {num_tokens} tokens; it needs one "
            "per token."
        )
    return values


def can_be_read(tensor: Tensor) -> bool:
    """Tell whether Python may look at what a tensor holds.

    Not while a compiler, an exporter or a tracer records what is done to it, nor where it holds
    nothing (the device "meta"): there only shapes are checked.
    """
    recorded = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    return not recorded and tensor.device.type != "meta"
