"""The forward process: which positions are hidden, how, and with what weight.

A chosen position is one the loss covers. With pure masking it shows the mask; with BERT-style
corruption it may also keep its token or show a random one. Both ways of choosing have the same
expected weighted loss, the bound on the negative log-likelihood (MDLM, arXiv 2406.07524, eq. 10).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .schedules import Schedule

CHOICES = ("exact_count", "bernoulli")

_EARLIEST = 2.0**-53  # time 0 would weigh infinitely; this is the spacing of float64 below 1


def maskable_positions(
    input_ids: Tensor,
    attention_mask: Tensor,
    prefix_ids: Sequence[int],
    suffix_ids: Sequence[int],
    forbidden_token_ids: Sequence[int],
) -> Tensor:
    """Mark the positions that may be masked: real tokens that do not frame the text.

    Framing goes by the tokenizer's template, not by id: a separator inside a packed block is a
    maskable end of text. Ids that can never be emitted (markers of a chat template, say) stay
    visible.

    Args:
        input_ids: (B, L) long.
        attention_mask: (B, L), 1 at real tokens, which are contiguous in each row.
        prefix_ids: the ids before one text; a text that lacks them has no framing there.
        suffix_ids: the ids behind it, likewise.
        forbidden_token_ids: ids without probability.

    Returns:
        (B, L) bool.
    """
    real = attention_mask.bool()
    maskable = real & ~torch.isin(
        input_ids, torch.as_tensor(list(forbidden_token_ids)).to(input_ids)
    )
    for row, (ids, is_real) in enumerate(zip(input_ids, real, strict=True)):
        where = is_real.nonzero().squeeze(-1)
        text = ids[where].tolist()
        if prefix_ids and text[: len(prefix_ids)] == list(prefix_ids):
            maskable[row, where[: len(prefix_ids)]] = False
        if suffix_ids and text[-len(suffix_ids) :] == list(suffix_ids):
            maskable[row, where[-len(suffix_ids) :]] = False
    return maskable


def exact_counts(times: Tensor, num_maskable: Tensor, schedule: Schedule) -> Tensor:
    """Turn times into numbers of positions to choose.

    Args:
        times: (B,) float64 in (0, 1].
        num_maskable: (B,) long, n >= 1.
        schedule: how much is masked at each time.

    Returns:
        (B,) long, k in 1..n with P(k) = inverse(k/n) - inverse((k-1)/n) when the time is uniform.
    """
    counts = (schedule.mask_rate(times) * num_maskable).ceil().long()
    return torch.minimum(counts.clamp_min(1), num_maskable)


def exact_count_weights(counts: Tensor, num_maskable: Tensor, schedule: Schedule) -> Tensor:
    """Return 1 / (k P(k)), the weight that makes exact counts unbiased; n/k for linear.

    The bound is the mean over k of (n/k) times the summed loss (any-order form of MDLM's eq. 10,
    substitution u = mask_rate(t)); dividing by P(k) corrects for any other law of k.

    Args:
        counts: (B,) long, k in 1..n.
        num_maskable: (B,) long, n.
        schedule: the schedule the counts were drawn with.

    Returns:
        (B,) float64.
    """
    k, n = counts.double(), num_maskable.double()
    probability = schedule.inverse(k / n) - schedule.inverse((k - 1) / n)
    return 1 / (k * probability)


def stratified_times(
    ranks: Tensor, offsets: Tensor, process_index: int = 0, num_processes: int = 1
) -> Tensor:
    """Spread one time per example evenly over (0, 1], one in each stratum of the whole update.

    Args:
        ranks: (B,) long, a permutation of 0..B-1 over this process's examples.
        offsets: (B,) float64 in [0, 1), place within the stratum.
        process_index: this process; its strata interleave with those of the others.
        num_processes: how many processes share the update.

    Returns:
        (B,) float64 in (0, 1].
    """
    strata = ranks * num_processes + process_index
    return (1 - (strata + offsets) / (len(ranks) * num_processes)).clamp_min(_EARLIEST)


def token_column(feature: Mapping[str, Any], name: str, absent: int) -> Tensor:
    """Return a column of an example, one entry per token; `absent` everywhere if it has none.

    Raises:
        ValueError: when it has more or fewer entries than the text has tokens.
    """
    num_tokens = len(feature["input_ids"])
    if name not in feature:
        return torch.full((num_tokens,), absent)
    values = torch.as_tensor(feature[name], dtype=torch.long)
    if len(values) != num_tokens:
        raise ValueError(
            f"`{name}` has {len(values)} entries for a text of {num_tokens} tokens; it needs one "
            "per token."
        )
    return values
