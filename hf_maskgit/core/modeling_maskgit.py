"""The model: any encoder of the masked-LM family, wrapped as the denoiser of a masked diffusion."""

import contextlib
import inspect
import os
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import ModelOutput, logging

from .configuration_maskgit import MaskGitConfig, own_fields
from .encoder_kinds import (
    PADDING_LEAKS,
    adapt_to_generation,
    check_denoiser,
    check_encoder,
    fit_head_bias,
    freeze_unused_parameters,
    load_encoder,
    max_positions,
    min_positions,
    repair_dtype,
    run_by_length,
    source_options,
)
from .encoder_pass import EncoderPass, hook_encoder, running
from .generation_config_maskgit import MaskGitGenerationConfig
from .generation_maskgit import MaskGitGenerationMixin
from .losses import IGNORED_LABEL, at_least_float32, masked_cross_entropy
from .remote_code import saved_code
from .self_conditioning import SelfConditioning, make_self_conditioning
from .special_tokens import tokenizer_fields
from .token_critic import (
    critic_beside,
    critic_cross_entropy,
    fill_in,
    known_arguments,
    make_critic,
    states_at,
)

logger = logging.get_logger(__name__)


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
    """

    loss: Tensor | None = None
    denoiser_loss: Tensor | None = None
    critic_loss: Tensor | None = None
    logits: Tensor | None = None
    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class MaskGitPreTrainedModel(PreTrainedModel):
    """What transformers needs to know of every model here."""

    config: MaskGitConfig
    config_class = MaskGitConfig
    base_model_prefix = "denoiser"  # no encoder uses this name, so checkpoint keys stay unambiguous
    supports_gradient_checkpointing = True
    # The encoder decides which attention it can run; the wrapper must not stand in its way.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, SelfConditioning):
            module.reset_parameters()
        else:
            super()._init_weights(module)


# transformers recognises a generating model by a direct base of that name.
class MaskGitForMaskedLM(MaskGitPreTrainedModel, MaskGitGenerationMixin):  # type: ignore[misc]
    """An encoder with its LM head, trained to predict what is masked and able to `generate`.

    Args:
        config: describes the encoder and its training.
        denoiser: an encoder to wrap, whose configuration `config.text_config` must be; None builds
            a new one with random weights.
        critic: the same for a separate token critic and `config.critic_config`.
    """

    generation_config_class = MaskGitGenerationConfig
    _push_with_code: bool | None = None  # while `push_to_hub` calls `save_pretrained`

    def __init__(
        self,
        config: MaskGitConfig,
        denoiser: PreTrainedModel | None = None,
        critic: PreTrainedModel | None = None,
    ) -> None:
        if getattr(config, "model_type", None) != MaskGitConfig.model_type:
            raise TypeError(
                f"MaskGitForMaskedLM takes a MaskGitConfig, got {type(config).__name__}. Wrap an "
                "encoder's configuration in MaskGitConfig(text_config=...), or start from a "
                "pretrained encoder with MaskGitForMaskedLM.from_encoder()."
            )
        super().__init__(config)
        check_encoder(config.encoder_config)
        if denoiser is None:
            # A dtype in the nested config would win over the one this model is built in.
            denoiser = AutoModelForMaskedLM.from_config(
                config.text_config, dtype=torch.get_default_dtype()
            )
        self.denoiser = denoiser
        self.supports_gradient_checkpointing = denoiser.supports_gradient_checkpointing
        parameters = inspect.signature(denoiser.forward).parameters.values()
        self._denoiser_arguments = frozenset(
            parameter.name for parameter in parameters if parameter.kind != parameter.VAR_KEYWORD
        )
        self._padding_leaks = config.encoder_config.model_type in PADDING_LEAKS
        self._min_positions = min_positions(config.encoder_config)
        repair_dtype(denoiser)
        freeze_unused_parameters(denoiser)
        self.self_conditioning = make_self_conditioning(config, denoiser)
        hook_encoder(denoiser, self.self_conditioning)
        self.critic, self.critic_head = make_critic(config, denoiser, critic)
        self.post_init()

    @classmethod
    def from_encoder(
        cls,
        encoder: str | PreTrainedModel,
        *,
        tokenizer: PreTrainedTokenizerBase | str | None = None,
        critic: str | PreTrainedModel | None = None,
        **kwargs: Any,
    ) -> "MaskGitForMaskedLM":
        """Turn a pretrained encoder into a generator.

        An encoder that comes without an LM head gets a new one, and a warning says so.

        Args:
            encoder: name or path of a checkpoint, or a loaded masked-LM model (wrapped as it is).
            tokenizer: the encoder's tokenizer, or its name; None loads it from the same place.
            critic: name, path or model (without a head) of a separate token critic with the same
                vocabulary; None with token_critic="separate" starts it as a copy of the encoder.
            **kwargs: fields of `MaskGitConfig` go to the config; the rest (`revision`, `dtype`,
                `attn_implementation`, ...) to `AutoModelForMaskedLM.from_pretrained`.

        Raises:
            ValueError: when there is no tokenizer, the tokenizer has no mask token, or its ids do
                not fit the encoder.
            TypeError: for an option that neither knows.
        """
        overrides = {k: kwargs.pop(k) for k in list(kwargs) if k in own_fields()}
        if "text_config" in overrides:
            raise TypeError(
                "from_encoder() takes the encoder's own configuration; to change it, load the "
                "encoder yourself and pass the model."
            )
        if isinstance(tokenizer, str):
            tokenizer = AutoTokenizer.from_pretrained(tokenizer)
        if isinstance(encoder, PreTrainedModel):
            if kwargs:
                raise TypeError(
                    f"from_encoder() has no option {', '.join(map(repr, sorted(kwargs)))} for a "
                    f"loaded model; options of MaskGitConfig are {', '.join(own_fields())}."
                )
            if tokenizer is None:
                raise ValueError(
                    "Pass `tokenizer=`: a loaded model does not say which ids are special."
                )
            denoiser = encoder
        else:
            if tokenizer is None:
                tokenizer = AutoTokenizer.from_pretrained(encoder, **source_options(kwargs))
            denoiser = load_encoder(encoder, kwargs)
        if isinstance(denoiser, MaskGitPreTrainedModel):
            raise ValueError(
                "This is a generator already; load it with MaskGitForMaskedLM.from_pretrained()."
            )
        check_denoiser(denoiser)
        fields = {**tokenizer_fields(tokenizer), **overrides}
        num_rows = denoiser.config.get_text_config().vocab_size
        if fields["num_token_ids"] < 0.9 * num_rows:
            logger.warning(
                "The tokenizer knows %d ids and the encoder has rows for %d; is it the encoder's "
                "own tokenizer?",
                fields["num_token_ids"],
                num_rows,
            )
        judge = critic_beside(critic, denoiser, fields)
        config = MaskGitConfig(text_config=denoiser.config, **fields)
        adapt_to_generation(denoiser, cast(int, config.mask_token_id))
        config.text_config = denoiser.config  # one object, so that resizing keeps both in step
        for loaded in [denoiser] if judge is None else [denoiser, judge]:
            module: Any
            for module in loaded.modules():  # or post_init would draw its weights anew
                module._is_hf_initialized = True
        return cls(config, denoiser, judge).eval()

    @property
    def max_positions(self) -> int | None:
        """Longest framed text in tokens that the model takes; None when it sets no limit."""
        limits = [max_positions(self.denoiser)]
        if self.critic is not None:
            limits.append(max_positions(self.critic))
        return min((limit for limit in limits if limit is not None), default=None)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        masked_positions: Tensor | None = None,
        loss_weights: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        previous_hidden_states: Tensor | None = None,
        has_previous: Tensor | None = None,
        self_condition: bool | None = None,
        train: str = "both",
        critic_temperature: float | None = None,
        output_last_hidden_state: bool = False,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> MaskGitOutput | tuple[Tensor, ...]:
        """Predict the tokens, and with labels the loss.

        The LM head runs only at the positions whose logits are needed.

        Args:
            input_ids: (B, L) long, corrupted as the collator does.
            attention_mask: (B, L), 1 at real tokens.
            token_type_ids: (B, L) long, where the encoder knows them.
            inputs_embeds: (B, L, H) float, instead of `input_ids`, where the encoder takes them.
            labels: (B, L) long, true ids at every maskable position, -100 elsewhere.
            masked_positions: (B, L) bool, where logits are wanted and, with labels, the loss is
                taken. None means everywhere without labels, and every labelled position with them.
            loss_weights: (B, L) float, weight of the cross-entropy at each chosen position; None
                is 1.
            num_items_in_batch: what the loss is divided by: maskable tokens of the whole optimizer
                update over all processes. None counts this batch's labels.
            previous_hidden_states: (B, L, H) float, `last_hidden_state` of the pass before, for
                self-conditioning.
            has_previous: (B,) bool, rows that had such a pass; None means all.
            self_condition: make that pass here, without gradient, and condition every text on it.
                None does so with labels alone: in evaluation for every text, in training for each
                with `config.self_cond_train_prob`.
            train: "denoiser", "critic" or "both": whose loss is taken, where there is a critic.
                With "critic", no gradient reaches the denoiser but through the hidden states of a
                critic of kind "self".
            critic_temperature: of the tokens that the critic learns to judge; None draws one per
                text, uniform in (0, 1].
            output_last_hidden_state: return `last_hidden_state`.
            output_hidden_states: ask the encoder for its hidden states.
            output_attentions: ask the encoder for its attention maps.
            return_dict: False gives a tuple.
            **kwargs: further arguments of the encoder.

        Raises:
            ValueError: for shapes that do not fit, labels without a single maskable token, labels
                that can never be emitted, `loss_weights` without labels, or an argument of a part
                that this model does not have.
            TypeError: for an argument that the encoder does not take.
        """
        if labels is not None:
            _check_shapes(input_ids, labels, masked_positions, loss_weights)
            labelled = labels != IGNORED_LABEL
            if masked_positions is None:
                masked_positions = labelled
        elif loss_weights is not None:
            raise ValueError(
                "`loss_weights` came without `labels`, so there is no loss to weigh. If "
                "transformers.Trainer took the labels away, it is for a loss of its own "
                "(`label_smoothing_factor`, `compute_loss_func`), which is not the one of masked "
                "diffusion; leave these options out."
            )
        self._check_parts(
            previous_hidden_states, has_previous, self_condition, train, critic_temperature
        )
        unknown = sorted(set(kwargs) - self._denoiser_arguments)
        if unknown:
            known = ", ".join(sorted(self._denoiser_arguments))
            raise TypeError(
                f"forward() got {', '.join(map(repr, unknown))}, which the encoder "
                f"{type(self.denoiser).__name__} does not take; it takes {known}."
            )
        given = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "inputs_embeds": inputs_embeds,
            **kwargs,
        }
        arguments = {
            k: v for k, v in given.items() if v is not None and k in self._denoiser_arguments
        }
        details = {
            "output_hidden_states": _or(output_hidden_states, self.config.output_hidden_states),
            "output_attentions": _or(output_attentions, self.config.output_attentions),
        }
        if previous_hidden_states is None and self.self_conditioning is not None:
            share = self._share_that_looks_first(self_condition, labels is not None)
            if share > 0:
                previous_hidden_states, has_previous = self._look_first(arguments, share)
        if previous_hidden_states is not None:
            _check_hidden_states(
                previous_hidden_states, arguments, cast(SelfConditioning, self.self_conditioning)
            )
        this_pass = EncoderPass(
            masked_positions, previous_hidden_states, has_previous, output_last_hidden_state
        )
        only_critic = labels is not None and train == "critic"
        with torch.no_grad() if only_critic else contextlib.nullcontext():
            if self._padding_leaks and attention_mask is not None:
                logits, output = self._predict_unpadded(
                    arguments, attention_mask, this_pass, details
                )
            else:
                logits, output = self._predict(arguments, this_pass, details)
        loss = denoiser_loss = critic_loss = None
        if labels is not None:
            count = labelled.sum() if num_items_in_batch is None else num_items_in_batch
            chosen = cast(Tensor, masked_positions)
            loss = denoiser_loss = self._loss(logits, labels, chosen, loss_weights, count)
            if self.critic_head is not None and train != "denoiser":
                critic_loss = self._critic_loss(
                    arguments, logits, labels, chosen, critic_temperature, count
                )
                weighted = self.config.critic_loss_weight * critic_loss
                loss = weighted if train == "critic" else denoiser_loss + weighted
        result = MaskGitOutput(
            loss=loss,
            denoiser_loss=denoiser_loss,
            critic_loss=critic_loss,
            logits=logits,
            last_hidden_state=this_pass.last_hidden_state,
            hidden_states=output.get("hidden_states"),
            attentions=output.get("attentions"),
        )
        return result if _or(return_dict, self.config.return_dict) else result.to_tuple()

    def resize_token_embeddings(
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
    ) -> nn.Embedding:
        """Resize the encoder's embeddings and head; it knows best how its own are built.

        Args:
            new_num_tokens: tokens of the grown tokenizer; all of them can be emitted from now on.
            pad_to_multiple_of: round the tables up to a multiple of this; the rest is never
                emitted.
            mean_resizing: draw new rows around the mean of the old ones.
        """
        options: dict[str, Any] = {}  # some encoders know none of them
        if pad_to_multiple_of is not None:
            options["pad_to_multiple_of"] = pad_to_multiple_of
        if not mean_resizing:
            options["mean_resizing"] = False
        embeddings = self.denoiser.resize_token_embeddings(new_num_tokens, **options)
        fit_head_bias(self.denoiser)
        if self.critic is not None:
            self.critic.resize_token_embeddings(new_num_tokens, **options)
        hook_encoder(self.denoiser, self.self_conditioning)
        if new_num_tokens is not None:
            self.config.num_token_ids = new_num_tokens
        return embeddings

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *args: Any,
        with_code: bool | None = None,
        **kwargs: Any,
    ) -> None:
        """Save the model, and with it the code that it needs.

        A checkpoint with code loads without this package where `trust_remote_code=True` is given:
        by the Auto classes, and as a "text-generation", "fill-mask" or "infilling" pipeline. With
        the package it loads as any other, but the first and the last of these pipelines still want
        `trust_remote_code=True`.

        Args:
            save_directory: the folder.
            *args: as in transformers.
            with_code: carry the code. None carries it if the model itself was loaded from a
                checkpoint's code.
            **kwargs: as in transformers.

        Raises:
            ValueError: with code, for a subclass of the user's own.
        """
        if with_code is None:
            with_code = self._push_with_code
        with saved_code(self, with_code):
            super().save_pretrained(save_directory, *args, **kwargs)

    def push_to_hub(  # type: ignore[override]
        self, repo_id: str, *, with_code: bool | None = None, **kwargs: Any
    ) -> str:
        """Save the model to the Hub.

        Args:
            repo_id: "owner/name".
            with_code: see `save_pretrained`.
            **kwargs: as in transformers: `commit_message`, `private`, `revision`, `token`, ...

        Returns:
            Where the commit is.
        """
        self._push_with_code = with_code
        try:
            push: Any = super().push_to_hub
            return str(push(repo_id, **kwargs))
        finally:
            self._push_with_code = None

    def get_input_embeddings(self) -> nn.Module:
        """Return the encoder's token embeddings."""
        return self.denoiser.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the encoder's token embeddings."""
        self.denoiser.set_input_embeddings(value)
        hook_encoder(self.denoiser, self.self_conditioning)

    def get_output_embeddings(self) -> nn.Module | None:
        """Return the last layer of the encoder's LM head."""
        return self.denoiser.get_output_embeddings()

    def set_output_embeddings(self, value: nn.Module) -> None:
        """Replace the last layer of the encoder's LM head."""
        self.denoiser.set_output_embeddings(value)

    @property
    def has_token_critic(self) -> bool:
        """Whether `score_tokens` can be asked."""
        return self.critic_head is not None

    def score_tokens(
        self, input_ids: Tensor, attention_mask: Tensor, positions: Tensor, **kwargs: Any
    ) -> Tensor:
        """Ask the token critic which tokens of a filled text are right.

        Args:
            input_ids: (B, L) long, without masks.
            attention_mask: (B, L), 1 at real tokens.
            positions: (B, L) bool, the tokens to judge.
            **kwargs: further arguments of the encoder, such as `token_type_ids`.

        Returns:
            (N,) float32 (float64 from a model in float64), the log-odds that each token is right.

        Raises:
            ValueError: for a model without a critic.
        """
        if self.critic_head is None:
            raise ValueError(
                "The model has no token critic; set token_critic='self' or 'separate' in its "
                "config and train it."
            )
        arguments = {"input_ids": input_ids, "attention_mask": attention_mask, **kwargs}
        return -self._suspicion(arguments, positions)

    def _suspicion(self, arguments: dict[str, Any], positions: Tensor) -> Tensor:
        """Return the critic's log-odds (N,) that the tokens at (B, L) bool are wrong."""
        if self.critic is not None:
            states = states_at(self.critic, arguments, positions)
        else:
            with self._running(EncoderPass(), arguments) as arguments:
                states = states_at(self.denoiser.base_model, arguments, positions)
        return at_least_float32(cast(nn.Linear, self.critic_head)(states).squeeze(-1))

    def _critic_loss(
        self,
        arguments: dict[str, Any],
        logits: Tensor,
        labels: Tensor,
        chosen: Tensor,
        temperature: float | None,
        count: Tensor | int,
    ) -> Tensor:
        """Let the critic judge the text as the denoiser fills it, at every maskable position."""
        if "input_ids" not in arguments:
            raise ValueError("A token critic reads tokens: pass `input_ids`, not `inputs_embeds`.")
        labelled = labels != IGNORED_LABEL
        truth = torch.where(labelled, labels, arguments["input_ids"])
        filled = fill_in(logits.detach(), truth, chosen, self._forbidden(logits), temperature)
        suspicion = self._suspicion({**arguments, "input_ids": filled}, labelled)
        return critic_cross_entropy(suspicion, (filled != truth)[labelled]).sum / count

    def _share_that_looks_first(self, self_condition: bool | None, has_labels: bool) -> float:
        """Return the probability with which a text gets a pass to look back on; see `forward`."""
        if self_condition is not None:
            return float(self_condition)
        if not has_labels:
            return 0.0
        return self.config.self_cond_train_prob if self.training else 1.0

    def _look_first(self, arguments: dict[str, Any], share: float) -> tuple[Tensor, Tensor | None]:
        """Make the pass that self-conditioning looks back on.

        For all texts, although some may not use it: every process then does the same work, and
        shapes do not change from batch to batch.

        Returns:
            Hidden states (B, L, H), and which rows (B,) bool use them, None for all.
        """
        body: Any = self.denoiser.base_model
        with torch.no_grad(), self._running(EncoderPass(), arguments) as arguments:
            states = body(**known_arguments(body, arguments), return_dict=True)[0]
        if share == 1:
            return states, None  # and torch's generator is left alone
        return states, torch.rand(len(states), device=states.device) < share

    def _check_parts(
        self,
        previous_hidden_states: Tensor | None,
        has_previous: Tensor | None,
        self_condition: bool | None,
        train: str,
        critic_temperature: float | None,
    ) -> None:
        """Check the arguments of parts that this model may not have."""
        if previous_hidden_states is not None and self_condition:
            raise ValueError(
                "`self_condition=True` makes a pass to look back on, and `previous_hidden_states` "
                "are those of one; give one of the two."
            )
        if has_previous is not None and previous_hidden_states is None:
            raise ValueError(
                "`has_previous` says which rows of `previous_hidden_states` count; pass them too."
            )
        if self.self_conditioning is None and (
            previous_hidden_states is not None or self_condition
        ):
            raise ValueError(
                "The model has no self-conditioning to give previous hidden states to; set "
                "self_cond=True in its config and train it."
            )
        if train not in ("both", "denoiser", "critic"):
            raise ValueError(f"`train` must be 'both', 'denoiser' or 'critic', got {train!r}.")
        if self.critic_head is None and (train == "critic" or critic_temperature is not None):
            raise ValueError(
                "train='critic' and `critic_temperature` need a token critic, and the model has "
                "none; set token_critic='self' or 'separate' in its config."
            )
        if critic_temperature is not None and not critic_temperature > 0:
            raise ValueError(
                f"`critic_temperature` must be greater than 0, got {critic_temperature}."
            )

    def _predict(
        self, arguments: dict[str, Any], this_pass: EncoderPass, details: dict[str, bool]
    ) -> tuple[Tensor, Any]:
        """Run the encoder; return logits (N, V) or (B, L, V), and all that it returned."""
        text = arguments.get("input_ids", arguments.get("inputs_embeds"))
        if text is not None and text.shape[1] < self._min_positions:
            raise ValueError(
                f"The encoder {type(self.denoiser).__name__} takes texts of at least "
                f"{self._min_positions} tokens with their framing, got one of {text.shape[1]}."
            )
        with self._running(this_pass, arguments) as arguments:
            output = self.denoiser(**arguments, **details, return_dict=True)
        everywhere = this_pass.head_positions is None
        return output.logits if everywhere else output.logits.squeeze(0), output

    def _predict_unpadded(
        self,
        arguments: dict[str, Any],
        attention_mask: Tensor,
        this_pass: EncoderPass,
        details: dict[str, bool],
    ) -> tuple[Tensor, Any]:
        """Do as `_predict` for an encoder that would confuse padding with text."""
        arguments = {k: v for k, v in arguments.items() if k != "attention_mask"}
        if attention_mask.all():
            return self._predict(arguments, this_pass, details)
        if any(details.values()) or this_pass.keeps_hidden_state:
            kind = self.config.encoder_config.model_type
            raise ValueError(
                f"Hidden states and attentions of a padded batch are not available from {kind!r}, "
                f"which runs without padding ({PADDING_LEAKS[kind]}); pass texts of one length."
            )
        logits = run_by_length(
            lambda of_rows, places: self._predict(of_rows, EncoderPass(places), details)[0],
            arguments,
            attention_mask,
            this_pass.head_positions,
        )
        return logits, {}

    def _loss(
        self,
        logits: Tensor,
        labels: Tensor,
        chosen: Tensor,
        loss_weights: Tensor | None,
        count: Tensor | int,
    ) -> Tensor:
        if count == 0:
            raise ValueError(
                "The labels hold no maskable token (all are -100), so there is no loss."
            )
        weights = None if loss_weights is None else loss_weights[chosen]
        forbidden = self._forbidden(logits)
        true_ids = labels[chosen]
        impossible = true_ids[torch.isin(true_ids, forbidden)]
        if len(impossible):
            raise ValueError(
                f"The labels hold the id {int(impossible[0])}, which can never be emitted (it is "
                "special), so its loss is infinite. Label such positions -100, as "
                "DataCollatorForMaskGit does."
            )
        return masked_cross_entropy(logits, true_ids, weights, forbidden).sum / count

    def _forbidden(self, logits: Tensor) -> Tensor:
        ids = self.config.forbidden_token_ids
        return torch.tensor(ids, dtype=torch.long, device=logits.device)

    def _running(self, this_pass: EncoderPass, arguments: dict[str, Any]) -> Any:
        return running(this_pass, self.denoiser, self.self_conditioning, arguments)


def _check_hidden_states(
    previous: Tensor, arguments: dict[str, Any], conditioning: SelfConditioning
) -> None:
    text = arguments["input_ids"] if "input_ids" in arguments else arguments["inputs_embeds"]
    wanted = (*text.shape[:2], len(conditioning.null))
    if previous.shape != wanted:
        raise ValueError(
            f"`previous_hidden_states` must be of shape (batch, length, hidden size) = {wanted}, "
            f"got {tuple(previous.shape)}."
        )


def _check_shapes(
    input_ids: Tensor | None,
    labels: Tensor,
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


def _or(value: bool | None, fallback: bool | None) -> bool:
    return bool(fallback if value is None else value)
