"""Writes the tables of docs/cost.md from the formulas of `hf_maskgit/training/cost.py`.

    python -m tests.support.cost_table

A test holds the page to them.
"""

from pathlib import Path
from typing import Any

from hf_maskgit.evaluation.progress import duration
from hf_maskgit.training.cost import (
    SHARDED,
    Memory,
    ModelSize,
    activation_bytes,
    memory_of,
    seconds_for,
    tokens_per_second,
)
from hf_maskgit.training.optimizers import ADAMW_NUMBERS
from tests.support.pages import write_all
from tests.support.project import ROOT

PAGE = ROOT / "docs" / "cost.md"
# By about how many parameters; a vocabulary of 50,368 tokens, as ModernBERT's.
MODELS = {
    "100 M": ModelSize.of_encoder(12, 768, 50_368),
    "1 B": ModelSize.of_encoder(24, 1792, 50_368),
    "7 B": ModelSize.of_encoder(32, 4096, 50_368),
}
# Operations per second in 16 bits without sparsity, as the makers state them.
DEVICES = {"A100": 312e12, "H100": 989e12}
UTILISATION = 0.4
LENGTH = 512  # tokens of a text
TOKENS = 32 * LENGTH  # of a forward pass on one device
CORPORA = {"1 B": 1e9, "10 B": 1e10}  # tokens


def gigabytes(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.1f}"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def state(size: ModelSize, how: str, devices: int) -> Memory:
    """What weights, gradients, AdamW and averages take on each device."""
    remembered = ADAMW_NUMBERS * size.parameters
    how_many: dict[str, Any] = {"remembered": remembered, "averages": True, "devices": devices}
    return memory_of(size.parameters, size.parameters, how=how, **how_many)


def memory_table() -> str:
    kept = [activation_bytes(size, TOKENS) for size in MODELS.values()]
    short = [activation_bytes(size, TOKENS, checkpointing=True) for size in MODELS.values()]
    rows = [["one device, or DDP", *(gigabytes(state(m, "DDP", 1).total) for m in MODELS.values())]]
    rows += [
        [f"{how} on 8 devices", *(gigabytes(state(m, how, 8).total) for m in MODELS.values())]
        for how in list(SHARDED)[1:]
    ]
    rows.append([f"activations of {TOKENS:,} tokens", *map(gigabytes, kept)])
    rows.append(["the same with `--gradient_checkpointing`", *map(gigabytes, short)])
    return table(["GB on each device", *MODELS], rows)


def time_table() -> str:
    rows = []
    for device, peak in DEVICES.items():
        for name, size in MODELS.items():
            rate = tokens_per_second(size, LENGTH, peak, UTILISATION)
            times = [duration(seconds_for(n, rate, d)) for n in CORPORA.values() for d in (1, 8)]
            rows.append([device, name, f"{float(f'{rate:.2g}'):,.0f}", *times])
    heads = [f"{corpus} tokens on {d}" for corpus in CORPORA for d in (1, 8)]
    return table(["device", "model", "tokens per second", *heads], rows)


def sizes_table() -> str:
    rows = [
        [name, str(size.layers), f"{size.hidden:,}", f"{size.parameters / 1e6:,.0f} M"]
        for name, size in MODELS.items()
    ]
    return table(["model", "layers", "width", "parameters"], rows)


def tables() -> dict[str, str]:
    """The tables of the page by the names of their markers."""
    return {"sizes": sizes_table(), "memory": memory_table(), "time": time_table()}


def main(page: Path = PAGE) -> None:
    """Write the tables into the page."""
    write_all(page, tables())


if __name__ == "__main__":
    main()
