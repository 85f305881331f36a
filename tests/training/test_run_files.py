"""Files of a run: written aside and whole, and a disk that fails is a sentence."""

import os
from types import SimpleNamespace

import pytest
from safetensors import SafetensorError

from hf_maskgit.training import checkpoints, loop, run_files, run_state
from hf_maskgit.training.run_files import (
    FolderGoneError,
    bytes_of_run,
    check_room,
    in_every_process,
    read_json,
    replace_text,
    told_if_it_fails,
    write_json,
)
from scripts import train
from tests.support.tiny_training import SMALL, examples, fresh_model, loop_of, words, write_inputs

pytestmark = pytest.mark.usefixtures("_fresh_accelerate")
FULL = SafetensorError("I/O error: No space left on device (os error 28)")


def failing(error):
    def fails(*arguments, **options):
        raise error

    return fails


def test_every_failure_of_a_disk_is_one_sentence(tmp_path):
    for error in (OSError(28, "No space left on device"), FULL):
        with (
            pytest.raises(RuntimeError, match=r"Cannot write '.*x': .*No space left.* Make room\."),
            told_if_it_fails(tmp_path / "x", "Make room."),
        ):
            raise error


def test_a_text_is_replaced_at_once(tmp_path, monkeypatch):
    path = tmp_path / "log"
    replace_text(path, "one")
    monkeypatch.setattr(run_files, "sync", failing(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        replace_text(path, "two")
    assert path.read_text() == "one"


def test_json_is_read_back_to_the_last_bit_or_refused(tmp_path):
    path = tmp_path / "a.json"
    value = {"a": 0.1 + 0.2, "b": [1e-308, 2**70], "c": None}
    write_json(path, value)
    assert read_json(path) == value
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    for content, said in (
        (b"", "its file 'a.json' cannot be read"),
        (b"\xff", "cannot be read"),
        (b"3", "holds int, not an object"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=said):
            read_json(path)
    with pytest.raises(ValueError, match="'none.json' cannot be read"):
        read_json(tmp_path / "none.json")


@pytest.mark.wide
def test_a_disk_that_will_be_full_is_refused_before_the_run(tmp_path, monkeypatch):
    model = fresh_model()
    weights = sum(p.numel() for p in model.parameters())
    needed = bytes_of_run(model, 3, 2, remembered=2 * weights)
    assert needed == 4 * (3 * 3 * weights + 2 * weights)
    expected = 4 * (3 * (2 * weights + 7) + 2 * weights)
    assert bytes_of_run(model, 3, 2, remembered=7, averages=True) == expected
    monkeypatch.setattr(run_files.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    check_room(tmp_path, 10**6)
    with pytest.raises(ValueError, match=r"need about 2,000.0 MB in .*and 1.0 MB are free there"):
        check_room(tmp_path, 2 * 10**9)
    inputs = write_inputs(tmp_path, num_texts=40)
    monkeypatch.setattr(loop, "take_update", failing(AssertionError("work was done")))
    monkeypatch.setattr(run_files.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(ValueError, match="lower `keep_checkpoints`"):
        train.main([*inputs, *words({**SMALL, "output_dir": tmp_path / "run"})])


@pytest.mark.parametrize(
    ("module", "name"),
    [(run_state, "save_file"), (checkpoints, "write_json"), (checkpoints, "write_manifest")],
)
def test_a_disk_that_is_full_costs_no_whole_checkpoint(tmp_path, monkeypatch, module, name):
    run = loop_of(tmp_path / "run", checkpoint_every=2)
    take_update = loop.take_update

    def fills_up(*arguments):
        if run.progress.step == 2:
            monkeypatch.setattr(module, name, failing(FULL))
        return take_update(*arguments)

    monkeypatch.setattr(loop, "take_update", fills_up)
    with pytest.raises(RuntimeError, match=r"checkpoint-4': .*No space left.* are as they were"):
        run.run()
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-2"]
    assert checkpoints.fault_of(tmp_path / "run" / "checkpoint-2") is None


def test_a_model_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    run = loop_of(tmp_path / "run", max_steps=1)
    run.save_model(tmp_path / "run")
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    monkeypatch.setattr(run.tokenizer, "save_pretrained", failing(OSError(28, "No space left")))
    with pytest.raises(RuntimeError, match=r"Cannot write '.*run': No space left. Make room, and"):
        run.save_model(tmp_path / "run")
    # Nor is there half a new one, which would take the room that is missing.
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()} == before


@pytest.mark.wide
def test_a_folder_that_is_removed_gets_a_checkpoint_before_the_run_ends(tmp_path, monkeypatch):
    run = loop_of(tmp_path / "run", checkpoint_every=2)
    take_update = loop.take_update

    def removes(*arguments):
        if run.progress.step == 3:
            os.rename(tmp_path / "run", tmp_path / "away")
        return take_update(*arguments)

    monkeypatch.setattr(loop, "take_update", removes)
    with pytest.raises(FolderGoneError, match=r"was removed .* saved there anew, in checkpoint-4,"):
        run.run()
    assert checkpoints.fault_of(tmp_path / "run" / "checkpoint-4") is None


def test_a_log_that_cannot_be_written_is_a_sentence(tmp_path):
    run = loop_of(tmp_path / "run", eval_examples=examples(8, 1))
    (tmp_path / "run" / "training_log.jsonl").mkdir()
    with pytest.raises(RuntimeError, match=r"training_log.jsonl': Is a directory. Make room, or"):
        run.run()


def test_where_one_process_fails_all_of_them_say_why(monkeypatch):
    two = SimpleNamespace(num_processes=2)
    monkeypatch.setattr(run_files, "gather_object", lambda mine: [*mine, (ValueError, "theirs")])
    with pytest.raises(ValueError, match="theirs"):
        in_every_process(two, lambda: 1)
    with pytest.raises(OSError, match="mine"):
        in_every_process(two, failing(OSError("mine")))
    monkeypatch.setattr(run_files, "gather_object", lambda mine: [*mine, None])
    assert in_every_process(two, lambda: 1) == 1
