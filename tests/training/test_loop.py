"""Training: it learns, it takes the updates it should, and nothing beside them changes them."""

from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed

import hf_maskgit.training.loop as training
from hf_maskgit.evaluation import masked_accuracy
from hf_maskgit.training.arguments import TrainArguments
from hf_maskgit.training.building import make_accelerator
from hf_maskgit.training.finiteness import NotFiniteError
from hf_maskgit.training.loop import TrainingLoop
from hf_maskgit.training.updates import Update
from scripts.train import main
from tests.support.tiny import word_tokenizer
from tests.support.tiny_training import (
    SMALL,
    assert_same_weights,
    at_call,
    begin_another_second,
    examples,
    fresh_model,
    log_lines,
    log_of,
    loop_of,
    words,
    write_inputs,
)

pytestmark = pytest.mark.usefixtures("_fresh_accelerate")


def train(folder, model=None, eval_examples=None, num_workers=0, train_examples=None, **options):
    """Train in this process; returns the loop."""
    Path(folder).mkdir(exist_ok=True)
    set_seed(0)
    arguments = TrainArguments(output_dir=str(folder), **{**SMALL, **options})
    loop = TrainingLoop(
        make_accelerator(arguments),
        fresh_model() if model is None else model,
        word_tokenizer(),
        examples() if train_examples is None else train_examples,
        eval_examples,
        arguments,
        num_workers,
    )
    loop.run()
    return loop


@pytest.mark.wide
def test_a_repeated_symbol_is_learned_with_the_likelihood_weight(tmp_path):
    loop = train(
        tmp_path,
        fresh_model(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0),
        train_examples=examples(256),
        max_steps=120,
        per_device_batch_size=32,
        gradient_accumulation_steps=1,
        log_every=30,
    )
    assert loop.model.config.use_simple_mdlm_loss_weight
    held_out = examples(64, seed=1)
    accuracy = masked_accuracy(
        loop.model, held_out, word_tokenizer(), mask_rates=(0.5,), progress=False
    )
    assert accuracy[0.5] > 0.99
    losses = log_of(tmp_path)
    assert losses[120] < losses[30] / 2


@pytest.mark.wide
def test_what_goes_on_beside_the_updates_does_not_change_them(tmp_path):
    plain = train(tmp_path / "plain")
    busy = train(
        tmp_path / "busy",
        eval_examples=examples(8, seed=1),
        num_workers=2,
        eval_every=2,
        checkpoint_every=1,
    )
    assert log_of(tmp_path / "plain") == log_of(tmp_path / "busy")
    assert_same_weights(plain.model.state_dict(), busy.model.state_dict())
    assert sorted(log_of(tmp_path / "busy", "eval_nats_per_token")) == [2, 4, 6]


@pytest.mark.wide
def test_micro_batches_of_a_run_change_nothing_but_rounding(tmp_path):
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    runs = {}
    for size, accumulation in ((8, 1), (2, 4)):
        set_seed(0)
        loop = train(
            tmp_path / str(size),
            fresh_model(**still),
            per_device_batch_size=size,
            gradient_accumulation_steps=accumulation,
        )
        runs[size] = loop.model.state_dict()
    assert log_of(tmp_path / "8") == pytest.approx(log_of(tmp_path / "2"), abs=1e-5)
    for name, weight in runs[8].items():
        torch.testing.assert_close(weight, runs[2][name], atol=1e-4, rtol=1e-3)


def recorded_updates(monkeypatch, *arguments, **options):
    """Train without learning: for each update the (text, masked positions) of its examples."""
    updates = []

    def record(accelerator, model, optimizer, batch, *_):
        rows = zip(batch["labels"], batch["masked_positions"], strict=True)
        updates.append(
            [(ids[ids >= 0].tolist(), chosen[ids >= 0].tolist()) for ids, chosen in rows]
        )
        return Update(torch.zeros(()), torch.ones(()))

    monkeypatch.setattr(training, "take_update", record)
    train(*arguments, **options)
    return updates


def test_an_epoch_shows_each_example_once_and_the_next_one_in_another_order(tmp_path, monkeypatch):
    updates = recorded_updates(monkeypatch, tmp_path, max_steps=16)
    texts = [text for update in updates for text, _ in update]
    assert sorted(texts[:64]) == sorted(ids[1:-1] for ids in examples()["input_ids"][:])
    assert sorted(texts[64:]) == sorted(texts[:64])
    assert texts[64:] != texts[:64]


def test_the_seed_of_the_run_orders_its_examples(tmp_path, monkeypatch):
    updates = recorded_updates(monkeypatch, tmp_path, max_steps=16, seed=5)
    texts = [text for update in updates for text, _ in update]
    bodies = [ids[1:-1] for ids in examples()["input_ids"][:]]
    for epoch in (0, 1):
        order = torch.randperm(64, generator=torch.Generator().manual_seed(5 + epoch)).tolist()
        assert texts[64 * epoch : 64 * epoch + 64] == [bodies[i] for i in order]


@pytest.mark.wide
def test_examples_that_do_not_fill_an_update_are_left_out_of_an_epoch(tmp_path, monkeypatch):
    updates = recorded_updates(monkeypatch, tmp_path, train_examples=examples(70), max_steps=16)
    assert [len(update) for update in updates] == [8] * 16


@pytest.mark.wide
@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_example_is_masked_anew_in_every_epoch(tmp_path, monkeypatch, num_workers):
    # one example per update, so that no neighbour has a say in its masks
    updates = recorded_updates(
        monkeypatch,
        tmp_path,
        train_examples=examples(32),
        num_workers=num_workers,
        max_steps=64,
        per_device_batch_size=1,
        gradient_accumulation_steps=1,
    )
    assert sorted(updates[32:]) != sorted(updates[:32])


@pytest.mark.wide
def test_bf16_runs_the_forward_pass_in_half_and_keeps_weights_whole(tmp_path):
    train(tmp_path / "full")
    AcceleratorState._reset_state(reset_partial_state=True)  # it holds one number format
    loop = train(tmp_path / "half", mixed_precision="bf16")
    assert {p.dtype for p in loop.model.parameters()} == {torch.float32}
    full, half = log_of(tmp_path / "full"), log_of(tmp_path / "half")
    assert full != half
    assert half == pytest.approx(full, rel=0.05)


@pytest.mark.wide
def test_gradient_checkpointing_changes_nothing(tmp_path):
    plain = train(tmp_path / "plain")
    saving = train(tmp_path / "saving", gradient_checkpointing=True)
    assert saving.model.is_activation_checkpointing
    for name, weight in plain.model.state_dict().items():
        torch.testing.assert_close(saving.model.state_dict()[name], weight)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    with pytest.raises(
        NotFiniteError, match=r"In update 2 the loss is (nan|inf), so no step .*Lower `learn"
    ):
        train(tmp_path, learning_rate=1e30, max_grad_norm=0, warmup_steps=0)


@pytest.mark.wide
def test_trackers_get_what_the_log_gets(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    inputs = write_inputs(tmp_path)
    main([*inputs, *words({"output_dir": tmp_path / "run", **SMALL, "log_with": "tensorboard"})])
    events = EventAccumulator(str(tmp_path / "run" / "hf_maskgit")).Reload()
    tracked = {event.step: event.value for event in events.Scalars("loss")}
    assert tracked == pytest.approx(log_of(tmp_path / "run"))


@pytest.mark.wide
def test_a_tracker_is_told_each_step_once_when_a_run_goes_on(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    inputs, run = write_inputs(tmp_path, num_texts=20), tmp_path / "run"
    at_call(monkeypatch, 6)
    options = {"output_dir": run, **SMALL, "log_with": "tensorboard", "checkpoint_every": 3}
    with pytest.raises(KeyboardInterrupt):
        main([*inputs, *words(options)])
    begin_another_second()
    main([str(run / "training_options.yaml"), "--resume_from_checkpoint=latest"])
    events = EventAccumulator(str(run / "hf_maskgit")).Reload().Scalars("loss")
    assert {event.step: event.value for event in events} == pytest.approx(log_of(run))
    assert [event.step for event in events] == [1, 2, 3, 4, 5, 6]


def test_a_tracker_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"tracker 'clipboard' is not installed; installed are"):
        train(tmp_path, log_with="clipboard")


def test_too_few_examples_are_refused_before_anything_is_built(tmp_path):
    with pytest.raises(ValueError, match="64 training examples, too few for one update of 80"):
        train(tmp_path, per_device_batch_size=40)


@pytest.mark.wide
def test_the_log_tells_both_losses(tmp_path):
    loop = loop_of(tmp_path / "run", {"token_critic": "self", "critic_loss_weight": 0.5})
    loop.run()
    for line in log_lines(tmp_path / "run"):
        expected = line["denoiser_loss"] + 0.5 * line["critic_loss"]
        assert line["loss"] == pytest.approx(expected, rel=1e-5)
        assert 0.3 < line["critic_loss"] < 1.2
    plain = loop_of(tmp_path / "plain")
    plain.run()
    assert not {"denoiser_loss", "critic_loss"} & set(log_lines(tmp_path / "plain")[0])


@pytest.mark.wide
@pytest.mark.parametrize("train", ["denoiser", "critic"])
def test_the_part_left_out_stays_as_it_is(tmp_path, train):
    loop = loop_of(tmp_path / "run", {"token_critic": "separate", "self_cond": True}, train=train)
    before = {name: p.detach().clone() for name, p in loop.model.named_parameters()}
    loop.run()
    after = dict(loop.model.named_parameters())
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(name.startswith("critic") == (train == "critic") for name in moved)
    assert ("critic_loss" in log_lines(tmp_path / "run")[0]) == (train == "critic")


def test_a_critic_to_train_must_be_there(tmp_path):
    with pytest.raises(ValueError, match="train='critic' needs a token critic, and the model has"):
        loop_of(tmp_path / "run", train="critic")
