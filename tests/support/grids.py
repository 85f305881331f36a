"""Large grids of cases: which of them are in the default tier, `@pytest.mark.grid(n, first=0)`.

A case stays there where the sum of its places along the axes, divided by n, leaves `first`, so that
each line of the grid keeps every n-th of its cases; the others are `wide`. Laws over the rows of
one table take turns, each with other rows: every row must stay with some of them (a test). A list
that is written down at a test is a table of its own. `wide(...)` marks a single row.
"""

from collections import defaultdict
from collections.abc import Hashable
from typing import NamedTuple

import pytest


class Table(NamedTuple):
    """Where rows are first taken from, all that are taken, and those that the default tier has."""

    where: str
    rows: list[object]
    kept: set[int]


Tables = dict[Hashable, Table]
TABLES = pytest.StashKey[Tables]()


def wide(*values: object) -> object:
    """Make a row of `parametrize` that is not in the default tier."""
    return pytest.param(*values, marks=pytest.mark.wide)


def thin(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark as wide what does not stay, and remember the tables in the stash of pytest."""
    tables: Tables = {}
    places: dict[tuple[str, str], list[object]] = defaultdict(list)
    for item in items:
        mark = item.get_closest_marker("grid")
        if mark is None:
            continue
        test, _, _ = item.nodeid.partition("[")
        params = item.callspec.params  # type: ignore[attr-defined]
        axes = _axes(item, params)
        total = sum(_place(params[name], places[test, name]) for name in axes)
        stays = total % mark.args[0] == mark.kwargs.get("first", 0)
        for name, key in axes.items():
            table = tables.setdefault(key, Table(f"{test}, {name}", [], set()))
            place = _place(params[name], table.rows)
            table.kept.update([place] if stays else [])
        if not stays:
            item.add_marker(pytest.mark.wide)
    config.stash[TABLES] = tables


def _axes(item: pytest.Item, params: dict[str, object]) -> dict[str, Hashable]:
    """Name an argument of each axis, and tell its table: a list itself, or the file's fixture."""
    axes, given = {}, set()
    for mark in item.iter_markers("parametrize"):
        names, rows = mark.args[:2]
        together = [n.strip() for n in names.split(",")] if isinstance(names, str) else list(names)
        axes[together[0]] = id(rows)
        given.update(together)
    return {**axes, **{name: (item.path, name) for name in params if name not in given}}


def _place(value: object, known: list[object]) -> int:
    """Find the same object among those seen before, or put it behind them."""
    for place, one in enumerate(known):
        if one is value:
            return place
    known.append(value)
    return len(known) - 1


def lost(tables: Tables) -> list[str]:
    """Name what no case of the default tier has."""
    return [
        f"{table.where}: {row!r}"
        for table in tables.values()
        for place, row in enumerate(table.rows)
        if place not in table.kept
    ]
