"""Make the grids that scripts/recipes/sudoku_4x4.yaml and sudoku_9x9.yaml learn from.

    python -m scripts.prepare_sudoku --side 4 --output_dir runs/sudoku_4x4
    python -m scripts.prepare_sudoku --side 9 --output_dir runs/sudoku_9x9

Of side 4 there are 288 grids, of which a share is held out; of side 9 as many as asked for are
drawn. A row of the data set has a column `cells`, the ids of a grid from the top left.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset, DatasetDict

from hf_maskgit.evaluation.progress import ProgressBar
from hf_maskgit.evaluation.sudoku import all_grids, box_side, random_grids
from hf_maskgit.training.prepared import save_splits
from hf_maskgit.training.recipes import check_least, option, parse_options, required, run_program

COMPLETE = 4  # the side of which all grids are made: of the next, 9, there are 6.7e21
_AT_ONCE = 1000  # grids between two lines of progress


@dataclass
class SudokuOptions:
    """Which grids, and where they go."""

    output_dir: str = required("Folder for `grids`.")
    side: int = option(9, "Side of a grid.")
    num_grids: int = option(100_000, "Grids to draw; of side 4 there are 288, all made.")
    validation_fraction: float = option(0.02, "Share of the drawn grids to hold out.")
    small_validation_fraction: float = option(0.25, "Share of the 288 grids to hold out.")
    seed: int = option(0, "Seed of the grids and of the held-out share.")

    def __post_init__(self) -> None:
        """Check ranges."""
        check_least(self, num_grids=2)
        box_side(self.side)


def main(argv: Sequence[str] | None = None) -> DatasetDict:
    """Make the grids, hold some out, and write both."""
    (options,) = parse_options((SudokuOptions,), argv, "Make Sudoku grids.")
    draws = torch.Generator().manual_seed(options.seed)
    small = options.side == COMPLETE
    grids = all_grids() if small else draw_grids(options, draws)
    grids = grids[torch.randperm(len(grids), generator=draws)]
    share = options.small_validation_fraction if small else options.validation_fraction
    held_out = round(len(grids) * share)
    if not 0 < held_out < len(grids):
        raise ValueError(
            f"A share of {share} of {len(grids)} grids is {held_out}; at least one must be held "
            "out, and one be left to learn from."
        )
    parts = {"train": grids[held_out:], "validation": grids[:held_out]}
    data = DatasetDict(
        {name: Dataset.from_dict({"cells": part.tolist()}) for name, part in parts.items()}
    )
    folder = Path(options.output_dir) / "grids"
    save_splits(data, folder)
    sizes = ", ".join(f"{name} {len(part):,}" for name, part in parts.items())
    print(f"{folder}: {sizes} grids of {options.side} by {options.side}.")
    return data


def draw_grids(options: SudokuOptions, draws: torch.Generator) -> torch.Tensor:
    """Draw grids, each once."""
    found = []
    with ProgressBar("Drawing", options.num_grids, "grid") as told:
        for start in range(0, options.num_grids, _AT_ONCE):
            size = min(_AT_ONCE, options.num_grids - start)
            found.append(random_grids(options.side, size, draws))
            told.update(size)
    return torch.cat(found).unique(dim=0)


if __name__ == "__main__":
    run_program(main)
