"""The scripts, as one types them: train, then measure and write with what was trained."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from hf_maskgit import MaskGitForMaskedLM, MaskGitGenerationConfig, nelbo
from hf_maskgit.core.sampler_scores import highest
from hf_maskgit.hub import training_card
from hf_maskgit.training.arguments import DataArguments, ModelArguments, TrainArguments
from hf_maskgit.training.checkpoints import save_checkpoint
from hf_maskgit.training.loop import TrainingLoop
from hf_maskgit.training.recipes import parse_options, run_program
from scripts import evaluate, generate, train
from tests.support.project import ROOT
from tests.support.tiny import WORDS, tiny_model, word_tokenizer
from tests.support.tiny_training import repeated_symbols, write_inputs

pytestmark = pytest.mark.usefixtures("_fresh_accelerate")


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


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A generator of wide random weights, which writes many different texts: its folder."""
    folder = tmp_path_factory.mktemp("saved")
    tiny_model().save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return str(folder)


def log_of(folder):
    return [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]


def test_training_leaves_all_that_it_promises(trained):
    names = {path.name for path in trained.iterdir()}
    assert {"best", "checkpoint-10", "checkpoint-12", "README.md"} <= names
    assert "checkpoint-5" not in names
    for folder in (trained, trained / "best"):
        assert MaskGitForMaskedLM.from_pretrained(folder).config.mask_token_id == 4
    steps = [line["step"] for line in log_of(trained)]
    assert steps == [2, 4, 6, 6, 8, 10, 12, 12]


def test_the_saved_options_are_a_recipe_for_the_same_run(trained):
    types = (ModelArguments, DataArguments, TrainArguments)
    model, data, training = parse_options(types, [str(trained / "training_options.yaml")])
    assert model.from_scratch
    assert data.validation_fraction == 0.1
    assert (training.max_steps, training.learning_rate) == (12, 1e-2)
    assert training.resume_from_checkpoint is None


def test_the_card_states_the_bound_and_no_text_of_the_data(trained):
    card = (trained / "README.md").read_text()
    assert f"| this model | {log_of(trained)[-1]['eval_nats_per_token']:.3f} |" in card
    assert "| updates | 12 |" in card
    assert "| examples per update | 8 |" in card
    assert "180 examples of" in card


def test_the_card_is_one_the_hub_can_read(trained):
    card = ModelCard.load(trained / "README.md")
    assert card.data.license is None, "nobody named one"
    assert card.data.base_model is None, "the encoder is a folder"
    assert card.data.datasets is None, "the texts are a file"
    bound, error = card.data.eval_results
    last = log_of(trained)[-1]
    assert (bound.dataset_type, bound.dataset_name) == ("other", "texts.txt, held out")
    assert bound.metric_value == pytest.approx(last["eval_nats_per_token"], abs=1e-4)
    assert error.metric_value == pytest.approx(last["eval_std_error"], abs=1e-4)
    assert "It is `encoder` with random weights" in card.text
    assert "| longest example in tokens | 16 |" in card.text
    # where things lie on this machine is nobody else's business; how to load the model is said
    assert card.text.count(str(trained.parent)) == card.text.count(f'"{trained}"') == 4
    samples = card.text.split("## Samples")[1].split("## Limits")[0]
    assert samples.count("```text") == 4


def test_the_card_tells_stored_options_from_those_of_the_library():
    stored = MaskGitGenerationConfig(max_new_tokens=9, steps=3, schedule="cosine", temperature=0.7)
    assert training_card.sampling_of(stored).endswith(
        "with the options stored in `generation_config.json`: `max_new_tokens=9`, `steps=3`, "
        "`schedule='cosine'`, `temperature=0.7`, and with the library's defaults "
        "`order='top_probability'`, `anneal_temperature=True`."
    )
    stored.order, stored.anneal_temperature = "random", False
    said = training_card.sampling_of(stored)
    assert said.endswith("`order='random'`, `temperature=0.7`, `anneal_temperature=False`.")


def test_ctrl_c_in_a_training_says_how_to_go_on(tmp_path, monkeypatch):
    def interrupted(loop):
        if loop.options.max_steps == 2:
            save_checkpoint(loop.accelerator, loop.options.output_dir, 1, 1)
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainingLoop, "run", interrupted)
    options = [*write_inputs(tmp_path), "--use_cpu", "--output_dir"]
    with pytest.raises(KeyboardInterrupt, match="before the first checkpoint in '.*one'; to st"):
        train.main([*options, str(tmp_path / "one"), "--max_steps=1"])
    with pytest.raises(
        KeyboardInterrupt, match="'.*checkpoint-1'; to go on .* these options: "
    ) as e:
        train.main([*options, str(tmp_path / "two"), "--max_steps=2"])
    recipe, *words = str(e.value).split("these options: ")[1].split()
    assert Path(recipe).is_file()
    assert words == ["--resume_from_checkpoint", "latest"]


def test_a_folder_in_use_is_refused_before_any_work(trained, monkeypatch):
    monkeypatch.setattr(train, "make_accelerator", lambda _: pytest.fail("work was started"))
    with pytest.raises(ValueError, match="is not empty. Name another folder"):
        train.main([str(trained / "training_options.yaml")])


def test_training_goes_on_from_a_generator(trained, tmp_path):
    recipe = [str(trained / "training_options.yaml"), "--output_dir", str(tmp_path / "more")]
    train.main([*recipe, "--encoder", str(trained), "--from_scratch=false", "--max_steps=1"])
    assert log_of(tmp_path / "more")[0]["loss"] < log_of(trained)[0]["loss"]


def test_a_run_killed_after_its_last_checkpoint_is_completed(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    card = (tmp_path / "run" / "README.md").read_text()
    for name in ("model.safetensors", "README.md"):
        (tmp_path / "run" / name).unlink()
    recipe = [str(trained / "training_options.yaml"), "--output_dir", str(tmp_path / "run")]
    train.main([*recipe, "--resume_from_checkpoint", "latest"])
    found = (tmp_path / "run" / "README.md").read_text()
    assert found.replace(str(tmp_path / "run"), str(trained)) == card
    one, other = (MaskGitForMaskedLM.from_pretrained(f) for f in (trained, tmp_path / "run"))
    assert all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


def test_measuring_agrees_with_the_library(saved, tmp_path, capsys):
    texts = repeated_symbols(12)
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    options = ["--model", saved, "--dataset", str(tmp_path / "texts.txt"), "--split", "train"]
    output = ["--output_file", str(tmp_path / "figures.json")]
    figures = evaluate.main([*options, *output, "--num_samples=64", "--mask_rates", "0.5", "1"])
    assert json.loads(capsys.readouterr().out) == figures
    assert json.loads((tmp_path / "figures.json").read_text()) == figures
    inputs = word_tokenizer()(texts, padding=True, return_tensors="pt")
    model = MaskGitForMaskedLM.from_pretrained(saved)
    generator = torch.Generator().manual_seed(1)
    bound = nelbo(model, inputs["input_ids"], inputs["attention_mask"], None, 64, generator)
    # two independent estimates; 5 standard errors of the difference: false alarm about 6e-7
    error = math.hypot(bound.nats_per_token_std_error, figures["std_error"])
    assert abs(figures["nats_per_token"] - bound.nats_per_token) < 5 * error
    assert figures["maskable_tokens"] == sum(len(text.split()) for text in texts)
    assert figures["bits_per_token"] == pytest.approx(figures["nats_per_token"] / math.log(2))
    assert figures["perplexity"] == pytest.approx(math.exp(figures["nats_per_token"]))
    assert figures["masked_accuracy"].keys() == {"0.5", "1.0"}
    assert figures["data"]["texts"] == figures["measured_examples"] == 12
    again = evaluate.main([*options, "--num_samples=64", "--mask_rates", "0.5", "1"])
    assert again["nats_per_token"] == figures["nats_per_token"]


def test_measuring_says_what_was_cut_and_left_out(saved, tmp_path):
    (tmp_path / "texts.txt").write_text("\n".join(["w1 w2 w3 w4 w5", "", "w1 w2"] * 4))
    options = ["--model", saved, "--dataset", str(tmp_path / "texts.txt"), "--split", "train"]
    figures = evaluate.main(
        [*options, "--drop_empty_texts", "--max_length=5", "--num_examples=3", "--num_samples=4"]
    )
    assert figures["data"] | {"tokens": 0} == {
        "texts": 8,
        "empty_texts": 4,
        "examples": 8,
        "tokens": 0,
        "cut_texts": 4,
        "cut_tokens": 8,
    }
    assert figures["measured_examples"] == 3
    with pytest.raises(ValueError, match="`max_length` is 65 tokens, but the encoder takes 64"):
        evaluate.main([*options, "--max_length=65"])


def lines_of(capsys, *options):
    generate.main(list(options))
    return capsys.readouterr().out.splitlines()


def test_prompts_are_continued_and_masks_filled(saved, capsys):
    lines = lines_of(
        capsys,
        *("--model", saved, "--max_new_tokens", "6", "--text", "w1 w2", "w3"),
        *("--num_samples", "2", "--steps", "3", "--schedule", "cosine", "--order", "confidence"),
        *("--temperature", "9", "--anneal_temperature", "false"),
    )
    assert len(lines) == 4
    assert [line.split()[:2] for line in lines[:2]] == [["w1", "w2"]] * 2
    assert {line.split()[0] for line in lines[2:]} == {"w3"}
    assert lines[0] != lines[1]
    (filled,) = lines_of(capsys, "--model", saved, "--text", "w1 [MASK] w2 [MASK]")
    words = filled.split()
    assert (words[0], words[2]) == ("w1", "w2")
    assert set(words) <= set(WORDS)


def test_a_sample_does_not_depend_on_the_batch_it_was_written_in(saved, tmp_path, capsys):
    rows = ["w1", "w2 [MASK] w3", "w4 w5 w6", "[MASK] w7", "w8 [MASK] [MASK]"]
    (tmp_path / "prompts.txt").write_text("\n".join(rows))
    options = ("--model", saved, "--input_file", str(tmp_path / "prompts.txt"))
    options = (*options, "--num_samples", "2", "--seed", "7")
    alone = lines_of(capsys, *options, "--batch_size", "1")
    assert lines_of(capsys, *options, "--batch_size", "3") == alone
    assert len(alone) == 10
    other = lines_of(capsys, *options[:-1], "8")
    assert other != alone


def test_json_lines_tell_how_each_text_came_about(saved, tmp_path):
    file = tmp_path / "out.jsonl"
    options = ["--model", saved, "--output_format", "jsonl", "--output_file", str(file)]
    generate.main([*options, "--num_samples", "3"])
    found = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["text"], line["sample"]) for line in found] == [("", 0), ("", 1), ("", 2)]
    assert len({line["seed"] for line in found}) == 3
    assert all(set(line["output"].split()) <= set(WORDS) for line in found)


def test_the_writers_mistakes_are_named(saved, tmp_path, capsys):
    with pytest.raises(ValueError, match="Cannot read '.*missing.txt': No such file"):
        generate.main(["--model", saved, "--input_file", str(tmp_path / "missing.txt")])
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(ValueError, match="empty.txt' is empty; write one text per line"):
        generate.main(["--model", saved, "--input_file", str(tmp_path / "empty.txt")])
    with pytest.raises(
        ValueError, match=r"'And \{blank:3\} w1' holds a blank.*pipeline..infilling"
    ):
        generate.main(["--model", saved, "--text", "w1", "And {blank:3} w1"])
    with pytest.raises(SystemExit):
        generate.main(["--model", saved, "--num_samples", "0"])
    assert "`num_samples` must be at least 1, got 0" in capsys.readouterr().err


def test_a_sampler_is_chosen_by_its_parts_or_by_its_name(saved, capsys):
    start = ("--model", saved, "--text", "w1", "--max_new_tokens", "6")
    by_parts = lines_of(capsys, *start, "--pace", "ancestral", "--anneal_temperature", "false")
    assert lines_of(capsys, *start, "--preset", "mdlm", "--steps", "18") == by_parts
    by_name = lines_of(capsys, *start, "--preset", "mdlm", "--options", '{"steps": 18}')
    assert by_name == by_parts
    assert lines_of(capsys, *start, "--preset", "p2", "--block_length", "3", "--steps", "6")


def test_a_continued_text_ends_at_a_stop_string(saved, capsys):
    start = ("--model", saved, "--text", "w1", "--max_new_tokens", "12", "--seed", "3")
    (whole,) = lines_of(capsys, *start)
    stop = whole.split()[4]
    (stopped,) = lines_of(capsys, *start, "--stop_strings", stop)
    assert stopped.split() == whole.split()[: whole.split().index(stop, 1) + 1]


def test_a_decoding_option_that_is_given_twice(saved):
    words = ["--model", saved, "--steps", "3", "--options", '{"steps": 4}']
    with pytest.raises(ValueError, match="`steps` is given by name and in `options`"):
        generate.main(words)
    with pytest.raises(ValueError, match="`options` must be a JSON object such as"):
        generate.main(["--model", saved, "--options", "steps=4"])


def ended(main, capsys):
    """Exit code and last words of a program."""
    with pytest.raises(SystemExit) as stopped:
        run_program(main)
    said = capsys.readouterr().err
    code = stopped.value.code
    return (1, code) if isinstance(code, str) else (code, said)


def test_what_we_refuse_ends_a_program_with_a_sentence(saved, tmp_path, capsys, monkeypatch):
    missing = str(tmp_path / "missing.txt")
    monkeypatch.setattr(sys, "argv", ["generate.py", "--model", saved, "--input_file", missing])
    said = f"error: Cannot read {missing!r}: No such file or directory."
    assert ended(generate.main, capsys) == (1, said), "the script's own sentence"
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "--model", saved, "--dataset", missing])
    said = f"error: There is no file {missing!r}; check the path and the working directory."
    assert ended(evaluate.main, capsys) == (1, said), "the library's"


def test_errors_of_others_keep_their_traceback(saved, tmp_path, monkeypatch):
    """Also torch's own, whose last line of Python is one of ours."""
    monkeypatch.setattr(sys, "argv", ["generate.py", "--model", str(tmp_path), "--text", "w1"])
    with pytest.raises(ValueError, match="tokenizer"):
        run_program(generate.main)

    def of_torch():
        highest(torch.zeros(1, 2), torch.ones(1, 3, dtype=torch.bool), torch.ones(1))

    with pytest.raises(RuntimeError, match="The size of tensor") as raised:
        run_program(of_torch)
    assert Path(raised.traceback[-1].path).parent == ROOT / "hf_maskgit" / "core"
    with pytest.raises(ValueError, match="invalid literal for int"):
        run_program(lambda: int("one"))


def test_ctrl_c_ends_a_program_quietly(capsys):
    def stopped(*words):
        raise KeyboardInterrupt(*words)

    assert ended(stopped, capsys) == (130, "\nInterrupted.\n")
    assert ended(lambda: stopped("Go on so."), capsys) == (130, "\nGo on so.\n")


@pytest.mark.slow
@pytest.mark.parametrize("launch", [[], ["-m", "accelerate.commands.launch", "--cpu"]])
def test_a_refused_program_says_one_sentence(launch, trained):
    """The launcher adds a traceback of its own, unless it is told to be quiet."""
    quiet = ["--quiet"] if launch else []
    words = [*launch, *quiet, "scripts/train.py", str(trained / "training_options.yaml")]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"error: `output_dir` {str(trained)!r} is not empty. Name another" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("script", ["generate", "evaluate"])
def test_the_scripts_run_as_programs(script, saved, tmp_path):
    (tmp_path / "texts.txt").write_text("\n".join(repeated_symbols(4)))
    words = {
        "generate": ["--text", "w1 [MASK]"],
        "evaluate": ["--dataset", str(tmp_path / "texts.txt"), "--split", "train"],
    }[script]
    done = subprocess.run(
        [sys.executable, f"scripts/{script}.py", "--model", saved, *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if script == "generate":
        assert done.stdout.startswith("w1 ")
    else:
        assert json.loads(done.stdout)["nats_per_token"] > 0


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").glob("*.py")), ids=lambda p: p.stem)
def test_every_file_that_a_script_names_exists(script):
    for path in set(re.findall(r"scripts/[\w./]+\.(?:py|yaml)", script.read_text())):
        assert (ROOT / path).exists(), path


def test_every_script_names_its_options_in_help(capsys):
    for script in (train, generate, evaluate):
        with pytest.raises(SystemExit):
            script.main(["--help"])
        assert "--help lists all options" in capsys.readouterr().out
