"""Quality against passes as a picture, from the figures of `scripts/compare_samplers.py` alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .benchmark_report import figure_class_of_matplotlib

Row = Mapping[str, Any]

# What runs along a curve; samplers that are alike in all else lie on one.
_KNOBS = ("steps", "confidence_threshold", "threshold_factor", "entropy_budget")
_MEASURES = {
    "nats_per_token": "nats per token, given the rest",
    "difference": "share of differing places",
}
_INCHES, _DOTS_PER_INCH = (5.0, 3.6), 100  # of one panel


def draw_curves(found: Mapping[str, Sequence[Row]], path: Path) -> Path:
    """Draw both measures over the passes, with their standard errors; a line of panels per model.

    Args:
        found: figures as the script returns them, by the name of the model.
        path: of the picture; its ending says of which kind.

    Raises:
        ImportError: when matplotlib is not installed.
    """
    figure_class = figure_class_of_matplotlib()
    size = (_INCHES[0] * len(_MEASURES), _INCHES[1] * len(found) + 1)
    figure = figure_class(figsize=size, layout="constrained")
    panels = figure.subplots(len(found), len(_MEASURES), squeeze=False)
    shown: dict[str, Any] = {}  # of each sampler one curve, for the legend; its colour is one, too
    for line, (model, rows) in zip(panels, found.items(), strict=True):
        for axes, (measure, label) in zip(line, _MEASURES.items(), strict=True):
            axes.set(xscale="log", xlabel="passes per text", ylabel=label, title=model)
            axes.grid(alpha=0.3)
            for name, points in curves(rows).items():
                color = shown[name].lines[0].get_color() if name in shown else f"C{len(shown)}"
                shown.setdefault(name, _draw_curve(axes, points, measure, color))
    figure.legend(
        list(shown.values()), list(shown), loc="outside lower center", ncols=2, fontsize=7
    )
    figure.savefig(path, dpi=_DOTS_PER_INCH)
    return path


def _draw_curve(axes: Any, points: Sequence[Row], measure: str, color: str) -> Any:
    return axes.errorbar(
        [row["passes"] for row in points],
        [row[measure] for row in points],
        xerr=[row["standard_errors"]["passes"] for row in points],
        yerr=[row["standard_errors"][measure] for row in points],
        color=color,
        marker=".",
        linewidth=0.9,
    )


def curves(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Put samplers that differ in how fast they go alone on one curve, by its passes."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        along = [name for name in _KNOBS if name in row["options"]]
        rest = {name: value for name, value in row["options"].items() if name not in along}
        words = [f"{name}={value!r}" for name, value in rest.items()]
        name = ", ".join(words) or "the defaults"
        if along and along != ["steps"]:
            name += f", by {' and '.join(along)}"
        found.setdefault(name, []).append(row)
    return {name: sorted(points, key=lambda row: row["passes"]) for name, points in found.items()}
