"""What a run came to: figures that agree with its log, also after it was resumed."""

import json
import subprocess
import sys

import pytest

import hf_maskgit
from hf_maskgit.training.metrics import totals, write_metrics
from hf_maskgit.training.run_log import append_line, read_lines
from hf_maskgit.training.versions import commit_of, installed_versions
from tests.support.tiny_training import examples, log_lines, loop_of

pytestmark = pytest.mark.usefixtures("_fresh_accelerate")


@pytest.mark.wide
def test_the_file_says_what_the_run_came_to(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["scripts/train.py", "--encoder", "my encoder"])
    loop = loop_of(tmp_path / "run", eval_examples=examples(8, 1), eval_every=2, log_every=4)
    loop.run()
    found = write_metrics(loop, tmp_path / "run")
    assert found == json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (found["updates"], found["examples"], found["epochs"]) == (6, 48, 6 / 8)
    # Every example of the 6 updates: all its tokens but the framing.
    seen = loop.batches.order.updates_of(0)[:6].flatten().tolist()
    lengths = [len(ids) - 2 for ids in examples()["input_ids"]]
    assert found["tokens"] == sum(lengths[row] for row in seen)
    assert found["tokens_per_second"] == pytest.approx(found["tokens"] / found["seconds"])
    bounds = {x["step"]: x for x in log_lines(tmp_path / "run") if "eval_std_error" in x}
    assert found["last"] == bounds[6]
    assert found["best"]["eval_nats_per_token"] == loop.progress.best_nats
    assert found["parameters"] == found["trained_parameters"] == loop.model.num_parameters()
    assert found["command"] == "scripts/train.py --encoder 'my encoder'"
    assert found["versions"]["hf_maskgit"] == hf_maskgit.__version__
    assert {"torch", "accelerate", "Python"} < found["versions"].keys()


def test_what_is_frozen_is_not_counted_as_trained(tmp_path):
    loop = loop_of(tmp_path / "run", {"token_critic": "self"}, max_steps=1, train="critic")
    loop.run()
    found = write_metrics(loop, tmp_path / "run")
    assert found["trained_parameters"] == sum(
        p.numel() for p in loop.model.critic_head.parameters()
    )
    assert found["last"] is None


@pytest.mark.wide
def test_a_resumed_run_counts_every_token_once(tmp_path):
    """Killed between two lines of the log, the tokens of the broken window are still counted."""
    whole = loop_of(tmp_path / "run", log_every=4, checkpoint_every=3)
    whole.run()
    before = totals(list(read_lines(tmp_path / "run" / "training_log.jsonl")))
    whole.resume(tmp_path / "run" / "checkpoint-3")
    whole.run()
    after = totals(list(read_lines(tmp_path / "run" / "training_log.jsonl")))
    assert after["tokens"] == before["tokens"]
    assert after["loss"] == before["loss"]


def test_a_log_that_tells_nothing(tmp_path):
    append_line(tmp_path / "log.jsonl", 1, {"other": 1.0})
    nothing = {"tokens": 0, "seconds": 0, "tokens_per_second": None, "loss": None}
    found = totals(list(read_lines(tmp_path / "log.jsonl")))
    assert found == {**nothing, "last": None, "best": None}


def test_the_commit_of_a_checkout(tmp_path, monkeypatch):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit_of(tmp_path) is None
    (tmp_path / "file").write_text("one")
    for words in (["init", "-q"], ["add", "file"], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *words], check=True)
    commit = commit_of(tmp_path)
    assert len(commit) == 40
    (tmp_path / "file").write_text("two")
    assert commit_of(tmp_path) == f"{commit} with changes"
    (tmp_path / "folder").mkdir()
    assert commit_of(tmp_path / "folder") == f"{commit} with changes"
    assert commit_of(tmp_path / "folder", within=True) == commit
    assert commit_of(tmp_path, within=True) == f"{commit} with changes"
    monkeypatch.setenv("PATH", "")
    assert commit_of(tmp_path) is None


def test_versions_are_those_of_what_is_named():
    found = installed_versions(["numpy"])
    assert list(found) == ["hf_maskgit", "numpy", "Python"]
