"""What counting knows of chorales: how often notes follow each other, and stand below each other.

Two baselines for a generator of grids. *Unigram*: the frequencies of a voice's ids. *Bigram*: a
voice is a Markov chain in time. To fill what is hidden, a chain is conditioned exactly: on what the
voice has before and behind, and, as a hidden Markov model, on a neighbouring voice that is seen.

Letters: W windows, T steps, V ids.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .chorales import VOCAB_SIZE, VOICES

_SMOOTHING = 0.1  # pseudo-count of every id after every other


@dataclass(frozen=True)
class CountedVoices:
    """Counts of training windows, as probabilities; every one is above 0.

    Attributes:
        unigram: (4, V) float64, how often a voice has an id.
        first: (4, V) float64, how often it begins a window.
        follows: (4, V, V) float64, how often the second id comes behind the first.
        beside: (4, V, V) float64, how often the neighbour of a voice has the second id while the
            voice has the first. `NEIGHBOURS` says who that is.
    """

    unigram: Tensor
    first: Tensor
    follows: Tensor
    beside: Tensor


NEIGHBOURS = (3, 0, 3, 0)  # an outer voice tells most: soprano by bass, alto by soprano, and so on


def count_voices(grids: Tensor) -> CountedVoices:
    """Count training windows (W, T, 4) long."""
    unigram, first, follows, beside = [], [], [], []
    for voice in range(len(VOICES)):
        own = grids[..., voice]
        unigram.append(_shares(own.flatten(), own.new_zeros(own.numel()))[0])
        first.append(_shares(own[:, 0], torch.zeros_like(own[:, 0]))[0])
        follows.append(_shares(own[:, 1:].flatten(), own[:, :-1].flatten()))
        beside.append(_shares(grids[..., NEIGHBOURS[voice]].flatten(), own.flatten()))
    return CountedVoices(*map(torch.stack, (unigram, first, follows, beside)))


def counted_nats(counted: CountedVoices, grids: Tensor) -> dict[str, Tensor]:
    """Return -log p of windows (W, T, 4) in nats, (W,) float64 each, by `unigram` and `bigram`."""
    voices = torch.arange(len(VOICES))
    unigram = counted.unigram[voices, grids].log().sum((1, 2))
    steps = counted.follows[voices, grids[:, :-1], grids[:, 1:]].log().sum((1, 2))
    return {
        "unigram": -unigram,
        "bigram": -(counted.first[voices, grids[:, 0]].log().sum(1) + steps),
    }


def most_frequent(counted: CountedVoices, grids: Tensor, hidden: Tensor) -> Tensor:
    """Fill hidden places of windows (W, T, 4) by the most frequent id of their voice.

    Args:
        counted: of training windows.
        grids: (W, T, 4) long.
        hidden: (T, 4) bool.
    """
    return torch.where(hidden, counted.unigram.argmax(-1), grids)


def likeliest_by_chains(counted: CountedVoices, grids: Tensor, hidden: Tensor) -> Tensor:
    """Fill hidden places by the likeliest id of each given the voice's rest and its neighbour.

    Args:
        counted: of training windows.
        grids: (W, T, 4) long; what stands at hidden places is not read.
        hidden: (T, 4) bool; where the neighbour is hidden as well, it tells nothing.
    """
    filled = grids.clone()
    for voice, neighbour in enumerate(NEIGHBOURS):
        mine, theirs = hidden[:, voice], hidden[:, neighbour]
        if not mine.any():
            continue
        seen = functional.one_hot(grids[..., voice], VOCAB_SIZE).double()
        told = counted.beside[voice].T[grids[..., neighbour]]
        told = torch.where(theirs[:, None], torch.ones_like(told), told)
        evidence = torch.where(mine[:, None], told, seen)
        law = chain_marginals(counted.first[voice], counted.follows[voice], evidence)
        filled[..., voice] = torch.where(mine, law.argmax(-1), grids[..., voice])
    return filled


def chain_marginals(first: Tensor, follows: Tensor, evidence: Tensor) -> Tensor:
    """Return the law of every step of a hidden Markov chain, by forward and backward sweeps.

    Args:
        first: (V,) float64, the law of the first step.
        follows: (V, V) float64, of the second id behind the first.
        evidence: (W, T, V) float64, the likelihood of what is seen at each step given each id.

    Returns:
        (W, T, V) float64, each step's sum 1.
    """
    steps = evidence.shape[1]
    forward, backward = [first * evidence[:, 0]], [torch.ones_like(evidence[:, 0])]
    for step in range(1, steps):
        forward.append(_scaled(_scaled(forward[-1]) @ follows * evidence[:, step]))
        backward.append(_scaled((backward[-1] * evidence[:, steps - step]) @ follows.T))
    return _scaled(torch.stack(forward, 1) * torch.stack(backward[::-1], 1))


def _scaled(values: Tensor) -> Tensor:
    # Products of many steps would fall below what a float holds; only proportions count.
    return values / values.sum(-1, keepdim=True)


def _shares(ids: Tensor, given: Tensor) -> Tensor:
    """Return p(id | given id), (V, V) float64, from pairs (N,) each, smoothed."""
    pairs = torch.bincount(given * VOCAB_SIZE + ids, minlength=VOCAB_SIZE * VOCAB_SIZE)
    counts = pairs.double().view(VOCAB_SIZE, VOCAB_SIZE) + _SMOOTHING
    return counts / counts.sum(-1, keepdim=True)
