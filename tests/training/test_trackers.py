"""Trackers: options, numbers and texts reach them, without any account, also when a run goes on."""

import json
import os

import pytest

from hf_maskgit.training.run_log import SAMPLES_NAME, read_lines
from hf_maskgit.training.trackers import ID_NAME, plain_values
from scripts.train import main
from tests.support.tiny_training import (
    SMALL,
    at_call,
    begin_another_second,
    log_of,
    words,
    write_inputs,
)

pytestmark = pytest.mark.usefixtures("_fresh_accelerate")
SAMPLED = {**SMALL, "eval_texts": 2, "eval_every": 3, "checkpoint_every": 3}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Train with some tracker, in a folder of its own, with nobody's account."""
    monkeypatch.chdir(tmp_path)
    for name in [n for n in os.environ if n.startswith(("WANDB_", "TRACKIO_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    inputs = [*write_inputs(tmp_path, num_texts=20), "--language", "en", "de"]

    def train(tracker, *more):
        options = words({**SAMPLED, "output_dir": tmp_path / "run", "log_with": tracker})
        main([*inputs, *options, *more])
        return tmp_path / "run"

    return train


@pytest.mark.wide
def test_tensorboard_gets_numbers_texts_and_options(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = run("tensorboard")
    events = EventAccumulator(str(folder / "hf_maskgit")).Reload()
    assert {e.step: e.value for e in events.Scalars("loss")} == pytest.approx(log_of(folder))
    texts = events.Tensors("samples/text_summary")
    assert [event.step for event in texts] == [3, 6]
    written = [line for line in read_lines(folder / SAMPLES_NAME) if line["step"] == 6]
    shown = texts[1].tensor_proto.string_val[0].decode()
    assert all(f"{line['nats_per_token']}\t{line['text']!r}" in shown for line in written)
    assert len(written) == 2
    (stored,) = (folder / "hf_maskgit").glob("*/hparams.yml")
    assert 'language: \'["en", "de"]\'' in stored.read_text()


@pytest.mark.slow
def test_weights_and_biases_gets_them_offline(run, tmp_path):
    wandb = pytest.importorskip("wandb")
    folder = run("wandb", "--max_steps=3")
    (log,) = (folder / "wandb").glob("offline-run-*/run-*.wandb")
    assert log.stem.removeprefix("run-") == (folder / ID_NAME).read_text().strip()
    assert wandb.run is None, "it was finished"
    tables = list((folder / "wandb").rglob("*.table.json"))
    written = [[x["prompt"], x["text"], x["seed"], x["nats_per_token"]] for x in texts_of(folder)]
    assert [json.loads(path.read_text())["data"] for path in tables] == [written]


@pytest.mark.slow
def test_trackio_gets_them_in_a_folder(run, tmp_path):
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    folder = run("trackio", "--max_steps=3")
    name = f"run-{(folder / ID_NAME).read_text().strip()}"
    logs = SQLiteStorage.get_logs("hf_maskgit", name)
    assert {x["step"]: x["loss"] for x in logs if "loss" in x} == pytest.approx(log_of(folder))
    (shown,) = [line["samples"] for line in logs if "samples" in line]
    assert [row["text"] for row in shown["_value"]] == [line["text"] for line in texts_of(folder)]


def texts_of(folder):
    return list(read_lines(folder / SAMPLES_NAME))


@pytest.mark.slow
def test_all_that_are_installed_are_told(run):
    folder = run("all", "--max_steps=1")
    assert list((folder / "hf_maskgit").glob("events.*"))


@pytest.mark.wide
def test_a_run_that_goes_on_is_the_same_run_to_its_trackers(run, monkeypatch):
    with monkeypatch.context() as patched:
        at_call(patched, 5)
        with pytest.raises(KeyboardInterrupt):
            run("tensorboard")
    begin_another_second()
    folder = run("tensorboard", "--resume_from_checkpoint=latest")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "hf_maskgit")).Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4, 5, 6]
    assert [event.step for event in events.Tensors("samples/text_summary")] == [3, 6]
    assert len((folder / ID_NAME).read_text().split()) == 1


def test_a_tracker_that_cannot_begin_is_told_in_a_sentence(run, monkeypatch):
    def refuses(*_, **__):
        raise OSError("no api key\nconfigured")

    monkeypatch.setattr("accelerate.Accelerator.init_trackers", refuses)
    with pytest.raises(RuntimeError, match="cannot be started: no api key configured What needs"):
        run("tensorboard")


def test_options_that_are_lists_are_told_as_json():
    options = {"a": 1, "b": 0.5, "c": "w", "d": True, "e": ["x", 2], "f": {"g": None}}
    as_json = {"e": '["x", 2]', "f": '{"g": null}'}
    assert plain_values(options) == {**options, **as_json}
