"""The quality of texts as a table and as pictures, from rows of `TextMeter` alone."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .benchmark_report import figure_class_of_matplotlib
from .text_quality import MEASURES

Row = Mapping[str, Any]

_OVER_PASSES = ("perplexity", "token_entropy", "mauve", "distinct_2", "self_bleu", "copied_share")
_INCHES, _DOTS_PER_INCH = (4.6, 3.4), 100  # of one panel


def quality_table(rows: Sequence[Row]) -> str:
    """Write rows as a Markdown table; a column that no row has is left out.

    Args:
        rows: with a `name` and numbers of `MEASURES`.
    """
    columns = [name for name in MEASURES if any(name in row for row in rows)]
    lines = [
        "| texts | " + " | ".join(MEASURES[name] for name in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for row in rows:
        cells = (f"{row[name]:.4g}" if name in row else "" for name in columns)
        lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw_frontier(rows: Sequence[Row], path: Path) -> Path:
    """Draw perplexity over token entropy: a curve over the temperature for each number of steps.

    Texts that were not written in this run, the real ones among them, are points.

    Args:
        rows: with `perplexity` and `token_entropy`; written ones with `temperature` and `steps`.
        path: of the picture.

    Raises:
        ImportError: when matplotlib is not installed.
    """
    figure = figure_class_of_matplotlib()(figsize=(6.4, 4.8), layout="constrained")
    axes = figure.subplots()
    axes.set(
        yscale="log",
        xlabel="entropy of a text's tokens, nats",
        ylabel="perplexity under the judge",
    )
    axes.grid(alpha=0.3)
    for steps, points in _curves(rows, "steps", lambda row: row["temperature"]).items():
        x, y = ([row[name] for row in points] for name in ("token_entropy", "perplexity"))
        axes.plot(x, y, marker=".", label=f"steps={steps}")
        for row in points:
            place = (row["token_entropy"], row["perplexity"])
            axes.annotate(
                f"{row['temperature']:g}", place, xytext=(4, 4), textcoords="offset points"
            )
    for number, row in enumerate(row for row in rows if "steps" not in row):
        axes.plot(
            row["token_entropy"],
            row["perplexity"],
            "*x+dso"[number % 7],
            color="black",
            markersize=10,
            label=row["name"],
        )
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=_DOTS_PER_INCH)
    return path


def draw_over_passes(rows: Sequence[Row], path: Path) -> Path:
    """Draw measures over the passes per text: a curve for each temperature, real texts as a line.

    Args:
        rows: written ones with `temperature` and `passes`; one of real texts with neither.
        path: of the picture.

    Raises:
        ImportError: when matplotlib is not installed.
    """
    measures = [name for name in _OVER_PASSES if any(name in row for row in rows)]
    lines = -(-len(measures) // 3)
    size = (_INCHES[0] * 3, _INCHES[1] * lines)
    figure = figure_class_of_matplotlib()(figsize=size, layout="constrained")
    panels = list(figure.subplots(lines, 3, squeeze=False).flat)
    for axes, measure in zip(panels, measures, strict=False):
        axes.set(xscale="log", xlabel="passes per text", ylabel=MEASURES[measure])
        axes.grid(alpha=0.3)
        for temperature, points in _curves(rows, "temperature", lambda r: r["passes"]).items():
            x, y = ([row[name] for row in points] for name in ("passes", measure))
            axes.plot(x, y, marker=".", label=f"temperature={temperature:g}")
        for row in rows[:1]:  # the real ones
            axes.axhline(row[measure], color="black", linestyle=":", label=row["name"])
    for axes in panels[len(measures) :]:
        axes.remove()
    panels[0].legend(fontsize=8)
    figure.savefig(path, dpi=_DOTS_PER_INCH)
    return path


def _curves(rows: Sequence[Row], of: str, along: Callable[[Row], float]) -> dict[Any, list[Row]]:
    """Put the rows that agree in one option on one curve, ordered by what runs along it."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        if of in row:
            found.setdefault(row[of], []).append(row)
    return {value: sorted(points, key=along) for value, points in found.items()}
