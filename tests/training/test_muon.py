"""Muon many matrices at a time: torch's own to the bit in bf16, nearer the exact one in float32."""

import pytest
import torch
from torch.optim import Muon

from hf_maskgit.training import muon
from hf_maskgit.training.muon import StackedMuon, orthogonal

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
SIZE = {"adjust_lr_fn": "match_rms_adamw"}
SHAPES = [(8, 8), (8, 8), (4, 12), (12, 4), (4, 12), (8, 8)]


def weights_with_gradients(seed, shapes=SHAPES):
    drawn = torch.Generator().manual_seed(seed)
    weights = [torch.nn.Parameter(torch.randn(shape, generator=drawn)) for shape in shapes]
    for weight in weights:
        weight.grad = torch.randn(weight.shape, generator=drawn)
    return weights


@pytest.mark.parametrize("at_once", [1, 100, 2**24])
@pytest.mark.parametrize("nesterov", [True, False])
def test_in_bf16_it_is_torchs_to_the_bit(monkeypatch, at_once, nesterov):
    monkeypatch.setattr(muon, "multiplies_bf16", lambda device: True)
    monkeypatch.setattr(muon, "_AT_ONCE", at_once)
    options = {"lr": 0.1, "nesterov": nesterov}
    ours, theirs = weights_with_gradients(0), weights_with_gradients(0)
    ours[1].grad = theirs[1].grad = None
    one, other = StackedMuon(ours, **options), Muon(theirs, **options, **SIZE)
    for _ in range(3):
        one.step()
        other.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert len(one.state) == len(SHAPES) - 1
    theirs_read = Muon(weights_with_gradients(0), **options, **SIZE)
    theirs_read.load_state_dict(one.state_dict())  # files of either are read by the other


def test_in_float32_it_is_the_definition(monkeypatch):
    monkeypatch.setattr(muon, "multiplies_bf16", lambda device: False)
    weights = weights_with_gradients(1)
    before = [weight.detach().clone() for weight in weights]
    optimizer = StackedMuon(weights, lr=0.1, weight_decay=0.2)
    optimizer.step()
    a, b, c = COEFFICIENTS
    for old, new in zip(before, weights, strict=True):
        # The average begins at zero, and Nesterov's look ahead leaves a multiple of the gradient.
        left, values, right = torch.linalg.svd(new.grad.double(), full_matrices=False)
        values = values / new.grad.double().norm()
        for _ in range(5):
            values = a * values + b * values**3 + c * values**5
        move = 0.2 * max(old.shape) ** 0.5 * left @ values.diag() @ right
        expected = (1 - 0.1 * 0.2) * old.double() - 0.1 * move
        torch.testing.assert_close(new.detach().double(), expected, rtol=0, atol=1e-5)


def test_a_matrix_of_nothing_stays_nothing():
    found = orthogonal(torch.zeros(2, 3, 5), COEFFICIENTS, 5, 1e-7)
    assert torch.equal(found, torch.zeros(2, 3, 5))


@pytest.mark.parametrize(("has", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_the_format_is_one_that_the_device_has_products_of(monkeypatch, has, dtype):
    asked, seen, own = [], [], orthogonal

    def watched(matrices, *settings):
        seen.append(matrices.dtype)
        return own(matrices, *settings)

    monkeypatch.setattr(muon, "multiplies_bf16", lambda device: asked.append(device) or has)
    monkeypatch.setattr(muon, "orthogonal", watched)
    StackedMuon(weights_with_gradients(2)).step()
    assert set(seen) == {dtype}
    assert {device.type for device in asked} == {"cpu"}
