"""What a benchmark found, as tables and as a picture: all of it from its JSON alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.extras import needs

Found = Mapping[str, Any]  # as `scripts/benchmark.py` writes it

_MIB = 2**20
_SHORT = 7  # digits that tell a commit from others
_INCHES, _DOTS_PER_INCH = (5.0, 3.6), 100  # of one panel


def page_tables(found: Found) -> dict[str, str]:
    """Return the tables of a page by name: the machine, the cells, growth, and training."""
    return {
        "machine": _machine(found),
        "generation": "\n\n".join(map(_cell, found["generation"])) or "Nothing was measured.",
        "growth": _growths(found["growth"]) if found["growth"] else "Nothing was measured.",
        "training": "\n\n".join(map(_cell, found["training"])) or "Nothing was measured.",
        "profile": "\n\n".join(_profile(one) for one in found["training"] if "profile" in one)
        or "Nothing was measured.",
    }


def short_table(found: Found) -> str:
    """Return the first cell of generation and of training as a few lines: ratios to the floor."""
    lines = []
    for kind in ("generation", "training"):
        for cell in found[kind][:1]:
            rows = [(one["name"], _ratio(one)) for one in cell["works"]]
            head = f"{cell['name']}, {_texts(cell['sizes'])}{_later(cell)}"
            lines.append(_table([head, "ratio"], rows))
    return "\n\n".join([*lines, _machine(found)])


def whole_report(found: Found) -> str:
    """Return all tables below each other."""
    return "\n\n".join(page_tables(found).values())


def draw_report(found: Found, path: Path) -> Path:
    """Draw ratios to the floor by cell, and times by the size that grows.

    Args:
        found: of a benchmark.
        path: of the picture; its ending says of which kind.

    Raises:
        ImportError: when matplotlib is not installed.
        ValueError: when nothing was measured.
    """
    figure_class = figure_class_of_matplotlib()
    cells = [*found["generation"], *found["training"]]
    panels = len(cells) + len(found["growth"])
    if not panels:
        raise ValueError("There is nothing to draw: no cell was measured.")
    columns = min(3, panels)
    rows = -(-panels // columns)
    figure = figure_class(figsize=(_INCHES[0] * columns, _INCHES[1] * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for one, cell in zip(axes, cells, strict=False):
        _draw_cell(one, cell)
    for one, growth in zip(axes[len(cells) :], found["growth"], strict=False):
        _draw_growth(one, growth)
    for one in axes[panels:]:
        one.remove()
    figure.savefig(path, dpi=_DOTS_PER_INCH)
    return path


def figure_class_of_matplotlib() -> Any:
    """Return what a picture is made with, before anything is measured for it.

    Raises:
        ImportError: when matplotlib is not installed.
    """
    what = "The picture is drawn by the package matplotlib"
    with needs(what, "plots", ", or ask for no picture"):
        from matplotlib.figure import Figure
    return Figure


def _draw_cell(axes: Any, cell: Mapping[str, Any]) -> None:
    names = [one["name"] for one in cell["works"]]
    low, middle, high = zip(*(one["ratio_quartiles"] for one in cell["works"]), strict=True)
    places = range(len(names), 0, -1)
    below = [m - one for m, one in zip(middle, low, strict=True)]
    above = [one - m for m, one in zip(middle, high, strict=True)]
    axes.barh(places, middle, xerr=[below, above])
    axes.set_yticks(places, names, fontsize=7)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("time, the floor = 1")
    axes.set_title(cell["name"])


def _draw_growth(axes: Any, growth: Mapping[str, Any]) -> None:
    for one in growth["works"]:
        medians = [median for _, median, _ in one["seconds_quartiles"]]
        label = f"{one['name']}: {one['exponent']:.2f}"
        axes.loglog(growth["values"], medians, marker=".", label=label)
    axes.set_xlabel(growth["over"])
    axes.set_ylabel("seconds")
    axes.legend(fontsize=7)
    axes.grid(alpha=0.3)


def _machine(found: Found) -> str:
    machine = found["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    commit = found["commit"] or "an unknown commit"
    told = (
        f"Measured on {found['date']} at {commit} on {machine['device']}: {machine['processor']}, "
        f"{machine['cores']} cores, {machine['threads']} threads of torch; {packages}. Medians of "
        f"{found['rounds']} interleaved rounds, quartiles in brackets."
    )
    load = machine["load"]
    others = "" if load is None else f" Load of the machine before: {load:.1f} processes."
    quick = " Quick: sizes are small, and the figures are no more than a sign of life."
    return told + others + (quick if found["quick"] else "")


def _cell(cell: Mapping[str, Any]) -> str:
    facts = list(dict.fromkeys(name for one in cell["works"] for name in _facts(one)))
    head = ["work", "seconds", "floor = 1", "MiB at the peak", *facts]
    rows = [
        [one["name"], _spread(one["seconds_quartiles"], 3), _ratio(one), _mib(one["peak_bytes"])]
        + [_fact(one[name]) if name in one else "" for name in facts]
        for one in cell["works"]
    ]
    return f"**{cell['name']}**: {_told(cell['sizes'])}{_later(cell)}\n\n{_table(head, rows)}"


def _later(cell: Mapping[str, Any]) -> str:
    """Tell when a cell was measured that replaced another; nothing of all others."""
    own = cell.get("measured")
    if own is None:
        return ""
    commit = own["commit"][:_SHORT] if own["commit"] else "an unknown commit"
    return f"; measured on {own['date']} at {commit}"


def _profile(cell: Mapping[str, Any]) -> str:
    works = cell["profile"]
    parts = list(dict.fromkeys(part for shares in works.values() for part in shares))
    rows = [[part, *(f"{shares[part]:.0%}" for shares in works.values())] for part in parts]
    return _table([f"{cell['name']}: share of the time{_later(cell)}", *works], rows)


def _growths(growths: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(one["name"] for growth in growths for one in growth["works"]))
    rows = []
    for growth in growths:
        fitted = {
            one["name"]: f"{one['exponent']:.2f} +- {one['exponent_std_error']:.2f}"
            for one in growth["works"]
        }
        values = growth["values"]
        over = f"{growth['over']} {values[0]:,} to {values[-1]:,}"
        rows.append([over + _later(growth), *(fitted.get(name, "") for name in names)])
    return _table(["exponent of the time over", *names], rows)


_OF_A_TIMING = ("name", "floor", "seconds", "seconds_quartiles", "ratio_quartiles", "peak_bytes")


def _facts(one: Mapping[str, Any]) -> list[str]:
    return [name for name in one if name not in _OF_A_TIMING]


def _fact(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _told(sizes: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}"
        for name, value in sizes.items()
    )


def _texts(sizes: Mapping[str, Any]) -> str:
    return f"{sizes['batch_size']} x {sizes['length']} tokens, {sizes['vocab_size']:,} words"


def _ratio(one: Mapping[str, Any]) -> str:
    return _spread(one["ratio_quartiles"], 2)


def _spread(quartiles: Sequence[float], digits: int) -> str:
    low, middle, high = (f"{value:.{digits}f}" for value in quartiles)
    return f"{middle} ({low} to {high})"


def _mib(peak: int | None) -> str:
    return "" if peak is None else f"{peak / _MIB:,.0f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
