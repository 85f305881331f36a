"""The table of optimizers: what Muon moves and how, beside torch's own and its definition."""

import copy
from functools import partial

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch.optim import AdamW, Muon

from hf_maskgit.training import muon
from hf_maskgit.training.arguments import TrainArguments
from hf_maskgit.training.deepspeed_engine import ZeRO
from hf_maskgit.training.optimizer import make_optimizer
from hf_maskgit.training.optimizers import OPTIMIZERS, MuonWithAdamW, matrices_of
from hf_maskgit.training.sharding import FSDP2
from scripts.train import main
from tests.support.tiny import ENCODERS, bert_config, tiny_model
from tests.support.tiny_training import (
    SMALL,
    assert_same_weights,
    at_call,
    log_of,
    loop_of,
    words,
    write_inputs,
)

pytestmark = pytest.mark.usefixtures("_fresh_accelerate")
RATE, DECAY = 0.01, 0.1


def options_of(**changes):
    given = {"learning_rate": RATE, "weight_decay": DECAY, "warmup_steps": 0, **changes}
    return TrainArguments(output_dir="run", lr_scheduler_type="constant_with_warmup", **given)


def with_gradients(model, seed):
    drawn = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=drawn)
    return model


def names_of(model, weights):
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)] for p in weights}


def test_muon_moves_the_matrices_of_the_layers_alone():
    model = tiny_model(token_critic="separate", critic_config=bert_config(), self_cond=True)
    moved = names_of(model, matrices_of(model))
    expected = {
        name for name, p in model.named_parameters() if ".encoder.layer." in name and p.ndim == 2
    }
    assert moved == expected
    assert len(moved) == 2 * 2 * 6  # of two encoders of two layers
    model.denoiser.bert.encoder.layer[0].requires_grad_(False)
    assert len(matrices_of(model)) == len(moved) - 6


@pytest.mark.parametrize("kind", ENCODERS)
def test_every_encoder_has_some_and_neither_tables_nor_heads_are_among_them(kind):
    model = tiny_model(kind)
    moved = {id(weight) for weight in matrices_of(model)}
    assert moved
    tables = (model.denoiser.get_input_embeddings(), model.denoiser.get_output_embeddings())
    assert not moved & {id(table.weight) for table in tables}
    assert all(weight.ndim == 2 for weight in matrices_of(model))


def test_an_update_is_that_of_torchs_two_optimizers(monkeypatch):
    monkeypatch.setattr(muon, "multiplies_bf16", lambda device: True)  # torch's does in any case
    model, other = tiny_model(), tiny_model()
    other.load_state_dict(model.state_dict())
    options = options_of(optim="muon")
    optimizer, scheduler = make_optimizer(model, options, 10)
    matrices = matrices_of(other)
    rest = [p for p in other.parameters() if id(p) not in set(map(id, matrices))]
    betas = (options.adam_beta1, options.adam_beta2)
    of_rest = partial(AdamW, lr=RATE, betas=betas, eps=options.adam_epsilon)
    expected = (
        Muon(matrices, lr=RATE, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw"),
        of_rest([p for p in rest if p.ndim > 1], weight_decay=DECAY),
        of_rest([p for p in rest if p.ndim == 1], weight_decay=0.0),
    )
    for seed in range(3):
        with_gradients(model, seed)
        optimizer.step()
        scheduler.step()
        with_gradients(other, seed)
        for one in expected:
            one.step()
    for (name, found), wanted in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, msg=name)


def test_an_update_of_a_matrix_is_orthogonal_and_as_large_as_one_of_adamw():
    """Most singular values near one, entries of 0.2 of the rate: within what five steps give."""
    model = tiny_model()
    optimizer, _ = make_optimizer(model, options_of(optim="muon", weight_decay=0.0), 10)
    before = [weight.detach().clone() for weight in matrices_of(model)]
    with_gradients(model, 0)
    optimizer.step()
    for old, new in zip(before, matrices_of(model), strict=True):
        update = (new.detach() - old) / RATE
        scale = 0.2 * max(update.shape) ** 0.5
        singular = torch.linalg.svdvals(update / scale)
        assert float(singular.median()) > 0.6
        assert float(singular.max()) < 1.3
        assert float(update.square().mean().sqrt()) == pytest.approx(0.2, rel=0.3)


def test_rates_of_layers_and_their_schedule_reach_both():
    model = tiny_model()
    options = options_of(optim="muon", layer_decay=0.5)
    optimizer, _ = make_optimizer(model, options, 10)
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    layers = model.denoiser.bert.encoder.layer
    assert rates[id(layers[0].output.dense.weight)] == pytest.approx(RATE * 0.25)
    assert rates[id(layers[1].output.dense.weight)] == pytest.approx(RATE * 0.5)
    optimizer.param_groups[0]["lr"] = 0.0  # as a schedule sets it: of the fastest matrices
    still = optimizer.param_groups[0]["params"][0]
    before = still.detach().clone()
    with_gradients(model, 0)
    optimizer.step()
    assert torch.equal(still, before)


def test_what_is_remembered_is_counted_and_goes_on_after_a_file():
    model, other = tiny_model(), tiny_model()
    other.load_state_dict(model.state_dict())
    options = options_of(optim="muon")
    ours, _ = make_optimizer(model, options, 10)
    theirs, _ = make_optimizer(other, options, 10)
    with_gradients(model, 0)
    ours.step()
    kept = [t for state in ours.state.values() for t in state.values() if t.ndim]
    assert sum(t.numel() for t in kept) == OPTIMIZERS["muon"].numbers(model)
    assert OPTIMIZERS["muon"].numbers(model) < OPTIMIZERS["adamw_torch_fused"].numbers(model)
    other.load_state_dict(model.state_dict())
    theirs.load_state_dict(copy.deepcopy(ours.state_dict()))  # which shares tensors
    for each, optimizer in ((model, ours), (other, theirs)):
        with_gradients(each, 1)
        optimizer.step()
    assert all(map(torch.equal, model.parameters(), other.parameters()))


@pytest.mark.wide
def test_a_run_goes_on_from_its_checkpoint_to_the_bit(tmp_path, monkeypatch):
    inputs = write_inputs(tmp_path, num_texts=60)
    options = {**SMALL, "optim": "muon", "checkpoint_every": 2, "ema_decay": 0.5}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    main([*inputs, *words({**options, "output_dir": whole})])
    at_call(monkeypatch, 5)
    with pytest.raises(KeyboardInterrupt):
        main([*inputs, *words({**options, "output_dir": cut})])
    assert not (cut / "model.safetensors").exists()
    main([*inputs, *words({**options, "output_dir": cut})])
    assert_same_weights(*(load_file(folder / "model.safetensors") for folder in (whole, cut)))
    assert log_of(cut) == log_of(whole)
    assert "| optimizer | Muon and AdamW |" in (whole / "README.md").read_text()


@pytest.mark.wide
@pytest.mark.parametrize("first", OPTIMIZERS)
def test_a_run_that_goes_on_with_another_optimizer_begins_it_anew(tmp_path, caplog, first):
    (second,) = OPTIMIZERS.keys() - {first}
    whole = loop_of(tmp_path / "run", optim=first, checkpoint_every=3)
    whole.run()
    options = {"optim": second, "resume_from_checkpoint": "latest"}
    with pytest.raises(ValueError, match=f"optim = {first}, this run has {second}"):
        loop_of(tmp_path / "refused", **options).resume(tmp_path / "run" / "checkpoint-3")
    again = loop_of(tmp_path / "again", allow_changes=["optim"], **options)
    again.resume(tmp_path / "run" / "checkpoint-3")
    assert "What the former optimizer remembered is left" in caplog.text
    stored = load_file(tmp_path / "run" / "checkpoint-3" / "model.safetensors")
    for name, weight in again.model.state_dict().items():
        assert torch.equal(weight, stored.get(name, weight))
    again.run()
    states = again.optimizer.optimizer.state.values()
    kept = sum(t.numel() for state in states for t in state.values() if t.ndim)
    assert kept == OPTIMIZERS[second].numbers(again.model)


def test_a_model_none_of_whose_layers_learns_is_refused():
    model = tiny_model()
    model.denoiser.bert.requires_grad_(False)
    assert matrices_of(model) == []
    assert OPTIMIZERS["muon"].numbers(model) == OPTIMIZERS["adamw_torch_fused"].numbers(model)
    with pytest.raises(ValueError, match="none of them learns here. Leave `optim` out, or let"):
        make_optimizer(model, options_of(optim="muon"), 10)


@pytest.mark.parametrize(
    ("engine", "said"),
    [(FSDP2(), "and FSDP leaves none. Train with whole copies"), (ZeRO(), "and DeepSpeed leaves")],
)
def test_shards_of_matrices_are_refused(engine, said, monkeypatch):
    monkeypatch.setattr("hf_maskgit.training.deepspeed_engine.is_deepspeed_available", lambda: True)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    with pytest.raises(ValueError, match=f"optim='muon' moves whole matrices, {said}"):
        engine.check(Accelerator(cpu=True), options_of(optim="muon"))


def test_what_goes_with_no_optimizer_is_refused():
    with pytest.raises(
        ValueError, match="`optim` must be one of adamw_torch_fused, muon, got 'sgd'"
    ):
        options_of(optim="sgd")
    with pytest.raises(ValueError, match=r"whole matrices, and `lora_r` leaves none. Leave `lora"):
        options_of(optim="muon", lora_r=4)


def test_the_two_are_one_optimizer_to_whoever_reads_it():
    model = tiny_model()
    optimizer, _ = make_optimizer(model, options_of(optim="muon"), 10)
    assert isinstance(optimizer, MuonWithAdamW)
    listed = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(listed) == len(set(map(id, listed))) == len(list(model.parameters()))
    with_gradients(model, 0)
    optimizer.zero_grad()
    assert all(p.grad is None for p in model.parameters())
