"""What generation is compared with really does that work, on the same weights."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from hf_maskgit.core.sampler_paces import remaining_counts, step_times
from hf_maskgit.core.sampler_presets import PRESETS
from hf_maskgit.core.sampler_rules import PACES
from hf_maskgit.core.schedules import get_schedule
from hf_maskgit.evaluation import benchmark_peers, benchmark_shapes
from hf_maskgit.evaluation import benchmark_works as works
from hf_maskgit.evaluation.benchmark_generation import (
    CELLS,
    GROWTHS,
    QUICK_CELLS,
    QUICK_GROWTHS,
    Cell,
    Growth,
    measure_cell,
    measure_growth,
)
from hf_maskgit.evaluation.benchmark_peers import (
    encoder_and_head_passes,
    llada_style,
    wrapper_of_x_transformers,
)
from hf_maskgit.evaluation.benchmark_rounds import peak_bytes
from hf_maskgit.evaluation.benchmark_shapes import ENCODERS, Sizes, build_model, mask_token_id
from hf_maskgit.evaluation.benchmark_works import (
    BLOCKS,
    CACHES,
    COMPILED,
    FEW,
    FLOOR,
    HALF,
    ORDERS,
    OTHERS_COMPILED,
    PACE_WORKS,
    PEERS,
    PLAIN,
    PRESET_WORKS,
    WORKS,
    Work,
    check_peers,
    contestants_of,
    in_half,
    without_peers,
)

CPU = torch.device("cpu")
TINY = Sizes("bert", 1, 16, 2, 16, 40, batch_size=3, length=10, steps=4)
BY_STEPS = (*ORDERS, *PEERS, "x-transformers, filter as by default")
OTHERS = (BLOCKS, *CACHES, *PRESET_WORKS, *PACE_WORKS)
EVERY = (*BY_STEPS, *OTHERS, *in_half(BY_STEPS))


@pytest.fixture(scope="module")
def found():
    return measure_cell(Cell("tiny", TINY, EVERY), 2, CPU)


@pytest.mark.wide
def test_every_work_fills_all_masks_in_as_many_passes_of_the_encoder(found):
    assert [one["name"] for one in found["works"]] == list(EVERY)
    for one in found["works"]:
        if one["name"].removesuffix(HALF) in BY_STEPS:
            assert one["passes"] == TINY.steps
            # Of rows that are one text before anything is drawn, `generate` reads one.
            is_ours = one["name"].startswith(PLAIN)
            spared = TINY.batch_size - 1 if is_ours else 0
            assert one["rows"] == TINY.steps * TINY.batch_size - spared
            assert one["tokens"] == one["rows"] * TINY.length
        assert one["passes"] >= 1
        assert one["filled"] == (0 if one["name"].startswith(FLOOR) else 1)
        assert len(one["seconds"]) == 2
        assert min(one["seconds"]) > 0
        assert one["peak_bytes"] > 0
        assert one["floor"] == (FLOOR + HALF if one["name"].endswith(HALF) else FLOOR)


@pytest.mark.wide
def test_works_leave_the_model_as_it_is(found):
    """x-transformers' wrapper puts what it wraps into training mode behind `generate`."""
    one, *others = contestants_of(EVERY, TINY, CPU)
    before = one.work()
    for other in others:
        other.check()
    assert torch.equal(one.work(), before)


def test_a_floor_of_its_own_has_the_ratio_1():
    cell = Cell("tiny", TINY, (BLOCKS, FLOOR, BLOCKS + HALF), floor=BLOCKS)
    found = measure_cell(cell, 1, CPU, counts_bytes=False)["works"]
    assert [one["floor"] for one in found] == [BLOCKS, BLOCKS, BLOCKS + HALF]
    assert found[0]["ratio_quartiles"] == found[2]["ratio_quartiles"] == [1, 1, 1]


@pytest.mark.wide
def test_blocks_with_a_cache_read_fewer_tokens(monkeypatch):
    monkeypatch.setitem(works._IN_BLOCKS, "block_length", 8)
    sizes = replace(TINY, length=32, steps=32)
    cached = [works._ours(**works._IN_BLOCKS, use_cache=on) for on in (False, True)]
    for name, work in zip(("without", "with"), cached, strict=True):
        monkeypatch.setitem(WORKS, name, work)
    found = measure_cell(
        Cell("tiny", sizes, ("without", "with"), floor="without"), 1, CPU, counts_bytes=False
    )["works"]
    assert [one["passes"] for one in found] == [32, 32]
    assert found[0]["tokens"] == (32 * 3 - 2) * 32  # equal rows are read once in the first pass
    # of each 8 passes one is full, and 7 read a block and what it was revealed before them
    assert found[1]["tokens"] < found[0]["tokens"] / 2


def test_every_preset_and_every_pace_has_a_work():
    assert len(PRESET_WORKS) == len(PRESETS)
    assert len(PACE_WORKS) == len(PACES)
    assert {*PRESET_WORKS, *PACE_WORKS} <= {name for cell in CELLS for name in cell.works}


@pytest.mark.slow
def test_a_compiled_work_is_counted_as_it_is_written_and_timed_compiled(monkeypatch):
    compiled = []
    compile_it = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module,
        "compile",
        lambda module: (compiled.append(module), compile_it(module, backend="eager")),
    )
    names = (FLOOR, COMPILED, *OTHERS_COMPILED)
    found = measure_cell(Cell("tiny", TINY, names), 1, CPU)["works"][1:]
    assert [one["passes"] for one in found] == [TINY.steps] * 4
    assert [one["filled"] for one in found] == [1, 0, 1, 1]
    assert [type(module).__name__ for module in compiled] == [
        "MaskGitForMaskedLM",
        "BertModel",
        "BertForMaskedLM",
        "BertForMaskedLM",
    ]
    assert all(module._compiled_call_impl is not None for module in compiled)
    torch._dynamo.reset()


@pytest.mark.wide
@pytest.mark.parametrize("half", [False, True])
def test_the_first_passes_of_others_need_as_many_bytes_as_all(half):
    sizes = replace(TINY, vocab_size=3000, steps=6)
    names = (*PEERS, "x-transformers, filter as by default")
    for one in contestants_of(in_half(names) if half else names, sizes, CPU):
        whole = peak_bytes(one.work, CPU)
        assert peak_bytes(one.peak, CPU) == pytest.approx(whole, rel=0.01), one.name
        assert one.most_rounds is not None
    assert all(one.peak is None for one in contestants_of(ORDERS, sizes, CPU))


@pytest.mark.parametrize("kind", ENCODERS)
def test_every_kind_of_encoder_can_be_compared(kind):
    sizes = replace(TINY, encoder=kind, vocab_size=33)
    found = measure_cell(Cell(kind, sizes, FEW), 1, CPU, counts_bytes=False)
    assert [one["passes"] for one in found["works"]] == [4, 4, 4, 4]


def test_the_peers_see_the_texts_that_they_fill_and_ask_for_every_position():
    """Half of what is masked is filled in each of two passes; the head is asked everywhere."""
    sizes = replace(TINY, steps=2)
    model = build_model(sizes, CPU)
    masked = torch.full((3, 10), mask_token_id(sizes))
    for fill in (
        lambda: llada_style(model, masked, 2),
        lambda: wrapper_of_x_transformers(model, 10, 2).generate(3, filter_thres=None),
    ):
        seen = []

        def note(module, arguments, given, output, seen=seen):
            seen.append((given["input_ids"].clone(), output.logits))

        handle = model.denoiser.register_forward_hook(note, with_kwargs=True)
        text = fill()
        handle.remove()
        assert [logits.shape for _, logits in seen] == [(3, 10, 40)] * 2
        first, second = (ids == mask_token_id(sizes) for ids, _ in seen)
        assert first.all()
        assert second.sum(1).tolist() == [5, 5, 5]
        kept = ~second
        assert torch.equal(text[kept], seen[1][0][kept])  # what was revealed stays


def test_llada_style_draws_from_the_model_s_own_law():
    """One position, one pass: frequencies of 4,000 draws within 5 standard errors of the softmax.

    40 tokens: a false alarm with odds below 3e-5.
    """
    sizes = replace(TINY, batch_size=4000, length=1, steps=1)
    model = build_model(sizes, CPU)
    with torch.no_grad():
        model.denoiser.get_output_embeddings().weight.mul_(40)
    masked = torch.full((4000, 1), mask_token_id(sizes))
    with torch.no_grad():
        logits = model.denoiser(input_ids=masked[:1]).logits[0, 0].double()
    logits[mask_token_id(sizes)] = -torch.inf
    law = logits.softmax(-1)
    torch.manual_seed(0)
    drawn = llada_style(model, masked, 1).flatten().bincount(minlength=40) / 4000
    assert ((drawn - law).abs() <= 5 * (law * (1 - law) / 4000).sqrt() + 1e-3).all()
    assert law.max() > 2 / 40  # the law is not flat


def test_a_work_that_leaves_a_mask_or_another_shape_is_refused(monkeypatch):
    for name, work in (("lazy", lambda ids: ids), ("short", lambda ids: ids[:, 1:] * 0)):
        monkeypatch.setitem(WORKS, name, Work(lambda model, sizes, work=work: work))
        with pytest.raises(RuntimeError, match=f"'{name}' was to fill .3, 10. masks and returned"):
            measure_cell(Cell("tiny", TINY, (FLOOR, name)), 1, CPU)


def test_growth_is_fitted_over_every_value():
    found = measure_growth(Growth("steps", (1, 2, 4), TINY, (FLOOR, "generate")), 1, CPU)
    assert found["values"] == [1, 2, 4]
    for one in found["works"]:
        assert len(one["seconds_quartiles"]) == 3
        assert one["exponent_std_error"] >= 0
        assert -1 < one["exponent"] < 3


def test_cells_name_works_that_exist_each_beside_its_floor():
    for cell in (*CELLS, *QUICK_CELLS, *GROWTHS, *QUICK_GROWTHS):
        assert {name.removesuffix(HALF) for name in cell.works} <= set(WORKS)
        assert FLOOR in cell.works
        assert FLOOR + HALF in cell.works or not any(n.endswith(HALF) for n in cell.works)
        assert getattr(cell, "floor", FLOOR) in cell.works
        assert all(not WORKS[name.removesuffix(HALF)].is_peer for name in without_peers(cell.works))
    grown = {growth.over: growth.values for growth in GROWTHS}
    assert {"length", "vocab_size", "batch_size", "steps"} == set(grown)


def test_the_second_floor_asks_for_the_masks_that_the_plan_leaves(monkeypatch):
    sizes = replace(TINY, length=11, steps=4)
    model, asked = build_model(sizes, CPU), []
    monkeypatch.setattr(
        benchmark_peers, "run_head", lambda denoiser, states: asked.append(len(states))
    )
    monkeypatch.setattr(benchmark_peers, "rows_at_a_time", lambda denoiser: 1000)
    encoder_and_head_passes(model, torch.full((3, 11), mask_token_id(sizes)), 4)
    rates = get_schedule("linear").mask_rate(step_times(4)[1:])
    left = remaining_counts(torch.tensor([11]), rates)[:, 0].tolist()
    assert asked == [3 * n for n in [11, *left[:-1]]]


@pytest.mark.parametrize("kind", ["bert", "esm", "modernbert"])
def test_logits_spread_as_far_as_is_asked(kind):
    sizes = replace(TINY, encoder=kind, logit_spread=3.0)
    masks = torch.full((2, 10), mask_token_id(sizes))
    with torch.no_grad():
        logits = build_model(sizes, CPU)(input_ids=masks).logits
    assert logits.std(-1).mean().item() == pytest.approx(3, rel=0.01)


def test_a_head_that_cannot_be_spread_is_refused(monkeypatch):
    monkeypatch.setattr(benchmark_shapes, "nn", SimpleNamespace(LayerNorm=torch.nn.RMSNorm))
    with pytest.raises(ValueError, match="head of 'bert' has no LayerNorm"):
        build_model(replace(TINY, logit_spread=3.0), CPU)


def test_a_missing_package_is_named_before_anything_is_measured(monkeypatch):
    monkeypatch.setitem(sys.modules, "x_transformers", None)  # as if it were not installed
    names = [name for cell in CELLS for name in cell.works]
    with pytest.raises(ImportError, match=r"x-transformers.*pip install 'hf_maskgit\[benchmark\]'"):
        check_peers(names)
    check_peers(without_peers(names))


def test_names_under_autocast_are_those_of_works():
    assert in_half(("a", "b")) == ("a, bf16", "b, bf16")
    assert tuple(n for n in FEW if WORKS[n].is_peer) == PEERS
