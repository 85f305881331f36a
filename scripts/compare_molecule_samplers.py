"""Compare samplers by the molecules that a generator writes: valid, different, unlike each other.

    python -m scripts.compare_molecule_samplers --models runs/molecules/training \
        --passes 8 16 32 64 --output_dir runs/molecules/samplers
    python -m scripts.compare_molecule_samplers --models runs/ways/* --passes 18 \
        --samplers '[{}, {"remask": "confidence"}]' --output_dir runs/ways_samplers

Validity is RDKit's (extra `molecules`) and no judgement of the model itself. It is easily had by
the same simple molecule again and again, so the share of different ones, how unlike two of them are
and how large they are stand beside it. Every sampler writes as many, of lengths drawn from those of
the training under the same seeds. A sampler whose pace takes the passes it needs is asked once,
whatever `--passes` says. Interrupted, the same command goes on: `written.jsonl` of the folder keeps
what was written, `samplers.json` has the figures.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from hf_maskgit.evaluation.batches import evaluating
from hf_maskgit.evaluation.figures import figures_text
from hf_maskgit.evaluation.molecule_samples import Estimate, molecule_figures
from hf_maskgit.evaluation.progress import ProgressBar
from hf_maskgit.evaluation.scaffolds import load_rdkit
from hf_maskgit.evaluation.written_folders import claim_folder
from hf_maskgit.hub.loading import identity_of, load_generator
from hf_maskgit.training.mixed_precision import FORMATS_HELP, autocast
from hf_maskgit.training.recipes import (
    check_least,
    option,
    parse_options,
    required,
    run_program,
)
from hf_maskgit.training.sampler_arguments import check_samplers, samplers_of

from .compare_samplers import with_passes

SAMPLERS: list[dict[str, Any]] = [
    {},
    {"schedule": "cosine"},
    {"anneal_temperature": False},
    {"choice_temperature": 0.0},
    {"choice_temperature": 8.0},
    {"order": "margin"},
    {"order": "entropy"},
    {"order": "confidence"},
    {"order": "confidence", "choice_temperature": 0.0},
    {"order": "random"},
    {"order": "random", "anneal_temperature": False},
    {"pace": "ancestral", "anneal_temperature": False},
    {"remask": "confidence"},
    {"remask": "p2", "p2_eta": 2.0},
    {"remask": "remdm_loop", "anneal_temperature": False},
    {"pace": "first_hitting"},
    {"pace": "first_hitting", "anneal_temperature": False},
    {"pace": "threshold"},
    {"pace": "entropy_bound"},
    {"preset": "fast"},
]


@dataclass
class MoleculeSamplerArguments:
    """What is compared on what."""

    models: list[str] = required("Generators of SMILES: folders or names on the Hub.")
    output_dir: str = required("Folder for the molecules and their figures.")
    passes: list[int] | None = option(None, "Values of `steps` to try. Default: 8 16 32.")
    samplers: str | None = option(
        None,
        "Options of `generate` for each sampler, a JSON list of objects. Default: the library's "
        "own defaults, and one thing changed at a time.",
    )
    num_molecules: int = option(200, "Molecules of each sampler.")
    batch_size: int = option(100, "Molecules written together.")
    mixed_precision: Literal["auto", "bf16", "no"] = option("no", FORMATS_HELP)
    seed: int = option(0, "Seed of all molecules.")

    def __post_init__(self) -> None:
        """Check ranges."""
        check_least(self, num_molecules=2, batch_size=1)


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Write, measure, print the table, and return the figures."""
    (options,) = parse_options((MoleculeSamplerArguments,), argv, "Compare samplers of molecules.")
    load_rdkit()  # before the work
    samplers = samplers_of(options.samplers, SAMPLERS, {"order": "random"}, decided=("num_tokens",))
    if any("steps" in sampler for sampler in samplers):
        raise ValueError("`steps` of the samplers is what --passes says; leave it out there.")
    folder = Path(options.output_dir)
    free = ("output_dir", "models", "samplers", "passes")  # more of these may be asked for later
    claim_folder(folder, {n: value for n, value in asdict(options).items() if n not in free})
    found: list[dict[str, Any]] = []
    for name in options.models:
        found += compared(name, samplers, options, folder / "written.jsonl")
    text = figures_text([{k: v for k, v in one.items() if k != "texts"} for one in found])
    (folder / "samplers.json").write_text(text + "\n", encoding="utf-8")
    return found


def compared(
    name: str, samplers: Sequence[Mapping[str, Any]], options: MoleculeSamplerArguments, path: Path
) -> list[dict[str, Any]]:
    """Let a generator write by every sampler, or read what it wrote, and print a row for each.

    Returns:
        For each sampler `model`, its `identity`, `options`, `texts`, `passes` per molecule, and the
        figures.
    """
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    model, tokenizer = load_generator(name, device_map=device)
    asked = with_passes(model, [dict(one) for one in samplers], options.passes or (8, 16, 32))
    check_samplers(model, asked)  # before the work
    kept, identity = written_before(path), identity_of(name, model)
    print(f"{name}\n\n{HEADING}", flush=True)
    found = []
    with ProgressBar("Writing", len(asked), "sampler") as told:
        for sampler in asked:
            key = (identity, json.dumps(sampler, sort_keys=True))
            if key not in kept:
                entry = {"model": name, "identity": identity, "options": sampler}
                entry |= write(model, tokenizer, sampler, options)
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(entry) + "\n")
                kept[key] = entry
            figures = molecule_figures(kept[key]["texts"])
            found.append({**kept[key], "model": name, **figures._asdict()})
            print(row_of(found[-1]), flush=True)
            told.update(1)
    print(flush=True)
    return found


def written_before(path: Path) -> dict[tuple[str | None, str], dict[str, Any]]:
    """Read what earlier calls wrote, by a model's identity and sampler.

    A line that was cut off is dropped, and a model that was trained further is another one.
    """
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    lines = [line for line in lines if line.endswith("\n")]
    path.write_text("".join(lines), encoding="utf-8")
    entries = [json.loads(line) for line in lines]
    return {(e.get("identity"), json.dumps(e["options"], sort_keys=True)): e for e in entries}


def write(
    model: Any, tokenizer: Any, sampler: Mapping[str, Any], options: MoleculeSamplerArguments
) -> dict[str, Any]:
    """Write molecules by one sampler.

    Returns:
        `texts`, SMILES without blanks, and `passes` of the denoiser per molecule.
    """
    texts: list[str] = []
    passes = 0
    with evaluating(model), autocast(options.mixed_precision, model.device):
        while len(texts) < options.num_molecules:
            size = min(options.batch_size, options.num_molecules - len(texts))
            output: Any = model.generate(
                seed=options.seed + len(texts),
                num_return_sequences=size,
                num_tokens="sampled",
                return_dict_in_generate=True,
                tokenizer=tokenizer,
                **sampler,
            )
            read = tokenizer.batch_decode(output.sequences, skip_special_tokens=True)
            texts += ["".join(text.split()) for text in read]  # SMILES have no blanks
            passes += int(output.denoiser_passes.sum())
    return {"texts": texts, "passes": passes / len(texts)}


HEADING = """| sampler | passes | valid | different | diversity | atoms |
|---|---|---|---|---|---|"""


def row_of(found: Mapping[str, Any]) -> str:
    """Write the figures of a sampler as a row of the table."""
    asked = ", ".join(f"`{k}={v!r}`" for k, v in found["options"].items() if k != "steps")
    unique = "" if found["unique"] is None else f"{found['unique']:.3f}"
    return (
        f"| {asked or 'the defaults'} | {found['passes']:.1f} | {_told(found['valid'], 3)} | "
        f"{unique} | {_told(found['diversity'], 3)} | {_told(found['atoms'], 1)} |"
    )


def _told(estimate: Estimate | None, digits: int) -> str:
    if estimate is None:
        return ""
    return f"{estimate.value:.{digits}f} ± {estimate.std_error:.{digits}f}"


if __name__ == "__main__":
    run_program(main)
