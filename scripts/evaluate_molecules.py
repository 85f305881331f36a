"""Write molecules with a generator and measure them by MOSES' own code, beside published rows.

    python scripts/evaluate_molecules.py --model runs/molecules/training \
        --output_dir runs/molecules/evaluation

Molecules are written from nothing, as long as those of the training, and
kept in `molecules.smi` of the folder as they come: the same command goes on where it was
interrupted. What decodes them is in `options.json`; another choice needs another folder.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import PreTrainedTokenizerBase

from hf_maskgit import MaskGitForMaskedLM, Pattern
from hf_maskgit.core.length_law import LengthLaw
from hf_maskgit.evaluation.figures import figures_text
from hf_maskgit.evaluation.molecules import load_moses, moses_metrics, moses_table
from hf_maskgit.evaluation.progress import ProgressBar
from hf_maskgit.evaluation.written_folders import claim_folder
from hf_maskgit.hub.loading import identity_of, load_generator
from hf_maskgit.training.mixed_precision import FORMATS_HELP, autocast, format_on
from hf_maskgit.training.recipes import (
    check_least,
    option,
    parse_options,
    required,
    run_program,
)
from hf_maskgit.training.sampler_arguments import decoding_of

_TOGETHER = 4  # batches whose molecules are sorted by length, so that little is padded


@dataclass
class MoleculeArguments:
    """What is written and where to."""

    model: str = required("Generator of SMILES: a folder or a name on the Hub.")
    output_dir: str = required("Folder for the molecules and their figures.")
    num_molecules: int = option(30_000, "How many to write; published rows are of 30,000.")
    decoding: str = option("{}", "Options of `generate`, a JSON object.")
    well_formed: bool = option(
        False, "Write SMILES alone whose branches and rings close (`Pattern.from_smiles`)."
    )
    valences: bool = option(
        False, "The same, and no atom has too many bonds; for SMILES without aromatic atoms."
    )
    batch_size: int = option(250, "Molecules written together.")
    mixed_precision: Literal["auto", "bf16", "no"] = option("no", FORMATS_HELP)
    seed: int = option(0, "Seed of all molecules.")
    processes: int = option(1, "Processes that measure.")

    def __post_init__(self) -> None:
        """Check ranges."""
        check_least(self, num_molecules=1, batch_size=1, processes=1)


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Write, measure, print the table, and return the figures."""
    (options,) = parse_options((MoleculeArguments,), argv, "Measure generated molecules.")
    load_moses()  # before hours of writing
    decoding = decoding_of("--decoding", options.decoding)
    folder = Path(options.output_dir)
    free = ("output_dir", "num_molecules", "processes")
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    model, tokenizer = load_generator(options.model, device_map=device)
    # A model that was trained further under its name is another one.
    decides = {**asdict(options), "model": identity_of(options.model, model)}
    decides["mixed_precision"] = format_on(options.mixed_precision, device)
    claim_folder(folder, {n: value for n, value in decides.items() if n not in free})
    molecules = write(model, tokenizer, decoding, options, folder / "molecules.smi")
    figures = moses_metrics(molecules, device=str(device), processes=options.processes)
    (folder / "metrics.json").write_text(figures_text(figures), encoding="utf-8")
    print(moses_table({options.model: figures}))
    return figures


def write(
    model: MaskGitForMaskedLM,
    tokenizer: PreTrainedTokenizerBase,
    decoding: dict[str, Any],
    options: MoleculeArguments,
    path: Path,
) -> list[str]:
    """Append molecules to a file until there are as many as asked for; some batches at a time.

    Returns:
        As many as asked for, one SMILES each; a line may be empty.
    """
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    # Some batches that were cut off are written anew: their seeds belong to whole ones.
    together = _TOGETHER * options.batch_size
    kept = len(lines) // together * together
    path.write_text("".join(f"{line}\n" for line in lines[:kept]), encoding="utf-8")
    molecules, wanted = lines[:kept], options.num_molecules
    if options.valences:
        # A fourth ring number, which one molecule in fifty has, doubles thousands of states.
        counted = Pattern.from_smiles(tokenizer, rings=(1, 2, 3), valences=True)
        decoding = {"pattern": counted, **decoding}
    elif options.well_formed:
        decoding = {"pattern": Pattern.from_smiles(tokenizer), **decoding}
    told = ProgressBar("Writing", wanted, "molecule", done=min(kept, wanted))
    with told, autocast(options.mixed_precision, model.device):
        while len(molecules) < wanted:
            texts = draw(
                model, tokenizer, decoding, options.batch_size, options.seed + len(molecules)
            )
            with path.open("a", encoding="utf-8") as file:
                file.writelines(f"{text}\n" for text in texts)
            molecules += texts
            told.update(len(texts) - max(len(molecules) - wanted, 0))  # the rest is not asked for
    return molecules[:wanted]


def draw(
    model: MaskGitForMaskedLM,
    tokenizer: PreTrainedTokenizerBase,
    decoding: dict[str, Any],
    batch_size: int,
    seed: int,
) -> list[str]:
    """Write the molecules of some batches; in each batch they are about as long as each other.

    Args:
        model: the generator.
        tokenizer: its own.
        decoding: options of `generate`.
        batch_size: molecules of a batch.
        seed: of the first batch; each that follows has the next.

    Returns:
        `_TOGETHER * batch_size` SMILES, in an order that says nothing of their lengths.
    """
    numbers = list(range(_TOGETHER * batch_size))
    lengths = None
    if model.config.lengths is not None and not decoding.keys() & {"num_tokens", "max_new_tokens"}:
        law = LengthLaw(model.config.lengths)
        draws = torch.Generator().manual_seed(seed)
        uniforms = torch.rand(len(numbers), generator=draws, dtype=torch.float64)
        bounds = [1] * len(numbers), [law.longest] * len(numbers)
        lengths = law.draw(*bounds, uniforms).tolist()
        numbers.sort(key=lengths.__getitem__)
    texts = dict.fromkeys(numbers, "")
    for batch in range(_TOGETHER):
        part = numbers[batch * batch_size : (batch + 1) * batch_size]
        asked: dict[str, Any] = {"num_tokens": "sampled"}
        if lengths is not None:
            # Of models that store another way, this would be the most that each may have.
            asked = {"num_tokens": "fixed", "max_new_tokens": [lengths[n] for n in part]}
        rows: Any = model.generate(
            seed=seed + batch,
            num_return_sequences=batch_size,
            return_dict_in_generate=False,
            tokenizer=tokenizer,
            **{**asked, **decoding},
        )
        written = tokenizer.batch_decode(rows, skip_special_tokens=True)
        # SMILES have no blanks.
        texts.update(zip(part, ("".join(text.split()) for text in written), strict=True))
    return [texts[number] for number in range(len(texts))]


if __name__ == "__main__":
    run_program(main)
