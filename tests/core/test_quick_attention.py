"""Attention block by block is that of the textbook in float64, and so are its gradients."""

import pytest
import torch
import torch.nn.functional as F

from hf_maskgit.core import linear_maps, quick_attention
from hf_maskgit.core.linear_maps import LinearMaps
from hf_maskgit.core.quick_attention import attend, can_attend
from tests.support.tiny import ENCODERS, bert_config, tiny_model

ROWS, HEADS, QUERIES, KEYS, WIDTH = 3, 4, 5, 7, 24
MASKS = {
    "none": None,
    "padding": torch.arange(KEYS) < torch.tensor([7, 4, 1])[:, None, None, None],
    "window": ((torch.arange(QUERIES)[:, None] - torch.arange(KEYS)).abs() < 3)[None, None],
    "by head": torch.rand(1, HEADS, 1, KEYS, generator=torch.Generator().manual_seed(0)) < 0.7,
}
CLOSE = {
    torch.float32: {"rtol": 0, "atol": 1e-5},
    torch.bfloat16: {"rtol": 2**-6, "atol": 4e-2},
}


def given(dtype, queries=QUERIES, keys=KEYS):
    """As a model hands them over: heads beside each other in memory."""
    random = torch.Generator().manual_seed(1)
    draw = lambda n: torch.randn(ROWS, n, HEADS, WIDTH, generator=random)  # noqa: E731
    made = [draw(n).to(dtype).requires_grad_() for n in (queries, keys, keys)]
    return made, [one.transpose(1, 2) for one in made]


def textbook(query, key, value, mask, there=None, share=1.0, scale=None):
    """Return softmax(q k / sqrt(d)) v in float64, what is dropped left out of the weights."""
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = query.double() @ key.double().mT * scale
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = scores.softmax(-1)
    if there is not None:
        weights = weights * there / share
    return weights @ value.double()


@pytest.fixture(params=[1, 2 * QUERIES * KEYS, 10**6], ids=["head", "two heads", "all"])
def block(request, monkeypatch):
    """One head at a time, some, and all rows at once."""
    sizes = dict.fromkeys((torch.float32, torch.bfloat16), request.param)
    monkeypatch.setattr(quick_attention, "_BLOCK", sizes)


@pytest.mark.parametrize("dtype", list(CLOSE), ids=str)
@pytest.mark.parametrize("mask", list(MASKS))
@pytest.mark.parametrize("scale", [None, 0.5])
def test_it_is_the_textbooks_and_so_are_its_gradients(dtype, mask, scale, block):
    leaves, parts = given(dtype)
    found = attend(*parts, MASKS[mask], scale=scale)
    expected = textbook(*parts, MASKS[mask], scale=scale)
    close = CLOSE[dtype]
    torch.testing.assert_close(found.double(), expected, **close)
    slopes = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    of_found = torch.autograd.grad(found, leaves, slopes.to(dtype))
    of_expected = torch.autograd.grad(expected, leaves, slopes.double())
    for one, other in zip(of_found, of_expected, strict=True):
        torch.testing.assert_close(one.double(), other.double(), **close)


@pytest.mark.parametrize("dtype", list(CLOSE), ids=str)
@pytest.mark.parametrize("mask", ["none", "padding"])
def test_weights_that_are_dropped_count_neither_forward_nor_backward(
    dtype, mask, block, monkeypatch
):
    there = torch.rand(ROWS, HEADS, QUERIES, KEYS, generator=torch.Generator().manual_seed(3)) < 0.6
    drawn = iter(there.flatten(0, 1))
    monkeypatch.setattr(
        quick_attention,
        "kept",
        lambda shape, p: torch.stack([next(drawn) for _ in range(shape[0])]),
    )
    leaves, parts = given(dtype)
    found = attend(*parts, MASKS[mask], dropout_p=0.375)
    expected = textbook(*parts, MASKS[mask], there, 0.625)
    close = CLOSE[dtype]
    torch.testing.assert_close(found.double(), expected, **close)
    slopes = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    of_found = torch.autograd.grad(found, leaves, slopes.to(dtype))
    of_expected = torch.autograd.grad(expected, leaves, slopes.double())
    for one, other in zip(of_found, of_expected, strict=True):
        torch.testing.assert_close(one.double(), other.double(), **close)


@pytest.mark.parametrize("frozen", [None, 0, 1, 2])
@pytest.mark.parametrize("dropout_p", [0.0, 0.3])
def test_gradients_can_be_differentiated_again(frozen, dropout_p, block):
    """Against differences of gradients in float64's stead: the same function, twice."""
    leaves, parts = given(torch.float32)
    if frozen is not None:
        leaves[frozen].requires_grad_(False)
    learned = [leaf for leaf in leaves if leaf.requires_grad]

    def curvature(function):
        torch.manual_seed(0)
        slopes = torch.autograd.grad(function().tanh().sum(), learned, create_graph=True)
        return torch.autograd.grad(sum(one.square().sum() for one in slopes), learned)

    found = curvature(lambda: attend(*parts, MASKS["padding"], dropout_p=dropout_p))
    kept, share = [], 1.0
    if dropout_p:
        torch.manual_seed(0)
        for which in quick_attention._blocks(parts[0], parts[1]):
            rows = parts[0][which].flatten(0, 1).shape[0]
            kept.append(quick_attention.kept(torch.Size((rows, QUERIES, KEYS)), dropout_p))
        share = quick_attention.kept_share(dropout_p)
    there = torch.cat(kept).view(ROWS, HEADS, QUERIES, KEYS) if kept else None
    expected = curvature(lambda: textbook(*parts, MASKS["padding"], there, share))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_a_query_that_sees_no_key_is_no_nan():
    _, parts = given(torch.bfloat16)
    seen = torch.ones(ROWS, 1, QUERIES, KEYS, dtype=torch.bool)
    seen[1, 0, 2] = False
    found = attend(*parts, seen)
    torch.testing.assert_close(
        found[1, :, 2].double(), parts[2][1].double().mean(1), rtol=0, atol=3e-2
    )


def asked(**how):
    dtype = how.pop("dtype", torch.bfloat16)
    _, parts = given(dtype, KEYS, KEYS)
    return [one.detach() for one in parts], how


@pytest.mark.parametrize(
    ("how", "takes"),
    [
        ({}, True),
        ({"dtype": torch.float32}, False),
        ({"dtype": torch.float32, "dropout_p": 0.1}, True),
        ({"dropout_p": 0.1}, True),
        ({"attn_mask": MASKS["padding"]}, True),
        ({"scale": 0.1}, True),
        ({"attn_mask": torch.zeros(KEYS, KEYS, dtype=torch.bfloat16)}, False),
        ({"is_causal": True}, False),
        ({"enable_gqa": True}, False),
        ({"dtype": torch.float64, "dropout_p": 0.1}, False),
    ],
    ids=str,
)
def test_what_it_takes_within_linear_maps_and_what_is_left_to_torch(how, takes, monkeypatch):
    parts, how = asked(**how)
    assert can_attend(*parts, **how) == takes
    seen = []
    monkeypatch.setitem(
        linear_maps._INSTEAD,
        F.scaled_dot_product_attention,
        (can_attend, lambda *args, **named: seen.append(args) or attend(*args, **named)),
    )
    with LinearMaps():
        found = F.scaled_dot_product_attention(*parts, **how)
    assert bool(seen) == takes
    if "dropout_p" not in how:
        expected = F.scaled_dot_product_attention(*parts, **how)
        torch.testing.assert_close(found, expected, rtol=0, atol=3e-2)


def test_heads_as_narrow_as_torch_is_fast_at_and_other_shapes_are_left_to_torch():
    parts, _ = asked()
    assert not can_attend(*(one[..., :16] for one in parts))
    assert not can_attend(*(one[0] for one in parts))
    assert not can_attend(parts[0], parts[1][:, :2], parts[2][:, :2])
    assert not can_attend(parts[0][:0], parts[1][:0], parts[2][:0])
    assert not can_attend(parts[0].float(), *parts[1:])
    with torch.autocast("cpu", torch.bfloat16):
        assert can_attend(*parts)
        assert not can_attend(*(one.float() for one in parts), dropout_p=0.1)


@pytest.mark.grid(3)
@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoder_with_dropout_learns_what_it_learns_without_where_none_is_dropped(
    kind, monkeypatch
):
    """Through every layer: the places at which it drops are those at which torch would."""
    for module in (quick_attention, linear_maps.drop.__globals__):
        put = monkeypatch.setitem if isinstance(module, dict) else monkeypatch.setattr
        put(module, "kept", lambda shape, p: torch.ones(shape, dtype=torch.bool))
        put(module, "kept_share", lambda p: 1.0)
    model = tiny_model(kind)
    ids = torch.randint(10, 30, (3, 9), generator=torch.Generator().manual_seed(0))
    chosen = torch.rand(3, 9, generator=torch.Generator().manual_seed(1)) < 0.6
    masked = ids.masked_fill(chosen, model.config.mask_token_id)

    def learned(mode):
        model.train(mode).zero_grad()
        with LinearMaps():
            loss = model(input_ids=masked, labels=ids, masked_positions=chosen).loss
            loss.backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    found, expected = learned(True), learned(False)
    scale = max(float(one.abs().max()) for one in expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * scale)


def test_a_model_under_autocast_writes_by_it(monkeypatch):
    """Its logits are no further from those in float32 than with torch's attention, or hardly."""
    config = bert_config(
        vocab_size=200, hidden_size=128, intermediate_size=128, num_attention_heads=4
    )
    model = tiny_model(text_config=config).eval()
    ids = torch.full((2, 12), model.config.mask_token_id)
    seen = []
    monkeypatch.setitem(
        linear_maps._INSTEAD,
        F.scaled_dot_product_attention,
        (can_attend, lambda *args, **named: seen.append(args) or attend(*args, **named)),
    )
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model.generate(ids, steps=3, seed=0)
        assert len(seen) == 3 * config.num_hidden_layers
        with LinearMaps():
            found = model(ids).logits
        of_torch = model(ids).logits
    with torch.no_grad():
        exact = model(ids).logits
    assert float((found - exact).abs().mean()) < 1.5 * float((of_torch - exact).abs().mean())
