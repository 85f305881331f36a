"""Patterns of the benchmark: what is filled by them is what they are said to be."""

import pytest
import torch

from hf_maskgit.evaluation.benchmark_generation import CELLS, Cell, measure_cell
from hf_maskgit.evaluation.benchmark_patterns import PATTERNS, _vocabulary, states_of_64
from hf_maskgit.evaluation.benchmark_shapes import Sizes, build_model, mask_token_id
from hf_maskgit.evaluation.benchmark_works import FLOOR, OF_PATTERNS, PLAIN, WORKS

CPU = torch.device("cpu")
SMALL = Sizes("bert", 1, 16, 2, 16, 9000, batch_size=2, length=128, steps=2)


def written(pattern):
    torch.manual_seed(0)
    model = build_model(SMALL, CPU)
    masked = torch.full((SMALL.batch_size, SMALL.length), mask_token_id(SMALL))
    return WORKS[f"{PLAIN}, {pattern}"].make(model, SMALL)(masked)


@pytest.mark.wide
@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_has_a_cell_whose_works_fill_all_masks(pattern):
    name = f"{PLAIN}, {pattern}"
    assert name in OF_PATTERNS[pattern]
    assert any({name, PLAIN} <= set(cell.works) and cell.floor == PLAIN for cell in CELLS)
    found = measure_cell(Cell("small", SMALL, (FLOOR, PLAIN, name), floor=PLAIN), 1, CPU)
    assert [one["filled"] for one in found["works"]] == [0, 1, 1]


def test_the_costliest_has_64_states():
    assert len(states_of_64(SMALL).automaton.final) == 64


@pytest.mark.wide
def test_a_record_has_its_marks_in_their_order():
    marks = _vocabulary(SMALL)[0]
    for row in written("a JSON record").tolist():
        left = [token for token in row if token in marks[:11]]
        expected = [marks[0]]
        for place, name in enumerate(marks[5:11]):
            texts = [] if place % 3 == 1 else [marks[2]] * 2
            expected += [marks[2], name, marks[2], marks[3], *texts, marks[4]]
        assert left == [*expected[:-1], marks[1]]
        assert row[0] == marks[0]
        assert row[-1] == marks[1]


def test_a_date_stands_among_places_that_hold_anything():
    marks, *_, numbers = _vocabulary(SMALL)
    text = written("a date in a sentence")
    assert (text[:, [61, 63]] == marks[0]).all()
    assert torch.isin(text[:, [60, 62, 64]], torch.tensor(numbers[:241])).all()
    assert not torch.isin(text[:, :60], torch.tensor(numbers)).all()
