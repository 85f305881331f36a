"""What is refused of rows of tokens, wherever they come in: `generate`, `forward` and `nelbo`.

A mistake here has a plausible result: padding that nothing marks is read as text, and ids of
another tokenizer are words, too. So it is looked for before any encoder works.

Letters: B rows, L columns.
"""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from .argument_checks import (
    check_ids,
    check_mask,
    check_tensor,
    check_token_types,
    whole_numbers,
)
from .configuration_maskgit import MaskGitConfig
from .decoding_layout import check_no_padding


def check_rows(
    config: MaskGitConfig,
    input_ids: Any,
    attention_mask: Any,
    token_type_ids: Any = None,
    prefix: str = "",
) -> None:
    """Refuse rows that cannot be read.

    Args:
        config: gives the vocabulary and the padding id.
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
            check_tensor(name, tensor)
            if tensor.shape != input_ids.shape:
                raise ValueError(
                    f"`{name}` must have the shape of `{ids_name}`, {tuple(input_ids.shape)}, got "
                    f"{tuple(tensor.shape)}."
                )
    if not readable:
        return
    if token_type_ids is not None and text_config is not None:
        check_token_types(token_type_ids, text_config)
    # Without a mask padding would be read as text, silently and with a plausible result.
    if attention_mask is None:
        check_no_padding(input_ids, config.pad_token_id, ids_name, mask_name)
    else:
        check_mask(mask_name, attention_mask)


def check_padding_is_marked(
    example: Mapping[str, Any], name: str, padding: int | None, in_texts: Collection[int | None]
) -> None:
    """Refuse an example that is padded already and has no `attention_mask`.

    Args:
        example: with `input_ids`, a flat sequence of integers.
        name: of the example, in the error.
        padding: its id; None means that there is none.
        in_texts: ids that stand in texts: where padding also ends them, say, it cannot be told.

    Raises:
        ValueError: saying what to keep.
    """
    if padding is None or padding in in_texts or "attention_mask" in example:
        return
    if padding in whole_numbers("input_ids", example["input_ids"]):
        raise ValueError(
            f"{name} holds the padding id {padding} and has no `attention_mask`, so the padding "
            "would be read as text. Keep the tokenizer's attention mask (return_attention_mask="
            "True), or do not pad: batches are padded when they are made."
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


def can_be_read(tensor: Tensor) -> bool:
    """Tell whether Python may look at what a tensor holds.

    Not while a compiler, an exporter or a tracer records what is done to it, nor where it holds
    nothing (the device "meta"): there only shapes are checked.
    """
    recorded = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    return not recorded and tensor.device.type != "meta"
