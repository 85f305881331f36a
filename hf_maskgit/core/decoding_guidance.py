"""Classifier-free guidance without training: push the text away from what an empty prompt gives.

Letters: R rows, L length of the text, M length of the other text, V vocabulary, N positions.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .decoding_prompts import Prompts, Reader, mask_token_id_of, pack_negative_prompts
from .decoding_turn import LogitsFn
from .losses import at_least_float32
from .position_logits import LateLogits, later
from .special_tokens import special_ids

# make(real (R, L), token types (R, L) or None, block of each position (R, L)): the denoiser of rows
# whose tokens are `real`, with a memory of its own.
MakeDenoiser = Callable[[Tensor, Tensor | None, Tensor], LogitsFn]


def denoiser_of(
    model: Reader,
    make: MakeDenoiser,
    prompts: Prompts,
    block: Tensor,
    scale: float | None,
    negative_prompt_ids: Tensor | None,
    negative_prompt_attention_mask: Tensor | None,
) -> LogitsFn:
    """Return what `fill_masks` asks for logits: the denoiser, guided where that is asked for.

    Args:
        model: which reads the negative prompts.
        make: makes its denoisers.
        prompts: the R rows that are decoded.
        block: (R, L) long, which block each position belongs to.
        scale: w, see `guided`; None and 1 ask for none.
        negative_prompt_ids: (.., Q) long, the prompts to push away from; None pushes away from the
            text with its prompt masked.
        negative_prompt_attention_mask: (.., Q), 1 at their real tokens.

    Raises:
        ValueError: for negative prompts that cannot be read, do not fit, or have no scale.
    """
    if negative_prompt_ids is None and negative_prompt_attention_mask is not None:
        raise ValueError(
            "`negative_prompt_attention_mask` tells which of the `negative_prompt_ids` are real; "
            "pass them too."
        )
    rows = prompts.rows
    denoise = make(rows.real, prompts.token_type_ids, block)
    if scale is None or scale == 1:
        if negative_prompt_ids is not None:
            raise ValueError(
                "`negative_prompt_ids` needs a `guidance_scale` other than 1, for example 1.5."
            )
        return denoise
    if negative_prompt_ids is None:
        # A word that the tokenizer does not know is no frame, special as its id may be.
        frame = special_ids(vars(model.config)) - {model.config.unk_token_id}
        special = torch.tensor(sorted(frame), dtype=torch.long, device=rows.text.device)
        prompt = rows.real & ~rows.masked & ~torch.isin(rows.text, special)
        # A denoiser of its own, since each remembers its own previous pass.
        unconditional = make(rows.real, prompts.token_type_ids, block)
        other = without_prompt(unconditional, prompt, mask_token_id_of(model.config))
    else:
        others = pack_negative_prompts(
            model, prompts, negative_prompt_ids, negative_prompt_attention_mask
        )
        theirs = torch.full_like(others.text, -1).masked_scatter(others.masked, block[rows.masked])
        types = prompts.token_type_ids
        if types is not None:  # all of them what the new tokens are, which continue both prompts
            first = rows.masked.long().argmax(1, keepdim=True)
            types = types.gather(1, first).expand_as(others.text)
        unconditional = make(others.real, types, theirs)
        other = with_other_prompt(unconditional, rows.masked, others.text, others.masked)
    return guided(denoise, other, scale)


def guided(logits_fn: LogitsFn, other_logits_fn: LogitsFn, scale: float) -> LogitsFn:
    """Combine two denoisers as u + w (c - u) with normalised log-probabilities c and u.

    Args:
        logits_fn: gives c.
        other_logits_fn: gives u at the same positions.
        scale: w, as `guidance_scale` in transformers; 1 gives c. LLaDA (arXiv 2502.09992) writes
            w - 1 for it.
    """

    def combined(rows: Tensor, text: Tensor, positions: Tensor) -> Tensor | LateLogits:
        both = (logits_fn(rows, text, positions), other_logits_fn(rows, text, positions))
        return later(of_both, *both)

    def of_both(given: Tensor, other: Tensor) -> Tensor:
        given, other = (at_least_float32(logits).log_softmax(-1) for logits in (given, other))
        # A token impossible in both would be inf - inf.
        return torch.where(given == -torch.inf, given, other + scale * (given - other))

    return combined


def without_prompt(logits_fn: LogitsFn, prompt: Tensor, mask_token_id: int) -> LogitsFn:
    """Hide the prompt: the same text with masks where `prompt` (B, L) is True."""

    def unconditional(rows: Tensor, text: Tensor, positions: Tensor) -> Tensor | LateLogits:
        return logits_fn(rows, text.masked_fill(prompt[rows], mask_token_id), positions)

    return unconditional


def with_other_prompt(
    logits_fn: LogitsFn, new: Tensor, other_text: Tensor, other_new: Tensor
) -> LogitsFn:
    """Put the new tokens of each row behind another prompt.

    Args:
        logits_fn: the denoiser of the other rows.
        new: (B, L) bool, the new tokens' positions; each row has as many as in `other_new`.
        other_text: (B, M) long, the other prompts with room for the new tokens.
        other_new: (B, M) bool, that room.
    """

    def other(rows: Tensor, text: Tensor, positions: Tensor) -> Tensor | LateLogits:
        room = other_new[rows]
        # Both rows hold as many new tokens, in the same order, at other positions.
        moved = other_text[rows].masked_scatter(room, text[new[rows]])
        theirs = torch.zeros_like(room).masked_scatter(room, positions[new[rows]])
        return logits_fn(rows, moved, theirs)

    return other
