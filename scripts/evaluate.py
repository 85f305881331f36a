"""Measure a trained generator on texts it has not seen, as JSON.

    python scripts/evaluate.py --model runs/verses --dataset held_out.txt
    python scripts/evaluate.py --model runs/small --dataset wikitext \
        --dataset_config wikitext-2-raw-v1 --split test --pack --drop_empty_texts \
        --num_samples 16 --output_file runs/small/test.json

`nats_per_token`, `bits_per_token` and `perplexity` are upper bounds (the expectation of the
estimate is; `std_error` is its Monte-Carlo error alone). `unknown_share` says how many of the words
the tokenizer does not know: a bound is no praise where they are many. `masked_accuracy` says, by
the share of tokens that is hidden, how often the likeliest token is the true one. A model with
self-conditioning is measured with two passes per masked text; `one_pass` has the bound without.
`critic_auroc` says how often a token critic ranks a right token above a wrong one of the same text,
among those that the denoiser filled in when half of the tokens were hidden; it is null where no
text has both.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.core.options import options_of
from hf_maskgit.core.unknown_tokens import Tolerance, checked_limit, counted_before
from hf_maskgit.evaluation import NelboOutput, critic_auroc, evaluate_nelbo, masked_accuracy
from hf_maskgit.evaluation.batches import check_mask_rates
from hf_maskgit.evaluation.bound import Estimation, check_num_samples
from hf_maskgit.hub.loading import load_generator
from hf_maskgit.training.end_fill import fill_ends
from hf_maskgit.training.examples import check_max_length, evenly_spaced, prepare_examples
from hf_maskgit.training.recipes import (
    check_least,
    check_output,
    option,
    parse_options,
    required,
    run_program,
)
from hf_maskgit.training.sources import load_texts, only_split
from hf_maskgit.training.tokenising import Form

logger = logging.getLogger(__name__)

LONGEST_DEFAULT = 512  # tokens; encoders without a limit of their own need one


@dataclass
class EvaluateArguments:
    """What is measured on what."""

    model: str = required("Generator, or an encoder as it is: a folder or a name on the Hub.")
    dataset: str = required("Texts: a name on the Hub, a folder of save_to_disk, or local files.")
    split: str | None = option(
        None, "Split to measure on. Default: the only one; a local file has just one."
    )
    dataset_config: str | None = option(None, "Configuration on the Hub.")
    text_column: str = option("text", "Column that holds the texts.")
    prompt_column: str | None = option(
        None,
        "Column of what is given, where rows are prompts with completions, or with ids, to judge.",
    )
    completion_column: str | None = option(None, "Column of the completions.")
    messages_column: str | None = option(
        None, "Column of conversations, of which what the assistant says is judged."
    )
    ids_column: str | None = option(None, "Column of lists of token ids, which need no tokenizer.")
    max_length: int | None = option(
        None,
        "Longest example in tokens, special tokens included. "
        f"Default: what the encoder takes, at most {LONGEST_DEFAULT}.",
    )
    pack: bool = option(
        False, "Join the texts into blocks, as in training; otherwise cut long ones."
    )
    drop_empty_texts: bool = option(False, "Drop texts without any token instead of refusing them.")
    max_unknown_share: float = option(
        Tolerance.max_unknown_share, options_of(Tolerance)["max_unknown_share"].description
    )
    num_examples: int | None = option(None, "Examples to measure on, spread evenly. Default: all.")
    num_samples: int = option(
        Estimation.num_samples, options_of(Estimation)["num_samples"].description
    )
    mask_rates: list[float] = field(
        default_factory=lambda: [0.1, 0.3, 0.5, 0.7, 0.9],
        metadata={"help": "Shares of the tokens hidden for the accuracy, above 0 and up to 1."},
    )
    batch_size: int = option(32, "Examples per forward pass.")
    seed: int = option(0, "Seed of the masks.")
    output_file: str | None = option(None, "Write the JSON there as well as to the screen.")
    allow_missing_weights: bool = option(
        False, "Measure a checkpoint that lacks weights; what is missing is drawn at random."
    )

    def __post_init__(self) -> None:
        """Check ranges, and that the figures will have a place."""
        check_least(self, max_length=1, num_examples=1, batch_size=1)
        check_num_samples(self.num_samples)
        check_mask_rates(self.mask_rates)
        checked_limit(self.max_unknown_share)
        check_output(self.output_file)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print and return the figures."""
    (options,) = parse_options((EvaluateArguments,), argv, "Measure a generator.")
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    model, tokenizer = load_generator(
        options.model,
        device_map=device,
        allow_missing_weights=options.allow_missing_weights,
    )
    examples, data = load_examples(options, tokenizer, model.max_positions)
    window = None if options.pack else model.config.end_fill
    if window is not None:  # as it was trained: a bound on the text together with its end
        examples = fill_ends(examples, tokenizer, window)
    data["end_fill"] = window
    with counted_before():  # while they were tokenised
        found = measure(model, tokenizer, examples, options)
    figures = {**asdict(options), **data, **found}
    text = json.dumps(figures, indent=2)
    print(text)
    if options.output_file is not None:
        Path(options.output_file).write_text(text + "\n", encoding="utf-8")
    return figures


def load_examples(
    options: EvaluateArguments, tokenizer: PreTrainedTokenizerBase, max_positions: int | None
) -> tuple[Dataset, dict[str, Any]]:
    """Prepare the examples; the second result says what was cut, dropped or unknown on the way."""
    if options.split is None:
        options.split = only_split(options.dataset, options.dataset_config)
    if options.max_length is None:
        options.max_length = min(LONGEST_DEFAULT, max_positions or LONGEST_DEFAULT)
    check_max_length(options.max_length, max_positions)
    examples, report = prepare_examples(
        load_texts(options.dataset, options.dataset_config, options.split),
        tokenizer,
        form=Form(
            options.text_column,
            options.prompt_column,
            options.completion_column,
            options.messages_column,
            options.ids_column,
        ),
        max_length=options.max_length,
        pack=options.pack,
        drop_empty_texts=options.drop_empty_texts,
        max_unknown_share=options.max_unknown_share,
    )
    examples = evenly_spaced(examples, options.num_examples)
    told = {"data": asdict(report), "unknown_share": report.reading.share}
    return examples, {**told, "measured_examples": len(examples)}


def measure(
    model: MaskGitForMaskedLM,
    tokenizer: PreTrainedTokenizerBase,
    examples: Any,
    options: EvaluateArguments,
) -> dict[str, Any]:
    """Estimate the bound, the accuracy by mask rate, and the critic where there is one."""
    together: dict[str, Any] = {"batch_size": options.batch_size, "seed": options.seed}
    accuracy = masked_accuracy(
        model, examples, tokenizer, mask_rates=options.mask_rates, **together
    )
    bound = evaluate_nelbo(model, examples, tokenizer, num_samples=options.num_samples, **together)
    figures = {
        "maskable_tokens": int(bound.num_tokens.sum()),
        **figures_of(bound),
        "masked_accuracy": {str(rate): share for rate, share in accuracy.items()},
    }
    if model.config.self_cond:
        together["num_samples"] = options.num_samples
        plain = evaluate_nelbo(model, examples, tokenizer, self_condition=False, **together)
        figures["one_pass"] = figures_of(plain)
    if model.has_token_critic:
        found = critic_auroc(
            model, examples, tokenizer, batch_size=options.batch_size, seed=options.seed
        )
        if found.num_pairs:
            figures["critic_auroc"] = {"auroc": found.auroc, **asdict(found)}
        else:
            figures["critic_auroc"] = None
            logger.warning(
                "The critic was not measured: no text has both a right and a wrong token. Measure "
                "on more texts, or on longer ones."
            )
    return figures


def figures_of(bound: NelboOutput) -> dict[str, Any]:
    """Name the figures of a bound."""
    return {
        "estimator": bound.estimator,
        "nats_per_token": bound.nats_per_token,
        "std_error": bound.nats_per_token_std_error,
        "bits_per_token": bound.bits_per_token,
        "perplexity": bound.perplexity,
    }


if __name__ == "__main__":
    run_program(main)
