"""Weights in shards: the same run, and the same files, as with whole copies."""

import shutil
import warnings
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.fsdp import FSDPModule

from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.training.sharding import layers_of, shard, whole_weights
from scripts.train import main
from tests.support.launches import SHARDED, launched, processes_of
from tests.support.split_runs import RUN, STILL, assert_same_but_for_rounding
from tests.support.tiny_training import (
    assert_same_weights,
    fresh_model,
    log_of,
    words,
    write_inputs,
)


def test_the_layers_are_those_of_every_encoder_in_the_model():
    model = fresh_model(num_hidden_layers=3)
    assert layers_of(model) == list(model.denoiser.bert.encoder.layer)


def test_weights_that_are_whole_stay_as_they_are():
    model = fresh_model()
    with whole_weights(model):
        assert not any(isinstance(part, FSDPModule) for part in model.modules())


def test_adapters_in_shards_are_refused():
    accelerator = SimpleNamespace()
    model = fresh_model()
    model.peft_config = {}
    with pytest.raises(ValueError, match="`lora_r` and FSDP do not go together"):
        shard(accelerator, model)


@pytest.mark.slow
@pytest.mark.usefixtures("_fresh_accelerate")
def test_a_run_in_shards_is_the_run_of_whole_copies_and_writes_its_files(tmp_path):
    inputs = write_inputs(tmp_path, num_texts=60, **STILL)
    parts = {"token_critic": "self", "self_cond": "true", "self_cond_train_prob": 1.0}
    # The critic is shown draws, so that only the denoiser is the same.
    options = {**RUN, "gradient_accumulation_steps": 2, **parts, "train": "denoiser"}
    copies, shards = tmp_path / "copies", tmp_path / "shards"
    launched(*inputs, *words({**options, "output_dir": copies}))
    said = launched(*inputs, *words({**options, "output_dir": shards}), weights=SHARDED)
    assert "view tensor" not in said
    for folder in (copies, shards):
        assert processes_of(folder / "checkpoint-6") == 2
    for name in ("loss", "eval_nats_per_token"):
        assert log_of(shards, name) == pytest.approx(log_of(copies, name), rel=1e-5)
    for file in ("model", "optimizer", "averages"):
        one, other = (
            load_file(folder / "checkpoint-6" / f"{file}.safetensors")
            for folder in (shards, copies)
        )
        assert_same_but_for_rounding(one, other)
    with warnings.catch_warnings(action="error"):
        models = [MaskGitForMaskedLM.from_pretrained(folder) for folder in (shards, copies)]
    assert_same_but_for_rounding(*(model.state_dict() for model in models))
    assert (shards / "README.md").exists()

    # in shards to the same weights, to the bit, and on one process to the same but for rounding
    again, alone = tmp_path / "again", tmp_path / "alone"
    for target in (again, alone):
        shutil.copytree(shards, target)
        shutil.rmtree(target / "checkpoint-6")
    recipe = shards / "training_options.yaml"
    resumed = ["--resume_from_checkpoint=latest", "--output_dir"]
    launched(recipe, *resumed, again, weights=SHARDED)
    assert_same_weights(
        load_file(again / "model.safetensors"), load_file(shards / "model.safetensors")
    )
    changes = ["num_processes", "gradient_accumulation_steps"]
    doubled = ["--gradient_accumulation_steps=4", "--allow_changes", *changes]
    main([str(recipe), *resumed, str(alone), *doubled])
    assert processes_of(alone / "checkpoint-6") == 1
    assert_same_but_for_rounding(
        load_file(alone / "model.safetensors"), load_file(shards / "model.safetensors")
    )


@pytest.mark.slow
def test_a_run_in_shards_in_bf16_learns(tmp_path):
    inputs = write_inputs(tmp_path, num_texts=60, **STILL)
    options = {**RUN, "max_steps": 30, "learning_rate": 3e-2, "mixed_precision": "bf16"}
    launched(*inputs, *words({**options, "output_dir": tmp_path / "run"}), weights=SHARDED)
    losses = log_of(tmp_path / "run")
    assert losses[30] < 0.9 * losses[1]
    weights = load_file(tmp_path / "run" / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
