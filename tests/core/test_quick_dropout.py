"""Dropout by sixteen bits per number: which numbers are dropped, how many, and their gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hf_maskgit.core import quick_dropout
from hf_maskgit.core.linear_maps import LinearMaps
from hf_maskgit.core.quick_dropout import can_drop, drop, kept, kept_share, only


def test_as_many_of_all_numbers_of_16_bits_mean_dropped_as_the_share_says(monkeypatch):
    """Every number of 16 bits once, in any order: the count is exact."""
    every = torch.arange(-(2**15), 2**15).to(torch.int16)[torch.randperm(2**16)]
    monkeypatch.setattr(torch.Tensor, "random_", lambda *_: every.view(torch.int64))
    for p, dropped in ((0.1, 6554), (0.5, 32_768), (1e-9, 0), (1 - 1e-9, 65_535)):
        there = kept(torch.Size((256, 256)), p)
        assert int((~there).sum()) == dropped
        assert kept_share(p) == 1 - dropped / 65_536


def test_each_of_four_neighbours_is_dropped_by_itself():
    """16 patterns of 4 neighbours, as often as independent ones: fails by chance once in 1,000."""
    torch.manual_seed(0)
    p, count = 0.3, 40_000
    there = kept(torch.Size((count, 4)), p).long()
    pattern = (there * torch.tensor([8, 4, 2, 1])).sum(1)
    found = torch.bincount(pattern, minlength=16).double()
    bits = (torch.arange(16)[:, None] >> torch.arange(4)) & 1
    expected = count * torch.where(bits == 1, 1 - p, p).double().prod(1)
    assert float(((found - expected) ** 2 / expected).sum()) < 37.7  # chi-square, 15 degrees


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5, 6)])
def test_what_is_kept_is_scaled_and_so_is_its_gradient(dtype, shape):
    given = torch.randn(shape).to(dtype).requires_grad_()
    torch.manual_seed(3)
    there = kept(given.shape, 0.25)
    torch.manual_seed(3)
    found = drop(given, 0.25)
    factor = there / 0.75
    torch.testing.assert_close(found.double(), given.double() * factor, rtol=2**-7, atol=0)
    (slope,) = torch.autograd.grad(found.sum(), given)
    torch.testing.assert_close(slope.double(), factor.double(), rtol=2**-7, atol=0)


def test_a_gradient_can_be_differentiated_again():
    given = torch.randn(40, requires_grad=True)
    torch.manual_seed(0)
    (slope,) = torch.autograd.grad(drop(given, 0.5).square().sum(), given, create_graph=True)
    (again,) = torch.autograd.grad(slope.sum(), given)
    torch.manual_seed(0)
    torch.testing.assert_close(again, 8.0 * kept(given.shape, 0.5))


def test_what_is_dropped_is_0_whatever_it_was():
    given = torch.tensor([[torch.nan, torch.inf, -3.0, -torch.inf]])
    there = torch.tensor([[False, False, True, False]])
    assert only(given.t(), there.t()).tolist() == [[0], [0], [-3.0], [0]]


def test_within_linear_maps_a_module_drops_so_and_torch_elsewhere(monkeypatch):
    asked = []
    monkeypatch.setattr(quick_dropout, "kept", lambda *how: asked.append(how) or kept(*how))
    layer, given = nn.Dropout(0.5), torch.randn(6, 4)
    with LinearMaps():
        assert not torch.equal(layer(given), given)
        assert torch.equal(layer.eval()(given), given)
    layer.train()(given)
    assert asked == [(given.shape, 0.5)]


@pytest.mark.parametrize(
    ("given", "how"),
    [
        (torch.ones(3).double(), {}),
        (torch.ones(3).half(), {}),
        (torch.ones(0), {}),
        (torch.ones(3), {"p": 0.0}),
        (torch.ones(3), {"p": 1.0}),
        (torch.ones(3), {"training": False}),
        (torch.ones(3), {"inplace": True}),
        (torch.ones(3, device="meta"), {}),
    ],
    ids=str,
)
def test_what_it_does_not_take_is_left_to_torch(given, how):
    assert not can_drop(given, **how)
    with LinearMaps():
        torch.manual_seed(0)
        found = F.dropout(given.clone(), **how)
    torch.manual_seed(0)
    expected = F.dropout(given.clone(), **how)
    assert given.is_meta or torch.equal(found, expected)
