"""Measure the quality of generated texts: likely, varied, new, and as long as real ones.

    python scripts/evaluate_texts.py --model runs/verses --dataset held_out.txt \
        --training_dataset train.txt --judge gpt2 --featuriser bert-base-uncased \
        --steps 8 32 --temperature 0.6 0.8 1.0 --output_dir runs/verses/quality
    python scripts/evaluate_texts.py --texts others.txt --dataset held_out.txt --output_dir quality

A row for real texts comes first: so good can the numbers be. Then those of text files, one text per
line, whoever wrote them, and those that the model writes, with every number of steps and every
temperature. Perplexity is that of `--judge`, any causal LM, and stands beside the entropy of a
text's tokens: either alone is easily fooled. The folder gets `quality.json`, `quality.md`, the
texts, and two pictures (with the extra `plots`): the frontier of perplexity and entropy over the
temperature, and all measures over the passes.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.evaluation.batches import evaluating
from hf_maskgit.evaluation.benchmark_report import figure_class_of_matplotlib
from hf_maskgit.evaluation.figures import figures_text
from hf_maskgit.evaluation.judges import CausalJudge, Featuriser, mauve_function
from hf_maskgit.evaluation.progress import ProgressBar
from hf_maskgit.evaluation.text_quality import TextMeter, halves_of_real, read_back
from hf_maskgit.evaluation.text_quality_report import (
    draw_frontier,
    draw_over_passes,
    quality_table,
)
from hf_maskgit.evaluation.text_variety import sacrebleu_class
from hf_maskgit.hub.loading import load_generator
from hf_maskgit.training.files import short_names
from hf_maskgit.training.plain_files import read_lines
from hf_maskgit.training.recipes import (
    check_least,
    option,
    parse_options,
    required,
    run_program,
)
from hf_maskgit.training.sampler_arguments import check_samplers, decoding_of
from hf_maskgit.training.sources import check_columns, load_texts, only_split

SWEPT = ("steps", "temperature")
_REAL = "real texts"


@dataclass
class TextArguments:
    """What is measured, and against what."""

    dataset: str = required("Real texts, held out: a name on the Hub, a folder, or local files.")
    output_dir: str = required("Folder for figures, texts and pictures.")
    model: str | None = option(None, "Generator that writes: a folder or a name on the Hub.")
    texts: list[str] | None = option(None, "Files of texts to measure, one text per line.")
    split: str | None = option(None, "Split of the real texts. Default: the only one.")
    text_column: str = option("text", "Column that holds the texts, of both data sets.")
    training_dataset: str | None = option(None, "Texts that were trained on, for what is copied.")
    training_split: str | None = option(None, "Split of them. Default: the only one.")
    judge: str | None = option(None, "Causal LM for the perplexity: a folder or a name on the Hub.")
    featuriser: str | None = option(
        None, "Encoder whose mean hidden states MAUVE compares: a folder or a name on the Hub."
    )
    steps: list[int] | None = option(None, "Values of `steps` to write with. Default: 8 18 32.")
    temperature: list[float] | None = option(
        None, "Values of `temperature` to write with. Default: 0.6 0.8 1."
    )
    decoding: str = option("{}", "Further options of `generate`, a JSON object.")
    num_texts: int = option(500, "Texts of every row, at least 2; comparable rows have as many.")
    batch_size: int = option(50, "Texts written together.")
    by_characters: bool = option(
        False, "Count characters instead of words: for molecules and proteins."
    )
    seed: int = option(0, "Seed of all texts.")
    plot: bool = option(True, "Draw the pictures; needs matplotlib, the extra `plots`.")

    def __post_init__(self) -> None:
        """Check ranges, and that there is something to measure and to draw with."""
        check_least(self, num_texts=2, batch_size=1)
        if self.model is None and not self.texts:
            raise ValueError("There is nothing to measure; name a --model, or files of --texts.")
        if self.plot:
            figure_class_of_matplotlib()
        sacrebleu_class()
        if self.featuriser is not None:
            mauve_function()


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Write, measure, print the table, and return its rows."""
    (options,) = parse_options((TextArguments,), argv, "Measure the quality of generated texts.")
    decoding = decoding_of("--decoding", options.decoding)
    if swept := sorted(set(SWEPT).intersection(decoding)):
        raise ValueError(f"`{swept[0]}` has an option of its own, --{swept[0]}; name it there.")
    given = options.texts or []
    names = short_names([_REAL, *given])[1:]
    lines = [lines_of(file, options.num_texts) for file in given]
    files = dict(zip(names, lines, strict=True))
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    model, tokenizer = None, None
    if options.model is not None:
        model, tokenizer = load_generator(options.model, device_map=device)
        check_samplers(model, [decoding])
    real = texts_of(options.dataset, options.split, options, tokenizer)
    shown, reference = halves_of_real(real, options.num_texts, options.seed)
    training = None
    if options.training_dataset is not None:
        training = texts_of(options.training_dataset, options.training_split, options, tokenizer)
    judge = None if options.judge is None else CausalJudge(options.judge, device)
    featuriser = None if options.featuriser is None else Featuriser(options.featuriser, device)
    meter = TextMeter(reference, training, judge, featuriser, options.by_characters)
    folder = Path(options.output_dir)
    folder.mkdir(parents=True, exist_ok=True)

    rows: list[dict[str, Any]] = []
    for name, texts in {_REAL: shown, **files}.items():
        rows.append({"name": name, **meter.measure(texts)})
    if model is not None and tokenizer is not None:
        settings = product(options.steps or (8, 18, 32), options.temperature or (0.6, 0.8, 1.0))
        for steps, temperature in settings:
            swept_here = {"steps": steps, "temperature": temperature}
            texts, passes = write(model, tokenizer, {**decoding, **swept_here}, options)
            name = f"steps={steps}, temperature={temperature:g}"
            rows.append({"name": name, **swept_here, "passes": passes, **meter.measure(texts)})
            kept = folder / f"texts_{steps}_{temperature:g}.txt"
            kept.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    report(rows, options, folder)
    return rows


def report(rows: Sequence[dict[str, Any]], options: TextArguments, folder: Path) -> None:
    """Print the table and leave it in the folder, with the figures and pictures.

    The table says by whom it was measured: such numbers compare with no others.
    """
    by = {"judge": options.judge, "featuriser": options.featuriser}
    measured = [f"{kind} {name}" for kind, name in by.items() if name is not None]
    measured.append(f"{options.num_texts} texts in a row, seed {options.seed}")
    table = f"{quality_table(rows)}\n\nMeasured by {', '.join(measured)}."
    print(table)
    (folder / "quality.md").write_text(table + "\n", encoding="utf-8")
    found = {"options": asdict(options), "rows": rows}
    (folder / "quality.json").write_text(figures_text(found) + "\n", encoding="utf-8")
    if options.plot and options.judge is not None:
        draw_frontier(rows, folder / "frontier.png")
    if options.plot and options.model is not None:
        draw_over_passes(rows, folder / "passes.png")


def texts_of(
    dataset: str,
    split: str | None,
    options: TextArguments,
    tokenizer: PreTrainedTokenizerBase | None,
) -> list[str]:
    """Read texts, as the generator's tokenizer would give them back: its case, its blanks.

    Raises:
        ValueError: where the column is missing.
    """
    read = load_texts(dataset, None, split or only_split(dataset, None))
    what = "texts, whose column --text_column names"
    check_columns(read, dataset, [options.text_column], what)
    texts = [text for text in read[options.text_column] if text and text.strip()]
    if tokenizer is not None:
        texts = read_back(texts, tokenizer)
    return ["".join(text.split()) for text in texts] if options.by_characters else texts


def lines_of(file: str, count: int) -> list[str]:
    """Read the first texts of a file.

    Raises:
        ValueError: where it has too few.
    """
    lines = [line for line in read_lines(file) if line.strip()]
    if len(lines) < count:
        raise ValueError(
            f"{file!r} has {len(lines)} texts, and {count} are measured in every row; ask for "
            "fewer with --num_texts."
        )
    return lines[:count]


def write(
    model: MaskGitForMaskedLM,
    tokenizer: PreTrainedTokenizerBase,
    decoding: dict[str, Any],
    options: TextArguments,
) -> tuple[list[str], float]:
    """Write texts from nothing, as long as those of the training where the model knows it.

    Where it stores another way to find lengths, by that.

    Returns:
        The texts, and the passes per text.
    """
    stored: Any = model.generation_config
    draws = model.config.lengths and stored.num_tokens is None
    known = {"num_tokens": "sampled"} if draws else {}
    texts: list[str] = []
    passes = 0
    with evaluating(model), ProgressBar("Writing", options.num_texts, "text") as told:
        while len(texts) < options.num_texts:
            size = min(options.batch_size, options.num_texts - len(texts))
            output: Any = model.generate(
                seed=options.seed + len(texts),
                num_return_sequences=size,
                return_dict_in_generate=True,
                tokenizer=tokenizer,
                **{**known, **decoding},
            )
            texts += tokenizer.batch_decode(output.sequences, skip_special_tokens=True)
            passes += int(output.denoiser_passes.sum())
            told.update(size)
    if options.by_characters:
        texts = ["".join(text.split()) for text in texts]
    return texts, passes / len(texts)


if __name__ == "__main__":
    run_program(main)
