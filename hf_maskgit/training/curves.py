"""The curves of a run as one picture, from the log that it leaves: `curves.png`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

from ..core.extras import needs
from .run_files import told_if_it_fails
from .run_log import CURVES_NAME, LOG_NAME, read_lines

_INCHES, _DOTS_PER_INCH = (6.0, 3.4), 100  # of one panel
_MOST_MARKED = 30  # points of a curve that are marked each
_BAND = 2  # standard errors on either side of a bound


@dataclass(frozen=True)
class Panel:
    """One of the pictures side by side.

    Attributes:
        title: what it shows.
        unit: of its values.
        names: in the log, of the curves that it shows where they are there.
        error: name in the log of the standard error of the first of them.
    """

    title: str
    unit: str
    names: Sequence[str]
    error: str | None = None


PANELS = (
    Panel("Training loss", "nats per token", ("loss", "denoiser_loss", "critic_loss")),
    Panel("Held-out bound", "nats per token", ("eval_nats_per_token",), "eval_std_error"),
    Panel("Critic on held-out texts", "AUROC", ("eval_critic_auroc",)),
    Panel("Learning rate", "learning rate", ("learning_rate",)),
    Panel("Speed", "tokens per second", ("tokens_per_second",)),
)


def series(lines: Sequence[Mapping[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Return the updates and the values of one name of a log, each update once, in order."""
    values = {line["step"]: float(line[name]) for line in lines if name in line}
    steps = sorted(values)
    return steps, [values[step] for step in steps]


def draw_curves(runs: Mapping[str, Path], path: Path) -> Path:
    """Draw the curves of one run, or of several on the same axes.

    Args:
        runs: the folder of each, by the name it bears in the picture.
        path: of the picture; its ending says of which kind, such as ".png" or ".svg".

    Returns:
        The same path.

    Raises:
        ImportError: when matplotlib is not installed.
        ValueError: for a folder without a log, or logs that tell of no update.
        RuntimeError: when the picture cannot be written.
    """
    figure_class = _figure_class()
    logs = {name: list(read_lines(folder / LOG_NAME)) for name, folder in runs.items()}
    told = {name for lines in logs.values() for line in lines for name in line}
    panels = [panel for panel in PANELS if told.intersection(panel.names)]
    if not panels:
        raise ValueError(f"There is nothing to draw yet: {', '.join(runs)} told of no update.")
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    size = (_INCHES[0] * columns, _INCHES[1] * rows)
    figure = figure_class(figsize=size, layout="constrained")
    for axes, panel in zip(
        figure.subplots(rows, columns, squeeze=False).flat, panels, strict=False
    ):
        _draw(axes, panel, logs)
    for axes in list(figure.axes)[len(panels) :]:
        axes.remove()
    with told_if_it_fails(path, "Make room, or name another file."):
        figure.savefig(path, dpi=_DOTS_PER_INCH)
    return path


def draw_own_curves(folder: Path) -> Path:
    """Draw the curves of a run into its folder; see `draw_curves`."""
    return draw_curves({folder.resolve().name: folder}, folder / CURVES_NAME)


def _draw(axes: Any, panel: Panel, logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    axes.set_title(panel.title)
    axes.set_xlabel("updates")
    axes.set_ylabel(panel.unit)
    axes.grid(alpha=0.3)
    curves = [
        (run, name, lines)
        for run, lines in logs.items()
        for name in panel.names
        if any(name in line for line in lines)
    ]
    parts = [len({run for run, *_ in curves}) > 1, len({name for _, name, _ in curves}) > 1]
    for run, name, lines in curves:
        steps, values = series(lines, name)
        label = ", ".join(compress((run, name), parts))
        marker = "." if len(steps) <= _MOST_MARKED else None
        (line,) = axes.plot(steps, values, marker=marker, label=label or name)
        if panel.error is not None:
            _, errors = series(lines, panel.error)
            low = [v - _BAND * e for v, e in zip(values, errors, strict=True)]
            high = [v + _BAND * e for v, e in zip(values, errors, strict=True)]
            axes.fill_between(steps, low, high, alpha=0.25, color=line.get_color())
    if len(curves) > 1:
        axes.legend()


def _figure_class() -> Any:
    later = f". The numbers are in {LOG_NAME!r}; `hf-maskgit plot` draws them later"
    with needs("Curves are drawn by the package matplotlib", "plots", later):
        from matplotlib.figure import Figure
    return Figure
