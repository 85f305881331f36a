"""Watching: an evaluation changes nothing beside it, and the best model is kept."""

import math

import pytest
import torch

import hf_maskgit.training.loop as training
from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.evaluation import CriticAuroc
from hf_maskgit.training.arguments import TrainArguments
from hf_maskgit.training.building import make_accelerator
from hf_maskgit.training.watching import evaluate_bound
from tests.support.tiny import word_tokenizer
from tests.support.tiny_training import SMALL, examples, fresh_model, log_lines, loop_of

pytestmark = pytest.mark.usefixtures("_fresh_accelerate")


def test_an_evaluation_leaves_torchs_global_generator_as_it_was(tmp_path):
    arguments = TrainArguments(output_dir=str(tmp_path), **SMALL)
    accelerator = make_accelerator(arguments)
    model = accelerator.prepare(fresh_model()).train()
    before = torch.get_rng_state()
    options = {"batch_size": 4, "num_samples": 4, "seed": 0}
    first = evaluate_bound(accelerator, model, word_tokenizer(), examples(8), **options)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    again = evaluate_bound(accelerator, model, word_tokenizer(), examples(8), **options)
    assert torch.equal(first.nats, again.nats)
    # an untrained model knows nothing: about ln 37 nats per token (35 words, end and unknown)
    assert first.nats_per_token == pytest.approx(math.log(37), rel=0.1)


def test_an_evaluation_measures_the_critic_too_and_changes_nothing(tmp_path):
    held_out = examples(24, 1)
    runs = {}
    for name, options in (("quiet", {}), ("busy", {"eval_every": 2, "eval_examples": held_out})):
        loop = loop_of(tmp_path / name, {"token_critic": "self", "self_cond": True}, **options)
        loop.run()
        runs[name] = loop.model.state_dict()
    assert all(torch.equal(weight, runs["busy"][n]) for n, weight in runs["quiet"].items())
    found = [line for line in log_lines(tmp_path / "busy") if "eval_nats_per_token" in line]
    assert [line["step"] for line in found] == [2, 4, 6]
    assert all(0 <= line["eval_critic_auroc"] <= 1 for line in found)


def test_where_the_critic_alone_learns_the_best_is_the_best_critic(tmp_path, monkeypatch):
    aurocs, weights = iter([0.5, 0.9, 0.7]), []

    def evaluate_critic(accelerator, model, *_, **__):
        weights.append(model.critic_head.weight.detach().clone())
        return CriticAuroc(next(aurocs) * 10, 10, 20, 10)

    monkeypatch.setattr(training, "evaluate_critic", evaluate_critic)
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
