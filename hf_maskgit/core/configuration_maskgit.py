"""Configuration of a masked-diffusion model around any encoder of the masked-LM family."""

import copy
import math
import os
from typing import Any, cast

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedTokenizerBase
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec
from transformers.utils import logging

from .argument_checks import check_is_tokenizer, check_whole
from .checkpoint_files import UnknownOptionError, built_of, read_json_object
from .length_law import check_histogram
from .masking import Masking
from .options import check, option, option_of, options_of
from .schedules import SCHEDULES
from .special_tokens import (
    SINGLE_IDS,
    check_mask_is_alone,
    check_size,
    never_emitted,
    never_written,
    tokenizer_fields,
)

logger = logging.get_logger(__name__)

# Keywords that transformers itself hands to a config and that no dataclass field declares.
_TRANSFORMERS_KEYWORDS = frozenset(
    "_attn_implementation _attn_implementation_autoset _commit_hash _experts_implementation "
    "_name_or_path adapter_kwargs attn_implementation auto_map custom_pipelines "
    "experts_implementation model_type name_or_path num_labels output_attentions "
    "quantization_config tie_word_embeddings torch_dtype transformers_version use_cache".split()
)


@strict
class MaskGitConfig(PreTrainedConfig):
    """Describe an encoder and how it is trained and used as a generator.

    Args:
        text_config: the encoder's own configuration, an object or a dict (copied, never edited).
        mask_token_id: id of the mask token; generation and training need it.
        pad_token_id, bos_token_id, eos_token_id, unk_token_id: ids of the other special tokens.
            None where there is none. Left out, they and the mask are what the encoder's
            configuration was told; what its class assumes by itself is no fact of this model.
        special_token_ids: every special id of the tokenizer, reserved ones included. None of them
            is ever drawn at random, and only the end of text and the unknown token can be a
            prediction.
        prefix_ids, suffix_ids: what the tokenizer's template puts around one text, for example
            `[CLS]` and `[SEP]`. Never masked, and no words.
        num_token_ids: the tokenizer's greatest id and one more; rows of the embedding table beyond
            it (padding of the table) are never emitted. None means all rows are real.
        unassigned_token_ids: ids below that no token has; never emitted. None where that was not
            looked at.
        tokenizer_fingerprint: tells the tokenizer from others, whose patterns `generate` refuses;
            None where it is not known.
        trained_length: tokens of the longest text that it was trained on, framing included; longer
            ones bring a warning. Training sets it; None where nobody did.
        lengths: how many texts of each length the last training saw, see `histogram` in
            `length_law`; `generate(num_tokens="sampled")` draws from it. Training sets it; None
            where nobody knows.
        end_fill: tokens, framing included, up to which the last training filled shorter texts with
            ends of text, so that a text ends by itself within that window; None where it did not.
        schedule: how much of a text is masked at each time, a name: a function cannot be stored,
            so give it to the collator or to `generate` instead. This and the options that follow,
            to `self_cond`, are those of `Masking`, which says what each of them is.
        self_cond, self_cond_train_prob: self-conditioning, in [0, 1] the latter; declared below.
        token_critic, critic_loss_weight: the token critic, of weight at least 0; declared below.
        critic_config: the separate critic's own configuration, an object or a dict.
        initializer_range: standard deviation for newly initialised weights.

    Raises:
        ValueError: for a value out of its range.
        TypeError: for an unknown keyword.
    """

    model_type = "maskgit"
    sub_configs_defaults = {
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="bert"),
        "critic_config": SubConfigSpec(config_class=AutoConfig, model_type="bert", optional=True),
    }
    # Trainer gathers every other output of an evaluation row by row, and these are single numbers.
    keys_to_ignore_at_inference = ["denoiser_loss", "critic_loss"]

    text_config: PreTrainedConfig | dict[str, Any] | None = None
    mask_token_id: int | None = None
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    unk_token_id: int | None = None
    special_token_ids: list[int] | None = None
    prefix_ids: list[int] | None = None
    suffix_ids: list[int] | None = None
    num_token_ids: int | None = None
    unassigned_token_ids: list[int] | None = None
    tokenizer_fingerprint: str | None = None
    trained_length: int | None = None
    lengths: dict[str, int] | None = None
    end_fill: int | None = None
    schedule: str = option_of(Masking, "schedule")
    no_replace_prob: float | int = option_of(Masking, "no_replace_prob")
    random_token_prob: float | int = option_of(Masking, "random_token_prob")
    corruption_prob: float | int = option_of(Masking, "corruption_prob")
    use_simple_mdlm_loss_weight: bool = option_of(Masking, "use_simple_mdlm_loss_weight")
    self_cond: bool = option(
        False, "Feed what the encoder made of a text in the pass before back into it.", bool
    )
    self_cond_train_prob: float | int = option(
        0.75,
        "Probability, per example, of training with such a pass.",
        low=0,
        high=1,
        noun="probability",
    )
    token_critic: str | None = option(
        None,
        "A critic that learns which tokens of a filled text are wrong: 'self', a head on the "
        "encoder's own hidden states, or 'separate', a second encoder.",
        choices=(None, "self", "separate"),
    )
    critic_config: PreTrainedConfig | dict[str, Any] | None = None
    critic_loss_weight: float | int = option(
        1.0, "Weight of the critic's loss beside the denoiser's.", low=0
    )
    initializer_range: float = 0.02

    def __new__(cls, *args: Any, **kwargs: Any) -> "MaskGitConfig":
        """Note which ids are given: one that is None and one that is left out are two things."""
        made = super().__new__(cls)
        if given := kwargs.keys() & set(SINGLE_IDS):
            made.__dict__["_given"] = given
        return made

    def __post_init__(self, **kwargs: Any) -> None:
        """Build the encoder's configuration and check every value."""
        unknown = sorted(set(kwargs) - _TRANSFORMERS_KEYWORDS)
        if unknown:
            raise UnknownOptionError(
                f"MaskGitConfig has no option {', '.join(map(repr, unknown))}; its options are "
                f"{', '.join(own_fields())}. Options of the encoder belong in `text_config`."
            )
        self.text_config = copy.deepcopy(self.text_config)
        self.critic_config = copy.deepcopy(self.critic_config)
        super().__post_init__(**kwargs)
        given = vars(self).pop("_given", ())
        for name in SINGLE_IDS:
            if name not in given:
                setattr(self, name, _told(self.get_text_config(), name))
        self._check()

    @property
    def encoder_config(self) -> PreTrainedConfig:
        """The encoder's configuration: `text_config`, which is an object once this one is built."""
        return cast(PreTrainedConfig, self.text_config)

    # Others look for the size of the vocabulary here: PEFT would drop resized embeddings otherwise.
    @property
    def vocab_size(self) -> int:
        """Rows of the encoder's table of tokens."""
        return cast(int, self.get_text_config().vocab_size)

    @vocab_size.setter
    def vocab_size(self, value: int) -> None:
        self.get_text_config().vocab_size = value

    @property
    def forbidden_token_ids(self) -> list[int]:
        """Ids that can never be emitted, sorted: each has probability 0 in every pass.

        They are the mask, the padding, every special token except the end of text and the unknown
        token, and rows of the embedding table that the tokenizer has no text for; the table at the
        head of the module that reads tokenizers tells which.
        """
        return sorted(never_emitted(vars(self), self.get_text_config().vocab_size))

    @property
    def unwritten_token_ids(self) -> list[int]:
        """The same with the unknown token, sorted: no text of the model's ever holds them."""
        return sorted(never_written(vars(self), self.get_text_config().vocab_size))

    @property
    def end_token_ids(self) -> list[int]:
        """Ids that end a text, sorted: never a word, whatever the options of a call are."""
        ends = {self.eos_token_id} - {None}
        told = getattr(self.get_text_config(), "eos_token_id", None)
        # One of them is written behind a text, but all that the encoder was told of end one.
        if isinstance(told, list) and self.eos_token_id in told:
            ends |= set(told) - never_emitted(vars(self))
        return sorted(cast(set[int], ends))

    def read_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Take over what a tokenizer says of its tokens, once it has grown or was changed.

        The model's embeddings must have a row for each of its ids: see `resize_token_embeddings`.

        Args:
            tokenizer: the model's own.

        Raises:
            TypeError: for something else than a tokenizer.
            ValueError: for a tokenizer without a mask, with another one, or with ids beyond the
                vocabulary; nothing is changed then.
        """
        check_is_tokenizer(tokenizer)
        before = {name: getattr(self, name) for name in tokenizer_fields(tokenizer)}
        vars(self).update(tokenizer_fields(tokenizer))
        try:
            self._check()
            if before["mask_token_id"] not in (None, self.mask_token_id):
                raise ValueError(
                    f"The tokenizer's mask token has id {self.mask_token_id}, the model learned "
                    f"that of id {before['mask_token_id']}; give it the tokenizer it was made with."
                )
        except ValueError:
            vars(self).update(before)
            raise

    def check_size(self, num_tokens: int | None) -> None:
        """Refuse a number of embeddings that cuts off tokens of the tokenizer.

        Args:
            num_tokens: rows there are to be; None changes nothing.

        Raises:
            ValueError: naming the ids.
        """
        if num_tokens is not None:
            check_whole("new_num_tokens", num_tokens, 1)
            check_size(vars(self), num_tokens)

    def note_size(self, num_tokens: int | None) -> None:
        """Take all rows of a resized table for tokens, until a tokenizer tells otherwise, and warn.

        Args:
            num_tokens: rows there are now, but for those that only pad the table; None changes
                nothing.
        """
        if num_tokens is not None:
            if self.num_token_ids is not None and num_tokens > self.num_token_ids:
                logger.warning(
                    f"The ids from {self.num_token_ids} to {num_tokens - 1} are new, and the model "
                    "takes them for words: it may write them, special or not. Tell it what they "
                    "are: model.config.read_tokenizer(tokenizer)."
                )
            if self.num_token_ids != num_tokens:
                self.tokenizer_fingerprint = None
            self.num_token_ids = num_tokens
            if self.unassigned_token_ids is not None:
                self.unassigned_token_ids = [i for i in self.unassigned_token_ids if i < num_tokens]

    @property
    def weighs_by_time(self) -> bool:
        """Whether each loss weighs what the bound asks for its time, so that weights differ."""
        return self.use_simple_mdlm_loss_weight

    def masking_options(self) -> dict[str, Any]:
        """Return the options of `Masking` that a checkpoint stores, by name."""
        stored = options_of(MaskGitConfig)
        # `choice` is not stored: both choices train the same model, so it belongs to the run.
        return {name: getattr(self, name) for name in options_of(Masking) if name in stored}

    # transformers sets this on the outer config (from JSON, from users); the encoder owns it.
    @property
    def tie_word_embeddings(self) -> bool:
        """Whether the encoder's LM head shares its weight with the embeddings."""
        return getattr(self.encoder_config, "tie_word_embeddings", False)

    @tie_word_embeddings.setter
    def tie_word_embeddings(self, value: bool) -> None:
        if getattr(self, "text_config", None) is not None:
            self.encoder_config.tie_word_embeddings = value

    def get_text_config(
        self, decoder: bool | None = None, encoder: bool | None = None
    ) -> PreTrainedConfig:
        """Return the configuration that holds the vocabulary (nested twice in vision encoders)."""
        nested = getattr(self.text_config, "text_config", None)
        return nested if isinstance(nested, PreTrainedConfig) else self.encoder_config

    def to_dict(self) -> dict[str, Any]:
        """Return all options; the place the encoder was loaded from stays private."""
        values = super().to_dict()
        for encoder in (values["text_config"], values.get("critic_config")):
            if encoder is not None:
                encoder.pop("_name_or_path", None)
        # of before there were these
        later = "unassigned_token_ids trained_length tokenizer_fingerprint lengths end_fill".split()
        return {k: v for k, v in values.items() if v is not None or k not in later}

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Build a configuration; overrides are set afterwards and checked like the rest."""
        result = built_of(super().from_dict, config_dict, kwargs)
        (result[0] if isinstance(result, tuple) else result)._check()
        return result

    @classmethod
    def get_config_dict(cls, *args: Any, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Load the JSON of a checkpoint and refuse one that is not ours.

        Raises:
            OSError: when the checkpoint has no configuration.
            ValueError: when it is a plain encoder.
        """
        source = args[0] if args else kwargs.get("pretrained_model_name_or_path")
        values, kwargs = super().get_config_dict(*args, **kwargs)
        if not values:  # transformers would build the encoder of its own defaults
            raise OSError(f"{str(source)!r} has no config.json that describes a model.")
        found = values.get("model_type", cls.model_type)
        if found != cls.model_type:
            raise ValueError(
                f"{str(source)!r} is a checkpoint of type {found!r}, not {cls.model_type!r}. To "
                "turn an encoder into a generator use MaskGitForMaskedLM.from_encoder("
                f"{str(source)!r}, tokenizer=tokenizer)."
            )
        return values, kwargs

    @classmethod
    def _dict_from_json_file(cls, json_file: str | os.PathLike[str]) -> dict[str, Any]:
        return read_json_object(json_file)

    def _check(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ValueError(
                f"Unknown schedule {self.schedule!r}; a config stores one of "
                f"{', '.join(map(repr, SCHEDULES))}. Pass a function of your own to the collator "
                "or to generate()."
            )
        Masking(**self.masking_options())  # checks itself
        for name, declared in options_of(MaskGitConfig).items():
            check(name, getattr(self, name), declared)
        if (self.token_critic == "separate") != (self.critic_config is not None):
            raise ValueError(
                "`critic_config` describes a separate critic: give it together with "
                f"token_critic='separate' and only then, got token_critic={self.token_critic!r} "
                f"{'without' if self.critic_config is None else 'with'} it."
            )
        self._check_ids()

    def _check_ids(self) -> None:
        vocab_size = self.get_text_config().vocab_size
        lists = ("special_token_ids", "prefix_ids", "suffix_ids", "unassigned_token_ids")
        for name in (*SINGLE_IDS, *lists):
            value = getattr(self, name)
            ids = [] if value is None else value if isinstance(value, list) else [value]
            outside = [i for i in ids if not 0 <= i < vocab_size]
            if outside:
                raise ValueError(
                    f"`{name}` must be an id of the encoder's vocabulary, 0 to {vocab_size - 1}, "
                    f"got {outside[0]}. Resize the encoder's embeddings when the tokenizer has "
                    "grown."
                )
        if self.num_token_ids is not None and not 0 < self.num_token_ids <= vocab_size:
            raise ValueError(
                f"`num_token_ids` must lie in 1..{vocab_size}, the encoder's vocabulary, got "
                f"{self.num_token_ids}. Resize the encoder's embeddings when the tokenizer has "
                "grown."
            )
        check_mask_is_alone(vars(self))
        if self.trained_length is not None and self.trained_length < 1:
            raise ValueError(
                f"`trained_length` must be at least 1 token, got {self.trained_length}; None where "
                "nobody knows."
            )
        if self.lengths is not None:
            check_histogram(self.lengths)
        framing = len(self.prefix_ids or []) + len(self.suffix_ids or [])
        if self.end_fill is not None and self.end_fill <= framing:
            raise ValueError(
                f"`end_fill` must leave room for a text within its framing of {framing} tokens, "
                f"got {self.end_fill}; None where texts were not filled."
            )
        if not 0 <= self.initializer_range < math.inf:
            raise ValueError(
                "`initializer_range` must be a finite number of at least 0, got "
                f"{self.initializer_range}."
            )


def _told(encoder: PreTrainedConfig, name: str) -> int | None:
    """Return an id that an encoder's configuration was told, the first of several.

    None where it holds what its class assumes by itself: BERT's configuration says 0 for padding of
    images, too, and RoBERTa's the ids of a vocabulary that need not be this one.
    """
    value = getattr(encoder, name, None)
    if value == getattr(type(encoder), name, None):
        return None
    return value[0] if isinstance(value, list) else value


def own_fields() -> list[str]:
    """Name the options that `MaskGitConfig` adds to those of every transformers config."""
    return list(MaskGitConfig.__annotations__)
