"""The token critic: which tokens of a filled text are wrong.

Token-Critic (arXiv 2209.04439): the denoiser fills the masks of a training text, and the critic
learns which tokens differ from the truth. It is either a second encoder ("separate") or a linear
head on the denoiser's own hidden states ("self").

Letters: B batch, L length, V vocabulary, N positions.
"""

import inspect
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.configuration_utils import PreTrainedConfig

from .encoders import PADDING_LEAKS, run_by_length
from .losses import LossSum, forbid
from .sampling import draw

_COLDEST = 1e-3  # temperatures are drawn from this up: below it, float32 logits overflow


def check_critic(config: PreTrainedConfig, vocab_size: int) -> None:
    """Refuse an encoder that cannot judge the denoiser's texts.

    Raises:
        ValueError: for another vocabulary or an encoder-decoder.
    """
    if config.is_encoder_decoder:
        raise ValueError(
            f"{config.model_type!r} is an encoder-decoder; a critic must be an encoder."
        )
    found = config.get_text_config().vocab_size
    if found != vocab_size:
        raise ValueError(
            f"The critic reads the denoiser's tokens: its vocabulary must have {vocab_size} ids, "
            f"got {found}."
        )


def drop_unused_parts(critic: nn.Module) -> None:
    """Leave out what no token's hidden state depends on.

    Not every way to load an encoder brings its pooler, and processes that train together would wait
    for gradients of such parts.
    """
    if isinstance(getattr(critic, "pooler", None), nn.Module):
        critic.pooler = nn.Identity()
    for name, parameter in critic.named_parameters():
        if "contact_head" in name:
            parameter.requires_grad_(False)


def states_at(body: Any, arguments: dict[str, Any], positions: Tensor) -> Tensor:
    """Return an encoder's last hidden states (N, H) at (B, L) bool.

    Args:
        body: an encoder without a head.
        arguments: of its forward; those that it does not know are left out.
        positions: where.
    """

    def run(of_rows: dict[str, Any], places: Tensor | None) -> Tensor:
        hidden: Tensor = body(**of_rows, return_dict=True)[0]
        return hidden if places is None else hidden[places]

    known = inspect.signature(body.forward).parameters
    arguments = {k: v for k, v in arguments.items() if k in known}
    mask = arguments.get("attention_mask")
    if body.config.model_type not in PADDING_LEAKS or mask is None:
        return run(arguments, positions)
    del arguments["attention_mask"]
    return run_by_length(run, arguments, mask, positions)


@torch.no_grad()
def fill_in(
    logits: Tensor,
    truth: Tensor,
    chosen: Tensor,
    forbidden_token_ids: Tensor,
    temperature: float | None = None,
) -> Tensor:
    """Fill the chosen positions of a true text with the denoiser's draws.

    Draws from torch's global generator, as dropout does.

    Args:
        logits: (N, V) at the chosen positions.
        truth: (B, L) long.
        chosen: (B, L) bool.
        forbidden_token_ids: (K,) long, never drawn.
        temperature: of the draws, > 0; None draws one per text, uniform in (0, 1].

    Returns:
        (B, L) long, a text without masks.
    """
    if temperature is None:
        heat = torch.rand(len(truth), device=truth.device).clamp_min(_COLDEST)
    else:
        heat = torch.full((len(truth),), float(temperature), device=truth.device)
    warm = forbid(logits, forbidden_token_ids) / heat[chosen.nonzero()[:, 0], None]
    tokens = draw(warm, torch.rand(len(warm), device=warm.device))
    return truth.masked_scatter(chosen, tokens)


def critic_cross_entropy(logits: Tensor, wrong: Tensor) -> LossSum:
    """Sum the binary cross-entropy of "this token is wrong".

    Args:
        logits: (N,) log-odds of being wrong.
        wrong: (N,) bool, the token differs from the truth.

    Returns:
        The sum in nats and N.
    """
    loss = F.binary_cross_entropy_with_logits(logits.float(), wrong.float(), reduction="sum")
    return LossSum(loss, torch.tensor(wrong.numel(), device=wrong.device))


def hidden_size(encoder: PreTrainedConfig) -> int:
    """Return the width of an encoder's last hidden state."""
    text: Any = encoder.get_text_config()
    return int(text.hidden_size)
