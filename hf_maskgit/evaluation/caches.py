"""An attention cache beside none: how much faster, how much the same, and how likely its texts."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from ..core.argument_checks import check_whole
from ..core.attention_cache import why_no_twin
from ..core.generation_config_maskgit import OPTIONS
from ..core.modeling_maskgit import MaskGitForMaskedLM
from .batches import evaluating
from .samplers import OF_ALL, nats_per_token, resolved_sampler

# Of the caches that are compared, all else is the same.
_OF_A_CACHE = ("use_cache", "cache_refresh", "cache_refresh_interval", "cache_drift")


@dataclass(frozen=True)
class CacheQuality:
    """What was written with one cache, or with none.

    Attributes:
        options: of the cache.
        seconds: of `generate` for all texts, median over the repetitions.
        agreement: share of the written tokens that are those of the text without a cache, written
            from the same seed. One other token may lead to another text, as likely.
        nats_per_token: mean over the texts, see `compare_samplers`; nan where nobody judged.
        std_error: of that mean.
        beyond: mean over the seeds of the nats per token less those of the text without a cache.
        beyond_std_error: of that mean.
        texts: (T, L) long.
    """

    options: Mapping[str, Any]
    seconds: float
    agreement: float
    nats_per_token: float
    std_error: float
    beyond: float
    beyond_std_error: float
    texts: Tensor


def compare_caches(
    model: MaskGitForMaskedLM,
    input_ids: Tensor,
    caches: Sequence[Mapping[str, Any]],
    *,
    num_texts: int = 8,
    repeats: int = 1,
    seed: int = 0,
    judged: bool = True,
    **options: Any,
) -> list[CacheQuality]:
    """Write the same texts without a cache and with several.

    Args:
        model: writes, and judges.
        input_ids: (1, L) long, a text with masks.
        caches: options of the cache, for each.
        num_texts: how many texts are written from it, at least 2.
        repeats: how often each is timed, in turns.
        seed: of all texts.
        judged: measure how likely the texts are.
        **options: of `generate`, for all.

    Returns:
        What was written without a cache, then with each.

    Raises:
        ValueError: for no cache, an option that is none of a cache, or one of all texts that is no
            sampler's, a model that has none, or a sampler that goes without.
    """
    check_whole("num_texts", num_texts, least=2)
    check_whole("repeats", repeats)
    _check_caches(model, caches)
    common_to_none = sorted({*OF_ALL, *_OF_A_CACHE}.intersection(options))
    if common_to_none:
        raise ValueError(
            f"`{common_to_none[0]}` is no option of all texts that are compared: their number, "
            "length and seed are the same by other arguments, and caches stand in `caches`."
        )
    asked = [{"use_cache": False}, *({**cache, "use_cache": True} for cache in caches)]
    common = {"num_return_sequences": num_texts, "seed": seed, **options}
    named = {name: value for name, value in options.items() if name in (*OPTIONS, "preset")}
    for options_of_one in asked:  # before the first has worked
        resolved_sampler(model, named, **options_of_one)
    common |= {"num_tokens": "fixed", "max_new_tokens": 0, "return_dict_in_generate": False}
    seconds: list[list[float]] = [[] for _ in asked]
    texts: list[Tensor] = []
    with evaluating(model):
        for repetition in range(repeats):
            for i, cache in enumerate(asked):
                begun = _now(model.device)
                found = cast(Tensor, model.generate(input_ids, **common, **cache))
                seconds[i].append(_now(model.device) - begun)
                texts += [found] if repetition == 0 else []
    written = input_ids == cast(int, model.config.mask_token_id)
    results: list[CacheQuality] = []
    without = torch.empty(0)
    for cache, times, found in zip(asked, seconds, texts, strict=True):
        nats = torch.tensor([torch.nan] * num_texts)
        if judged:
            alone = [nats_per_token(model, t[None, None], written | True, written) for t in found]
            nats = torch.tensor(alone, dtype=torch.float64)
        without = without if results else nats
        results.append(
            CacheQuality(
                cache,
                torch.tensor(times).median().item(),
                (found == texts[0])[written.expand_as(found)].double().mean().item(),
                nats.mean().item(),
                nats.std().item() / num_texts**0.5,
                (nats - without).mean().item(),
                (nats - without).std().item() / num_texts**0.5,
                found,
            )
        )
    return results


def _check_caches(model: MaskGitForMaskedLM, caches: Sequence[Mapping[str, Any]]) -> None:
    if not caches:
        raise ValueError("There is no cache to compare; give options of one for each.")
    for cache in caches:
        others = [name for name in cache if name not in _OF_A_CACHE]
        if others:
            raise ValueError(
                f"`{others[0]}` is no option of a cache; they are {', '.join(_OF_A_CACHE)}."
            )
    fault = why_no_twin(model)
    if fault:
        raise ValueError(f"This model has no attention cache to compare: {fault}.")


def _now(device: torch.device) -> float:
    """Return the time in seconds: on a CPU that of this process, whatever else it works on."""
    if device.type == "cpu":
        return time.process_time()
    torch.accelerator.synchronize()
    return time.perf_counter()
