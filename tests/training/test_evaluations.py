"""Evaluations in between: the best model is kept, by what learns."""

import pytest
import torch

from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.evaluation import CriticAuroc, NelboOutput
from hf_maskgit.training import evaluations
from hf_maskgit.training.arguments import TrainArguments
from tests.support.tiny_training import assert_same_weights, examples, loop_of

pytestmark = pytest.mark.usefixtures("_fresh_accelerate")


@pytest.mark.wide
def test_the_best_model_is_kept(tmp_path, monkeypatch):
    bounds = {2: 3.0, 4: 1.0, 6: 2.0}
    weights = {}

    def evaluate(accelerator, model, *_, **__):
        step = len(weights) * 2 + 2
        weights[step] = {k: v.clone() for k, v in model.state_dict().items()}
        ones = torch.ones(1, dtype=torch.float64)
        return NelboOutput(ones * bounds[step], ones, torch.ones(1, dtype=torch.long))

    monkeypatch.setattr(evaluations, "evaluate_bound", evaluate)
    loop = loop_of(tmp_path / "run", eval_examples=examples(8), eval_every=2)
    loop.run()
    assert loop.progress.best_nats == 1.0
    best = MaskGitForMaskedLM.from_pretrained(tmp_path / "run" / "best").state_dict()
    assert_same_weights(best, weights[4])
    assert any(not torch.equal(best[name], weights[6][name]) for name in best)


@pytest.mark.wide
def test_where_the_critic_alone_learns_the_best_is_the_best_critic(tmp_path, monkeypatch):
    aurocs, weights = iter([0.5, 0.9, 0.7]), []

    def evaluate_critic(accelerator, model, *_, **__):
        weights.append(model.critic_head.weight.detach().clone())
        return CriticAuroc(next(aurocs) * 10, 10, 20, 10)

    monkeypatch.setattr(evaluations, "evaluate_critic", evaluate_critic)
    loop = loop_of(
        tmp_path / "run",
        {"token_critic": "self"},
        eval_examples=examples(8, 1),
        eval_every=2,
        train="critic",
    )
    loop.run()
    assert loop.progress.best_auroc == 0.9
    best = MaskGitForMaskedLM.from_pretrained(tmp_path / "run" / "best").critic_head.weight
    assert torch.equal(best, weights[1])
    assert not torch.equal(best, weights[2])


def bounds_of(monkeypatch, *values):
    """Let evaluations find these bounds, one after the other, and remember the weights measured."""
    left, measured = list(values), []

    def evaluate(accelerator, model, *_, **__):
        measured.append({k: v.detach().clone() for k, v in model.state_dict().items()})
        ones = torch.ones(1, dtype=torch.float64)
        return NelboOutput(ones * left.pop(0), ones, torch.ones(1, dtype=torch.long))

    monkeypatch.setattr(evaluations, "evaluate_bound", evaluate)
    return measured


RUN = {"eval_every": 1, "checkpoint_every": 2, "log_every": 4}


@pytest.mark.wide
def test_a_run_ends_when_its_patience_does(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", logger="hf_maskgit")
    bounds_of(monkeypatch, 3.0, 2.0, 2.5, 2.0, 9.0)
    loop = loop_of(tmp_path / "run", eval_examples=examples(8), patience=2, **RUN)
    progress = loop.run()
    assert (progress.step, progress.since_best, progress.best_nats) == (4, 2, 2.0)
    assert "ends after update 4 of 6: 2 evaluations in a row were no better" in caplog.text
    assert sorted(path.name for path in (tmp_path / "run").glob("checkpoint-*")) == [
        "checkpoint-2",
        "checkpoint-4",
    ]


@pytest.mark.wide
def test_a_better_evaluation_renews_patience(tmp_path, monkeypatch):
    bounds_of(monkeypatch, 3.0, 4.0, 2.0, 2.5, 1.0, 1.5)
    loop = loop_of(tmp_path / "run", eval_examples=examples(8), patience=2, **RUN)
    assert loop.run().step == 6


@pytest.mark.wide
def test_patience_goes_on_where_it_was(tmp_path, monkeypatch):
    """A run that is resumed ends where it would have, and once it has ended it stays so."""
    found = (1.0, 2.0, 2.0, 2.0, 2.0, 2.0)
    options = {**RUN, "eval_examples": examples(8), "patience": 3}
    bounds_of(monkeypatch, *found)
    whole = loop_of(tmp_path / "run", **options)
    assert whole.run().step == 4
    bounds_of(monkeypatch, *found[2:])
    again = loop_of(tmp_path / "again", **options)
    again.resume(tmp_path / "run" / "checkpoint-2")
    assert again.run().step == 4
    assert_same_weights(again.model.state_dict(), whole.model.state_dict())
    bounds_of(monkeypatch, 2.0)
    ended = loop_of(tmp_path / "ended", **options)
    ended.resume(tmp_path / "run" / "checkpoint-4")
    assert ended.run().step == 4
    assert ended.bound.nats_per_token == 2.0
    assert_same_weights(ended.model.state_dict(), whole.model.state_dict())


@pytest.mark.wide
@pytest.mark.parametrize("more", [{}, {"ema_decay": 0.5}, {"lora_r": 2}], ids=str)
def test_the_best_model_is_the_last_one_where_that_is_asked(tmp_path, monkeypatch, more):
    options = {**RUN, "eval_examples": examples(8), "load_best_model_at_end": True, **more}
    measured = bounds_of(monkeypatch, 3.0, 1.0, 2.0, 2.0, 2.0, 2.0, 1.0)
    loop = loop_of(tmp_path / "run", **options)
    loop.run()
    assert len(measured) == 7  # the best one once more, for the card
    assert_same_weights(measured[6], measured[1])
    assert any(not torch.equal(measured[5][name], measured[1][name]) for name in measured[1])
    assert loop.bound.nats_per_token == 1.0
    loop.save_model(tmp_path / "model")
    saved, best = (
        MaskGitForMaskedLM.from_pretrained(folder).state_dict()
        for folder in (tmp_path / "model", tmp_path / "run" / "best")
    )
    assert_same_weights(saved, best)
    adapter = "adapter/adapter_model.safetensors"
    files = [folder / adapter for folder in (tmp_path / "model", tmp_path / "run" / "best")]
    if "lora_r" in more:
        assert files[0].read_bytes() == files[1].read_bytes()


def test_a_best_model_that_is_gone_is_an_error_with_a_way_out(tmp_path, monkeypatch):
    bounds_of(monkeypatch, 1.0, 2.0, 2.0)
    options = {**RUN, "eval_examples": examples(8), "max_steps": 2}
    loop = loop_of(tmp_path / "run", **options, load_best_model_at_end=True)
    monkeypatch.setattr(loop, "save_model", lambda folder: None)
    with pytest.raises(RuntimeError, match="best model cannot be read from .*Go on from the last"):
        loop.run()


@pytest.mark.parametrize("option", [{"patience": 2}, {"load_best_model_at_end": True}])
def test_what_goes_by_held_out_texts_needs_some(tmp_path, option):
    (name,) = option
    with pytest.raises(ValueError, match=f"`{name}` goes by the held-out texts, and there a"):
        loop_of(tmp_path / "run", **option)


def test_patience_is_at_least_one():
    with pytest.raises(ValueError, match="`patience` must be at least 1, got 0"):
        TrainArguments(output_dir="run", patience=0)
