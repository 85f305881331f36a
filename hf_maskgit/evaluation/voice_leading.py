"""What counting says of the harmony of a grid: ranges, parallel fifths and octaves, dissonance.

The grid knows keys of a piano and no spelling, so intervals are counted in semitones: a diminished
sixth is a fifth here. music21's own rules go by spelling; where names are plain the tests hold both
to each other.

Letters: W windows, T steps, 4 voices.
"""

import itertools

import torch
from torch import Tensor

from .chorales import STEPS_PER_BAR, VOICES, begins, pitches_of

_OCTAVE, _FIFTH = 12, 7
_TRIADS = ((0, 4, 7), (0, 3, 7))  # major and minor, in semitones above the root


def harmony_figures(grids: Tensor, ranges: Tensor) -> dict[str, float]:
    """Measure windows as music.

    Args:
        grids: (W, T, 4) long ids.
        ranges: (4, 2) long, the lowest and the highest pitch of each voice.

    Returns:
        `in_range`: share of what sounds that lies within its voice's range; `fifths` and `octaves`:
        parallel ones per bar of four quarters; `dissonant`: share of the steps at which a note
        begins whose notes are no part of a major or minor triad; `notes`: that begin per bar.
    """
    bars = grids.shape[0] * grids.shape[1] / STEPS_PER_BAR
    pitches, new = pitches_of(grids), begins(grids)
    sounds = pitches > 0
    within = (pitches >= ranges[:, 0]) & (pitches <= ranges[:, 1])
    return {
        "in_range": float(within[sounds].double().mean()),
        "fifths": int(parallels(pitches, _FIFTH).sum()) / bars,
        "octaves": int(parallels(pitches, 0).sum()) / bars,
        "dissonant": float((~is_consonant(pitches))[new.any(-1)].double().mean()),
        "notes": int(new.sum()) / bars,
    }


def parallels(pitches: Tensor, interval: int) -> Tensor:
    """Count pairs of voices that move the same way from an interval to the same one, (W, T-1) long.

    Args:
        pitches: (W, T, 4) long MIDI numbers, 0 where nothing sounds.
        interval: semitones, octaves taken off: 7 for fifths, 0 for octaves and unisons.
    """
    found = torch.zeros(pitches.shape[0], pitches.shape[1] - 1, dtype=torch.long)
    sounds = (pitches[:, :-1] > 0) & (pitches[:, 1:] > 0)
    way = pitches.diff(dim=1).sign()
    for high, low in itertools.combinations(range(len(VOICES)), 2):
        between = (pitches[..., high] - pitches[..., low]).abs() % _OCTAVE == interval
        moves = (way[..., high] == way[..., low]) & (way[..., high] != 0)
        both = sounds[..., high] & sounds[..., low]
        found += between[:, :-1] & between[:, 1:] & moves & both
    return found


def is_consonant(pitches: Tensor) -> Tensor:
    """Tell which steps have nothing but notes of one major or minor triad, (W, T) bool.

    Args:
        pitches: (W, T, 4) long MIDI numbers, 0 where nothing sounds.
    """
    classes, silent = pitches % _OCTAVE, pitches == 0
    found = torch.zeros(pitches.shape[:-1], dtype=torch.bool)
    for root, triad in itertools.product(range(_OCTAVE), _TRIADS):
        members = torch.tensor([(root + step) % _OCTAVE for step in triad])
        found |= (torch.isin(classes, members) | silent).all(-1)
    return found
