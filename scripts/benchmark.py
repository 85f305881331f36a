"""Time `generate` beside as many passes of the bare encoder, in one run.

    python scripts/benchmark.py
    python scripts/benchmark.py --order confidence --length 256 --steps 32

The encoder (no LM head) has to run `steps` times whatever the sampler does; the ratio says what
head, scores, drawing and bookkeeping cost on top. Both are timed in turn, round by round, and the
median of the rounds' ratios is quoted, so that a machine whose speed drifts does not favour either.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import torch
from transformers import BertConfig, HfArgumentParser

from hf_maskgit import MaskGitConfig, MaskGitForMaskedLM
from hf_maskgit.core.sampler_orders import ORDERS
from hf_maskgit.core.schedules import SCHEDULES

MASK_TOKEN_ID = 103  # bert-base-uncased's


@dataclass
class BenchmarkArguments:
    """What is timed; the defaults are the figures that the README quotes."""

    batch_size: int = field(default=8, metadata={"help": "Texts decoded together."})
    length: int = field(default=128, metadata={"help": "Tokens per text, all masked."})
    steps: int = field(default=18, metadata={"help": "Denoiser passes."})
    order: str = field(
        default="top_probability", metadata={"help": "Order of revealing.", "choices": list(ORDERS)}
    )
    schedule: str = field(
        default="linear", metadata={"help": "Pace of revealing.", "choices": list(SCHEDULES)}
    )
    hidden_size: int = field(default=384, metadata={"help": "Width of the encoder."})
    num_layers: int = field(default=6, metadata={"help": "Layers of the encoder."})
    vocab_size: int = field(default=30522, metadata={"help": "Tokens of the vocabulary."})
    rounds: int = field(default=7, metadata={"help": "Timed rounds, after one to warm up."})
    device: str = field(
        default="cuda" if torch.cuda.is_available() else "cpu", metadata={"help": "Where to run."}
    )
    dtype: str = field(default="float32", metadata={"help": "Of weights and activations."})


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Build the model, time both in turn, print and return the figures."""
    parser = HfArgumentParser(BenchmarkArguments)  # type: ignore[arg-type]
    (arguments,) = parser.parse_args_into_dataclasses(argv)
    model = build_model(arguments)
    text = torch.full(
        (arguments.batch_size, arguments.length), MASK_TOKEN_ID, device=arguments.device
    )
    encoder = model.denoiser.base_model

    def generate() -> None:
        model.generate(
            text,
            steps=arguments.steps,
            order=arguments.order,
            schedule=arguments.schedule,
            seed=0,
        )

    @torch.no_grad()
    def bare_passes() -> None:
        for _ in range(arguments.steps):
            encoder(text)

    rounds = [(seconds(generate), seconds(bare_passes)) for _ in range(arguments.rounds + 1)][1:]
    figures = {
        "generate_seconds": statistics.median(ours for ours, _ in rounds),
        "bare_encoder_seconds": statistics.median(bare for _, bare in rounds),
        "ratio": statistics.median(ours / bare for ours, bare in rounds),
        "ratio_min": min(ours / bare for ours, bare in rounds),
        "ratio_max": max(ours / bare for ours, bare in rounds),
    }
    print(json.dumps({**asdict(arguments), **figures}, indent=2))
    return figures


def build_model(arguments: BenchmarkArguments) -> MaskGitForMaskedLM:
    """Build a BERT of the asked size with random weights, which decode as fast as trained ones."""
    encoder = BertConfig(
        vocab_size=arguments.vocab_size,
        hidden_size=arguments.hidden_size,
        num_hidden_layers=arguments.num_layers,
        num_attention_heads=arguments.hidden_size // 32,
        intermediate_size=4 * arguments.hidden_size,
        max_position_embeddings=max(512, arguments.length),
    )
    config = MaskGitConfig(text_config=encoder, mask_token_id=MASK_TOKEN_ID)
    model = MaskGitForMaskedLM(config).eval()
    return model.to(arguments.device, getattr(torch, arguments.dtype))


def seconds(work: Callable[[], None]) -> float:
    """Time one call, until the device is done."""
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
