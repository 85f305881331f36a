"""What a recipe may say; and how a program ends: a sentence where we refuse, else a traceback."""

import errno
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from hf_maskgit import get_schedule
from hf_maskgit.core.argument_checks import check_flag
from hf_maskgit.core.sampler_scores import highest
from hf_maskgit.evaluation import text_statistics
from hf_maskgit.hub.push import check_name
from hf_maskgit.training.examples import check_max_length
from hf_maskgit.training.output_files import check_output, disk_failure
from hf_maskgit.training.recipes import (
    check_least,
    load_recipe,
    option,
    parse_options,
    read_text,
    run_program,
)
from hf_maskgit.training.stopping import RunStopped
from hf_maskgit.visualization import check_animation_path
from scripts import compare_samplers, evaluate, generate, score
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


def test_a_package_that_is_missing_or_a_value_of_another_kind_is_said_in_a_sentence(
    capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    missing = ended(lambda: check_animation_path("a.gif"), capsys)
    assert missing[1].startswith("error: A GIF or WebP picture needs the package Pillow")
    assert ended(lambda: check_flag("plot", 3), capsys) == (
        1,
        "error: `plot` must be True or False, got 3.",
    )


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "What is written cannot be written: No"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS), "out"), "'out' cannot be written: Read-"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "What is written ca"),
    ],
)
def test_what_a_disk_does_not_take_ends_a_program_with_a_sentence(error, said):
    assert disk_failure(error).startswith(said)
    assert disk_failure(error).endswith(". Make room, or name a place that has some.")


def test_no_other_error_is_the_disks():
    others = OSError("its own words"), FileNotFoundError(2, "No such file"), ValueError("full")
    assert [disk_failure(error) for error in (*others, SafetensorError("a header"))] == [None] * 4


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="There is no disk that is full.")
def test_a_program_whose_disk_is_full_keeps_no_traceback(capsys):
    def main():
        with Path("/dev/full").open("w") as output:
            print("a text", file=output, flush=True)

    told = disk_failure(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert ended(main, capsys) == (1, f"error: {told}")


READ_NO_MORE = """
import sys
from hf_maskgit.training.recipes import run_program

def main():
    print("ready", flush=True)
    sys.stdin.read()
    print("to nobody", flush=True)

def torn():
    raise BrokenPipeError("a connection of its own")

run_program(torn if "torn" in sys.argv else main)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Pipes are another matter there.")
def test_a_program_whose_output_nobody_reads_any_more_ends_quietly():
    words = [sys.executable, "-c", READ_NO_MORE]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(words, cwd=ROOT, text=True, **pipes) as program:
        assert program.stdout.readline() == "ready\n"
        program.stdout.close()
        program.stdin.close()
        assert program.stderr.read() == ""
    assert program.returncode == 141
    torn = subprocess.run([*words, "torn"], cwd=ROOT, capture_output=True, text=True)
    assert torn.stderr.endswith("BrokenPipeError: a connection of its own\n")


def test_errors_of_others_keep_their_traceback():
    """Also torch's own, whose last line of Python is one of ours."""

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

    def slurm():
        raise RunStopped("Go on so.", signal.SIGTERM)

    assert ended(slurm, capsys) == (143, "\nGo on so.\n")


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


@dataclass
class Options:
    length: int = option(3, "A number.")
    rate: float = option(0.5, "Another.")
    name: str | None = option(None, "A word.")
    words: list[str] | None = option(None, "Some words.")
    details: str | None = option(None, "A JSON object.")


def test_a_recipe_says_what_it_looks_like(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "length: 12\nrate: 1e-4\nname: 2026-01-30\nwords: [a, '1:30', 5]\ndetails: {a: [1, 2]}\n"
    )
    (found,) = parse_options((Options,), [str(recipe)])
    assert found == Options(12, 1e-4, "2026-01-30", ["a", "1:30", "5"], '{"a": [1, 2]}')
    recipe.write_bytes(b"\xef\xbb\xbflength: 4\r\nrate: -.5\r\n")  # as Windows writes it
    assert parse_options((Options,), [str(recipe)])[0] == Options(4, -0.5)


@pytest.mark.wide
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("length: 3\nrate: 1\nlength: 4", "'length' stands there twice; .* line 3, column 1"),
        ("details: {a: 1, a: 2}", "'a' stands there twice"),
        ('{"length": 3, "length": 4}', "'length' stands there twice"),
        ("length: 1:30", "'1:30' is no plain number .*in decimal digits, or in quotes"),
        ("rate: 1:30.5", "'1:30.5' is no plain number"),
        ("length: 010", "'010' is no plain number"),
        ("length: 0x1f", "'0x1f' is no plain number"),
        ("length: 1_000", "'1_000' is no plain number"),
        ("length: " + 5000 * "9", "Exceeds the limit"),
        ("rate: &a 3\nlength: *a", r"\*a stands for another value; write it out"),
        ("words: &a [*a]", r"\*a stands for another value"),
        ("? [a]\n: 3", "the name of an option must be a word"),
        ("length: [1", "is no valid YAML"),
        ("name: !!python/object/apply:os.system [exit]", "could not determine a constructor"),
        ("name: \x00", "is no valid YAML: .*special characters are not allowed"),
        ("[" * 5000, "is no valid YAML"),
        ("words: [[a]]", "`words` holds list in a list; lists are of words and numbers"),
        ("words: [null]", "`words` holds NoneType in a list"),
        ("name: !!binary aGk=", "`name` is bytes to YAML; write a word"),
        ("name: !!set {a}", "`name` is set to YAML"),
        ("", "must map options to values, .* it holds NoneType"),
        ("- length", "it holds list"),
        ("3: 4", "Unknown option '3'"),
    ],
)
def test_a_recipe_that_is_not_what_it_looks_like_is_refused(tmp_path, text, said, capsys):
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(SystemExit) as ended:
        parse_options((Options,), [str(tmp_path / "recipe.yaml")])
    assert ended.value.code == 2
    assert re.search(said, capsys.readouterr().err, flags=re.DOTALL)


def test_a_recipe_in_another_encoding_is_named(tmp_path):
    (tmp_path / "recipe.yaml").write_text("name: é", encoding="latin-1")
    with pytest.raises(
        ValueError, match=r"recipe.yaml' is not in UTF-8 \(byte 6: .*save it in tha"
    ):
        load_recipe(tmp_path / "recipe.yaml")
    with pytest.raises(ValueError, match=r"Cannot read the recipe '.*' \(Is a directory\)"):
        load_recipe(tmp_path)
    with pytest.raises(ValueError, match="Cannot read '.*nowhere': No such file"):
        read_text(tmp_path / "nowhere")


def test_numbers_that_are_too_small_are_named():
    check_least(Options(), length=3, rate=0, name=1)
    with pytest.raises(ValueError, match="`length` must be at least 4, got 3."):
        check_least(Options(), length=4)


def test_where_results_go_is_looked_at_before_the_work(tmp_path):
    check_output(None)
    check_output(str(tmp_path / "new.json"))
    (tmp_path / "old.json").write_text("")
    check_output(str(tmp_path / "old.json"))
    with pytest.raises(ValueError, match="There is no folder '.*nowhere' for '.*a.json'; make it"):
        check_output(str(tmp_path / "nowhere" / "a.json"))
    with pytest.raises(ValueError, match="is a folder; name a file in it"):
        check_output(str(tmp_path))


def test_what_is_read_is_not_replaced_by_what_is_written(tmp_path):
    texts = tmp_path / "texts.jsonl"
    texts.write_text("{}")
    (tmp_path / "same.jsonl").symlink_to(texts)
    for output in (texts, tmp_path / "same.jsonl", tmp_path / ".." / tmp_path.name / texts.name):
        for read in (texts, tmp_path / "te*.jsonl"):
            with pytest.raises(ValueError, match="is a file that is read, and would be replaced"):
                check_output(str(output), None, str(read))
    check_output(str(tmp_path / "other.jsonl"), str(texts), "owner/name")


def test_a_program_refuses_to_write_over_its_input_before_any_work(saved, tmp_path, capsys):
    texts = tmp_path / "texts.txt"
    texts.write_text("w1 w2\n")
    for main, read in (
        (generate.main, "--input_file"),
        (evaluate.main, "--dataset"),
        (score.main, "--input_file"),
        (compare_samplers.main, "--input_file"),
    ):
        with pytest.raises(SystemExit):
            main(["--model", saved, read, str(texts), "--output_file", str(texts)])
        assert "would be replaced by what is written" in capsys.readouterr().err
    assert texts.read_text() == "w1 w2\n"


@dataclass
class WithFolder:
    output_dir: str = "out"


@pytest.mark.parametrize("inner", [[], ["a", "b"]])
def test_a_folder_that_is_a_file_or_lies_in_one_is_refused_by_every_program(
    tmp_path, capsys, inner
):
    file = tmp_path / "file"
    (one,) = parse_options((WithFolder,), ["--output_dir", str(tmp_path.joinpath("new", *inner))])
    assert one.output_dir.startswith(str(tmp_path))
    file.write_text("")
    with pytest.raises(SystemExit):
        parse_options((WithFolder,), ["--output_dir", str(file.joinpath(*inner))])
    assert f"and '{file}' is a file; name a folder" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["--output_dir=~/runs", "--output_dir=~"])
def test_no_results_go_into_a_folder_called_after_a_home(tmp_path, monkeypatch, capsys, word):
    """A shell expands it where a word begins; in `--option=~/x` and in a recipe it stays."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        parse_options((WithFolder,), [word])
    said = " ".join(capsys.readouterr().err.split())
    assert "and only a shell takes '~' for a home" in said
    (tmp_path / "~").mkdir()
    assert parse_options((WithFolder,), [word])[0].output_dir.startswith("~")


@pytest.mark.skipif(os.name == "nt", reason="Rights are another matter there.")
def test_a_file_that_may_not_be_written_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(ValueError, match="'.*a.json' cannot be written: permission denied"):
        check_output(str(tmp_path / "a.json"))
