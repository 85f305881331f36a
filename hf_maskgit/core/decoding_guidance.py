"""Classifier-free guidance without training: push the text away from what an empty prompt gives.

Letters: R rows, L length of the text, M length of the other text, V vocabulary, N positions.
"""

import torch
from torch import Tensor

from .decoding import LogitsFn
from .losses import at_least_float32


def guided(logits_fn: LogitsFn, other_logits_fn: LogitsFn, scale: float) -> LogitsFn:
    """Combine two denoisers as u + w (c - u) with normalised log-probabilities c and u.

    Args:
        logits_fn: gives c.
        other_logits_fn: gives u at the same positions.
        scale: w, as `guidance_scale` in transformers; 1 gives c. LLaDA (arXiv 2502.09992) writes
            w - 1 for it.
    """

    def combined(rows: Tensor, text: Tensor, positions: Tensor) -> Tensor:
        given = at_least_float32(logits_fn(rows, text, positions)).log_softmax(-1)
        other = at_least_float32(other_logits_fn(rows, text, positions)).log_softmax(-1)
        # A token impossible in both would be inf - inf.
        return torch.where(given == -torch.inf, given, other + scale * (given - other))

    return combined


def without_prompt(logits_fn: LogitsFn, prompt: Tensor, mask_token_id: int) -> LogitsFn:
    """Hide the prompt: the same text with masks where `prompt` (B, L) is True."""

    def unconditional(rows: Tensor, text: Tensor, positions: Tensor) -> Tensor:
        return logits_fn(rows, text.masked_fill(prompt[rows], mask_token_id), positions)

    return unconditional


def with_other_prompt(
    logits_fn: LogitsFn, new: Tensor, other_text: Tensor, other_new: Tensor
) -> LogitsFn:
    """Put the new tokens of each row behind another prompt.

    Args:
        logits_fn: the denoiser of the other rows.
        new: (B, L) bool, the new tokens' places; each row has as many as in `other_new`.
        other_text: (B, M) long, the other prompts with room for the new tokens.
        other_new: (B, M) bool, that room.
    """

    def other(rows: Tensor, text: Tensor, positions: Tensor) -> Tensor:
        room = other_new[rows]
        moved = other_text[rows].masked_scatter(room, text[new[rows]])
        places = torch.zeros_like(room).masked_scatter(room, positions[new[rows]])
        return logits_fn(rows, moved, places)

    return other
