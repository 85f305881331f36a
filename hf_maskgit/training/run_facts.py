"""What shapes a run, and how two runs differ: a checkpoint goes on as it began, or says so.

Facts are plain values by name. Those of options bear the option's name; data and tokenizer are told
by a checksum of their contents, wherever they lie.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from accelerate import Accelerator
from datasets import Dataset
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from ..core.configuration_maskgit import MaskGitConfig
from .arguments import DataArguments, ModelArguments, TrainArguments
from .streams import StreamedExamples

Facts = dict[str, Any]

# Options of the training that decide what an update is, apart from those that only tell or save.
# `on_nonfinite` is none of them: a run that has come this far is the same with its other value,
# unless it has skipped an update, which its log tells.
_TRAINING = (
    "seed",
    "optim",
    "learning_rate",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "layer_decay",
    "freeze",
    "lora_r",
    "lora_alpha",
    "lora_dropout",
    "lora_target_modules",
    "lora_modules_to_save",
    "max_grad_norm",
    "ema_decay",
    "lr_scheduler_type",
    "warmup_steps",
    "decay_steps",
    "min_lr_rate",
    "group_by_length",
    "per_device_batch_size",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "torch_compile",
    "torch_compile_backend",
    "time_sampler",
    "patience",
    "loss_weighting",
    "clip_weights",
    "eval_every",
    "eval_samples",
    "eval_batch_size",  # which texts share the noise of a batch, and so which masks they get
)
_DATA = ("max_length", "pack", "too_long", "validation_fraction", "dataset_probs")
_STREAM = ("streaming", "stream_lanes", "shuffle_buffer")  # which say nothing of anything else
_PARTS = ("self_cond", "self_cond_train_prob", "token_critic", "critic_loss_weight")
# Of an encoder's configuration: where it came from and who wrote it, which no update depends on.
_NO_SETTINGS = {"transformers_version", "_name_or_path", "dtype", "torch_dtype", "architectures"}
# The order of the examples and what an update takes of them: there is no place in another order.
PLACE_IN_THE_DATA = (
    "seed",
    "examples_per_update",
    "training_examples",
    "training_data",
    "group_by_length",
)
# How an update is split, which says together with its size what each process takes.
_SPLIT = ("num_processes", "examples_per_update")
_NEW_STREAMS = """ With another number of processes each begins a new random stream, for dropout, \
for which texts look back on a pass before and for what a critic is shown; nothing else changes."""
_ROWS = 10_000
_NOT_STATED = "not stated"  # by an earlier release, which did not compare it


def facts_of(
    accelerator: Accelerator,
    config: MaskGitConfig,
    tokenizer: PreTrainedTokenizerBase,
    train_examples: Dataset | StreamedExamples,
    eval_examples: Dataset | None,
    options: TrainArguments,
    num_updates: int,
    update_size: int,
) -> Facts:
    """Gather what shapes the updates of a run and the choice of its best model.

    Args:
        accelerator: processes, device and number format.
        config: of the model.
        tokenizer: the model's.
        train_examples: to learn from.
        eval_examples: to evaluate on, or None.
        options: how to train.
        num_updates: of the whole run, which its learning rate is spread over.
        update_size: examples per update.
    """
    parts: dict[str, Any] = {
        "encoder_config": config.text_config,
        "critic_config": config.critic_config,
    }
    masking = {name: value for name, value in config.masking_options().items() if name != "choice"}
    facts = {
        "num_processes": accelerator.num_processes,
        "examples_per_update": update_size,
        "training_examples": train_examples.num_rows,
        **{name: getattr(options, name) for name in _TRAINING},
        "num_updates": num_updates,
        "mixed_precision": accelerator.mixed_precision,
        "device": accelerator.device.type,
        "choice": options.choice,
        **masking,
        **{name: getattr(config, name) for name in _PARTS},
        **{name: _settings(part) for name, part in parts.items() if part is not None},
        "tokenizer": tokenizer_checksum(tokenizer),
        "training_data": data_checksum(train_examples),
        "eval_data": None if eval_examples is None else data_checksum(eval_examples),
    }
    stored: Facts = json.loads(json.dumps(facts, default=str))  # as a checkpoint gives them back
    return stored


def facts_of_options(model_options: ModelArguments, data_options: DataArguments) -> Facts:
    """Gather the options that a loop does not see: where its model and its examples came from."""
    streamed = _STREAM if data_options.streaming else ()
    return {
        **{name: getattr(data_options, name) for name in streamed},
        "encoder": model_options.encoder,
        **{name: getattr(data_options, name) for name in _DATA},
    }


def data_checksum(examples: Dataset | StreamedExamples) -> str:
    """Hash the contents of every column, in the order of the rows; of a stream what tells it."""
    if isinstance(examples, StreamedExamples):
        return examples.checksum()
    found = hashlib.sha256()
    rows = examples.with_format("arrow")
    for name in sorted(examples.column_names):
        # Two streams each, so that where a part of the table ends makes no difference.
        lengths, values = hashlib.sha256(), hashlib.sha256()
        for table in rows.select_columns([name]).iter(batch_size=_ROWS):
            column = table[name].combine_chunks()
            kind = str(column.type)
            if kind.startswith(("list", "large_list")) and column.null_count == 0:
                lengths.update(_words(column.value_lengths()))
                column = column.flatten()
                kind = str(column.type)
            if kind.startswith(("int", "uint")) and column.null_count == 0:
                values.update(_words(column))
            else:
                for value in column.to_pylist():
                    values.update(f"{value!r}\0".encode())
        found.update(f"{name}\0".encode() + lengths.digest() + values.digest())
    return found.hexdigest()


def tokenizer_checksum(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash the table of a tokenizer, and which tokens of it are special."""
    special = {role: str(token) for role, token in tokenizer.special_tokens_map.items()}
    content = [sorted(tokenizer.get_vocab().items()), special, sorted(tokenizer.all_special_ids)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def check_same(written: Mapping[str, Any], present: Facts, allowed: Sequence[str] = ()) -> set[str]:
    """Compare the run that wrote a checkpoint with the present one.

    Args:
        written: its facts.
        present: this run's.
        allowed: names of facts that may differ.

    Returns:
        The names of the allowed facts that do differ.

    Raises:
        ValueError: naming every other difference with both values.
    """
    unknown = sorted({name.partition(".")[0] for name in allowed} - present.keys())
    if unknown:
        raise ValueError(
            f"`allow_changes` names {', '.join(map(repr, unknown))}; what can differ is "
            f"{', '.join(present)}."
        )
    differences = list(_differences(written, present))
    refused, changed = [], set()
    for name, before, now in differences:
        top = name.partition(".")[0]
        if {name, top} & set(allowed):
            changed.add(top)
        else:
            refused.append((name, f"{name} = {_shown(before)}, this run has {_shown(now)}"))
    if refused:
        names = [name for name, _ in refused]
        # Whoever has fewer devices than before need not give up the updates for it.
        split = (
            " On another number of processes the updates hold the same examples where "
            "`per_device_batch_size` x `gradient_accumulation_steps` x processes is "
            f"{written.get(_SPLIT[1])}, as before."
        )
        raise ValueError(
            f"The checkpoint was written with {'; '.join(said for _, said in refused)}, and a "
            "checkpoint goes on as it began. Use the same value, allow the change with "
            f"--allow_changes {' '.join(names)}, or start a new run from the model in its folder "
            f"`best`.{split if set(_SPLIT) <= set(names) else ''}"
        )
    return changed


def what_changed(changed: set[str]) -> str:
    """Say with what a run goes on that is not as it was, and what follows from it.

    Args:
        changed: names of facts, from `check_same`.
    """
    said = f"another {', '.join(sorted(changed))}."
    if changed.intersection(PLACE_IN_THE_DATA):
        said += " The pass that was going on is left, and the next one begins."
    if "optim" in changed:
        said += " What the former optimizer remembered is left, and the new one begins anew."
    return said + _NEW_STREAMS if _SPLIT[0] in changed else said


def check_something_is_left(changed: set[str], step: int, num_updates: int) -> None:
    """Refuse to go on otherwise where nothing is left to train: all files would tell of the change.

    How updates are split may be another one: only the end of the run is left then.

    Args:
        changed: names of facts, from `check_same`.
        step: updates that are made.
        num_updates: of the whole run.

    Raises:
        ValueError: naming what differs.
    """
    if step >= num_updates and changed.difference(_SPLIT):
        raise ValueError(
            f"The checkpoint has made {step} updates, and this run is one of {num_updates}: none "
            f"is left to be made with another {', '.join(sorted(changed))}. Ask for more with "
            "--max_steps or --num_train_epochs and --allow_changes num_updates, or leave the rest "
            "as it was."
        )


def _differences(
    written: Mapping[str, Any], present: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    for name, now in present.items():
        before = written.get(name, _NOT_STATED)
        if isinstance(now, dict) and isinstance(before, dict):
            # A setting that one of them lacks is one that another release of transformers knows.
            common = {key: value for key, value in now.items() if key in before}
            yield from _differences(before, common, f"{prefix}{name}.")
        elif before != now or type(before) is not type(now):
            yield f"{prefix}{name}", before, now


def _settings(config: PreTrainedConfig) -> dict[str, Any]:
    return {name: value for name, value in config.to_dict().items() if name not in _NO_SETTINGS}


def _shown(value: Any) -> str:
    if isinstance(value, str) and len(value) == hashlib.sha256().digest_size * 2:
        return f"{value[:12]}..."
    return str(value)


def _words(column: Any) -> bytes:
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype="<i8").tobytes()
