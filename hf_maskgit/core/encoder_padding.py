"""Encoders that would confuse padding with text: they get rows of each length on their own.

Letters: B batch, L length, H width of the hidden states, V vocabulary, N chosen positions.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers.utils import logging

from .encoder_kinds import PADDING_LEAKS

logger = logging.get_logger(__name__)

# Given arguments and positions of some rows, (b, l) bool or None, it returns their logits or hidden
# states: (n, V) at the positions, or (b, l, V).
RunRows = Callable[[dict[str, Any], Tensor | None], Tensor]


def holds_confusing_padding(encoder: Any, attention_mask: Tensor | None) -> bool:
    """Tell whether a batch holds padding that the encoder would confuse with text."""
    leaks = encoder.config.model_type in PADDING_LEAKS
    return leaks and attention_mask is not None and not bool(attention_mask.all())


def run_without_padding(
    run: RunRows,
    encoder: Any,
    arguments: dict[str, Any],
    attention_mask: Tensor | None,
    positions: Tensor | None,
) -> Tensor:
    """Run a batch, without its padding where the encoder would confuse that with text.

    Args:
        run: runs some rows.
        encoder: whose kind decides.
        arguments: of the encoder.
        attention_mask: (B, L), 1 at real tokens, also where the encoder knows no mask.
        positions: (B, L) bool; None means everywhere.
    """
    if encoder.config.model_type not in PADDING_LEAKS:
        return run(arguments, positions)
    # Once the padding is gone, a mask of ones would say nothing, and some know none.
    arguments = {name: value for name, value in arguments.items() if name != "attention_mask"}
    if attention_mask is None or not holds_confusing_padding(encoder, attention_mask):
        return run(arguments, positions)
    return run_by_length(run, arguments, attention_mask, positions)


def run_by_length(
    run: RunRows,
    arguments: dict[str, Any],
    attention_mask: Tensor,
    positions: Tensor | None,
) -> Tensor:
    """Run a batch without its padding: rows of one length after rows of another.

    Logits come in the order of the lengths and are put back in that of the rows. With logits wanted
    at the positions marked x, and - for padding:

        row 0   a  x  x     length 3      of length 2:  [x of row 1]           numbers [2]
        row 1   d  x  -     length 2      of length 3:  [x x of 0, x of 2]     numbers [0, 1, 3]
        row 2   f  g  x     length 3      result:       [x x of 0, x of 1, x of 2]

    Args:
        run: runs some rows.
        arguments: of the encoder, each (B, L) or (B, L, ...).
        attention_mask: (B, L), 1 at real tokens, on any side.
        positions: (B, L) bool, where logits are wanted; None means everywhere.

    Returns:
        Logits of the same dtype, (N, V) at the positions or (B, L, V); 0 at padding.

    Raises:
        ValueError: for an argument without a value per token.
    """
    real = attention_mask.bool()
    for name, value in arguments.items():
        if not isinstance(value, Tensor) or value.shape[:2] != real.shape:
            raise ValueError(
                f"`{name}` must be of shape (batch, length) = {tuple(real.shape)} for this encoder "
                "where a batch is padded: it runs rows of each length on their own."
            )
    lengths = real.sum(1)
    different = lengths[lengths > 0].unique().tolist()
    if not different:
        raise ValueError("`attention_mask` marks no real token (1) in any row of the batch.")
    if len(different) > 1:
        logger.warning_once(
            "This encoder runs without padding: rows of each length of a batch run on their own. "
            "Batches of texts of similar length are faster."
        )
    wanted = torch.ones_like(real) if positions is None else positions
    # (B, L): the number of each wanted position among the N logits, counted row by row
    number = wanted.flatten().cumsum(0).view_as(wanted) - 1
    logits, numbers = [], []
    for length in different:  # a row without a real token is in none of them, its logits stay 0
        rows = lengths == length
        chosen = _without_padding(wanted[rows], real[rows])
        part = run(
            {name: _without_padding(value[rows], real[rows]) for name, value in arguments.items()},
            None if positions is None else chosen,
        )
        logits.append(part.flatten(0, -2))
        numbers.append(_without_padding(number[rows], real[rows])[chosen])
    found = torch.cat(logits)
    # Not in place, so that the gradient finds its way back to each length's own pass.
    result = found.new_zeros(int(wanted.sum()), found.shape[-1])
    result = result.index_copy(0, torch.cat(numbers), found)
    return result.unflatten(0, real.shape) if positions is None else result


def _without_padding(rows: Tensor, real: Tensor) -> Tensor:
    """Keep the real tokens of rows that have equally many, (b, L, ...) -> (b, l, ...)."""
    return rows[real].unflatten(0, (len(rows), -1))
