"""What the README shows works: its example, its commands, its links."""

import re

import pytest

from scripts.cli import COMMANDS
from tests.support.project import ROOT
from tests.support.shown_commands import check_understood, commands_of, run_by
from tests.support.tiny import word_tokenizer
from tests.support.tiny_tokenizers import model_for

README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[list[str]]:
    return [words for block in blocks("bash") for words in commands_of(block)]


@pytest.mark.wide
def test_the_example_runs_where_the_demonstration_left_its_model(tmp_path, monkeypatch, capsys):
    (example,) = blocks("python")
    # a tokenizer that knows its words: a model is not asked about what it cannot read
    words = re.sub(r"\[MASK\]|\{blank[^}]*\}|\"", " ", example).split()
    tokenizer = word_tokenizer(words=sorted(set(words)))
    model_for(tokenizer).save_pretrained(tmp_path / "runs/demo/model")
    tokenizer.save_pretrained(tmp_path / "runs/demo/model")
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out.count("\n") >= example.count("print(")


def test_every_make_target_exists():
    targets = {words[1] for words in commands() if words[0] == "make"}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets >= {"demo", "test"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_every_command_of_ours_is_understood(tmp_path):
    """Each of those that an installed package has is shown, training by the launcher."""
    shown = [words for words in commands() if run_by(words)]
    assert {words[1] for words in shown if words[0] == "hf-maskgit"} == set(COMMANDS) - {"train"}
    assert any(words[:2] == ["accelerate", "launch"] for words in shown)
    for words in shown:
        check_understood(words, tmp_path)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document):
    for target in re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (document.parent / target).exists(), target
