"""What the README shows works: its example, its commands, its links."""

import re
import shlex

import pytest

from hf_maskgit.training.arguments import DataArguments, ModelArguments, TrainArguments
from hf_maskgit.training.recipes import parse_options
from tests.support.project import ROOT
from tests.support.tiny import tiny_model, word_tokenizer

README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[list[str]]:
    text = "\n".join(blocks("bash")).replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in text.splitlines()]
    return [words for words in lines if words]


def test_the_example_runs_where_the_demonstration_left_its_model(tmp_path, monkeypatch, capsys):
    tiny_model().save_pretrained(tmp_path / "runs/demo/model")
    word_tokenizer().save_pretrained(tmp_path / "runs/demo/model")
    monkeypatch.chdir(tmp_path)
    (example,) = blocks("python")
    exec(compile(example, "README.md", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out.count("\n") >= example.count("print(")


def test_every_make_target_exists():
    targets = {words[1] for words in commands() if words[0] == "make"}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets >= {"demo", "test"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_every_training_command_is_understood(tmp_path):
    """A recipe of a run that has not been made stands for any recipe."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("encoder: e\ndataset: d\noutput_dir: o\n", encoding="utf-8")
    shown = [words[2:] for words in commands() if words[:2] == ["accelerate", "launch"]]
    assert shown
    for script, *words in shown:
        assert (ROOT / script).exists()
        words = [
            str(recipe) if word.startswith("runs/") and ".yaml" in word else word for word in words
        ]
        parse_options((ModelArguments, DataArguments, TrainArguments), words)


def test_every_script_that_is_named_exists():
    for path in set(re.findall(r"scripts/[\w./]+\.(?:py|yaml)", README)):
        assert (ROOT / path).exists()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document):
    for target in re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (document.parent / target).exists(), target
