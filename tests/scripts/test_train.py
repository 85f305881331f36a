"""The training script: what a run leaves, and what is refused before it begins."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.hub.push import HubError
from hf_maskgit.training.arguments import DataArguments, ModelArguments, TrainArguments
from hf_maskgit.training.loop import TrainingLoop
from hf_maskgit.training.recipes import parse_options
from scripts import train
from tests.support.project import ROOT
from tests.support.tiny_training import (
    SMALL,
    assert_same_weights,
    log_lines,
    words,
    write_inputs,
)

pytestmark = pytest.mark.usefixtures("_fresh_accelerate", "_nobody_is_logged_in")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of the training script: its folder."""
    folder = tmp_path_factory.mktemp("trained")
    train.main(
        [
            *write_inputs(folder),
            *("--output_dir", str(folder / "run"), "--validation_fraction", "0.1"),
            *("--max_steps", "12", "--per_device_batch_size", "8", "--learning_rate", "1e-2"),
            *("--eval_every", "6", "--checkpoint_every", "5", "--log_every", "2", "--use_cpu"),
        ]
    )
    return folder / "run"


@pytest.mark.wide
def test_training_leaves_all_that_it_promises(trained):
    names = {path.name for path in trained.iterdir()}
    assert {"best", "checkpoint-10", "checkpoint-12", "README.md"} <= names
    assert {"metrics.json", "samples.jsonl"} <= names
    assert ("curves.png" in names) == (find_spec("matplotlib") is not None)
    assert "checkpoint-5" not in names
    for folder in (trained, trained / "best"):
        config = MaskGitForMaskedLM.from_pretrained(folder).config
        assert (config.mask_token_id, config.trained_length) == (4, 13)
    steps = [line["step"] for line in log_lines(trained)]
    assert steps == [2, 4, 6, 6, 8, 10, 12, 12]


def test_the_saved_options_are_a_recipe_for_the_same_run(trained):
    types = (ModelArguments, DataArguments, TrainArguments)
    model, data, training = parse_options(types, [str(trained / "training_options.yaml")])
    assert model.from_scratch
    assert data.validation_fraction == 0.1
    assert (training.max_steps, training.learning_rate) == (12, 1e-2)
    assert training.resume_from_checkpoint is None


@pytest.mark.wide
def test_the_saved_options_give_the_same_weights_again(trained, tmp_path):
    """Bit for bit, with the texts that were written on the way."""
    recipe, again = trained / "training_options.yaml", tmp_path / "again"
    train.main([str(recipe), "--output_dir", str(again)])
    for part in (".", "best"):
        one, other = (load_file(run / part / "model.safetensors") for run in (trained, again))
        assert_same_weights(one, other)
    samples = [(run / "samples.jsonl").read_text() for run in (trained, again)]
    assert samples[0] == samples[1]
    options = [yaml.safe_load((run / recipe.name).read_text()) for run in (trained, again)]
    assert {**options[0], "output_dir": str(again)} == options[1]


@pytest.mark.wide
def test_what_learned_from_a_stream_writes_no_longer_than_what_it_may_have_seen(tmp_path):
    options = {"output_dir": tmp_path / "run", **SMALL, "max_steps": 2, "eval_texts": 3}
    train.main([*write_inputs(tmp_path), *words({**options, "streaming": True})])
    assert MaskGitForMaskedLM.from_pretrained(tmp_path / "run").config.trained_length == 16
    texts = (tmp_path / "run" / "samples.jsonl").read_text().splitlines()
    assert texts
    assert all(len(json.loads(line)["text"].split()) <= 14 for line in texts)


def test_the_card_states_the_bound_and_no_text_of_the_data(trained):
    card = (trained / "README.md").read_text()
    assert f"| this model | {log_lines(trained)[-1]['eval_nats_per_token']:.3f} |" in card
    assert "| updates | 12 |" in card
    assert "| examples per update | 8 |" in card
    assert "180 examples of" in card
    assert card.count("The tokenizer does not know 0 % of") == 2


def test_the_card_is_one_the_hub_can_read(trained):
    card = ModelCard.load(trained / "README.md")
    assert card.data.license is None, "nobody named one"
    assert card.data.base_model is None, "the encoder is a folder"
    assert card.data.datasets is None, "the texts are a file"
    bound, error = card.data.eval_results
    last = log_lines(trained)[-1]
    assert (bound.dataset_type, bound.dataset_name) == ("other", "texts.txt, held out")
    assert bound.metric_value == pytest.approx(last["eval_nats_per_token"], abs=1e-4)
    assert error.metric_value == pytest.approx(last["eval_std_error"], abs=1e-4)
    assert "It is `encoder` with random weights" in card.text
    assert "| longest example in tokens | 16 |" in card.text
    # where things lie on this machine is nobody else's business; how to load the model is said
    assert card.text.count(str(trained.parent)) == card.text.count(f'"{trained}"') == 4
    samples = card.text.split("## Samples")[1].split("## Limits")[0]
    assert samples.count("```text") == 4


@pytest.mark.wide
def test_ctrl_c_in_a_training_says_how_to_go_on(tmp_path, monkeypatch):
    def interrupted(loop):
        if loop.options.max_steps == 2:
            loop.progress.step = 1
            loop._save_checkpoint()
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainingLoop, "run", interrupted)
    options = [*write_inputs(tmp_path), "--use_cpu", "--output_dir"]
    with pytest.raises(KeyboardInterrupt, match="before the first checkpoint in '.*one'; the s"):
        train.main([*options, str(tmp_path / "one"), "--max_steps=1"])
    with pytest.raises(KeyboardInterrupt, match="'.*checkpoint-1'; the same command goes on from"):
        train.main([*options, str(tmp_path / "two"), "--max_steps=2"])


def test_a_folder_in_use_is_refused_before_any_work(trained, monkeypatch):
    monkeypatch.setattr(train, "make_accelerator", lambda _: pytest.fail("work was started"))
    with pytest.raises(ValueError, match="holds a finished run. Name another folder"):
        train.main([str(trained / "training_options.yaml")])


@pytest.mark.wide
def test_training_goes_on_from_a_generator(trained, tmp_path):
    recipe = [str(trained / "training_options.yaml"), "--output_dir", str(tmp_path / "more")]
    train.main([*recipe, "--encoder", str(trained), "--from_scratch=false", "--max_steps=1"])
    assert log_lines(tmp_path / "more")[0]["loss"] < log_lines(trained)[0]["loss"]


@pytest.mark.wide
def test_a_critic_that_learns_leaves_how_the_generator_ends_texts(tmp_path, caplog):
    inputs = write_inputs(tmp_path)
    asked = {**SMALL, "max_steps": 1}
    first = words({**asked, "output_dir": tmp_path / "run", "end_fill": 16})
    train.main([*inputs, *first, '--decoding={"num_tokens": "window"}'])
    alone = {"encoder": tmp_path / "run", "train": "critic", "token_critic": "self"}
    for more, window in ((alone, 16), ({"encoder": tmp_path / "run"}, None)):
        caplog.clear()
        given = words({**asked, **more, "output_dir": tmp_path / "more"})
        train.main([*inputs[5:], *given, "--overwrite_output_dir"])
        model = MaskGitForMaskedLM.from_pretrained(tmp_path / "more")
        assert model.config.end_fill == window
        assert ("goes by `end_fill`" in caplog.text) == (window is None)
    assert model.generation_config.num_tokens == "window"


@pytest.mark.wide
def test_a_run_killed_after_its_last_checkpoint_is_completed(trained, tmp_path, caplog):
    shutil.copytree(trained, tmp_path / "run")
    card = (tmp_path / "run" / "README.md").read_text()
    for name in ("model.safetensors", "README.md"):
        (tmp_path / "run" / name).unlink()
    shutil.rmtree(tmp_path / "run" / "best")
    recipe = [str(trained / "training_options.yaml"), "--output_dir", str(tmp_path / "run")]
    recipe += ["--resume_from_checkpoint", "latest"]
    with pytest.raises(ValueError, match="may take the best model so far, which is not in"):
        train.main([*recipe, "--load_best_model_at_end"])
    train.main(recipe)
    assert "The best model so far is not in" in caplog.text
    found = (tmp_path / "run" / "README.md").read_text()
    assert found.replace(str(tmp_path / "run"), str(trained)) == card
    one, other = (MaskGitForMaskedLM.from_pretrained(f) for f in (trained, tmp_path / "run"))
    assert all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


@pytest.mark.slow
@pytest.mark.parametrize("launch", [[], ["-m", "accelerate.commands.launch", "--cpu"]])
def test_a_refused_program_says_one_sentence(launch, trained):
    """The launcher adds a traceback of its own, unless it is told to be quiet."""
    quiet = ["--quiet"] if launch else []
    program = [*launch, *quiet, "scripts/train.py", str(trained / "training_options.yaml")]
    done = subprocess.run(
        [sys.executable, *program],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"error: `output_dir` {str(trained)!r} holds a finished run. Name" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.wide
def test_stored_options_that_cannot_write_the_card_are_refused_before_anything_is_written(tmp_path):
    asked = [*write_inputs(tmp_path), "--output_dir", str(tmp_path / "run"), "--use_cpu"]
    with pytest.raises(ValueError, match="each needs a step of its own, got steps=2"):
        train.main([*asked, "--decoding", '{"block_length": 2, "steps": 2}'])
    assert not list((tmp_path / "run").glob("*.*"))


def test_training_asks_for_a_token_before_it_begins(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "prepare", lambda *_: pytest.fail("work was started"))
    asked = [*write_inputs(tmp_path), "--output_dir", str(tmp_path / "run"), "--use_cpu"]
    with pytest.raises(HubError, match="no token to push with"):
        train.main([*asked, "--push_to_hub"])
    assert not (tmp_path / "run").exists()


def test_where_to_push_without_a_push_is_a_mistake(capsys):
    options = ["--encoder", "x", "--dataset", "y", "--output_dir", "z"]
    for asked in (["--hub_model_id", "me/verses"], ["--hub_private_repo"]):
        with pytest.raises(SystemExit):
            train.main([*options, *asked])
        assert "say where to push; add `push_to_hub`, or leave them" in capsys.readouterr().err
