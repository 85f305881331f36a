"""The likelihood bound of texts, mask by mask: what `nelbo` measures, and what a blank goes by.

For a text of n maskable tokens the bound is the mean over k = 1..n of (n/k) times the expected
cross-entropy, summed over k positions chosen at random (any-order form of MDLM, arXiv 2406.07524,
eq. 10).
"""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from .configuration_maskgit import MaskGitConfig
from .finite import check_logits
from .losses import cross_entropy
from .masking import maskable_positions
from .modeling_output import by_name
from .noise import keyed_generator
from .sampler_scores import highest

_BOUND_STREAM = 0x626F756E64  # tells this noise from that of `generate` under the same seed
_ROWS = 64  # texts of one pass


def predict_masked(
    model: Any,
    input_ids: Tensor,
    attention_mask: Tensor,
    chosen: Tensor,
    self_condition: bool,
    token_type_ids: Tensor | None = None,
) -> Tensor:
    """Mask the chosen tokens of clean texts and predict them.

    Args:
        model: predicts.
        input_ids: (B, L) long, clean texts.
        attention_mask: (B, L), 1 at real tokens.
        chosen: (B, L) bool, what is masked: every masked token is judged, and only masked ones
            are, which is what makes the weighted cross-entropy a bound.
        self_condition: whether a second pass looks back on the first.
        token_type_ids: (B, L) long, where the encoder knows them.

    Returns:
        (N, V) logits, row by row.

    Raises:
        ValueError: for logits that are not finite.
    """
    shown = input_ids.masked_fill(chosen, cast(int, model.config.mask_token_id))
    # Named only where they are wanted: not every denoiser knows these arguments.
    given: dict[str, Any] = {"self_condition": True} if self_condition else {}
    if token_type_ids is not None:
        given["token_type_ids"] = token_type_ids
    given |= by_name(model.config)
    logits: Tensor = model(shown, attention_mask, masked_positions=chosen, **given).logits
    check_logits(logits)
    return logits


def forbidden_ids(config: MaskGitConfig) -> Tensor:
    """Return the ids that can never be emitted, (K,) long."""
    return torch.tensor(config.forbidden_token_ids, dtype=torch.long)


def sampled_masks(
    judged: Tensor, num_samples: int, generator: torch.Generator | None
) -> Iterator[Tensor]:
    """Yield what to mask in each pass: k = ceil(fraction n) of the n judged tokens of each text.

    Args:
        judged: (B, L) bool, at least one in each row.
        num_samples: passes, an even number.
        generator: draws fractions and tokens; None is torch's global one.

    Yields:
        (B, L) bool.
    """
    num_tokens = judged.sum(1)
    # Drawn where the generator lives, so that a seed on the CPU gives the same masks on any device.
    device = generator.device if generator is not None else None
    for fraction in antithetic_fractions(len(num_tokens), num_samples, generator):
        counts = torch.ceil(fraction.to(num_tokens.device) * num_tokens).long().clamp_min(1)
        noise = torch.rand(judged.shape, generator=generator, device=device)
        yield highest(noise.to(num_tokens.device), judged, counts)


def antithetic_fractions(
    num_texts: int, num_samples: int, generator: torch.Generator | None
) -> Iterator[Tensor]:
    """Yield pairs u, 1 - u of fractions in (0, 1], one stratum of (0, 1/2] per pair.

    Of 8 samples, u falls into (0, 1/8], (1/8, 2/8], (2/8, 3/8], (3/8, 4/8], and each is followed by
    its mirror image in the upper half: together one fraction from every eighth of (0, 1].

    Args:
        num_texts: B.
        num_samples: even.
        generator: draws; None is torch's global one.

    Yields:
        (B,) float64.
    """
    device = generator.device if generator is not None else None
    num_pairs = num_samples // 2
    for stratum in range(num_pairs):
        offset = torch.rand(num_texts, generator=generator, dtype=torch.float64, device=device)
        fraction = (stratum + 1 - offset) / num_samples
        yield fraction
        yield 1 - fraction


def sampled_bound(
    model: Any,
    input_ids: Tensor,
    attention_mask: Tensor,
    judged: Tensor,
    chosen: Tensor,
    self_condition: bool,
    token_type_ids: Tensor | None = None,
) -> Tensor:
    """Estimate the bound of each text from one mask: (n/k) times its summed cross-entropy.

    Args:
        model: predicts.
        input_ids: (B, L) long, clean texts.
        attention_mask: (B, L), 1 at real tokens.
        judged: (B, L) bool, the n tokens of each text that count.
        chosen: (B, L) bool, the k of them that are masked.
        self_condition: whether a second pass predicts.
        token_type_ids: (B, L) long, where the encoder knows them.

    Returns:
        (B,) float64, in nats.
    """
    num_tokens, counts = judged.sum(1), chosen.sum(1)
    logits = predict_masked(
        model, input_ids, attention_mask, chosen, self_condition, token_type_ids
    )
    nll = cross_entropy(logits, input_ids[chosen], forbidden_ids(model.config))  # (N,)
    # In float64: n/k is large where k is small, and a mean over a data set adds up many texts.
    summed = torch.zeros(len(counts), dtype=torch.float64, device=nll.device)
    summed.index_add_(0, chosen.nonzero()[:, 0], nll.double())
    return summed * num_tokens / counts


@torch.no_grad()
def text_bounds(
    model: Any,
    input_ids: Tensor,
    attention_mask: Tensor,
    keys: Sequence[tuple[int, ...]],
    num_samples: int,
    token_type_ids: Tensor | None = None,
) -> Tensor:
    """Estimate the bound of whole texts, each from a random stream of its own.

    Args:
        model: predicts.
        input_ids: (B, L) long, clean texts in their framing, padded on the right.
        attention_mask: (B, L), 1 at real tokens.
        keys: of each text; its estimate depends on its key and on the text alone.
        num_samples: maskings per text, an even number.
        token_type_ids: (B, L) long, where the encoder knows them.

    Returns:
        (B,) float64, in nats; 0 for a text that has no maskable token.
    """
    config, lengths = model.config, attention_mask.sum(1).tolist()
    framing = config.prefix_ids or [], config.suffix_ids or [], config.forbidden_token_ids
    judged = maskable_positions(input_ids, attention_mask, *framing)
    chosen = torch.zeros(num_samples, *judged.shape, dtype=torch.bool, device=judged.device)
    for row, (key, length) in enumerate(zip(keys, lengths, strict=True)):
        generator = keyed_generator(_BOUND_STREAM, *key)
        # as wide as the text alone, so that what stands beside it changes no mask
        own = judged[row : row + 1, :length]
        if bool(own.any()):
            masks = list(sampled_masks(own, num_samples, generator))
            chosen[:, row, :length] = torch.cat(masks)
    total = torch.zeros(len(lengths), dtype=torch.float64, device=judged.device)
    twice = bool(config.self_cond)
    rows = judged.any(1).nonzero()[:, 0]
    for part in rows.split(_ROWS):
        types = None if token_type_ids is None else token_type_ids[part]
        given = input_ids[part], attention_mask[part], judged[part]
        for masks in chosen[:, part]:
            total[part] += sampled_bound(model, *given, masks, twice, types)
    return total / num_samples
