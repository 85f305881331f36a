"""The token critic: which tokens of a filled text are wrong.

Token-Critic (arXiv 2209.04439): the denoiser fills the masks of a training text, and the critic
learns which tokens differ from the truth. It is either a second encoder ("separate") or a linear
head on the denoiser's own hidden states ("self").

Letters: B batch, L length, V vocabulary, N positions.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers.configuration_utils import PreTrainedConfig

from .configuration_maskgit import MaskGitConfig
from .encoder_kinds import (
    beside,
    check_encoder,
    freeze_unused_parameters,
    hidden_size,
    repair_dtype,
)
from .losses import at_least_float32, forbid
from .sampler_scores import draw

_LEAST_TEMPERATURE = 1e-3  # of those drawn: below it the likeliest token comes anyway


@torch.no_grad()
def fill_in(
    logits: Tensor,
    truth: Tensor,
    chosen: Tensor,
    forbidden_token_ids: Tensor,
    temperature: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Fill the chosen positions of a true text with the denoiser's draws.

    Args:
        logits: (N, V) at the chosen positions.
        truth: (B, L) long.
        chosen: (B, L) bool.
        forbidden_token_ids: (K,) long, never drawn.
        temperature: of the draws, > 0; None draws one per text, uniform in (0, 1].
        generator: draws tokens and temperatures; None is torch's global one, as for dropout.

    Returns:
        (B, L) long, a text without masks.
    """
    device = truth.device if generator is None else generator.device

    def uniform(count: int) -> Tensor:
        # Not named where there is none: a compiler to which `count` is a variable refuses it.
        given: dict[str, Any] = {} if generator is None else {"generator": generator}
        return torch.rand(count, device=device, **given).to(truth.device)

    if temperature is None:  # (B,): the critic will meet texts of any
        temperatures = (1 - uniform(len(truth))).clamp_min(_LEAST_TEMPERATURE)
    else:
        # No float32 is greater, and all tokens are as likely long before.
        finite = min(float(temperature), torch.finfo(torch.float32).max)
        temperatures = torch.full((len(truth),), finite, device=truth.device)
    # The N logits stand in the order of `chosen` read row by row: so `nonzero` names the text of
    # each, and `masked_scatter` puts the tokens back where they belong.
    rows = chosen.nonzero()[:, 0]
    scores = forbid(logits, forbidden_token_ids) / temperatures[rows, None]
    return truth.masked_scatter(chosen, draw(scores, uniform(len(scores))))


def critic_cross_entropy(logits: Tensor, wrong: Tensor) -> Tensor:
    """Sum the binary cross-entropy of "this token is wrong".

    Args:
        logits: (N,) log-odds of being wrong.
        wrong: (N,) bool, the token differs from the truth.

    Returns:
        The sum in nats, a scalar in float32 (float64 for float64 logits).
    """
    logits = at_least_float32(logits)
    return F.binary_cross_entropy_with_logits(logits, wrong.to(logits.dtype), reduction="sum")


def make_critic(
    config: MaskGitConfig, denoiser: PreTrainedModel, critic: PreTrainedModel | None
) -> tuple[PreTrainedModel | None, nn.Linear | None]:
    """Make the critic's body, where it has one of its own, and its head.

    Args:
        config: says which kind of critic.
        denoiser: beside which it stands.
        critic: a separate critic to take; None builds one with random weights.
    """
    if config.token_critic is None:
        return None, None
    if config.token_critic == "self":
        return None, beside(denoiser, nn.Linear(hidden_size(config.encoder_config), 1))
    encoder = cast(PreTrainedConfig, config.critic_config)
    check_critic(encoder, config.encoder_config)
    if critic is None:
        critic = AutoModel.from_config(encoder, dtype=torch.get_default_dtype())
    else:
        config.critic_config = critic.config  # one object, so that resizing keeps both in step
    repair_dtype(critic)
    drop_unused_parts(critic)
    head = nn.Linear(hidden_size(encoder), 1)
    return beside(denoiser, critic), beside(denoiser, head)


def check_critic(critic: PreTrainedConfig, denoiser: PreTrainedConfig) -> None:
    """Refuse an encoder that cannot judge the denoiser's texts.

    Args:
        critic: the configuration of the critic's encoder.
        denoiser: that of the denoiser's.

    Raises:
        ValueError: for another vocabulary or padding id, and for an encoder that cannot be a
            denoiser either.
    """
    check_encoder(critic)
    # An encoder that names no padding id contradicts none.
    for name, what in (("vocab_size", "vocabulary size"), ("pad_token_id", "padding id")):
        wanted, found = (getattr(c.get_text_config(), name) for c in (denoiser, critic))
        if found != wanted and None not in (found, wanted):
            raise ValueError(
                f"The critic reads the denoiser's tokens and needs its {what}, {name}={wanted}, "
                f"got {found}. Use an encoder of the same tokenizer."
            )


def drop_unused_parts(critic: PreTrainedModel) -> None:
    """Leave out what no token's hidden state depends on.

    Not every way to load an encoder brings its pooler, and processes that train together would wait
    for gradients of such parts.
    """
    if isinstance(getattr(critic, "pooler", None), nn.Module):
        critic.pooler = nn.Identity()
    freeze_unused_parameters(critic)
