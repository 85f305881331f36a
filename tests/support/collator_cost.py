"""Tells what a batch costs per example: processor time of one thread, ours and transformers'.

    python -m tests.support.collator_cost
    python -m tests.support.collator_cost 30      # rounds

Both read the examples from the same data set and mask half of the tokens on average; in turn.
"""

import sys
import time
from collections.abc import Callable

import torch
from transformers import DataCollatorForLanguageModeling

from hf_maskgit import DataCollatorForMaskGit
from hf_maskgit.evaluation.benchmark_rounds import quartiles
from hf_maskgit.evaluation.benchmark_shapes import Sizes
from hf_maskgit.training.benchmark_loops import make_texts, make_tokenizer
from hf_maskgit.training.passes import UpdateShares

_ROUNDS = 15
_SIZES = Sizes("bert", 1, 1, 1, 1, 30_522, batch_size=64, length=320, steps=1)  # 64 tokens: median


def makers() -> dict[str, Callable[[list[int]], object]]:
    """What makes a batch of rows of the data set, by name."""
    tokenizer, texts = make_tokenizer(_SIZES), make_texts(_SIZES)
    collator = DataCollatorForMaskGit(tokenizer, count_unknown=False)
    theirs = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.5)
    shares, plain = UpdateShares(texts, collator), texts.select_columns("input_ids")
    return {
        "DataCollatorForMaskGit": lambda rows: collator(shares[rows]),
        "DataCollatorForLanguageModeling": lambda rows: theirs(plain.__getitems__(rows)),
    }


def measured(rounds: int) -> dict[str, list[float]]:
    """Milliseconds per example of each round, by name."""
    size, made = _SIZES.batch_size, makers()
    found: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(rounds + 1):  # the first warms up
        rows = torch.randperm(20 * size)[:size].tolist()
        for name, make in made.items():
            began = time.process_time()
            make(rows)
            found[name].append((time.process_time() - began) / size * 1e3)
    return {name: values[1:] for name, values in found.items()}


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    for name, values in measured(int(sys.argv[1]) if len(sys.argv) > 1 else _ROUNDS).items():
        low, middle, high = quartiles(values)
        sys.stdout.write(f"{name:34}{middle:.3f} ms per example ({low:.3f} to {high:.3f})\n")


if __name__ == "__main__":
    main()
