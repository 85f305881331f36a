"""How the losses of an update are weighed: by the bound, or by weights that are no bound.

The weight w of a chosen token is that of the bound on the likelihood (`core.masking`), or

    clipped      w limited to a band: texts of which little or much is masked count no more, or no
                 less, than others. Block diffusion (BD3-LM, arXiv 2503.09573, section 5) limits the
                 times for the same reason, that the loss varies less.
    confidence   w (1 + p), p the probability that the model gives the true token as it learns,
                 without a gradient of its own. Where a sampler reveals the surest tokens first,
                 these are the predictions it asks for (the idea of PAPL, arXiv 2509.23405, with p
                 itself in the place of a planner's distribution over the masked positions).

With the latter two the loss of training is no bound; what evaluations measure is.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..core.configuration_maskgit import MaskGitConfig
from ..core.losses import cross_entropy, weighted_sum

logger = logging.getLogger(__name__)


class Weighting(NamedTuple):
    """One way to weigh.

    Attributes:
        told: what it does, as the end of a sentence.
        is_bound: whether the loss of training then estimates the bound.
        clips: whether weights are limited to `clip_weights`.
        follows_confidence: whether they follow the model's probability of the true token.
    """

    told: str
    is_bound: bool = False
    clips: bool = False
    follows_confidence: bool = False


WEIGHTINGS = {
    "bound": Weighting("as the model's own options say", is_bound=True),
    "clipped": Weighting("these weights limited to `clip_weights`", clips=True),
    "confidence": Weighting(
        "these weights times 1 + the probability of the true token", follows_confidence=True
    ),
}


def check_weighting(name: str, clip_weights: Sequence[float] | None, train: str) -> None:
    """Refuse a weighting that there is none of, and what does not go with it.

    Args:
        name: of the weighting.
        clip_weights: lowest and highest weight, or None.
        train: which part learns.

    Raises:
        ValueError: saying what there is.
    """
    if name not in WEIGHTINGS:
        raise ValueError(f"`loss_weighting` must be one of {', '.join(WEIGHTINGS)}, got {name!r}.")
    weighting = WEIGHTINGS[name]
    if weighting.clips != (clip_weights is not None):
        raise ValueError(
            "`clip_weights` and loss_weighting='clipped' go together: name the lowest and the "
            "highest weight, such as --clip_weights 1 4, or leave both out."
        )
    if clip_weights is not None and not (
        len(clip_weights) == 2
        and 0 <= clip_weights[0] <= clip_weights[1] < float("inf")
        and clip_weights[1] > 0
    ):
        raise ValueError(
            "`clip_weights` takes two numbers, the lowest weight, at least 0, and the highest, got "
            f"{' '.join(map(str, clip_weights))}."
        )
    if not weighting.is_bound and train == "critic":
        raise ValueError(
            f"loss_weighting={name!r} weighs the loss of the denoiser, which is not taken with "
            "train='critic'; leave one of the two out."
        )


class Weigher:
    """Weigh the losses of a micro-batch.

    Args:
        weighting: a row of `WEIGHTINGS`.
        clip_weights: lowest and highest weight, where it clips.
        forbidden_token_ids: ids that the model can never emit, where it follows the confidence.
    """

    def __init__(
        self,
        weighting: Weighting,
        clip_weights: Sequence[float] | None = None,
        forbidden_token_ids: Sequence[int] = (),
    ) -> None:
        self.weighting, self.band = weighting, clip_weights
        self._forbidden = torch.tensor(list(forbidden_token_ids), dtype=torch.long)

    def weigh(self, batch: dict[str, Tensor]) -> None:
        """Replace `loss_weights` (B, L) of a batch at its `masked_positions` (B, L) bool."""
        if self.weighting.clips and self.band is not None:
            limited = batch["loss_weights"].clamp(*self.band)
            batch["loss_weights"] = limited * batch["masked_positions"]

    def losses(self, batch: Mapping[str, Tensor], output: Any, count: Tensor) -> dict[str, Tensor]:
        """Return the losses of a pass by name, of the names that it has.

        Args:
            batch: as it was passed.
            output: of the model, with `logits` (N, V) at the chosen positions.
            count: what the losses are divided by.
        """
        names = ("loss", "denoiser_loss", "critic_loss")
        found = {name: getattr(output, name) for name in names}
        losses = {name: loss for name, loss in found.items() if loss is not None}
        if self.weighting.follows_confidence:
            chosen = batch["masked_positions"]
            nll = cross_entropy(output.logits, batch["labels"][chosen], self._forbidden)
            probability = nll.detach().neg().exp()
            more = weighted_sum(nll, batch["loss_weights"][chosen] * probability) / count
            for name in ("loss", "denoiser_loss"):
                losses[name] = losses[name] + more
        return losses


def weigher_of(
    config: MaskGitConfig, name: str, clip_weights: Sequence[float] | None = None
) -> Weigher:
    """Make what weighs the losses of a run; where that is not by the bound, a warning says so.

    Args:
        config: of the model.
        name: of the weighting.
        clip_weights: lowest and highest weight, where it clips.

    Raises:
        ValueError: for weights to limit that are all 1.
    """
    weighting = WEIGHTINGS[name]
    if weighting.clips and not config.weighs_by_time:
        raise ValueError(
            "loss_weighting='clipped' limits weights, and with use_simple_mdlm_loss_weight=False "
            "all of them are 1; leave one of the two out."
        )
    if not weighting.is_bound:
        logger.warning(
            "With loss_weighting=%r (%s) the loss of training is no bound on the likelihood; what "
            "evaluations measure is.",
            name,
            weighting.told,
        )
    return Weigher(weighting, clip_weights, config.forbidden_token_ids)


BY_THE_BOUND = Weigher(WEIGHTINGS["bound"])
