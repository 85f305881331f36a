"""A denoiser that knows its law exactly, and how samples are judged; no code of the library."""

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor


@dataclass(frozen=True)
class MarkovChain:
    """A law over texts: a first symbol, then each from the one before it.

    Attributes:
        initial: (K,) float64, probabilities of the first symbol.
        transition: (K, K) float64, of the next (column) given this one (row).
    """

    initial: Tensor
    transition: Tensor

    def texts(self, length: int) -> Tensor:
        """Every text of that length, (K ** length, length) long, last symbol running fastest."""
        symbols = range(len(self.initial))
        return torch.tensor(list(itertools.product(symbols, repeat=length)))

    def law(self, length: int) -> Tensor:
        """Probability of each of `texts`, by multiplying along it."""
        texts = self.texts(length)
        steps = self.transition[texts[:, :-1], texts[:, 1:]]
        return self.initial[texts[:, 0]] * steps.prod(1)

    def posteriors(self, revealed: Tensor) -> Tensor:
        """Law of each symbol given the revealed ones, by the forward-backward recursion.

        Args:
            revealed: (R, L) long, symbols where known, anything else where hidden.

        Returns:
            (R, L, K) float64.
        """
        size, length = len(self.initial), revealed.shape[1]
        symbols = torch.arange(size)
        known = (revealed >= 0) & (revealed < size)
        evidence = ((revealed[..., None] == symbols) | ~known[..., None]).double()  # (R, L, K)
        forward = [self.initial * evidence[:, 0]]
        backward = [torch.ones(len(revealed), size, dtype=torch.float64)]
        for place in range(1, length):
            forward.append((forward[-1] @ self.transition) * evidence[:, place])
            later = backward[-1] * evidence[:, length - place]
            backward.append(later @ self.transition.T)
        joint = torch.stack(forward, 1) * torch.stack(backward[::-1], 1)
        return joint / joint.sum(-1, keepdim=True)

    def logits_fn(self, rows: Tensor, text: Tensor, positions: Tensor) -> Tensor:
        """The exact denoiser, as `fill_masks` calls it; the mask is the id behind the symbols."""
        law = self.posteriors(text)[positions]
        return torch.cat([law, torch.zeros(len(law), 1)], 1).log()


CHAIN = MarkovChain(
    initial=torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64),
    transition=torch.tensor(
        [[0.7, 0.2, 0.1], [0.15, 0.6, 0.25], [0.3, 0.1, 0.6]], dtype=torch.float64
    ),
)


def text_frequencies(texts: Tensor, num_symbols: int) -> np.ndarray:
    """Count how often each possible text came out, in the order of `MarkovChain.texts`."""
    length = texts.shape[1]
    powers = num_symbols ** torch.arange(length - 1, -1, -1)
    return torch.bincount((texts * powers).sum(1), minlength=num_symbols**length).numpy()


def chi_square(observed: np.ndarray, law: np.ndarray) -> float:
    """P-value of Pearson's test that the counts come from that law; rare cells are pooled."""
    law = np.asarray(law, dtype=np.float64)
    expected = law / law.sum() * np.sum(observed)
    rare = expected < 5
    if rare.any():
        observed = np.append(np.asarray(observed)[~rare], np.asarray(observed)[rare].sum())
        expected = np.append(expected[~rare], expected[rare].sum())
    return float(stats.chisquare(observed, expected).pvalue)
