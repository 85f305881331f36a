"""The losses of a pass: the denoiser's, its token critic's, and both together."""

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .chunked_head import chunked_losses
from .configuration_maskgit import MaskGitConfig
from .losses import cross_entropy, weighted_sum
from .modeling_checks import Targets
from .token_critic import critic_cross_entropy, fill_in


class Judging(Protocol):
    """What the losses ask of a generator."""

    config: MaskGitConfig
    denoiser: Any
    critic_head: nn.Linear | None

    def suspicion(self, arguments: dict[str, Any], positions: Tensor) -> Tensor:
        """Return the critic's log-odds (N,) that the tokens at (B, L) bool are wrong."""


def take_losses(
    model: Judging,
    given: dict[str, Any],
    logits: Tensor,
    targets: Targets | None,
    train: str,
    critic_temperature: float | None,
    output_nll: bool,
    held_back: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return the losses of `MaskGitOutput` by name, each divided by the update's count.

    Args:
        model: judges, where it has a critic.
        given: what the caller gave to `forward`, the texts among it.
        logits: (N, V) at the chosen positions.
        targets: what they should have been; None asks for no loss.
        train: "both", "denoiser" or "critic".
        critic_temperature: of the tokens that the critic judges.
        output_nll: whether `nll` is among them.
        held_back: (N, H), hidden states that the head has not been run on: it is now, in chunks.
    """
    if targets is None:
        return {}
    if held_back is not None:
        return chunked_losses(model.denoiser, held_back, targets, output_nll)
    nll = cross_entropy(logits, targets.labels[targets.chosen], targets.forbidden)
    denoiser_loss = weighted_sum(nll, targets.weights) / targets.count
    losses = {"nll": nll.detach()} if output_nll else {}
    if model.critic_head is None or train == "denoiser":
        return {**losses, "loss": denoiser_loss, "denoiser_loss": denoiser_loss}
    critic_loss = _critic_loss(model, given, logits, targets, critic_temperature)
    weighted = model.config.critic_loss_weight * critic_loss
    loss = weighted if train == "critic" else denoiser_loss + weighted
    return {**losses, "loss": loss, "denoiser_loss": denoiser_loss, "critic_loss": critic_loss}


def _critic_loss(
    model: Judging,
    given: dict[str, Any],
    logits: Tensor,
    targets: Targets,
    temperature: float | None,
) -> Tensor:
    """Let the critic judge the text as the denoiser fills it, at every maskable position."""
    maskable = targets.maskable
    truth = torch.where(maskable, targets.labels, given["input_ids"])
    # Detached: the critic learns from the denoiser's mistakes and does not teach it any.
    drawn_from = logits.detach()
    filled = fill_in(drawn_from, truth, targets.chosen, targets.forbidden, temperature)
    # All that the caller gave, as in `score_tokens`: the critic may know a mask or token types
    # that the denoiser does not.
    arguments = {name: value for name, value in given.items() if value is not None}
    suspicion = model.suspicion({**arguments, "input_ids": filled}, maskable)
    return critic_cross_entropy(suspicion, (filled != truth)[maskable]) / targets.count
