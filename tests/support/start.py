"""Tells what `import hf_maskgit` adds to imports that come before it: processor time, in turn.

    python -m tests.support.start
    python -m tests.support.start 15      # rounds

Each import is made by a process of its own, round by round; medians of the processor seconds are
told, with quartiles, and what is added to the row before. transformers imports most of itself when
it is first asked for a model: the third row is what every program with a model has to pay.
"""

import resource
import subprocess
import sys

from hf_maskgit.evaluation.benchmark_rounds import quartiles

IMPORTS = {
    "torch and transformers": "import torch, transformers",
    "and hf_maskgit": "import hf_maskgit",
    "and a model class, a pipeline": "from transformers import BertForMaskedLM, pipeline",
    "and all that hf_maskgit shows": "from hf_maskgit import *",
}
_ROUNDS = 7


def processor_seconds(code: str) -> float:
    """Processor time of a process that runs a line of Python, and nothing of others."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measured(rounds: int) -> dict[str, list[float]]:
    """Seconds of each row of `IMPORTS` behind those above it, for each round."""
    lines = list(IMPORTS.values())
    found: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for _ in range(rounds):
        for number, name in enumerate(IMPORTS, 1):
            found[name].append(processor_seconds("\n".join(lines[:number])))
    return found


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else _ROUNDS
    before = 0.0
    for name, seconds in measured(rounds).items():
        low, middle, high = quartiles(seconds)
        told = f"{middle:.2f} s ({low:.2f} to {high:.2f})"
        sys.stdout.write(f"{name:32}{told}, adds {middle - before:.2f} s\n")
        before = middle


if __name__ == "__main__":
    main()
