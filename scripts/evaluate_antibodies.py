"""Let a pretrained antibody encoder, not trained further, redesign loops and write whole domains.

    python -m scripts.evaluate_antibodies --output_dir runs/antibodies

AntiBERTy lies in the package `antiberty`, real sequences in `abstar`; both are read, not run. Each
of the three loops (CDR) of a real domain is hidden alone and written anew, as long as it was, by
several samplers, and the share of real residues among the written ones is told beside that of
counting: residues by chance, and the most frequent of the loop and of each place in the other
domains. The second table tells how far the likeliest residue's probability can be trusted; the
third, how often domains that are written from nothing have what all have. Errors are standard
errors over domains. In the folder: `figures.json`, and `domains.jsonl` with the written domains.
"""

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import exp
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.evaluation import Calibration, calibration
from hf_maskgit.evaluation.antibodies import (
    LOOPS,
    SETS,
    Domain,
    Marks,
    domains_of,
    is_whole,
    load_annotator,
    load_antiberty,
    marks_of,
    number,
    read_reads,
    spelled,
)
from hf_maskgit.evaluation.figures import figures_text
from hf_maskgit.evaluation.loop_recovery import (
    CountedLoops,
    Estimate,
    disagreement,
    distance,
    recovered,
)
from hf_maskgit.evaluation.progress import ProgressBar
from hf_maskgit.hub.training_card import written_out
from hf_maskgit.training.mixed_precision import FORMATS_HELP, autocast
from hf_maskgit.training.recipes import (
    check_least,
    option,
    parse_options,
    run_program,
)
from hf_maskgit.training.sampler_arguments import OF_LENGTHS, check_samplers, samplers_of

BEST_COUNTING = "most frequent of the place"
SAMPLERS: list[dict[str, Any]] = [
    {"steps": 1, "do_sample": False},
    {"steps": 4, "do_sample": False},
    {"steps": 1000, "do_sample": False},
    {"steps": 4},
    {"pace": "first_hitting", "anneal_temperature": False},
]
WRITERS: list[dict[str, Any]] = [
    {"steps": 32},
    {"steps": 32, "order": "random", "anneal_temperature": False},
]
MASK_RATES = (0.1, 0.5, 0.9)


@dataclass
class AntibodyArguments:
    """How much is measured."""

    output_dir: str = option("runs/antibodies", "Folder for figures and written domains.")
    num_domains: int = option(25, "Real domains of each set, and domains that each sampler writes.")
    draws: int = option(2, "Times that a sampler which draws writes each loop.")
    samplers: str | None = option(
        None, "Options of `generate` for each sampler of loops, a JSON list of objects."
    )
    batch_size: int = option(32, "Domains in a pass.")
    mixed_precision: Literal["auto", "bf16", "no"] = option("auto", FORMATS_HELP)
    seed: int = option(0, "Seed of the choice of domains and of all that is written.")

    def __post_init__(self) -> None:
        """Check ranges."""
        check_least(self, num_domains=2, draws=2, batch_size=1)


class Generator(NamedTuple):
    """Who writes, and how."""

    model: MaskGitForMaskedLM
    tokenizer: PreTrainedTokenizerBase
    options: AntibodyArguments

    def autocast(self) -> AbstractContextManager[Any]:
        """Enter the number format of passes."""
        return autocast(self.options.mixed_precision, self.model.device)


class Written(NamedTuple):
    """What stands at the masks of one text now.

    Attributes:
        residues: in their order.
        probabilities: that each had when it was revealed.
        passes: that its text took.
    """

    residues: str
    probabilities: list[float]
    passes: int


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print the tables, and return the figures."""
    (options,) = parse_options((AntibodyArguments,), argv, "Measure an antibody encoder.")
    samplers = samplers_of(options.samplers, SAMPLERS, {"steps": 4}, decided=OF_LENGTHS)
    annotator = load_annotator()
    real = {name: domains_of(read_reads(name), annotator) for name in SETS}
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    generator = Generator(*load_antiberty(device_map=device), options)
    check_samplers(generator.model, samplers)
    chosen = {name: choose(domains, options) for name, domains in real.items()}
    sizes = {n: {"whole": len(real[n]), "measured": len(chosen[n])} for n in SETS}
    figures: dict[str, Any] = {"options": asdict(options), "domains": sizes}
    figures["loops"] = [
        row for name in SETS for row in measure_set(generator, name, real[name], chosen, samplers)
    ]
    figures["calibration"] = measure_calibration(generator, chosen)
    figures["whole domains"], texts = measure_writing(generator, annotator, chosen)
    folder = Path(options.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "figures.json").write_text(figures_text(figures), encoding="utf-8")
    lines = "".join(f"{json.dumps(one)}\n" for one in texts)
    (folder / "domains.jsonl").write_text(lines, encoding="utf-8")
    return figures


def choose(domains: Sequence[Domain], options: AntibodyArguments) -> list[Domain]:
    """Choose some domains by chance, always the same ones under a seed."""
    draws = torch.Generator().manual_seed(options.seed)
    order = torch.randperm(len(domains), generator=draws).tolist()
    return [domains[i] for i in order[: options.num_domains]]


def write(
    generator: Generator, texts: Sequence[str], sampler: dict[str, Any], told: ProgressBar
) -> list[Written]:
    """Fill the masks of texts, which may differ in length; each row has a seed of its own."""
    model, tokenizer, options = generator
    written = []
    for start in range(0, len(texts), options.batch_size):
        part = list(texts[start : start + options.batch_size])
        rows = tokenizer(part, padding=True, return_tensors="pt").to(model.device)
        seeds = [options.seed + start + i for i in range(len(part))]
        asked = {"return_dict_in_generate": True, **sampler}
        with generator.autocast():
            done: Any = model.generate(**rows, seed=seeds, **asked)
        masked = rows["input_ids"] == model.config.mask_token_id
        for i, where in enumerate(masked):
            residues = tokenizer.convert_ids_to_tokens(done.sequences[i][where].tolist())
            probabilities = done.reveal_log_probabilities[i][where].tolist()
            passes = int(done.denoiser_passes[i])
            written.append(Written("".join(residues), list(map(exp, probabilities)), passes))
        told.update(len(part))
    return written


def measure_set(
    generator: Generator,
    name: str,
    real: Sequence[Domain],
    chosen: dict[str, list[Domain]],
    samplers: Sequence[dict[str, Any]],
) -> list[dict[str, Any]]:
    """Measure the loops of a set by counting and by every sampler, and print the rows."""
    domains, counted = chosen[name], CountedLoops(real)
    counts = {loop: [counted.recovery(domain, loop) for domain in domains] for loop in LOOPS}
    if name == next(iter(SETS)):
        print(
            f"| domains | loops by | passes | {' | '.join(LOOPS)} | CDR3 of two draws differs in |"
        )
        print("|---" * (len(LOOPS) + 4) + "|")
    rows = []
    for way in counts[next(iter(LOOPS))][0]:
        shares = {loop: [found[way] for found in counts[loop]] for loop in LOOPS}
        rows.append(row_of(name, way, shares, {}))
    for sampler in samplers:
        shares, facts = measure_sampler(generator, domains, sampler)
        rows.append(row_of(name, written_out(sampler), shares, facts))
        for loop in LOOPS:
            gain = [s - c[BEST_COUNTING] for s, c in zip(shares[loop], counts[loop], strict=True)]
            rows[-1]["beyond counting"][loop] = Estimate.of(gain)
    return rows


def measure_sampler(
    generator: Generator, domains: Sequence[Domain], sampler: dict[str, Any]
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Write every loop of some domains.

    Returns:
        The share of each domain's residues that is recovered, by loop, a mean over draws; and what
        else there is to tell: passes, and by loop how draws differ and the calibration.
    """
    draws = generator.options.draws if sampler.get("do_sample", True) else 1
    mask, shares, passes = str(generator.tokenizer.mask_token), {}, []
    facts: dict[str, Any] = {"different": {}, "calibration": {}}
    with ProgressBar(written_out(sampler), draws * len(domains) * len(LOOPS), "loop") as told:
        for loop in LOOPS:
            texts = [
                spelled(d.residues, d.places(loop), mask) for d in domains for _ in range(draws)
            ]
            written = write(generator, texts, sampler, told)
            loops = [written[i : i + draws] for i in range(0, len(written), draws)]
            wanted = [domain.text_of(loop) for domain in domains]
            shares[loop] = [
                Estimate.of([recovered(one.residues, real) for one in several]).mean
                for several, real in zip(loops, wanted, strict=True)
            ]
            passes += [one.passes for one in written]
            if draws > 1:
                apart = [disagreement([one.residues for one in several]) for several in loops]
                facts["different"][loop] = Estimate.of(apart)
            else:
                pairs = zip(written, wanted, strict=True)
                right = [
                    a == b for one, real in pairs for a, b in zip(one.residues, real, strict=True)
                ]
                sure = [p for one in written for p in one.probabilities]
                found = Calibration.of(torch.tensor(sure), torch.tensor(right))
                facts["calibration"][loop] = calibration_figures(found)
    facts["passes"] = sum(passes) / len(passes)
    return shares, facts


def row_of(
    name: str, way: str, shares: dict[str, list[float]], facts: dict[str, Any]
) -> dict[str, Any]:
    """Make a row of figures and print it."""
    means = {loop: Estimate.of(found) for loop, found in shares.items()}
    passes = f"{facts['passes']:.1f}" if facts else ""
    apart = facts.get("different", {}).get("CDR3")
    cells = [name, way, passes, *map(shown, means.values()), shown(apart) if apart else ""]
    print(f"| {' | '.join(cells)} |", flush=True)
    return {"domains": name, "by": way, "recovered": means, "beyond counting": {}, **facts}


def measure_calibration(
    generator: Generator, chosen: dict[str, list[Domain]]
) -> list[dict[str, Any]]:
    """Measure the probabilities of residues of whole domains, hidden by chance, and print them."""
    print("\n| domains | residues hidden | confidence | right | calibration error | predictions |")
    print("|---" * 6 + "|")
    rows = []
    for name, domains in chosen.items():
        texts = [generator.tokenizer(spelled(d.residues, [], "")) for d in domains]
        with generator.autocast():
            by_rate = calibration(
                generator.model,
                [{"input_ids": text["input_ids"]} for text in texts],
                generator.tokenizer,
                mask_rates=MASK_RATES,
                batch_size=generator.options.batch_size,
                seed=generator.options.seed,
            )
        for rate, found in by_rate.items():
            row = {"domains": name, "mask_rate": rate, **calibration_figures(found)}
            cells = [f"{row[key]:.3f}" for key in ("confidence", "right", "expected_error")]
            print(f"| {name} | {rate:.0%} | {' | '.join(cells)} | {found.total} |", flush=True)
            rows.append(row)
    return rows


def calibration_figures(found: Calibration) -> dict[str, float]:
    """Gather what is told of a calibration."""
    return {
        "predictions": found.total,
        "confidence": found.mean_confidence,
        "right": found.accuracy,
        "expected_error": found.expected_error,
    }


def measure_writing(
    generator: Generator, annotator: Any, chosen: dict[str, list[Domain]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Write domains as long as real ones from nothing, and print what they have.

    Returns:
        The rows of figures, and the written domains with the sampler of each.
    """
    mask = str(generator.tokenizer.mask_token)
    several = [domain for domains in zip(*chosen.values(), strict=False) for domain in domains]
    several = several[: generator.options.num_domains]
    texts = [spelled(d.residues, range(len(d.residues)), mask) for d in several]
    print(f"\n| domains | numbered | whole | {' | '.join(Marks._fields)} | heavy | two differ in |")
    print("|---" * (len(Marks._fields) + 5) + "|")
    for name, domains in chosen.items():
        domain_facts(f"real, {name}", list(domains))
    rows, kept = [], []
    for sampler in WRITERS:
        with ProgressBar(written_out(sampler), len(texts), "domain") as told:
            written = write(generator, texts, sampler, told)
        found = [number(one.residues, annotator) for one in written]
        rows.append(domain_facts(written_out(sampler), [one and one[0] for one in found]))
        kept += [{"options": sampler, "residues": one.residues} for one in written]
    return rows, kept


def domain_facts(name: str, domains: Sequence[Domain | None]) -> dict[str, Any]:
    """Tell of domains, None for what is none, the shares that have something; print the row."""
    found = [domain for domain in domains if domain is not None]
    facts = {"numbered": [domain is not None for domain in domains]}
    facts["whole"] = [domain is not None and is_whole(domain) for domain in domains]
    for mark in Marks._fields:
        facts[mark] = [d is not None and getattr(marks_of(d), mark) for d in domains]
    facts["heavy"] = [domain is not None and domain.chain == "H" for domain in domains]
    row: dict[str, Any] = {"domains": name, "count": len(domains)}
    row |= {key: Estimate.of([float(one) for one in having]) for key, having in facts.items()}
    # Each with the next one, so that the pairs are nearly independent.
    apart = [distance(one, other) for one, other in pairwise(found)]
    row["different"] = Estimate.of(apart) if apart else None
    cells = [
        shown(one) if one else "" for key, one in row.items() if key not in ("domains", "count")
    ]
    print(f"| {name} | {' | '.join(cells)} |", flush=True)
    return row


def shown(found: Estimate) -> str:
    """Write a mean with its error."""
    return f"{found.mean:.3f} ± {found.std_error:.3f}"


if __name__ == "__main__":
    run_program(main)
