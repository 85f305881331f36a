"""Several documents in one row, each of which sees itself alone.

Whole framed texts stand side by side in a row, numbered from 1; padding is 0:

    [CLS] a b [SEP] [CLS] c [SEP] [PAD]
      1   1 1   1     2   2   2     0

An encoder whose attention takes a mask of pairs of tokens gets one that is true within a document,
and positions that begin anew in each, as they do in a row of its own. So a document has the same
logits packed and alone. `encoder_kinds` says which encoders these are.

Letters: B rows, L columns.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..core.encoder_kinds import SEPARATES_DOCUMENTS, SEPARATES_IN_WINDOWS, first_position
from ..core.encoder_pass import argument_names

# How attention is computed where it takes such a mask: and whether the mask is added to the scores.
_ATTENTIONS = {"sdpa": False, "eager": True}


def check_separates(model: Any) -> None:
    """Refuse a generator that cannot keep the documents of a row apart.

    Args:
        model: a `MaskGitForMaskedLM`.

    Raises:
        ValueError: saying which can, and what to do instead.
    """
    config = model.denoiser.config
    kind, attention = config.model_type, config._attn_implementation
    known = SEPARATES_DOCUMENTS | SEPARATES_IN_WINDOWS
    advice = "Use pack='joined', whose texts see each other, or 'no'."
    if kind not in known:
        raise ValueError(
            f"pack='separate' needs an encoder whose attention takes a mask of pairs of tokens, "
            f"and {kind!r} is not known to; these are: {', '.join(sorted(known))}. {advice}"
        )
    if attention not in _ATTENTIONS:
        raise ValueError(
            f"pack='separate' needs attn_implementation 'sdpa' or 'eager', and the encoder has "
            f"{attention!r}. Load it with one of these. {advice}"
        )
    if model.self_conditioning is not None or model.has_token_critic:
        raise ValueError(
            "pack='separate' goes with a generator without self-conditioning and token critic, "
            f"which read whole rows. {advice}"
        )


def document_arguments(denoiser: PreTrainedModel, document_ids: Tensor) -> dict[str, Any]:
    """Make the arguments with which an encoder keeps documents apart.

    Args:
        denoiser: see `check_separates`.
        document_ids: (B, L) long, a number > 0 for each document of a row, whose tokens stand
            together; 0 at padding.

    Returns:
        `attention_mask`, (B, 1, L, L), bool or what is added to the scores, or one for each kind of
        layer where an encoder has several; and `position_ids` (B, L) long where it takes them.
    """
    config: Any = denoiser.config
    columns = torch.arange(document_ids.shape[1], device=document_ids.device)
    # Padding sees padding: a row of the mask without any True would be no distribution.
    same = (document_ids[:, :, None] == document_ids[:, None, :])[:, None]
    added = _ATTENTIONS[config._attn_implementation]

    def told(pairs: Tensor) -> Tensor:
        if not added:
            return pairs
        lowest = torch.finfo(denoiser.dtype).min
        return torch.zeros_like(pairs, dtype=denoiser.dtype).masked_fill(~pairs, lowest)

    mask: Any = told(same)
    if config.model_type in SEPARATES_IN_WINDOWS:
        near = (columns[:, None] - columns).abs() <= config.sliding_window
        mask = {"full_attention": mask, "sliding_attention": told(same & near)}
    arguments = {"attention_mask": mask}
    if "position_ids" in argument_names(denoiser):
        # Where a document begins, the number of its first column; carried on to its end.
        begins = torch.ones_like(document_ids, dtype=torch.bool)
        begins[:, 1:] = document_ids[:, 1:] != document_ids[:, :-1]
        first = torch.where(begins, columns, 0).cummax(1).values
        arguments["position_ids"] = columns - first + first_position(denoiser)
    return arguments
