"""What a few written molecules are worth, against counting by hand."""

import math
import sys

import pytest

from hf_maskgit.evaluation.molecule_samples import molecule_figures


def test_figures_of_four_texts_counted_by_hand():
    """Benzene and ethane, with no fragment in common, ethane again in other words, and no molecule.

    Of nine pairs of the three valid ones, each beside itself too, five are alike and four are not:
    a mean similarity of 1/3 for benzene, of 2/3 for each ethane.
    """
    found = molecule_figures(["c1ccccc1", "CC", "C(C)", "C1CC"])
    assert found.valid == pytest.approx((0.75, math.sqrt(0.75 * 0.25 / 4)))
    assert found.unique == pytest.approx(2 / 3)
    spread = math.sqrt((2 * (1 / 9) ** 2 + (2 / 9) ** 2) / 2)
    assert found.diversity == pytest.approx((4 / 9, 2 * spread / math.sqrt(3)))
    assert found.atoms == pytest.approx((10 / 3, math.sqrt(16 / 3) / math.sqrt(3)))


def test_one_valid_molecule_says_nothing_of_others():
    found = molecule_figures(["CCO", "("])
    assert (found.valid.value, found.unique, found.atoms.value) == (0.5, 1, 3)
    assert found.diversity == (0, math.inf)


def test_without_a_valid_one_nothing_else_is_known():
    assert molecule_figures(["(", ""]) == ((0, 0), None, None, None)


def test_no_text_is_refused():
    with pytest.raises(ValueError, match="There is no molecule to measure; give one or more texts"):
        molecule_figures([])


def test_without_rdkit_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "rdkit.rdBase", None)
    with pytest.raises(ImportError, match=r"pip install 'hf_maskgit\[molecules\]'"):
        molecule_figures(["C"])
