"""Small grids of chorales, made by hand or drawn, without music21."""

from fractions import Fraction
from pathlib import Path

import torch
from hypothesis import strategies as st
from torch import Tensor

from hf_maskgit.evaluation.chorales import (
    LOWEST,
    REST,
    STEPS_PER_QUARTER,
    VOCAB_SIZE,
    Note,
    grid_of,
    id_of,
)


def grid_from(*voices: list[int | None]) -> Tensor:
    """Write a pitch or None for each step of some voices, (T, 4); the others are silent."""
    grid = torch.full((len(voices[0]), 4), REST)
    for voice, pitches in enumerate(voices):
        ids = [REST if pitch is None else id_of(pitch) for pitch in pitches]
        grid[:, voice] = torch.tensor(ids)
    return grid


def tune(soprano: list[int], bass: list[int]) -> Tensor:
    """Write a soprano and a bass in crotchets, (T, 4)."""
    voices = [
        [Note(Fraction(n), Fraction(n + 1), pitch) for n, pitch in enumerate(pitches)]
        for pitches in (soprano, [], [], bass)
    ]
    return grid_of(voices, STEPS_PER_QUARTER * len(soprano))


def save_windows(folder: Path, steps: int, chorales: int) -> None:
    """Save a data set as scripts/prepare_chorales.py does, of scales in thirds and octaves."""
    from datasets import Dataset, DatasetDict

    rows = []
    for number in range(chorales):
        line = [LOWEST + 20 + (number + step // 2) % 9 for step in range(steps)]
        voices = [[pitch + above for pitch in line] for above in (12, 4, 0, -12)]
        grid = grid_from(*voices).flatten().tolist()
        rows.append({"grid": grid, "chorale": f"bwv{number // 2}", "first_step": 0, "semitones": 0})
    data = Dataset.from_list(rows)
    DatasetDict({"train": data, "validation": data}).save_to_disk(folder)


# Grids of any ids whose highest pitch leaves room for a semitone.
GRIDS = st.lists(
    st.lists(st.integers(REST, VOCAB_SIZE - 2), min_size=4, max_size=4), min_size=1, max_size=12
).map(torch.tensor)
