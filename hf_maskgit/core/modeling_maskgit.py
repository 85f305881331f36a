"""The model: any encoder of the masked-LM family, wrapped as the denoiser of a masked diffusion."""

import contextlib
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, PreTrainedModel, PreTrainedTokenizerBase

from .argument_checks import check_marks, check_whole
from .causal_lm import check_left_to_right
from .chunked_head import can_chunk, can_hold_back
from .configuration_maskgit import MaskGitConfig
from .encoder_kinds import (
    check_encoder,
    freeze_unused_parameters,
    head_on_embeddings,
    max_positions,
    repair_dtype,
    resize,
)
from .encoder_loading import generator_from
from .encoder_pass import (
    EncoderPass,
    argument_names,
    hook_encoder,
    look_back,
    predict,
    states_at,
    states_of_denoiser,
)
from .generation_config_maskgit import MaskGitGenerationConfig
from .generation_maskgit import MaskGitGenerationMixin
from .left_edge import LeftEdge
from .losses import at_least_float32
from .modeling_checks import (
    check_config,
    check_inputs,
    check_judging,
    check_keywords,
    check_looking_back,
    check_targets,
    encoder_arguments,
    own_arguments,
)
from .modeling_losses import take_losses
from .modeling_output import MaskGitOutput
from .remote_code import CarriesCode
from .self_conditioning import SelfConditioning, make_self_conditioning
from .shown_labels import ShownLabels
from .token_critic import make_critic


class MaskGitPreTrainedModel(CarriesCode):
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
        **unknown: refused; `from_pretrained` passes on what it does not know.

    Attributes:
        taken_for_causal_lm: it was loaded by `AutoModelForCausalLM`.
    """

    generation_config_class = MaskGitGenerationConfig
    taken_for_causal_lm = False

    def __init__(
        self,
        config: MaskGitConfig,
        denoiser: PreTrainedModel | None = None,
        critic: PreTrainedModel | None = None,
        **unknown: Any,
    ) -> None:
        check_config(config)
        check_keywords(unknown, config)
        super().__init__(config)
        check_encoder(config.encoder_config)
        if denoiser is None:
            # A dtype in the nested config would win over the one this model is built in.
            denoiser = AutoModelForMaskedLM.from_config(
                config.text_config, dtype=torch.get_default_dtype()
            )
        self.denoiser = denoiser
        self.supports_gradient_checkpointing = denoiser.supports_gradient_checkpointing
        self._denoiser_arguments = argument_names(denoiser)  # once, for all calls of `forward`
        repair_dtype(denoiser)
        freeze_unused_parameters(denoiser)
        self.self_conditioning = make_self_conditioning(config, denoiser)
        hook_encoder(denoiser, self.self_conditioning)
        self.critic, self.critic_head = make_critic(config, denoiser, critic)
        self.known_limit = self.max_positions  # once, for all calls of `forward`
        self._shown_labels = ShownLabels()
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
            **kwargs: fields of `MaskGitConfig` go to the config; the rest (`revision`, `dtype` ...)
                to `AutoModelForMaskedLM.from_pretrained`, but for `check_tokenizer`.

        Raises:
            ValueError: when there is no tokenizer, it has no mask token, or it is plainly not the
                encoder's own (check_tokenizer=False takes one that knows few of its ids).
            TypeError: for an option that neither knows.
        """
        return generator_from(cls, encoder, tokenizer, critic, kwargs)

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
        output_nll: bool = False,
        output_logits: bool = True,
        output_last_hidden_state: bool = False,
        output_head_states: bool = False,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> MaskGitOutput | tuple[Tensor, ...]:
        """Predict the tokens, and with labels the loss.

        1. Check what is asked, before the encoder works.
        2. Look back on a pass before this one, where the model has self-conditioning.
        3. Predict at the chosen positions; the LM head runs nowhere else.
        4. Take the losses of denoiser and critic.
        5. Pack what was asked for.

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
            output_nll: return `nll`, which needs labels.
            output_logits: False leaves `logits` out. With labels, head and loss then run in chunks
                of positions wherever they can, and the logits are never whole in memory.
            output_last_hidden_state: return `last_hidden_state`.
            output_head_states: without labels, return `head_states` and no logits where the LM head
                can be run by itself, for `masked_positions`; logits as ever where it cannot.
            output_hidden_states: ask the encoder for its hidden states.
            output_attentions: ask the encoder for its attention maps.
            return_dict: False gives a tuple.
            **kwargs: further arguments of the encoder.

        Raises:
            ValueError: for rows that cannot be read (see `check_rows`) or are too long, labels
                that can never be emitted, stand at padding or come without masks, `loss_weights`
                without labels, or an argument of a part that this model does not have.
            TypeError: for an argument that the encoder does not take.
        """
        # 1. Check what is asked, before the encoder works.
        own = own_arguments(input_ids, attention_mask, token_type_ids, inputs_embeds)
        arguments = encoder_arguments(self._denoiser_arguments, self.denoiser, own, kwargs)
        asked = (masked_positions, loss_weights, num_items_in_batch, output_nll)
        targets = check_targets(labels, own, *asked, self.config, self._shown_labels, self.training)
        check_inputs(self.config, own, kwargs, masked_positions)
        looks_back = (previous_hidden_states, has_previous, self_condition)
        check_looking_back(self.self_conditioning, arguments, *looks_back)
        check_judging(self.critic_head, arguments, train, critic_temperature, targets is not None)
        positions = masked_positions if targets is None else targets.chosen
        late = self._can_hold_back(output_head_states, output_logits, targets is not None, train)
        this_pass = EncoderPass(positions, *looks_back[:2], output_last_hidden_state, late)
        this_pass.edge = LeftEdge.of(self, own)  # behind it, in one graph with the pass

        # 2. Look back on a pass before this one, where the model has self-conditioning.
        if previous_hidden_states is None and self.self_conditioning is not None:
            share = self._share_that_looks_back(self_condition, targets is not None)
            this_pass.previous_hidden_states, this_pass.has_previous = look_back(
                share, self.denoiser, self.self_conditioning, arguments, this_pass.edge
            )

        # 3. Predict at the chosen positions; the LM head runs nowhere else.
        details = self._details(output_hidden_states, output_attentions)
        if positions is None and not any((output_last_hidden_state, *details.values())):
            check_left_to_right(self.config, input_ids, self.taken_for_causal_lm)
        # Nothing of the denoiser's own pass is kept for a gradient that nobody will ask for.
        only_critic = targets is not None and train == "critic"
        with torch.no_grad() if only_critic else contextlib.nullcontext():
            logits, output = predict(
                this_pass, self.denoiser, self.self_conditioning, arguments, attention_mask, details
            )

        # 4. Take the losses of denoiser and critic.
        how = (train, critic_temperature, output_nll, this_pass.held_back)
        losses = take_losses(self, {**own, **kwargs}, logits, targets, *how)

        # 5. Pack what was asked for.
        result = MaskGitOutput(
            **losses,
            logits=logits if output_logits and this_pass.held_back is None else None,
            head_states=this_pass.held_back if targets is None else None,
            last_hidden_state=this_pass.last_hidden_state,
            hidden_states=output.get("hidden_states"),
            attentions=output.get("attentions"),
        )
        return result if _or(return_dict, self.config.return_dict) else result.to_tuple()

    def _details(self, hidden_states: bool | None, attentions: bool | None) -> dict[str, bool]:
        return {
            "output_hidden_states": _or(hidden_states, self.config.output_hidden_states),
            "output_attentions": _or(attentions, self.config.output_attentions),
        }

    def _can_hold_back(
        self, output_head_states: bool, output_logits: bool, has_labels: bool, train: str
    ) -> bool:
        """Tell whether the head runs behind the pass: where its logits are read, or with a loss."""
        if not has_labels:
            return output_head_states and can_hold_back(self, self.denoiser)
        # A critic that learns is shown draws of the logits, and needs them whole.
        judges = self.critic_head is not None and train != "denoiser"
        return not output_logits and not judges and can_chunk(self.denoiser)

    def _share_that_looks_back(self, self_condition: bool | None, has_labels: bool) -> float:
        """Return the probability with which a text gets a pass to look back on; see `forward`."""
        if self_condition is not None:
            return float(self_condition)
        if not has_labels:
            return 0.0
        return self.config.self_cond_train_prob if self.training else 1.0

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
            ValueError: for a model without a critic, or positions that are not (B, L) bool.
        """
        if self.critic_head is None:
            raise ValueError(
                "The model has no token critic; set token_critic='self' or 'separate' in its "
                "config and train it."
            )
        check_marks("positions", positions, input_ids.shape)
        arguments = {"input_ids": input_ids, "attention_mask": attention_mask, **kwargs}
        return -self.suspicion(arguments, positions)  # it learns what is wrong

    def suspicion(self, arguments: dict[str, Any], positions: Tensor) -> Tensor:
        """Return the critic's log-odds (N,) that the tokens at (B, L) bool are wrong."""
        edge = LeftEdge.of(self, arguments)
        if self.critic is not None:
            states = states_at(self.critic, arguments, edge, positions)
        else:
            denoiser = (self.denoiser, self.self_conditioning)
            states = states_of_denoiser(*denoiser, arguments, edge, positions)
        return at_least_float32(cast(nn.Linear, self.critic_head)(states).squeeze(-1))

    def resize_token_embeddings(
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
    ) -> nn.Embedding:
        """Resize the encoder's embeddings and head; it knows best how its own are built.

        Args:
            new_num_tokens: the grown tokenizer's greatest id and one more; all of these can be
                emitted from now on, until `config.read_tokenizer` says otherwise (a warning).
            pad_to_multiple_of: round the tables up to a multiple; the rest is never emitted.
            mean_resizing: draw new rows around the mean of the old ones.
        """
        self.config.check_size(new_num_tokens)
        if pad_to_multiple_of is not None:
            check_whole("pad_to_multiple_of", pad_to_multiple_of, 1)
        how = (new_num_tokens, pad_to_multiple_of, mean_resizing)
        embeddings = resize(self.denoiser, *how)
        if self.critic is not None:
            resize(self.critic, *how)
        hook_encoder(self.denoiser, self.self_conditioning)  # these are new embeddings
        self.config.note_size(new_num_tokens)
        return embeddings

    def get_input_embeddings(self) -> nn.Module:
        """Return the encoder's token embeddings."""
        return self.denoiser.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the encoder's token embeddings."""
        self.denoiser.set_input_embeddings(value)
        hook_encoder(self.denoiser, self.self_conditioning)

    def get_output_embeddings(self) -> nn.Module | None:
        """Return the last layer of the encoder's LM head; None where its embeddings are that."""
        has_layer = head_on_embeddings(self.denoiser) is None
        return self.denoiser.get_output_embeddings() if has_layer else None

    def set_output_embeddings(self, value: nn.Module) -> None:
        """Replace the last layer of the encoder's LM head."""
        self.denoiser.set_output_embeddings(value)


def _or(value: bool | None, fallback: bool | None) -> bool:
    return bool(fallback if value is None else value)
