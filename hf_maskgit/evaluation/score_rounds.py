"""Rounds of maskings of one sequence, drawn until its score is known as well as asked for."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..core.losses import cross_entropy
from ..core.noise import keyed_generator
from ..core.text_bound import forbidden_ids, predict_masked, sampled_masks
from .batches import EvaluatedGenerator
from .bound import Rows

ROUND = 8  # maskings of one round: one of every eighth of (0, 1], see `antithetic_fractions`
ROUNDS = 8  # independent rounds drawn together; after them one can plan by their spread
BLOCK = ROUND * ROUNDS  # maskings
_HEADROOM = 1.1  # more of them than the spread asks for, which is itself an estimate
_STREAM = 0x73636F7265  # tells this noise from that of other measures under the same seed


class MaskedCosts:
    """One sequence and what predicts it: its costs under masks, in batches.

    Args:
        model: predicts.
        row: the sequence alone, B = 1.
        batch_size: masked sequences per pass.
        twice: whether a second pass predicts.
    """

    def __init__(self, model: EvaluatedGenerator, row: Rows, batch_size: int, twice: bool) -> None:
        self.model, self.batch_size, self.twice = model, batch_size, twice
        self.ids, self.real, self.judged = row.input_ids, row.attention_mask, row.judged
        self.where = row.judged[0].nonzero()[:, 0]
        self._blocks: dict[int, Tensor] = {}  # a wild type meets the same with every mutant

    def costs(self, masks: Tensor) -> Tensor:
        """Return -log p of each masked token by masking, 0 elsewhere.

        Args:
            masks: (M, L) bool.

        Returns:
            (M, n) float64 at the judged positions, on the CPU.
        """
        found = []
        for chosen in masks.split(self.batch_size):
            ids = self.ids.expand(len(chosen), -1)
            real = self.real.expand(len(chosen), -1)
            logits = predict_masked(self.model, ids, real, chosen, self.twice)
            cost = torch.zeros(chosen.shape, dtype=torch.float64, device=chosen.device)
            nats = cross_entropy(logits, ids[chosen], forbidden_ids(self.model.config))
            cost[chosen] = nats.double()
            found.append(cost[:, self.where].cpu())
        return torch.cat(found)

    def block(self, number: int, seed: int) -> Tensor:
        """Estimate the share of each token in the bound by each of 8 rounds, (8, n) float64."""
        if number not in self._blocks:
            generator = keyed_generator(_STREAM, seed, number)
            masks = list(sampled_masks(self.judged.expand(ROUNDS, -1), ROUND, generator))
            together = torch.cat(masks)  # masking by masking, of each all rounds
            weights = len(self.where) / together.sum(1).double().cpu()  # n / k
            shares = self.costs(together) * weights[:, None]
            self._blocks[number] = shares.view(ROUND, ROUNDS, -1).mean(0)
        return self._blocks[number]

    def conditional(self) -> Tensor:
        """Return -log p(token | all others), (n,) float64."""
        masks = torch.zeros(len(self.where), self.ids.shape[1], dtype=torch.bool)
        masks = masks.to(self.ids.device)
        masks[torch.arange(len(self.where)), self.where] = True
        return self.costs(masks).diagonal()

    def marginal(self) -> Tensor:
        """Return -log p(token | none of the others), (n,) float64."""
        return self.costs(self.judged)[0]


def drawn_until(
    estimate: Callable[[int], Tensor], std_error: float, max_maskings: int
) -> tuple[Tensor, float]:
    """Draw blocks of rounds, which are independent, until their mean is known well enough.

    Args:
        estimate: of each share by the rounds of the block of a number, (8, n) float64.
        std_error: of the sum of the shares, asked for.
        max_maskings: most of them.

    Returns:
        (R, n) all rounds, and the standard error of the sum of their mean.
    """
    most, wanted = max_maskings // BLOCK, 1
    blocks: list[Tensor] = []
    while True:
        blocks += [estimate(i) for i in range(len(blocks), wanted)]
        rounds = torch.cat(blocks)
        sums = rounds.sum(1)
        error = float(sums.std()) / math.sqrt(len(sums))
        if error <= std_error or len(blocks) >= most:
            return rounds, error
        asked = math.ceil(_HEADROOM * len(blocks) * (error / std_error) ** 2)
        wanted = min(most, max(asked, len(blocks) + 1))
