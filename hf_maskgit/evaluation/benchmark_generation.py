"""What is compared of generation: cells of one shape each, and growth.

A cell is one shape of encoder and text, which several works fill from nothing but masks. To add a
shape is to add a row to `CELLS`.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import torch

from .benchmark_rounds import (
    Contestant,
    Timing,
    exponent,
    header_of,
    measure,
    number_of_works,
)
from .benchmark_shapes import BERT, Sizes
from .benchmark_works import (
    BLOCKS,
    CACHES,
    COMPILED,
    FEW,
    FLOOR,
    HEAD,
    OF_ORDERS,
    OF_PATTERNS,
    ORDERS,
    OTHERS_COMPILED,
    PACE_WORKS,
    PEERS,
    PLAIN,
    PRESET_WORKS,
    contestants_of,
    in_half,
)
from .progress import ProgressBar

_GROWTH_ROUNDS = 3  # at most; an exponent is fitted to several values


class Cell(NamedTuple):
    """One shape, and the works that fill it.

    Attributes:
        name: of the shape.
        sizes: of it.
        works: of `WORKS`, perhaps with `HALF` behind; among them the floor of each.
        rounds: timed at most, where one takes long; None is as many as are asked for.
        floor: the work that times are divided by.
    """

    name: str
    sizes: Sizes
    works: tuple[str, ...]
    rounds: int | None = None
    floor: str = FLOOR


# As far as those of the generator of verses in the demonstration spread, where all is masked.
_SPREAD = 3.0
CELLS = (
    Cell(
        "BERT 6 x 384",
        replace(BERT, logit_spread=_SPREAD),
        (
            *ORDERS,
            COMPILED,
            *PEERS,
            "x-transformers, filter as by default",
            *in_half((*ORDERS, COMPILED)),
            *in_half(PEERS),
            *in_half(OTHERS_COMPILED),
        ),
    ),
    Cell(
        "BERT 6 x 384, unsure of everything",
        BERT,
        (FLOOR, HEAD, PLAIN, "generate, order=confidence"),
        rounds=3,
    ),
    Cell(
        "ModernBERT-base",
        Sizes("modernbert", 22, 768, 12, 1152, 50_368, batch_size=1, length=512, steps=8),
        (*ORDERS, *PEERS),
        rounds=3,
    ),
    Cell(
        "ESM-2 8M",
        Sizes("esm", 6, 320, 20, 1280, 33, batch_size=4, length=256, steps=18),
        (*ORDERS, *PEERS),
    ),
    Cell(
        "molecules",
        Sizes("bert", 6, 256, 8, 1024, 600, batch_size=32, length=64, steps=18),
        (*ORDERS, *PEERS),
    ),
    Cell(
        "long text in blocks",
        replace(BERT, batch_size=1, length=512, steps=128),
        (BLOCKS, FLOOR, PLAIN, *CACHES),
        rounds=3,
        floor=BLOCKS,
    ),
    Cell(
        "long text in blocks, BERT-base",
        Sizes("bert", 12, 768, 12, 3072, 30_522, batch_size=1, length=512, steps=128),
        (BLOCKS, FLOOR, *CACHES),
        rounds=2,
        floor=BLOCKS,
    ),
    Cell(
        "a pattern of 64 states",
        replace(BERT, logit_spread=_SPREAD),
        (FLOOR, *OF_ORDERS, *OF_PATTERNS["pattern of 64 states"]),
        rounds=3,
        floor=PLAIN,
    ),
    *(
        Cell(
            pattern,
            replace(BERT, logit_spread=_SPREAD),
            (FLOOR, PLAIN, f"{PLAIN}, {pattern}"),
            rounds=2,
            floor=PLAIN,
        )
        for pattern in ("a JSON record", "a date in a sentence")
    ),
    Cell(
        "presets and paces",
        replace(BERT, batch_size=4, length=64, steps=16),
        (FLOOR, PLAIN, *PRESET_WORKS, *PACE_WORKS),
        rounds=3,
    ),
)
QUICK_CELLS = (
    Cell(
        "BERT 6 x 384", replace(CELLS[0].sizes, batch_size=2, length=64, steps=4), (*ORDERS, *PEERS)
    ),
    Cell("ESM-2 8M", replace(CELLS[3].sizes, length=64, steps=4), (*ORDERS, *PEERS)),
    Cell(
        "long text in blocks",
        replace(BERT, layers=2, batch_size=1, length=192, steps=12),
        (BLOCKS, FLOOR, *CACHES),
        floor=BLOCKS,
    ),
)


class Growth(NamedTuple):
    """One size that grows while the others stay.

    Attributes:
        over: name of the size.
        values: that it takes.
        sizes: the others.
        works: of `WORKS`.
    """

    over: str
    values: tuple[int, ...]
    sizes: Sizes
    works: tuple[str, ...] = FEW

    @property
    def cells(self) -> list[Cell]:
        """A cell for each value."""
        of_each: list[dict[str, Any]] = [{self.over: value} for value in self.values]
        return [
            Cell(f"{self.over} {value:,}", replace(self.sizes, **of_one), self.works)
            for value, of_one in zip(self.values, of_each, strict=True)
        ]


SMALL = Sizes("bert", 2, 128, 4, 512, 1024, batch_size=4, length=128, steps=16)
GROWTHS = (
    Growth("length", (64, 128, 256, 512, 1024, 2048), replace(SMALL, batch_size=1)),
    Growth("vocab_size", (33, 512, 4096, 32_768, 131_072), replace(SMALL, batch_size=1, steps=4)),
    Growth("batch_size", (1, 4, 16, 64), replace(SMALL, length=64)),
    Growth("steps", (4, 16, 64, 256), replace(SMALL, length=256, batch_size=1)),
)
QUICK_GROWTHS = (
    Growth("length", (64, 256, 1024), replace(SMALL, batch_size=1, steps=4)),
    Growth("vocab_size", (33, 1024, 16_384), replace(SMALL, steps=4, length=64)),
)


def header_of_growth(growth: Growth) -> dict[str, Any]:
    """Return what says which growth was measured, as JSON takes it."""
    return {"over": growth.over, "values": list(growth.values), "sizes": asdict(growth.sizes)}


def measure_cell(
    cell: Cell, rounds: int, device: torch.device, *, counts_bytes: bool = True
) -> dict[str, Any]:
    """Measure the works of a cell in turn.

    Args:
        cell: its shape and works.
        rounds: timed.
        device: where.
        counts_bytes: whether memory is told.

    Returns:
        Sizes and timings, as JSON takes them.

    Raises:
        RuntimeError: for a work that left a mask or returned another shape, and where a package is
            missing.
    """
    rounds = min(rounds, cell.rounds or rounds)
    timings = _timed(cell, rounds, device, counts_bytes)
    return {**header_of(cell), "works": [t.as_dict() for t in timings]}


def measure_growth(growth: Growth, rounds: int, device: torch.device) -> dict[str, Any]:
    """Measure the works at every value of one size, and fit how their time grows with it.

    Returns:
        Sizes, medians and exponents, as JSON takes them.
    """
    rounds = min(rounds, _GROWTH_ROUNDS)
    found: dict[str, list[Timing]] = {name: [] for name in growth.works}
    for cell in growth.cells:
        for one in _timed(cell, rounds, device, counts_bytes=False):
            found[one.name].append(one)
    works = []
    for name, timings in found.items():
        quartiles = [t.as_dict()["seconds_quartiles"] for t in timings]
        fitted, error = exponent(growth.values, [median for _, median, _ in quartiles])
        works.append(
            {
                "name": name,
                "seconds_quartiles": quartiles,
                "exponent": fitted,
                "exponent_std_error": error,
            }
        )
    return {**header_of_growth(growth), "works": works}


def _timed(cell: Cell, rounds: int, device: torch.device, counts_bytes: bool) -> Sequence[Timing]:
    contestants: list[Contestant] = contestants_of(cell.works, cell.sizes, device, cell.floor)
    total = number_of_works(contestants, rounds)
    with ProgressBar(cell.name, total, "work") as told:
        return measure(contestants, rounds, device, counts_bytes=counts_bytes, told=told)
