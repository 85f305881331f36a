"""What is compared of generation: shapes of encoders, ways to fill them with tokens, growth.

A cell is one shape of encoder and text, which several works fill from nothing but masks. Weights
are random: they take as long as trained ones. To add a work is to add a row to `WORKS`, to add a
shape a row to `CELLS`, and of each kind of encoder to `ENCODERS`.

Letters: B batch, L length, V vocabulary.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import BertConfig, EsmConfig, ModernBertConfig, PreTrainedConfig

from ..core.configuration_maskgit import MaskGitConfig
from ..core.modeling_maskgit import MaskGitForMaskedLM
from .benchmark_peers import (
    check_x_transformers,
    encoder_passes,
    llada_style,
    wrapper_of_x_transformers,
)
from .benchmark_rounds import Contestant, Timing, counted_passes, exponent, measure
from .progress import ProgressBar

HALF = ", bf16"  # behind the name of a work: under autocast in bfloat16
_MASK_TOKEN_ID = 103  # bert-base-uncased's; the last id of a smaller vocabulary


@dataclass(frozen=True)
class Sizes:
    """Sizes of an encoder and of the texts that it fills.

    Attributes:
        encoder: a row of `ENCODERS`.
        layers, hidden, heads, intermediate: of the encoder.
        vocab_size: V.
        batch_size: B, texts side by side.
        length: L, tokens of a text, all masked.
        steps: passes.
    """

    encoder: str
    layers: int
    hidden: int
    heads: int
    intermediate: int
    vocab_size: int
    batch_size: int
    length: int
    steps: int


def _bert(sizes: Sizes) -> PreTrainedConfig:
    return BertConfig(max_position_embeddings=max(512, sizes.length), **_common(sizes))


def _modernbert(sizes: Sizes) -> PreTrainedConfig:
    # its own special ids lie beyond a small vocabulary
    ids = dict.fromkeys(f"{name}_token_id" for name in ("pad", "bos", "eos", "cls", "sep"))
    return ModernBertConfig(**{**_common(sizes), **ids, "pad_token_id": 0})


def _esm(sizes: Sizes) -> PreTrainedConfig:
    return EsmConfig(
        position_embedding_type="rotary",
        pad_token_id=1,
        mask_token_id=mask_token_id(sizes),
        max_position_embeddings=sizes.length + 2,
        **_common(sizes),
    )


def _common(sizes: Sizes) -> dict[str, Any]:
    return {
        "vocab_size": sizes.vocab_size,
        "hidden_size": sizes.hidden,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "intermediate_size": sizes.intermediate,
    }


ENCODERS: dict[str, Callable[[Sizes], PreTrainedConfig]] = {
    "bert": _bert,
    "modernbert": _modernbert,
    "esm": _esm,
}


def mask_token_id(sizes: Sizes) -> int:
    """Return the id of the mask in a vocabulary."""
    return min(_MASK_TOKEN_ID, sizes.vocab_size - 1)


def build_model(sizes: Sizes, device: torch.device) -> MaskGitForMaskedLM:
    """Build a generator of the sizes with random weights in float32, ready to generate."""
    config = MaskGitConfig(
        text_config=ENCODERS[sizes.encoder](sizes), mask_token_id=mask_token_id(sizes)
    )
    return MaskGitForMaskedLM(config).eval().to(device)


# Makes, of a model and sizes, what fills (B, L) masks.
Filling = Callable[[Tensor], Any]


class Work(NamedTuple):
    """A way to fill masks.

    Attributes:
        make: of a model and sizes.
        fills: whether the masks are filled; those of a floor stay.
        is_peer: whether it is another project's.
    """

    make: Callable[[MaskGitForMaskedLM, Sizes], Filling]
    fills: bool = True
    is_peer: bool = False


def _ours(**options: Any) -> Work:
    """Fill by our `generate`, with its defaults but for the options named."""

    def make(model: MaskGitForMaskedLM, sizes: Sizes) -> Filling:
        return lambda masked: model.generate(masked, steps=sizes.steps, seed=0, **options)

    return Work(make)


def _bare(model: MaskGitForMaskedLM, sizes: Sizes) -> Filling:
    return lambda masked: encoder_passes(model, masked, sizes.steps)


def _llada(model: MaskGitForMaskedLM, sizes: Sizes) -> Filling:
    return lambda masked: llada_style(model, masked, sizes.steps)


def _x_transformers(**options: Any) -> Work:
    def make(model: MaskGitForMaskedLM, sizes: Sizes) -> Filling:
        wrapper = wrapper_of_x_transformers(model, sizes.length, sizes.steps)
        return lambda masked: wrapper.generate(batch_size=len(masked), **options)

    return Work(make, is_peer=True)


FLOOR, PLAIN = "bare encoder", "generate"
LLADA, ANCESTOR = "LLaDA-style loop", "x-transformers"
WORKS = {
    FLOOR: Work(_bare, fills=False),
    PLAIN: _ours(),
    "generate, order=confidence": _ours(order="confidence"),
    "generate, order=random": _ours(order="random"),
    LLADA: Work(_llada, is_peer=True),
    ANCESTOR: _x_transformers(filter_thres=None),
    "x-transformers, filter as by default": _x_transformers(),
}
ORDERS = (FLOOR, PLAIN, "generate, order=confidence", "generate, order=random")
PEERS = (LLADA, ANCESTOR)
FEW = (FLOOR, PLAIN, *PEERS)


def in_half(names: Sequence[str]) -> tuple[str, ...]:
    """Name the same works under autocast in bfloat16."""
    return tuple(name + HALF for name in names)


class Cell(NamedTuple):
    """One shape, and the works that fill it.

    Attributes:
        name: of the shape.
        sizes: of it.
        works: of `WORKS`, perhaps with `HALF` behind; among them the floor of each.
        rounds: timed at most, where one takes long; None is as many as are asked for.
    """

    name: str
    sizes: Sizes
    works: tuple[str, ...]
    rounds: int | None = None


BERT = Sizes("bert", 6, 384, 12, 1536, 30_522, batch_size=8, length=128, steps=18)
CELLS = (
    Cell(
        "BERT 6 x 384",
        BERT,
        (
            *ORDERS,
            *PEERS,
            "x-transformers, filter as by default",
            *in_half(ORDERS),
            *in_half(PEERS),
        ),
    ),
    Cell(
        "ModernBERT-base",
        Sizes("modernbert", 22, 768, 12, 1152, 50_368, batch_size=1, length=512, steps=8),
        (*ORDERS, *PEERS),
        rounds=3,
    ),
    Cell(
        "ESM-2 8M",
        Sizes("esm", 6, 320, 20, 1280, 33, batch_size=4, length=256, steps=18),
        (*ORDERS, *PEERS),
    ),
    Cell(
        "molecules",
        Sizes("bert", 6, 256, 8, 1024, 600, batch_size=32, length=64, steps=18),
        (*ORDERS, *PEERS),
    ),
)
QUICK_CELLS = (
    Cell("BERT 6 x 384", replace(BERT, batch_size=2, length=64, steps=6), (*ORDERS, *PEERS)),
    Cell("ESM-2 8M", replace(CELLS[2].sizes, length=64, steps=6), (*ORDERS, *PEERS)),
)


class Growth(NamedTuple):
    """One size that grows while the others stay.

    Attributes:
        over: name of the size.
        values: that it takes.
        sizes: the others.
        works: of `WORKS`.
    """

    over: str
    values: tuple[int, ...]
    sizes: Sizes
    works: tuple[str, ...] = FEW


SMALL = Sizes("bert", 2, 128, 4, 512, 1024, batch_size=4, length=128, steps=16)
GROWTHS = (
    Growth("length", (64, 128, 256, 512, 1024, 2048), replace(SMALL, batch_size=1)),
    Growth("vocab_size", (33, 512, 4096, 32_768, 131_072), replace(SMALL, steps=8)),
    Growth("batch_size", (1, 4, 16, 64), replace(SMALL, length=64)),
    Growth("steps", (4, 16, 64, 256), replace(SMALL, length=256, batch_size=1)),
)
QUICK_GROWTHS = (
    Growth("length", (64, 256, 1024), replace(SMALL, batch_size=1, steps=4)),
    Growth("vocab_size", (33, 1024, 32_768), replace(SMALL, steps=4, length=64)),
)


def measure_cell(
    cell: Cell, rounds: int, device: torch.device, *, counts_bytes: bool = True
) -> dict[str, Any]:
    """Measure the works of a cell in turn.

    Args:
        cell: its shape and works.
        rounds: timed.
        device: where.
        counts_bytes: whether memory is told.

    Returns:
        Sizes and timings, as JSON takes them.

    Raises:
        RuntimeError: for a work that left a mask, returned another shape, or made another number
            of passes than it was to make; and where a package is missing.
    """
    rounds = min(rounds, cell.rounds or rounds)
    with ProgressBar(cell.name, rounds * len(cell.works), "work") as told:
        timings = measure(
            contestants_of(cell, device), rounds, device, counts_bytes=counts_bytes, told=told
        )
    return {"name": cell.name, "sizes": asdict(cell.sizes), "works": [t.as_dict() for t in timings]}


def measure_growth(growth: Growth, rounds: int, device: torch.device) -> dict[str, Any]:
    """Measure the works at every value of one size, and fit how their time grows with it.

    Returns:
        Sizes, medians and exponents, as JSON takes them.
    """
    found: dict[str, list[Timing]] = {name: [] for name in growth.works}
    for value in growth.values:
        grown: dict[str, Any] = {growth.over: value}
        sizes = replace(growth.sizes, **grown)
        cell = Cell(f"{growth.over} {value:,}", sizes, growth.works)
        with ProgressBar(cell.name, rounds * len(cell.works), "work") as told:
            contestants = contestants_of(cell, device)
            for one in measure(contestants, rounds, device, counts_bytes=False, told=told):
                found[one.name].append(one)
    works = []
    for name, timings in found.items():
        quartiles = [t.as_dict()["seconds_quartiles"] for t in timings]
        fitted, error = exponent(growth.values, [median for _, median, _ in quartiles])
        works.append(
            {
                "name": name,
                "seconds_quartiles": quartiles,
                "exponent": fitted,
                "exponent_std_error": error,
            }
        )
    return {
        "over": growth.over,
        "values": list(growth.values),
        "sizes": asdict(growth.sizes),
        "works": works,
    }


def contestants_of(cell: Cell, device: torch.device) -> list[Contestant]:
    """Build the model of a cell, and each work on it."""
    torch.manual_seed(0)
    model = build_model(cell.sizes, device)
    shape = (cell.sizes.batch_size, cell.sizes.length)
    masked = torch.full(shape, mask_token_id(cell.sizes), device=device)
    return [_contestant(name, model, masked, cell.sizes) for name in cell.works]


def _contestant(name: str, model: MaskGitForMaskedLM, masked: Tensor, sizes: Sizes) -> Contestant:
    half = name.endswith(HALF)
    work = WORKS[name.removesuffix(HALF)]
    fill = work.make(model, sizes)

    def run() -> Any:
        autocast = torch.autocast(masked.device.type, torch.bfloat16) if half else nullcontext()
        with autocast:
            return fill(masked)

    def check() -> dict[str, float]:
        with counted_passes(model.denoiser.base_model) as rows:
            text = run()
        left = int((text == model.config.mask_token_id).sum())
        assert not model.training  # dropout would be timed
        if text.shape != masked.shape or (work.fills and left):
            raise RuntimeError(
                f"{name!r} was to fill {tuple(masked.shape)} masks and returned "
                f"{tuple(text.shape)} with {left} of them left; its time would mean nothing."
            )
        return {"passes": len(rows), "rows": sum(rows), "filled": 1 - left / text.numel()}

    return Contestant(name, run, FLOOR + HALF * half, check)


def check_peers(cells: Sequence[Cell | Growth]) -> None:
    """Refuse cells whose works need a package that is missing, before anything is measured."""
    named = {name.removesuffix(HALF) for cell in cells for name in cell.works}
    if any(name.startswith(ANCESTOR) for name in named):
        check_x_transformers()


def without_peers(names: Sequence[str]) -> tuple[str, ...]:
    """Leave other projects out of the names of works."""
    return tuple(name for name in names if not WORKS[name.removesuffix(HALF)].is_peer)
