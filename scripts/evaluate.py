"""Measure a trained generator on texts it has not seen, as JSON.

    python scripts/evaluate.py --model runs/verses --dataset held_out.txt
    python scripts/evaluate.py --model runs/small --dataset wikitext \
        --dataset_config wikitext-2-raw-v1 --split test --pack --drop_empty_texts \
        --num_samples 16 --output_file runs/small/test.json

    python scripts/evaluate.py --model runs/a --baseline runs/b --dataset held_out.txt
    accelerate launch scripts/evaluate.py --model runs/small --dataset held_out.txt

`nats_per_token`, `bits_per_token` and `perplexity` are upper bounds (the expectation of the
estimate is; `std_error` is its Monte-Carlo error over maskings alone). `corpus` tells the errors
over maskings and over texts apart, with a 95 % interval; with `--per_character` also the bits per
character and byte. `--baseline` measures a second model on the same texts under the same masks, and
`difference` is the model's bound minus the baseline's. `calibration` says how far confidences lie
from the share that is right (ECE); `--reliability_plot` draws it. `unknown_share` says how many of
the words the tokenizer does not know: a bound is no praise where they are many. `masked_accuracy`
says, by the share of tokens that is hidden, how often the likeliest token is the true one. A model
with self-conditioning is measured with two passes per text; `one_pass` has the bound without.
`critic_auroc` says how often a token critic ranks a right token above a wrong one of one text,
among those that the denoiser filled in when half of the tokens were hidden; it is null where no
text has both.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.core.options import options_of
from hf_maskgit.core.unknown_tokens import Tolerance, checked_limit, counted_before
from hf_maskgit.evaluation import (
    Calibration,
    NelboOutput,
    WindowedTexts,
    calibration,
    compare_bounds,
    critic_auroc,
    draw_reliability,
    evaluate_nelbo,
    windowed,
)
from hf_maskgit.evaluation.batches import check_mask_rates
from hf_maskgit.evaluation.bound import Estimation, check_num_samples
from hf_maskgit.evaluation.corpus import corpus_figures
from hf_maskgit.evaluation.critic import CriticAuroc
from hf_maskgit.evaluation.figures import figures_text
from hf_maskgit.evaluation.processes import (
    bound_in_shares,
    in_shares,
    is_main_process,
    num_processes,
)
from hf_maskgit.evaluation.text_units import units_of_bodies
from hf_maskgit.hub.loading import load_generator
from hf_maskgit.training.end_fill import fill_ends
from hf_maskgit.training.examples import check_max_length, evenly_spaced, frame_texts
from hf_maskgit.training.framing import framing_of
from hf_maskgit.training.output_files import check_output, check_picture
from hf_maskgit.training.recipes import (
    check_least,
    option,
    parse_options,
    required,
    run_program,
)
from hf_maskgit.training.sources import load_texts, only_split
from hf_maskgit.training.tokenising import Form, tokenize_texts

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
    window_stride: int | None = option(
        None,
        "Judge texts longer than `max_length` whole, by windows that move on by so many tokens, "
        "each given what it shows of those before; otherwise they are cut.",
    )
    drop_empty_texts: bool = option(
        False, "Drop texts without any token, and nulls, instead of refusing them."
    )
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
    baseline: str | None = option(
        None,
        "Second generator with the same tokenizer, measured on the same texts under the same "
        "masks; the differences are told with their errors.",
    )
    per_character: bool = option(
        False,
        "Tell bits per character and byte as well; refused where the tokens do not give back "
        "every text.",
    )
    reliability_plot: str | None = option(
        None, "Draw the share of right predictions over their confidence there, such as a PNG."
    )
    output_file: str | None = option(None, "Write the JSON there as well as to the screen.")
    allow_missing_weights: bool = option(
        False, "Measure a checkpoint that lacks weights; what is missing is drawn at random."
    )

    def __post_init__(self) -> None:
        """Check ranges, and that the figures will have a place."""
        check_least(self, max_length=1, num_examples=1, batch_size=1, window_stride=1)
        check_num_samples(self.num_samples)
        check_mask_rates(self.mask_rates)
        checked_limit(self.max_unknown_share)
        check_output(self.output_file, self.dataset)
        check_picture(self.reliability_plot, self.dataset)
        if self.pack and (self.window_stride is not None or self.per_character):
            raise ValueError(
                "`pack` joins texts and cuts blocks of them, whereas `window_stride` and "
                "`per_character` speak of whole texts; leave one out."
            )
        if self.per_character and (self.ids_column or self.messages_column):
            raise ValueError(
                "`per_character` counts the characters of texts; token ids and conversations have "
                "none of their own. Name a `text_column`, or a prompt and a completion."
            )


@dataclass(frozen=True)
class Prepared:
    """What is measured: examples, the texts they are windows of, and the units of these texts.

    Attributes:
        examples: to measure.
        windows: of texts, where they are; None where each example is a text.
        data: what became of the texts on the way, for the figures.
        units: characters and bytes of each text, (B,) long each; None where nobody asked.
    """

    examples: Any
    windows: WindowedTexts | None
    data: dict[str, Any]
    units: tuple[Tensor, Tensor] | None


Loaded = tuple[MaskGitForMaskedLM, PreTrainedTokenizerBase, Prepared]


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print and return the figures."""
    (options,) = parse_options((EvaluateArguments,), argv, "Measure a generator.")
    model, tokenizer = load(options, options.model)
    prepared = prepare(options, model, tokenizer)
    beside = None if options.baseline is None else baseline_of(model, prepared, options)
    with counted_before():  # while they were tokenised
        bound = bound_of(model, tokenizer, prepared, options)
        found = measure(model, tokenizer, prepared, bound, options)
        if beside is not None:
            found.update(compared(beside, bound, options))
    figures = {**asdict(options), **prepared.data, **found}
    if is_main_process():
        text = figures_text(figures)
        print(text)
        if options.output_file is not None:
            Path(options.output_file).write_text(text + "\n", encoding="utf-8")
    return figures


def load(
    options: EvaluateArguments, name: str
) -> tuple[MaskGitForMaskedLM, PreTrainedTokenizerBase]:
    """Load a generator onto the device of this process."""
    if num_processes() > 1:
        device = PartialState().device
    else:
        device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    return load_generator(
        name, device_map=device, allow_missing_weights=options.allow_missing_weights
    )


def prepare(
    options: EvaluateArguments, model: MaskGitForMaskedLM, tokenizer: PreTrainedTokenizerBase
) -> Prepared:
    """Make the examples of a model, as it was trained: with the ends of texts where it has them."""
    prepared = load_examples(options, tokenizer, model.max_positions)
    whole = options.pack or prepared.windows is not None
    window = None if whole else model.config.end_fill
    examples = prepared.examples
    if window is not None:  # a bound on the text together with its end
        examples = fill_ends(examples, tokenizer, window)
    return replace(prepared, examples=examples, data={**prepared.data, "end_fill": window})


def load_examples(
    options: EvaluateArguments, tokenizer: PreTrainedTokenizerBase, max_positions: int | None
) -> Prepared:
    """Prepare the examples; `data` says what was cut, dropped or unknown on the way."""
    if options.split is None:
        options.split = only_split(options.dataset, options.dataset_config)
    if options.max_length is None:
        options.max_length = min(LONGEST_DEFAULT, max_positions or LONGEST_DEFAULT)
    check_max_length(options.max_length, max_positions)
    form = Form(
        options.text_column,
        options.prompt_column,
        options.completion_column,
        options.messages_column,
        options.ids_column,
    )
    texts = load_texts(options.dataset, options.dataset_config, options.split)
    limits = options.drop_empty_texts, None, options.max_unknown_share
    bodies = tokenize_texts(texts, tokenizer, form, *limits)
    framing = framing_of(tokenizer, form, max_length=options.max_length, pack=options.pack)
    examples, report = frame_texts(bodies, framing)
    report = replace(report, empty_texts=len(texts) - len(bodies))
    windows = None
    if options.window_stride is not None:
        windows = windowed(
            evenly_spaced(bodies, options.num_examples),
            framing.prefix_ids,
            framing.suffix_ids,
            max_length=options.max_length,
            stride=options.window_stride,
        )
        report = replace(report, examples=len(windows.examples), cut_texts=0, cut_tokens=0)
    units = None
    if options.per_character:
        judged = evenly_spaced(bodies, options.num_examples)
        units = units_of_bodies(tokenizer, texts[form.columns[-1]], judged)
        if report.cut_texts:
            raise ValueError(
                f"{report.cut_texts} texts are longer than {options.max_length} tokens and were "
                "cut, so that their characters do not count; set `window_stride` to judge them "
                "whole, or leave `per_character` out."
            )
    examples = evenly_spaced(examples, options.num_examples)
    measured = len(examples) if windows is None else windows.num_texts
    data = {"data": asdict(report), "unknown_share": report.reading.share}
    data["measured_examples"] = measured
    return Prepared(examples if windows is None else windows.examples, windows, data, units)


def bound_of(
    model: MaskGitForMaskedLM,
    tokenizer: PreTrainedTokenizerBase,
    prepared: Prepared,
    options: EvaluateArguments,
    **more: Any,
) -> NelboOutput:
    """Estimate the bound of every text, in all processes together."""
    common: dict[str, Any] = {"num_samples": options.num_samples, "seed": options.seed, **more}
    estimate = partial(evaluate_nelbo, model, prepared.examples, tokenizer, **common)
    found = bound_in_shares(estimate, prepared.examples, options.batch_size)
    return found if prepared.windows is None else prepared.windows.summed(found)


def measure(
    model: MaskGitForMaskedLM,
    tokenizer: PreTrainedTokenizerBase,
    prepared: Prepared,
    bound: NelboOutput,
    options: EvaluateArguments,
) -> dict[str, Any]:
    """Name the figures of the bound, and measure confidences, and the critic where there is one."""
    figures = {
        "maskable_tokens": int(bound.num_tokens.sum()),
        **figures_of(bound),
        "corpus": corpus_figures(bound, prepared.units),
        **confidence_figures(model, tokenizer, prepared.examples, options),
    }
    if model.config.self_cond:
        plain = bound_of(model, tokenizer, prepared, options, self_condition=False)
        figures["one_pass"] = figures_of(plain)
    if model.has_token_critic:
        judge = partial(critic_auroc, model, prepared.examples, tokenizer, seed=options.seed)
        found = CriticAuroc.add(in_shares(judge, prepared.examples, options.batch_size))
        if found.num_pairs:
            figures["critic_auroc"] = {"auroc": found.auroc, **asdict(found)}
        else:
            figures["critic_auroc"] = None
            logger.warning(
                "The critic was not measured: no text has both a right and a wrong token. Measure "
                "on more texts, or on longer ones."
            )
    return figures


def confidence_figures(
    model: MaskGitForMaskedLM,
    tokenizer: PreTrainedTokenizerBase,
    examples: Any,
    options: EvaluateArguments,
) -> dict[str, Any]:
    """Measure accuracy and calibration by mask rate, and draw the latter where that is wanted."""
    common: dict[str, Any] = {"mask_rates": options.mask_rates, "seed": options.seed}
    judge = partial(calibration, model, examples, tokenizer, **common)
    shares = in_shares(judge, examples, options.batch_size)
    rates = options.mask_rates
    found = {str(rate): Calibration.add([share[rate] for share in shares]) for rate in rates}
    if options.reliability_plot is not None and is_main_process():
        named = {f"{float(rate):.0%} hidden": one for rate, one in found.items()}
        draw_reliability(named, Path(options.reliability_plot))
    return {
        "masked_accuracy": {rate: one.accuracy for rate, one in found.items()},
        "calibration": {
            rate: {
                "expected_error": one.expected_error,
                "mean_confidence": one.mean_confidence,
                "predictions": one.total,
            }
            for rate, one in found.items()
        },
    }


def baseline_of(
    model: MaskGitForMaskedLM, prepared: Prepared, options: EvaluateArguments
) -> Loaded:
    """Load the baseline, unless the texts are other tokens to it: a ValueError before any work."""
    baseline, tokenizer = load(options, str(options.baseline))
    other = prepare(options, baseline, tokenizer)
    roles = ("mask_token_id", "prefix_ids", "suffix_ids", "forbidden_token_ids")
    alike = all(getattr(model.config, role) == getattr(baseline.config, role) for role in roles)
    if ids_of(prepared) != ids_of(other) or not alike:
        raise ValueError(
            f"{options.model!r} and {options.baseline!r} do not read the texts as the same tokens "
            "(tokenizer, framing, ends of texts or special tokens differ), so that no masks are "
            "common to them; measure each for itself, and compare bits per character."
        )
    return baseline, tokenizer, other


def ids_of(prepared: Prepared) -> list[list[int]]:
    """Return the ids that are measured, one list per example: by them texts are told apart."""
    return [list(example["input_ids"]) for example in prepared.examples]


def compared(baseline: Loaded, bound: NelboOutput, options: EvaluateArguments) -> dict[str, Any]:
    """Measure the baseline on the same texts under the same masks."""
    theirs = bound_of(*baseline, options)
    found = compare_bounds(bound, theirs)
    apart = {"nats_per_token": found.nats_per_token.figures(), "share_better": found.share_better}
    return {"baseline_figures": figures_of(theirs), "difference": apart}


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
