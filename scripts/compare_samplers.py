"""Compare samplers on your own model and texts: how likely what they write is, and how different.

    python scripts/compare_samplers.py --model runs/verses --text "In the beginning [MASK] [MASK]."
    python scripts/compare_samplers.py --model runs/verses --input_file masked.txt --passes 8 32 \
        --samplers '[{"order": "random"}, {"choice_temperature": 4.0}]' --output_file found.json

Every text is filled several times by every sampler. `distinct` counts different texts per prompt,
`difference` is the share of filled places at which two of them differ. `nats_per_token` judges them
by the model itself, each filled token given the rest of its text: low is likely, also where a
sampler writes the same likely words again and again, so read the three together. The JSON holds
the texts, too, for a judge of your own: a parser, a classifier.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hf_maskgit.core.text_reader import check_texts
from hf_maskgit.evaluation.samplers import SamplerQuality, compare_samplers
from hf_maskgit.hub.loading import load_generator
from hf_maskgit.training.recipes import (
    check_least,
    check_output,
    json_objects,
    option,
    parse_options,
    read_text,
    required,
    run_program,
)

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
    num_texts: int = option(8, "Texts per prompt and sampler, at least 2.")
    seed: int = option(0, "Seed of all texts.")
    output_file: str | None = option(None, "Write figures and texts there as JSON.")

    def __post_init__(self) -> None:
        """Check ranges, and that the figures will have a place."""
        check_least(self, num_texts=2)
        check_output(self.output_file)


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Compare, print a table, and return the figures."""
    (options,) = parse_options((CompareArguments,), argv, DESCRIPTION)
    samplers = SAMPLERS
    if options.samplers is not None:
        samplers = json_objects("--samplers", options.samplers, {"order": "random"})
    if any("steps" in sampler for sampler in samplers):
        raise ValueError("`steps` of the samplers is what --passes says; leave it out there.")
    asked = [
        {**sampler, "steps": steps}
        for steps in options.passes or (8, 18, 32)
        for sampler in samplers
    ]
    texts = read_texts(options)
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    model, tokenizer = load_generator(options.model, device_map=device)
    check_texts(tokenizer, texts, None)
    given = tokenizer(texts, return_tensors="pt", padding=True).to(device)
    ids, real = given["input_ids"], given["attention_mask"]
    found: list[dict[str, Any]] = []
    for quality in compare_samplers(
        model, ids, asked, real, num_texts=options.num_texts, seed=options.seed
    ):
        if not found:  # nothing is refused any more
            print("| sampler | passes | distinct | difference | nats per token |")
            print("|---|---|---|---|---|")
        print(row_of(quality), flush=True)
        written = [tokenizer.batch_decode(row, skip_special_tokens=True) for row in quality.texts]
        found.append({**vars(quality), "texts": written})
    if options.output_file is not None:
        text = json.dumps(found, indent=2, ensure_ascii=False)
        Path(options.output_file).write_text(text + "\n", encoding="utf-8")
    return found


def read_texts(options: CompareArguments) -> list[str]:
    """Return the texts of the command line and of the file.

    Raises:
        ValueError: where there are none.
    """
    texts = list(options.text or [])
    if options.input_file is not None:
        lines = read_text(options.input_file).splitlines()
        texts += [line for line in lines if line.strip()]
    if not texts:
        raise ValueError("There is no text to fill; give some with --text or --input_file.")
    return texts


def row_of(quality: SamplerQuality) -> str:
    """Write the figures of a sampler as a row of the table."""
    options = {k: v for k, v in quality.options.items() if k != "steps"}
    name = ", ".join(f"`{k}={v!r}`" for k, v in options.items()) or "the defaults"
    return (
        f"| {name} | {quality.passes:g} | {quality.distinct:.1f} | {quality.difference:.3f} | "
        f"{quality.nats_per_token:.2f} |"
    )


if __name__ == "__main__":
    run_program(main)
