"""Design molecules around scaffolds: every one of them keeps its scaffold.

    python scripts/design_molecules.py --model runs/molecules/training \
        --scaffolds 'c1ccc({right:2-16})cc1' '{left:1-11}N1CCN({right:1-11})CC1' \
        --output_dir runs/molecules/designs

A scaffold is SMILES with fields where atoms may be added, each with how many tokens it may take.
What is added is well-formed SMILES (`Pattern.from_smiles`); whether a molecule comes of it is the
model's doing, and RDKit decides (extra `molecules`). `drawn.jsonl` of the folder keeps all that was
drawn: the same command goes on where it was interrupted. `designs.smi` holds the designs, valid and
different from each other, `metrics.json` their figures, `designs.png` some of them with the
scaffold marked.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from hf_maskgit import InfillingPipeline, Pattern
from hf_maskgit.core.generation_output import OF_A_CALL
from hf_maskgit.evaluation.figures import figures_text
from hf_maskgit.evaluation.progress import ProgressBar
from hf_maskgit.evaluation.scaffolds import (
    core_of,
    draw_grid,
    internal_diversity,
    keeps,
    load_rdkit,
    open_places,
    read_molecule,
)
from hf_maskgit.evaluation.written_folders import claim_folder
from hf_maskgit.hub.loading import identity_of, load_generator
from hf_maskgit.training.recipes import (
    check_least,
    json_object,
    option,
    parse_options,
    required,
    run_program,
)
from hf_maskgit.training.sampler_arguments import check_decided
from hf_maskgit.training.sources import check_columns, load_texts, only_split

_MOST_DRAWS = 20  # per design that is wanted: then something is wrong with model or scaffold
_SHOWN = 16


@dataclass
class DesignArguments:
    """What is designed and where to."""

    model: str = required("Generator of SMILES: a folder or a name on the Hub.")
    scaffolds: list[str] = required("SMILES with fields, such as 'c1ccc({right:2-16})cc1'.")
    output_dir: str = required("Folder for the designs and their figures.")
    num_designs: int = option(1000, "Different valid designs, of all scaffolds together.")
    decoding: str = option("{}", "Options of the infilling pipeline, a JSON object.")
    depth: int = option(2, "Branches within branches that are added, at most.")
    batch_size: int = option(100, "Molecules drawn together.")
    seed: int = option(0, "Seed of all designs.")
    known: str | None = option(
        None, "Molecules that are not new, canonical SMILES as RDKit writes: files or a dataset."
    )
    known_split: str | None = option(None, "Its split.")

    def __post_init__(self) -> None:
        """Check ranges."""
        check_least(self, num_designs=1, depth=0, batch_size=1)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Design, measure, draw, print the figures and return them."""
    (options,) = parse_options((DesignArguments,), argv, "Design molecules around scaffolds.")
    load_rdkit("Chem.Draw")  # before the work
    decoding = json_object("--decoding", options.decoding)
    check_decided("--decoding", decoding, (*OF_A_CALL, "patterns", "seed"))
    cores = [core_of(scaffold) for scaffold in options.scaffolds]
    places = [open_places(scaffold) for scaffold in options.scaffolds]
    known = known_molecules(options)
    folder = Path(options.output_dir)
    free = ("output_dir", "num_designs", "known", "known_split")
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    model, tokenizer = load_generator(options.model, device_map=device)
    # A model that was trained further under its name is another one.
    decides = {**asdict(options), "model": identity_of(options.model, model)}
    claim_folder(folder, {n: value for n, value in decides.items() if n not in free})
    fill = InfillingPipeline(model=model, tokenizer=tokenizer)
    patterns = [
        {
            place.name: Pattern.from_smiles(tokenizer, options.depth, place.rings, place.attached)
            for place in of_scaffold
        }
        for of_scaffold in places
    ]
    drawn = draw(fill, patterns, decoding, options, folder / "drawn.jsonl")
    designs, figures = measure(drawn, cores, options.num_designs, known)
    text = "".join(f"{smiles}\t{options.scaffolds[which]}\n" for smiles, which in designs.items())
    (folder / "designs.smi").write_text(text, encoding="utf-8")
    (folder / "metrics.json").write_text(figures_text(figures), encoding="utf-8")
    if designs:
        some = some_of_each(designs, _SHOWN)
        picture = draw_grid([smiles for smiles, _ in some], [cores[which] for _, which in some])
        picture.save(folder / "designs.png")
    print(figures_text(figures))
    return figures


def known_molecules(options: DesignArguments) -> set[str] | None:
    """Read the molecules that are not new; None where none were named."""
    if options.known is None:
        return None
    split = load_texts(options.known, split=options.known_split or only_split(options.known))
    check_columns(split, options.known, ["text"], "the molecules of --known")
    return set(split["text"])


def draw(
    fill: Any,
    patterns: list[dict[str, Pattern]],
    decoding: dict[str, Any],
    options: DesignArguments,
    path: Path,
) -> list[tuple[int, str]]:
    """Fill scaffolds in turn until enough different valid molecules were drawn.

    Returns:
        The number of the scaffold and the SMILES of every draw, in order.

    Raises:
        ValueError: where hardly anything that is drawn is valid and new.
    """
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    lines = [line for line in lines if line.endswith("\n")]  # a kill may cut the last
    path.write_text("".join(lines), encoding="utf-8")
    batches: list[tuple[int, list[str]]] = [tuple(json.loads(line)) for line in lines]
    found = {smiles for _, texts in batches for smiles in valid_ones(texts)}
    wanted = options.num_designs
    with ProgressBar("Designing", wanted, "design", done=min(len(found), wanted)) as told:
        while len(found) < wanted:
            number = len(batches)
            check_gain(number * options.batch_size, len(found), wanted)
            which = number % len(patterns)
            several = fill(
                options.scaffolds[which],
                patterns=patterns[which],
                num_return_sequences=options.batch_size,
                seed=options.seed + number,
                **decoding,
            )
            several = several if isinstance(several, list) else [several]
            batches.append((which, ["".join(one["text"].split()) for one in several]))
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(batches[-1]) + "\n")
            before = len(found)
            found |= valid_ones(batches[-1][1])
            told.update(min(len(found), wanted) - before)
    return [(which, text) for which, texts in batches for text in texts]


def check_gain(drawn: int, found: int, wanted: int) -> None:
    """Stop where hardly anything that is drawn is valid and new.

    Raises:
        ValueError: saying so.
    """
    if drawn >= _MOST_DRAWS * wanted:
        raise ValueError(
            f"Of {drawn:,} molecules drawn {found:,} are valid and different, fewer than the "
            f"{wanted:,} asked for. Give the fields more room, train the model longer, or ask for "
            "fewer."
        )


def valid_ones(texts: Sequence[str]) -> set[str]:
    """Return the different molecules among some texts, as canonical SMILES."""
    return {smiles for smiles in map(canonical, texts) if smiles is not None}


def canonical(text: str) -> str | None:
    """Return the SMILES that stand for all of a molecule; None for what is none."""
    molecule = read_molecule(text)
    return None if molecule is None else str(load_rdkit().MolToSmiles(molecule))


def measure(
    drawn: Sequence[tuple[int, str]], cores: Sequence[Any], most: int, known: set[str] | None
) -> tuple[dict[str, int], dict[str, Any]]:
    """Pick the designs and say how they came about.

    Returns:
        The designs, each with the number of its scaffold, and the figures: `valid` is the share of
        what was drawn, `keeps_scaffold` and `unique` of the valid ones, `novel` of the designs.
    """
    designs: dict[str, int] = {}
    valid = kept = looked_at = 0
    for which, text in drawn:
        if len(designs) == most:
            break
        looked_at += 1
        smiles = canonical(text)
        if smiles is None:
            continue
        valid += 1
        if keeps(read_molecule(smiles), cores[which]):
            kept += 1
            designs.setdefault(smiles, which)
    figures: dict[str, Any] = {
        "designs": len(designs),
        "drawn": looked_at,
        "valid": valid / looked_at,
        "keeps_scaffold": kept / valid if valid else None,
        "unique": len(designs) / kept if kept else None,
        "novel": None,
        "internal_diversity": internal_diversity(list(designs)),
    }
    if known is not None and designs:
        figures["novel"] = len(designs.keys() - known) / len(designs)
    return designs, figures


def some_of_each(designs: Mapping[str, int], most: int) -> list[tuple[str, int]]:
    """Pick the first designs of every scaffold, as many of each, scaffold by scaffold.

    Args:
        designs: SMILES with the number of their scaffold, as they came.
        most: of all together; but one of each scaffold at least.
    """
    share = max(1, most // len(set(designs.values())))
    return [
        (smiles, which)
        for which in sorted(set(designs.values()))
        for smiles in [one for one, of in designs.items() if of == which][:share]
    ]


if __name__ == "__main__":
    run_program(main)
