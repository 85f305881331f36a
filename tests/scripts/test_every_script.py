"""What holds for every script: it runs as a program, and says what its options are."""

import json
import os
import re
import subprocess
import sys
from dataclasses import MISSING, fields, is_dataclass
from importlib import import_module
from types import ModuleType
from typing import get_type_hints

import pytest

from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.training.arguments import DataArguments, ModelArguments, TrainArguments
from scripts import benchmark, compare_samplers, evaluate, generate, train
from tests.support.project import ROOT
from tests.support.tiny import tiny_encoder, word_tokenizer
from tests.support.tiny_training import repeated_symbols


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


def test_every_script_names_its_options_in_help(capsys):
    for script in (train, generate, evaluate):
        with pytest.raises(SystemExit):
            script.main(["--help"])
        assert "--help lists all options" in capsys.readouterr().out


@pytest.mark.wide
def test_an_encoder_is_taken_by_every_script_that_takes_a_generator(tmp_path, capsys):
    """And gives what the same encoder gives once it was wrapped and saved."""
    encoder, wrapped = tmp_path / "encoder", tmp_path / "wrapped"
    tiny_encoder().save_pretrained(encoder)
    MaskGitForMaskedLM.from_encoder(str(encoder), tokenizer=word_tokenizer()).save_pretrained(
        wrapped
    )
    for folder in (encoder, wrapped):
        word_tokenizer().save_pretrained(folder)
    (tmp_path / "texts.txt").write_text("\n".join(repeated_symbols(4)))
    calls = {
        generate: ["--text", "w1 [MASK] w2", "w3", "--max_new_tokens", "3"],
        evaluate: ["--dataset", str(tmp_path / "texts.txt"), "--num_samples", "4"],
        compare_samplers: ["--text", "[MASK] w1", "--num_texts", "2", "--passes", "1"],
    }
    for script, words in calls.items():
        printed = []
        for folder in (encoder, wrapped):
            script.main(["--model", str(folder), *words])
            printed.append(capsys.readouterr().out.replace(str(folder), "the model"))
        assert printed[0] == printed[1]
        assert printed[0]


def programs_with(option):
    """Every program that has an option, with the class of its arguments."""
    for path in sorted((ROOT / "scripts").glob("*.py")):
        if f"    {option}:" in path.read_text(encoding="utf-8"):
            script = import_module(f"scripts.{path.stem}")
            kinds = (kind for kind in vars(script).values() if is_dataclass(kind))
            kinds = [kind for kind in kinds if option in {field.name for field in fields(kind)}]
            yield from ((script, kind) for kind in kinds if kind.__module__ == script.__name__)


def needed_words(kind):
    """Words of a command line for what has no default, and for what a program asks for itself."""
    needed = {f.name for f in fields(kind) if f.default is f.default_factory is MISSING}
    names = (needed | {"runs"}) & kind.__annotations__.keys()
    return [word for name in sorted(names) for word in (f"--{name}", "x")]


@pytest.mark.parametrize("option", ["output_file", "plot_file", "reliability_plot"])
def test_a_place_that_results_cannot_have_is_refused_before_any_work(option, capsys):
    found = list(programs_with(option))
    assert len(found) >= {"output_file": 9, "plot_file": 2}.get(option, 1)
    for script, kind in found:
        with pytest.raises(SystemExit):
            script.main([*needed_words(kind), f"--{option}", "nowhere/x.json"])
        assert "There is no folder 'nowhere'" in capsys.readouterr().err, script.__name__


@pytest.mark.parametrize("option", ["plot_file", "reliability_plot"])
@pytest.mark.parametrize("name", ["a.json", "a"])
def test_a_picture_of_no_kind_is_refused_before_any_work(option, name, tmp_path, capsys):
    for script, kind in programs_with(option):
        with pytest.raises(SystemExit):
            script.main([*needed_words(kind), f"--{option}", str(tmp_path / name)])
        assert "is to be a picture, and its ending must be one of ." in capsys.readouterr().err, (
            script.__name__
        )


# What a number counts, or which pure number it is: one of these stands in the first sentence of its
# help. "Tokens per text" has a unit; "how long" has none.
COUNTED = (
    "tokens texts examples updates passes processes words samples checkpoints masks maskings "
    "layers positions nats ids id width rounds steps seconds bytes GB"
)
PURE = (
    "share shares probability weight factor scale decay rate seed norm rank term dropout time "
    "divides scales"
)
UNITS = re.compile(rf"\b({'|'.join(f'{COUNTED} {PURE}'.split())})\b", re.IGNORECASE)
# The number is a letter of the formula in its first sentence.
FORMULAS = {"threshold_factor", "guidance_scale"}


def numbers_of(*option_types):
    for option_type in option_types:
        kinds = get_type_hints(option_type)
        for field in fields(option_type):
            if re.search(r"\b(int|float)\b", str(kinds[field.name])):
                yield pytest.param(field, id=f"{option_type.__name__}.{field.name}")


NUMBERS = list(
    numbers_of(
        *(ModelArguments, DataArguments, TrainArguments),
        *(evaluate.EvaluateArguments, generate.GenerateArguments),
        *(compare_samplers.CompareArguments, benchmark.BenchmarkArguments),
    )
)


@pytest.mark.parametrize("option", NUMBERS)
def test_the_help_of_a_number_names_its_unit(option):
    first = option.metadata["help"].partition(". ")[0]
    assert UNITS.search(first) or option.name in FORMULAS, first


def test_all_numbers_are_looked_at():
    assert len(NUMBERS) > 60
    assert UNITS.search("Longest example, in tokens")
    assert not UNITS.search("How long an example is")


# What a program draws, measures or writes with in the end, and how it is asked to.
LATE = [
    ("evaluate_chorales", "music21.stream", "music", []),
    ("evaluate_chorales", "matplotlib.figure", "plots", []),
    ("evaluate_digits", "PIL", "images", []),
    ("evaluate_texts", "matplotlib.figure", "plots", ["--model", "x"]),
    ("evaluate_texts", "sacrebleu.metrics.bleu", "quality", ["--model", "x"]),
    ("evaluate_texts", "mauve", "mauve", ["--model", "x", "--featuriser", "x"]),
    ("evaluate_molecules", "rdkit", "molecules", []),
    ("compare_molecule_samplers", "rdkit.Chem", "molecules", []),
    ("design_molecules", "rdkit.Chem.Draw", "molecules", []),
    ("compare_samplers", "matplotlib.figure", "plots", ["--plot_file", "x.png"]),
    ("evaluate", "matplotlib.figure", "plots", ["--reliability_plot", "x.png"]),
    ("evaluate_antibodies", "immunum", "antibodies", []),
    ("generate", "rich.console", "visualization", ["--show"]),
    ("generate", "PIL.Image", "images", ["--save_animation", "x.gif"]),
    ("export_onnx", "onnxscript", "onnx", []),
    ("serve", "uvicorn", "serve", ["--model", "x"]),
    ("app", "gradio", "app", ["--model", "x"]),
    (
        "train",
        "peft",
        "peft",
        ["--encoder", "x", "--dataset", "x", "--lora_r", "2", "--output_dir", "y"],
    ),
]


@pytest.mark.usefixtures("_fresh_accelerate")
@pytest.mark.parametrize(("name", "module", "extra", "words"), LATE, ids=lambda v: str(v))
def test_a_package_that_is_needed_in_the_end_is_asked_for_before_any_work(
    name, module, extra, words, tmp_path, monkeypatch, capsys
):
    """Nothing that is named is there, which a program that looked would say."""
    monkeypatch.chdir(tmp_path)
    if name == "evaluate_chorales":  # whatever else it needs is there
        monkeypatch.setitem(sys.modules, "music21", ModuleType("music21"))
        monkeypatch.setitem(sys.modules, "music21.stream", ModuleType("music21.stream"))
    monkeypatch.setitem(sys.modules, module, None)
    script = import_module(f"scripts.{name}")
    kinds = [kind for kind in vars(script).values() if is_dataclass(kind)]
    needed = [needed_words(kind) for kind in kinds if kind.__module__ == script.__name__]
    words = [*(word for some in needed for word in some), *words]
    with pytest.raises((ImportError, RuntimeError, ValueError, SystemExit)) as refused:
        script.main(words)
    assert f"hf_maskgit[{extra}]" in str(refused.value) + capsys.readouterr().err
    assert not list(tmp_path.iterdir())
