"""Write Bach's four-part chorales as grids of ids for scripts/recipes/chorales.yaml.

    python -m scripts.prepare_chorales --output_dir runs/chorales

They lie in the package music21 itself (pip install 'hf_maskgit[music]'), encoded by several people
under terms that stand in its corpus/license.txt and in the files: some may not be used
commercially. They are read where they lie, and nothing of them is passed on.

A row of the data set has in `grid` a window of a chorale, in steps of an eighth: at each step the
ids of soprano, alto, tenor and bass, 0 where nothing sounds and 1..47 for a pitch from B1 to A5.
Its chorale, first step and transposition stand beside. Tunes are held out whole, with all their
settings. What is learned from is also transposed, as far as every voice keeps to the notes that it
has somewhere; what is held out is not.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, DatasetDict

from hf_maskgit.evaluation.chorales import (
    Chorale,
    corpus_paths,
    held_out_tunes,
    ranges_of,
    read_chorales,
    shifts_within,
    transposed,
    windows_of,
)
from hf_maskgit.evaluation.progress import ProgressBar
from hf_maskgit.training.prepared import save_splits
from hf_maskgit.training.recipes import check_least, option, parse_options, run_program


@dataclass
class ChoraleOptions:
    """How chorales are cut, and where the windows go."""

    output_dir: str = option("runs/chorales", "Folder for `grids`.")
    steps: int = option(32, "Steps of a window; eight are a bar of four quarters.")
    stride: int = option(
        8, "Steps between two windows to learn from; held-out ones do not overlap."
    )
    most_semitones: int = option(6, "Semitones, up and down, to transpose what is learned from.")
    validation_fraction: float = option(0.15, "Share of the tunes to hold out.")
    seed: int = option(0, "Seed of the held-out share.")

    def __post_init__(self) -> None:
        """Check ranges."""
        check_least(self, steps=2, stride=1, most_semitones=0)
        if not 0 < self.validation_fraction < 1:
            raise ValueError(
                f"`validation_fraction` must lie between 0 and 1, got {self.validation_fraction}."
            )


def main(argv: Sequence[str] | None = None) -> DatasetDict:
    """Read the chorales, hold tunes out, and write windows of both."""
    (options,) = parse_options((ChoraleOptions,), argv, "Write chorales as grids of ids.")
    paths = corpus_paths()
    with ProgressBar("Reading", len(paths), "piece") as told:
        chorales = read_chorales(paths, told)
    generator = torch.Generator().manual_seed(options.seed)
    parts = held_out_tunes(chorales, options.validation_fraction, generator)
    ranges = ranges_of(one.grid for one in parts["train"])
    rows = {
        "train": list(rows_to_learn(parts["train"], ranges, options)),
        "validation": [
            row for one in parts["validation"] for row in rows_of(one, 0, options.steps, options)
        ],
    }
    if not all(rows.values()):
        longest = min(max(len(one.grid) for one in part) for part in parts.values())
        raise ValueError(
            f"Windows of {options.steps} steps are longer than all chorales that are learned from, "
            f"or than all held out; `steps` may be {longest} at most."
        )
    data = DatasetDict({name: Dataset.from_list(part) for name, part in rows.items()})
    folder = Path(options.output_dir) / "grids"
    save_splits(data, folder)
    told_of = ", ".join(f"{n} {len(rows[n]):,} windows of {len(parts[n])} chorales" for n in rows)
    print(f"{folder}: {told_of}.")
    return data


def rows_to_learn(
    chorales: Sequence[Chorale], ranges: torch.Tensor, options: ChoraleOptions
) -> Iterator[dict[str, Any]]:
    """Cut and transpose."""
    for one in chorales:
        for semitones in shifts_within(one.grid, ranges, options.most_semitones):
            yield from rows_of(one, semitones, options.stride, options)


def rows_of(
    chorale: Chorale, semitones: int, stride: int, options: ChoraleOptions
) -> Iterator[dict[str, Any]]:
    """Cut one chorale into rows."""
    windows = windows_of(chorale.grid, options.steps, stride)
    for number, window in enumerate(transposed(windows, semitones)):
        yield {
            "grid": window.flatten().tolist(),
            "chorale": chorale.name,
            "first_step": number * stride,
            "semitones": semitones,
        }


if __name__ == "__main__":
    run_program(main)
