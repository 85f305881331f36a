"""Tables and picture of a benchmark; the pages show what the committed figures say."""

import json
import sys

import pytest

from hf_maskgit.evaluation.benchmark_report import (
    draw_report,
    page_tables,
    short_table,
    whole_report,
)
from tests.support import speed_table
from tests.support.pages import between

SIZES = {"encoder": "bert", "vocab_size": 30522, "batch_size": 8, "length": 128}


def work(name, ratio, peak=3 * 2**20, **facts):
    return {
        "name": name,
        "floor": "bare",
        "seconds": [ratio],
        "seconds_quartiles": [ratio, ratio + 0.5, ratio + 1],
        "ratio_quartiles": [ratio, ratio + 0.25, ratio + 0.5],
        "peak_bytes": peak,
        **facts,
    }


def figures():
    grown = {
        "name": "bare",
        "seconds_quartiles": [[1, 1, 1], [2, 2, 2]],
        "exponent": 0.5,
        "exponent_std_error": 0.125,
    }
    return {
        "date": "2026-01-02",
        "commit": "abc",
        "machine": {
            "device": "the CPU",
            "processor": "A chip",
            "cores": 2,
            "threads": 1,
            "load": 0.25,
        },
        "packages": {"torch": "2.0"},
        "quick": False,
        "rounds": 7,
        "generation": [
            {"name": "one", "sizes": SIZES, "works": [work("bare", 1.0, passes=18, tokens=16384)]},
            {"name": "two", "sizes": SIZES, "works": [work("bare", 1.0, peak=None)]},
        ],
        "growth": [{"over": "length", "values": [64, 2048], "sizes": SIZES, "works": [grown]}],
        "training": [
            {
                "name": "three",
                "sizes": SIZES,
                "works": [work("update", 0.5)],
                "profile": {"update": {"loss": 0.25, "all else": 0.75}},
            }
        ],
    }


def test_a_row_tells_median_quartiles_ratio_memory_and_facts():
    tables = page_tables(figures())
    assert tables["generation"].splitlines()[2:5] == [
        "| work | seconds | floor = 1 | MiB at the peak | passes | tokens |",
        "|---|---|---|---|---|---|",
        "| bare | 1.500 (1.000 to 2.000) | 1.25 (1.00 to 1.50) | 3 | 18 | 16,384 |",
    ]
    assert "| bare | 1.500 (1.000 to 2.000) | 1.25 (1.00 to 1.50) |  |" in tables["generation"]
    assert tables["growth"].splitlines()[2] == "| length 64 to 2,048 | 0.50 +- 0.12 |"
    assert "| loss | 25% |" in tables["profile"]
    for word in ("2026-01-02", "abc", "A chip", "2 cores", "1 threads", "torch 2.0", "7 inter"):
        assert word in tables["machine"]
    assert "sign of life" not in tables["machine"]
    assert "sign of life" in page_tables({**figures(), "quick": True})["machine"]


def test_the_short_table_has_the_first_cells_alone():
    told = short_table(figures())
    assert "| one, 8 x 128 tokens, 30,522 words | ratio |" in told
    assert "| update | 0.75 (0.50 to 1.00) |" in told
    assert "two" not in told


def test_what_was_measured_later_says_so():
    found = figures()
    for kind in ("generation", "growth", "training"):
        found[kind][0]["measured"] = {"date": "2026-03-04", "commit": "later"}
    told = "; measured on 2026-03-04 at later"
    tables = page_tables(found)
    assert (
        f"**one**: encoder bert, vocab_size 30,522, batch_size 8, length 128{told}\n"
        in (tables["generation"])
    )
    assert f"| length 64 to 2,048{told} |" in tables["growth"]
    assert f"| three: share of the time{told} |" in tables["profile"]
    assert tables["generation"].count(told) == tables["training"].count(told) == 1
    assert short_table(found).count(told) == 2
    found["training"][0]["measured"]["commit"] = None
    assert "2026-03-04 at an unknown commit" in page_tables(found)["training"]


@pytest.mark.wide
def test_what_was_not_measured_is_said():
    empty = {**figures(), "generation": [], "growth": [], "training": []}
    assert whole_report(empty).count("Nothing was measured.") == 4
    with pytest.raises(ValueError, match="There is nothing to draw: no cell was measured"):
        draw_report(empty, None)


@pytest.mark.wide
def test_the_picture_has_a_panel_for_each_cell_and_growth(tmp_path):
    path = draw_report(figures(), tmp_path / "a.png")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_missing_matplotlib_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(
        ImportError, match=r"pip install 'hf_maskgit\[plots\]', or ask for no picture"
    ):
        draw_report(figures(), tmp_path / "a.png")


def test_the_pages_show_the_committed_figures():
    found = json.loads(speed_table.FOUND.read_text())
    for page, tables in speed_table.tables(found).items():
        for name, content in tables.items():
            assert between(page.read_text(), name) == content, "python -m tests.support.speed_table"
