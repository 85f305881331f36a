"""Scaffolds: their open places, what keeps them, and how different molecules are."""

import sys

import pytest

from hf_maskgit.evaluation.scaffolds import (
    core_of,
    draw_grid,
    internal_diversity,
    keeps,
    load_rdkit,
    open_places,
    read_molecule,
)


def test_open_places_have_the_ring_numbers_that_are_free_there():
    left, right, end = open_places("{left:1-4}N1CC2(C[13C@@H]1{right})CC2{end:2}")
    assert (left.name, left.rings, left.attached) == ("left", (1, 2, 3), False)
    assert (right.name, right.rings, right.attached) == ("right", (1, 3, 4), True)
    assert (end.name, end.rings, end.attached) == ("end", (1, 2, 3), True)


@pytest.mark.parametrize(
    ("scaffold", "words"),
    [
        ("c1ccccc1", "has no open place; write a field in braces"),
        ("C123456789{x}", "all nine ring numbers open at {x}"),
    ],
)
def test_a_scaffold_without_room_is_refused(scaffold, words):
    with pytest.raises(ValueError, match=words):
        open_places(scaffold)


def test_the_core_is_what_stays_when_nothing_is_added():
    core = core_of("{left:1-3}c1ccc({x})cc1")
    assert core.GetNumAtoms() == 6
    assert keeps(read_molecule("CCOc1ccc(C(=O)N)cc1"), core)
    assert not keeps(read_molecule("C1CCCCC1"), core)
    with pytest.raises(ValueError, match="is 'c1cc', which RDKit cannot read as a molecule"):
        core_of("c1cc{x}")
    with pytest.raises(ValueError, match="is '', which RDKit cannot read"):
        core_of("{x}")


def test_diversity_is_one_less_the_mean_similarity_of_all_pairs():
    assert internal_diversity([]) is None
    assert internal_diversity(["CCO", "OCC"]) == pytest.approx(0)
    # Benzene and ethane have no fragment in common: two of four pairs are alike.
    assert internal_diversity(["c1ccccc1", "CC"]) == pytest.approx(0.5)


def test_a_picture_has_a_cell_for_every_molecule():
    core = core_of("c1ccccc1{x}")
    picture = draw_grid(["Cc1ccccc1", "Oc1ccccc1", "Nc1ccccc1"], [core] * 3, per_row=2)
    assert picture.size == (480, 300)


def test_without_rdkit_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "rdkit.Chem", None)
    with pytest.raises(ImportError, match=r"pip install 'hf_maskgit\[molecules\]'"):
        load_rdkit()
