"""How often the likeliest token is the true one, by the share of tokens that is hidden."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ..core.losses import forbid
from ..core.text_bound import forbidden_ids
from .batches import EvaluatedGenerator, evaluation_generator, predicting


@torch.no_grad()
def masked_accuracy(
    model: EvaluatedGenerator,
    texts: Sequence[Any],
    tokenizer: PreTrainedTokenizerBase,
    *,
    mask_rates: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
    batch_size: int = 32,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    progress: bool = True,
    self_condition: bool | None = None,
    max_unknown_share: float | None = None,
) -> dict[float, float]:
    """Measure how often the likeliest token is the masked one.

    Args:
        model: a `MaskGitForMaskedLM`.
        texts: examples with `input_ids` (framed).
        tokenizer: its padding.
        mask_rates: fractions of the maskable tokens to hide, each in (0, 1]; at least one is
            hidden.
        batch_size: texts per pass.
        seed: of the masks; 0 where there is no `generator` either.
        generator: draws the masks, instead of `seed`.
        progress: show a progress bar, in a log a line now and then.
        self_condition: see `nelbo`.
        max_unknown_share: see `evaluate_nelbo`.

    Returns:
        The fraction of hidden tokens predicted right, by mask rate.

    Raises:
        ValueError: for a mask rate out of its range, no text, one that cannot be measured, or
            logits that are not finite.
    """
    right: Counter[float] = Counter()
    total: Counter[float] = Counter()
    forbidden = forbidden_ids(model.config)
    with predicting(
        model,
        texts,
        tokenizer,
        mask_rates,
        evaluation_generator(seed, generator),
        batch_size=batch_size,
        progress=progress,
        self_condition=self_condition,
        max_unknown_share=max_unknown_share,
    ) as predictions:
        for batch, rate, chosen, logits in predictions:
            # An untrained row of the head must not win with an id that no text can hold.
            likeliest = forbid(logits, forbidden).argmax(-1)
            right[rate] += int((likeliest == batch.input_ids[chosen]).sum())
            total[rate] += int(chosen.sum())
    # Over all hidden tokens together: a mean over texts would weigh one of a single word as any.
    return {rate: right[rate] / total[rate] for rate in mask_rates}
