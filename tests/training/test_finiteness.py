"""Numbers that are none: noticed in their update, and never written over anything."""

import pytest
import torch
from torch.amp import GradScaler

import hf_maskgit.training.loop as training
from hf_maskgit.training.building import make_accelerator
from hf_maskgit.training.checkpoints import checkpoints, fault_of, find_checkpoint
from hf_maskgit.training.finiteness import NotFiniteError, check_finite, not_finite
from tests.support import tiny_training
from tests.support.tiny_training import examples, loop_of

pytestmark = pytest.mark.usefixtures("_fresh_accelerate")


def head_of(loop):
    return loop.model.denoiser.cls.predictions.transform.dense.weight


def test_tensors_with_nan_or_infinity_are_named():
    tensors = {"a": torch.ones(2), "b": torch.tensor([1, torch.inf]), "c": torch.arange(3)}
    assert not_finite(tensors.items()) == ["b"]
    assert not_finite({"c": torch.arange(3)}.items()) == []
    tensors["d"] = torch.tensor(torch.nan)
    with pytest.raises(NotFiniteError, match=r"The weights 'b' and 1 more hold nan or infinite"):
        check_finite("weights", tensors.items())


def spoil(monkeypatch, loop, step, what):
    """Do something to a loop before it takes the update after `step`."""
    take_update = training.take_update

    def spoiled(*arguments):
        if loop.progress.step == step:
            what(loop)
        return take_update(*arguments)

    monkeypatch.setattr(training, "take_update", spoiled)


def nan_in_the_weights(loop):
    with torch.no_grad():
        head_of(loop)[0, 0] = torch.nan


def infinite_gradient(loop):
    head_of(loop).register_hook(lambda gradient: gradient * torch.inf)


@pytest.mark.grid(2)
@pytest.mark.parametrize("max_grad_norm", [1.0, 0.0])
@pytest.mark.parametrize(
    ("what", "said"),
    [
        (nan_in_the_weights, r"the loss is nan, .* no numbers before it\."),
        (infinite_gradient, r"the norm of the gradient is (nan|inf), so no step was taken"),
    ],
)
def test_it_is_noticed_in_its_update_before_anything_is_taken_or_saved(
    tmp_path, monkeypatch, what, said, max_grad_norm
):
    """Nothing is logged or saved for a long time, and still the third update is the one."""
    options = {"log_every": 1000, "checkpoint_every": 2, "max_grad_norm": max_grad_norm}
    loop = loop_of(tmp_path / "run", eval_examples=examples(8, 1), **options)
    bias = loop.model.denoiser.cls.predictions.bias
    seen = []
    spoil(monkeypatch, loop, 2, lambda loop: (what(loop), seen.append(bias.detach().clone())))
    with pytest.raises(NotFiniteError, match=rf"In update 3 {said}") as raised:
        loop.run()
    assert torch.equal(bias, seen[0]), "the optimizer did not step"
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["checkpoint-2"]
    assert not (tmp_path / "run" / "best").exists()
    assert fault_of(tmp_path / "run" / "checkpoint-2") is None
    # the examples are those of the update: the third eight of the first pass
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0)).tolist()
    named = str(raised.value).split("held the examples ")[1].split(". Lower")[0]
    assert set(map(int, named.split(", "))) <= set(order[16:24])


def test_no_file_takes_over_weights_that_are_no_numbers(tmp_path):
    loop = loop_of(tmp_path / "run", max_steps=1, keep_checkpoints=1)
    loop.run()
    loop.save_model(tmp_path / "run")
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    nan_in_the_weights(loop)
    loop.progress.step = 2
    for write in (loop._save_checkpoint, lambda: loop.save_model(tmp_path / "run")):
        with pytest.raises(NotFiniteError, match=r"weights '.*dense.weight' hold nan or infinite"):
            write()
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before
    assert find_checkpoint("latest", tmp_path / "run").name == "checkpoint-1"


def test_no_checkpoint_takes_over_an_optimizer_that_is_none(tmp_path):
    loop = loop_of(tmp_path / "run", max_steps=1, keep_checkpoints=1)
    loop.run()
    loop.optimizer.state[head_of(loop)]["exp_avg_sq"][0, 0] = torch.inf
    loop.progress.step = 2
    with pytest.raises(NotFiniteError, match="averages of the optimizer 'exp_avg_sq:.*dense.wei"):
        loop._save_checkpoint()
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["checkpoint-1"]


@pytest.mark.wide
def test_an_overflow_in_fp16_leaves_a_step_out_until_the_scale_is_used_up(tmp_path, monkeypatch):
    """The scaler's own way, here on the CPU: it halves the scale of the loss, from 4 to below 1."""

    def with_scaler(options):
        accelerator = make_accelerator(options)
        accelerator.scaler = GradScaler("cpu", init_scale=4.0)
        return accelerator

    monkeypatch.setattr(tiny_training, "make_accelerator", with_scaler)
    loop = loop_of(tmp_path / "run", max_grad_norm=0.0, checkpoint_every=3)
    before = head_of(loop).detach().clone()
    infinite_gradient(loop)
    with pytest.raises(NotFiniteError, match="In update 4 the norm of the gradient is (nan|inf)"):
        loop.run()
    assert torch.equal(head_of(loop), before)
    again = loop_of(tmp_path / "again", max_grad_norm=0.0, checkpoint_every=3)
    again.resume(tmp_path / "run" / "checkpoint-3")
    assert again.accelerator.scaler.get_scale() == 0.5
