"""What the model must be made of and what its `forward` must be given, each fault in a sentence.

All is looked at before the encoder works. Only what depends on how a batch reaches the encoder,
with or without its padding, is refused in the pass itself.

Letters: B batch, L length, H width of the hidden states, N chosen positions, K forbidden ids.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import logging

from .argument_checks import check_count, check_flag, check_marks, check_tensor, describes_generator
from .configuration_maskgit import MaskGitConfig
from .losses import IGNORED_LABEL
from .options import TEMPERATURE, check
from .row_checks import can_be_read, check_mask, check_rows
from .self_conditioning import SelfConditioning
from .shown_labels import ShownLabels

logger = logging.get_logger(__name__)

# Keywords of old tutorials, and what became of them.
_NO_LONGER = {
    "use_cache": "it is an option of `generate` and of `generation_config`: leave it out",
    "resume_download": "transformers has given it up, downloads are always resumed: leave it out",
    "from_tf": "transformers has given up TensorFlow: leave it out",
    "from_flax": "transformers has given up Flax: leave it out",
}


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
        config: a `MaskGitConfig`, see `describes_generator`.

    Raises:
        TypeError: saying how to make one.
    """
    if not describes_generator(config):
        raise TypeError(
            f"MaskGitForMaskedLM takes a MaskGitConfig, got {type(config).__name__}. Wrap an "
            "encoder's configuration in MaskGitConfig(text_config=...), or start from a "
            "pretrained encoder with MaskGitForMaskedLM.from_encoder()."
        )


def check_keywords(unknown: dict[str, Any], config: Any) -> None:
    """Refuse what neither transformers nor the model takes, as `from_pretrained` passes it on.

    Args:
        unknown: keywords with their values.
        config: of the model, whose encoder may know them.

    Raises:
        TypeError: saying of each what became of it, or where it belongs.
    """
    if not unknown:
        return
    encoder = config.encoder_config
    said = [f"{name!r}: {keyword_advice(name, encoder)}" for name in sorted(unknown)]
    raise TypeError(f"MaskGitForMaskedLM takes no keyword {'; '.join(said)}.")


def keyword_advice(name: str, encoder: Any = None) -> str:
    """Say what to do about a keyword that nobody takes.

    Args:
        name: the keyword.
        encoder: the encoder's configuration, which may have an option of that name.
    """
    if name in _NO_LONGER:
        return _NO_LONGER[name]
    if hasattr(encoder, name):
        return (
            "it is an option of the encoder: set it as config.text_config."
            f"{name} of a config = MaskGitConfig.from_pretrained(...), and pass config=config"
        )
    return "neither MaskGitConfig nor transformers has an option of that name"


def check_inputs(
    config: MaskGitConfig, own: dict[str, Any], others: dict[str, Any], positions: Any
) -> None:
    """Refuse a text that cannot be read, as `generate` does.

    Args:
        config: gives the vocabulary and the padding id.
        own: `input_ids`, `attention_mask`, `token_type_ids` and `inputs_embeds` of `forward`.
        others: further arguments of the encoder.
        positions: its `masked_positions`.

    Raises:
        TypeError: for anything but tensors.
        ValueError: as `check_rows` and `check_marks`, and for no text at all, or two.
    """
    if torch.compiler.is_compiling():  # it would compile anew for every size that is looked at
        return
    ids, embeds, mask = own["input_ids"], own["inputs_embeds"], own["attention_mask"]
    if (ids is None) == (embeds is None):
        raise ValueError(
            "forward() reads a text: pass either `input_ids` or `inputs_embeds`, got "
            f"{'neither' if ids is None else 'both'}."
        )
    if ids is None:
        if isinstance(mask, Tensor) and mask.ndim == 2 and can_be_read(mask):
            check_mask("attention_mask", mask)
    else:
        # A mask of pairs of tokens, or one that counts a prefix too, tells of padding in its own
        # way. ModernBERT takes a dictionary of such masks.
        own_way = "past_key_values" in others or isinstance(mask, dict)
        own_way = own_way or (isinstance(mask, Tensor) and mask.ndim == 4)
        check_rows(config, ids, torch.ones_like(ids) if own_way else mask, own["token_type_ids"])
    if positions is not None:
        check_marks("masked_positions", positions, (embeds if ids is None else ids).shape[:2])


def own_arguments(
    input_ids: Any, attention_mask: Any, token_type_ids: Any, inputs_embeds: Any
) -> dict[str, Any]:
    """Collect the arguments of an encoder that `forward` names; ids as wide as embeddings take."""
    ids = {"input_ids": input_ids, "token_type_ids": token_type_ids}
    narrow = (torch.int8, torch.uint8, torch.int16)
    for name, tensor in ids.items():
        if isinstance(tensor, Tensor) and tensor.dtype in narrow:
            ids[name] = tensor.long()
    return {**ids, "attention_mask": attention_mask, "inputs_embeds": inputs_embeds}


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
    own: dict[str, Any],
    masked_positions: Tensor | None,
    loss_weights: Tensor | None,
    num_items_in_batch: Tensor | int | None,
    output_nll: bool,
    config: MaskGitConfig,
    shown: ShownLabels,
    training: bool,
) -> Targets | None:
    """Make of the labels what the losses are taken of; None without labels.

    Args:
        labels: as of `forward`, and so are those of the next five.
        own: its `input_ids` and `attention_mask`.
        masked_positions: None chooses every labelled position.
        loss_weights: only with labels.
        num_items_in_batch: None counts the labels.
        output_nll: only with labels.
        config: gives the vocabulary, and the ids that can never be emitted.
        shown: what the labels of earlier batches showed.
        training: whether the model is.

    Raises:
        ValueError: for shapes that do not fit, weights without labels, labels of padding, beyond
            the vocabulary or whose loss would be infinite, and labels without masks.
    """
    if labels is None:
        if output_nll:
            raise ValueError(
                "`output_nll` came without `labels`, so there is no true token to measure; give "
                "both."
            )
        if loss_weights is not None:
            raise ValueError(
                "`loss_weights` came without `labels`, so there is no loss to weigh. If "
                "transformers.Trainer took the labels away, it is for a loss of its own "
                "(`label_smoothing_factor`, `compute_loss_func`), which is not the one of masked "
                "diffusion; leave these options out."
            )
        return None
    input_ids, attention_mask = own["input_ids"], own["attention_mask"]
    _check_shapes(labels, input_ids, masked_positions, loss_weights)
    labels = labels.long()
    labelled = labels != IGNORED_LABEL
    chosen = labelled if masked_positions is None else masked_positions
    count = _count(labelled, num_items_in_batch, training)
    # Looked at before the encoder's kernels are queued, a GPU's answer is soon there.
    forbidden = torch.tensor(config.forbidden_token_ids, dtype=torch.long, device=labels.device)
    true_ids = labels[chosen]  # (N,); -100 where a position without a label is chosen, at no cost
    if can_be_read(labels):
        _check_known(true_ids, config.get_text_config().vocab_size)
    impossible = true_ids[torch.isin(true_ids, forbidden)]
    if len(impossible):
        raise ValueError(
            f"The labels hold the id {int(impossible[0])}, which can never be emitted (it is "
            "special), so its loss is infinite. Label such positions -100, as "
            "DataCollatorForMaskGit does."
        )
    if isinstance(attention_mask, Tensor) and attention_mask.shape == labels.shape:
        of_padding = labelled & ~attention_mask.bool()
        if can_be_read(labels) and bool(of_padding.any()):
            raise ValueError(
                f"The labels hold the id {int(labels[of_padding][0])} at padding, where "
                "`attention_mask` is 0: it would be learned as text. Label padding -100, as "
                "DataCollatorForMaskGit does."
            )
    if input_ids is not None:
        named = masked_positions is not None
        with_label = true_ids != IGNORED_LABEL
        shown.look(true_ids[with_label], input_ids[chosen][with_label], named, training)
    weights = None if loss_weights is None else loss_weights[chosen]
    return Targets(labels, chosen, weights, forbidden, count)


def _count(labelled: Tensor, num_items: Tensor | int | None, training: bool) -> Tensor | int:
    """Return what a sum is divided by, > 0 wherever there is something to divide.

    Short texts leave transformers' own masking collator without a label now and then. Such a batch
    teaches nothing, and its loss is 0 over 1; in evaluation it measures nothing, and its loss is
    0 over 0, no number, which Trainer leaves out of its mean.
    """
    count = labelled.sum() if num_items is None else num_items
    check_count("num_items_in_batch", count)
    if count > 0:
        return count
    if bool(labelled.any()):
        raise ValueError(
            f"`num_items_in_batch` must be greater than 0 where there are labels, got {count:g}."
        )
    logger.warning_once(
        "A batch holds no label (all are -100): it teaches nothing, and its loss is 0 in training "
        "and no number in evaluation. transformers' masking collator makes such batches of short "
        "texts now and then; if every batch of yours is one, no text has a maskable token."
    )
    return torch.tensor(int(training), device=labelled.device)


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
    check_flag("self_condition", self_condition)
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
    if has_previous is not None:
        check_marks("has_previous", has_previous, text.shape[:1])


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
    if not isinstance(train, str) or train not in ("both", "denoiser", "critic"):
        raise ValueError(f"`train` must be 'both', 'denoiser' or 'critic', got {train!r}.")
    if critic_head is None and (train == "critic" or critic_temperature is not None):
        raise ValueError(
            "train='critic' and `critic_temperature` need a token critic, and the model has "
            "none; set token_critic='self' or 'separate' in its config."
        )
    if critic_temperature is not None:
        check("critic_temperature", critic_temperature, TEMPERATURE)
    learns = critic_head is not None and has_labels and train != "denoiser"
    if learns and "input_ids" not in arguments:
        raise ValueError("A token critic reads tokens: pass `input_ids`, not `inputs_embeds`.")


def _check_known(true_ids: Tensor, vocab_size: int) -> None:
    # The check of the text does not see them: where a label counts, the text is masked.
    beyond = true_ids[(true_ids >= vocab_size) | ((true_ids < 0) & (true_ids != IGNORED_LABEL))]
    if len(beyond):
        raise ValueError(
            f"The labels hold the id {int(beyond[0])}; the vocabulary has 0 to {vocab_size - 1}, "
            "and -100 is no label. Is this the model's own tokenizer? If it has grown since, call "
            "model.resize_token_embeddings(len(tokenizer)) and "
            "model.config.read_tokenizer(tokenizer)."
        )


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
    check_tensor("labels", labels)
    for name, tensor in others.items():
        if tensor is None:
            continue
        check_tensor(name, tensor)
        if tensor.shape != labels.shape:
            raise ValueError(
                f"`labels` have shape {tuple(labels.shape)} and `{name}` {tuple(tensor.shape)}; "
                "both must be (batch, length)."
            )
    if masked_positions is not None:
        check_marks("masked_positions", masked_positions, labels.shape)
