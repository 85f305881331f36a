"""From options to the things a run needs: tokenizer, model, accelerator."""

import logging
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from datasets import Dataset
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ..core.configuration_maskgit import MaskGitConfig, own_fields
from ..core.decoding_prompts import ids_of_decoding
from ..core.encoder_kinds import head_bias, resize
from ..core.encoder_loading import load_critic, load_encoder
from ..core.generation_config_maskgit import MaskGitGenerationConfig
from ..core.masking import maskable_positions
from ..core.modeling_maskgit import MaskGitForMaskedLM
from ..core.special_tokens import rows_needed
from .adapters import note_new_tables, peft_module
from .arguments import ModelArguments, TrainArguments
from .deepspeed_engine import asked_for_deepspeed, plain_processes
from .encoder_settings import check_known
from .engines import engine_of
from .mixed_precision import format_on, slow_format
from .recipes import json_object
from .sharding import shard_on_cpus
from .trackers import check_tracker

logger = logging.getLogger(__name__)


def make_accelerator(options: TrainArguments) -> Accelerator:
    """Set up devices, number format and trackers.

    Raises:
        ValueError: for a tracker or adapters whose package is not installed, and for an engine that
            this library cannot train with.
    """
    check_tracker(options.log_with)
    if options.lora_r:
        peft_module()  # before anything is loaded
    # The launcher tells processes that there is no GPU, unless they are to use DeepSpeed.
    without_gpu = asked_for_deepspeed() and not torch.accelerator.is_available()
    mixed_precision: str | None = options.mixed_precision
    if mixed_precision == "auto":
        device = torch.device("cpu")
        if not (options.use_cpu or without_gpu):
            device = torch.accelerator.current_accelerator(check_available=True) or device
        mixed_precision = format_on("auto", device)
    with plain_processes():
        accelerator = Accelerator(
            cpu=options.use_cpu or without_gpu,
            mixed_precision=mixed_precision,
            log_with=options.log_with,
            project_dir=options.output_dir,
            # one call of the scheduler is one update, on however many processes
            step_scheduler_with_optimizer=False,
            kwargs_handlers=[
                DistributedDataParallelKwargs(find_unused_parameters=options.find_unused_parameters)
            ],
        )
    slow = slow_format(accelerator.mixed_precision, accelerator.device)
    if slow is not None and accelerator.is_main_process:
        logger.warning("%s", slow)
    shard_on_cpus(accelerator)
    engine_of(accelerator).check(accelerator, options)
    return accelerator


def load_tokenizer(options: ModelArguments) -> PreTrainedTokenizerBase:
    """Load the tokenizer that was named, else the encoder's own."""
    if options.tokenizer is not None:
        return AutoTokenizer.from_pretrained(options.tokenizer)
    return AutoTokenizer.from_pretrained(options.encoder, revision=options.revision)


def load_model(options: ModelArguments, tokenizer: PreTrainedTokenizerBase) -> MaskGitForMaskedLM:
    """Build the model in float32, the format its weights are trained in.

    Starts from random weights, from an encoder, or from a checkpoint of this library, whose
    settings hold where the options name no other. Such a checkpoint may gain self-conditioning or a
    token critic; a warning says what is new. With `resize_embeddings` a tokenizer may have grown.

    Raises:
        ValueError: for a critic where the checkpoint has another one, a tokenizer that knows more
            ids than the encoder has rows, an attention that cannot be had here, or options of
            decoding that ask for what the model lacks.
    """
    try:
        model = _load_model(options, tokenizer)
    except (ValueError, ImportError) as error:  # of transformers: an unknown one, or no package
        chosen, said = options.attn_implementation, str(error)
        lacks = isinstance(error, ImportError) and "attention" in said.lower()
        if chosen is None or not (lacks or "attn" in said or chosen in said):
            raise
        raise ValueError(f"attn_implementation={chosen!r} cannot be used: {error}") from error
    if options.decoding:
        # As in a call: a sampler that is named takes nothing of a stored one.
        named = MaskGitGenerationConfig(**json_object("decoding", options.decoding))
        named.complete(named.without_conflicts(model.generation_config.to_dict()))
        model.generation_config = named
        # Refused now, and not when the model writes.
        ids_of_decoding(model.config, model.resolve_options(None, None, {}))
    return model


def _warn_of_padding(encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Say so where an encoder takes a token of texts for padding, as MPNet does with its second."""
    taken = getattr(encoder.get_input_embeddings(), "padding_idx", None)
    if taken is None or taken in tokenizer.all_special_ids:
        return
    logger.warning(
        "An encoder of the type %r takes the token %r (id %d) for padding, whatever its "
        "configuration says: the token's embedding learns nothing, and positions behind it are "
        "miscounted. Choose another encoder, unless no text has this token.",
        encoder.config.model_type,
        tokenizer.convert_ids_to_tokens(taken),
        taken,
    )


def _load_model(options: ModelArguments, tokenizer: PreTrainedTokenizerBase) -> MaskGitForMaskedLM:
    if options.from_scratch:
        config = encoder_config(
            options.encoder, options.revision, options.encoder_overrides, tokenizer
        )
        source: Any = AutoModelForMaskedLM.from_config(
            config, dtype=torch.float32, **_attention(options)
        )
        _warn_of_padding(source, tokenizer)
        return MaskGitForMaskedLM.from_encoder(
            source,
            tokenizer=tokenizer,
            critic=_critic(options),
            check_tokenizer=options.check_tokenizer,
            **options.maskgit_overrides,
        )
    load: dict[str, Any] = {"revision": options.revision, "dtype": torch.float32}
    load |= _attention(options)
    found = AutoConfig.from_pretrained(options.encoder, revision=options.revision)
    _check_rows(options, tokenizer, found)
    load |= _dropouts(options, found)
    if not isinstance(found, MaskGitConfig):
        encoder: Any = options.encoder
        critic: Any = options.critic
        if options.resize_embeddings:
            encoder = _with_rows(load_encoder(encoder, load), tokenizer)
            critic = None if critic is None else _with_rows(_critic(options), tokenizer)
            load = {}  # and used
        return MaskGitForMaskedLM.from_encoder(
            encoder,
            tokenizer=tokenizer,
            critic=critic,
            check_tokenizer=options.check_tokenizer,
            **load,
            **options.maskgit_overrides,
        )
    names_critic = options.critic is not None or options.token_critic not in (
        None,
        found.token_critic,
    )
    if found.token_critic is not None and names_critic:
        raise ValueError(
            f"The generator {options.encoder!r} has a token critic already, token_critic="
            f"{found.token_critic!r}, which goes on learning; leave `critic` and `token_critic` "
            "out."
        )
    if names_critic or (options.self_cond and not found.self_cond):
        generator = MaskGitForMaskedLM.from_pretrained(options.encoder, **load)
        if options.resize_embeddings:
            _with_rows(generator, tokenizer).config.read_tokenizer(tokenizer)
        changes, named = options.maskgit_overrides, options.critic
        return with_new_parts(generator, tokenizer, named, changes, _attention(options))
    model = MaskGitForMaskedLM.from_pretrained(options.encoder, **load, **options.maskgit_overrides)
    if options.resize_embeddings:
        _with_rows(model, tokenizer).config.read_tokenizer(tokenizer)
    return model


def _dropouts(options: ModelArguments, found: PreTrainedConfig) -> dict[str, Any]:
    """Pass changed dropouts of a trained encoder on, as `from_pretrained` of its kind takes them.

    Raises:
        ValueError: for one that it does not have.
    """
    if not options.encoder_overrides:
        return {}
    settings = json_object("encoder_overrides", options.encoder_overrides)
    encoder = found.get_text_config()
    check_known(settings, encoder)
    if not isinstance(found, MaskGitConfig):
        return settings
    for name, value in settings.items():
        setattr(encoder, name, value)
    return {"text_config": encoder}


def _attention(options: ModelArguments) -> dict[str, str]:
    """Pass a choice of attention on, and none where none was made."""
    chosen = options.attn_implementation
    return {} if chosen is None else {"attn_implementation": chosen}


def _critic(options: ModelArguments) -> PreTrainedModel | None:
    """Load the critic that is named, with the attention that was chosen."""
    return None if options.critic is None else load_critic(options.critic, _attention(options))


def _check_rows(
    options: ModelArguments, tokenizer: PreTrainedTokenizerBase, found: PreTrainedConfig
) -> None:
    """Refuse a tokenizer that has grown, before weights are loaded, unless that is asked for."""
    rows, needed = getattr(found.get_text_config(), "vocab_size", None), rows_needed(tokenizer)
    if rows is not None and rows < needed and not options.resize_embeddings:
        raise ValueError(
            f"The tokenizer knows ids up to {needed - 1} and {options.encoder!r} has rows for "
            f"{rows}. If it is the encoder's own and has grown, set `resize_embeddings` to give "
            "the new tokens rows of their own."
        )


def _with_rows(model: Any, tokenizer: PreTrainedTokenizerBase) -> Any:
    """Give a model the rows that its grown tokenizer asks for, and return it."""
    needed = rows_needed(tokenizer)
    if model.config.get_text_config().vocab_size < needed:
        if isinstance(model, MaskGitForMaskedLM):
            model.config.num_token_ids = needed  # read off the tokenizer next: nothing to warn of
            model.resize_token_embeddings(needed)
        else:
            resize(model, needed)
        note_new_tables(getattr(model, "denoiser", model))
    return model


def with_new_parts(
    generator: MaskGitForMaskedLM,
    tokenizer: PreTrainedTokenizerBase,
    critic: str | None,
    changes: dict[str, Any],
    attention: dict[str, str] | None = None,
) -> MaskGitForMaskedLM:
    """Give a generator self-conditioning or a token critic that it was not made with.

    Args:
        generator: its encoder and the parts it has are used on.
        tokenizer: its own.
        critic: encoder of a separate critic; None is a copy of the generator's.
        changes: fields of `MaskGitConfig` that differ from the generator's.
        attention: how a critic that is named computes it, as an option of `from_pretrained`.

    Returns:
        The new generator; a warning names its new weights.
    """
    kept = {name: getattr(generator.config, name) for name in own_fields()}
    for described_by_models in ("text_config", "critic_config"):
        del kept[described_by_models]
    model = MaskGitForMaskedLM.from_encoder(
        generator.denoiser,
        tokenizer=tokenizer,
        critic=generator.critic or (critic and load_critic(critic, dict(attention or {}))),
        check_tokenizer=False,  # it is the generator's
        **{**kept, **changes},
    )
    model.generation_config = generator.generation_config
    # What the generator has is taken over; what is missing there is what is new here.
    new = model.load_state_dict(generator.state_dict(), strict=False).missing_keys
    # A separate critic starts as an encoder that has learned; all else starts from nothing.
    logger.warning(
        "The generator gains weights that it was not trained with: %s.",
        ", ".join(name for name in new if not name.startswith("critic."))
        + (f", and a critic ({critic or 'a copy of its encoder'})" if model.critic else ""),
    )
    return model


def encoder_config(
    source: str, revision: str, overrides: str | None, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedConfig:
    """Configure a new encoder for a tokenizer.

    Args:
        source: name on the Hub, folder, JSON file, or model type such as "bert".
        revision: branch, tag or commit on the Hub.
        overrides: settings that differ, a JSON object such as '{"hidden_size": 256}'.
        tokenizer: decides the size of the vocabulary and the padding id.

    Raises:
        ValueError: for overrides that are no JSON object, name a setting the encoder does not
            have, or leave tokens without a row.
    """
    make = AutoConfig.for_model if source in CONFIG_MAPPING else AutoConfig.from_pretrained
    load = {} if source in CONFIG_MAPPING else {"revision": revision}
    plain = make(source, **load)
    settings = json_object("encoder_overrides", overrides) if overrides else {}
    check_known(settings, plain)
    needed = rows_needed(tokenizer)
    size = settings.get("vocab_size", needed)
    if type(size) is int and size < needed:
        raise ValueError(
            f"`encoder_overrides` sets vocab_size to {size}, and the tokenizer knows ids up to "
            f"{needed - 1}; leave `vocab_size` out, or set it to {needed} or more."
        )
    sizes = {"vocab_size": needed, "pad_token_id": tokenizer.pad_token_id}
    return make(source, **load, **{**sizes, **settings})


@torch.no_grad()
def start_from_frequencies(model: MaskGitForMaskedLM, examples: Dataset) -> None:
    """Let a new LM head begin with what every text shows: how frequent each token is.

    Sets the bias of the last layer to the logarithm of the smoothed frequencies. Only for a head
    that has not learned anything; a trained one knows better.

    Args:
        model: whose head is new.
        examples: column `input_ids`, framed; framing does not count.

    Raises:
        ValueError: when the head has no bias.
    """
    bias = head_bias(model.denoiser)
    if bias is None:
        raise ValueError(
            f"The head of {type(model.denoiser).__name__} has no bias to hold the frequencies."
        )
    config = model.config
    framing = config.prefix_ids or [], config.suffix_ids or [], config.forbidden_token_ids
    counts = torch.ones(len(bias), dtype=torch.float64)  # no token is impossible
    for row in examples["input_ids"]:
        ids = torch.as_tensor(row)[None]
        maskable = maskable_positions(ids, torch.ones_like(ids), *framing)
        counts += torch.bincount(ids[maskable], minlength=len(counts))
    bias.copy_((counts / counts.sum()).log())
