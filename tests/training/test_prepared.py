"""Prepared files: all splits of one run stand in their places, or none of them does."""

import contextlib

import pytest
from datasets import Dataset, DatasetDict, load_from_disk

from hf_maskgit.training.prepared import save_splits, save_texts
from tests.support.project import ROOT


def splits(number):
    """Two splits of one run, whose every text tells its number."""
    rows = {"train": [f"{number} a", f"{number} b"], "validation": [f"{number} c"]}
    return DatasetDict({name: Dataset.from_dict({"text": part}) for name, part in rows.items()})


def texts_of(folder):
    return {name: part["text"][:] for name, part in load_from_disk(folder).items()}


def test_splits_are_those_of_save_to_disk_and_what_else_lies_there_stays(tmp_path):
    folder = tmp_path / "deep" / "images"
    for number in (1, 2):
        save_splits(splits(number), folder)
        (folder / "mine.txt").write_text("kept")
        assert texts_of(folder) == {name: p["text"][:] for name, p in splits(number).items()}
    assert {path.name for path in folder.iterdir()} == {
        *("dataset_dict.json", "train", "validation", "mine.txt")
    }
    assert [path.name for path in folder.parent.iterdir()] == ["images"]


@pytest.mark.parametrize("cut", range(8))
def test_a_cut_leaves_no_split_of_one_run_beside_one_of_another(cut, tmp_path, monkeypatch):
    """At any of the splits that are written, moves and removals; the next run mends it."""
    folder = tmp_path / "images"
    save_splits(splits(1), folder)
    steps = iter(range(100))

    def stopping(work):
        def step(*given, **options):
            if next(steps) == cut:
                raise KeyboardInterrupt
            return work(*given, **options)

        return step

    with monkeypatch.context() as patched, contextlib.suppress(KeyboardInterrupt):
        patched.setattr(Dataset, "save_to_disk", stopping(Dataset.save_to_disk))
        for name in ("rename", "unlink"):
            patched.setattr(f"pathlib.Path.{name}", stopping(getattr(type(folder), name)))
        save_splits(splits(2), folder)
    try:
        found = texts_of(folder)
    except FileNotFoundError:  # no data set, and said to be none
        found = {}
    assert len({text[0] for part in found.values() for text in part}) <= 1
    save_splits(splits(3), folder)
    assert texts_of(folder) == {name: part["text"][:] for name, part in splits(3).items()}


def test_texts_are_put_in_place_when_all_are_written(tmp_path):
    one, other = tmp_path / "train.jsonl", tmp_path / "validation.jsonl"
    save_texts({one: "a\n", other: "b\n"})
    assert (one.read_text(), other.read_text()) == ("a\n", "b\n")
    with pytest.raises(UnicodeEncodeError):
        save_texts({one: "c\n", other: "\ud800"})
    assert (one.read_text(), other.read_text()) == ("a\n", "b\n")


def test_every_program_that_prepares_texts_writes_them_so():
    for path in (ROOT / "scripts").glob("prepare_*.py"):
        text = path.read_text("utf-8")
        assert "save_splits(" in text or "save_texts(" in text
        assert "save_to_disk" not in text
