"""Measures pace "speculative" against one reveal per pass on a model, and prints the table.

    python -m tests.support.speculation_table FOLDER --length 126 --batch 1 8

Both write texts of the model's own distribution from nothing, none of which ends early. Seconds are
those of the processor, medians of interleaved runs in one process on one thread.
"""

import argparse
import sys
from collections.abc import Iterator
from statistics import median
from time import process_time
from typing import Any

import torch

from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.hub.loading import load_generator

PACES: dict[str, dict[str, Any]] = {
    "one per pass": {"pace": "schedule"},
    **{f"`draft_length={most}`": {"pace": "speculative", "draft_length": most} for most in (4, 16)},
}


def measured(
    model: MaskGitForMaskedLM, batch: int, length: int, order: str, repeats: int
) -> dict[str, list[float]]:
    """Return passes, rows (both per text) and seconds of each pace, medians of the repeats."""
    found: dict[str, list[list[float]]] = {name: [] for name in PACES}
    ends = None if model.config.eos_token_id is None else [model.config.eos_token_id]
    for seed in range(repeats):
        for name, options in PACES.items():
            started = process_time()
            out: Any = model.generate(
                max_new_tokens=length,
                num_return_sequences=batch,
                order=order,
                steps=length,
                anneal_temperature=False,
                suppress_tokens=ends,
                seed=seed,
                return_dict_in_generate=True,
                **options,
            )
            seconds = process_time() - started
            counts = [out.denoiser_passes, out.denoiser_rows]
            found[name].append([*(float(c.double().mean()) for c in counts), seconds])
    return {
        name: [median(column) for column in zip(*runs, strict=True)] for name, runs in found.items()
    }


def rows(model: MaskGitForMaskedLM, asked: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of the table as they come about."""
    yield "| texts | order | pace | passes | rows | seconds | of one per pass |"
    yield "|---|---|---|---|---|---|---|"
    for batch in asked.batch:
        for order in ("random", "left_to_right"):
            found = measured(model, batch, asked.length, order, asked.repeats)
            usual = found["one per pass"][-1]
            for name, (passes, num_rows, seconds) in found.items():
                yield (
                    f'| {batch} | `"{order}"` | {name} | {passes:.0f} | {num_rows:.0f} | '
                    f"{seconds:.1f} | {seconds / usual:.2f} |"
                )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="folder of a generator")
    parser.add_argument("--length", type=int, default=126, help="tokens per text")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="texts at a time")
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    model, _ = load_generator(asked.model)
    for line in rows(model, asked):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
