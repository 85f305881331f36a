"""Large grids of cases: which of them are in the default tier, `@pytest.mark.grid(n)`.

A case stays there where the sum of its places along the axes is a multiple of n, so that each line
of the grid keeps every n-th of its cases; the others are slow tests. Every value of every axis must
stay with some case (a test).
"""

from collections import defaultdict

import pytest

# By test and axis: the places that there are, and those that stay.
Axes = dict[str, dict[str, tuple[set[int], set[int]]]]
AXES = pytest.StashKey[Axes]()


def thin(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark as slow what does not stay, and remember the axes in the stash of pytest."""
    axes: Axes = defaultdict(lambda: defaultdict(lambda: (set(), set())))
    values: dict[tuple[str, str], list[object]] = defaultdict(list)
    for item in items:
        mark = item.get_closest_marker("grid")
        if mark is None:
            continue
        test, places = item.nodeid.partition("[")[0], {}
        for axis in map(_axis, item.iter_markers("parametrize")):
            value, known = item.callspec.params[axis], values[test, axis]  # type: ignore[attr-defined]
            if not any(value is one for one in known):
                known.append(value)
            places[axis] = next(i for i, one in enumerate(known) if one is value)
        stays = sum(places.values()) % mark.args[0] == 0
        for axis, place in places.items():
            whole, kept = axes[test][axis]
            whole.add(place)
            kept.update([place] if stays else [])
        if not stays:
            item.add_marker(pytest.mark.slow)
    config.stash[AXES] = axes


def _axis(mark: pytest.Mark) -> str:
    """Name the first of the arguments that one `parametrize` gives together."""
    names = mark.args[0]
    return names.split(",")[0].strip() if isinstance(names, str) else names[0]


def lost(axes: Axes) -> list[str]:
    """Name what no case of the default tier has."""
    return [
        f"{test}: {axis} {place}"
        for test, of_test in axes.items()
        for axis, (whole, kept) in of_test.items()
        for place in sorted(whole - kept)
    ]
