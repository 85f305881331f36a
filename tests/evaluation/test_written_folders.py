"""A folder goes on with the options that began it, and with no others."""

import json

import pytest

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
