"""Compare the lengths of texts that a generator writes from nothing with those of real texts.

    python -m scripts.compare_lengths --model runs/verses --dataset held_out.txt --max_length 64

A row for every way to decide a length that the model knows (`num_tokens`), and every sampler: the
mean length of what is written, in tokens without framing, and Kolmogorov and Smirnov's distance to
the real lengths, beside what two samples of one law of these sizes exceed in 5 of 100 cases.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.core.decoding_lengths import NUM_TOKENS
from hf_maskgit.core.options import options_of
from hf_maskgit.core.unknown_tokens import Tolerance, checked_limit
from hf_maskgit.evaluation import LengthDistance, length_distance, written_lengths
from hf_maskgit.evaluation.progress import ProgressBar
from hf_maskgit.hub.loading import load_generator
from hf_maskgit.training.recipes import (
    check_least,
    option,
    parse_options,
    required,
    run_program,
)
from hf_maskgit.training.sampler_arguments import check_samplers, samplers_of
from hf_maskgit.training.sources import load_texts, only_split
from hf_maskgit.training.tokenising import Form, tokenize_texts

SAMPLERS: list[dict[str, Any]] = [
    {},
    {"anneal_temperature": False},
    {"pace": "first_hitting", "anneal_temperature": False},
]


@dataclass
class LengthArguments:
    """What is compared with what."""

    model: str = required("Generator: a folder or a name on the Hub.")
    dataset: str = required("Real texts: a name on the Hub, a folder, or local files.")
    split: str | None = option(None, "Split of them. Default: the only one.")
    text_column: str = option("text", "Column that holds the texts.")
    max_length: int | None = option(
        None,
        "Longest real text, in tokens, special tokens included, as in training: longer ones count "
        "as if they were cut there. Default: the window of `end_fill`, else none is cut.",
    )
    max_unknown_share: float = option(
        Tolerance.max_unknown_share, options_of(Tolerance)["max_unknown_share"].description
    )
    samplers: str | None = option(
        None,
        "Options of `generate` for each sampler, a JSON list of objects. Default: the library's "
        "defaults, those without annealing, and first hitting.",
    )
    num_texts: int = option(1000, "Texts to write in every row.")
    batch_size: int = option(100, "Texts written together.")
    seed: int = option(0, "Seed of all texts.")

    def __post_init__(self) -> None:
        """Check ranges."""
        check_least(self, num_texts=1, batch_size=1, max_length=1)
        checked_limit(self.max_unknown_share)


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Compare, print a table, and return the figures."""
    (options,) = parse_options((LengthArguments,), argv, "Compare lengths of texts.")
    samplers = samplers_of(options.samplers, SAMPLERS, {"order": "random"}, decided=("num_tokens",))
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    model, tokenizer = load_generator(options.model, device_map=device)
    ways = [way for way, row in NUM_TOKENS.items() if row.reads and row.known_by(model.config)]
    if not ways:
        raise ValueError(
            f"The model {options.model!r} knows nothing of lengths: its configuration has neither "
            "`lengths` nor `end_fill`. Train it with this release."
        )
    check_samplers(model, samplers)
    real = real_lengths(model, tokenizer, options)
    print("| `num_tokens` | sampler | mean length | distance | noise |")
    print("|---|---|---|---|---|")
    print(f"| real texts | | {sum(real) / len(real):.1f} | | |")
    found = []
    for way in ways:
        for sampler in samplers:
            lengths = write(model, tokenizer, {"num_tokens": way, **sampler}, options)
            told = length_distance(lengths, real)
            found.append({"num_tokens": way, **sampler, "lengths": lengths, **vars(told)})
            print(row_of(way, sampler, lengths, told), flush=True)
    return found


def real_lengths(
    model: MaskGitForMaskedLM, tokenizer: PreTrainedTokenizerBase, options: LengthArguments
) -> list[int]:
    """Measure the real texts, as training would have cut them."""
    split = options.split or only_split(options.dataset, None)
    texts = load_texts(options.dataset, None, split)
    form, most = Form(options.text_column), options.max_unknown_share
    bodies = tokenize_texts(texts, tokenizer, form, drop_empty_texts=True, max_unknown_share=most)
    longest = options.max_length or model.config.end_fill
    framing = len(model.config.prefix_ids or []) + len(model.config.suffix_ids or [])
    lengths: list[int] = bodies["num_tokens"][:]
    return lengths if longest is None else [min(n, longest - framing) for n in lengths]


def write(
    model: MaskGitForMaskedLM,
    tokenizer: PreTrainedTokenizerBase,
    decoding: dict[str, Any],
    options: LengthArguments,
) -> list[int]:
    """Write texts from nothing and measure them."""
    lengths: list[int] = []
    with ProgressBar("Writing", options.num_texts, "text") as told:
        while len(lengths) < options.num_texts:
            size = min(options.batch_size, options.num_texts - len(lengths))
            rows: Any = model.generate(
                seed=options.seed + len(lengths),
                num_return_sequences=size,
                return_dict_in_generate=False,
                tokenizer=tokenizer,
                **decoding,
            )
            lengths += written_lengths(model.config, rows)
            told.update(size)
    return lengths


def row_of(way: str, sampler: dict[str, Any], lengths: Sequence[int], told: LengthDistance) -> str:
    """Write the figures as a row of the table."""
    name = ", ".join(f"`{k}={v!r}`" for k, v in sampler.items()) or "the defaults"
    mean = sum(lengths) / len(lengths)
    return f'| `"{way}"` | {name} | {mean:.1f} | {told.distance:.3f} | {told.noise:.3f} |'


if __name__ == "__main__":
    run_program(main)
