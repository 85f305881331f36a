"""Denoisers that are no network but a function that knows its law, and samplers on them.

Nothing is trained: what goes wrong is the doing of the sampler alone. Temperature 1, no annealing,
no noise on the order.

Letters: R rows, L length, N positions, V ids of texts, of which the mask is the next one.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..core.decoding import Filled, fill_masks
from ..core.decoding_state import DecodingState
from ..core.noise import mix
from ..core.options import options_of
from ..core.sampler import Sampler
from ..core.sampler_choices import resolve_choices
from ..core.sampler_orders import ORDERS
from ..core.schedules import get_schedule

# Rows, texts (R, L), positions (R, L) bool -> log-probabilities (N, V + 1); -inf at the mask.
TableDenoiser = Callable[[Tensor, Tensor, Tensor], Tensor]


def plain_sampler(mask_token_id: int, options: Mapping[str, Any]) -> Sampler:
    """Complete the options of a sampler.

    Args:
        mask_token_id: V.
        options: of `generate`: `order`, `pace`, and what they read.

    Raises:
        ValueError: for other options, choices that do not go together, or an order that asks a
            second network.
    """
    known = {*options_of(Sampler), "schedule"} - {"remask"}
    strange = sorted(set(options) - known)
    if strange:
        raise ValueError(
            "A law that is known is sampled by `order`, `pace` and what they read, and "
            f"`{strange[0]}` is none of these; leave it out, or ask a model."
        )
    rest = dict(options)
    choices = resolve_choices(rest.pop("order", None), rest.pop("pace", None), None)
    if ORDERS[choices.order].asks_critic:
        raise ValueError(
            f"order={choices.order!r} asks a second network, whose law is not the task's; choose "
            "another order."
        )
    return Sampler(
        mask_token_id=mask_token_id,
        suppressed=torch.tensor([mask_token_id]),
        end_ids=torch.tensor([], dtype=torch.long),
        **{
            "anneal_temperature": False,
            "choice_temperature": 0.0,
            **rest,
            "schedule": get_schedule(rest.get("schedule", "linear")),
        },
        **choices._asdict(),
    )


def fill_by(denoiser: TableDenoiser, text: Tensor, sampler: Sampler, seed: int = 0) -> Filled:
    """Fill the masks of texts (R, L) long, each row from a stream of its own."""
    masked = text == sampler.mask_token_id
    return fill_masks(
        denoiser,
        DecodingState.start(text, masked, masked, sampler.block_length),
        torch.full((len(text),), text.shape[1]),
        sampler,
        [mix(seed, row) for row in range(len(text))],
    )
