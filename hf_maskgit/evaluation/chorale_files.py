"""Grids of chorales as MIDI, written and read by music21, and as a picture of a piano roll."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from .benchmark_report import figure_class_of_matplotlib
from .chorales import (
    STEPS_PER_BAR,
    STEPS_PER_QUARTER,
    VOICES,
    grid_of_parts,
    music21_module,
    notes_of,
    ranges_of,
)

_TEMPO = 80  # quarters per minute
_COLOURS = ("tab:red", "tab:orange", "tab:green", "tab:blue")


def write_midi(grid: Tensor, path: Path) -> None:
    """Write a grid (T, 4) long as a MIDI file, a track for each voice.

    Raises:
        ImportError: when music21 is not installed.
    """
    stream, note = music21_module("stream"), music21_module("note")
    score = stream.Score()
    for name, notes in zip(VOICES, notes_of(grid), strict=True):
        part = stream.Part(id=name)
        part.partName = name
        part.insert(0, music21_module("tempo").MetronomeMark(number=_TEMPO))
        part.insert(0, music21_module("instrument").Choir())
        for one in notes:
            part.insert(one.begin, note.Note(one.pitch, quarterLength=one.end - one.begin))
        score.insert(0, part)
    score.write("midi", fp=path)


def read_midi(path: Path, steps: int) -> Tensor:
    """Read a MIDI file of four tracks, from the soprano down, as a grid (steps, 4) long.

    Raises:
        ImportError: when music21 is not installed.
        ValueError: for another number of tracks with notes.
    """
    parts = list(music21_module("converter").parse(path, format="midi").parts)
    if len(parts) != len(VOICES):
        raise ValueError(
            f"{str(path)!r} has {len(parts)} tracks; a chorale has {len(VOICES)}, from the soprano "
            "down."
        )
    return grid_of_parts(parts, steps)


def draw_rolls(
    lines: Mapping[str, tuple[Tensor, Tensor]], columns: tuple[str, ...], path: Path
) -> None:
    """Draw windows as piano rolls, what is hidden on a grey ground.

    Args:
        lines: for the name of each line of the picture its windows (columns, T, 4) long, and what
            of them is hidden, (T, 4) bool.
        columns: what stands above each column.
        path: of the picture.

    Raises:
        ImportError: when matplotlib is not installed.
    """
    size = (4.0 * len(columns), 2.4 * len(lines))
    figure = figure_class_of_matplotlib()(figsize=size, layout="constrained")
    axes = figure.subplots(len(lines), len(columns), squeeze=False, sharex=True, sharey="row")
    for row, (name, (grids, hidden)) in zip(axes, lines.items(), strict=True):
        for axis, grid in zip(row, grids, strict=True):
            _draw_roll(axis, grid, hidden, ranges_of(grids))
        row[0].set_ylabel(name)
    for axis, title in zip(axes[0], columns, strict=True):
        axis.set_title(title)
    for axis in axes[-1]:
        axis.set_xlabel("quarters")
    handles = [axes[0][0].plot([], [], color=c, linewidth=4)[0] for c in _COLOURS]
    figure.legend(handles, VOICES, loc="outside lower center", ncols=len(VOICES))
    figure.savefig(path, dpi=80)


def _draw_roll(axis: Any, grid: Tensor, hidden: Tensor, ranges: Tensor) -> None:
    """Draw one window; of a hidden voice the ground reaches over the pitches that it has."""
    for voice, notes in enumerate(notes_of(grid)):
        low, high = ranges[voice].tolist()
        for step in hidden[:, voice].nonzero()[:, 0].tolist():
            left, width = step / STEPS_PER_QUARTER, 1 / STEPS_PER_QUARTER
            axis.broken_barh([(left, width)], (low - 0.8, high - low + 1.6), color="0.9", zorder=0)
        for one in notes:
            gap = 0.08  # so that a repeated note is seen
            bar = [(float(one.begin), float(one.end - one.begin) - gap)]
            axis.broken_barh(bar, (one.pitch - 0.4, 0.8), color=_COLOURS[voice])
    quarters = STEPS_PER_BAR // STEPS_PER_QUARTER
    axis.set_xticks(range(0, len(grid) // STEPS_PER_QUARTER + 1, quarters))
    axis.set_ylim(int(ranges[:, 0].min()) - 2, int(ranges[:, 1].max()) + 2)
    axis.set_xlim(0, len(grid) / STEPS_PER_QUARTER)
