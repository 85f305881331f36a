"""Ways to fill masks that are compared: ours, the floor, and those of other projects.

To add a way is to add a row to `WORKS`; presets and paces come from their own tables.

Letters: B batch, L length.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ..core.generation_config_maskgit import MaskGitGenerationConfig
from ..core.modeling_maskgit import MaskGitForMaskedLM
from ..core.sampler_presets import PRESETS
from ..core.sampler_rules import PACES
from .benchmark_patterns import PATTERNS
from .benchmark_peers import (
    check_x_transformers,
    encoder_and_head_passes,
    encoder_passes,
    llada_style,
    wrapper_of_x_transformers,
)
from .benchmark_rounds import Contestant, beginning_of, counted_passes
from .benchmark_shapes import Sizes, build_model, mask_token_id

HALF = ", bf16"  # behind the name of a work: under autocast in bfloat16
BLOCK = 64  # tokens of a block, where texts are written block by block
_PEER_ROUNDS = 3  # at most: what takes ten times as long is seen to do so
# Theirs are all alike, so that the first tell the bytes of all; of ours, some reveal more.
_PASSES_OF_A_PEER = 2

# Makes, of a model and sizes, what fills (B, L) masks.
Filling = Callable[[Tensor], Any]


class Work(NamedTuple):
    """A way to fill masks.

    Attributes:
        make: of a model and sizes.
        fills: whether the masks are filled; those of a floor stay.
        is_peer: whether it is another project's.
        compiled: of a copy of the model, the module that is compiled for it; None is nothing.
    """

    make: Callable[[MaskGitForMaskedLM, Sizes], Filling]
    fills: bool = True
    is_peer: bool = False
    compiled: Callable[[MaskGitForMaskedLM], nn.Module] | None = None


def _all_of(model: MaskGitForMaskedLM) -> nn.Module:
    return model


def _denoiser(model: MaskGitForMaskedLM) -> nn.Module:
    return model.denoiser


def _encoder(model: MaskGitForMaskedLM) -> nn.Module:
    return cast(nn.Module, model.denoiser.base_model)


def _ours(
    *,
    compiled: Callable[[MaskGitForMaskedLM], nn.Module] | None = None,
    pattern: str | None = None,
    **options: Any,
) -> Work:
    """Fill by our `generate`: its defaults but for the options, and a row of `PATTERNS`."""
    by_steps = PACES[options.get("pace") or "schedule"].by_steps

    def make(model: MaskGitForMaskedLM, sizes: Sizes) -> Filling:
        steps = {"steps": sizes.steps} if by_steps else {}
        built = None if pattern is None else PATTERNS[pattern](sizes)
        return lambda masked: model.generate(
            masked,
            generation_config=MaskGitGenerationConfig(**{**options, **steps}),
            pattern=built,
            seed=0,
        )

    return Work(make, compiled=compiled)


def _bare(model: MaskGitForMaskedLM, sizes: Sizes) -> Filling:
    return lambda masked: encoder_passes(model, masked, sizes.steps)


def _bare_with_head(model: MaskGitForMaskedLM, sizes: Sizes) -> Filling:
    return lambda masked: encoder_and_head_passes(model, masked, sizes.steps)


def _llada(model: MaskGitForMaskedLM, sizes: Sizes) -> Filling:
    return lambda masked: llada_style(model, masked, sizes.steps)


def _x_transformers(**options: Any) -> Work:
    def make(model: MaskGitForMaskedLM, sizes: Sizes) -> Filling:
        wrapper = wrapper_of_x_transformers(model, sizes.length, sizes.steps)
        return lambda masked: wrapper.generate(batch_size=len(masked), **options)

    return Work(make, is_peer=True)


FLOOR, PLAIN = "bare encoder", "generate"
HEAD = f"{FLOOR}, head at the masks"
LLADA, ANCESTOR = "LLaDA-style loop", "x-transformers"
COMPILED = f"{PLAIN}, torch.compile"
OTHERS_COMPILED = tuple(f"{name}, torch.compile" for name in (FLOOR, LLADA, ANCESTOR))
BLOCKS = f"generate, blocks of {BLOCK}, no cache"  # what a cache is compared with
_IN_BLOCKS: dict[str, Any] = {"block_length": BLOCK}
CACHES = {
    f"generate, blocks of {BLOCK}, cache": _ours(**_IN_BLOCKS, use_cache=True),
    f"generate, blocks of {BLOCK}, cache refreshed every 16": _ours(
        **_IN_BLOCKS, use_cache=True, cache_refresh_interval=16
    ),
    f"generate, blocks of {BLOCK}, adaptive cache": _ours(
        **_IN_BLOCKS, use_cache=True, cache_refresh="adaptive"
    ),
}
_OF_ORDERS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "generate, order=confidence": {"order": "confidence"},
    "generate, order=random": {"order": "random"},
}
OF_ORDERS = {name: _ours(**options) for name, options in _OF_ORDERS.items()}
# By pattern, whose name stands behind that of what is compared with.
OF_PATTERNS = {
    pattern: {
        f"{name}, {pattern}": _ours(pattern=pattern, **options)
        for name, options in _OF_ORDERS.items()
    }
    for pattern in PATTERNS
}
PRESET_WORKS = {f"preset {name}": _ours(**preset.options) for name, preset in PRESETS.items()}
PACE_WORKS = {f"generate, pace={name}": _ours(pace=name) for name in PACES}
WORKS = {
    FLOOR: Work(_bare, fills=False),
    HEAD: Work(_bare_with_head, fills=False),
    **OF_ORDERS,
    **{name: work for works in OF_PATTERNS.values() for name, work in works.items()},
    COMPILED: _ours(compiled=_all_of),
    LLADA: Work(_llada, is_peer=True),
    ANCESTOR: _x_transformers(filter_thres=None),
    "x-transformers, filter as by default": _x_transformers(),
    OTHERS_COMPILED[0]: Work(_bare, fills=False, compiled=_encoder),
    OTHERS_COMPILED[1]: Work(_llada, is_peer=True, compiled=_denoiser),
    OTHERS_COMPILED[2]: _x_transformers(filter_thres=None)._replace(compiled=_denoiser),
    BLOCKS: _ours(**_IN_BLOCKS, use_cache=False),
    **CACHES,
    **PRESET_WORKS,
    **PACE_WORKS,
}
ORDERS = (FLOOR, HEAD, *OF_ORDERS)
PEERS = (LLADA, ANCESTOR)
FEW = (FLOOR, PLAIN, *PEERS)


def in_half(names: Sequence[str]) -> tuple[str, ...]:
    """Name the same works under autocast in bfloat16."""
    return tuple(name + HALF for name in names)


def work_of(name: str) -> Work:
    """Return the work of a name, perhaps with `HALF` behind."""
    return WORKS[name.removesuffix(HALF)]


def contestants_of(
    names: Sequence[str], sizes: Sizes, device: torch.device, floor: str = FLOOR
) -> list[Contestant]:
    """Build a model of the sizes, and each work on it.

    Args:
        names: of works, perhaps with `HALF` behind.
        sizes: of the model and the texts.
        device: where.
        floor: what their times are divided by; under autocast, itself under autocast.
    """
    torch.manual_seed(0)
    model = build_model(sizes, device)
    masked = torch.full((sizes.batch_size, sizes.length), mask_token_id(sizes), device=device)
    return [_contestant(name, model, masked, sizes, floor) for name in names]


def _contestant(
    name: str, model: MaskGitForMaskedLM, masked: Tensor, sizes: Sizes, floor: str
) -> Contestant:
    half, work = name.endswith(HALF), work_of(name)
    if work.compiled is not None:  # a copy, since it is compiled in place
        model = copy.deepcopy(model)
        work.compiled(model).compile()
    fill = work.make(model, sizes)

    def run() -> Any:
        autocast = torch.autocast(masked.device.type, torch.bfloat16) if half else nullcontext()
        with autocast:
            return fill(masked)

    def check() -> dict[str, float]:
        # Compiled code may not see that its passes are counted: once it goes as it is written.
        eagerly = torch.compiler.set_stance("force_eager") if work.compiled else nullcontext()
        with eagerly, counted_passes(model.denoiser.base_model) as shapes:
            text = run()
        if work.compiled:
            text = run()
        left = int((text == model.config.mask_token_id).sum())
        assert not model.training  # dropout would be timed
        if text.shape != masked.shape or (work.fills and left):
            raise RuntimeError(
                f"{name!r} was to fill {tuple(masked.shape)} masks and returned "
                f"{tuple(text.shape)} with {left} of them left; its time would mean nothing."
            )
        return {
            "passes": len(shapes),
            "rows": sum(rows for rows, _ in shapes),
            "tokens": sum(rows * length for rows, length in shapes),
            "filled": 1 - left / text.numel(),
        }

    contestant = Contestant(name, run, floor + HALF * half, check)
    if not work.is_peer:
        return contestant
    contestant = replace(contestant, most_rounds=_PEER_ROUNDS)
    if work.compiled is not None:  # its passes cannot be counted, and are made all
        return contestant
    begin = beginning_of(run, model.denoiser.base_model, _PASSES_OF_A_PEER)
    return replace(contestant, peak=begin)


def check_peers(names: Sequence[str]) -> None:
    """Refuse works that need a package that is missing, before anything is measured."""
    if any(name.startswith(ANCESTOR) for name in names):
        check_x_transformers()


def without_peers(names: Sequence[str]) -> tuple[str, ...]:
    """Leave other projects out of the names of works."""
    return tuple(name for name in names if not work_of(name).is_peer)
