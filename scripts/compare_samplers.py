"""Compare samplers on your own model and texts: how likely what they write is, and how different.

    python scripts/compare_samplers.py --model runs/verses --text "In the beginning [MASK] [MASK]."
    python scripts/compare_samplers.py --model runs/verses --input_file masked.txt --passes 8 32 \
        --samplers '[{"order": "random"}, {"pace": "threshold"}]' --output_file verses.json \
        --plot_file curves.png --beside molecules.json

Every text is filled several times by every sampler. `distinct` counts different texts per prompt,
`difference` is the share of filled places at which two of them differ. `nats_per_token` judges them
by the model itself, each filled token given the rest of its text: low is likely, also where a
sampler writes the same likely words again and again, so read the three together. In brackets stand
standard errors: how far other texts of the same prompts would be. A sampler whose pace takes the
passes it needs is asked once, whatever `--passes` says. The JSON holds the texts, too, for a judge
of your own: a parser, a classifier. The picture shows quality against passes, and those of earlier
runs beside it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from hf_maskgit.core.modeling_maskgit import MaskGitForMaskedLM
from hf_maskgit.core.options import options_of
from hf_maskgit.core.sampler_rules import PACES
from hf_maskgit.core.text_reader import check_texts
from hf_maskgit.core.unknown_tokens import Tolerance, checked_limit, counted_before
from hf_maskgit.evaluation.figures import figures_text
from hf_maskgit.evaluation.sampler_curves import draw_curves
from hf_maskgit.evaluation.samplers import SamplerQuality, compare_samplers, resolved_sampler
from hf_maskgit.hub.loading import load_generator
from hf_maskgit.training.files import short_names
from hf_maskgit.training.output_files import check_output, check_picture
from hf_maskgit.training.plain_files import read_lines
from hf_maskgit.training.recipes import (
    check_least,
    option,
    parse_options,
    read_text,
    required,
    run_program,
)
from hf_maskgit.training.sampler_arguments import OF_LENGTHS, samplers_of

DESCRIPTION = """Compare samplers on a generator: `distinct` texts per prompt, the share of filled
places at which two of them are in `difference`, and `nats_per_token` of what was filled, given the
rest of the text. Low nats are likely, also where the same words are written again and again."""
SAMPLERS: list[dict[str, Any]] = [
    {},
    *({"choice_temperature": noise} for noise in (0.0, 1.0, 4.0)),
    {"anneal_temperature": False},
    {"order": "entropy"},
    {"order": "margin"},
    {"order": "confidence"},
    {"order": "confidence", "choice_temperature": 0.0},
    {"order": "random"},
    {"order": "random", "anneal_temperature": False},
]


@dataclass
class CompareArguments:
    """What is compared on what."""

    model: str = required("Generator, or an encoder as it is: a folder or a name on the Hub.")
    text: list[str] | None = option(None, "Texts with the tokenizer's mask token.")
    input_file: str | None = option(None, "The same, one per line.")
    passes: list[int] | None = option(None, "Values of `steps` to try. Default: 8 18 32.")
    samplers: str | None = option(
        None,
        "Options of `generate` for each sampler, a JSON list of objects. Default: the library's "
        "own defaults and the orders, with and without noise and annealing.",
    )
    max_unknown_share: float = option(
        Tolerance.max_unknown_share, options_of(Tolerance)["max_unknown_share"].description
    )
    num_texts: int = option(8, "Texts per prompt and sampler, at least 2.")
    seed: int = option(0, "Seed of all texts.")
    output_file: str | None = option(None, "Write figures and texts there as JSON.")
    plot_file: str | None = option(
        None, "Draw quality against passes there; needs matplotlib, the extra `plots`."
    )
    beside: list[str] | None = option(
        None, "JSON files of earlier runs whose curves the picture shows, too, by their names."
    )

    def __post_init__(self) -> None:
        """Check ranges, that the results will have a place, and that they can be drawn."""
        check_least(self, num_texts=2)
        checked_limit(self.max_unknown_share)
        check_output(self.output_file, self.input_file)
        check_picture(self.plot_file)
        if self.beside and self.plot_file is None:
            raise ValueError("--beside is for the picture; name one with --plot_file.")


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Compare, print a table, and return the figures."""
    (options,) = parse_options((CompareArguments,), argv, DESCRIPTION)
    samplers = samplers_of(options.samplers, SAMPLERS, {"order": "random"}, decided=OF_LENGTHS)
    if any("steps" in sampler for sampler in samplers):
        raise ValueError("`steps` of the samplers is what --passes says; leave it out there.")
    texts = read_texts(options)
    *names, own = short_names([*(options.beside or []), options.output_file or options.model])
    earlier = [read_found(file) for file in options.beside or ()]
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    model, tokenizer = load_generator(options.model, device_map=device)
    check_texts(tokenizer, texts, options.max_unknown_share)
    given = tokenizer(texts, return_tensors="pt", padding=True).to(device)
    ids, real = given["input_ids"], given["attention_mask"]
    asked = with_passes(model, samplers, options.passes or (8, 18, 32))
    found: list[dict[str, Any]] = []
    with counted_before():  # by words, just now
        for quality in compare_samplers(
            model, ids, asked, real, num_texts=options.num_texts, seed=options.seed
        ):
            if not found:  # nothing is refused any more
                print("| sampler | passes | distinct | difference | nats per token |")
                print("|---|---|---|---|---|")
            print(row_of(quality), flush=True)
            written = [
                tokenizer.batch_decode(row, skip_special_tokens=True) for row in quality.texts
            ]
            found.append({**vars(quality), "texts": written})
    if options.output_file is not None:
        text = figures_text(found)
        Path(options.output_file).write_text(text + "\n", encoding="utf-8")
    if options.plot_file is not None:
        curves = {**dict(zip(names, earlier, strict=True)), own: found}
        draw_curves(curves, Path(options.plot_file))
    return found


def with_passes(
    model: MaskGitForMaskedLM, samplers: Sequence[dict[str, Any]], passes: Sequence[int]
) -> list[dict[str, Any]]:
    """Ask each sampler for each number of passes; once, where its pace takes what it needs."""
    by_steps: list[dict[str, Any]] = []
    free: list[dict[str, Any]] = []
    for sampler in samplers:
        pace = resolved_sampler(model, sampler).pace
        (by_steps if PACES[pace].by_steps else free).append(sampler)
    return [{**sampler, "steps": steps} for steps in passes for sampler in by_steps] + free


def read_found(file: str) -> list[dict[str, Any]]:
    """Read the figures of an earlier run.

    Raises:
        ValueError: for any other file.
    """
    try:
        found = json.loads(read_text(file))
        if found and all("standard_errors" in row and "passes" in row for row in found):
            return cast(list[dict[str, Any]], found)
    except (json.JSONDecodeError, TypeError):
        pass
    raise ValueError(
        f"{file!r} holds no figures to draw; --beside wants an --output_file of this script."
    )


def read_texts(options: CompareArguments) -> list[str]:
    """Return the texts of the command line and of the file.

    Raises:
        ValueError: where there are none.
    """
    texts = list(options.text or [])
    if options.input_file is not None:
        lines = read_lines(options.input_file)
        texts += [line for line in lines if line.strip()]
    if not texts:
        raise ValueError("There is no text to fill; give some with --text or --input_file.")
    return texts


def row_of(quality: SamplerQuality) -> str:
    """Write the figures of a sampler as a row of the table."""
    options = {k: v for k, v in quality.options.items() if k != "steps"}
    name = ", ".join(f"`{k}={v!r}`" for k, v in options.items()) or "the defaults"
    error = quality.standard_errors
    return (
        f"| {name} | {quality.passes:.1f} ({error['passes']:.1f}) | {quality.distinct:.1f} | "
        f"{quality.difference:.3f} ({error['difference']:.3f}) | "
        f"{quality.nats_per_token:.2f} ({error['nats_per_token']:.2f}) |"
    )


if __name__ == "__main__":
    run_program(main)
