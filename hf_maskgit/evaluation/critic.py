"""How well a token critic tells right tokens from wrong ones of the same text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..core.finite import check_critic_scores
from ..core.modeling_maskgit import MaskGitForMaskedLM
from ..core.options import TEMPERATURE, check
from ..core.text_bound import forbidden_ids
from ..core.token_critic import fill_in
from .batches import evaluation_generator, predicting


@dataclass(frozen=True)
class CriticAuroc:
    """How well a token critic tells right tokens from wrong ones of the same text.

    Attributes:
        wins: pairs of a right and a wrong token of one text in which the right one has the higher
            score; a tie counts half.
        num_pairs: all such pairs.
        num_tokens: tokens that were judged.
        num_wrong: how many of them were wrong.
    """

    wins: float
    num_pairs: int
    num_tokens: int
    num_wrong: int

    @property
    def auroc(self) -> float:
        """Share of the pairs in which the right token has the higher score; 0.5 is chance."""
        if not self.num_pairs:
            raise ValueError(
                "No text has both a right and a wrong token, so there is nothing to tell apart. "
                "Measure on more texts, or at another mask rate or temperature."
            )
        return self.wins / self.num_pairs

    @classmethod
    def add(cls, parts: Sequence["CriticAuroc"]) -> "CriticAuroc":
        """Join what was found on several batches."""
        return cls(
            sum(part.wins for part in parts),
            sum(part.num_pairs for part in parts),
            sum(part.num_tokens for part in parts),
            sum(part.num_wrong for part in parts),
        )


@torch.no_grad()
def critic_auroc(
    model: MaskGitForMaskedLM,
    texts: Sequence[Any],
    tokenizer: PreTrainedTokenizerBase,
    *,
    mask_rate: float = 0.5,
    temperature: float = 1.0,
    batch_size: int = 32,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    progress: bool = True,
    self_condition: bool | None = None,
    max_unknown_share: float | None = None,
    share: tuple[int, int] = (0, 1),
) -> CriticAuroc:
    """Measure how well the token critic finds the tokens that the denoiser got wrong.

    A share of each text is masked, the denoiser fills it in one step, and the critic scores the
    filled text (Token-Critic, arXiv 2209.04439, section 3.1). Only filled tokens of one text are
    compared with each other: that some texts are harder, or that most tokens were never masked,
    must not count for the critic.

    Args:
        model: with a token critic.
        texts: examples with `input_ids` (framed).
        tokenizer: its padding.
        mask_rate: fraction of the maskable tokens to fill, in (0, 1]; at least one is.
        temperature: of the denoiser's draws, above 0.
        batch_size: texts per pass.
        seed: of masks and draws; 0 where there is no `generator` either, and torch's global
            generator is not touched.
        generator: draws masks and tokens, instead of `seed`.
        progress: show a progress bar, in a log a line now and then.
        self_condition: see `nelbo`.
        max_unknown_share: see `evaluate_nelbo`, and so for `share`.
        share: of the batches; what the shares find adds up to what the whole does.

    Returns:
        What was found, over all texts or those of the share.

    Raises:
        ValueError: for a model without a critic, a value out of its range, or logits and scores
            that are not finite.
    """
    check("temperature", temperature, TEMPERATURE)
    if not model.has_token_critic:
        raise ValueError(
            "The model has no token critic to measure; train one with token_critic='self' or "
            "'separate'."
        )
    generator = evaluation_generator(seed, generator)
    forbidden = forbidden_ids(model.config)
    parts = []
    with predicting(
        model,
        texts,
        tokenizer,
        [mask_rate],
        generator,
        batch_size=batch_size,
        progress=progress,
        self_condition=self_condition,
        max_unknown_share=max_unknown_share,
        share=share,
    ) as predictions:
        for batch, _, chosen, logits in predictions:
            if not batch.in_share:
                torch.rand(len(logits), generator=generator, device=generator.device)  # `fill_in`'s
                continue
            ids = batch.input_ids
            filled = fill_in(logits, ids, chosen, forbidden, temperature, generator)
            # A token that the denoiser drew right is right: what it means to the critic is only
            # whether it differs from the truth, as in its training.
            scores = model.score_tokens(filled, batch.attention_mask, chosen)
            check_critic_scores(scores)
            parts.append(_compare(scores, (filled == ids)[chosen], chosen.nonzero()[:, 0]))
    return CriticAuroc.add(parts)


def _compare(scores: Tensor, right: Tensor, rows: Tensor) -> CriticAuroc:
    """Compare right with wrong tokens of the same row.

    One row with the scores right 3, right 1, wrong 1 has two pairs: a win, and a tie that counts
    half, so 1.5 wins of 2.

    Args:
        scores: (N,) float, higher where the critic takes a token for right.
        right: (N,) bool.
        rows: (N,) long, the text each token stands in.
    """
    wins, num_pairs = 0.0, 0  # sums over texts: one with more pairs has the greater say
    for row in rows.unique():
        of_right, of_wrong = (scores[(rows == row) & kind] for kind in (right, ~right))
        lead = (of_right[:, None] - of_wrong).sign()  # (right, wrong): 1, 0 for a tie, or -1
        wins += float((lead + 1).sum() / 2)
        num_pairs += lead.numel()
    return CriticAuroc(wins, num_pairs, len(scores), int((~right).sum()))
