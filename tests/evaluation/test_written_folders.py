"""A folder goes on with the options that began it, and with no others."""

import errno
import json
from pathlib import Path

import pytest

from hf_maskgit.evaluation import written_folders
from hf_maskgit.evaluation.written_folders import claim_folder


def test_a_folder_is_claimed_once_and_by_the_same_options_again(tmp_path):
    folder = tmp_path / "runs" / "one"
    options = {"seed": 1, "words": ["a", "b"]}
    claim_folder(folder, options)
    (folder / "kept.txt").write_text("kept")
    claim_folder(folder, options)
    assert (folder / "kept.txt").read_text() == "kept"
    assert json.loads((folder / "options.json").read_text()) == options


def test_other_options_are_named_with_both_values(tmp_path):
    claim_folder(tmp_path, {"seed": 1, "depth": 2, "gone": True})
    words = r"written with gone=True, seed=1, and this call has gone=None, seed=3\. Name another"
    with pytest.raises(ValueError, match=words):
        claim_folder(tmp_path, {"seed": 3, "depth": 2})
    assert json.loads((tmp_path / "options.json").read_text())["seed"] == 1


@pytest.mark.parametrize("is_empty", [True, False])
def test_a_folder_that_holds_nothing_yet_can_be_given_back(tmp_path, is_empty):
    """As a call leaves it that was refused after its claim."""
    claim_folder(tmp_path, {"seed": 1})
    if not is_empty:
        (tmp_path / "written.jsonl").touch()
    with pytest.raises(ValueError, match="Name another folder") as refusal:
        claim_folder(tmp_path, {"seed": 2})
    assert ("if no call is at work there, delete 'options.json'" in str(refusal.value)) is is_empty
    (tmp_path / "options.json").unlink()
    claim_folder(tmp_path, {"seed": 2})


def no_links(self, target):
    raise OSError(errno.EPERM, "Operation not permitted")


def test_of_calls_at_once_the_first_has_the_folder(tmp_path, monkeypatch):
    """Both have seen it empty; with links between files, and without."""
    plain = written_folders._put
    for name, links in (("with", True), ("without", False)):
        folder = tmp_path / name

        def put(aside, noted, folder=folder):
            monkeypatch.setattr(written_folders, "_put", plain)
            claim_folder(folder, {"seed": 1})
            plain(aside, noted)

        if not links:
            monkeypatch.setattr(Path, "hardlink_to", no_links)
        monkeypatch.setattr(written_folders, "_put", put)
        with pytest.raises(ValueError, match="written with seed=1, and this call has seed=2"):
            claim_folder(folder, {"seed": 2})
        assert json.loads((folder / "options.json").read_text()) == {"seed": 1}
        assert [path.name for path in folder.iterdir()] == ["options.json"]
