"""Linear maps by oneDNN are torch's own but for rounding, and only those that it can take."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hf_maskgit.core import linear_maps, packed_weights
from hf_maskgit.core.linear_maps import LinearMaps, quick_products
from tests.support.tiny import ENCODERS, bert_config, tiny_model

needs_one_dnn = pytest.mark.skipif(
    linear_maps.PRODUCT is None, reason="This torch has no linear maps by oneDNN."
)


@pytest.fixture
def counted(monkeypatch):
    """Sizes of what oneDNN is asked for, of matrices of any size."""
    sizes = []
    product = linear_maps.PRODUCT

    def note(states, weight, *rest):
        sizes.append(tuple(weight.shape))
        return product(states, weight, *rest)

    if product is not None:
        monkeypatch.setattr(linear_maps, "PRODUCT", note)
    monkeypatch.setattr(linear_maps, "LEAST_WIDTH", 1)
    return sizes


def without(monkeypatch):
    """As with a torch that does not bring the operation along."""
    for module in (linear_maps, packed_weights):
        monkeypatch.setattr(module, "PRODUCT", None)


def given(shape, wide=37, narrow=24, dtype=torch.float32):
    random = torch.Generator().manual_seed(0)
    draw = lambda *sizes: torch.randn(sizes, generator=random, dtype=dtype)  # noqa: E731
    return [one.requires_grad_() for one in (draw(*shape, narrow), draw(wide, narrow), draw(wide))]


def exact(tensors):
    return [one.detach().double().requires_grad_() for one in tensors]


@needs_one_dnn
@pytest.mark.parametrize("shape", [(5,), (2, 3), (1, 2, 4), (1,)])
@pytest.mark.parametrize("biased", [True, False])
def test_products_and_gradients_are_those_of_float64(shape, biased, counted):
    states, weight, *bias = given(shape)[: 3 if biased else 2]
    with LinearMaps():
        product = F.linear(states, weight, *bias)
        slopes = torch.randn(product.shape, generator=torch.Generator().manual_seed(1))
        found = torch.autograd.grad(product, [states, weight, *bias], slopes)
    oracle = exact([states, weight, *bias])
    expected = F.linear(*oracle)
    torch.testing.assert_close(product.double(), expected, rtol=0, atol=1e-5)
    of_oracle = torch.autograd.grad(expected, oracle, slopes.double())
    for one, other in zip(found, of_oracle, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=0, atol=1e-5)
    assert counted == [(37, 24), (24, 37)]


@needs_one_dnn
def test_rows_that_lie_apart_are_no_fault(counted):
    states, weight, bias = (one.detach() for one in given((6, 3)))
    with LinearMaps():
        found = F.linear(states[:, 1].flip(0)[::2], weight.t().contiguous().t(), bias)
    torch.testing.assert_close(found, F.linear(states[:, 1].flip(0)[::2], weight, bias))
    assert len(counted) == 1


@needs_one_dnn
def test_gradients_can_be_differentiated_again(counted):
    def curvature(tensors):
        states, weight, bias = tensors
        (slope,) = torch.autograd.grad(
            F.linear(states, weight, bias).tanh().sum(), states, create_graph=True
        )
        return torch.autograd.grad(slope.square().sum(), tensors)

    plain = given((4,))
    with LinearMaps():
        found = curvature(plain)
    for one, other in zip(found, curvature(exact(plain)), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)
    assert counted


@needs_one_dnn
def test_gradients_are_added_where_that_is_asked_for(counted):
    states, weight, bias = given((4,))
    so_far = torch.ones_like(weight)
    with LinearMaps({id(weight): so_far}):
        product = F.linear(states, weight, bias)
        found = torch.autograd.grad(product.sum(), [states, weight, bias], allow_unused=True)
    assert found[1] is None
    expected = torch.autograd.grad(F.linear(states, weight, bias).sum(), weight)[0]
    torch.testing.assert_close(so_far, 1 + expected)


class Quantised(torch.Tensor):
    """Stands for a weight whose numbers are not what they seem."""


@pytest.mark.parametrize(
    "tensors",
    [
        given((4,), dtype=torch.float64),
        given((4,), dtype=torch.bfloat16),
        given((0,)),
        given(()),
        [given((4,))[0], given((4,))[1].detach().as_subclass(Quantised), None],
    ],
    ids=["float64", "bfloat16", "no rows", "one vector", "quantised"],
)
def test_what_it_cannot_take_is_left_to_torch(tensors, counted):
    with LinearMaps():
        found = F.linear(*tensors)
    assert torch.equal(found, F.linear(*tensors))
    assert not counted


def test_under_autocast_and_outside_all_is_left_to_torch(counted):
    states, weight, bias = given((4,))
    with LinearMaps(), torch.autocast("cpu", torch.bfloat16):
        assert F.linear(states, weight, bias).dtype == torch.bfloat16
    F.linear(states, weight, bias)
    assert not counted


def test_without_the_operation_all_is_left_to_torch(monkeypatch):
    without(monkeypatch)
    states, weight, bias = given((4,), 300, 200)
    with LinearMaps():
        assert torch.equal(F.linear(states, weight, bias), F.linear(states, weight, bias))
    assert not isinstance(quick_products(nn.Linear(200, 300)), LinearMaps)


@pytest.mark.wide
@needs_one_dnn
def test_which_models_are_worth_it():
    wide = nn.Sequential(nn.LayerNorm(200), nn.Linear(200, 300))
    assert isinstance(quick_products(wide), LinearMaps)
    few_words = nn.Sequential(nn.Embedding(33, 200), nn.Linear(200, 300))
    assert isinstance(quick_products(few_words), LinearMaps)
    compiled = copy.deepcopy(wide)
    compiled[1].compile()
    for other in (compiled, copy.deepcopy(wide).double(), nn.Linear(8, 300), nn.LayerNorm(200)):
        assert not isinstance(quick_products(other), LinearMaps)


@pytest.mark.grid(3, first=1)
@needs_one_dnn
@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoder_learns_the_same(kind, counted):
    model = tiny_model(kind).eval()
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(10, 30, (3, 9), generator=random)
    chosen = torch.rand(3, 9, generator=random) < 0.6
    masked = ids.masked_fill(chosen, model.config.mask_token_id)

    def learned(one, **how):
        one.zero_grad()
        with LinearMaps() if how else torch.enable_grad():
            loss = one(input_ids=masked, labels=ids, masked_positions=chosen, **how).loss
            loss.backward()
        return loss, {name: p.grad for name, p in one.named_parameters() if p.grad is not None}

    loss, found = learned(model, output_logits=False)
    assert len(counted) > 6
    expected, gradients = learned(copy.deepcopy(model).double())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert set(found) == set(gradients)
    scale = max(float(gradient.abs().max()) for gradient in gradients.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(found[name].double(), gradient, rtol=0, atol=1e-4 * scale)


@needs_one_dnn
def test_a_model_writes_the_same_and_asks_one_dnn(counted, monkeypatch):
    config = bert_config(hidden_size=128, intermediate_size=128, num_attention_heads=2)
    model = tiny_model(text_config=config).eval()
    ids = torch.full((2, 12), model.config.mask_token_id)
    options = {"steps": 4, "seed": 3, "max_new_tokens": 0}
    found = model.generate(ids, **options)
    assert (128, 128) in counted
    without(monkeypatch)
    assert torch.equal(found, model.generate(ids, **options))
