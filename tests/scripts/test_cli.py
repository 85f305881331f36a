"""The command `hf-maskgit`: each command is a script, and a slip of the pen is a sentence."""

import subprocess
import sys

import pytest

import hf_maskgit
from scripts import (
    app,
    cli,
    evaluate,
    export_onnx,
    generate,
    harness,
    plot_run,
    push_to_hub,
    score,
    serve,
    train,
)
from tests.support.project import ROOT

SCRIPTS = {
    "train": train,
    "evaluate": evaluate,
    "score": score,
    "lm_eval": harness,
    "generate": generate,
    "serve": serve,
    "app": app,
    "export": export_onnx,
    "plot": plot_run,
    "push": push_to_hub,
}


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/hf-maskgit", *words])
    cli.main()


@pytest.mark.parametrize("command", SCRIPTS)
def test_a_command_is_the_script_with_the_words_behind_it(command, monkeypatch):
    seen = []

    def main():
        seen.append(sys.argv)

    assert cli.script_of(command) is SCRIPTS[command]
    monkeypatch.setattr(SCRIPTS[command], "main", main)
    run(monkeypatch, command, "--model", "m")
    assert seen == [[f"hf-maskgit {command}", "--model", "m"]]


def test_every_command_is_tried_here():
    assert set(cli.COMMANDS) == set(SCRIPTS)
    assert all((ROOT / f"scripts/{name}.py").exists() for name in cli.COMMANDS.values())


def test_the_help_of_a_command_names_it(monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "generate", "--help")
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: hf-maskgit generate [recipe.yaml]")


def test_what_a_script_refuses_is_one_sentence(monkeypatch, tmp_path):
    nowhere = str(tmp_path / "nowhere.txt")
    with pytest.raises(SystemExit, match="error: Cannot read '.*nowhere.txt'"):
        run(monkeypatch, "generate", "--model", "m", "--input_file", nowhere)


def test_the_overview_has_the_first_line_of_every_script(monkeypatch, capsys):
    run(monkeypatch, "--help")
    printed = capsys.readouterr().out
    for name, script in SCRIPTS.items():
        assert f"  {name:<9} {script.__doc__.splitlines()[0]}\n" in printed


def test_the_version_is_the_packages(monkeypatch, capsys):
    run(monkeypatch, "--version")
    assert capsys.readouterr().out == f"hf-maskgit {hf_maskgit.__version__}\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "Name a command. Commands: train, evaluate, score, lm_eval, generate, serve, app,"),
        (["evalute"], "There is no command 'evalute'. Did you mean evaluate? Commands: train"),
        (["--model", "m"], "There is no command '--model'. Commands: train"),
    ],
)
def test_a_word_that_is_no_command_is_refused(words, sentence, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, *words)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"hf-maskgit: error: {sentence}")


WITHOUT_A_COMMAND = """
import contextlib, sys
from scripts import cli

for word in ("--help", "--version", "trian"):
    sys.argv = ["hf-maskgit", word]
    with contextlib.suppress(SystemExit):
        cli.main()
assert not {"torch", "transformers.modeling_utils", "hf_maskgit.core"} & set(sys.modules)
"""


@pytest.mark.wide
def test_who_names_no_command_does_not_wait_for_torch():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_A_COMMAND], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Did you mean train?" in done.stderr
