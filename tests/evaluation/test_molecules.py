"""MOSES' table: its columns, what its package needs today, and its own figures where it is here."""

import importlib
import math
import sys
from types import ModuleType

import pytest

from hf_maskgit.evaluation.molecules import (
    COLUMNS,
    PUBLISHED,
    load_moses,
    moses_metrics,
    moses_table,
)


def test_the_table_has_our_rows_above_the_published_ones():
    ours = {"valid": 0.5, "FCD/Test": 1.25, "logP": 3.0}
    heading, _, first, *others = moses_table({"ours": ours}).splitlines()
    cells = dict(zip(heading.split(" | ")[1:], first.split(" | ")[1:], strict=True))
    assert cells["valid"] == "0.500"
    assert cells["FCD/Test"] == "1.250"
    assert cells["IntDiv"] == ""
    assert [line.split(" | ")[0].removeprefix("| ") for line in others] == list(PUBLISHED)
    assert all(line.count("|") == len(COLUMNS) + 2 for line in (heading, first, *others))


def test_published_figures_are_shares_where_they_have_to_be():
    shares = [i for i, name in enumerate(COLUMNS) if not name.startswith("FCD")]
    assert all(0 <= row[i] <= 1 for row in PUBLISHED.values() for i in shares)


def test_without_moses_a_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "moses", None)
    for name in ("rdkit", "pandas", "matplotlib"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["pandas"].DataFrame = type("DataFrame", (), {"append": None})
    with pytest.raises(ImportError, match=r"pip install --no-deps molsets==0\.3\.1 fcd_torch"):
        load_moses()
    monkeypatch.setitem(sys.modules, "rdkit", None)
    with pytest.raises(ImportError, match=r"hf_maskgit\[molecules\].*rdkit"):
        load_moses()


@pytest.mark.slow
def test_real_molecules_are_measured_as_such():
    """Of the test set itself: all are valid, of one kind with it, and none was trained on."""
    pytest.importorskip("fcd_torch", reason="MOSES is not installed")
    molecules = list(load_moses().get_dataset("test")[:500])
    found = moses_metrics(molecules)
    for name in ("valid", "unique@1000", "SNN/Test", "Novelty"):
        assert found[name] == pytest.approx(1, abs=1e-6), name
    assert found["Filters"] > 0.99
    assert found["Frag/Test"] > 0.95
    assert all(map(math.isfinite, found.values()))
    many = importlib.import_module("moses.metrics.metrics").cos_similarity
    counts = {"a": 3 * 10**5, "b": 10**5}  # as of tens of thousands of molecules
    assert many(counts, counts) == pytest.approx(1)
    assert many(counts, {"c": 10**6}) == pytest.approx(0)
    broken = moses_metrics([*molecules[:250], *["C("] * 250])
    assert broken["valid"] == pytest.approx(0.5)
