"""Measures every sampler against the exact oracle and writes the tables of docs/samplers.md.

    python -m tests.support.sampler_table           # everything, about five minutes on one core
    python -m tests.support.sampler_table --lists   # what follows from the library, at once

The oracle is the hidden Markov chain of the tests at 6
places; distances are total variation between the chain's law and 20,000 samples.
"""

import argparse
import re
from typing import Any

import torch
from tqdm import tqdm

from hf_maskgit import MaskGitGenerationConfig
from hf_maskgit.core.generation_config_maskgit import DEFAULTS
from hf_maskgit.core.sampler_choices import P2_PLANNERS, TABLES, orders_with, paces_with
from hf_maskgit.core.sampler_presets import PLAIN, PRESETS
from hf_maskgit.core.sampler_rules import PACES, REMASKS
from tests.support.oracles_sampling import (
    CHAIN,
    Oracle,
    text_frequencies,
    total_variation,
    total_variation_of_noise,
)
from tests.support.pages import write_all
from tests.support.project import ROOT
from tests.support.sampler_runs import run

PAGE = ROOT / "docs" / "samplers.md"
LENGTH, SAMPLES, SEED = 6, 20_000, 0
EXACT = Oracle.exact(CHAIN, LENGTH)
DENOISERS = {"exact": EXACT, "flattened": EXACT.flattened(0.7), "noisy": EXACT.noisy(1.0)}
STEPS, MORE_STEPS = (1, 2, 3, 4, 6), (12, 24)

Options = dict[str, Any]

BY_STEPS: list[Options] = [
    {"order": "top_probability"},
    {"order": "top_probability", "choice_temperature": 1.0},
    {"order": "margin"},
    {"order": "entropy"},
    {"order": "confidence"},
    {"order": "confidence", "choice_temperature": 1.0},
    {"order": "critic"},
    {"order": "random"},
    {"order": "left_to_right"},
    {"pace": "ancestral"},
    {"remask": "confidence"},
    {"remask": "confidence", "order": "confidence"},
    {"remask": "critic"},
    {"remask": "p2"},
    {"remask": "p2", "p2_eta": 2.0},
    {"remask": "p2", "choice_temperature": 1.0},
    {"remask": "p2", "p2_planner": "critic"},
    {"remask": "remdm_cap", "remdm_eta": 0.2},
    {"remask": "remdm_rescale", "remdm_eta": 0.2},
    {"remask": "remdm_conf"},
    {"remask": "remdm_loop", "remdm_eta": 0.2},
]
BY_CERTAINTY: list[Options] = [
    {"pace": "first_hitting"},
    *({"pace": "threshold", "confidence_threshold": p} for p in (0.9, 0.8, 0.7)),
    {"pace": "threshold", "confidence_threshold": 0.7, "order": "confidence"},
    *({"pace": "threshold", "threshold_factor": f} for f in (0.5, 1.0)),
    *({"pace": "entropy_bound", "entropy_budget": nats} for nats in (0.1, 0.6, 1.2)),
]


def measure(denoiser: str, options: Options, steps: int, seed: int = SEED) -> tuple[float, str]:
    """Return the distance to the law and the mean passes, "denoiser" or "denoiser + critic"."""
    oracle = DENOISERS[denoiser]
    filled = run(oracle, SAMPLES, steps=steps, seed=seed, **options)
    distance = total_variation(text_frequencies(filled.text, oracle.mask), oracle.law.numpy())
    passes, critic = (
        float(count.double().mean()) for count in (filled.passes, filled.critic_passes)
    )
    shown = f"{passes:.2g}" if passes < 9.95 else f"{passes:.3g}"
    return distance, f"{shown} + {critic:.3g}" if critic else shown


def steps_of(options: Options) -> tuple[int, ...]:
    """Steps at which a sampler is measured: more of them where it remasks or flips coins."""
    return STEPS + MORE_STEPS * ("remask" in options or options.get("pace") == "ancestral")


def name_of(options: Options) -> str:
    """Write options as a user would."""
    return ", ".join(f"`{name}={value!r}`" for name, value in options.items())


def table_of(choice: str) -> str:
    """One row per value of a choice: what it is, and who found it."""
    default = MaskGitGenerationConfig()
    default.complete(DEFAULTS)
    default.resolve_choices()
    heads = {
        "order": "goes first | `choice_temperature` left out",
        "pace": "per pass",
        "remask": "goes back to a mask",
    }
    head = f"| value | {heads[choice]} | source |"
    lines = [head, "|---" * (head.count("|") - 1) + "|"]
    for value, row in TABLES[choice].items():
        usual = " (default)" if value == getattr(default, choice) else ""
        told = re.sub(r"'(\w+)'", r'"\1"', row.help)
        if choice == "order":
            takes_noise = row.noise == "choice_temperature"
            told += f" | {row.choice_temperature if takes_noise else ''}"
        lines.append(f'| `"{value}"`{usual} | {told} | {row.source} |')
    return "\n".join(lines)


def table_of_presets() -> str:
    """One row per preset, with the options that differ from those of every preset."""
    lines = [
        "| name | source | options | texts per prompt | what it does | take it for |",
        "|---|---|---|---|---|---|",
    ]
    for name, preset in PRESETS.items():
        own = [f"`{k}={v!r}`" for k, v in preset.options.items() if PLAIN.get(k) != v]
        texts = "any number" if preset.options["do_sample"] else "one: it draws nothing"
        cells = (f"`{name}`", preset.source, ", ".join(own), texts, preset.idea, preset.use)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def lists() -> dict[str, str]:
    """The tables that follow from the library alone, by the names of their markers."""
    return {
        **{choice: table_of(choice) for choice in TABLES},
        "legal combinations": legal_combinations(),
        "presets": table_of_presets(),
    }


def legal_combinations() -> str:
    """List which order goes with which pace and remasking, as a table."""
    lines = [
        "| `remask` | `pace` | `order` (the first is what an unset one becomes) |",
        "|---|---|---|",
    ]
    for remask in REMASKS:
        planned = REMASKS[remask].planned
        for pace in paces_with(remask):
            for planner in P2_PLANNERS if planned else ("self",):
                shown = f'`"{remask}"`'
                if planned:
                    shown += f' with `p2_planner="{planner}"`'
                orders = orders_with(pace, remask, planner)
                listed = ", ".join(f'`"{order}"`' for order in orders)
                lines.append(f'| {shown} | `"{pace}"` | {listed} |')
    assert len(lines) > len(PACES) + len(REMASKS)
    return "\n".join(lines)


def noise_floor() -> tuple[float, float]:
    """Mean and deviation of the distance when the samples are the law's own."""
    return total_variation_of_noise(EXACT.law.numpy(), SAMPLES)


def shown_distance(distance: float) -> str:
    """Bold what sampling noise explains."""
    mean, deviation = noise_floor()
    return f"**{distance:.3f}**" if distance < mean + 4 * deviation else f"{distance:.3f}"


def table_by_steps(denoiser: str, progress: Any) -> str:
    """One row per sampler, one column per number of steps."""
    columns = STEPS + MORE_STEPS
    lines = ["| sampler | " + " | ".join(f"S = {s}" for s in columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for options in BY_STEPS:
        cells = []
        for steps in columns:
            if steps not in steps_of(options):
                cells.append("")
                continue
            distance, passes = measure(denoiser, options, steps)
            progress.update()
            bracket = "" if passes == str(steps) else f" ({passes})"
            cells.append(shown_distance(distance) + bracket)
        lines.append(f"| {name_of(options)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def table_by_certainty(progress: Any) -> str:
    """One row per sampler that takes the passes it needs, one column per denoiser."""
    lines = ["| sampler | " + " | ".join(DENOISERS) + " |", "|---" * (len(DENOISERS) + 1) + "|"]
    for options in BY_CERTAINTY:
        cells = []
        for denoiser in DENOISERS:
            distance, passes = measure(denoiser, options, LENGTH)
            progress.update()
            cells.append(f"{shown_distance(distance)} ({passes})")
        lines.append(f"| {name_of(options)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def measurements() -> dict[str, str]:
    """The tables that are measured, by the names of their markers."""
    cells = len(DENOISERS) * (sum(len(steps_of(o)) for o in BY_STEPS) + len(BY_CERTAINTY))
    with tqdm(total=cells) as progress:
        tables = {f"distances {name}": table_by_steps(name, progress) for name in DENOISERS}
        tables["distances by certainty"] = table_by_certainty(progress)
    mean, deviation = noise_floor()
    tables["noise"] = (
        f"20,000 samples of the chain itself are {mean:.3f} away from it, give or take "
        f"{deviation:.3f};\ndistances within four of these deviations are bold."
    )
    return tables


def main() -> None:
    """Write the page: what follows from the library, and unless told otherwise what is measured."""
    parser = argparse.ArgumentParser(description="Write the tables of docs/samplers.md.")
    parser.add_argument("--lists", action="store_true", help="leave the measurements as they are")
    torch.set_num_threads(1)
    tables = lists() if parser.parse_args().lists else {**lists(), **measurements()}
    write_all(PAGE, tables)


if __name__ == "__main__":
    main()
