"""Updates without numbers: left out without a trace where that is told, and named."""

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from torch.amp import GradScaler

import hf_maskgit.training.loop as training
from hf_maskgit.training.building import make_accelerator
from hf_maskgit.training.checkpoints import Progress, checkpoints
from hf_maskgit.training.finiteness import NotFiniteError
from hf_maskgit.training.skipping import MOST_IN_A_ROW, left_out
from tests.support import tiny_training
from tests.support.project import ROOT
from tests.support.tiny_training import (
    SMALL,
    assert_same_weights,
    log_lines,
    loop_of,
    words,
    write_inputs,
)

pytestmark = pytest.mark.usefixtures("_fresh_accelerate")


def state_of(loop):
    """All that an update changes, by name: weights, optimizer, averages."""
    names = {id(p): name for name, p in loop.model.named_parameters()}
    found = {name: weight.detach().clone() for name, weight in loop.model.state_dict().items()}
    for parameter, state in loop.optimizer.state.items():
        found.update({f"{names[id(parameter)]}:{k}": v.clone() for k, v in state.items()})
    for name, average in (loop.averages.values if loop.averages else {}).items():
        found[f"average:{name}"] = average.clone()
    return found


def spoil_updates(monkeypatch, loop, steps, at):
    """Multiply by infinity, within these updates, the gradient of a weight or the head's output."""
    take_update, head = training.take_update, loop.model.denoiser.cls
    states = {}

    def spoiled(*arguments):
        number = loop.progress.step + 1
        states[number] = state_of(loop)
        hook = None
        if number in steps and at == "gradient":
            weight = head.predictions.transform.dense.weight
            hook = weight.register_hook(lambda gradient: gradient * torch.inf)
        elif number in steps:
            hook = head.register_forward_hook(lambda _, __, output: output * torch.nan)
        try:
            return take_update(*arguments)
        finally:
            if hook is not None:
                hook.remove()

    monkeypatch.setattr(training, "take_update", spoiled)
    return states


@pytest.mark.grid(2)
@pytest.mark.parametrize("at", ["loss", "gradient"])
@pytest.mark.parametrize("max_grad_norm", [1.0, 0.0])
def test_an_update_without_numbers_is_left_out_without_a_trace(
    tmp_path, monkeypatch, caplog, at, max_grad_norm
):
    options = {"on_nonfinite": "skip", "ema_decay": 0.5, "max_grad_norm": max_grad_norm}
    loop = loop_of(tmp_path / "run", **options, log_every=2)
    states = spoil_updates(monkeypatch, loop, {3}, at)
    loop.run()
    assert_same_weights(states[4], states[3])
    assert not torch.equal(
        *(s["denoiser.cls.predictions.bias"] for s in (states[4], state_of(loop)))
    )
    assert loop.averages.num_updates == 5
    assert (loop.progress.skipped, loop.progress.skipped_in_a_row) == (1, 0)
    assert all(p.grad is None for p in loop.model.parameters())
    lines = log_lines(tmp_path / "run")
    assert [line.get("skipped_updates") for line in lines] == [None, 1, None]
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0)).tolist()
    (said,) = [line for line in caplog.messages if "goes on without it" in line]
    what = {"loss": "loss is nan", "gradient": "norm of the gradient is "}[at]
    assert said.startswith(f"In update 3 the {what}")
    named = said.split("held the examples ")[1].split(". The run")[0]
    assert sorted(map(int, named.split(", "))) == sorted(order[16:24])


@pytest.mark.wide
def test_the_loss_that_is_logged_is_that_of_the_updates_that_were_taken(tmp_path, monkeypatch):
    """A window of two updates, one of them left out, tells the loss of the other."""
    each = loop_of(tmp_path / "each", log_every=1, on_nonfinite="skip")
    spoil_updates(monkeypatch, each, {3, 5, 6}, "loss")
    each.run()
    monkeypatch.undo()
    both = loop_of(tmp_path / "both", log_every=2, on_nonfinite="skip")
    spoil_updates(monkeypatch, both, {3, 5, 6}, "loss")
    both.run()
    one_by_one = {line["step"]: line for line in log_lines(tmp_path / "each")}
    in_pairs = {line["step"]: line for line in log_lines(tmp_path / "both")}
    assert "loss" not in one_by_one[3]
    assert in_pairs[4]["loss"] == one_by_one[4]["loss"]
    assert in_pairs[2]["loss"] == pytest.approx(
        (one_by_one[1]["loss"] + one_by_one[2]["loss"]) / 2, rel=1e-6
    )
    assert (in_pairs[6]["skipped_updates"], "loss" in in_pairs[6]) == (2, False)


@pytest.mark.wide
def test_a_run_that_has_skipped_goes_on_to_the_bit(tmp_path, monkeypatch):
    options = {"on_nonfinite": "skip", "ema_decay": 0.5, "checkpoint_every": 3, "log_every": 2}
    whole = loop_of(tmp_path / "run", **options)
    spoil_updates(monkeypatch, whole, {3, 5}, "loss")
    whole.run()
    again = loop_of(tmp_path / "again", **options)
    again.resume(tmp_path / "run" / "checkpoint-3")
    assert (again.progress.skipped, again.progress.skipped_in_a_row) == (1, 1)
    spoil_updates(monkeypatch, again, {5}, "loss")
    again.run()
    assert_same_weights(state_of(again), state_of(whole))
    assert again.progress.skipped == 2
    strip = ("tokens_per_second", "seconds")
    last, expected = (
        [{k: v for k, v in line.items() if k not in strip} for line in log_lines(tmp_path / run)]
        for run in ("again", "run")
    )
    assert last == expected[1:]


def test_it_stops_by_default_and_says_how_to_skip(tmp_path, monkeypatch):
    loop = loop_of(tmp_path / "run", checkpoint_every=2)
    spoil_updates(monkeypatch, loop, {3}, "loss")
    with pytest.raises(NotFiniteError, match=r"In update 3 the loss is nan.*With `on_nonfinite`"):
        loop.run()
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["checkpoint-2"]


def test_too_many_in_a_row_end_the_run():
    progress, error = Progress({}), NotFiniteError("the loss is nan.")
    for _ in range(MOST_IN_A_ROW - 1):
        assert left_out(error, progress, "skip").skipped
    with pytest.raises(NotFiniteError, match=r"In update 1 the loss is nan. It is the 10th in a"):
        left_out(error, progress, "skip")
    assert progress.skipped == MOST_IN_A_ROW


def test_weights_that_are_no_numbers_end_the_run_whatever_is_told(tmp_path, monkeypatch):
    loop = loop_of(tmp_path / "run", on_nonfinite="skip")
    with torch.no_grad():
        loop.model.denoiser.cls.predictions.transform.dense.weight[0, 0] = torch.nan
    with pytest.raises(NotFiniteError, match=r"In update 1 .* were no numbers before it"):
        loop.run()


@pytest.mark.wide
@pytest.mark.parametrize("max_grad_norm", [1.0, 0.0])
def test_fp16_goes_on_behind_an_update_that_was_left_out(tmp_path, monkeypatch, max_grad_norm):
    def with_scaler(options):
        accelerator = make_accelerator(options)
        accelerator.scaler = GradScaler("cpu", init_scale=4.0)

        def unscale_gradients():  # as Accelerate does on a GPU
            for optimizer in accelerator._optimizers:
                accelerator.scaler.unscale_(optimizer.optimizer)

        accelerator.unscale_gradients = unscale_gradients
        return accelerator

    monkeypatch.setattr(tiny_training, "make_accelerator", with_scaler)
    loop = loop_of(tmp_path / "run", on_nonfinite="skip", max_grad_norm=max_grad_norm)
    states = spoil_updates(monkeypatch, loop, {3}, "loss")
    loop.run()
    assert_same_weights(states[4], states[3])
    assert loop.progress.skipped == 1


PROGRAM = """
import os, sys, torch
import hf_maskgit.training.loop as training
from safetensors.torch import save_file
from scripts.train import main
from tests.training.test_skipping import state_of
take_update, loops = training.take_update, []
make = training.TrainingLoop.__init__
def noted(self, *arguments, **options):
    make(self, *arguments, **options)
    loops.append(self)
training.TrainingLoop.__init__ = noted
def spoiled(*arguments):
    loop, hook = loops[0], None
    if loop.progress.step == 2 and os.environ["RANK"] == "1":
        head = loop.accelerator.unwrap_model(loop.model).denoiser.cls
        hook = head.register_forward_hook(lambda _, __, output: output * torch.nan)
    try:
        return take_update(*arguments)
    finally:
        if hook is not None:
            hook.remove()
training.take_update = spoiled
main(sys.argv[2:])
loops[0].model = loops[0].accelerator.unwrap_model(loops[0].model)
state = {name: value.contiguous().clone() for name, value in state_of(loops[0]).items()}
save_file(state, f"{sys.argv[1]}/state_{os.environ['RANK']}.safetensors")
"""


@pytest.mark.slow
def test_two_processes_leave_out_an_update_that_one_of_them_has_no_loss_for(tmp_path):
    """They agree to the bit on weights, optimizer and averages, and name the other's examples."""
    inputs = write_inputs(tmp_path, num_texts=64)
    (tmp_path / "program.py").write_text(PROGRAM)
    options = {**SMALL, "gradient_accumulation_steps": 1, "on_nonfinite": "skip", "ema_decay": 0.5}
    options |= {"layer_decay": 0.9, "lr_scheduler_type": "warmup_stable_decay", "log_every": 1}
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    given = words({**options, "output_dir": tmp_path / "run"})
    done = subprocess.run(
        [sys.executable, *launch, str(tmp_path / "program.py"), str(tmp_path), *inputs, *given],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = (load_file(tmp_path / f"state_{rank}.safetensors") for rank in (0, 1))
    assert any(name.startswith("average:") for name in first)
    assert_same_weights(first, second)
    lines = log_lines(tmp_path / "run")
    assert [line["step"] for line in lines if "skipped_updates" in line] == [3]
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0)).tolist()
    named = done.stderr.split("held the examples ")[1].split(". The run")[0]
    assert sorted(map(int, named.split(", "))) == sorted(order[20:24])  # the second process's half
