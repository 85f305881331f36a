"""The runs that are compared: the same model and texts, as many updates, nothing saved."""

import pytest
import torch

from hf_maskgit.evaluation.benchmark_shapes import Sizes
from hf_maskgit.training import benchmark_loops as loops
from hf_maskgit.training.benchmark_loops import (
    ALL,
    CELLS,
    FLOOR,
    GROUPED,
    OURS,
    QUICK_CELLS,
    WORKS,
    Cell,
    contestants_of,
    make_texts,
    make_tokenizer,
    measure_cell,
)

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("_fresh_accelerate")
TINY = Sizes("bert", 1, 16, 2, 16, 40, batch_size=4, length=30, steps=2)


@pytest.mark.wide
def test_every_run_learns_and_logs_and_is_timed_for_its_updates():
    found = measure_cell(Cell("tiny", TINY, ALL), 1, CPU)
    assert [one["name"] for one in found["works"]] == list(ALL)
    positions = {}
    for one in found["works"]:
        assert (one["passes"], one["rows"], one["floor"]) == (2, 8, FLOOR)
        assert len(one["seconds"]) == 1
        assert one["seconds"][0] > 0
        positions[one["name"]] = one["positions"]
    assert positions[OURS + GROUPED] < positions[OURS]


def test_the_texts_are_framed_and_of_many_lengths():
    tokenizer, texts = make_tokenizer(TINY), make_texts(TINY)
    assert len(texts) == 20 * TINY.batch_size
    lengths = {len(row) for row in texts["input_ids"]}
    assert min(lengths) == 4
    assert max(lengths) <= TINY.length
    assert len(lengths) > 10
    for row in texts["input_ids"]:
        assert (row[0], row[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
        assert not set(row[1:-1]) & set(tokenizer.all_special_ids)
    assert len(tokenizer) == TINY.vocab_size


@pytest.mark.parametrize("fault", ["lazy", "short"])
def test_a_run_that_does_not_learn_as_it_was_to_is_refused(monkeypatch, fault):
    def run(model, tokenizer, texts, sizes, folder):
        ids = torch.tensor([texts[0]["input_ids"]])
        for _ in range(sizes.steps if fault == "lazy" else 1):
            model.denoiser(ids)

    monkeypatch.setitem(WORKS, fault, run)
    with pytest.raises(RuntimeError, match=f"'{fault}' was to learn in 2 passes; it made"):
        measure_cell(Cell("tiny", TINY, (fault,)), 1, CPU)


@pytest.mark.wide
def test_a_run_saves_nothing_and_every_work_has_a_copy_of_the_same_model(tmp_path):
    first, second = contestants_of(Cell("tiny", TINY, (FLOOR, OURS)), CPU, tmp_path)
    for one in (first, second):
        one.seconds()
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".safetensors", ".bin")]


def test_the_cells_compare_our_loop_with_the_floor():
    for cell in (*CELLS, *QUICK_CELLS):
        assert cell.works[:2] == (FLOOR, OURS)
        assert set(cell.works) <= set(loops.WORKS)
