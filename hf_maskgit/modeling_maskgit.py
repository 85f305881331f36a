"""The model: any encoder of the masked-LM family, wrapped as the denoiser of a masked diffusion."""

import contextlib
import inspect
from collections.abc import Iterator
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

from .configuration_maskgit import MaskGitConfig, own_fields, tokenizer_fields
from .generation_config_maskgit import MaskGitGenerationConfig
from .generation_maskgit import MaskGitGenerationMixin
from .losses import masked_cross_entropy

logger = logging.get_logger(__name__)

_IGNORED_LABEL = -100  # transformers' mark of a position without a label


@dataclass
class MaskGitOutput(ModelOutput):
    """What `MaskGitForMaskedLM` returns.

    Args:
        loss: scalar float32, nats per maskable token; only with labels.
        denoiser_loss: the denoiser's share of `loss`, scalar float32.
        logits: (N, V) at the chosen positions where some were named, else (B, L, V).
        hidden_states, attentions: the encoder's, when asked for.
    """

    loss: Tensor | None = None
    denoiser_loss: Tensor | None = None
    logits: Tensor | None = None
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


# transformers recognises a generating model by a direct base of that name.
class MaskGitForMaskedLM(MaskGitPreTrainedModel, MaskGitGenerationMixin):  # type: ignore[misc]
    """An encoder with its LM head, trained to predict what is masked and able to `generate`.

    Args:
        config: describes the encoder and its training.
        denoiser: an encoder to wrap, whose configuration `config.text_config` must be; None builds
            a new one with random weights.
    """

    generation_config_class = MaskGitGenerationConfig

    def __init__(self, config: MaskGitConfig, denoiser: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        _check_encoder(config)
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
        self._head_positions: Tensor | None = None
        denoiser.base_model.register_forward_hook(self._gather_hidden_states)
        self.post_init()

    @classmethod
    def from_encoder(
        cls,
        encoder: str | PreTrainedModel,
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        **kwargs: Any,
    ) -> "MaskGitForMaskedLM":
        """Turn a pretrained encoder into a generator.

        An encoder that comes without an LM head gets a new one, and a warning says so.

        Args:
            encoder: name or path of a checkpoint, or a loaded masked-LM model (wrapped as it is).
            tokenizer: the encoder's tokenizer; None loads it from the same place.
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
                tokenizer = AutoTokenizer.from_pretrained(encoder, revision=kwargs.get("revision"))
            denoiser = _load_encoder(encoder, kwargs)
        _check_denoiser(denoiser)
        fields = {**tokenizer_fields(tokenizer), **overrides}
        config = MaskGitConfig(text_config=denoiser.config, **fields)
        _adapt_token_dropout(denoiser, config)
        config.text_config = denoiser.config  # one object, so that resizing keeps both in step
        module: Any
        for module in denoiser.modules():  # or post_init would draw its weights anew
            module._is_hf_initialized = True
        return cls(config, denoiser).eval()

    @property
    def max_positions(self) -> int | None:
        """Longest framed text in tokens that the encoder takes; None when it sets no limit."""
        for name, module in self.denoiser.base_model.named_modules():
            if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
                offset = 0 if module.padding_idx is None else module.padding_idx + 1
                return module.num_embeddings - offset
        return getattr(self.config.get_text_config(), "max_position_embeddings", None)

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
            output_hidden_states: ask the encoder for its hidden states.
            output_attentions: ask the encoder for its attention maps.
            return_dict: False gives a tuple.
            **kwargs: further arguments of the encoder.

        Raises:
            ValueError: for shapes that do not fit, labels without a single maskable token, or
                labels that can never be emitted.
            TypeError: for an argument that the encoder does not take.
        """
        if labels is not None:
            _check_shapes(input_ids, labels, masked_positions, loss_weights)
            labelled = labels != _IGNORED_LABEL
            if masked_positions is None:
                masked_positions = labelled
        unknown = sorted(set(kwargs) - self._denoiser_arguments)
        if unknown:
            known = ", ".join(sorted(self._denoiser_arguments))
            raise TypeError(
                f"forward() got {', '.join(map(repr, unknown))}, which the encoder "
                f"{type(self.denoiser).__name__} does not take; it takes {known}."
            )
        wanted = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "inputs_embeds": inputs_embeds,
            **kwargs,
        }
        with self._head_at(masked_positions):
            output = self.denoiser(
                **{
                    k: v
                    for k, v in wanted.items()
                    if v is not None and k in self._denoiser_arguments
                },
                output_hidden_states=_or(output_hidden_states, self.config.output_hidden_states),
                output_attentions=_or(output_attentions, self.config.output_attentions),
                return_dict=True,
            )
        logits = output.logits if masked_positions is None else output.logits.squeeze(0)  # (N, V)
        loss = None
        if labels is not None:
            count = labelled.sum() if num_items_in_batch is None else num_items_in_batch
            chosen = cast(Tensor, masked_positions)
            loss = self._loss(logits, labels, chosen, loss_weights, count)
        result = MaskGitOutput(
            loss=loss,
            denoiser_loss=loss,
            logits=logits,
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
        embeddings = self.denoiser.resize_token_embeddings(
            new_num_tokens, pad_to_multiple_of, mean_resizing
        )
        if new_num_tokens is not None:
            self.config.num_token_ids = new_num_tokens
        return embeddings

    def get_input_embeddings(self) -> nn.Module:
        """Return the encoder's token embeddings."""
        return self.denoiser.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the encoder's token embeddings."""
        self.denoiser.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module | None:
        """Return the last layer of the encoder's LM head."""
        return self.denoiser.get_output_embeddings()

    def set_output_embeddings(self, value: nn.Module) -> None:
        """Replace the last layer of the encoder's LM head."""
        self.denoiser.set_output_embeddings(value)

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
        forbidden = torch.tensor(
            self.config.forbidden_token_ids, dtype=torch.long, device=logits.device
        )
        true_ids = labels[chosen]
        impossible = true_ids[torch.isin(true_ids, forbidden)]
        if len(impossible):
            raise ValueError(
                f"The labels hold the id {int(impossible[0])}, which can never be emitted (it is "
                "special), so its loss is infinite. Label such positions -100, as "
                "DataCollatorForMaskGit does."
            )
        return masked_cross_entropy(logits, true_ids, weights, forbidden).sum / count

    @contextlib.contextmanager
    def _head_at(self, positions: Tensor | None) -> Iterator[None]:
        """Let the LM head see only these positions, (B, L) bool, during one forward pass."""
        self._head_positions = positions
        try:
            yield
        finally:
            self._head_positions = None

    def _gather_hidden_states(self, module: nn.Module, args: Any, output: Any) -> Any:
        """Forward hook of the encoder's body: pass on (1, N, H) instead of (B, L, H)."""
        if self._head_positions is None:
            return None
        # The hidden state comes first, whatever its name.
        output[next(iter(output.keys()))] = output[0][self._head_positions].unsqueeze(0)
        return output


def _load_encoder(name: str, kwargs: dict[str, Any]) -> PreTrainedModel:
    denoiser, info = AutoModelForMaskedLM.from_pretrained(name, output_loading_info=True, **kwargs)
    missing = sorted(info["missing_keys"])
    body = [key for key in missing if key.startswith(f"{denoiser.base_model_prefix}.")]
    if body:
        raise ValueError(
            f"{name!r} lacks {len(body)} weights of the encoder itself ({', '.join(body[:3])}, "
            f"...); it does not hold a {type(denoiser).__name__}."
        )
    if missing:
        _start_as_identity(denoiser, missing)
        logger.warning(
            "%r comes without a complete LM head. Newly initialised, to be learned in training: "
            "%s.",
            name,
            ", ".join(missing),
        )
    return denoiser


def _start_as_identity(denoiser: PreTrainedModel, names: list[str]) -> None:
    """Let new square layers of the head pass on what the encoder says.

    Random ones would first have to be unlearned: after 200 updates of 32 King James verses the
    held-out bound of MiniLM came to 4.72 nats per token from the identity and to 4.86 from random
    weights.
    """
    for name in names:
        weight = denoiser.get_parameter(name)
        if weight.ndim == 2 and weight.shape[0] == weight.shape[1]:
            nn.init.eye_(weight)


def _check_denoiser(denoiser: PreTrainedModel) -> None:
    if isinstance(denoiser, MaskGitPreTrainedModel):
        raise ValueError(
            "This is a generator already; load it with MaskGitForMaskedLM.from_pretrained()."
        )
    mapping: Any = AutoModelForMaskedLM._model_mapping
    kind = type(denoiser.config)
    if kind not in mapping or not isinstance(denoiser, mapping[kind]):
        raise ValueError(
            f"{type(denoiser).__name__} predicts no masked tokens. Load the encoder with "
            "AutoModelForMaskedLM.from_pretrained(), or give its name or path."
        )


def _adapt_token_dropout(denoiser: PreTrainedModel, config: MaskGitConfig) -> None:
    """Keep ESM's view of the mask without its scaling by the share of masks in the text.

    With `token_dropout` ESM embeds the mask as zero and divides by the share of visible tokens,
    which has no value for a fully masked text. At the mask rate of its pretraining the scale is 1;
    so the mask's embedding becomes zero and the scaling is switched off.
    """
    if getattr(denoiser.config, "token_dropout", False):
        denoiser.config.token_dropout = False
        module: Any
        for module in denoiser.modules():
            if hasattr(module, "token_dropout"):
                module.token_dropout = False
        embeddings = cast(nn.Embedding, denoiser.get_input_embeddings())
        with torch.no_grad():
            embeddings.weight[cast(int, config.mask_token_id)] = 0.0


def _check_encoder(config: MaskGitConfig) -> None:
    encoder = config.encoder_config
    if encoder.is_encoder_decoder:
        raise ValueError(
            f"{encoder.model_type!r} is an encoder-decoder; masks can only be filled by an encoder."
        )
    if getattr(encoder, "token_dropout", False):
        raise ValueError(
            "The encoder scales its embeddings by the share of masks (token_dropout=True), which "
            "is undefined for a fully masked text. Set text_config.token_dropout=False; "
            "MaskGitForMaskedLM.from_encoder() does it for a pretrained model without changing "
            "what it knows."
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
