"""docs/samplers.md says what the code does: its lists are complete, its numbers come out again."""

import itertools
import re

import pytest

from hf_maskgit.core.sampler_choices import P2_PLANNERS, resolve_choices
from hf_maskgit.core.sampler_orders import ORDERS
from hf_maskgit.core.sampler_presets import PRESETS
from hf_maskgit.core.sampler_rules import PACES, REMASKS
from tests.support import digests, sampler_table
from tests.support.pages import between

PAGE = sampler_table.PAGE.read_text(encoding="utf-8")


def rows_of(name):
    """Cells of a generated table, without its head."""
    lines = between(PAGE, name).splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_digests_write_down_every_name():
    names = digests.ORDERS, digests.PACES, digests.REMASKS, digests.PRESETS
    assert [set(some) for some in names] == [set(t) for t in (ORDERS, PACES, REMASKS, PRESETS)]


def test_the_page_lists_exactly_the_legal_combinations():
    """By trying them all: whatever `resolve_choices` accepts, and nothing else."""
    legal = set()
    for order, pace, remask, planner in itertools.product(ORDERS, PACES, REMASKS, P2_PLANNERS):
        try:
            legal.add((*resolve_choices(order, pace, remask, planner), planner))
        except ValueError:
            continue
    listed = set()
    for remask_cell, pace_cell, order_cell in rows_of("legal combinations"):
        remask, *planner = re.findall(r'"(\w+)"', remask_cell)
        orders = re.findall(r'"(\w+)"', order_cell)
        (pace,) = re.findall(r'"(\w+)"', pace_cell)
        for one in planner or P2_PLANNERS:
            assert resolve_choices(None, pace, remask, one).order == orders[0]
            listed |= {(order, pace, remask, one) for order in orders}
    assert listed == legal
    assert between(PAGE, "legal combinations") == sampler_table.legal_combinations()


@pytest.mark.parametrize("name", sampler_table.lists())
def test_the_page_says_of_every_value_what_its_row_says(name):
    """Where this fails, `python -m tests.support.sampler_table --lists` writes them anew."""
    assert between(PAGE, name) == sampler_table.lists()[name]


def test_the_page_has_a_cell_for_every_measurement():
    for denoiser in sampler_table.DENOISERS:
        rows = rows_of(f"distances {denoiser}")
        assert [row[0] for row in rows] == list(map(sampler_table.name_of, sampler_table.BY_STEPS))
        for options, row in zip(sampler_table.BY_STEPS, rows, strict=True):
            filled = [bool(cell) for cell in row[1:]]
            assert sum(filled) == len(sampler_table.steps_of(options))
    rows = rows_of("distances by certainty")
    assert [row[0] for row in rows] == list(map(sampler_table.name_of, sampler_table.BY_CERTAINTY))
    assert all(all(row) for row in rows)
    mean, deviation = sampler_table.noise_floor()
    assert f"{mean:.3f} away" in PAGE
    assert f"{deviation:.3f};" in PAGE


def check(cell, denoiser, options, steps):
    """Measure again with other noise and compare.

    One sample more or less moves a distance by 1 / 20,000 at most, so by McDiarmid's inequality two
    measurements differ by more than 0.03 with odds of 2 exp(-20,000 x 0.03^2) = 3e-8 per cell.
    """
    shown = float(re.match(r"\**(\d\.\d{3})", cell)[1])
    distance, passes = sampler_table.measure(denoiser, options, steps, seed=1_000_000)
    assert distance == pytest.approx(shown, abs=0.03 + 0.0005)
    bracket = re.search(r"\((.*)\)", cell)
    expected = [float(n) for n in (bracket[1] if bracket else str(steps)).split(" + ")]
    assert [float(n) for n in passes.split(" + ")] == pytest.approx(expected, abs=0.11)


@pytest.mark.slow
@pytest.mark.parametrize("denoiser", sampler_table.DENOISERS)
@pytest.mark.parametrize(
    "options", sampler_table.BY_STEPS, ids=lambda options: "-".join(map(str, options.values()))
)
def test_distances_come_out_again(denoiser, options):
    """At 3 and 6 steps, every sampler."""
    row = rows_of(f"distances {denoiser}")[sampler_table.BY_STEPS.index(options)]
    columns = (*sampler_table.STEPS, *sampler_table.MORE_STEPS)
    for steps in (3, 6):
        check(row[1 + columns.index(steps)], denoiser, options, steps)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", sampler_table.BY_CERTAINTY, ids=lambda options: "-".join(map(str, options.values()))
)
def test_distances_by_certainty_come_out_again(options):
    row = rows_of("distances by certainty")[sampler_table.BY_CERTAINTY.index(options)]
    for denoiser, cell in zip(sampler_table.DENOISERS, row[1:], strict=True):
        check(cell, denoiser, options, sampler_table.LENGTH)
