"""Evaluations in between: the best model is kept, by what learns."""

import pytest
import torch

from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.evaluation import CriticAuroc, NelboOutput
from hf_maskgit.training import evaluations
from tests.support.tiny_training import assert_same_weights, examples, loop_of

pytestmark = pytest.mark.usefixtures("_fresh_accelerate")


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
