"""Where a run begins."""

import pytest

from hf_maskgit.training.beginning import Beginning, where_to_begin
from hf_maskgit.training.checkpoints import LAST_FILE, clear_run
from hf_maskgit.training.recipes import RECIPE_NAME
from hf_maskgit.training.run_files import UNFINISHED
from hf_maskgit.training.run_lock import LOCK_NAME
from tests.training.test_checkpoints import save

FIRST = Beginning(None, clears=False)


def begin(folder, resume=None, overwrite=False):
    return where_to_begin(folder, resume, overwrite)


def test_a_new_folder_begins_a_run(tmp_path):
    assert begin(tmp_path / "new") == begin(tmp_path) == FIRST
    for name in (LOCK_NAME, RECIPE_NAME + UNFINISHED):  # of a run that was killed as it began
        (tmp_path / name).write_text("")
    assert begin(tmp_path) == FIRST


def test_an_interrupted_run_goes_on_from_its_newest_whole_checkpoint(tmp_path):
    (tmp_path / RECIPE_NAME).write_text("")
    early = save(tmp_path, 5)
    found = begin(tmp_path)
    assert found[:2] == (early, False)
    assert "Going on with the interrupted run" in found.reason
    (save(tmp_path, 10) / "manifest.json").unlink()
    assert begin(tmp_path)[:2] == (early, False)
    assert begin(tmp_path, resume="latest") == Beginning(early, clears=False)
    assert begin(tmp_path, overwrite=True) == Beginning(None, clears=True)


def test_an_interrupted_run_without_a_checkpoint_begins_anew(tmp_path):
    (tmp_path / RECIPE_NAME).write_text("")
    (tmp_path / f"checkpoint-5{UNFINISHED}").mkdir()
    found = begin(tmp_path)
    assert found[:2] == (None, True)
    assert "had no checkpoint yet and begins anew" in found.reason


def test_a_run_that_replaced_another_goes_on_where_it_was_interrupted(tmp_path):
    for name in (RECIPE_NAME, LAST_FILE):
        (tmp_path / name).write_text("")
    clear_run(tmp_path)
    checkpoint = save(tmp_path, 5)
    assert begin(tmp_path)[:2] == (checkpoint, False)


def test_what_is_no_interrupted_run_is_refused_unless_it_is_named_on_purpose(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty, and what it holds is no interrupted run"):
        begin(tmp_path)
    assert begin(tmp_path, overwrite=True) == Beginning(None, clears=True)
    for name in (RECIPE_NAME, LAST_FILE):
        (tmp_path / name).write_text("")
    with pytest.raises(ValueError, match="holds a finished run. Name another folder, replace it"):
        begin(tmp_path)
    with pytest.raises(ValueError, match="is a file; name a folder"):
        begin(tmp_path / "notes.txt", overwrite=True)
