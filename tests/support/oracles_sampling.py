"""A denoiser that knows its law exactly, and how samples are judged; no code of the library."""

import itertools
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from scipy import stats
from torch import Tensor


@dataclass(frozen=True)
class HiddenMarkovChain:
    """A law over texts: a hidden state moves from place to place, each emits a symbol.

    Attributes:
        initial: (H,) float64, probabilities of the first hidden state.
        transition: (H, H) float64, of the next hidden state (column) given this one (row).
        emission: (H, K) float64, of the symbol (column) given the hidden state (row).
    """

    initial: Tensor
    transition: Tensor
    emission: Tensor

    @property
    def num_symbols(self) -> int:
        """K; as an id, K is the mask."""
        return self.emission.shape[1]

    def texts(self, length: int) -> Tensor:
        """Every text of that length, (K ** length, length) long, last symbol running fastest."""
        return all_rows(self.num_symbols, length)

    def law(self, length: int) -> Tensor:
        """Probability of each of `texts`, by adding up every path of hidden states."""
        texts, total = self.texts(length), torch.zeros(self.num_symbols**length).double()
        for path in all_rows(len(self.initial), length):
            moves = self.transition[path[:-1], path[1:]].prod()
            total += self.initial[path[0]] * moves * self.emission[path, texts].prod(1)
        return total

    def posteriors(self, revealed: Tensor) -> Tensor:
        """Law of each symbol given the *other* revealed ones, by the forward-backward recursion.

        At a hidden place that is what an exact denoiser says. At a visible place masked diffusion
        defines no law; here it is that of the symbol if it alone were hidden, the best that a
        denoiser trained with BERT-style corruption can say.

        Args:
            revealed: (R, L) long, symbols where known, K where hidden.

        Returns:
            (R, L, K) float64.
        """
        length = revealed.shape[1]
        nothing = torch.ones(len(self.initial), 1, dtype=torch.float64)
        likelihood = torch.cat([self.emission, nothing], 1).T[revealed]  # (R, L, H)
        before = [self.initial.expand(len(revealed), -1)]  # of the state, by what stands left of it
        behind = [torch.ones(len(revealed), len(self.initial), dtype=torch.float64)]
        for place in range(1, length):
            before.append((before[-1] * likelihood[:, place - 1]) @ self.transition)
            behind.append((behind[-1] * likelihood[:, length - place]) @ self.transition.T)
        states = torch.stack(before, 1) * torch.stack(behind[::-1], 1)
        symbols = states @ self.emission
        return symbols / symbols.sum(-1, keepdim=True)


@dataclass(frozen=True)
class Oracle:
    """Denoiser and critic of a chain for texts of one length, looked up in a table.

    Attributes:
        chain: the law.
        length: L.
        logits: ((K + 1) ** L, L, K) float64: at every place of every text with any masks.
    """

    chain: HiddenMarkovChain
    length: int
    logits: Tensor

    @classmethod
    def exact(cls, chain: HiddenMarkovChain, length: int) -> "Oracle":
        """Make the denoiser that knows the chain."""
        texts = all_rows(chain.num_symbols + 1, length)
        return cls(chain, length, chain.posteriors(texts).log())

    def flattened(self, power: float) -> "Oracle":
        """Make a wrong denoiser: the exact laws to a power below 1, as if too hot."""
        return replace(self, logits=self.logits * power)

    def noisy(self, scale: float, seed: int = 0) -> "Oracle":
        """Make a wrong denoiser: Gaussian noise on every logit, fixed for each text and place."""
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(self.logits.shape, generator=generator, dtype=torch.float64)
        return replace(self, logits=self.logits + scale * noise)

    @property
    def mask(self) -> int:
        """The id of the mask."""
        return self.chain.num_symbols

    @cached_property
    def law(self) -> Tensor:
        """Probability of each text in the order of `text_frequencies`."""
        return self.chain.law(self.length)

    def logits_fn(self, rows: Tensor, text: Tensor, positions: Tensor) -> Tensor:
        """The denoiser, as `fill_masks` calls it; it believes that the mask cannot be emitted."""
        where = positions.nonzero()
        logits = self.logits[number_of(text, self.mask + 1)[where[:, 0]], where[:, 1]]
        return torch.cat([logits, torch.full((len(logits), 1), -torch.inf)], 1)

    def critic_fn(self, rows: Tensor, text: Tensor, positions: Tensor) -> Tensor:
        """The exact critic: log-odds of the token that stands there given all the others.

        It is always the chain's, also where the denoiser is wrong.
        """
        where = positions.nonzero()
        law = self.chain.posteriors(text)[where[:, 0], where[:, 1]]
        right = law.gather(1, text[positions][:, None]).squeeze(1)
        return right.logit()


# Two hidden states that like to stay, and three symbols that half give them away: all places at
# once, each from its own marginal, are 0.53 of total variation away from this law at 6 places.
CHAIN = HiddenMarkovChain(
    initial=torch.tensor([0.6, 0.4], dtype=torch.float64),
    transition=torch.tensor([[0.95, 0.05], [0.06, 0.94]], dtype=torch.float64),
    emission=torch.tensor([[0.8, 0.15, 0.05], [0.05, 0.2, 0.75]], dtype=torch.float64),
)


def all_rows(size: int, length: int) -> Tensor:
    """Every row of that length over `size` values, (size ** length, length) long, in order."""
    return torch.tensor(list(itertools.product(range(size), repeat=length)))


def number_of(rows: Tensor, size: int) -> Tensor:
    """Tell which of `all_rows` each row is, (R, L) -> (R,)."""
    return (rows * size ** torch.arange(rows.shape[1] - 1, -1, -1)).sum(1)


def text_frequencies(texts: Tensor, num_symbols: int) -> np.ndarray:
    """Count how often each possible text came out, in the order of `HiddenMarkovChain.texts`."""
    counts = torch.bincount(number_of(texts, num_symbols), minlength=num_symbols ** texts.shape[1])
    return counts.numpy()


def chi_square(observed: np.ndarray, law: np.ndarray) -> float:
    """P-value of Pearson's test that the counts come from that law; rare cells are pooled."""
    law = np.asarray(law, dtype=np.float64)
    expected = law / law.sum() * np.sum(observed)
    rare = expected < 5
    if rare.any():
        observed = np.append(np.asarray(observed)[~rare], np.asarray(observed)[rare].sum())
        expected = np.append(expected[~rare], expected[rare].sum())
    return float(stats.chisquare(observed, expected).pvalue)


def total_variation(observed: np.ndarray, law: np.ndarray) -> float:
    """Half the summed distance between frequencies and law: 0 equal, 1 disjoint."""
    return float(np.abs(observed / observed.sum() - np.asarray(law)).sum() / 2)


def total_variation_of_noise(law: np.ndarray, samples: int) -> tuple[float, float]:
    """Mean and standard deviation of `total_variation` between a law and samples of its own."""
    counts = np.random.default_rng(0).multinomial(samples, law / np.sum(law), size=300)
    distances = np.abs(counts / samples - np.asarray(law)).sum(1) / 2
    return float(distances.mean()), float(distances.std())
