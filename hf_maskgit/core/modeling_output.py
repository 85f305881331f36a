"""What the model returns."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.utils import ModelOutput


@dataclass
class MaskGitOutput(ModelOutput):
    """What `MaskGitForMaskedLM` returns.

    Args:
        loss: scalar float32, nats per maskable token; only with labels.
        denoiser_loss: the denoiser's share of `loss`, scalar float32.
        critic_loss: the token critic's, before its weight, scalar float32.
        logits: (N, V) at the chosen positions where some were named, else (B, L, V).
        last_hidden_state: (B, L, H) of the encoder, when asked for.
        hidden_states, attentions: the encoder's, when asked for.
        nll: (N,) float32 in nats, the cross-entropy at each chosen position before its weight and
            without a gradient; when asked for, with labels.
        head_states: (N, H) at the chosen positions, what the LM head runs on, instead of `logits`;
            when asked for.
    """

    loss: Tensor | None = None
    denoiser_loss: Tensor | None = None
    critic_loss: Tensor | None = None
    logits: Tensor | None = None
    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    nll: Tensor | None = None
    head_states: Tensor | None = None


def by_name(config: Any) -> dict[str, bool]:
    """Return the argument that makes `forward` return this, where a configuration asks for tuples.

    Args:
        config: of the model. Not every denoiser knows the argument, so that others get none.
    """
    return {} if getattr(config, "return_dict", True) else {"return_dict": True}
