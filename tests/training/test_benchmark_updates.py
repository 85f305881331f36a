"""The updates that are compared: the same weights, the same texts, each learns in one pass."""

from dataclasses import replace

import pytest
import torch

from hf_maskgit.evaluation.benchmark_shapes import Sizes, build_model
from hf_maskgit.evaluation.benchmark_works import HALF
from hf_maskgit.training import benchmark_updates as updates
from hf_maskgit.training.benchmark_updates import (
    ALL,
    CELLS,
    FLOOR,
    OURS,
    QUICK_CELLS,
    WORKS,
    Cell,
    contestants_of,
    make_batch,
    measure_cell,
)

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("_fresh_accelerate")
TINY = Sizes("bert", 1, 16, 2, 16, 40, batch_size=4, length=10, steps=1)


@pytest.mark.wide
def test_every_work_learns_in_one_pass():
    found = measure_cell(Cell("tiny", TINY, ALL), 2, CPU)
    assert [one["name"] for one in found["works"]] == list(ALL)
    for one in found["works"]:
        assert (one["passes"], one["rows"], one["floor"]) == (1, 4, FLOOR)
        assert one["peak_bytes"] > 0
        assert len(one["seconds"]) == 2
        shares = found["profile"][one["name"]]
        assert sum(shares.values()) == pytest.approx(1)
        assert shares["matrix products"] > 0
        assert shares["loss"] > 0
    assert not torch.is_autocast_enabled("cpu")  # or all that follow would be in bfloat16
    plain, ours = (one["gigaoperations"] for one in found["works"][:2])
    assert ours < plain  # the head's, at hidden tokens alone


@pytest.mark.wide
def test_products_are_counted_whoever_multiplies():
    """From a width of 128 on oneDNN multiplies in float32; in half precision torch asks for it."""
    wide = replace(TINY, hidden=128, intermediate=256, vocab_size=300)
    found = measure_cell(Cell("wide", wide, ALL), 1, CPU)
    operations = {one["name"]: one["gigaoperations"] for one in found["works"]}
    assert operations[FLOOR] == operations[FLOOR + HALF]
    assert operations[OURS] == operations[OURS + HALF]
    assert updates._part_of("mkldnn::_linear_pointwise") == "matrix products"


def test_the_batch_hides_a_growing_share_of_each_text():
    batch = make_batch(TINY, CPU)
    chosen = batch["masked_positions"]
    assert chosen.sum(1).tolist() == [2, 4, 7, 9]  # ceil of 1.25, 3.75, 6.25, 8.75
    mask_id = updates.mask_token_id(TINY)
    assert (batch["input_ids"] == mask_id).equal(chosen)
    assert not (batch["labels"] == mask_id).any()
    assert batch["labels"].max() < TINY.vocab_size


def test_both_steps_have_the_same_loss_where_nothing_is_weighed():
    """A plain step divides by the hidden tokens, an update by all: the sums are equal.

    But for the mask, which has about 1/40 of a random model's probability and none of ours, and for
    dropout, which is off: log(40/39) = 0.025 of about 3.7 nats.
    """
    batch = make_batch(TINY, CPU)
    del batch["loss_weights"]
    losses = {}
    for name in (FLOOR, OURS):
        torch.manual_seed(0)
        model = build_model(TINY, CPU)
        optimizer = torch.optim.AdamW(model.parameters())
        losses[name] = WORKS[name](model, optimizer, dict(batch))
    hidden, every = batch["masked_positions"].sum(), batch["labels"].numel()
    assert float(losses[FLOOR] * hidden) == pytest.approx(float(losses[OURS] * every), rel=0.02)


@pytest.mark.parametrize("fault", ["lazy", "twice", "wild"])
def test_a_step_that_does_not_learn_as_it_was_to_is_refused(monkeypatch, fault):
    def step(model, optimizer, batch):
        loss = updates.plain_step(model, optimizer, batch) if fault != "lazy" else torch.ones(())
        if fault == "twice":
            updates.plain_step(model, optimizer, batch)
        return loss * float("nan") if fault == "wild" else loss

    monkeypatch.setitem(WORKS, fault, step)
    with pytest.raises(RuntimeError, match=f"'{fault}' was to learn in one pass; it made"):
        measure_cell(Cell("tiny", TINY, (FLOOR, fault)), 1, CPU)


def test_every_work_has_a_copy_of_the_same_model():
    """Without dropout the first losses are equal, also when another has learned already."""
    monotone = Cell("tiny", TINY, (FLOOR, FLOOR))
    torch.manual_seed(0)
    first, second = contestants_of(monotone, CPU)
    torch.manual_seed(1)
    one = first.work()
    torch.manual_seed(1)
    assert torch.equal(second.work(), one)
    torch.manual_seed(1)
    assert not torch.equal(second.work(), one)  # it has learned


def test_the_cells_compare_all_works():
    assert {cell.works for cell in (*CELLS, *QUICK_CELLS)} == {ALL}
