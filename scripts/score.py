"""Score single sequences, or mutants against their wild type, with the error asked for, as JSON.

    python scripts/score.py --model runs/antibodies --text EVQLVESGG QVQLQQSGA --std_error 0.5
    python scripts/score.py --model runs/antibodies --wild_type EVQLVESGG \
        --text EVQLLESGG EVKLVESGG --output_file mutants.json

Without `--wild_type` each text gets its bound on -log p with a standard error, its
pseudo-log-likelihood, and the cost of each token in nats: given all others, given none, and what it
adds to the bound. With it the texts are mutants, and each gets its difference from the wild type
under common masks: below 0 the generator prefers the mutant. docs/likelihood.md says more.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from hf_maskgit.core.options import options_of
from hf_maskgit.core.unknown_tokens import Tolerance, checked_limit
from hf_maskgit.evaluation import MutantScore, SequenceScore, score, score_mutants
from hf_maskgit.evaluation.figures import figures_text
from hf_maskgit.evaluation.scores import Scoring, check_scoring
from hf_maskgit.hub.loading import load_generator
from hf_maskgit.training.output_files import check_output
from hf_maskgit.training.plain_files import read_lines
from hf_maskgit.training.recipes import (
    option,
    parse_options,
    required,
    run_program,
)


@dataclass
class ScoreArguments:
    """What is scored, and how precisely."""

    model: str = required("Generator, or an encoder as it is: a folder or a name on the Hub.")
    text: list[str] | None = option(None, "Sequences, or mutants where there is a wild type.")
    input_file: str | None = option(None, "The same, one per line.")
    wild_type: str | None = option(None, "Sequence that the others are mutants of.")
    std_error: float = option(Scoring.std_error, options_of(Scoring)["std_error"].description)
    max_maskings: int = option(
        Scoring.max_maskings, options_of(Scoring)["max_maskings"].description
    )
    max_unknown_share: float = option(
        Tolerance.max_unknown_share, options_of(Tolerance)["max_unknown_share"].description
    )
    batch_size: int = option(64, "Masked sequences per forward pass.")
    seed: int = option(0, "Seed of the masks.")
    output_file: str | None = option(None, "Write the JSON there as well as to the screen.")

    def __post_init__(self) -> None:
        """Check ranges, that there is something to score, and a place for the figures."""
        check_scoring(self.std_error, self.max_maskings, self.batch_size)
        checked_limit(self.max_unknown_share)
        check_output(self.output_file, self.input_file)
        if (self.text is None) == (self.input_file is None):
            raise ValueError("Give the sequences with `text` or with `input_file`, one of the two.")


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Score, print and return the figures."""
    (options,) = parse_options((ScoreArguments,), argv, "Score sequences.")
    texts = options.text or read_lines(options.input_file)
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    model, tokenizer = load_generator(options.model, device_map=device)
    names = ("std_error", "max_maskings", "max_unknown_share", "batch_size", "seed")
    how: dict[str, Any] = {name: getattr(options, name) for name in names}
    if options.wild_type is None:
        of_texts = score(model, texts, tokenizer, **how)
        scores = [
            of_sequence(one, text, tokenizer) for one, text in zip(of_texts, texts, strict=True)
        ]
    else:
        of_mutants = score_mutants(model, options.wild_type, texts, tokenizer, **how)
        scores = [
            of_mutant(one, text, tokenizer) for one, text in zip(of_mutants, texts, strict=True)
        ]
    figures = {**asdict(options), "scores": scores}
    told = figures_text(figures)
    print(told)
    if options.output_file is not None:
        Path(options.output_file).write_text(told + "\n", encoding="utf-8")
    return figures


def of_sequence(
    found: SequenceScore, text: str, tokenizer: PreTrainedTokenizerBase
) -> dict[str, Any]:
    """Name the figures of a sequence and of each of its tokens."""
    ids = [tokenizer(text)["input_ids"][place] for place in found.positions.tolist()]
    costs = {name: getattr(found, name).tolist() for name in ("conditional", "marginal", "shares")}
    return {
        "text": text,
        "bound": found.bound,
        "std_error": found.std_error,
        "num_maskings": found.num_maskings,
        "reached": found.reached,
        "pseudo_log_likelihood": found.pseudo_log_likelihood,
        "tokens": tokenizer.convert_ids_to_tokens(ids),
        **costs,
    }


def of_mutant(found: MutantScore, text: str, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Name the figures of a mutant, its tokens written out."""
    changes = [
        {
            "place": place,
            "from": tokenizer.convert_ids_to_tokens(old),
            "to": tokenizer.convert_ids_to_tokens(new),
        }
        for place, old, new in found.mutations
    ]
    figures = {**asdict(found), "mutations": changes, "is_told_apart": found.is_told_apart}
    return {"text": text, **figures}


if __name__ == "__main__":
    run_program(main)
