"""Folders of a run: nothing is written over, nothing half-written is resumed from."""

from types import SimpleNamespace

import pytest

from hf_maskgit.training.checkpoints import (
    Progress,
    check_output_dir,
    checkpoints,
    clear_run,
    find_checkpoint,
    how_to_go_on,
    save_checkpoint,
)


class WritesOneFile:
    """Stands for the Accelerator where only its folder matters."""

    is_main_process = True

    def save_state(self, folder):
        from pathlib import Path

        Path(folder).mkdir(parents=True)
        (Path(folder) / "random_states_0.pkl").write_text("state")

    def wait_for_everyone(self):
        pass


def save(folder, step, keep=9):
    return save_checkpoint(WritesOneFile(), folder, step, keep)


def names(folder):
    return [path.name for path in checkpoints(folder)]


def test_the_newest_checkpoints_are_kept_and_ordered_by_number(tmp_path):
    for step in (8, 9, 10, 11):
        assert save(tmp_path, step, keep=2) == tmp_path / f"checkpoint-{step}"
    assert names(tmp_path) == ["checkpoint-10", "checkpoint-11"]
    assert find_checkpoint("latest", tmp_path) == tmp_path / "checkpoint-11"


def test_a_checkpoint_that_was_not_finished_is_not_one(tmp_path):
    save(tmp_path, 5)

    class DiesWriting(WritesOneFile):
        def save_state(self, folder):
            super().save_state(folder)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(DiesWriting(), tmp_path, 10, 9)
    assert find_checkpoint("latest", tmp_path).name == "checkpoint-5"


def test_an_interrupted_run_says_where_it_stands(tmp_path):
    assert how_to_go_on(tmp_path, "options.yaml") == (
        f"Interrupted before the first checkpoint in '{tmp_path}'; to start anew there, add "
        "`overwrite_output_dir`."
    )
    for step in (9, 10):
        save(tmp_path, step)
    said = how_to_go_on(tmp_path, "options.yaml")
    assert f"newest checkpoint is '{tmp_path / 'checkpoint-10'}'" in said
    assert said.endswith(f"{tmp_path / 'options.yaml'} --resume_from_checkpoint latest")


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


def test_a_folder_with_another_run_is_refused_unless_named_on_purpose(tmp_path):
    check_output_dir(tmp_path / "new", resume=False, overwrite=False)
    check_output_dir(tmp_path, resume=False, overwrite=False)
    (tmp_path / "model.safetensors").write_text("weights")
    with pytest.raises(ValueError, match="is not empty. Name another folder"):
        check_output_dir(tmp_path, resume=False, overwrite=False)
    check_output_dir(tmp_path, resume=True, overwrite=False)
    check_output_dir(tmp_path, resume=False, overwrite=True)
    with pytest.raises(ValueError, match="is a file; name a folder"):
        check_output_dir(tmp_path / "model.safetensors", resume=False, overwrite=True)


def test_overwriting_removes_the_old_run_and_nothing_else(tmp_path):
    save(tmp_path, 5)
    (tmp_path / "checkpoint-6.partial").mkdir()
    (tmp_path / "best").mkdir()
    (tmp_path / "training_log.jsonl").write_text("{}")
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


def test_a_checkpoint_of_a_run_cut_otherwise_is_refused():
    state = Progress({"num_processes": 2, "seed": 1}).state_dict()
    with pytest.raises(ValueError, match="written with num_processes = 2, this run has 1"):
        Progress({"num_processes": 1, "seed": 1}).load_state_dict(state)


def test_only_the_main_process_moves_folders(tmp_path):
    helper = SimpleNamespace(
        is_main_process=False, save_state=lambda folder: None, wait_for_everyone=lambda: None
    )
    save(tmp_path, 1)
    save_checkpoint(helper, tmp_path, 2, keep=1)
    assert names(tmp_path) == ["checkpoint-1"]
