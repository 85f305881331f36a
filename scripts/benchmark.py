"""Time `generate` and training beside their floors and beside other projects, in one run.

    python scripts/benchmark.py --output_file speed.json --plot_file speed.png
    python scripts/benchmark.py --output_file speed.json --resume        # what is missing there
    python scripts/benchmark.py --output_file speed.json --replace --cells molecules   # that anew
    python scripts/benchmark.py --quick                         # within a minute on two idle cores
    python scripts/benchmark.py --cells "BERT 6 x 384" --rounds 15

All works of a cell have the same weights and sizes and are run in turn, round by round:
`hf_maskgit/evaluation/benchmark_rounds.py` says how. Seconds of one machine mean little on another;
ratios to the floor, the bare encoder or the plain masked-LM step, mean more. The file is written
after every cell, so that a run that was ended can go on.
"""

import datetime
import json
import logging
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

import hf_maskgit
from hf_maskgit.evaluation import benchmark_generation as generation
from hf_maskgit.evaluation.benchmark_report import (
    draw_report,
    whole_report,
)
from hf_maskgit.evaluation.benchmark_rounds import header_of
from hf_maskgit.evaluation.benchmark_works import check_peers, without_peers
from hf_maskgit.evaluation.figures import figures_text
from hf_maskgit.evaluation.progress import duration
from hf_maskgit.training import benchmark_loops as loops
from hf_maskgit.training import benchmark_updates as training
from hf_maskgit.training.output_files import check_output, check_picture
from hf_maskgit.training.recipes import (
    check_least,
    option,
    parse_options,
    run_program,
)
from hf_maskgit.training.versions import commit_of, installed_versions

logger = logging.getLogger("hf_maskgit.benchmark")

GROWTH = "growth"  # names all cells in which a size grows
# What must be the same in two runs whose figures stand beside each other.
SETTINGS = ("commit", "machine", "packages", "quick", "rounds")


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
        None,
        "Timed rounds of every cell, after one to warm up; what takes long has 3 at most. Default: "
        "5, and 2 with --quick.",
    )
    no_peers: bool = option(False, "Leave other projects out; x-transformers is not needed then.")
    device: str = option(
        "cuda" if torch.cuda.is_available() else "cpu", "Where to run, such as cpu or cuda:0."
    )
    output_file: str | None = option(
        None, "Write all figures there as JSON, after every cell those that there are."
    )
    resume: bool = option(
        False,
        "Keep the cells that `output_file` holds already, from the same commit, machine and "
        "settings, and measure the others.",
    )
    replace: bool = option(
        False,
        "Measure the cells anew that `cells` names, and keep the others that `output_file` holds, "
        "whatever commit they are of: tables tell where it is another.",
    )
    plot_file: str | None = option(None, "Draw them there, as a PNG or what the ending says.")

    def __post_init__(self) -> None:
        """Check ranges, and that the figures will have a place."""
        check_least(self, rounds=1)
        check_output(self.output_file)
        check_picture(self.plot_file)
        kind = self.device.partition(":")[0]
        if kind not in ("cpu", "cuda"):
            raise ValueError(f"`device` must be cpu or cuda, got {self.device!r}.")
        if kind == "cuda" and not torch.cuda.is_available():
            raise ValueError("`device` is cuda, and torch finds no GPU; leave it out for the CPU.")
        if self.resume and self.output_file is None:
            raise ValueError("`resume` goes on with an `output_file`, and none is named.")
        if self.replace and (self.resume or self.cells is None or self.output_file is None):
            raise ValueError(
                "`replace` measures anew what `cells` names in an `output_file`: name both, and "
                "leave `resume` out."
            )


class Part(NamedTuple):
    """What is measured at once and then written.

    Attributes:
        kind: the list of the figures that it belongs to.
        name: by which it is asked for.
        header: what its figures say of it.
        works: names of what is compared in it.
        measure: returns its figures, given rounds and a device.
    """

    kind: str
    name: str
    header: dict[str, Any]
    works: tuple[str, ...]
    measure: Callable[[int, torch.device], dict[str, Any]]

    def is_in(self, found: dict[str, Any]) -> bool:
        """Tell whether figures hold this part already."""
        return any(
            all(one.get(name) == value for name, value in self.header.items())
            and [work["name"] for work in one["works"]] == list(self.works)
            for one in found[self.kind]
        )

    def replace_in(self, found: dict[str, Any], figures: dict[str, Any]) -> None:
        """Put new figures in place of those that this part has there, or behind the others."""
        key, cells = "over" if self.name == GROWTH else "name", found[self.kind]
        names = [one[key] for one in cells]
        place = names.index(figures[key]) if figures[key] in names else len(cells)
        cells[place : place + 1] = [figures]


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print the tables, write the files, and return the figures."""
    (options,) = parse_options((BenchmarkArguments,), argv, "Time this library beside others.")
    device = torch.device(options.device)
    parts = chosen(options)
    check_peers([name for part in parts for name in part.works])
    found, own = begun(options, device)
    missing = [part for part in parts if options.replace or not part.is_in(found)]
    for number, part in enumerate(missing, 1):
        begun_at = time.monotonic()
        logger.info("%s: part %d of %d", part.name, number, len(missing))
        figures = part.measure(found["rounds"], device)
        if options.replace:
            part.replace_in(found, {**figures, "measured": own})
        else:
            found[part.kind].append(figures)
        logger.info("%s: took %s", part.name, duration(time.monotonic() - begun_at))
        if options.output_file is not None:
            write(found, Path(options.output_file))
    print(whole_report(found))
    if options.plot_file is not None:
        print(draw_report(found, Path(options.plot_file)))
    return found


def begun(
    options: BenchmarkArguments, device: torch.device
) -> tuple[dict[str, Any], dict[str, str | None]]:
    """Return figures without a cell, or those that are to be gone on with; and date and commit.

    Raises:
        ValueError: for figures of another machine or other settings, or, if none are replaced, of
            another commit; and for what is none.
    """
    found: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit_of(Path(hf_maskgit.__file__).parent, within=True),
        "machine": machine_of(device),
        "packages": installed_versions(),
        "quick": options.quick,
        "rounds": options.rounds or (2 if options.quick else 5),
        **{kind: [] for kind in ("generation", "growth", "training")},
    }
    own = {name: found[name] for name in ("date", "commit")}
    goes_on = options.resume or options.replace
    if not goes_on or not Path(options.output_file or "").exists():
        return found, own
    kept = json.loads(Path(options.output_file or "").read_text(encoding="utf-8"))
    if not isinstance(kept, dict) or not found.keys() <= kept.keys():
        raise ValueError(
            f"{options.output_file!r} holds no figures of this script to go on with; name another "
            "file, or leave --resume and --replace out to begin it anew."
        )
    for name in SETTINGS:
        if name == "commit" and options.replace:
            continue
        before, now = ({**one, "machine": same_machine(one)}[name] for one in (kept, found))
        if before != now:
            raise ValueError(
                f"{options.output_file!r} was measured with {name} {before}, and this run has "
                f"{now}; their figures do not stand beside each other. Leave --resume and "
                "--replace out to measure all anew."
            )
    return dict(kept), own


def same_machine(found: dict[str, Any]) -> dict[str, Any]:
    """Return what tells a machine from another, without what else it is doing."""
    return {name: value for name, value in found["machine"].items() if name != "load"}


def write(found: dict[str, Any], path: Path) -> None:
    """Replace a file of figures by a longer one; it is whole at any time."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(figures_text(found, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)


def chosen(options: BenchmarkArguments) -> list[Part]:
    """Return what is asked for, in the order in which it is measured.

    Raises:
        ValueError: for a cell that there is none of.
    """
    parts = all_parts(options.quick, options.no_peers)
    known = list(dict.fromkeys(part.name for part in parts))
    asked = known if options.cells is None else options.cells
    for name in asked:
        if name not in known:
            raise ValueError(f"There is no cell {name!r}; `cells` may name {', '.join(known)}.")
    return [part for part in parts if part.name in asked]


def all_parts(quick: bool, no_peers: bool) -> list[Part]:
    """Return every part, of small sizes with `quick`."""
    parts = []
    for cell in generation.QUICK_CELLS if quick else generation.CELLS:
        cell = cell._replace(works=without_peers(cell.works)) if no_peers else cell
        measure = partial(generation.measure_cell, cell)
        parts.append(Part("generation", cell.name, header_of(cell), cell.works, measure))
    for update in training.QUICK_CELLS if quick else training.CELLS:
        measure = partial(training.measure_cell, update)
        parts.append(Part("training", update.name, header_of(update), update.works, measure))
    for loop in loops.QUICK_CELLS if quick else loops.CELLS:
        measure = partial(loops.measure_cell, loop)
        parts.append(Part("training", loop.name, header_of(loop), loop.works, measure))
    for growth in generation.QUICK_GROWTHS if quick else generation.GROWTHS:
        growth = growth._replace(works=without_peers(growth.works)) if no_peers else growth
        measure = partial(generation.measure_growth, growth)
        parts.append(
            Part("growth", GROWTH, generation.header_of_growth(growth), growth.works, measure)
        )
    return parts


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
