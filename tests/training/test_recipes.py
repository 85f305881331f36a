"""How a program ends: with a sentence where we refuse, with a traceback where others do."""

import sys
from pathlib import Path

import pytest
import torch

from hf_maskgit import get_schedule
from hf_maskgit.core.sampler_scores import highest
from hf_maskgit.evaluation import text_statistics
from hf_maskgit.hub.push import check_name
from hf_maskgit.training.examples import check_max_length
from hf_maskgit.training.recipes import run_program
from scripts import evaluate, generate
from tests.support.project import ROOT


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


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        (lambda: get_schedule("steep"), "steep"),
        (lambda: text_statistics([]), "There is no text with words to measure."),
        (lambda: check_max_length(600, 512), "`max_length` is 600 tokens"),
        (lambda: check_name("a/b/c"), "The Hub allows no repository named 'a/b/c'"),
    ],
    ids=["core", "evaluation", "training", "hub"],
)
def test_every_folder_of_the_library_refuses_in_a_sentence(refused, said, capsys):
    code, sentence = ended(refused, capsys)
    assert code == 1
    assert sentence.startswith("error: ")
    assert said in sentence
