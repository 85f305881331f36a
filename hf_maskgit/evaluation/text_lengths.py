"""How well the lengths of written texts agree with those of real ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.configuration_maskgit import MaskGitConfig
from ..core.decoding_layout import ends_with, starts_with


@dataclass(frozen=True)
class LengthDistance:
    """How far two samples of lengths lie apart.

    Attributes:
        distance: Kolmogorov and Smirnov's statistic, the greatest difference between the shares of
            texts that are at most so long, over all lengths: 0 where the two samples agree, 1 where
            all of one are shorter than all of the other.
        noise: what `distance` two samples of these sizes of one law exceed in 5 of 100 cases
            (asymptotic; fewer where lengths are often equal).
    """

    distance: float
    noise: float


def length_distance(written: Sequence[int], real: Sequence[int]) -> LengthDistance:
    """Measure how far the lengths of written texts lie from those of real ones.

    Args:
        written: lengths in tokens.
        real: the same.

    Raises:
        ValueError: where one of the two has none.
    """
    samples = [torch.as_tensor(sample).sort().values for sample in (written, real)]
    if not all(map(len, samples)):
        raise ValueError("There is no length to compare; give at least one on either side.")
    every = torch.cat(samples)
    shares = [
        torch.searchsorted(sample, every, right=True).double() / len(sample) for sample in samples
    ]
    n, m = map(len, samples)
    # the 95 % quantile of Kolmogorov's law is 1.358
    return LengthDistance(
        float((shares[0] - shares[1]).abs().max()), 1.358 * ((n + m) / (n * m)) ** 0.5
    )


def written_lengths(
    config: MaskGitConfig, sequences: Tensor, attention_mask: Tensor | None = None
) -> list[int]:
    """Count the tokens of texts up to their first end, without framing and padding.

    Args:
        config: knows what frames, ends and pads a text.
        sequences: (B, L) long, as `generate` returns them.
        attention_mask: (B, L), 1 at real tokens; None tells padding by its id, where the
            model has one.

    Returns:
        One number per text.
    """
    if attention_mask is not None:
        real = attention_mask.bool()
    elif config.pad_token_id is None:
        real = torch.ones_like(sequences, dtype=torch.bool)
    else:
        real = sequences != config.pad_token_id
    prefix, suffix = config.prefix_ids or [], config.suffix_ids or []
    begins = starts_with(sequences, real, prefix) * len(prefix)
    closes = ends_with(sequences, real, suffix) * len(suffix)
    place = real.cumsum(1)  # of a real token in its text, from 1
    text = real & (place > begins[:, None]) & (place <= (real.sum(1) - closes)[:, None])
    ends = text & torch.isin(sequences, torch.tensor(config.end_token_ids).to(sequences))
    return (text & (ends.cumsum(1) == 0)).sum(1).tolist()
