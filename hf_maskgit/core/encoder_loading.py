"""From a pretrained encoder, and perhaps a critic, to a generator.

What a checkpoint holds is looked at before its weights are loaded: whether this kind of encoder can
fill masks at all, and whether its body is complete. Only the LM head may be missing.
"""

import copy
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils import logging

from .argument_checks import check_is_tokenizer, check_source
from .checkpoint_places import check_place, load_tokenizer, source_beside, source_options
from .configuration_maskgit import MaskGitConfig, own_fields
from .encoder_kinds import is_unused, refusal
from .modeling_checks import keyword_advice
from .options import check, options_of
from .special_tokens import tokenizer_fields
from .token_critic import check_critic

logger = logging.get_logger(__name__)

Generator = TypeVar("Generator", bound=PreTrainedModel)

# Of an encoder's rows, the share that its own tokenizer knows is nearly all. Below the first of
# these it may be another's, below the second it plainly is. Padding is no sign of either: 64 rows
# are 33 ids, filled up to one of these multiples.
_COMMON_SHARE, _LEAST_SHARE = 0.9, 0.5
_PADDED_TO = (8, 16, 32, 64, 128, 256)


def generator_from(
    make: Callable[[MaskGitConfig, PreTrainedModel, PreTrainedModel | None], Generator],
    encoder: str | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | str | None,
    critic: str | PreTrainedModel | None,
    options: dict[str, Any],
) -> Generator:
    """Do the work of `MaskGitForMaskedLM.from_encoder`, which see.

    Args:
        make: the generator's class.
        encoder: name or path of a checkpoint, or a loaded masked-LM model.
        tokenizer: the encoder's, or its name; None loads it from the same place.
        critic: name, path or model of a separate token critic.
        options: fields of `MaskGitConfig`, options of `AutoModelForMaskedLM.from_pretrained`, and
            `check_tokenizer`: False takes a tokenizer that is plainly not the encoder's.

    Returns:
        The generator, in eval mode.

    Raises:
        ValueError: as `from_encoder`.
        TypeError: as `from_encoder`.
    """
    # What is no field is left to transformers, which refuses what it does not know either.
    fields = {name: value for name, value in options.items() if name in own_fields()}
    options = {name: value for name, value in options.items() if name not in fields}
    is_checked = options.pop("check_tokenizer", True)
    for name, declared in options_of(MaskGitConfig).items():
        if name in fields:
            check(name, fields[name], declared)
    if "text_config" in fields:
        raise TypeError(
            "from_encoder() takes the encoder's own configuration; to change it, load the "
            "encoder yourself and pass the model."
        )
    if critic is not None:
        check_source("critic", critic)
    denoiser, tokenizer = _encoder_and_tokenizer(encoder, tokenizer, options)
    fields = {**tokenizer_fields(tokenizer), **fields}
    if is_checked and isinstance(fields["num_token_ids"], int):  # else the config refuses it
        _check_tokenizer_fits(tokenizer, fields["num_token_ids"], denoiser)
    attention = {name: value for name, value in options.items() if name == "attn_implementation"}
    source = source_beside(critic, encoder, options) | attention
    judge = critic_beside(critic, denoiser, fields, source)
    config = MaskGitConfig(text_config=denoiser.config, **fields)
    _adapt_to_generation(denoiser, cast(int, config.mask_token_id))
    config.text_config = denoiser.config  # one object, so that resizing keeps both in step
    for loaded in [denoiser] if judge is None else [denoiser, judge]:
        module: Any
        for module in loaded.modules():  # or post_init would draw its weights anew
            module._is_hf_initialized = True
    return make(config, denoiser, judge).eval()


def _encoder_and_tokenizer(
    encoder: str | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | str | None,
    options: dict[str, Any],
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load what is given by name, and refuse a model that is no encoder with an LM head."""
    check_source("encoder", encoder)
    if isinstance(tokenizer, str):
        tokenizer = load_tokenizer(tokenizer, encoder, options)
    if tokenizer is not None:
        check_is_tokenizer(tokenizer)
    if isinstance(encoder, PreTrainedModel):
        if options:
            raise TypeError(
                f"from_encoder() has no option {', '.join(map(repr, sorted(options)))} for a "
                f"loaded model; options of MaskGitConfig are {', '.join(own_fields())}."
            )
        if tokenizer is None:
            raise ValueError(
                "Pass `tokenizer=`: a loaded model does not say which ids are special."
            )
        denoiser = encoder
    else:
        check_place(encoder, options)
        if tokenizer is None:
            tokenizer = load_tokenizer(encoder, encoder, options)
        denoiser = load_encoder(encoder, options)
    if isinstance(denoiser.config, MaskGitConfig):
        raise ValueError(
            "This is a generator already; load it with MaskGitForMaskedLM.from_pretrained()."
        )
    check_denoiser(denoiser)
    return denoiser, tokenizer


def _check_tokenizer_fits(
    tokenizer: PreTrainedTokenizerBase, num_token_ids: int, denoiser: PreTrainedModel
) -> None:
    """Refuse a tokenizer that is plainly not the encoder's own; warn where it may not be.

    Args:
        tokenizer: asked for its vocabulary without what was added to it.
        num_token_ids: its greatest id, and one more.
        denoiser: the encoder with its head.

    Raises:
        ValueError: for more ids than the encoder has rows, none of them added, or for fewer than
            half as many.
    """
    num_rows = denoiser.config.get_text_config().vocab_size
    if tokenizer.vocab_size > num_rows:  # a tokenizer that has grown is refused by the config
        raise ValueError(
            f"The tokenizer's vocabulary has {tokenizer.vocab_size} tokens, none added later, "
            f"and the encoder rows for {num_rows}: this is another encoder's tokenizer. Pass "
            "the encoder's own as `tokenizer=`, by itself or by its name. For a new vocabulary "
            "resize the encoder first, with resize_token_embeddings()."
        )
    share = num_token_ids / num_rows
    is_padded = any(-(-num_token_ids // n) * n == num_rows for n in _PADDED_TO)
    if share < _LEAST_SHARE and not is_padded:
        raise ValueError(
            f"The tokenizer knows {num_token_ids} ids and the encoder has rows for {num_rows}, so "
            "it is hardly the encoder's own, and most words would be unknown. Pass the encoder's "
            "own as `tokenizer=`, by itself or by its name; if this is it, check_tokenizer=False "
            "takes it as it is."
        )
    if share < (_LEAST_SHARE if is_padded else _COMMON_SHARE):
        logger.warning(
            "The tokenizer knows %d ids and the encoder has rows for %d; is it the encoder's "
            "own tokenizer?",
            num_token_ids,
            num_rows,
        )


def load_encoder(name: str, options: dict[str, Any]) -> PreTrainedModel:
    """Load a pretrained encoder; a head that its checkpoint lacks is made anew, with a warning.

    Args:
        name: name or path of a checkpoint: of a masked-LM model, or of its body alone.
        options: of `AutoModelForMaskedLM.from_pretrained`.

    Returns:
        The encoder with its head; `new_weights` names what was made anew.

    Raises:
        ValueError: for an encoder that cannot be a denoiser, before its weights are loaded, and
            for a checkpoint that lacks weights of the encoder's body.
    """
    if "output_loading_info" in options:
        raise TypeError(
            "from_encoder() returns the generator alone, and a warning names what was missing; "
            "leave `output_loading_info` out."
        )
    if "config" not in options:  # else it is looked at once the model is loaded
        # A kind that cannot work is refused by its small configuration, before its large weights.
        config = AutoConfig.from_pretrained(name, **source_options(options))
        reason = refusal(config) or _no_masked_lm(name, config)
        if reason:
            raise ValueError(reason)
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # what is missing is told below, and in our words
    try:
        denoiser, info = AutoModelForMaskedLM.from_pretrained(
            name, output_loading_info=True, **options
        )
    except TypeError as error:
        # Options that transformers does not know end in the constructor of the encoder, whose error
        # says nothing of from_encoder().
        if "unexpected keyword argument" not in str(error):
            raise
        name = str(error).rpartition(" ")[2].strip("'")
        raise TypeError(
            f"Neither MaskGitConfig nor the encoder knows an option that from_encoder() was given "
            f"({error}): {keyword_advice(name)}. Options of MaskGitConfig are "
            f"{', '.join(own_fields())}."
        ) from error
    finally:
        logging.set_verbosity(verbosity)
    # A pooler and the like predict no token, so nobody misses them.
    missing = sorted(key for key in info["missing_keys"] if not is_unused(denoiser, key))
    body = [key for key in missing if key.startswith(f"{denoiser.base_model_prefix}.")]
    if body:
        raise ValueError(
            f"{name!r} lacks weights of the encoder itself, {len(body)} in all, such as {body[0]}; "
            f"it does not hold a {type(denoiser).__name__}."
        )
    if missing:
        _start_as_identity(denoiser, missing)
        logger.warning(
            "%r comes without a complete LM head. Newly initialised, to be learned in training: "
            "%s.",
            name,
            ", ".join(missing),
        )
    cast(Any, denoiser).new_weights = missing  # for whoever lets but a part of it learn
    return denoiser


def critic_beside(
    critic: str | PreTrainedModel | None,
    denoiser: PreTrainedModel,
    fields: dict[str, Any],
    source: dict[str, Any],
) -> PreTrainedModel | None:
    """Load or copy a separate critic where one is asked for, and note it in the fields.

    Args:
        critic: name, path or model; None copies the denoiser's encoder where a critic is wanted.
        denoiser: the encoder it will judge.
        fields: of `MaskGitConfig`; `token_critic` and `critic_config` are set.
        source: options of `from_pretrained` for a critic by name, see `load_critic`.

    Raises:
        ValueError: for fields that ask for something else, or a critic that cannot judge.
    """
    kind, described = fields.get("token_critic"), fields.get("critic_config") is not None
    if critic is None and (kind != "separate" or described):
        return None  # none at all, or a new one with random weights
    if kind not in (None, "separate"):
        raise ValueError(
            f"`critic` is a second model, and token_critic={kind!r} asks for none; leave one of "
            "the two out."
        )
    if described:
        raise ValueError(
            "`critic` brings its own configuration; leave `critic_config` out, or leave `critic` "
            "out to start with random weights."
        )
    judge = load_critic(denoiser if critic is None else critic, source)
    if critic is not None and judge is denoiser.base_model:
        raise ValueError(
            "The critic is the encoder itself. Leave `critic` out: token_critic='separate' starts "
            "with a copy of the encoder, and token_critic='self' puts a head on it."
        )
    if critic is None:  # the same start, from which the two learn different things
        judge = copy.deepcopy(judge)
    _adapt_to_generation(judge, fields["mask_token_id"])
    check_critic(judge.config, denoiser.config)
    fields["token_critic"], fields["critic_config"] = "separate", judge.config
    return judge


def check_denoiser(denoiser: PreTrainedModel) -> None:
    """Refuse a loaded model that has no masked-LM head.

    Raises:
        ValueError: saying how to load one that has.
    """
    reason = refusal(denoiser.config)
    if reason:
        raise ValueError(reason)
    # The right configuration may also be that of a body alone, or of a classifier.
    mapping: Any = AutoModelForMaskedLM._model_mapping
    kind = type(denoiser.config)
    if kind not in mapping or not isinstance(denoiser, mapping[kind]):
        raise ValueError(
            f"{type(denoiser).__name__} predicts no masked tokens. Load the encoder with "
            "AutoModelForMaskedLM.from_pretrained(), or give its name or path."
        )


def load_critic(
    critic: str | PreTrainedModel, source: dict[str, Any] | None = None
) -> PreTrainedModel:
    """Return the encoder without a head that a separate critic starts from.

    Args:
        critic: name, path, or a loaded model, whose encoder is then taken as it is.
        source: options of `from_pretrained` that say where the files lie, and how attention is
            computed.

    Raises:
        ValueError: for an encoder that cannot be a denoiser either, or a generator.
    """
    check_source("critic", critic)
    source = source or {}
    if isinstance(critic, str):
        config = AutoConfig.from_pretrained(critic, **source_options(source))
    else:
        config = critic.config
    if isinstance(config, MaskGitConfig):
        raise ValueError(
            "The critic is a generator; give the encoder that it was made from, or its "
            "`model.denoiser`."
        )
    reason = refusal(config)
    if reason:
        raise ValueError(reason)
    if isinstance(critic, str):
        return AutoModel.from_pretrained(critic, **source)
    return cast(PreTrainedModel, critic.base_model)


def _no_masked_lm(name: str, config: PreTrainedConfig) -> str | None:
    """Say in a sentence that a checkpoint is of no type that fills masks."""
    mapping: Any = AutoModelForMaskedLM._model_mapping
    # A checkpoint with code of its own may bring a class that no mapping knows.
    remote: dict[str, str] = getattr(config, "auto_map", None) or {}
    if type(config) in mapping or "AutoModelForMaskedLM" in remote:
        return None
    return (
        f"{name!r} is a {config.model_type!r}, which transformers does not load as a masked LM; "
        "masks are filled by encoders such as BERT, RoBERTa, ModernBERT or ESM."
    )


def _start_as_identity(denoiser: PreTrainedModel, names: list[str]) -> None:
    """Let new square layers of the head pass on what the encoder says.

    Random ones would first have to be unlearned: after 200 updates of 32 King James verses the
    held-out bound of MiniLM came to 4.72 nats per token from the identity and to 4.86 from random
    weights.
    """
    for name in names:
        weight = denoiser.get_parameter(name)
        # Others widen or narrow, or are biases and norms: these start as transformers makes them.
        if weight.ndim == 2 and weight.shape[0] == weight.shape[1]:
            nn.init.eye_(weight)


def _adapt_to_generation(denoiser: PreTrainedModel, mask_token_id: int) -> None:
    """Change settings with which a pretrained encoder cannot fill masks, without changing it else.

    Args:
        denoiser: changed in place.
        mask_token_id: id of its mask token.
    """
    if getattr(denoiser.config, "token_dropout", False):
        _switch_off_token_dropout(denoiser, mask_token_id)
    if getattr(denoiser.config, "attention_type", None) == "block_sparse":
        logger.warning(
            "%s attends in full from now on, at a cost that grows with the square of the length: "
            "with sparse attention a text's prediction would depend on the texts beside it.",
            type(denoiser).__name__,
        )
        # Both: the configuration is what is saved, the modules are what runs.
        denoiser.config.attention_type = "original_full"
        cast(Any, denoiser.base_model).set_attention_type("original_full")


def _switch_off_token_dropout(denoiser: PreTrainedModel, mask_token_id: int) -> None:
    """Keep ESM's view of the mask without its scaling by the share of masks in the text.

    With `token_dropout` ESM embeds the mask as zero and divides by the share of visible tokens,
    which has no value for a fully masked text. At the mask rate of its pretraining the scale is 1;
    so the mask's embedding becomes zero and the scaling is switched off.
    """
    # Modules read the setting when they were built; the configuration alone reaches none of them.
    denoiser.config.token_dropout = False
    module: Any
    for module in denoiser.modules():
        if hasattr(module, "token_dropout"):
            module.token_dropout = False
    embeddings = cast(nn.Embedding, denoiser.get_input_embeddings())
    with torch.no_grad():
        embeddings.weight[mask_token_id] = 0.0
