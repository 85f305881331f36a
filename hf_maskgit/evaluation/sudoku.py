"""Sudoku grids: all small ones with their exact denoiser, random larger ones, and the rules.

A grid of side n, a square number, is a row of n * n ids 0..n-1, cell after cell from the top left;
each id stands once in every line, every column and every box of sqrt(n) by sqrt(n) cells.

Letters: G grids, n side of a grid.
"""

import itertools
import math

import torch
from torch import Tensor

from .table_denoisers import TableDenoiser


def box_side(side: int) -> int:
    """Return the side of a box.

    Raises:
        ValueError: for a side that is no square of 2 or more.
    """
    box = math.isqrt(max(side, 0))
    if box < 2 or box * box != side:
        raise ValueError(f"The side of a grid is a square, 4, 9, 16 and so on, got {side}.")
    return box


def is_valid(grids: Tensor, side: int) -> Tensor:
    """Tell which grids (G, n * n) long keep all rules, (G,) bool; other ids than 0..n-1 do not."""
    groups = grids[:, groups_of(side)]  # (G, 3 n, n)
    return (groups.sort(-1).values == torch.arange(side, device=grids.device)).all((1, 2))


def groups_of(side: int) -> Tensor:
    """List the cells of each line, column and box, (3 n, n) long."""
    box = box_side(side)
    cells = torch.arange(side * side).view(side, side)
    boxes = cells.view(box, box, box, box).transpose(1, 2).reshape(side, side)
    return torch.cat([cells, cells.T, boxes])


def all_grids() -> Tensor:
    """List every grid of 4 by 4 cells, (288, 16) long."""
    lines = torch.tensor(list(itertools.permutations(range(4))))
    halves = torch.cat(
        [lines.repeat_interleave(24, 0), lines.repeat(24, 1)], 1
    )  # (576, 8): two lines, whatever they are
    boxes = groups_of(4)[8:10]
    fits = (halves[:, boxes].sort(-1).values == torch.arange(4)).all((1, 2))
    halves = halves[fits]
    many = len(halves)
    grids = torch.cat([halves.repeat_interleave(many, 0), halves.repeat(many, 1)], 1)
    return grids[is_valid(grids, 4)]


def exact_denoiser(grids: Tensor, side: int) -> TableDenoiser:
    """Return the denoiser that knows that a text is one of some grids, all equally likely.

    Args:
        grids: (G, n * n) long; ids 0..n-1, the mask is n.
        side: n.
    """
    ids = torch.nn.functional.one_hot(grids, side + 1).double().flatten(1)  # (G, n * n * (n + 1))

    def logits(rows: Tensor, text: Tensor, positions: Tensor) -> Tensor:
        fits = ((text[:, None] == grids) | (text[:, None] == side)).all(-1).double()  # (R, G)
        # Where none fits any more, the board is lost, whatever comes.
        fits = torch.where(fits.any(1, keepdim=True), fits, torch.ones_like(fits))
        law = (fits @ ids).view(len(text), side * side, side + 1) / fits.sum(1)[:, None, None]
        return law.log()[positions]

    return logits


def random_grids(side: int, num_grids: int, generator: torch.Generator) -> Tensor:
    """Draw grids (G, n * n) long, one by one, each by a search of its own from an empty one.

    The search fills a cell that has the fewest ids left, any of them, with any of these, and goes
    back where a cell has none. Every grid may come; not all are equally likely.

    Args:
        side: n.
        num_grids: G.
        generator: where chance comes from.
    """
    peers = _peers(side)
    return torch.tensor([_searched(side, peers, _Coins(generator)) for _ in range(num_grids)])


class _Coins:
    """Integers by chance, drawn many at a time: one draw of torch takes longer than a step."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator
        self._drawn: list[float] = []

    def below(self, limit: int) -> int:
        if not self._drawn:
            self._drawn = torch.rand(1024, generator=self._generator).tolist()
        return min(int(self._drawn.pop() * limit), limit - 1)


def _peers(side: int) -> list[list[int]]:
    """List for every cell those that must differ from it."""
    shared: list[set[int]] = [set() for _ in range(side * side)]
    for group in groups_of(side).tolist():
        for cell in group:
            shared[cell].update(group)
    return [sorted(cells - {cell}) for cell, cells in enumerate(shared)]


def _searched(side: int, peers: list[list[int]], coins: _Coins) -> list[int]:
    everything = (1 << side) - 1
    open_ = dict.fromkeys(range(side * side), everything)  # which ids each empty cell may get
    grid = [-1] * (side * side)

    def fill() -> bool:
        if not open_:
            return True
        fewest = min(map(int.bit_count, open_.values()))
        tight = [cell for cell, ids in open_.items() if ids.bit_count() == fewest]
        cell = tight[coins.below(len(tight))]
        before = ids = open_.pop(cell)
        while ids:
            bits = [i for i in range(side) if ids >> i & 1]
            chosen = bits[coins.below(len(bits))]
            ids &= ~(1 << chosen)
            grid[cell] = chosen
            told = [peer for peer in peers[cell] if open_.get(peer, 0) >> chosen & 1]
            for peer in told:
                open_[peer] &= ~(1 << chosen)
            if all(open_[peer] for peer in told) and fill():
                return True
            for peer in told:
                open_[peer] |= 1 << chosen
        open_[cell] = before
        return False

    assert fill(), "an empty grid can be filled"
    return grid
