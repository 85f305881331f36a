"""What other tools call our options: each is answered with an option that the script has."""

from dataclasses import fields

import pytest

from hf_maskgit.training import other_names
from hf_maskgit.training.arguments import DataArguments, ModelArguments, TrainArguments
from hf_maskgit.training.other_names import options_for
from hf_maskgit.training.recipes import parse_options
from scripts.evaluate import EvaluateArguments
from scripts.generate import GenerateArguments
from scripts.push_to_hub import PushArguments

SCRIPTS = {
    "train": (ModelArguments, DataArguments, TrainArguments),
    "evaluate": (EvaluateArguments,),
    "generate": (GenerateArguments,),
    "push": (PushArguments,),
}


def names_of(script):
    return [field.name for kind in SCRIPTS[script] for field in fields(kind)]


@pytest.mark.parametrize(
    ("script", "written", "meant"),
    [
        ("train", "--lr", "learning_rate"),
        ("train", "--bf16", "mixed_precision bf16"),
        ("train", "--fp16=true", "mixed_precision fp16"),
        ("train", "--block_size", "max_length"),
        ("train", "--block-size", "max_length"),
        ("train", "--model_name_or_path", "encoder"),
        ("train", "--train_file", "dataset"),
        ("train", "--per_device_train_batch_size", "per_device_batch_size"),
        ("train", "--save_steps", "checkpoint_every"),
        ("train", "--logging_steps", "log_every"),
        ("train", "--report_to", "log_with"),
        ("train", "--epochs", "num_train_epochs"),
        ("generate", "--block_size", "block_length"),
        ("generate", "--prompt", "text"),
        ("generate", "--num_return_sequences", "num_samples"),
        ("generate", "--cfg_scale", "guidance_scale"),
        ("generate", "--output_dir", "output_file"),
        ("generate", "--dataset", "input_file"),
        ("evaluate", "--per_device_eval_batch_size", "batch_size"),
        ("push", "--hub_model_id", "repo_id"),
    ],
)
def test_the_name_of_another_tool_is_answered_with_ours(script, written, meant, capsys):
    with pytest.raises(SystemExit):
        parse_options(SCRIPTS[script], [written, "1"])
    said = " ".join(capsys.readouterr().err.split())
    assert f"Unknown option '{written}'. Did you mean {meant}?" in said


def test_the_table_names_options_that_some_script_has():
    known = {name for script in SCRIPTS for name in names_of(script)}
    assert {option.split()[0] for option in other_names._NAMES} <= known


def test_a_name_that_nobody_uses_is_left_to_other_advice():
    assert options_for("zzz", names_of("train")) == []
    assert options_for("lr", names_of("generate")) == []
