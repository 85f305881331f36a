"""The card of a model that was just trained: what its options and its run say about it.

    card = describe(loop, model_options, data_options, options)
    write_model_card(options.output_dir, card)

Nothing of the data stands in it, and nothing of where things lie on this machine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from glob import glob
from os.path import exists
from pathlib import Path
from typing import Any

from ..core.configuration_maskgit import MaskGitConfig
from ..core.generation_config_maskgit import DEFAULTS, MaskGitGenerationConfig
from ..core.generation_output import OF_A_CALL
from ..evaluation.texts import length_asked_for
from ..training.adapters import num_parameters
from ..training.arguments import DataArguments, ModelArguments, TrainArguments
from ..training.examples import DataReport
from ..training.loop import TrainingLoop
from ..training.metrics import totals
from ..training.optimizers import OPTIMIZERS
from ..training.run_log import CURVES_NAME, read_lines
from ..training.weighting import WEIGHTINGS
from .card import GeneratorCard, own_examples

# What somebody needs who wants to train such a model again; the rest is in training_options.yaml.
_SETTINGS = (
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "layer_decay",
    "freeze",
    "lora_r",
    "ema_decay",
    "choice",
    "seed",
)
# Options that say how a run is watched, where it lies and what it is called, or what stands
# elsewhere on the card. Any other that differs from its default is a row of the table.
_UNTOLD = frozenset(
    "output_dir overwrite_output_dir resume_from_checkpoint allow_changes dry_run num_train_epochs "
    "optim max_steps mixed_precision find_unused_parameters use_cpu log_every log_with "
    "eval_every eval_batch_size eval_samples eval_texts eval_prompts checkpoint_every "
    "keep_checkpoints push_to_hub hub_model_id hub_private_repo license language train dataset "
    "train_split eval_dataset eval_split eval_examples max_length pack num_proc num_workers".split()
)
# What shapes a text most, stored or not; a card that listed every option would be read by nobody.
_DECODING = (
    "max_new_tokens",
    "steps",
    "schedule",
    "order",
    "temperature",
    "anneal_temperature",
)
_NUM_SAMPLES = 4
_NO_LICENSE = "Those who trained the weights named no licence for them."
_OWN_LICENSE = (
    "The weights are under `%s`, chosen by those who trained them. The encoder and the data have "
    "licences of their own."
)


def describe(
    loop: TrainingLoop,
    model_options: ModelArguments,
    data_options: DataArguments,
    options: TrainArguments,
    reports: Sequence[DataReport | None] = (None, None),
) -> GeneratorCard:
    """Gather what the model card says; its examples are the model's own words, not the data's.

    Args:
        loop: after its run; the model is left in eval mode.
        model_options: what it was made from.
        data_options: what it learned from.
        options: how.
        reports: what became of the texts to learn from, and of those held out.
    """
    read, held_out_read = (None if report is None else report.reading.share for report in reports)
    model, tokenizer = loop.accelerator.unwrap_model(loop.model).eval(), loop.tokenizer
    masked, prompt = own_examples(model, tokenizer, options.seed)
    length = length_asked_for(model)
    written: Any = model.generate(
        num_return_sequences=_NUM_SAMPLES,
        **length,
        return_dict_in_generate=False,
        seed=options.seed,
        tokenizer=tokenizer,
    )
    log = loop.log.path
    lines = list(read_lines(log)) if log.is_file() else []
    # Held-out texts are a data set of their own, or a split or a part of the one trained on.
    held_out = [data_options.eval_dataset] if data_options.eval_dataset else data_options.dataset
    pretrained = not model_options.from_scratch and on_the_hub(model_options.encoder)
    weights = " with random weights" if model_options.from_scratch else ""
    return GeneratorCard(
        model_id=options.output_dir,
        encoder=f"`{public_name(model_options.encoder)}`{weights}",
        base_model=model_options.encoder if pretrained else None,
        num_parameters=num_parameters(model),
        license=options.license,
        license_note=_NO_LICENSE if options.license is None else _OWN_LICENSE % options.license,
        language=options.language or [],
        training_data=training_data(loop.progress.setting["training_examples"], data_options),
        unknown_share=read,
        training=settings_of(loop, model_options, data_options, options)
        | {"tokens seen": totals(lines)["tokens"]},
        datasets=[name for name in data_options.dataset if on_the_hub(name)],
        held_out_data=f"{' + '.join(map(public_name, held_out))}, held out",
        # results are of one data set, or of none that has a name
        held_out_dataset=held_out[0] if [*map(on_the_hub, held_out)] == [True] else None,
        held_out_unknown_share=held_out_read,
        bound=loop.bound,
        best=best_of(lines),
        critic_auroc=loop.evaluations.values().get("eval_critic_auroc"),
        curves=CURVES_NAME if Path(options.output_dir, CURVES_NAME).is_file() else None,
        masked_example=masked,
        prompt_example=prompt,
        samples=tokenizer.batch_decode(written, skip_special_tokens=True),
        sampling=sampling_of(model.generation_config, length.get("max_new_tokens")),
        limits=[f"It has seen texts of at most {data_options.max_length} tokens."],
    )


def training_data(num_examples: int | None, data_options: DataArguments) -> str:
    """Say what a model learned from.

    Args:
        num_examples: of all data sets together; None of a stream.
        data_options: name the data sets.
    """
    what = "A stream" if num_examples is None else f"{num_examples:,} examples"
    given = data_options.dataset_probs
    weights: list[Any] = list(given) if given else [None for _ in data_options.dataset]
    names = [
        f"`{public_name(name)}`" + ("" if weight is None else f" (weight {weight:g})")
        for name, weight in zip(data_options.dataset, weights, strict=True)
    ]
    return f"{what} of {' and '.join(names)}, split `{data_options.train_split}`."


def sampling_of(stored: MaskGitGenerationConfig, length: int | None = None) -> str:
    """Say how the samples were drawn: what the model's file of options holds, and what not.

    Args:
        stored: that file.
        length: tokens that were asked for, where they are fewer than stored.
    """
    # As `generate` resolves them: what the model stores, else the library's defaults.
    used = MaskGitGenerationConfig()
    used.complete(stored.to_dict())
    used.complete(DEFAULTS)
    used.resolve_choices()
    other = {*OF_A_CALL, *(name for name in DEFAULTS if name.endswith("_token_id"))}
    options = [name for name in DEFAULTS if name not in other]
    names = [*_DECODING, *(name for name in options if name not in _DECODING)]
    kept = [name for name in names if getattr(stored, name) is not None]
    told = written_out({name: getattr(used, name) for name in kept})
    rest = written_out({name: getattr(used, name) for name in _DECODING if name not in kept})
    by_default = f", and with the library's defaults {rest}" if rest else ""
    return (
        "Written from nothing, not selected, with the options stored in `generation_config.json`: "
        f"{told}{by_default}.{_cut(length, used.max_new_tokens)}"
    )


def _cut(length: int | None, usual: int) -> str:
    if length is None or length >= usual:
        return ""
    return f" They have {length} tokens at most, as many as the longest text it learned from."


def written_out(options: Mapping[str, Any]) -> str:
    """Write options as a sentence lists them: "`steps=3`, `schedule='cosine'`"."""
    return ", ".join(f"`{name}={value!r}`" for name, value in options.items())


def settings_of(
    loop: TrainingLoop,
    model_options: ModelArguments,
    data_options: DataArguments,
    options: TrainArguments,
) -> dict[str, Any]:
    """Collect what the card's table says of the training, by name."""
    config = loop.accelerator.unwrap_model(loop.model).config
    return {
        "encoder's revision": model_options.revision,
        "updates": loop.progress.step,
        "examples per update": loop.progress.setting["examples_per_update"],
        "longest example in tokens": data_options.max_length,
        "packed": data_options.pack,
        **changed_options(data_options),
        **learning_settings(config, options, loop.accelerator.mixed_precision),
    }


def changed_options(options: Any) -> dict[str, Any]:
    """Collect the options that differ from their defaults and belong on a card, by name.

    Args:
        options: a dataclass of them.
    """
    found = {}
    for field in fields(options):
        value = getattr(options, field.name)
        if value != field.default and field.name not in _UNTOLD:
            words = value if isinstance(value, list) else [value]
            told = [public_name(word) if isinstance(word, str) else word for word in words]
            found[field.name.replace("_", " ")] = ", ".join(map(str, told))
    return found


def best_of(lines: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the line of a log with the lowest bound, where the last one is another."""
    found = totals(lines)
    return None if found["best"] == found["last"] else found["best"]


def learning_settings(
    config: MaskGitConfig, options: TrainArguments, mixed_precision: str | None
) -> dict[str, Any]:
    """Collect what a card says of optimizer, masking and parts, whatever the data was.

    Args:
        config: of the model.
        options: how it was trained.
        mixed_precision: number format of the forward passes; `options` may leave it to the launch.
    """
    return {
        "optimizer": OPTIMIZERS[options.optim].title,
        "mixed precision": mixed_precision,
        **changed_options(options),
        **{name.replace("_", " "): getattr(options, name) for name in _SETTINGS},
        **{name.replace("_", " "): value for name, value in config.masking_options().items()},
        **parts_on_the_card(config, options.train),
        **weighting_on_the_card(options),
    }


def parts_on_the_card(config: MaskGitConfig, train: str) -> dict[str, Any]:
    """Name the parts that not every model has, and which part learned ("both", "critic", ...)."""
    parts: dict[str, Any] = {}
    if config.self_cond:
        parts["share of texts with self-conditioning"] = config.self_cond_train_prob
    if config.token_critic is not None:
        parts["token critic"] = config.token_critic
        parts["weight of the critic's loss"] = config.critic_loss_weight
        parts["trained part"] = train
    return parts


def weighting_on_the_card(options: TrainArguments) -> dict[str, Any]:
    """Say how losses were weighed, where that was not by the bound."""
    weighting = WEIGHTINGS[options.loss_weighting]
    told = f"{options.loss_weighting}: {weighting.told}; the loss of training is no bound"
    band = {} if options.clip_weights is None else {"clip weights": options.clip_weights}
    return {} if weighting.is_bound else {"loss weighting": told, **band}


def on_the_hub(name: str) -> bool:
    """Tell a name on the Hub from files and addresses."""
    return not exists(name) and not glob(name) and "://" not in name


def public_name(name: str) -> str:
    """Leave out of a card where on this machine something lies."""
    return name if on_the_hub(name) else Path(name).name
