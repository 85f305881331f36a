"""Let a generator of Sudoku grids solve boards with holes, by several samplers.

    python -m scripts.evaluate_sudoku --model runs/sudoku_4x4/training \
        --dataset runs/sudoku_4x4/grids
    python -m scripts.evaluate_sudoku --dataset runs/sudoku_4x4/grids    # no network: the exact law

Boards are held-out grids with cells taken out at random. A solution counts when it keeps all rules,
in lines, columns and boxes, whether or not it is the grid that was taken: boards with many holes
have several. Every sampler solves the same boards. Tokens are drawn at temperature 1.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isqrt, sqrt
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from hf_maskgit.core.sampler import Sampler
from hf_maskgit.evaluation.figures import figures_text
from hf_maskgit.evaluation.progress import ProgressBar
from hf_maskgit.evaluation.sudoku import all_grids, exact_denoiser, is_valid
from hf_maskgit.evaluation.table_denoisers import fill_by, plain_sampler
from hf_maskgit.hub.loading import load_generator
from hf_maskgit.hub.training_card import written_out
from hf_maskgit.training.output_files import check_output
from hf_maskgit.training.recipes import (
    check_least,
    option,
    parse_options,
    required,
    run_program,
)
from hf_maskgit.training.sampler_arguments import OF_LENGTHS, check_samplers, samplers_of
from hf_maskgit.training.sources import check_columns, load_texts

# Boards (R, n * n), a sampler and a seed -> the boards filled, and (R,) passes of each.
Fill = Callable[[Tensor, dict[str, Any], int], tuple[Tensor, Tensor]]
COMPLETE = 4  # the side of the grids that are all known
OWN_LAW: dict[str, Any] = {"anneal_temperature": False, "choice_temperature": 0}
SAMPLERS: list[dict[str, Any]] = [
    {"order": "random", "steps": 1},
    {"order": "random", "steps": 4},
    {"order": "margin", "steps": 4},
    {"order": "random", "pace": "first_hitting"},
    {"order": "margin", "steps": 1000},
    {"pace": "threshold", "confidence_threshold": 0.9},
    {"pace": "threshold", "confidence_threshold": 0.999},
    {"pace": "entropy_bound", "entropy_budget": 0.1},
]


@dataclass
class SolveArguments:
    """Who solves what."""

    dataset: str = required("Data set of grids: a folder of prepare_sudoku.py, or others.")
    model: str | None = option(
        None,
        "Generator of grids: a folder or a name on the Hub. Left out, boards of 4 by 4 are solved "
        "by the exact law of the 288 grids.",
    )
    split: str = option("validation", "Split of it.")
    ids_column: str = option("cells", "Column of the grids.")
    holes: list[int] | None = field(
        default=None,
        metadata={"help": "Cells to take out. Default: a half, three quarters, and all."},
    )
    num_boards: int = option(1000, "Boards for each number of holes.")
    samplers: str | None = option(
        None, "Options of `generate` for each sampler, a JSON list of objects. Default: eight."
    )
    batch_size: int = option(250, "Boards solved together.")
    seed: int = option(0, "Seed of holes and solutions.")
    output_file: str | None = option(None, "File for all figures, as JSON.")

    def __post_init__(self) -> None:
        """Check ranges, and that the figures will have a place."""
        check_least(self, num_boards=1, batch_size=1)
        check_output(self.output_file)


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Solve, print a table, and return the figures."""
    (options,) = parse_options((SolveArguments,), argv, "Solve Sudoku boards.")
    samplers = samplers_of(
        options.samplers, SAMPLERS, {"order": "margin", "steps": 9}, decided=OF_LENGTHS
    )
    grids = load_grids(options)
    cells = grids.shape[1]
    holes = options.holes or [cells // 2, 3 * cells // 4, cells]
    if not all(0 < number <= cells for number in holes):
        raise ValueError(f"`holes` lie in 1..{cells}, the cells of these grids; got {holes}.")
    fill, mask = filler_of(options, isqrt(cells), samplers)
    print("| holes | sampler | valid | passes |")
    print("|---|---|---|---|")
    found = []
    for number in holes:
        boards = take_out(grids, number, options, mask)
        for sampler in samplers:
            valid, passes = solve(fill, boards, sampler, options)
            error = sqrt(valid * (1 - valid) / len(boards))
            figures = {"valid": valid, "standard_error": error, "passes": passes}
            found.append({"holes": number, "options": sampler, **figures})
            name = written_out(sampler)
            print(f"| {number} | {name} | {valid:.3f} ± {error:.3f} | {passes:.1f} |", flush=True)
    if options.output_file is not None:
        Path(options.output_file).write_text(figures_text(found), encoding="utf-8")
    return found


def load_grids(options: SolveArguments) -> Tensor:
    """Read the grids, (G, n * n) long.

    Raises:
        ValueError: for rows that are no valid grids of one size.
    """
    grids = load_texts(options.dataset, None, options.split)
    what = "grids, as scripts/prepare_sudoku.py writes them"
    check_columns(grids, options.dataset, [options.ids_column], what)
    rows = grids[options.ids_column][:]
    sizes = {len(row) for row in rows}
    side = isqrt(max(sizes))
    if sizes != {side * side} or not bool(is_valid(torch.tensor(rows), side).all()):
        raise ValueError(
            f"Column {options.ids_column!r} of {options.dataset!r} must hold Sudoku grids of one "
            "size, as scripts/prepare_sudoku.py makes them."
        )
    return torch.tensor(rows)


def take_out(grids: Tensor, holes: int, options: SolveArguments, mask: int) -> Tensor:
    """Make boards: grids, again from the first behind the last, with masks at random cells."""
    draws = torch.Generator().manual_seed(options.seed)
    boards = grids[torch.arange(options.num_boards) % len(grids)]
    ranks = torch.rand(boards.shape, generator=draws).argsort(1).argsort(1)
    return boards.masked_fill(ranks < holes, mask)


def filler_of(
    options: SolveArguments, side: int, samplers: Sequence[Mapping[str, Any]]
) -> tuple[Fill, int]:
    """Return what fills boards, and the id of its mask.

    Raises:
        ValueError: for the exact law of larger grids, and samplers that mean nothing there.
    """
    if options.model is None:
        if side != COMPLETE:
            raise ValueError(
                f"The exact law is known of grids of {COMPLETE} by {COMPLETE}, and these have "
                f"{side} by {side} cells; name a generator with --model."
            )
        denoiser = exact_denoiser(all_grids(), side)

        def by_own_law(sampler: Mapping[str, Any]) -> Sampler:
            return plain_sampler(side, {**OWN_LAW, **sampler})

        for sampler in samplers:
            by_own_law(sampler)  # refused before the first has worked

        def by_law(boards: Tensor, sampler: dict[str, Any], seed: int) -> tuple[Tensor, Tensor]:
            done = fill_by(denoiser, boards, by_own_law(sampler), seed)
            return done.text, done.passes

        return by_law, side
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    model, _ = load_generator(options.model, device_map=device)
    check_samplers(model, samplers)

    def by_model(boards: Tensor, sampler: dict[str, Any], seed: int) -> tuple[Tensor, Tensor]:
        one: dict[str, Any] = {"num_return_sequences": 1, "return_dict_in_generate": True}
        done: Any = model.generate(boards.to(device), seed=seed, **{**OWN_LAW, **sampler}, **one)
        return done.sequences.cpu(), done.denoiser_passes

    return by_model, cast(int, model.config.mask_token_id)


def solve(
    fill: Fill, boards: Tensor, sampler: dict[str, Any], options: SolveArguments
) -> tuple[float, float]:
    """Solve all boards; return the share of valid solutions and the mean passes."""
    side, valid, passes = isqrt(boards.shape[1]), 0, 0
    with ProgressBar("Solving", len(boards), "board") as told:
        for start in range(0, len(boards), options.batch_size):
            part = boards[start : start + options.batch_size]
            solved, taken = fill(part, sampler, options.seed + start)
            valid += int(is_valid(solved, side).sum())
            passes += int(taken.sum())
            told.update(len(part))
    return valid / len(boards), passes / len(boards)


if __name__ == "__main__":
    run_program(main)
