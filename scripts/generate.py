"""Write texts with a trained generator: continue prompts, fill masks, or start from nothing.

    python scripts/generate.py --model runs/verses --text "In the beginning" --max_new_tokens 24
    python scripts/generate.py --model runs/verses --text "The [MASK] of [MASK]." --num_samples 5
    python scripts/generate.py --model runs/verses --num_samples 100 --output_file texts.txt
    python scripts/generate.py --model runs/verses --input_file prompts.txt --steps 12 \
        --schedule cosine --order confidence --output_format jsonl --output_file texts.jsonl
    python scripts/generate.py --model runs/verses --preset remdm --steps 128 --num_samples 5
    python scripts/generate.py --model runs/verses --remask p2 --options '{"p2_eta": 2.0}'

A text that holds the tokenizer's mask token is filled, any other is continued. What a text becomes
depends on the seed, its number and the number of the sample, not on the size of the batches.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_type_hints

import torch
from transformers import PreTrainedTokenizerBase

from hf_maskgit import MaskGitForMaskedLM, MaskGitGenerationConfig
from hf_maskgit.core.decoding_cache import CacheOptions
from hf_maskgit.core.generation_config_maskgit import OPTIONS, Request
from hf_maskgit.core.noise import mix
from hf_maskgit.core.pipeline_infilling import check_no_blank
from hf_maskgit.core.sampler import Sampler
from hf_maskgit.core.sampler_presets import PRESETS
from hf_maskgit.core.text_reader import check_texts
from hf_maskgit.core.unknown_tokens import counted_before
from hf_maskgit.evaluation.progress import ProgressBar
from hf_maskgit.hub.loading import load_generator
from hf_maskgit.training.recipes import (
    check_least,
    check_output,
    json_object,
    option,
    parse_options,
    read_text,
    required,
    run_program,
)

# The options of `generate` that words of the command line can say, but for those that this script
# says otherwise.
TYPES = get_type_hints(Sampler) | get_type_hints(Request) | get_type_hints(CacheOptions)
SAID_OTHERWISE = ("num_return_sequences", "return_dict_in_generate", "output_history")
DECODING = {
    name: kind | None
    for kind in (int, float, bool, str, list[int])
    for name in OPTIONS
    if TYPES[name] in (kind, kind | None) and name not in SAID_OTHERWISE
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
    input_file: str | None = option(None, "The same, one per line.")
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
    output_file: str | None = option(None, "Default: the screen.")
    output_format: Literal["text", "jsonl"] = option(
        "text", "One sample per line (line breaks as \\n), or one JSON object per line."
    )
    allow_missing_weights: bool = option(
        False, "Load a checkpoint that lacks weights; what is missing is drawn at random."
    )

    def __post_init__(self) -> None:
        """Check ranges, and that the texts will have a place."""
        check_least(self, num_samples=1, batch_size=1)
        check_output(self.output_file)


class Sample(NamedTuple):
    """One sample to write: the text it starts from, its number among the text's, its own seed."""

    text: str
    sample: int
    seed: int


def main(argv: Sequence[str] | None = None) -> None:
    """Write what the command line asks for."""
    (options,) = parse_options((GenerateArguments,), argv, "Write texts with a generator.")
    texts = read_texts(options)
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    model, tokenizer = load_generator(
        options.model,
        device_map=device,
        allow_missing_weights=options.allow_missing_weights,
    )
    stored: Any = getattr(model.generation_config, "max_unknown_share", None)
    check_texts(tokenizer, texts, decoding_options(options).get("max_unknown_share", stored))
    config = sampler_of(model, options)  # before the file is written over
    lengths_of(config, len(texts), options.num_samples)
    with open_output(options.output_file) as output:
        for request, written in write_samples(model, tokenizer, texts, options):
            if options.output_format == "text":
                line = written.replace("\n", "\\n")
            else:
                line = json.dumps({**request._asdict(), "output": written}, ensure_ascii=False)
            print(line, file=output, flush=True)


def read_texts(options: GenerateArguments) -> list[str]:
    """Collect the texts of the command line and the file; without any, one empty text.

    Raises:
        ValueError: for a file that cannot be read or is empty, or a text with a blank.
    """
    texts = list(options.text or [])
    if options.input_file is not None:
        lines = read_text(options.input_file).splitlines()
        if not lines:
            raise ValueError(f"The file {options.input_file!r} is empty; write one text per line.")
        texts += lines
    for text in texts:
        check_no_blank(text, "this script")
    return texts or [""]


def write_samples(
    model: MaskGitForMaskedLM,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    options: GenerateArguments,
) -> Iterator[tuple[Sample, str]]:
    """Yield each sample as it is written, in the order of the texts."""
    config = sampler_of(model, options)
    lengths = lengths_of(config, len(texts), options.num_samples)
    config.max_new_tokens = None  # it is named in the call
    requests = [
        Sample(text, sample, mix(options.seed, number, sample))
        for number, text in enumerate(texts)
        for sample in range(options.num_samples)
    ]
    with ProgressBar("Writing", len(requests), "text") as told:
        for batch in batches(requests, tokenizer.mask_token, options.batch_size):
            inputs = tokenizer(
                [request.text for request in batch],
                padding=True,
                return_attention_mask=True,  # FNet's tokenizer makes none by itself
                return_tensors="pt",
            )
            seeds = [request.seed for request in batch]
            own: dict[str, Any] = (
                {} if lengths is None else {"max_new_tokens": [next(lengths) for _ in batch]}
            )
            with counted_before():  # by words, text by text
                sequences: Any = model.generate(
                    **inputs.to(model.device),
                    generation_config=config,
                    seed=seeds,
                    tokenizer=tokenizer,
                    **own,
                )
            decoded = tokenizer.batch_decode(sequences, skip_special_tokens=True)
            yield from zip(batch, decoded, strict=True)
            told.update(len(batch))


def lengths_of(
    config: MaskGitGenerationConfig, num_texts: int, num_samples: int
) -> Iterator[int] | None:
    """Give each sample the number of tokens that its text gets, in their order.

    Args:
        config: from `sampler_of`.
        num_texts: how many texts there are.
        num_samples: of each.

    Returns:
        None where nothing is named.

    Raises:
        ValueError: for several numbers that are not as many as the texts.
    """
    length: int | list[int] | None = config.max_new_tokens
    if length is None:
        return None
    lengths = length if isinstance(length, list) else [length]
    if len(lengths) not in (1, num_texts):
        raise ValueError(
            f"`max_new_tokens` has {len(lengths)} numbers for {num_texts} texts; give one for all, "
            "or one per text."
        )
    of_texts = lengths if len(lengths) > 1 else lengths * num_texts
    return iter([n for n in of_texts for _ in range(num_samples)])


def sampler_of(model: MaskGitForMaskedLM, options: GenerateArguments) -> MaskGitGenerationConfig:
    """Return the options of decoding, for several samples as `generate` takes them for several.

    Raises:
        ValueError: for options that do not go together, or several samples of what draws nothing.
    """
    config = MaskGitGenerationConfig(**decoding_options(options))
    asked = {"num_return_sequences": options.num_samples}
    config.do_sample = model.resolve_options(config, None, asked).do_sample
    return config


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


def batches(requests: Sequence[Sample], mask_token: str, size: int) -> Iterator[list[Sample]]:
    """Group neighbours, never texts to fill with texts to continue: `generate` appends to a batch.

    Args:
        requests: in order.
        mask_token: what a text to fill holds.
        size: requests per batch at most.
    """
    batch: list[Sample] = []
    for request in requests:
        other_kind = batch and (mask_token in request.text) != (mask_token in batch[0].text)
        if other_kind or len(batch) == size:
            yield batch
            batch = []
        batch.append(request)
    yield batch


def open_output(path: str | None) -> Any:
    """Open the file, or the screen when there is none."""
    return nullcontext(sys.stdout) if path is None else Path(path).open("w", encoding="utf-8")


if __name__ == "__main__":
    run_program(main)
