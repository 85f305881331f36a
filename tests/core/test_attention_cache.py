"""Keys and values kept between passes: a part of a pass is that part of the whole."""

import threading

import pytest
import torch
from torch import nn

from hf_maskgit.core.attention_cache import (
    NAME,
    Active,
    CachedPass,
    Store,
    _rows_of_mask,
    caching,
    twin_of,
    why_no_twin,
)
from hf_maskgit.core.encoder_kinds import CACHES_ATTENTION
from tests.support import cache_laws
from tests.support.cache_laws import Fast, caches, check_cache
from tests.support.support_matrix import TYPES, _rows, tiny_generator
from tests.support.tiny import TableModel, tiny_config, tiny_model

# Learned, offset and rotary positions; windows; shared layers; a mask of its own; keys in groups.
DEFAULT_TIER = ("bert", "roberta", "esm", "modernbert", "albert", "layoutlm", "eurobert")


@pytest.mark.parametrize("kind", DEFAULT_TIER)
def test_a_part_of_a_pass_gives_what_the_whole_gives(kind):
    check_cache(tiny_generator(kind), _rows(kind))


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(CACHES_ATTENTION.difference(DEFAULT_TIER)))
def test_a_part_of_a_pass_gives_what_the_whole_gives_with_every_type(kind):
    check_cache(tiny_generator(kind), _rows(kind))


def test_every_type_of_the_table_is_one_of_transformers():
    assert set(TYPES) >= CACHES_ATTENTION


@pytest.mark.parametrize("kind", ["mobilebert", "deberta-v2", "mpnet"])
def test_the_laws_fail_where_a_type_cannot(kind):
    assert kind not in CACHES_ATTENTION
    assert not caches(tiny_generator(kind), _rows(kind))


@pytest.mark.parametrize("fault", ["places", "positions", "mask"])
def test_the_laws_notice_a_fault(fault, monkeypatch):
    """Keys put back one place off, positions counted from 0, a mask of the wrong rows."""
    if fault == "places":
        renew = Store.renew

        def off(self, number, rows, active, key, value):
            key = key.roll(1, 2)
            return renew(self, number, rows, active, key, value)

        monkeypatch.setattr(Store, "renew", off)
    elif fault == "positions":
        monkeypatch.setattr(cache_laws, "first_position", lambda denoiser: 1)
    else:
        logits = Fast.logits

        def unpadded(self, rows, text, active):
            self.store.real = self.real if active is None else torch.ones_like(self.real)
            return logits(self, rows, text, active)

        monkeypatch.setattr(Fast, "logits", unpadded)
    assert not caches(tiny_generator("bert"), _rows("bert"))


def test_active_positions_move_to_the_left_and_back():
    positions = torch.tensor([[0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 1, 1]]).bool()
    active = Active.of(positions)
    assert active.index.tolist() == [[1, 3], [0, 0], [2, 3]]
    assert active.there.tolist() == [[True, True], [True, False], [True, True]]
    columns = torch.arange(12).view(3, 4)
    picked = active.pick(columns, elsewhere=-1)
    assert picked.tolist() == [[1, 3], [4, -1], [10, 11]]
    active.put(columns, picked + 100)
    assert columns.tolist() == [[0, 101, 2, 103], [104, 5, 6, 7], [8, 9, 110, 111]]


@pytest.mark.parametrize("kind", ["bert", "modernvbert"])
def test_a_twin_shares_every_weight_and_nothing_else(kind):
    model = tiny_generator(kind)
    before = model.denoiser.config._attn_implementation
    twin = twin_of(model)
    for own, shared in ((model.parameters(), twin.parameters()), (model.buffers(), twin.buffers())):
        assert [id(tensor) for tensor in own] == [id(tensor) for tensor in shared]
    of_twin = {m.config._attn_implementation for m in twin.modules() if hasattr(m, "config")}
    assert of_twin == {NAME}
    of_model = {m.config._attn_implementation for m in model.modules() if hasattr(m, "config")}
    assert NAME not in of_model
    assert model.denoiser.config._attn_implementation == before
    assert not set(map(id, model.modules())) & set(map(id, twin.modules()))


def test_a_twin_runs_in_its_pass_alone():
    twin, text = twin_of(tiny_model()), torch.tensor([[2, 7, 4, 3]])
    with pytest.raises(RuntimeError, match="twin of a model runs within `caching` alone"):
        twin(text, masked_positions=text == 4)
    store = Store(torch.ones(1, 4, dtype=torch.bool))
    with pytest.raises(ZeroDivisionError), caching(store, torch.arange(1), None):
        1 / 0  # noqa: B018
    with pytest.raises(RuntimeError, match="runs within `caching` alone"):
        twin(text, masked_positions=text == 4)


def test_a_pass_of_another_model_is_noticed():
    text = torch.tensor([[2, 7, 4, 3]])
    store = Store(torch.ones(1, 4, dtype=torch.bool))
    with (
        pytest.raises(RuntimeError, match="The pass ran no attention of the twin, so that nothing"),
        caching(store, torch.arange(1), None),
    ):
        tiny_model()(text, masked_positions=text == 4)


def test_a_twin_has_the_same_hooks():
    class Program:
        def __deepcopy__(self, memo):
            raise AssertionError("copied")

        def look(self, *_):
            pass

    model, program = tiny_model(), Program()
    model.denoiser.register_forward_hook(program.look)
    twin = twin_of(model)
    assert list(twin.denoiser._forward_hooks.values())[-1].__self__ is program


def test_a_mask_that_an_encoder_makes_itself():
    """One that hides padding is made anew; whatever else it says cannot be cut into rows."""
    real = torch.tensor([[True, True, False]])
    active = Active.of(torch.tensor([[True, True, False]]))
    now = CachedPass(Store(real), torch.arange(1), active, None)
    assert _rows_of_mask(nn.Linear(1, 1), torch.zeros(1, 1, 1, 2), now).tolist() == [[[[1, 1, 0]]]]
    with pytest.raises(RuntimeError, match="Linear masks its attention in a way of its own, so th"):
        _rows_of_mask(nn.Linear(1, 1), torch.zeros(1, 1, 2, 2), now)


def _offloaded(model):
    model.denoiser.base_model._hf_hook = object()


def _partitioned(model):
    next(model.parameters()).ds_id = 0


def _compiled(model):
    model.denoiser.forward = model.denoiser.forward


def _prompted(model):
    model.prepare_inputs_for_generation = dict


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_offloaded, "its weights are spread over devices or processes"),
        (_partitioned, "its weights are spread over devices or processes"),
        (_compiled, "the `forward` of a part of it was replaced, as a compiler may do"),
        (_prompted, "something else prepares its inputs, such as a learned prompt"),
    ],
)
def test_why_a_model_has_no_twin(change, reason):
    model = tiny_model()
    assert why_no_twin(model) is None
    change(model)
    assert why_no_twin(model) == reason


def test_models_of_other_kinds_have_no_twin():
    assert why_no_twin(TableModel(tiny_config())) == "it is no encoder of transformers"
    assert why_no_twin(tiny_generator("deberta-v2")) == (
        "the attention of 'deberta-v2' is not computed through the interface of transformers"
    )


def test_the_drift_is_that_of_where_the_positions_attend_to():
    """0 where nothing changed, 1 - cosine of the greatest layer where it did, and 0 once more."""
    store = Store(torch.ones(2, 3, dtype=torch.bool), watches=True)
    rows, first = torch.arange(2), torch.tensor([[1.0, 0, 0], [0, 1, 1]])
    for layer in range(2):
        store.watch(layer, rows, first, is_reference=True)
    store.watch(0, rows, first, is_reference=False)
    store.watch(1, rows, torch.tensor([[1.0, 1, 0], [0, 1, 1]]), is_reference=False)
    torch.testing.assert_close(store.drift, torch.tensor([1 - 0.5**0.5, 0]))
    store.watch(0, rows[:1], first[:1], is_reference=False)
    store.watch(1, rows[:1], torch.tensor([[0.0, 0, 1]]), is_reference=False)
    torch.testing.assert_close(store.drift, torch.tensor([1.0, 0]))
    store.watch(0, rows[:1], first[1:], is_reference=True)
    assert float(store.drift[0]) == 0


def test_passes_of_two_threads_keep_apart():
    model, text = tiny_model().double(), torch.tensor([[2, 7, 4, 9, 3]])
    expected = torch.no_grad()(model)(text, masked_positions=text == 4).logits
    meet, found = threading.Barrier(2), {}

    def run(name, other):
        fast = Fast(model, torch.ones_like(text).bool(), None)

        def wait(*_):
            meet.wait(30)

        hook = fast.twin.denoiser.base_model.register_forward_pre_hook(wait)
        words = text if other is None else torch.full_like(text, other)
        fast.logits(torch.arange(1), words, None)
        found[name] = fast.logits(torch.arange(1), words, text == 4)
        hook.remove()

    threads = [threading.Thread(target=run, args=pair) for pair in (("same", None), ("other", 8))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.testing.assert_close(found["same"], expected, rtol=0, atol=1e-9)
    assert not torch.allclose(found["other"], expected, atol=1e-3)
