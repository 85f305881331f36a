"""Folders of a run: nothing is written over, nothing half-written is resumed from."""

import json
from types import SimpleNamespace

import pytest

from hf_maskgit.training.checkpoints import (
    LAST_FILE,
    Progress,
    checkpoints,
    clear_run,
    fault_of,
    find_checkpoint,
    how_to_go_on,
    read_progress,
    save_checkpoint,
)

ALONE = SimpleNamespace(is_main_process=True, num_processes=1, wait_for_everyone=lambda: None)


def write_one_file(folder):
    (folder / "state.json").write_text("{}")


def save(folder, step, keep=9, write=write_one_file):
    folder.mkdir(exist_ok=True)
    return save_checkpoint(ALONE, folder, Progress({}, step=step), keep, write)


def names(folder):
    return [path.name for path in checkpoints(folder)]


def test_the_newest_checkpoints_are_kept_and_ordered_by_number(tmp_path):
    for step in (8, 9, 10, 11):
        assert save(tmp_path, step, keep=2) == tmp_path / f"checkpoint-{step}"
    assert names(tmp_path) == ["checkpoint-10", "checkpoint-11"]
    assert find_checkpoint("latest", tmp_path) == tmp_path / "checkpoint-11"


def test_a_checkpoint_that_was_not_finished_is_not_one(tmp_path):
    save(tmp_path, 5)

    def dies(folder):
        write_one_file(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 10, write=dies)
    assert not list(tmp_path.glob("*.partial"))
    (tmp_path / "checkpoint-10.partial").mkdir()  # what a killed run leaves
    (tmp_path / "checkpoint-10.partial" / "odd").write_text("")
    assert find_checkpoint("latest", tmp_path).name == "checkpoint-5"
    assert find_checkpoint("latest", save(tmp_path, 10).parent).name == "checkpoint-10"


def test_an_interrupted_run_says_where_it_stands(tmp_path):
    assert how_to_go_on(tmp_path) == (
        f"Interrupted before the first checkpoint in '{tmp_path}'; the same command begins anew."
    )
    for step in (9, 10):
        save(tmp_path, step)
    said = how_to_go_on(tmp_path)
    assert f"newest checkpoint is '{tmp_path / 'checkpoint-10'}'" in said
    assert said.endswith("the same command goes on from it.")
    said = how_to_go_on(tmp_path, overwrites=True)  # which would begin by deleting it
    assert said.endswith("the same command without `overwrite_output_dir` goes on from it.")


def test_a_checkpoint_is_found_by_its_path(tmp_path):
    path = save(tmp_path / "run", 5)
    assert find_checkpoint(str(path), tmp_path / "other") == path
    with pytest.raises(ValueError, match=r"no checkpoint in '.*other' to resume from"):
        find_checkpoint("latest", tmp_path / "other")
    for wrong in (tmp_path / "run", tmp_path / "run" / "checkpoint-6"):
        with pytest.raises(ValueError, match="is no checkpoint folder of a training run"):
            find_checkpoint(str(wrong), tmp_path / "run")


def test_going_back_behind_later_checkpoints_is_refused(tmp_path):
    early = save(tmp_path, 5)
    save(tmp_path, 10)
    with pytest.raises(ValueError, match=r"holds checkpoint-10, later than checkpoint-5"):
        find_checkpoint(str(early), tmp_path)
    assert find_checkpoint(str(early), tmp_path / "elsewhere") == early


def test_overwriting_removes_the_old_run_and_nothing_else(tmp_path):
    save(tmp_path, 5)
    (tmp_path / "checkpoint-6.partial").mkdir()
    (tmp_path / "model.partial").mkdir()
    (tmp_path / "best").mkdir()
    (tmp_path / "adapter").mkdir()  # of weights that the new run may not have
    (tmp_path / "training_log.jsonl").write_text("{}")
    (tmp_path / LAST_FILE).write_text("a card")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "checkpoint-notes").write_text("mine too")
    clear_run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-notes", "notes.txt"]
    clear_run(tmp_path / "new")


def test_progress_counts_epochs_and_survives_its_own_state():
    progress = Progress({"seed": 1})
    for _ in range(7):
        progress.advance(epoch_updates=3)
    assert (progress.step, progress.epoch, progress.updates_in_epoch) == (7, 2, 1)
    progress.best_nats = 2.5
    restored = Progress({"seed": 1})
    restored.load_state_dict(progress.state_dict())
    assert restored == progress


def test_a_run_cut_otherwise_keeps_its_place_where_it_is_allowed():
    state = Progress({"num_processes": 2, "seed": 1}, step=5, updates_in_epoch=5).state_dict()
    present = Progress({"num_processes": 1, "seed": 1})
    with pytest.raises(ValueError, match="written with num_processes = 2, this run has 1"):
        present.load_state_dict(state)
    assert present.load_state_dict(state, ["num_processes"]) == {"num_processes"}
    assert (present.step, present.epoch, present.updates_in_epoch) == (5, 0, 5)


def test_only_the_main_process_moves_folders(tmp_path):
    helper = SimpleNamespace(**{**vars(ALONE), "is_main_process": False})
    save(tmp_path, 1)
    save_checkpoint(helper, tmp_path, Progress({}, step=2), 1, lambda folder: None)
    assert names(tmp_path) == ["checkpoint-1"]


def test_a_damaged_checkpoint_is_named_and_passed_over(tmp_path, caplog):
    for step in (5, 10, 15):
        save(tmp_path, step)
    (tmp_path / "checkpoint-15" / "state.json").write_text("{ }")
    (tmp_path / "checkpoint-10" / "manifest.json").unlink()
    assert find_checkpoint("latest", tmp_path).name == "checkpoint-5"
    assert (
        "Passing over checkpoint-15, which is damaged: its file 'state.json' has 3" in caplog.text
    )
    assert "Passing over checkpoint-10, which is damaged: it has no 'manifest.json'" in caplog.text
    with pytest.raises(ValueError, match=r"checkpoint-15' is damaged: its file .* Resume from an"):
        find_checkpoint(str(tmp_path / "checkpoint-15"), tmp_path)
    # what nobody can resume from is no other future
    assert find_checkpoint(str(tmp_path / "checkpoint-5"), tmp_path).name == "checkpoint-5"
    assert "checkpoint-5'; the same command goes on" in how_to_go_on(tmp_path)
    (tmp_path / "checkpoint-5" / "state.json").unlink()
    with pytest.raises(ValueError, match=r"No checkpoint in .* is whole \(checkpoint-15: .*-5: "):
        find_checkpoint("latest", tmp_path)


def test_a_damaged_checkpoint_is_replaced_when_its_update_comes_again(tmp_path):
    for step in (5, 10):
        save(tmp_path, step)
    (tmp_path / "checkpoint-10" / "state.json").write_text("")
    save(tmp_path, 10)
    assert fault_of(tmp_path / "checkpoint-10") is None


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("why")])
def test_a_checkpoint_that_cannot_be_written_leaves_the_others(tmp_path, error):
    save(tmp_path, 5, keep=1)

    def fails(folder):
        write_one_file(folder)
        raise error

    with pytest.raises(RuntimeError, match=r"checkpoint-10': No space left .* as they were|why"):
        save(tmp_path, 10, keep=1, write=fails)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-5"]
    assert fault_of(tmp_path / "checkpoint-5") is None


def test_a_folder_that_was_removed_is_noticed(tmp_path):
    with pytest.raises(RuntimeError, match=r"gone' was removed while the run went on"):
        save_checkpoint(ALONE, tmp_path / "gone", Progress({}, step=1), 1, write_one_file)


@pytest.mark.parametrize(
    ("name", "value"),
    [("step", -1), ("step", True), ("epoch", 1.5), ("best_nats", "low"), ("setting", [])],
)
def test_what_is_no_progress_is_refused(tmp_path, name, value):
    path = save(tmp_path, 5)
    assert read_progress(path)["step"] == 5
    state = Progress({}, step=5).state_dict()
    (path / "progress.json").write_text(json.dumps({**state, name: value}))
    with pytest.raises(ValueError, match=f"is damaged: its 'progress.json' has .* as '{name}'"):
        read_progress(path)


def test_another_order_of_the_data_begins_with_the_next_pass():
    state = Progress({"seed": 1, "learning_rate": 0.1}, 7, 2, 1).state_dict()
    found = Progress({"seed": 1, "learning_rate": 0.2})
    assert found.load_state_dict(state, ["learning_rate"]) == {"learning_rate"}
    assert (found.step, found.epoch, found.updates_in_epoch) == (7, 2, 1)
    assert found.setting["learning_rate"] == 0.2, "this run's, for its own checkpoints"
    found = Progress({"seed": 2, "learning_rate": 0.1})
    assert found.load_state_dict(state, ["seed"]) == {"seed"}
    assert (found.step, found.epoch, found.updates_in_epoch) == (7, 3, 0)
