"""Four-part chorales as grids of ids: read from music21's corpus, cut, and transposed.

A grid has a line for each step of time and a column for each voice: soprano, alto, tenor, bass. An
id says what sounds in a voice at a step: nothing, or a pitch. As in Coconet (arXiv 1903.07227) a
repeated note and a long one are the same; Coconet's steps are sixteenths, these are eighths.

Letters: T steps, 4 voices, W windows.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..core.extras import needs

VOICES = ("Soprano", "Alto", "Tenor", "Bass")
# MIDI numbers from B1 to A5: Coconet's, and one below, where no voice of Bach's goes. So the id 1,
# which encoders of MPNet's kind take for padding, is never read.
LOWEST, PITCHES = 35, 47
REST = 0
VOCAB_SIZE = 1 + PITCHES
STEPS_PER_QUARTER = 2
STEPS_PER_BAR = 4 * STEPS_PER_QUARTER  # of four quarters, whatever the metre of a chorale
_TUNE = 8  # intervals at the beginning of a soprano that tell tunes apart
_CORPUS = "bach"


class Note(NamedTuple):
    """A note of one voice; times are in quarters from the beginning."""

    begin: Fraction
    end: Fraction
    pitch: int


class Chorale(NamedTuple):
    """A chorale: its name in the corpus, such as "bwv10.7", and its grid (T, 4) long."""

    name: str
    grid: Tensor


def grid_of(voices: Sequence[Iterable[Note]], steps: int) -> Tensor:
    """Write four voices of notes as a grid (steps, 4) long.

    A step has the note that sounds as it begins; a note ends where the next one begins. One that
    lies between two beginnings is lost.
    """
    grid = torch.full((steps, len(VOICES)), REST)
    for voice, notes in enumerate(voices):
        for note in sorted(notes):
            first, end = (-(-time * STEPS_PER_QUARTER // 1) for time in (note.begin, note.end))
            if first < min(end, steps):
                grid[int(first) :, voice] = REST
                grid[int(first) : int(end), voice] = id_of(note.pitch)
    return grid


def notes_of(grid: Tensor) -> list[list[Note]]:
    """Read the notes of the voices out of a grid (T, 4) long, as long as a pitch stays."""
    step = Fraction(1, STEPS_PER_QUARTER)
    voices: list[list[Note]] = []
    for column in pitches_of(grid).T.tolist():
        notes, begin = [], 0
        for pitch, group in itertools.groupby(column):
            end = begin + len(list(group))
            if pitch:
                notes.append(Note(begin * step, end * step, pitch))
            begin = end
        voices.append(notes)
    return voices


def id_of(pitch: int) -> int:
    """Return the id of a pitch.

    Raises:
        ValueError: for a pitch that no voice has.
    """
    if not LOWEST <= pitch < LOWEST + PITCHES:
        raise ValueError(
            f"Pitches lie in {LOWEST}..{LOWEST + PITCHES - 1} (MIDI numbers), got {pitch}."
        )
    return 1 + pitch - LOWEST


def pitches_of(ids: Tensor) -> Tensor:
    """Return the MIDI numbers of ids, 0 where nothing sounds; of the same shape."""
    return torch.where(ids == REST, 0, LOWEST - 1 + ids)


def begins(grids: Tensor) -> Tensor:
    """Tell where a note begins in grids (..., T, 4) long, bool of the same shape."""
    changes = torch.ones_like(grids, dtype=torch.bool)
    changes[..., 1:, :] = grids.diff(dim=-2) != 0
    return changes & (grids != REST)


def windows_of(grid: Tensor, length: int, stride: int) -> Tensor:
    """Cut a grid (T, 4) into windows (W, length, 4), one every `stride` steps.

    What is left at the end fills none, and is dropped.
    """
    if len(grid) < length:
        return grid.new_empty(0, length, len(VOICES))
    return grid.unfold(0, length, stride).transpose(1, 2)


def transposed(grid: Tensor, semitones: int) -> Tensor:
    """Move all pitches of a grid of any shape; `shifts_within` says how far it can be moved."""
    return torch.where(grid == REST, REST, grid + semitones)


def ranges_of(grids: Iterable[Tensor]) -> Tensor:
    """Return the lowest and the highest pitch of each voice over grids (T, 4): (4, 2) long."""
    pitches = pitches_of(torch.cat(list(grids)))
    lowest = pitches.masked_fill(pitches == 0, LOWEST + PITCHES).amin(0)
    return torch.stack([lowest, pitches.amax(0)], 1)


def shifts_within(grid: Tensor, ranges: Tensor, most: int = 6) -> list[int]:
    """List the semitones, up to `most` either way, that leave all voices within their ranges.

    Args:
        grid: (T, 4) long.
        ranges: (4, 2) long, of `ranges_of`.
        most: semitones; from 6 on every key is reached.
    """
    own = ranges_of([grid])
    sounds = (grid != REST).any(0)
    low, high = ((ranges - own)[sounds, side].tolist() for side in (0, 1))
    return list(range(max(-most, *low), min(most, *high) + 1))


def tune_of(grid: Tensor) -> tuple[int, ...]:
    """Return the first intervals of the soprano, which settings of one tune have in common."""
    soprano = pitches_of(grid[:, 0])
    pitches = soprano[soprano > 0].unique_consecutive()[: _TUNE + 1]
    return tuple(pitches.diff().tolist())


def relative_grid(grid: Tensor) -> tuple[tuple[int, ...], ...]:
    """Return a grid in a form that is the same in every key, to find chorales that stand twice."""
    low = int(ranges_of([grid])[:, 0].min())
    return tuple(map(tuple, transposed(grid, LOWEST - low).tolist()))


def held_out_tunes(
    chorales: Sequence[Chorale], share: float, generator: torch.Generator
) -> Mapping[str, list[Chorale]]:
    """Split chorales into `train` and `validation`, all settings of a tune on one side.

    Args:
        chorales: each once.
        share: of the tunes to hold out.
        generator: draws them.

    Raises:
        ValueError: where nothing would be held out, or nothing left.
    """
    tunes = sorted({tune_of(one.grid) for one in chorales})
    number = round(share * len(tunes))
    if not 0 < number < len(tunes):
        raise ValueError(
            f"A share of {share} of {len(tunes)} tunes is {number}; at least one must be held out, "
            "and one be left to learn from."
        )
    order = torch.randperm(len(tunes), generator=generator).tolist()
    out = {tunes[place] for place in order[:number]}
    parts: dict[str, list[Chorale]] = {"train": [], "validation": []}
    for one in chorales:
        parts["validation" if tune_of(one.grid) in out else "train"].append(one)
    return parts


def read_chorales(paths: Sequence[Any], told: Any = None) -> list[Chorale]:
    """Read the pieces that have the four voices, each once, whatever key it stands in.

    Args:
        paths: of `corpus_paths`, or of files that music21 reads.
        told: a progress bar, moved on by one for each path.

    Raises:
        ImportError: when music21 is not installed.
    """
    converter = music21_module("converter")
    found: dict[Any, Chorale] = {}
    for path in paths:
        parts = {part.partName: part for part in converter.parse(path).parts}
        if all(voice in parts for voice in VOICES):
            grid = grid_of_parts([parts[voice] for voice in VOICES])
            found.setdefault(relative_grid(grid), Chorale(path.stem, grid))
        if told is not None:
            told.update(1)
    return list(found.values())


def grid_of_parts(parts: Sequence[Any], steps: int | None = None) -> Tensor:
    """Write four parts of music21 as a grid (T, 4) long; T as they last, or `steps`.

    Of several notes at once in a part the highest counts.
    """
    voices, length = [], Fraction(0)
    for part in parts:
        flat = part.stripTies().flatten()
        notes = []
        for one in flat.notes:
            begin, long = Fraction(one.offset), Fraction(one.quarterLength)
            notes.append(Note(begin, begin + long, max(p.midi for p in one.pitches)))
        voices.append(notes)
        length = max(length, Fraction(flat.highestTime))
    return grid_of(voices, int(-(-length * STEPS_PER_QUARTER // 1)) if steps is None else steps)


def corpus_paths() -> list[Any]:
    """List Bach's pieces in music21's corpus.

    Raises:
        ImportError: when music21 is not installed.
    """
    return sorted(set(music21_module("corpus").getComposer(_CORPUS)))


def music21_module(name: str) -> Any:
    """Import a part of music21.

    Raises:
        ImportError: when it is not installed.
    """
    from importlib import import_module

    with needs("Chorales are read, and MIDI is written, by the package music21", "music"):
        return import_module(f"music21.{name}")
