"""Watching: an evaluation changes nothing beside it, and the best model is kept."""

import math
from types import SimpleNamespace

import pytest
import torch

from hf_maskgit.training import watching
from hf_maskgit.training.arguments import TrainArguments
from hf_maskgit.training.building import make_accelerator
from hf_maskgit.training.updates import Update
from hf_maskgit.training.watching import Window, evaluate_bound, evaluate_critic
from tests.support.tiny import tiny_model, word_tokenizer
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


def measured_by(num_processes, monkeypatch, evaluate, model, **options):
    """The parts that processes find one after the other, and what the last one joins."""
    gathered = []

    def gather(parts):
        gathered.extend(parts)
        return gathered

    monkeypatch.setattr(watching, "gather_object", gather)
    for rank in range(num_processes):
        process = SimpleNamespace(
            process_index=rank,
            num_processes=num_processes,
            is_main_process=rank == 0,
            unwrap_model=lambda model: model,
        )
        whole = evaluate(process, model, word_tokenizer(), **options, batch_size=2, seed=0)
    return gathered, whole


@pytest.mark.grid(2)
@pytest.mark.parametrize(("num_texts", "num_processes"), [(9, 2), (9, 4), (3, 2), (2, 3)])
@pytest.mark.parametrize("self_cond", [False, True])
def test_the_bound_does_not_depend_on_the_number_of_processes(
    monkeypatch, num_texts, num_processes, self_cond
):
    """Each text is measured by one process, in the batch and with the masks of a single one."""
    model = tiny_model(self_cond=self_cond)
    options = {"examples": examples(num_texts), "num_samples": 4}
    _, alone = measured_by(1, monkeypatch, evaluate_bound, model, **options)
    parts, whole = measured_by(num_processes, monkeypatch, evaluate_bound, model, **options)
    batches = -(-num_texts // 2)
    assert len(parts) == min(num_processes, batches)  # with fewer batches some have none
    assert sorted(part.nats.numel() for part in parts)[-1] <= 2 * -(-batches // num_processes)
    rows = [
        sorted(zip(*(t.tolist() for t in (one.nats, one.std_error, one.num_tokens)), strict=True))
        for one in (alone, whole)
    ]
    assert rows[0] == rows[1]
    assert len(rows[0]) == num_texts
    assert whole.nats_per_token == pytest.approx(alone.nats_per_token, rel=1e-12)


@pytest.mark.parametrize("num_processes", [2, 4])
def test_the_critics_measure_does_not_depend_on_the_number_of_processes(monkeypatch, num_processes):
    model = tiny_model(token_critic="self", self_cond=True)
    options = {"examples": examples(9)}
    _, alone = measured_by(1, monkeypatch, evaluate_critic, model, **options)
    parts, whole = measured_by(num_processes, monkeypatch, evaluate_critic, model, **options)
    assert whole == alone
    assert len(parts) == num_processes
    assert all(part.num_tokens for part in parts)


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


@pytest.mark.wide
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
