"""Grids of chorales: notes and back, windows, transposition, what is held out, and the corpus."""

import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given

from hf_maskgit.evaluation import chorales
from hf_maskgit.evaluation.chorales import (
    LOWEST,
    PITCHES,
    REST,
    VOCAB_SIZE,
    Chorale,
    Note,
    begins,
    corpus_paths,
    grid_of,
    held_out_tunes,
    id_of,
    notes_of,
    pitches_of,
    ranges_of,
    read_chorales,
    relative_grid,
    shifts_within,
    transposed,
    windows_of,
)
from tests.support.music import GRIDS, grid_from, tune

C, D, E, F, G = 60, 62, 64, 65, 67


def test_every_id_is_silence_or_one_pitch():
    pitches = range(LOWEST, LOWEST + PITCHES)
    ids = [REST, *map(id_of, pitches)]
    assert ids == list(range(VOCAB_SIZE))
    assert pitches_of(torch.tensor(ids)).tolist() == [0, *pitches]


@pytest.mark.parametrize("pitch", [34, 82])
def test_a_pitch_that_no_voice_has_is_refused(pitch):
    with pytest.raises(ValueError, match=rf"Pitches lie in 35..81 \(MIDI numbers\), got {pitch}"):
        id_of(pitch)


def test_notes_by_hand():
    """A crotchet, two quavers, a rest, a minim; the other voices are silent."""
    quarters = [(0, 1, C), (1, 1.5, D), (1.5, 2, E), (3, 5, C)]
    soprano = [Note(Fraction(begin), Fraction(end), pitch) for begin, end, pitch in quarters]
    grid = grid_of([soprano, [], [], []], 11)
    assert pitches_of(grid[:, 0]).tolist() == [C, C, D, E, 0, 0, C, C, C, C, 0]
    assert not grid[:, 1:].any()
    assert notes_of(grid) == [soprano, [], [], []]
    assert begins(grid)[:, 0].nonzero()[:, 0].tolist() == [0, 2, 3, 6]


def test_a_repeated_note_is_a_long_one():
    notes = [Note(Fraction(0), Fraction(1), C), Note(Fraction(1), Fraction(2), C)]
    assert notes_of(grid_of([notes, [], [], []], 4))[0] == [Note(Fraction(0), Fraction(2), C)]


def test_what_lies_between_two_steps_is_lost_and_nothing_else():
    quarters = [(0, 0.75, C), (0.75, 1, D), (1, 1.25, E), (1.25, 2, F)]
    notes = [Note(Fraction(begin), Fraction(end), pitch) for begin, end, pitch in quarters]
    grid = grid_of([notes, [], [], []], 4)
    assert pitches_of(grid[:, 0]).tolist() == [C, C, E, F]


def test_a_note_ends_where_the_next_one_begins():
    notes = [Note(Fraction(0), Fraction(4), C), Note(Fraction(1), Fraction(2), D)]
    grid = grid_of([notes, [], [], []], 6)
    assert pitches_of(grid[:, 0]).tolist() == [C, C, D, D, 0, 0]


@pytest.mark.wide
@given(GRIDS)
def test_a_grid_is_what_its_notes_say(grid):
    assert torch.equal(grid_of(notes_of(grid), len(grid)), grid)


def test_windows_stand_where_they_are_cut():
    grid = grid_from([C, C, None, D, D, E], [G, G, G, G, G, G])
    windows = windows_of(grid, 3, 2)
    assert torch.equal(windows, torch.stack([grid[:3], grid[2:5]]))
    assert windows_of(grid, 7, 1).shape == (0, 7, 4)


@given(GRIDS)
def test_a_transposed_grid_has_every_note_that_much_higher_and_keeps_its_rhythm(grid):
    moved = transposed(grid, 1)
    for before, after in zip(notes_of(grid), notes_of(moved), strict=True):
        assert after == [note._replace(pitch=note.pitch + 1) for note in before]


def test_the_range_of_a_voice_leaves_silence_out():
    one, other = grid_from([D, None, G], [C, C, C]), grid_from([E], [None])
    ranges = ranges_of([one, other])
    assert ranges[:2].tolist() == [[D, G], [C, C]]


def test_a_shift_keeps_every_voice_within_its_range():
    grid = grid_from([D, E], [C, C])
    ranges = torch.tensor([[D - 3, E + 9], [C - 9, C + 2], [50, 50], [40, 40]])
    shifts = shifts_within(grid, ranges)
    assert shifts == [-3, -2, -1, 0, 1, 2]  # down as the first voice can, up as the second can
    assert shifts_within(grid, ranges, 1) == [-1, 0, 1]
    inside = [ranges_of([transposed(grid, shift)])[:2] for shift in shifts]
    assert all((r[:, 0] >= ranges[:2, 0]).all() for r in inside)
    assert all((r[:, 1] <= ranges[:2, 1]).all() for r in inside)


def test_settings_of_one_tune_in_two_keys_are_held_out_together():
    melodies = [[C, D, E, C], [C, E, G, C], [G, F, E, D], [C, D, C, D], [E, D, C, D]]
    pieces = []
    for number, melody in enumerate(melodies):
        for shift in (0, 2):
            bass = [48 + shift] * len(melody)
            grid = tune([note + shift for note in melody], bass)
            pieces.append(Chorale(f"{number} in {shift}", grid))
    for seed in range(4):
        parts = held_out_tunes(pieces, 0.4, torch.Generator().manual_seed(seed))
        names = {part: {one.name.split()[0] for one in some} for part, some in parts.items()}
        assert not names["train"] & names["validation"]
        assert {part: len(some) for part, some in parts.items()} == {"train": 6, "validation": 4}


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_something_is_held_out_and_something_left(share):
    pieces = [Chorale(str(n), tune([C, C + n], [48, 48])) for n in range(3)]
    with pytest.raises(ValueError, match=rf"A share of {share} of 3 tunes is (0|3); at least one"):
        held_out_tunes(pieces, share, torch.Generator())


def test_a_chorale_in_another_key_is_the_same_one():
    grid = tune([C, D, E], [48, 50, 48])
    assert relative_grid(grid) == relative_grid(transposed(grid, 3))
    assert relative_grid(grid) != relative_grid(tune([C, D, F], [48, 50, 48]))


# --- music21's corpus -----------------------------------------------------------------------------


@pytest.mark.wide
def test_a_chorale_of_the_corpus_reads_as_it_is_printed():
    """The beginning of BWV 66.6, F sharp minor, whose first quaver pair is an upbeat."""
    pytest.importorskip("music21")
    (path,) = [one for one in corpus_paths() if Path(one).stem == "bwv66.6"]
    (chorale, *more) = read_chorales([path, path])
    assert not more  # the same piece again is left out
    assert chorale.name == "bwv66.6"
    assert chorale.grid.shape == (72, 4)  # nine bars of four quarters
    pitches = pitches_of(chorale.grid[:6]).T.tolist()
    assert pitches[0] == [73, 71, 69, 69, 71, 71]  # c#'' b' | a' b'
    assert pitches[3] == [57, 56, 54, 54, 56, 56]  # a g sharp | f sharp g sharp


def test_without_music21_it_is_named_with_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "music21.corpus", None)
    with pytest.raises(ImportError, match=r"not installed: pip install 'hf_maskgit\[music\]'"):
        chorales.corpus_paths()
