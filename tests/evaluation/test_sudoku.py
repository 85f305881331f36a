"""Sudoku grids: all small ones, random larger ones, and the rules."""

import itertools

import pytest
import torch

from hf_maskgit.evaluation.sudoku import (
    all_grids,
    box_side,
    exact_denoiser,
    groups_of,
    is_valid,
    random_grids,
)


def keeps_rules(grid, side):
    """Cell by cell: no two of a line, column or box are alike."""
    box = {4: 2, 9: 3}[side]
    for a, b in itertools.combinations(range(side * side), 2):
        (row, column), (other_row, other_column) = divmod(a, side), divmod(b, side)
        same_box = (row // box, column // box) == (other_row // box, other_column // box)
        if (row == other_row or column == other_column or same_box) and grid[a] == grid[b]:
            return False
    return all(0 <= i < side for i in grid)


def test_there_are_288_small_grids():
    grids = all_grids()
    assert grids.shape == (288, 16)
    assert len(grids.unique(dim=0)) == 288
    assert all(keeps_rules(grid, 4) for grid in grids.tolist())


@pytest.mark.parametrize("side", [4, 9])
def test_a_grid_is_valid_if_it_keeps_the_rules(side):
    draws = torch.Generator().manual_seed(0)
    grids = random_grids(side, 20, draws)
    assert bool(is_valid(grids, side).all())
    assert all(keeps_rules(grid, side) for grid in grids.tolist())
    spoiled = grids.clone()
    place = torch.randint(side * side, (20,), generator=draws)
    rows = torch.arange(20)
    spoiled[rows, place] = (spoiled[rows, place] + 1) % (side + 1)  # n is no id of a grid
    swapped = grids[:, torch.randperm(side * side, generator=draws)]
    for wrong in (spoiled, swapped):
        expected = [keeps_rules(grid, side) for grid in wrong.tolist()]
        assert is_valid(wrong, side).tolist() == expected
        assert not all(expected)


def test_lines_columns_and_boxes_are_the_groups():
    groups = groups_of(4).tolist()
    assert groups[1] == [4, 5, 6, 7]
    assert groups[6] == [2, 6, 10, 14]
    assert groups[11] == [10, 11, 14, 15]
    assert torch.equal(groups_of(9).flatten().bincount(), torch.full((81,), 3))


@pytest.mark.wide
def test_every_small_grid_may_be_drawn_and_a_seed_decides_which():
    first, again, other = (
        random_grids(4, 200, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    # The seed is fixed; the search prefers none strongly, and none is missing in these.
    assert len(random_grids(4, 2000, torch.Generator().manual_seed(0)).unique(dim=0)) == 288


def test_the_exact_denoiser_counts_the_grids_that_fit():
    grids, draws = all_grids(), torch.Generator().manual_seed(0)
    boards = grids[torch.randint(288, (5,), generator=draws)]
    boards = boards.masked_fill(torch.rand(boards.shape, generator=draws) < 0.6, 4)
    masks = boards == 4
    found = exact_denoiser(grids, 4)(torch.arange(5), boards, masks).exp()
    expected = []
    for board in boards.tolist():
        fits = [
            grid
            for grid in grids.tolist()
            if all(shown in (4, cell) for shown, cell in zip(board, grid, strict=True))
        ]
        expected += [
            [sum(grid[i] == id_ for grid in fits) / len(fits) for id_ in range(5)]
            for i in range(16)
            if board[i] == 4
        ]
    assert torch.allclose(found, torch.tensor(expected).double())


def test_a_lost_board_is_still_filled():
    board = torch.tensor([[0, 0, *[4] * 14]])
    found = exact_denoiser(all_grids(), 4)(torch.tensor([0]), board, board == 4).exp()
    assert torch.allclose(found, torch.tensor([0.25] * 4 + [0.0]).double().expand(14, -1))


@pytest.mark.parametrize("side", [-4, 1, 2, 8])
def test_a_side_is_a_square(side):
    with pytest.raises(ValueError, match=f"The side of a grid is a square, .* got {side}"):
        box_side(side)
