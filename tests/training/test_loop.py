"""Training: it learns, it resumes to the bit, and nothing beside the updates changes them."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from datasets import Dataset
from safetensors.torch import load_file
from torch.optim import AdamW

import hf_maskgit.training.loop as training
from hf_maskgit import DataCollatorForMaskGit, MaskGitForMaskedLM
from hf_maskgit.evaluation import NelboOutput, masked_accuracy
from hf_maskgit.training.arguments import TrainArguments
from hf_maskgit.training.building import make_accelerator
from hf_maskgit.training.examples import prepare_examples
from hf_maskgit.training.loop import TrainingLoop
from hf_maskgit.training.updates import Update
from hf_maskgit.training.watching import evaluate_bound
from scripts.train import main
from tests.support.project import ROOT
from tests.support.tiny import word_tokenizer
from tests.support.tiny_training import SMALL, examples, fresh_model, write_inputs

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


def log_of(folder, name="loss"):
    """The values of one name by update; an update that was logged twice is an error."""
    lines = (Path(folder) / "training_log.jsonl").read_text().splitlines()
    found = [line for line in map(json.loads, lines) if name in line]
    values = {line["step"]: line[name] for line in found}
    assert len(values) == len(found)
    return values


def weights_of(folder):
    return load_file(Path(folder) / "model.safetensors")


def assert_same_weights(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def test_a_repeated_symbol_is_learned_with_the_likelihood_weight(tmp_path):
    torch.set_num_threads(1)
    loop = train(
        tmp_path,
        fresh_model(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0),
        train_examples=examples(256),
        max_steps=200,
        per_device_batch_size=32,
        gradient_accumulation_steps=1,
        log_every=50,
    )
    assert loop.model.config.use_simple_mdlm_loss_weight
    held_out = examples(64, seed=1)
    accuracy = masked_accuracy(
        loop.model, held_out, word_tokenizer(), mask_rates=(0.5,), progress=False
    )
    assert accuracy[0.5] > 0.99
    losses = log_of(tmp_path)
    assert losses[200] < losses[50] / 2


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


def test_examples_that_do_not_fill_an_update_are_left_out_of_an_epoch(tmp_path, monkeypatch):
    updates = recorded_updates(monkeypatch, tmp_path, train_examples=examples(70), max_steps=16)
    assert [len(update) for update in updates] == [8] * 16


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


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant_with_warmup"])
def test_the_learning_rate_warms_up_and_decays(tmp_path, kind):
    train(tmp_path, max_steps=8, warmup_steps=2, lr_scheduler_type=kind)
    rates = log_of(tmp_path, "learning_rate")  # after update s: the rate of the next one
    assert rates[1] == pytest.approx(0.5e-2)
    assert rates[2] == pytest.approx(1e-2)
    halfway = {"linear": 0.5e-2, "cosine": 0.5e-2, "constant_with_warmup": 1e-2}
    assert rates[5] == pytest.approx(halfway[kind])
    assert rates[8] == pytest.approx(1e-2 if kind == "constant_with_warmup" else 0, abs=1e-9)


def test_the_best_model_is_kept(tmp_path, monkeypatch):
    bounds = {2: 3.0, 4: 1.0, 6: 2.0}
    weights = {}

    def evaluate(accelerator, model, *_, **__):
        step = len(weights) * 2 + 2
        weights[step] = {k: v.clone() for k, v in model.state_dict().items()}
        ones = torch.ones(1, dtype=torch.float64)
        return NelboOutput(ones * bounds[step], ones, torch.ones(1, dtype=torch.long))

    monkeypatch.setattr(training, "evaluate_bound", evaluate)
    loop = train(tmp_path, eval_examples=examples(8), eval_every=2)
    assert loop.progress.best_nats == 1.0
    best = MaskGitForMaskedLM.from_pretrained(tmp_path / "best").state_dict()
    assert_same_weights(best, weights[4])
    assert any(not torch.equal(best[name], weights[6][name]) for name in best)


def test_bf16_runs_the_forward_pass_in_half_and_keeps_weights_whole(tmp_path):
    train(tmp_path / "full")
    AcceleratorState._reset_state(reset_partial_state=True)  # it holds one number format
    loop = train(tmp_path / "half", mixed_precision="bf16")
    assert {p.dtype for p in loop.model.parameters()} == {torch.float32}
    full, half = log_of(tmp_path / "full"), log_of(tmp_path / "half")
    assert full != half
    assert half == pytest.approx(full, rel=0.05)


def test_gradient_checkpointing_changes_nothing(tmp_path):
    plain = train(tmp_path / "plain")
    saving = train(tmp_path / "saving", gradient_checkpointing=True)
    assert saving.model.is_activation_checkpointing
    for name, weight in plain.model.state_dict().items():
        torch.testing.assert_close(saving.model.state_dict()[name], weight)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    with pytest.raises(RuntimeError, match=r"The loss is (nan|inf) after update \d\. Lower `lear"):
        train(tmp_path, learning_rate=1e30, max_grad_norm=0, warmup_steps=0)


def test_trackers_get_what_the_log_gets(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    inputs = write_inputs(tmp_path)
    main([*inputs, *words({"output_dir": tmp_path / "run", **SMALL, "log_with": "tensorboard"})])
    events = EventAccumulator(str(tmp_path / "run" / "hf_maskgit")).Reload()
    tracked = {event.step: event.value for event in events.Scalars("loss")}
    assert tracked == pytest.approx(log_of(tmp_path / "run"))


def test_a_tracker_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"tracker 'clipboard' is not installed; installed are"):
        train(tmp_path, log_with="clipboard")


def test_too_few_examples_are_refused_before_anything_is_built(tmp_path):
    with pytest.raises(ValueError, match="64 training examples, too few for one update of 80"):
        train(tmp_path, per_device_batch_size=40)


# Resuming: killed in the second epoch (8 updates each) by an exception or for good.

RUN = {
    **SMALL,
    "max_steps": 14,
    "num_workers": 2,
    "validation_fraction": 0.1,
    "eval_every": 5,
    "checkpoint_every": 4,
}


def words(options):
    return [f"--{name}={value}" for name, value in options.items()]


def run_inputs(folder):
    return write_inputs(folder, num_texts=72)  # 65 to learn from, dropout at BERT's 0.1


def test_a_run_interrupted_within_an_epoch_resumes_to_the_same_weights(tmp_path, monkeypatch):
    inputs = run_inputs(tmp_path)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    main([*inputs, *words({"output_dir": whole, **RUN})])

    calls = []
    take_update = training.take_update

    def fails_at_the_eleventh(*arguments):
        calls.append(1)
        if len(calls) == 11:
            raise KeyboardInterrupt
        return take_update(*arguments)

    monkeypatch.setattr(training, "take_update", fails_at_the_eleventh)
    with pytest.raises(KeyboardInterrupt):
        main([*inputs, *words({"output_dir": broken, **RUN})])
    assert sorted(path.name for path in broken.glob("checkpoint-*")) == [
        "checkpoint-4",
        "checkpoint-8",
    ]
    shutil.rmtree(broken / "checkpoint-8")  # so that it goes on in the middle of an epoch
    torch.manual_seed(99)  # whatever happens in between
    main([str(broken / "training_options.yaml"), "--resume_from_checkpoint", "latest"])
    assert_same_weights(weights_of(broken), weights_of(whole))
    assert_same_weights(weights_of(broken / "best"), weights_of(whole / "best"))
    assert log_of(broken) == log_of(whole)
    assert log_of(broken, "eval_nats_per_token") == log_of(whole, "eval_nats_per_token")


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    inputs = run_inputs(tmp_path)
    options = {**SMALL, "output_dir": tmp_path / "run", "max_steps": 2, "checkpoint_every": 2}
    main([*inputs, *words(options)])
    for name, value, fault in (
        ("gradient_accumulation_steps", 1, "examples_per_update = 8, this run has 4"),
        ("learning_rate", 0.5, "learning_rate = 0.01, this run has 0.5"),
        ("seed", 1, "seed = 0, this run has 1"),
    ):
        with pytest.raises(ValueError, match=f"written with {fault}"):
            main([*inputs, *words({**options, name: value, "resume_from_checkpoint": "latest"})])


KILLED = """
import os, signal
import hf_maskgit.training.loop as training
from scripts.train import main
take_update, calls = training.take_update, []
def killed_at_the_eleventh(*arguments):
    calls.append(1)
    if len(calls) == 11:
        os.kill(os.getpid(), signal.SIGKILL)
    return take_update(*arguments)
training.take_update = killed_at_the_eleventh
main()
"""


def run(*command):
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.slow
def test_a_killed_process_resumes_to_the_same_weights(tmp_path):
    inputs = run_inputs(tmp_path)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    code, errors = run("scripts/train.py", *inputs, *words({"output_dir": whole, **RUN}))
    assert code == 0, errors
    code, errors = run("-c", KILLED, *inputs, *words({"output_dir": killed, **RUN}))
    assert code == -signal.SIGKILL, errors
    assert not (killed / "model.safetensors").exists()
    recipe = killed / "training_options.yaml"
    code, errors = run("scripts/train.py", recipe, "--resume_from_checkpoint=latest")
    assert code == 0, errors
    assert_same_weights(weights_of(killed), weights_of(whole))


def two_process_reference(folder, steps, share):
    """The run of two processes, by the plain formula on both shares of every update."""
    set_seed(0)
    model = fresh_model(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).train()
    texts = Dataset.from_dict({"text": (folder / "texts.txt").read_text().splitlines()})
    data = prepare_examples(texts, word_tokenizer(), max_length=16)[0]
    collators = [
        DataCollatorForMaskGit(word_tokenizer(), seed=0, process_index=i, num_processes=2)
        for i in range(2)
    ]
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    optimizer = AdamW(groups, lr=1e-2, betas=(0.9, 0.98), weight_decay=0.01)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0)).tolist()
    losses = {}
    for step in range(steps):
        loss, tokens = torch.zeros(()), 0
        for process, collate in enumerate(collators):
            start = (2 * step + process) * share
            batch = collate([data[i] for i in order[start : start + share]])
            tokens += int((batch["labels"] != -100).sum())
            loss = loss + model(**batch, num_items_in_batch=1).loss
        (loss / tokens).backward()
        losses[step + 1] = float(loss.detach()) / tokens
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            # one update of warm-up (5 % of 6, rounded up), then a straight line to 0
            group["lr"] = 0.0 if step == 0 else 1e-2 * (steps - step) / (steps - 1)
        optimizer.step()
        optimizer.zero_grad()
    return losses, model.state_dict()


@pytest.mark.slow
def test_two_processes_take_the_updates_of_the_plain_formula(tmp_path):
    inputs = write_inputs(
        tmp_path, num_texts=100, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    options = {**SMALL, "output_dir": tmp_path / "run", "log_every": 1}
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    code, errors = run(*launch, "scripts/train.py", *inputs, *words(options))
    assert code == 0, errors
    losses, weights = two_process_reference(tmp_path, steps=6, share=8)
    assert log_of(tmp_path / "run") == pytest.approx(losses, abs=1e-5)
    found = MaskGitForMaskedLM.from_pretrained(tmp_path / "run").state_dict()
    for name, weight in weights.items():
        torch.testing.assert_close(found[name], weight, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_two_processes_resume_to_the_same_weights(tmp_path):
    inputs = run_inputs(tmp_path)
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    launch = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2")
    launch = (*launch, "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no")
    options = {**RUN, "output_dir": whole, "max_steps": 6, "checkpoint_every": 2, "eval_every": 3}
    code, errors = run(
        *launch, "scripts/train.py", *inputs, *words(options), "--keep_checkpoints=9"
    )
    assert code == 0, errors
    again = {"output_dir": resumed, "resume_from_checkpoint": whole / "checkpoint-2"}
    recipe = whole / "training_options.yaml"
    code, errors = run(*launch, "scripts/train.py", recipe, *words(again))
    assert code == 0, errors
    assert_same_weights(weights_of(resumed), weights_of(whole))
    evaluated = log_of(whole, "eval_nats_per_token")
    assert sorted(evaluated) == [3, 6]
    assert log_of(resumed, "eval_nats_per_token") == evaluated
