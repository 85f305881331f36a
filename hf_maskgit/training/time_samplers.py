"""How the times of an update are drawn: evenly, or more often where the loss varies more.

The bound is a mean over all numbers k of masked tokens, and an update estimates it from a few of
them. Any density over k gives the same mean, since a loss is divided by how often its k comes up
(`exact_count_weights`); what differs is how much the estimate varies. With stratified times that is
least where k comes up in proportion to the standard deviation of the loss at k (Neyman, 1934). Few
masked tokens vary most: a mean over 2 tokens is rougher than one over 20. The deviations are
measured as the run goes on, over all processes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.losses import IGNORED_LABEL
from ..core.schedules import Schedule
from .document_rows import DocumentRows

_BINS = 16  # of the share of a text that is masked
_MEMORY = 0.99  # of what was measured, left after one more update: the last hundred count
_ENOUGH = 256.0  # texts measured, before which all times are equally likely
_ENOUGH_IN_BIN = 8.0  # texts, for a deviation of its own; other bins lie between their neighbours
_UNIFORM_SHARE = 0.2  # of the density, whatever was measured: no loss weighs over 1 / 0.2 = 5 times

Moments = list[list[float]]


def spread_by_masked_share(batch: Mapping[str, Tensor], nll: Tensor) -> Tensor:
    """Measure by how much the losses of texts vary, by the share of each that is masked.

    Args:
        batch: `masked_positions` (B, L) bool; `labels` (B, L) long; `document_ids` where rows are
            packed. A text without a masked token, as choice='bernoulli' makes some, has no loss and
            does not count.
        nll: (N,) the cross-entropy at each chosen position, in nats.

    Returns:
        (4, 16) float64, sums over the texts of each bin: how many, and of 1, loss and loss squared
        weighted by the square of a text's length, as it enters the variance of an update.
    """
    chosen, maskable = batch["masked_positions"], batch["labels"] != IGNORED_LABEL
    if "document_ids" in batch:
        documents = DocumentRows(batch["document_ids"])
        chosen, maskable = documents.split(chosen), documents.split(maskable)
    summed = torch.zeros(len(chosen), dtype=torch.float64, device=nll.device)
    summed.index_add_(0, chosen.nonzero()[:, 0], nll.double())
    masked = chosen.sum(1)
    counts = masked > 0
    masked, size, loss = masked[counts], maskable.sum(1)[counts], (summed / masked)[counts]
    # k of n stands for the stretch (k - 1)/n ... k/n
    bins = ((masked - 0.5) / size * _BINS).long()
    weight = size.double().square()
    rows = torch.stack([torch.ones_like(loss), weight, weight * loss, weight * loss.square()])
    return torch.zeros(4, _BINS, dtype=torch.float64, device=nll.device).index_add_(1, bins, rows)


def remember(moments: Moments | None, measured: Tensor) -> Moments:
    """Add what one update measured to what earlier ones did, of which a little is forgotten.

    Args:
        moments: from before; None is nothing.
        measured: (4, 16) from `spread_by_masked_share`, summed over all processes.
    """
    before = torch.zeros(4, _BINS) if moments is None else torch.tensor(moments)
    added: Moments = (before.double() * _MEMORY + measured.cpu()).tolist()
    return added


def density_of(moments: Moments | None) -> Tensor:
    """Return how often each share masked comes up, relative to evenly: (16,) float64, mean 1."""
    even = torch.ones(_BINS, dtype=torch.float64)
    if moments is None:
        return even
    count, weight, first, second = torch.tensor(moments, dtype=torch.float64)
    known = (count >= _ENOUGH_IN_BIN).nonzero().squeeze(1)
    if float(count.sum()) < _ENOUGH or len(known) == 0:
        return even
    mean = first[known] / weight[known]
    variance = second[known] / weight[known] - mean.square()
    found = np.interp(range(_BINS), known, variance.clamp_min(0).sqrt())  # level outside
    deviation = torch.from_numpy(found)
    if not float(deviation.sum()) > 0:
        return even
    return _UNIFORM_SHARE + (1 - _UNIFORM_SHARE) * deviation / deviation.mean()


def schedule_of(density: Tensor) -> Schedule:
    """Return the schedule under which even times mask each share as often as the density says.

    Args:
        density: (K,) float64 > 0, mean 1, over K stretches of (0, 1] of equal length.
    """
    # The schedule's inverse is the distribution function: straight within a stretch.
    shares = torch.linspace(0, 1, len(density) + 1, dtype=torch.float64)
    times = torch.cat([shares[:1], density.cumsum(0) / density.sum()])
    times[-1] = 1.0
    return Schedule(_straight(times, shares), inverse=_straight(shares, times))


def are_moments(moments: Any) -> bool:
    """Tell whether a checkpoint's value is what `remember` returns, or None."""
    if moments is None:
        return True
    rows = moments if isinstance(moments, list) and len(moments) == 4 else [None]
    return all(
        isinstance(row, list)
        and len(row) == _BINS
        and all(isinstance(number, float) and 0 <= number < float("inf") for number in row)
        for row in rows
    )


def _straight(at: Tensor, to: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the function that is straight between the points (at, to), each (K + 1,) float64."""

    def through(values: Tensor) -> Tensor:
        x, y = at.to(values), to.to(values)
        piece = torch.bucketize(values.detach(), x[1:-1], right=True)
        slope = (y[piece + 1] - y[piece]) / (x[piece + 1] - x[piece])
        return y[piece] + (values - x[piece]) * slope

    return through


@dataclass(frozen=True)
class TimeSampler:
    """How the times of an update are drawn.

    Attributes:
        adapts: whether it follows what was measured.
    """

    adapts: bool

    def schedule(self, moments: Moments | None) -> Schedule | None:
        """Return the schedule to draw from; None is the model's own."""
        return schedule_of(density_of(moments)) if self.adapts else None

    @property
    def measure(self) -> Callable[[Mapping[str, Tensor], Tensor], Tensor] | None:
        """What to measure of each micro-batch: a function of it and its cross-entropies."""
        return spread_by_masked_share if self.adapts else None


TIME_SAMPLERS: dict[str, TimeSampler] = {
    "uniform": TimeSampler(adapts=False),
    "importance": TimeSampler(adapts=True),
}
