"""What bounds of many texts say of a corpus: a mean with its errors, and two models compared.

Two errors are told apart. The *masking* error would vanish with ever more maskings of the same
texts; the *text* error would vanish with ever more texts like these. What is said of these very
texts has the first alone; what is said of the texts they were drawn from has both.
"""

import math
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from ..core.options import Option, check
from .bound import NelboOutput

_CONFIDENCE = Option("Of an interval.", 0.95, low=0, high=1, open_low=True, open_high=True)


@dataclass(frozen=True)
class CorpusEstimate:
    """A quantity per unit (a token, a character), over all texts together, with its errors.

    Attributes:
        value: sum over the texts divided by the sum of their units.
        masking_std_error: of these very texts, by the maskings that were drawn.
        text_std_error: by which texts were drawn, masking error taken off; None for one text.
        std_error: both together; None for one text.
        num_texts: that it rests on.
    """

    value: float
    masking_std_error: float
    text_std_error: float | None
    std_error: float | None
    num_texts: int

    def interval(self, confidence: float = 0.95, errors: str = "both") -> tuple[float, float]:
        """Return the normal confidence interval.

        Args:
            confidence: that it holds the expectation, in (0, 1); approached with many texts.
            errors: "both" for the texts that these were drawn from, "maskings" for these very ones.

        Raises:
            ValueError: for values out of their range, and for both errors of a single text.
        """
        check("confidence", confidence, _CONFIDENCE)
        if errors not in ("both", "maskings"):
            raise ValueError(f"`errors` must be 'both' or 'maskings', got {errors!r}.")
        error = self.masking_std_error if errors == "maskings" else self.std_error
        if error is None:
            raise ValueError(
                "One text does not tell how much texts differ; measure more of them, or ask for "
                "errors='maskings'."
            )
        reach = NormalDist().inv_cdf((1 + confidence) / 2) * error
        return self.value - reach, self.value + reach

    def figures(self) -> dict[str, Any]:
        """Return all of it by name, with the 95 % interval where texts tell one, for JSON."""
        interval = None if self.std_error is None else list(self.interval())
        return {**asdict(self), "interval_95": interval}


def per_unit(nats: Tensor, masking_errors: Tensor, units: Tensor) -> CorpusEstimate:
    """Divide the nats of all texts by all their units, with the errors of that ratio.

    The texts may have any number of units, so that this is a ratio of two means. Its variance over
    texts is that of the residuals nats - value * units (Cochran, Sampling Techniques, eq. 6.13).

    Args:
        nats: (B,) float64, an estimate for each text.
        masking_errors: (B,) float64, its Monte-Carlo standard error.
        units: (B,) tokens, characters or bytes, above 0 in sum.
    """
    units = units.double()
    count, total = len(nats), float(units.sum())
    value = float(nats.sum()) / total
    masking = float(masking_errors.square().sum().sqrt()) / total
    if count == 1:
        return CorpusEstimate(value, masking, None, None, 1)
    residuals = nats - value * units
    both = math.sqrt(count / (count - 1) * float(residuals.square().sum())) / total
    # The spread of the estimates holds the masking error already.
    texts = math.sqrt(max(0.0, both**2 - masking**2))
    return CorpusEstimate(value, masking, texts, max(both, masking), count)


def per_token(bound: NelboOutput) -> CorpusEstimate:
    """Return the bound in nats per maskable token of a corpus, with its errors."""
    return per_unit(bound.nats, bound.std_error, bound.num_tokens)


def corpus_figures(
    bound: NelboOutput, units: tuple[Tensor, Tensor] | None = None
) -> dict[str, dict[str, Any]]:
    """Name a bound per token, and per character and byte where they were counted, with errors.

    Args:
        bound: of every text.
        units: from `text_units`.
    """
    found = {"nats_per_token": per_token(bound)}
    if units is not None:
        bits = bound.nats / math.log(2), bound.std_error / math.log(2)
        found["bits_per_character"] = per_unit(*bits, units[0])
        found["bits_per_byte"] = per_unit(*bits, units[1])
    return {name: estimate.figures() for name, estimate in found.items()}


@dataclass(frozen=True)
class Comparison:
    """Two models on the same texts under the same masks: model minus baseline, below 0 is better.

    Attributes:
        nats_per_token: the difference of the bounds, with its errors.
        nats: (B,) float64, the difference of each text.
        std_error: (B,) float64, its Monte-Carlo standard error under common masks.
    """

    nats_per_token: CorpusEstimate
    nats: Tensor
    std_error: Tensor

    @property
    def share_better(self) -> float:
        """Share of the texts on which the estimate of the model is the lower one; ties count half.

        It is of estimates: where most errors are as large as the differences it says little.
        """
        return float((self.nats < 0).double().mean() + (self.nats == 0).double().mean() / 2)


def compare_bounds(model: NelboOutput, baseline: NelboOutput) -> Comparison:
    """Compare two models text by text.

    Where both met the same masks (same texts, seed, batch size and number of maskings), most of
    the masking error is common to both, and the difference is far better known than either bound.

    Args:
        model: its bounds, from `evaluate_nelbo` or `nelbo`.
        baseline: those of the other.

    Raises:
        ValueError: for bounds of other texts, or of other numbers of maskings.
    """
    if not torch.equal(model.num_tokens, baseline.num_tokens):
        raise ValueError(
            "The two were measured on different texts, or read them as different tokens; measure "
            "both on the same examples."
        )
    if model.pairs is None or baseline.pairs is None:
        raise ValueError("A bound without its `pairs` of maskings cannot be compared in pairs.")
    if model.pairs.shape != baseline.pairs.shape:
        raise ValueError(
            f"The two were measured with {2 * model.pairs.shape[1]} and "
            f"{2 * baseline.pairs.shape[1]} maskings per text; common masks need equal numbers."
        )
    pairs = model.pairs - baseline.pairs
    nats, error = pairs.mean(1), pairs.std(1) / math.sqrt(pairs.shape[1])
    return Comparison(per_unit(nats, error, model.num_tokens), nats, error)
