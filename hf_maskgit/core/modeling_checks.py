"""What the model and its `forward` refuse, each fault in a sentence.

All is looked at before the encoder works. Only what depends on how a batch reaches the encoder,
with or without its padding, is refused in the pass itself.

Letters: B batch, L length, H width of the hidden states, N chosen positions, K forbidden ids.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .configuration_maskgit import MaskGitConfig
from .losses import IGNORED_LABEL
from .self_conditioning import SelfConditioning


@dataclass(frozen=True)
class Targets:
    """What the losses of a batch are taken of.

    Attributes:
        labels: (B, L) long, the true id at every maskable position, -100 elsewhere.
        chosen: (B, L) bool, the N positions of the denoiser's loss.
        weights: (N,) float, of their cross-entropies; None is 1.
        forbidden: (K,) long, ids that can never be emitted.
        count: what a sum is divided by, > 0: maskable tokens of the optimizer update.
    """

    labels: Tensor
    chosen: Tensor
    weights: Tensor | None
    forbidden: Tensor
    count: Tensor | int

    @property
    def maskable(self) -> Tensor:
        """Where a label is, (B, L) bool; the critic judges all of these."""
        return self.labels != IGNORED_LABEL


def check_config(config: Any) -> None:
    """Refuse a configuration that is not one of a generator.

    Args:
        config: a `MaskGitConfig`, also one whose class came with a checkpoint.

    Raises:
        TypeError: saying how to make one.
    """
    if getattr(config, "model_type", None) != MaskGitConfig.model_type:
        raise TypeError(
            f"MaskGitForMaskedLM takes a MaskGitConfig, got {type(config).__name__}. Wrap an "
            "encoder's configuration in MaskGitConfig(text_config=...), or start from a "
            "pretrained encoder with MaskGitForMaskedLM.from_encoder()."
        )


def encoder_arguments(
    known: frozenset[str], encoder: nn.Module, own: dict[str, Any], others: dict[str, Any]
) -> dict[str, Any]:
    """Return what the encoder gets.

    Args:
        known: names of the encoder's arguments.
        encoder: named in the error.
        own: arguments that `forward` names; those that are None, or that this encoder does not
            know, are left out.
        others: arguments that the caller named; all of them must be known.

    Raises:
        TypeError: for an argument that the encoder does not take.
    """
    unknown = sorted(set(others) - known)
    if unknown:
        raise TypeError(
            f"forward() got {', '.join(map(repr, unknown))}, which the encoder "
            f"{type(encoder).__name__} does not take; it takes {', '.join(sorted(known))}."
        )
    # None stands for "not given": an encoder's own default need not be None.
    given = {**own, **others}
    return {name: value for name, value in given.items() if value is not None and name in known}


def check_targets(
    labels: Tensor | None,
    input_ids: Tensor | None,
    masked_positions: Tensor | None,
    loss_weights: Tensor | None,
    num_items_in_batch: Tensor | int | None,
    forbidden_token_ids: list[int],
) -> Targets | None:
    """Make of the labels what the losses are taken of; None without labels.

    Args:
        labels: as of `forward`, and so are the next four.
        input_ids: their shape counts.
        masked_positions: None chooses every labelled position.
        loss_weights: only with labels.
        num_items_in_batch: None counts the labels.
        forbidden_token_ids: ids that can never be emitted.

    Raises:
        ValueError: for shapes that do not fit, weights without labels, labels without a maskable
            token, and labels whose loss would be infinite.
    """
    if labels is None:
        if loss_weights is not None:
            raise ValueError(
                "`loss_weights` came without `labels`, so there is no loss to weigh. If "
                "transformers.Trainer took the labels away, it is for a loss of its own "
                "(`label_smoothing_factor`, `compute_loss_func`), which is not the one of masked "
                "diffusion; leave these options out."
            )
        return None
    _check_shapes(labels, input_ids, masked_positions, loss_weights)
    labelled = labels != IGNORED_LABEL
    chosen = labelled if masked_positions is None else masked_positions
    count = labelled.sum() if num_items_in_batch is None else num_items_in_batch
    # Looked at before the encoder's kernels are queued, a GPU's answer is soon there.
    if count == 0:
        raise ValueError("The labels hold no maskable token (all are -100), so there is no loss.")
    forbidden = torch.tensor(forbidden_token_ids, dtype=torch.long, device=labels.device)
    true_ids = labels[chosen]  # (N,); -100 where a position without a label is chosen, at no cost
    impossible = true_ids[torch.isin(true_ids, forbidden)]
    if len(impossible):
        raise ValueError(
            f"The labels hold the id {int(impossible[0])}, which can never be emitted (it is "
            "special), so its loss is infinite. Label such positions -100, as "
            "DataCollatorForMaskGit does."
        )
    weights = None if loss_weights is None else loss_weights[chosen]
    return Targets(labels, chosen, weights, forbidden, count)


def check_looking_back(
    conditioning: SelfConditioning | None,
    arguments: dict[str, Any],
    previous_hidden_states: Tensor | None,
    has_previous: Tensor | None,
    self_condition: bool | None,
) -> None:
    """Refuse arguments of self-conditioning that contradict each other, the text or the model.

    Args:
        conditioning: the model's part, None where it has none.
        arguments: of the encoder.
        previous_hidden_states: as of `forward`, and so are the next two.
        has_previous: only with hidden states.
        self_condition: True only without them.

    Raises:
        ValueError: saying which.
    """
    # False stands with anything: it only says that no pass is to be made here.
    if previous_hidden_states is not None and self_condition:
        raise ValueError(
            "`self_condition=True` makes a pass to look back on, and `previous_hidden_states` "
            "are those of one; give one of the two."
        )
    if has_previous is not None and previous_hidden_states is None:
        raise ValueError(
            "`has_previous` says which rows of `previous_hidden_states` count; pass them too."
        )
    if conditioning is None:
        if previous_hidden_states is not None or self_condition:
            raise ValueError(
                "The model has no self-conditioning to give previous hidden states to; set "
                "self_cond=True in its config and train it."
            )
        return
    text = arguments.get("input_ids", arguments.get("inputs_embeds"))
    if previous_hidden_states is None or text is None:
        return
    wanted = (*text.shape[:2], len(conditioning.null))  # the null state is one hidden state, (H,)
    if previous_hidden_states.shape != wanted:
        raise ValueError(
            f"`previous_hidden_states` must be of shape (batch, length, hidden size) = {wanted}, "
            f"got {tuple(previous_hidden_states.shape)}."
        )


def check_judging(
    critic_head: nn.Module | None,
    arguments: dict[str, Any],
    train: str,
    critic_temperature: float | None,
    has_labels: bool,
) -> None:
    """Refuse arguments of the token critic that are out of range, or that this model cannot use.

    Args:
        critic_head: the model's part, None where it has no critic.
        arguments: of the encoder.
        train: as of `forward`, and so is the next one.
        critic_temperature: greater than 0.
        has_labels: whether losses are asked for.

    Raises:
        ValueError: saying which.
    """
    if train not in ("both", "denoiser", "critic"):
        raise ValueError(f"`train` must be 'both', 'denoiser' or 'critic', got {train!r}.")
    if critic_head is None and (train == "critic" or critic_temperature is not None):
        raise ValueError(
            "train='critic' and `critic_temperature` need a token critic, and the model has "
            "none; set token_critic='self' or 'separate' in its config."
        )
    # Not written as `<= 0`, which NaN would pass.
    if critic_temperature is not None and not critic_temperature > 0:
        raise ValueError(f"`critic_temperature` must be greater than 0, got {critic_temperature}.")
    learns = critic_head is not None and has_labels and train != "denoiser"
    if learns and "input_ids" not in arguments:
        raise ValueError("A token critic reads tokens: pass `input_ids`, not `inputs_embeds`.")


def _check_shapes(
    labels: Tensor,
    input_ids: Tensor | None,
    masked_positions: Tensor | None,
    loss_weights: Tensor | None,
) -> None:
    others = {
        "input_ids": input_ids,
        "masked_positions": masked_positions,
        "loss_weights": loss_weights,
    }
    for name, tensor in others.items():
        if tensor is not None and tensor.shape != labels.shape:
            raise ValueError(
                f"`labels` have shape {tuple(labels.shape)} and `{name}` {tuple(tensor.shape)}; "
                "both must be (batch, length)."
            )
