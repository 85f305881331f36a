"""Harmony of grids: parallels, dissonance and ranges by hand, and beside music21's own rules."""

import itertools

import pytest
import torch

from hf_maskgit.evaluation.voice_leading import harmony_figures, is_consonant, parallels
from tests.support.music import grid_from

C, D, E, F, G, A = 60, 62, 64, 65, 67, 69


def moves(*pairs):
    """Two steps of the voices named, the others silent: (1, 2, 4)."""
    steps = torch.zeros(1, 2, 4, dtype=torch.long)
    for voice, (before, behind) in enumerate(pairs):
        steps[0, :, voice] = torch.tensor([before, behind])
    return steps


@pytest.mark.parametrize(
    ("pairs", "fifths", "octaves"),
    [
        (((G, A), (C, D)), 1, 0),  # a fifth moves up to a fifth
        (((G, G - 2), (C, C - 2)), 1, 0),
        (((G + 12, A), (C, D)), 0, 0),  # a twelfth and a fifth that approach each other
        (((G + 12, A + 12), (C, D)), 1, 0),  # a twelfth is a fifth
        (((G, G), (C, C)), 0, 0),  # nothing moves
        (((G, A), (C, D + 1)), 0, 0),  # a fifth moves to a tritone
        (((C + 12, D + 12), (C, D)), 0, 1),
        (((C, D), (C, D)), 0, 1),  # unisons
        (((C, G), (C, G), (C, G)), 0, 3),  # each pair of voices counts
        (((G, A), (0, D)), 0, 0),  # it was silent
        (((C, D), (G, A)), 1, 0),  # voices that cross
        # G C G C: a fifth over each C below, and no fourth; both letters in octaves
        (((G, A), (C, D), (G - 12, A - 12), (C - 12, D - 12)), 3, 2),
    ],
)
def test_parallels_by_hand(pairs, fifths, octaves):
    steps = moves(*pairs)
    assert parallels(steps, 7).tolist() == [[fifths]]
    assert parallels(steps, 0).tolist() == [[octaves]]


def test_the_direction_is_the_same_for_both():
    """A fifth that becomes a twelfth by moving apart is no parallel."""
    assert parallels(moves((G, G + 7), (C, C - 5)), 7).tolist() == [[0]]


@pytest.mark.parametrize(
    ("chord", "consonant"),
    [
        ((72, 67, 64, 48), True),  # C major
        ((72, 67, 63, 48), True),  # C minor
        ((72, 67, 64, 52), True),  # over its third
        ((72, 65, 57, 53), True),  # F major
        ((70, 67, 64, 48), False),  # a seventh
        ((72, 67, 65, 48), False),  # a suspended fourth
        ((71, 65, 62, 59), False),  # diminished
        ((72, 68, 64, 48), False),  # augmented
        ((72, 0, 60, 48), True),
        ((72, 0, 61, 48), False),
        ((0, 0, 0, 0), True),
    ],
)
def test_chords_by_hand(chord, consonant):
    assert is_consonant(torch.tensor([[chord]])).tolist() == [[consonant]]


def test_figures_by_hand():
    """A bar: fifths move up once, the alto leaves its range in the end, the last step clashes."""
    grid = grid_from([G, G, A, A, A, A, A, A], [C, C, D, D, D, D, G, G + 3])[None]
    ranges = torch.tensor([[C, A], [C, G], [0, 0], [0, 0]])
    found = harmony_figures(grid, ranges)
    assert found == {
        "in_range": 15 / 16,
        "fifths": 1.0,
        "octaves": 0.0,
        "dissonant": 2 / 4,  # A over G, and A over B flat, of four steps with a new note
        "notes": 6.0,
    }
    twice = harmony_figures(torch.cat([grid, grid]), ranges)
    assert twice == found


@pytest.mark.wide
def test_parallels_are_those_of_music21_where_names_are_plain():
    """White keys alone, where music21's spelling and semitones say the same."""
    music21 = pytest.importorskip("music21")
    keys = [pitch for pitch in range(55, 77) if pitch % 12 in (0, 2, 4, 5, 7, 9, 11)]
    draws = torch.Generator().manual_seed(0)
    steps = torch.tensor(keys)[torch.randint(len(keys), (1500, 2, 2), generator=draws)]
    steps[:500, :, 1] = steps[:500, :, 0] - 7  # fifths are rare among drawn ones
    steps[500:700, :, 1] = steps[500:700, :, 0] - 12
    windows = torch.cat([steps, torch.zeros_like(steps)], 2)
    white = torch.tensor(keys + [key - 12 for key in keys])
    agreed = 0
    for window in windows[torch.isin(steps, white).all((1, 2))]:
        (a, b), (c, d) = window[:, :2].tolist()
        # music21 names crossing and overlapping voices otherwise, and has an octave behind a unison
        # for parallel though one voice rises and the other falls
        if a < b or c < d or d > a or b > c or (c - a) * (d - b) < 0:
            continue
        names = [music21.pitch.Pitch(midi=number) for number in (a, c, b, d)]
        quartet = music21.voiceLeading.VoiceLeadingQuartet(*map(music21.note.Note, names))
        fifth = bool(parallels(window[None], 7))
        octave = bool(parallels(window[None], 0))
        assert fifth == quartet.parallelFifth(), (a, b, c, d)
        assert octave == quartet.parallelUnisonOrOctave(), (a, b, c, d)
        agreed += fifth + octave
    assert agreed > 100


@pytest.mark.wide
def test_consonant_chords_are_those_whose_classes_music21_finds_in_a_triad():
    music21 = pytest.importorskip("music21")
    parts_of_triads = ([0], [0, 3], [0, 4], [0, 5], [0, 3, 7])
    for size in (1, 2, 3, 4):
        for classes in itertools.combinations(range(12), size):
            prime = music21.chord.Chord(list(classes)).primeForm
            pitches = [60 + one for one in classes] + [0] * (4 - size)
            assert bool(is_consonant(torch.tensor([[pitches]]))) == (prime in parts_of_triads)
