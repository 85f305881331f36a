"""Measure samplers on list operations of ParallelBench, beside their accuracy in closed form.

    python -m scripts.evaluate_list_tasks
    python -m scripts.evaluate_list_tasks --items 6 --samplers '[{"order": "random", "steps": 3}]'

The denoiser knows each task's law exactly (arXiv 2510.04767; see docs/samplers.md), so that what
goes wrong is the sampler's doing. It is a benchmark of samplers, and a test of this one, whose
accuracies lie as near to the closed form as chance allows. Nothing is trained, no model is loaded.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_maskgit.core.noise import mix
from hf_maskgit.evaluation.figures import figures_text
from hf_maskgit.evaluation.list_decoding import every_sampler, measure
from hf_maskgit.evaluation.list_tasks import TASKS, ask, draws_first
from hf_maskgit.evaluation.progress import ProgressBar
from hf_maskgit.hub.training_card import written_out
from hf_maskgit.training.output_files import check_output
from hf_maskgit.training.recipes import (
    check_least,
    option,
    parse_options,
    run_program,
)
from hf_maskgit.training.sampler_arguments import samplers_of


@dataclass
class ListArguments:
    """What is measured."""

    items: int = option(8, "Items of a list, and so masks of its answer.")
    num_lists: int = option(10_000, "Lists per sampler and task.")
    samplers: str | None = option(
        None,
        "Options for each sampler, a JSON list of objects with `order`, `pace` and what they read. "
        "Default: every order and pace, each at several speeds.",
    )
    output_file: str | None = option(None, "File for all figures, as JSON.")
    seed: int = option(0, "Seed of all lists and answers.")

    def __post_init__(self) -> None:
        """Check ranges, and that the figures will have a place."""
        check_least(self, items=2, num_lists=1)
        check_output(self.output_file)


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Measure, print a table, and return the figures."""
    (options,) = parse_options((ListArguments,), argv, "Measure samplers on list operations.")
    samplers = samplers_of(
        options.samplers, every_sampler(options.items), {"order": "random", "steps": 3}
    )
    asked = [ask(options.items, sampler) for sampler in samplers]  # mistakes first
    found: list[dict[str, Any]] = []
    with ProgressBar("Measuring", len(samplers), "sampler") as told:
        for number, (sampler, one) in enumerate(zip(samplers, asked, strict=True)):
            figures = {
                name: measure(task, one, options.num_lists, mix(options.seed, number, place))
                for place, (name, task) in enumerate(TASKS.items())
            }
            found.append(
                {
                    "options": {"order": one.sampler.order, "pace": one.sampler.pace, **sampler},
                    **{name: figure._asdict() for name, figure in figures.items()},
                }
            )
            told.update(1)
    if options.output_file is not None:
        Path(options.output_file).write_text(figures_text(found), encoding="utf-8")
    print(table_of(found))
    print(verdict(found))
    return found


def table_of(found: Sequence[dict[str, Any]]) -> str:
    """Write the figures as a table; orders that choose the place first share a line.

    Of these the closed forms are the same, and what was measured is the mean.
    """
    lines: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in found:
        options = {**row["options"]}
        alike = draws_first(options.pop("order"))
        lines.setdefault((alike, *options.items()), []).append(row)
    head = "| sampler | order | " + " | ".join(f"{task} | tokens" for task in TASKS) + " |"
    return "\n".join([head, "|---" * (2 + 2 * len(TASKS)) + "|", *map(line_of, lines.values())])


def line_of(rows: Sequence[dict[str, Any]]) -> str:
    """Write some samplers as one line."""
    rest = {name: value for name, value in rows[0]["options"].items() if name != "order"}
    cells = [written_out(rest)]
    cells.append(", ".join(f"`{row['options']['order']}`" for row in rows))
    for task in TASKS:
        accuracy, tokens = (
            sum(row[task][name] for row in rows) / len(rows)
            for name in ("accuracy", "tokens_per_pass")
        )
        cells += [f"{accuracy:.4f} ({rows[0][task]['expected']:.4f})", f"{tokens:.2f}"]
    return f"| {' | '.join(cells)} |"


def verdict(found: Sequence[dict[str, Any]]) -> str:
    """Say how far the measured accuracies lie from the closed forms."""
    figures = [row[task] for row in found for task in TASKS]
    chancy = [figure for figure in figures if 0 < figure["expected"] < 1]
    wrong = [one for one in figures if one not in chancy and one["deviation"]]
    certain = f"{len(figures) - len(chancy)} accuracies are certain, and {len(wrong)} differ."
    if not chancy:
        return certain
    furthest = max(abs(figure["deviation"]) for figure in chancy)
    odds = 1 - (1 - math.erfc(furthest / math.sqrt(2))) ** len(chancy)
    return (
        f"{certain} Of {len(chancy)} others the furthest lies {furthest:.2f} standard errors from "
        f"its closed form; so far or further lies one of so many by chance with odds of {odds:.2g}."
    )


if __name__ == "__main__":
    run_program(main)
