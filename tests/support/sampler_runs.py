"""Many rows at once through `fill_masks` with an oracle for a denoiser."""

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

from hf_maskgit.core.decoding import Filled, fill_masks
from hf_maskgit.core.decoding_state import DecodingState
from hf_maskgit.core.sampler import Sampler
from hf_maskgit.core.sampler_choices import resolve_choices
from hf_maskgit.core.schedules import get_schedule
from tests.support.oracles_sampling import Oracle


def run(
    oracle: Oracle,
    samples: int,
    *,
    seed: int = 0,
    known: dict[int, int] | None = None,
    keyed_noise: bool = False,
    on_masks: Callable[[int, torch.Tensor], None] | None = None,
    **options: Any,
) -> Filled:
    """Sample texts with the options of `generate`, temperature 1 and no annealing unless asked.

    Args:
        oracle: denoiser and critic.
        samples: rows.
        seed: of all the noise.
        known: symbols by place that are given.
        keyed_noise: draw the noise as `generate` does, from one stream per row and pass. Otherwise
            it is one block of uniforms per pass, which is ten times faster.
        on_masks: called after each pass with its number and where the masks are, (samples, L) bool.
        **options: fields of `Sampler`, and `p2_planner`.
    """
    text = torch.full((samples, oracle.length), oracle.mask)
    for place, symbol in (known or {}).items():
        text[:, place] = symbol
    masked = text == oracle.mask
    settings: dict[str, Any] = {"steps": oracle.length, "anneal_temperature": False, **options}
    settings["schedule"] = get_schedule(settings.get("schedule", "linear"))
    asked = [settings.pop(name, None) for name in ("order", "pace", "remask")]
    choices = resolve_choices(*asked, settings.pop("p2_planner", "self"))
    sampler = Sampler(
        mask_token_id=oracle.mask,
        suppressed=torch.tensor([oracle.mask]),
        end_ids=torch.tensor([], dtype=torch.long),
        **choices._asdict(),
        **settings,
    )
    generator = torch.Generator().manual_seed(seed)

    def noise(seeds: torch.Tensor, lengths: torch.Tensor, width: int, count: int) -> Any:
        def one_block(rows: torch.Tensor, step: int) -> torch.Tensor:
            return torch.rand(len(rows), width, count, generator=generator, dtype=torch.float64)

        return SimpleNamespace(of=one_block)

    def look(step: int, state: DecodingState) -> None:
        if on_masks is not None:
            on_masks(step, state.masked)

    replaced = mock.patch("hf_maskgit.core.decoding.RowNoise", noise)
    with nullcontext() if keyed_noise else replaced:
        return fill_masks(
            oracle.logits_fn,
            DecodingState.start(text, masked, masked, sampler.block_length),
            torch.full((samples,), oracle.length),
            sampler,
            range(seed, seed + samples),
            critic_fn=oracle.critic_fn if choices.order == "critic" else None,
            on_step_end=look,
        )
