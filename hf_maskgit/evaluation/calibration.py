"""Calibration: whether a token that is predicted with 80 % is right in 80 % of the cases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..core.argument_checks import check_whole
from ..core.losses import forbid
from ..core.text_bound import forbidden_ids
from .batches import EvaluatedGenerator, evaluation_generator, predicting
from .benchmark_report import figure_class_of_matplotlib

NUM_BINS = 15  # as Guo et al., arXiv 1706.04599
_INCHES, _DOTS_PER_INCH = (4.6, 4.4), 110
_FEWEST_SHOWN = 10  # predictions of a bin that is drawn: of fewer the share says nothing


@dataclass(frozen=True)
class Calibration:
    """Predictions of masked tokens, sorted by their confidence: the largest probability.

    Attributes:
        count: (K,) long, predictions in each of K equally wide bins of (0, 1].
        right: (K,) long, those of them whose likeliest token is the true one.
        confidence: (K,) float64, the sum of their confidences.
    """

    count: Tensor
    right: Tensor
    confidence: Tensor

    @property
    def total(self) -> int:
        """Predictions in all bins."""
        return int(self.count.sum())

    @property
    def accuracy(self) -> float:
        """Share of the predictions that are right."""
        return int(self.right.sum()) / self.total

    @property
    def mean_confidence(self) -> float:
        """Mean of the confidences; above the accuracy where a model is too sure of itself."""
        return float(self.confidence.sum()) / self.total

    @property
    def expected_error(self) -> float:
        """Expected calibration error (ECE), in [0, 1] (Guo et al., arXiv 1706.04599, eq. 3).

        The mean over predictions of |accuracy - mean confidence| of their bin. Chance alone gives
        more than 0, the more so the fewer predictions there are.
        """
        return float((self.right - self.confidence).abs().sum()) / self.total

    @classmethod
    def of(cls, confidence: Tensor, right: Tensor, num_bins: int = NUM_BINS) -> "Calibration":
        """Sort predictions into bins.

        Args:
            confidence: (N,) in (0, 1].
            right: (N,) bool.
            num_bins: K.
        """
        confidence = confidence.double().cpu()
        # A bin holds its upper edge, so that 1 is in the last one.
        bins = (confidence * num_bins).ceil().long().clamp(1, num_bins) - 1
        return cls(
            torch.bincount(bins, minlength=num_bins),
            torch.bincount(bins[right.cpu()], minlength=num_bins),
            torch.zeros(num_bins, dtype=torch.float64).index_add_(0, bins, confidence),
        )

    @classmethod
    def add(cls, parts: Sequence["Calibration"]) -> "Calibration":
        """Put predictions together."""
        return cls(
            *(
                torch.stack([getattr(part, name) for part in parts]).sum(0)
                for name in ("count", "right", "confidence")
            )
        )


@torch.no_grad()
def calibration(
    model: EvaluatedGenerator,
    texts: Sequence[Any],
    tokenizer: PreTrainedTokenizerBase,
    *,
    mask_rates: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
    num_bins: int = NUM_BINS,
    batch_size: int = 32,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    progress: bool = True,
    self_condition: bool | None = None,
    max_unknown_share: float | None = None,
    share: tuple[int, int] = (0, 1),
) -> dict[float, Calibration]:
    """Measure how well confidences tell what is right, by the share of tokens that is hidden.

    Args:
        model: a `MaskGitForMaskedLM`.
        texts: as for `masked_accuracy`, and so are the others.
        tokenizer: its padding.
        mask_rates: fractions of the maskable tokens to hide, each in (0, 1]; at least one is
            hidden.
        num_bins: equally wide bins of the confidence, at least 1.
        batch_size: texts per pass.
        seed: of the masks; 0 where there is no `generator` either.
        generator: draws the masks, instead of `seed`.
        progress: show a progress bar.
        self_condition: see `nelbo`.
        max_unknown_share: see `evaluate_nelbo`.
        share: of the batches, see `evaluate_nelbo`; what the shares find adds up.

    Returns:
        By mask rate; the accuracy is that of `masked_accuracy` under the same seed.

    Raises:
        ValueError: as `masked_accuracy`, and for `num_bins` below 1.
    """
    check_whole("num_bins", num_bins, least=1)
    parts: dict[float, list[Calibration]] = {rate: [] for rate in mask_rates}
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
        share=share,
    ) as predictions:
        for batch, rate, chosen, logits in predictions:
            if not batch.in_share:
                continue
            most, likeliest = forbid(logits, forbidden).softmax(-1).max(-1)
            right = likeliest == batch.input_ids[chosen]
            parts[rate].append(Calibration.of(most, right, num_bins))
    return {rate: Calibration.add(found) for rate, found in parts.items()}


def draw_reliability(found: Mapping[str, Calibration], path: Path) -> Path:
    """Draw the share of right predictions over their confidence; the diagonal is perfect.

    Args:
        found: what was measured, by the name that it bears in the picture.
        path: of the picture; its ending says of which kind.

    Raises:
        ImportError: when matplotlib is not installed.
    """
    figure = figure_class_of_matplotlib()(figsize=_INCHES, layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle="--")
    for name, one in found.items():
        shown = one.count >= _FEWEST_SHOWN
        confidence = one.confidence[shown] / one.count[shown]
        accuracy = one.right[shown] / one.count[shown]
        # two standard errors of a share
        reach = 2 * (accuracy * (1 - accuracy) / one.count[shown]).sqrt()
        label = f"{name}: ECE {one.expected_error:.3f}"
        axes.errorbar(
            confidence.tolist(), accuracy.tolist(), yerr=reach.tolist(), marker=".", label=label
        )
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="share that is right")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=_DOTS_PER_INCH)
    return path
