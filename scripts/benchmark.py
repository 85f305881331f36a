"""Time `generate` and training beside their floors and beside other projects, in one run.

    python scripts/benchmark.py --output_file speed.json --plot_file speed.png
    python scripts/benchmark.py --quick                         # within a minute on two idle cores
    python scripts/benchmark.py --cells "BERT 6 x 384" --rounds 15

All works of a cell have the same weights and sizes and are run in turn, round by round:
`hf_maskgit/evaluation/benchmark_rounds.py` says how. Seconds of one machine mean little on another;
ratios to the floor, the bare encoder or the plain masked-LM step, mean more.
"""

import datetime
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hf_maskgit.evaluation import benchmark_generation as generation
from hf_maskgit.evaluation.benchmark_report import (
    draw_report,
    figure_class_of_matplotlib,
    whole_report,
)
from hf_maskgit.training import benchmark_updates as training
from hf_maskgit.training.recipes import (
    check_least,
    check_output,
    option,
    parse_options,
    run_program,
)
from hf_maskgit.training.versions import commit_of, installed_versions

GROWTH = "growth"  # names all cells in which a size grows


@dataclass
class BenchmarkArguments:
    """What is measured, and where the figures go."""

    quick: bool = option(False, "Small sizes and few rounds: within a minute on two idle cores.")
    cells: list[str] | None = option(
        None,
        "Names of the cells to measure, such as 'BERT 6 x 384'; 'growth' is all in which a size "
        "grows. Default: all.",
    )
    rounds: int | None = option(
        None, "Timed rounds of every cell, after one to warm up. Default: 7, and 2 with --quick."
    )
    no_peers: bool = option(False, "Leave other projects out; x-transformers is not needed then.")
    device: str = option(
        "cuda" if torch.cuda.is_available() else "cpu", "Where to run, such as cpu or cuda:0."
    )
    output_file: str | None = option(None, "Write all figures there as JSON.")
    plot_file: str | None = option(None, "Draw them there, as a PNG or what the ending says.")

    def __post_init__(self) -> None:
        """Check ranges, and that the figures will have a place."""
        check_least(self, rounds=1)
        check_output(self.output_file)
        check_output(self.plot_file)
        kind = self.device.partition(":")[0]
        if kind not in ("cpu", "cuda"):
            raise ValueError(f"`device` must be cpu or cuda, got {self.device!r}.")
        if kind == "cuda" and not torch.cuda.is_available():
            raise ValueError("`device` is cuda, and torch finds no GPU; leave it out for the CPU.")


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print the tables, write the files, and return the figures."""
    (options,) = parse_options((BenchmarkArguments,), argv, "Time this library beside others.")
    if options.plot_file is not None:
        figure_class_of_matplotlib()
    device = torch.device(options.device)
    rounds = options.rounds or (2 if options.quick else 7)
    cells, growths, updates = chosen(options)
    generation.check_peers([*cells, *growths])
    found: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit_of(Path(__file__).parent),
        "machine": machine_of(device),
        "packages": installed_versions(),
        "quick": options.quick,
        "rounds": rounds,
    }
    found["generation"] = [generation.measure_cell(cell, rounds, device) for cell in cells]
    found["growth"] = [generation.measure_growth(g, min(rounds, 3), device) for g in growths]
    found["training"] = [training.measure_cell(cell, rounds, device) for cell in updates]
    print(whole_report(found))
    if options.output_file is not None:
        text = json.dumps(found, indent=1) + "\n"
        Path(options.output_file).write_text(text, encoding="utf-8")
    if options.plot_file is not None:
        print(draw_report(found, Path(options.plot_file)))
    return found


def chosen(options: BenchmarkArguments) -> tuple[list[Any], list[Any], list[Any]]:
    """Return the cells of generation, of growth and of training that are asked for.

    Raises:
        ValueError: for a cell that there is none of.
    """
    quick = options.quick
    cells = list(generation.QUICK_CELLS if quick else generation.CELLS)
    growths = list(generation.QUICK_GROWTHS if quick else generation.GROWTHS)
    updates = list(training.QUICK_CELLS if quick else training.CELLS)
    known = [*(cell.name for cell in cells), *(cell.name for cell in updates), GROWTH]
    asked = known if options.cells is None else options.cells
    for name in asked:
        if name not in known:
            raise ValueError(f"There is no cell {name!r}; `cells` may name {', '.join(known)}.")
    if options.no_peers:
        cells = [cell._replace(works=generation.without_peers(cell.works)) for cell in cells]
        growths = [one._replace(works=generation.without_peers(one.works)) for one in growths]
    return (
        [cell for cell in cells if cell.name in asked],
        growths if GROWTH in asked else [],
        [cell for cell in updates if cell.name in asked],
    )


def machine_of(device: torch.device) -> dict[str, Any]:
    """Say what the figures were measured on."""
    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else "the CPU",
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def processor() -> str:
    """Name the processor, as the system does."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), platform.processor() or platform.machine())


if __name__ == "__main__":
    run_program(main)
