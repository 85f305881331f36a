"""Products with packed weights are those without, and a packed weight is never an old one."""

import gc

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hf_maskgit.core import packed_weights
from hf_maskgit.core.linear_maps import LinearMaps, quick_products
from hf_maskgit.core.packed_weights import PackedWeights
from tests.support.tiny import bert_config, tiny_model

pytestmark = pytest.mark.skipif(
    None in (packed_weights.PRODUCT, packed_weights._REORDER),
    reason="This torch has no packed weights of oneDNN.",
)
needs_bf16 = pytest.mark.skipif(
    packed_weights._BF16 is None or not packed_weights._BF16(),
    reason="This processor has no products in bfloat16.",
)
WIDE, NARROW = 300, 200


@pytest.fixture
def cut(monkeypatch):
    """Sizes and number formats of the weights that are packed."""
    seen = []
    reorder = packed_weights._REORDER

    def note(weight, rows):
        seen.append((tuple(weight.shape), weight.dtype))
        return reorder(weight, rows)

    monkeypatch.setattr(packed_weights, "_REORDER", note)
    return seen


def given(rows=(7,), dtype=torch.float32):
    random = torch.Generator().manual_seed(0)
    draw = lambda *sizes: torch.randn(sizes, generator=random).to(dtype)  # noqa: E731
    return draw(*rows, NARROW), nn.Parameter(draw(WIDE, NARROW)), nn.Parameter(draw(WIDE))


@pytest.mark.parametrize("rows", [(1,), (7,), (2, 5), (300,)])
@pytest.mark.parametrize("biased", [True, False])
@torch.no_grad()
def test_products_are_those_of_float64(rows, biased, cut):
    tensors = given(rows)[: 3 if biased else 2]
    expected = F.linear(*(one.double() for one in tensors))
    with LinearMaps(packs=PackedWeights()):
        for _ in range(5):
            torch.testing.assert_close(F.linear(*tensors).double(), expected, rtol=0, atol=1e-4)
    assert cut == [((WIDE, NARROW), torch.float32)]  # once, and not before it is worth it


@needs_bf16
@pytest.mark.parametrize("rows", [(7,), (2, 5), (300,)])
@torch.no_grad()
def test_under_autocast_they_are_those_of_autocast(rows, cut):
    tensors = given(rows)
    with torch.autocast("cpu", torch.bfloat16):
        expected = F.linear(*tensors)
        with LinearMaps(packs=PackedWeights()):
            found = [F.linear(*tensors) for _ in range(5)]
    assert cut == [((WIDE, NARROW), torch.bfloat16)]
    for one in found:
        assert one.dtype == torch.bfloat16
        # One rounding to 8 bits apart at most, of sums in another order.
        torch.testing.assert_close(one, expected, rtol=2**-7, atol=1e-2)


@needs_bf16
@torch.no_grad()
def test_a_model_in_bf16_has_them_too(cut):
    tensors = given(dtype=torch.bfloat16)
    with LinearMaps(packs=PackedWeights()):
        found = [F.linear(*tensors) for _ in range(3)]
    assert cut
    torch.testing.assert_close(found[-1], F.linear(*tensors), rtol=2**-7, atol=1e-2)


def replaced(weight):
    weight.data = weight.data * 2


@pytest.mark.parametrize(
    "change", [lambda weight: weight.mul_(2), replaced], ids=["in place", "another memory"]
)
@torch.no_grad()
def test_a_weight_that_changes_is_never_an_old_one(change, cut):
    states, weight, _ = given()
    with LinearMaps(packs=PackedWeights()):
        before = [F.linear(states, weight) for _ in range(4)][-1]
        change(weight)
        for _ in range(4):
            torch.testing.assert_close(F.linear(states, weight), 2 * before)
    assert len(cut) == 2


@torch.no_grad()
def test_what_is_computed_anew_is_not_packed(cut):
    states, weight, bias = given()
    with LinearMaps(packs=PackedWeights()):
        for _ in range(5):
            F.linear(states, weight * 2, bias)
            F.linear(states.double(), weight.double())
            F.linear(states[:, :4], weight[:, :4])
            F.linear(states[:0], weight)
    assert not cut


def test_where_gradients_may_be_asked_for_nothing_is_packed(cut):
    states, weight, bias = given()
    with LinearMaps(packs=PackedWeights()):
        for _ in range(5):
            F.linear(states, weight, bias)
    assert not cut


@torch.no_grad()
def test_no_more_is_packed_than_may_be(cut, monkeypatch):
    monkeypatch.setattr(packed_weights, "_MOST_BYTES", WIDE * NARROW * 4)
    (states, first, _), (_, second, _) = given(), given()
    with LinearMaps(packs=PackedWeights()):
        for _ in range(5):
            F.linear(states, first)
            torch.testing.assert_close(F.linear(states, second), states @ second.t())
    assert len(cut) == 1


@pytest.mark.wide
@torch.no_grad()
def test_decodings_share_them_and_the_last_one_takes_them_along(cut):
    states, weight, _ = given()
    gc.collect()
    before = len(packed_weights._SHARED)
    packs = [PackedWeights(), PackedWeights()]
    for one in packs:
        with LinearMaps(packs=one):
            for _ in range(3):
                F.linear(states, weight)
    assert len(cut) == 1
    packs.pop(0)
    assert len(packed_weights._SHARED) == before + 1
    del one
    packs.clear()
    gc.collect()
    assert len(packed_weights._SHARED) == before


@pytest.mark.parametrize(
    "options",
    [{}, {"order": "random"}, {"block_length": 6, "use_cache": True}, {"guidance_scale": 2.0}],
)
def test_a_model_writes_the_same(options, cut, monkeypatch):
    config = bert_config(
        vocab_size=200, hidden_size=128, intermediate_size=256, num_attention_heads=2
    )
    model = tiny_model(text_config=config).eval()
    ids = torch.full((2, 12), model.config.mask_token_id)
    options = {"steps": 6, "seed": 3, "max_new_tokens": 0, **options}
    found = model.generate(ids, **options)
    sizes = {size for size, _ in cut}
    assert {(128, 128), (256, 128), (128, 256), (200, 128)} == sizes
    assert len(cut) == 6 * config.num_hidden_layers + 2  # each once, the head's two too
    monkeypatch.setattr(packed_weights, "_REORDER", None)
    assert torch.equal(found, model.generate(ids, **options))


@needs_bf16
def test_a_model_under_autocast_asks_for_them(cut):
    config = bert_config(
        vocab_size=200, hidden_size=128, intermediate_size=128, num_attention_heads=2
    )
    model = tiny_model(text_config=config).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert isinstance(quick_products(model, PackedWeights()), LinearMaps)
        model.generate(torch.full((2, 12), model.config.mask_token_id), steps=4, seed=0)
    assert {dtype for _, dtype in cut} == {torch.bfloat16}
