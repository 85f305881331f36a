"""Write texts with a trained generator: continue prompts, fill masks, or start from nothing.

    python scripts/generate.py --model runs/verses --text "In the beginning" --max_new_tokens 24
    python scripts/generate.py --model runs/verses --text "The [MASK] of [MASK]." --num_samples 5
    python scripts/generate.py --model runs/verses --num_samples 100 --output_file texts.txt
    python scripts/generate.py --model runs/verses --input_file prompts.txt --steps 12 \
        --schedule cosine --order confidence --output_format jsonl --output_file texts.jsonl
    python scripts/generate.py --model runs/verses --preset remdm --steps 128 --num_samples 5
    python scripts/generate.py --model runs/verses --remask p2 --options '{"p2_eta": 2.0}'
    python scripts/generate.py --model runs/verses --steps 10 --show --save_animation text.svg

    accelerate launch scripts/generate.py --model runs/verses --input_file big.jsonl \
        --output_file out/

A text that holds the tokenizer's mask token is filled, any other is continued. What a text becomes
depends on the seed, its number and the number of the sample, not on the size of the batches. A
folder is written in parts that any number of processes share (docs/many_rows.md): the same command
goes on where it was killed, and the parts are those of one process.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_type_hints

from hf_maskgit.core.decoding_cache import CacheOptions
from hf_maskgit.core.generation_config_maskgit import OPTIONS, Request
from hf_maskgit.core.generation_output import OF_A_CALL
from hf_maskgit.core.sampler import Sampler
from hf_maskgit.core.sampler_presets import PRESETS
from hf_maskgit.evaluation.processes import own_device, own_place
from hf_maskgit.evaluation.progress import ProgressBar
from hf_maskgit.hub.loading import identity_of, load_generator
from hf_maskgit.rows.parts import FORMATS, LINES, PartsFolder
from hf_maskgit.rows.reading import ListedRows, Rows, look_at_rows, open_rows
from hf_maskgit.rows.writer import RowWriter
from hf_maskgit.rows.writing import PartsWriter, RowOptions, in_batches
from hf_maskgit.training.output_files import check_output
from hf_maskgit.training.plain_files import is_plain
from hf_maskgit.training.recipes import (
    check_least,
    json_object,
    option,
    parse_options,
    required,
    run_program,
)
from hf_maskgit.visualization import FirstText, check_animation_path
from hf_maskgit.visualization.terminal import check_rich

# The options of `generate` that words of the command line can say; what a call returns it does not.
TYPES = get_type_hints(Sampler) | get_type_hints(Request) | get_type_hints(CacheOptions)
DECODING = {
    name: kind | None
    for kind in (int, float, bool, str, list[int])
    for name in OPTIONS
    if TYPES[name] in (kind, kind | None) and name not in OF_A_CALL
}

T = TypeVar("T")


def with_decoding(arguments: type[T]) -> type[T]:
    """Add to a class of options those of `generate`, in the words in which it declares them."""
    for name, declared in OPTIONS.items():
        if name in DECODING and name not in arguments.__annotations__:
            words = {"choices": list(declared.choices)} if declared.choices else {}
            arguments.__annotations__[name] = DECODING[name]
            default = f"Default: the model's own, else {declared.default!r}."
            setattr(arguments, name, option(None, f"{declared.description} {default}", **words))
    return arguments


@dataclass
@with_decoding
class GenerateArguments:
    """What is written, and how: the last options are those of `generate`."""

    model: str = required("Generator, or an encoder as it is: a folder or a name on the Hub.")
    text: list[str] | None = option(
        None, "Prompts, or texts with mask tokens. Default: start from nothing."
    )
    input_file: str | None = option(
        None, "The same, one per line; or JSON Lines or Parquet, `*` for several files."
    )
    text_column: str = option("text", "Column of JSON Lines or Parquet that holds the text.")
    num_samples: int = option(1, "Samples per text.")
    max_new_tokens: list[int] | None = option(
        None,
        "Tokens to add to each text, one number for all or one per text; default: the model's own, "
        "0 to a masked text.",
    )
    preset: str | None = option(
        None, "Named sampler; other options replace its own.", choices=list(PRESETS)
    )
    stop_strings: list[str] | None = option(
        None, "A continued text ends behind the first of these."
    )
    options: str | None = option(
        None,
        "Further options of MaskGitGenerationConfig, a JSON object such as "
        "'{\"entropy_budget\": 0.3}'.",
    )
    seed: int = option(0, "Seed of all samples.")
    batch_size: int = option(32, "Samples written together.")
    output_file: str | None = option(
        None,
        'Default: the screen. A folder ("out/") is written in parts, which several processes '
        "share.",
    )
    output_format: Literal["text", "jsonl", "parquet"] | None = option(
        None,
        "One sample per line (line breaks as \\n); one JSON object per line, the columns of the "
        "input with it; or, in a folder, Parquet. Default: jsonl in a folder, else by the suffix "
        "of the file, else text.",
    )
    output_column: str = option("output", "Column of the result in JSON Lines or Parquet.")
    samples_per_part: int = option(10_000, "Samples per part of a folder.")
    show: bool = option(False, "Show the first text on standard error while it comes about.")
    save_animation: str | None = option(
        None, "Save how the first text came about: .html, .svg, .gif or .webp (docs/animations.md)."
    )
    allow_missing_weights: bool = option(
        False, "Load a checkpoint that lacks weights; what is missing is drawn at random."
    )

    def __post_init__(self) -> None:
        """Check ranges, and that the texts will have a place."""
        check_least(self, num_samples=1, batch_size=1, samples_per_part=1)
        if not self.in_parts:
            check_output(self.output_file, self.input_file)
        if self.output_format is None:
            suffixes = {form.suffix: name for name, form in FORMATS.items()}
            of_file = suffixes.get(Path(self.output_file or "").suffix, "text")
            self.output_format = "jsonl" if self.in_parts else of_file  # type: ignore[assignment]
            if self.output_format == "text" and not is_plain(self.output_file or ""):
                raise ValueError(
                    f"{self.output_file!r} would hold plain texts, one per line, which is not what "
                    "its ending says; end it in .txt, or in .jsonl for JSON Lines, or ask for "
                    "`output_format` text."
                )
        if self.show:
            check_rich()
        if self.save_animation is not None:
            check_animation_path(self.save_animation)
            check_output(self.save_animation, self.input_file)
        if self.in_parts:
            self._check_parts()
            return
        if self.output_format not in LINES:
            raise ValueError(
                f"`output_format` {self.output_format} is written in parts; name a folder, such as "
                "--output_file out/."
            )
        if own_place()[1] > 1:
            raise ValueError(
                f"{own_place()[1]} processes were launched, and a single file or the screen is for "
                "one of them; name a folder, such as --output_file out/, whose parts they share."
            )

    @property
    def in_parts(self) -> bool:
        """Whether the output is a folder."""
        name = self.output_file
        return name is not None and (name.endswith("/") or Path(name).is_dir())

    def _check_parts(self) -> None:
        if self.text and self.input_file is not None:
            raise ValueError(
                "A folder is written from `text` or from `input_file`, not from both; write all "
                "texts to the file."
            )
        if self.allow_missing_weights:
            raise ValueError(
                "`allow_missing_weights` draws weights anew in each process, so that the parts of "
                "a folder would come from different models; name a file instead."
            )
        if self.show or self.save_animation is not None:
            raise ValueError(
                "`show` and `save_animation` look on while the first text comes about, and nobody "
                "knows who writes that of a folder; name a file instead."
            )


def main(argv: Sequence[str] | None = None) -> None:
    """Write what the command line asks for."""
    (options,) = parse_options((GenerateArguments,), argv, "Write texts with a generator.")
    rows = read_rows(options)
    model, tokenizer = load_generator(
        options.model,
        device_map=own_device(),
        allow_missing_weights=options.allow_missing_weights,
    )
    writer = RowWriter(model, tokenizer, decoding_options(options), options.num_samples)
    looked_at = (row for _, some in look_at_rows(rows, options.text_column) for row in some)
    writer.check_stops(row[options.text_column] for row in looked_at)
    if options.in_parts:
        write_parts(writer, rows, options)
        return
    first = FirstText(tokenizer, options.show, options.save_animation)
    lines = written_lines(writer, rows, row_options(options), first)
    with open_output(options.output_file) as output, first:
        for line in lines:
            print(line, file=output, flush=True)


def read_rows(options: GenerateArguments) -> Rows:
    """Collect the texts of the command line and the file; without any, one empty text.

    Raises:
        ValueError: for a file that cannot be read or is empty.
    """
    given = [{options.text_column: text} for text in options.text or []]
    if options.input_file is None:
        return ListedRows(given or [{options.text_column: ""}])
    rows = open_rows(options.input_file, options.text_column)
    return ListedRows([*given, *rows.between(0, len(rows))]) if given else rows


def row_options(options: GenerateArguments) -> RowOptions:
    """Say how rows become samples and results."""
    values = asdict(options)
    return RowOptions(**{name: values[name] for name in RowOptions.__dataclass_fields__})


def write_parts(writer: RowWriter, rows: Rows, options: GenerateArguments) -> None:
    """Write this process's parts of a folder, see `PartsWriter`.

    Raises:
        ValueError: for a row that cannot be written from, or a folder that other options have
            filled.
    """
    how = row_options(options)
    total = len(rows) * how.num_samples
    suffix = FORMATS[how.output_format].suffix
    folder = PartsFolder(Path(str(options.output_file)), total, options.samples_per_part, suffix)
    parts = PartsWriter(writer, rows, how, folder)
    decides = {
        "model": identity_of(options.model, writer.model),
        "input": rows.digest,
        "decoding": decoding_options(options),
        "samples_per_part": options.samples_per_part,
        **asdict(how),
    }
    with folder.claimed(decides):
        parts.write(*own_place())


def written_lines(
    writer: RowWriter, rows: Rows, how: RowOptions, first: FirstText
) -> Iterator[str]:
    """Return the lines of all samples in their order, each as soon as it is written.

    Raises:
        ValueError: for a row that cannot be written from, before any is.
    """
    how.check(rows)
    texts = [row[how.text_column] for row in rows.between(0, len(rows))]
    writer.check_readings(writer.measure(texts)[1], texts.__getitem__)
    length_of = writer.lengths(len(rows))
    samples = how.samples(rows, range(len(rows) * how.num_samples))

    def lines() -> Iterator[str]:
        with ProgressBar("Writing", len(samples), "text", shown=not first.shows) as told:
            # neighbours, but never texts to fill with texts to continue
            for batch in in_batches(samples, how.batch_size, writer.is_filled):
                outputs = writer.write(
                    [sample.text for sample in batch],
                    [sample.seed for sample in batch],
                    None if length_of is None else [length_of(s.row_number) for s in batch],
                    first,
                )
                for sample, output in zip(batch, outputs, strict=True):
                    record = how.record(sample, output)
                    yield LINES[how.output_format](record, how.output_column)
                told.update(len(batch))

    return lines()


def decoding_options(options: GenerateArguments) -> dict[str, Any]:
    """Collect what the command line says about decoding: preset, options by name, JSON.

    Raises:
        ValueError: for JSON that is no object, or names an option twice.
    """
    preset = {} if options.preset is None else PRESETS[options.preset].options
    values = {name: value for name, value in asdict(options).items() if name in OPTIONS}
    given = {name: value for name, value in values.items() if value is not None}
    further = {} if options.options is None else json_object("options", options.options)
    twice = sorted(given.keys() & further.keys())
    if twice:
        raise ValueError(f"`{twice[0]}` is given by name and in `options`; leave one of them out.")
    return {**preset, **given, **further}


def open_output(path: str | None) -> Any:
    """Open the file, or the screen when there is none."""
    return nullcontext(sys.stdout) if path is None else Path(path).open("w", encoding="utf-8")


if __name__ == "__main__":
    run_program(main)
