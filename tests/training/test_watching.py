"""Watching: an evaluation changes nothing beside it, and the best model is kept."""

import math
from types import SimpleNamespace

import pytest
import torch

import hf_maskgit.training.loop as training
from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.evaluation import CriticAuroc
from hf_maskgit.training import watching
from hf_maskgit.training.arguments import TrainArguments
from hf_maskgit.training.building import make_accelerator
from hf_maskgit.training.updates import Update
from hf_maskgit.training.watching import Window, evaluate_bound
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


@pytest.mark.parametrize("num_texts", [7, 2])
def test_each_text_is_measured_by_one_process(monkeypatch, num_texts):
    """Process 1 of 3 takes texts 1, 4, 7, ...; with fewer texts than processes some take none."""
    texts = examples(num_texts)
    lengths = [len(row) - 2 for row in texts["input_ids"]]  # the frame is not predicted
    gathered = []

    def gather(parts):
        gathered.extend(parts)
        return gathered

    monkeypatch.setattr(watching, "gather_object", gather)
    for rank in range(3):
        before = len(gathered)
        process = SimpleNamespace(
            process_index=rank,
            num_processes=3,
            is_main_process=rank == 0,
            unwrap_model=lambda model: model,
        )
        options = {"batch_size": 2, "num_samples": 4, "seed": 0}
        whole = evaluate_bound(process, fresh_model().eval(), word_tokenizer(), texts, **options)
        own = [int(n) for part in gathered[before:] for n in part.num_tokens]
        assert own == lengths[rank::3]
    assert sorted(whole.num_tokens.tolist()) == sorted(lengths)


def test_a_logged_loss_is_that_of_all_processes(tmp_path, monkeypatch):
    """Each process holds its part of every update's loss; divided are the updates alone."""
    ours, others = 3.0, 5.0

    def reduce(total, how):
        return {"sum": total + others, "mean": (total + others) / 2}[how]

    window = Window()
    for _ in range(4):
        window.add(Update(torch.tensor(ours / 4), torch.tensor(10)), seconds=0.5)
    loop, logged = loop_of(tmp_path / "run"), []
    monkeypatch.setattr(loop, "_log", logged.append)
    monkeypatch.setattr(loop.accelerator, "reduce", reduce)
    loop._log_training(window)
    assert logged[0]["loss"] == pytest.approx((ours + others) / 4)
    assert logged[0]["tokens_per_second"] == pytest.approx(40 / 2)


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
