"""Compare attention caches on your own model: how much faster, and what it does to the texts.

    python scripts/compare_caches.py --model runs/verses --length 64 --steps 32 \
        --block_lengths 16 32
    python scripts/compare_caches.py --new_encoder bert --prompt_length 384 --length 128 \
        --steps 64 --block_lengths 64 --num_texts 2 --caches '[{"cache_refresh_interval": 8}]'

Texts are written from nothing, without a cache and with several, from the same seeds. `agreement`
is the share of tokens that are the same. `nats per token` judges the texts by the model itself,
each token given the rest of its text; `beyond none` is how many more they are than without a cache,
text by text, and ± one standard error. A new encoder has the default size of its type and random
weights: it tells of the time alone. On a CPU time is that of the processor, in one thread unless
--threads says otherwise.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from hf_maskgit import MaskGitConfig, MaskGitForMaskedLM
from hf_maskgit.core.encoder_kinds import check_encoder
from hf_maskgit.core.special_tokens import special_ids
from hf_maskgit.evaluation.caches import CacheQuality, compare_caches
from hf_maskgit.evaluation.figures import figures_text
from hf_maskgit.hub.loading import load_generator
from hf_maskgit.training.output_files import check_output
from hf_maskgit.training.recipes import (
    check_least,
    option,
    parse_options,
    run_program,
)
from hf_maskgit.training.sampler_arguments import samplers_of

DESCRIPTION = """Compare attention caches on a generator: how many times faster than without one,
the share of tokens that stay the same, and the nats per token of the texts, given the rest of
each."""
CACHES: list[dict[str, Any]] = [
    *({"cache_refresh_interval": interval} for interval in (2, 4, 8, 16, 1000)),
    *({"cache_refresh": "adaptive", "cache_drift": drift} for drift in (0.02, 0.05, 0.1)),
]


@dataclass
class CacheArguments:
    """What is compared on what."""

    model: str | None = option(None, "Generator, or an encoder as it is: a folder or a name.")
    new_encoder: str | None = option(
        None, "Instead of it, a type of encoder with random weights, for the time alone."
    )
    length: int = option(64, "Masks of a text.")
    prompt_length: int = option(
        0, "Tokens before them, drawn at random: for the time alone, as they make no sense."
    )
    steps: int = option(32, "Passes at most.")
    block_lengths: list[int] | None = option(None, "Masks of a block, to try. Default: 16.")
    order: str = option("top_probability", "Which masks go first.")
    caches: str | None = option(
        None,
        "Options of each cache, a JSON list of objects. Default: intervals from 2 to the whole "
        "block, and three values of `cache_drift`.",
    )
    num_texts: int = option(8, "Texts of each, at least 2.")
    repeats: int = option(1, "How often each is timed.")
    threads: int = option(1, "Threads of the CPU.")
    seed: int = option(0, "Seed of all texts.")
    output_file: str | None = option(None, "Write figures and texts there as JSON.")

    def __post_init__(self) -> None:
        """Check ranges, and that the figures will have a place."""
        check_least(self, length=1, prompt_length=0, steps=1, num_texts=2, repeats=1, threads=1)
        check_output(self.output_file)
        if (self.model is None) == (self.new_encoder is None):
            raise ValueError("Give one of --model and --new_encoder.")


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Compare, print a table, and return the figures."""
    (options,) = parse_options((CacheArguments,), argv, DESCRIPTION)
    example = {"cache_refresh_interval": 8}
    caches = samplers_of(options.caches, CACHES, example, "--caches")
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        return compare(options, caches)
    finally:
        torch.set_num_threads(before)


def compare(options: CacheArguments, caches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compare, print a table, and return the figures."""
    model = model_of(options)
    frame = (model.config.prefix_ids or [], model.config.suffix_ids or [])
    generator = torch.Generator().manual_seed(options.seed)
    special = special_ids(vars(model.config))
    vocab_size = model.config.get_text_config().vocab_size
    words = torch.tensor([i for i in range(vocab_size) if i not in special])
    drawn = torch.randint(len(words), (options.prompt_length,), generator=generator)
    prompt = words[drawn].tolist()
    masks = [model.config.mask_token_id] * options.length
    text = torch.tensor([[*frame[0], *prompt, *masks, *frame[1]]], device=model.device)
    found: list[dict[str, Any]] = []
    for block_length in options.block_lengths or [16]:
        qualities = compare_caches(
            model,
            text,
            caches,
            num_texts=options.num_texts,
            repeats=options.repeats,
            seed=options.seed,
            judged=options.model is not None,
            block_length=block_length,
            steps=options.steps,
            order=options.order,
            anneal_temperature=False,
        )
        if not found:
            print("| block | cache | times faster | agreement | nats per token | beyond none |")
            print("|---|---|---|---|---|---|")
        for quality in qualities:
            print(row_of(quality, qualities[0], block_length), flush=True)
            texts = quality.texts.tolist()
            found.append({**asdict(quality), "block_length": block_length, "texts": texts})
    if options.output_file is not None:
        written = figures_text(found) + "\n"
        Path(options.output_file).write_text(written, encoding="utf-8")
    return found


def model_of(options: CacheArguments) -> MaskGitForMaskedLM:
    """Load the generator, or make one of a new encoder.

    Raises:
        ValueError: for a type that transformers or the library does not know.
    """
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    if options.model is not None:
        return load_generator(options.model, device_map=device)[0]
    torch.manual_seed(options.seed)
    encoder = AutoConfig.for_model(str(options.new_encoder))
    check_encoder(encoder)
    config = MaskGitConfig(text_config=encoder, mask_token_id=4, pad_token_id=0)
    return MaskGitForMaskedLM(config).eval().to(device)


def row_of(quality: CacheQuality, without: CacheQuality, block_length: int) -> str:
    """Write the figures of a cache as a row of the table."""
    options = {k: v for k, v in quality.options.items() if k != "use_cache"}
    name = ", ".join(f"`{k}={v!r}`" for k, v in options.items())
    name = name or ("the defaults" if quality.options["use_cache"] else "none")
    return (
        f"| {block_length} | {name} | {without.seconds / quality.seconds:.2f} | "
        f"{quality.agreement:.2f} | {quality.nats_per_token:.3f} ± {quality.std_error:.3f} | "
        f"{quality.beyond:+.3f} ± {quality.beyond_std_error:.3f} |"
    )


if __name__ == "__main__":
    run_program(main)
