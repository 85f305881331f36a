"""Runs of a comparison: the same blocks for all, and no trace of an interruption."""

from types import SimpleNamespace

import pytest
import torch

from hf_maskgit.training.baseline_runs import BaselineRun, Plan, Progress, batch_of
from hf_maskgit.training.text_baselines import Causal, Measure, Ours, Shape, tokenizer_of

PLAN = Plan(max_steps=6, eval_every=2, batch_size=2, learning_rate=0.01, warmup_steps=3, seed=1)
TOKENIZER = tokenizer_of(["so it was"], 259)
SHAPE, MEASURE = Shape(6, 8, 1, 1), Measure(4, 4, 0)
CPU = torch.device("cpu")
BLOCKS = torch.arange(3, 3 + 42).view(7, 6)
HELD_OUT = BLOCKS.flip(1)[:3]


def run(kind, folder, **changes):
    plan = Plan(**{**vars(PLAN), **changes})
    made = BaselineRun(lambda: kind(SHAPE, TOKENIZER), plan, folder, CPU)
    made.learn(BLOCKS, HELD_OUT, MEASURE)
    return made


@pytest.mark.wide
@pytest.mark.parametrize("kind", [Ours, Causal])
def test_a_run_that_goes_on_is_the_run_that_was_never_left(kind, tmp_path):
    whole = run(kind, tmp_path / "whole")
    run(kind, tmp_path / "parts", max_steps=3)
    parts = run(kind, tmp_path / "parts")
    for one, other in zip(
        whole.learner.network.parameters(), parts.learner.network.parameters(), strict=True
    ):
        assert torch.equal(one, other)
    points = [
        [(p["updates"], p["nats_per_token"]) for p in r.progress.curve] for r in (whole, parts)
    ]
    assert points[0] == [p for p in points[1] if p[0] != 3]
    assert [p[0] for p in points[1]] == [2, 3, 4, 6]
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) == 1
    before = parts.progress
    assert run(kind, tmp_path / "parts").progress == before  # nothing is left to do


@pytest.mark.wide
def test_a_run_learns(tmp_path):
    made = run(Causal, tmp_path, max_steps=60, eval_every=30)
    nats = made.nats(BLOCKS, MEASURE).nats_per_token
    assert nats < 4  # of log 259 = 5.6; these blocks are what it learned
    assert made.progress.seconds > 0
    assert made.progress.updates == 60


def test_every_pass_shows_each_block_once_and_in_another_order():
    turns = [torch.cat([batch_of(6, 3 * turn + i, PLAN) for i in range(3)]) for turn in range(2)]
    assert [sorted(turn.tolist()) for turn in turns] == [list(range(6))] * 2
    assert turns[0].tolist() != turns[1].tolist()
    assert len({*torch.cat([batch_of(7, i, PLAN) for i in range(3)]).tolist()}) == 6


def test_a_loss_that_is_no_number_ends_the_run_with_the_weights_before(tmp_path):
    class Diverging(Causal):
        def loss(self, blocks):
            self.calls = getattr(self, "calls", 0) + 1
            return super().loss(blocks) * (float("nan") if self.calls == 3 else 1)

    made = run(Diverging, tmp_path)
    assert (made.progress.updates, made.progress.diverged_at) == (2, 3)
    assert [point["updates"] for point in made.progress.curve] == [2]
    assert all(torch.isfinite(p).all() for p in made.learner.network.parameters())
    again = run(Causal, tmp_path)
    assert again.progress == made.progress


def test_what_was_measured_within_a_time_is_the_last_of_it():
    curve = [{"seconds": s, "nats_per_token": n} for s, n in ((1.0, 5.0), (2.0, 4.0), (3.0, 3.0))]
    progress = Progress(curve=curve)
    assert [progress.nats_within(s) for s in (0.5, 1.0, 2.9, 9)] == [None, 5.0, 4.0, 3.0]


def test_time_beside_a_cpu_is_that_of_the_clock(monkeypatch, tmp_path):
    made = run(Causal, tmp_path, max_steps=1)
    asked = []
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: asked.append(1))
    made.device = SimpleNamespace(type="cuda")
    assert made._clock() < made._clock()
    assert asked == [1, 1]
