"""Texts, encoders and command lines at tiny size for the tests of data, training and scripts."""

import functools
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.utils import set_seed
from datasets import Dataset
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM

from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.training import loop
from hf_maskgit.training.arguments import TrainArguments
from hf_maskgit.training.building import make_accelerator
from hf_maskgit.training.examples import prepare_examples
from hf_maskgit.training.loop import TrainingLoop
from tests.support.tiny import WORDS, bert_config, word_tokenizer

# Six small updates, told of one by one; nothing is evaluated, written or saved on the way.
SMALL = {
    "use_cpu": True,
    "max_steps": 6,
    "per_device_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "learning_rate": 1e-2,
    "log_every": 1,
    "eval_every": 1000,
    "eval_texts": 0,
    "checkpoint_every": 1000,
}


def repeated_symbols(num_texts: int, seed: int = 0) -> list[str]:
    """Texts of one word repeated 4 to 11 times: easy to learn, and their lengths differ."""
    random = np.random.default_rng(seed)
    words = random.choice(WORDS[:20], size=num_texts)
    return [" ".join([word] * int(random.integers(4, 12))) for word in words]


@functools.cache  # nobody changes them, and making them takes longer than a small run
def examples(num_texts: int = 64, seed: int = 0) -> Dataset:
    """Framed and tokenised `repeated_symbols`."""
    texts = Dataset.from_dict({"text": repeated_symbols(num_texts, seed)})
    return prepare_examples(texts, word_tokenizer(), max_length=16)[0]


def fresh_encoder_config(**changes: Any) -> BertConfig:
    """An encoder as training starts with: small weights, and dropout unless it is changed."""
    return bert_config(**{"initializer_range": 0.02, **changes})


def fresh_model(**changes: Any) -> MaskGitForMaskedLM:
    """A generator that has learned nothing; settings of its encoder as keywords."""
    encoder = BertForMaskedLM(fresh_encoder_config(**changes))
    return MaskGitForMaskedLM.from_encoder(encoder, tokenizer=word_tokenizer())


def write_inputs(folder: Path, num_texts: int = 200, **changes: Any) -> list[str]:
    """Write tokenizer, encoder configuration and texts; return the options that name them."""
    word_tokenizer().save_pretrained(folder / "tokenizer")
    fresh_encoder_config(**changes).save_pretrained(folder / "encoder")
    (folder / "texts.txt").write_text("\n".join(repeated_symbols(num_texts)))
    return [
        *("--encoder", str(folder / "encoder"), "--from_scratch"),
        *("--tokenizer", str(folder / "tokenizer")),
        *("--dataset", str(folder / "texts.txt")),
        *("--max_length", "16"),
    ]


def trained_on(folder: Path, texts: list[str], **options: Any) -> MaskGitForMaskedLM:
    """A generator that the training script made of a tiny encoder and these texts, 100 an update.

    Args:
        folder: for all its files.
        texts: of the words of `word_tokenizer`.
        **options: of the script.
    """
    from scripts.train import main  # it imports the hub, which others here have no use for

    word_tokenizer().save_pretrained(folder / "tokenizer")
    dropouts = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    fresh_encoder_config(**dropouts).save_pretrained(folder / "encoder")
    (folder / "texts.txt").write_text("\n".join(texts))
    asked = {
        "encoder": folder / "encoder",
        "from_scratch": True,
        "tokenizer": folder / "tokenizer",
        "dataset": folder / "texts.txt",
        "output_dir": folder / "run",
        "use_cpu": True,
        "per_device_batch_size": 100,
        "learning_rate": 3e-3,
        "corruption_prob": 0,
        "checkpoint_every": 10_000,
        "log_every": 100,
    }
    main(words({**asked, **options}))
    return MaskGitForMaskedLM.from_pretrained(folder / "run").eval()


def words(options: Mapping[str, Any]) -> list[str]:
    """Options as words of a command line."""
    return [f"--{name}={value}" for name, value in options.items()]


def loop_of(
    folder: Path,
    parts: Mapping[str, Any] | None = None,
    eval_examples: Dataset | None = None,
    **training_options: Any,
) -> TrainingLoop:
    """A loop around a new model with these parts beside its encoder, with dropout at 0.1."""
    folder.mkdir()
    set_seed(0)
    encoder = BertForMaskedLM(fresh_encoder_config())
    model = MaskGitForMaskedLM.from_encoder(encoder, tokenizer=word_tokenizer(), **(parts or {}))
    arguments = TrainArguments(output_dir=str(folder), **{**SMALL, **training_options})
    accelerator = make_accelerator(arguments)
    return TrainingLoop(accelerator, model, word_tokenizer(), examples(), eval_examples, arguments)


def interrupt() -> None:
    """Do as Ctrl-C does without a handler."""
    raise KeyboardInterrupt


def at_call(
    patch: pytest.MonkeyPatch,
    number: int,
    act: Callable[[], Any] = interrupt,
    name: str = "take_update",
    module: ModuleType = loop,
) -> None:
    """Have something happen as a function of a module begins for the n-th time.

    Args:
        patch: for how long.
        number: n, counted from 1.
        act: what happens.
        name: of the function.
        module: where it is looked up.
    """
    function, calls = getattr(module, name), []

    def watched(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == number:
            act()
        return function(*arguments, **options)

    patch.setattr(module, name, watched)


def begin_another_second() -> None:
    """Wait until two runs' files of TensorBoard are read in the order they were begun in.

    It reads them by name: the second that each began in, and only then which of the process it was,
    as text ("10" before "9").
    """
    time.sleep(1 - time.time() % 1)


def log_lines(folder: Path) -> list[dict[str, float]]:
    """The lines of a run's log."""
    return [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]


def log_of(folder: Path, name: str = "loss") -> dict[float, float]:
    """The values of one name by update; an update that was logged twice is an error."""
    found = [line for line in log_lines(folder) if name in line]
    values = {line["step"]: line[name] for line in found}
    assert len(values) == len(found)
    return values


def assert_same_weights(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    """Compare two models to the bit."""
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name
