"""What counting says of many texts: how varied they are, and what they have copied.

A text is a sequence of units: words, characters, or residues. Every number depends on how many
texts there are and how long they are, so compare samples of one size, with real texts beside them.
"""

import math
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.extras import needs

Units = Sequence[Hashable]

_SEPARATOR = -1  # between texts, and equal to nothing


def split_units(text: str, by_characters: bool = False) -> list[str]:
    """Split a text at its blanks, or into its characters without them."""
    words = text.split()
    return list("".join(words)) if by_characters else words


def distinct_ngrams(texts: Sequence[Units], n: int) -> float:
    """Return the different n-grams of all texts over all their n-grams (arXiv 1510.03055).

    Args:
        texts: units of each; an n-gram lies within one text.
        n: units of an n-gram, at least 1.

    Returns:
        A share in (0, 1]; nan where every text is shorter than n.
    """
    grams = [gram for text in texts for gram in _ngrams(text, n)]
    return len(set(grams)) / len(grams) if grams else math.nan


def unit_entropy(text: Units) -> float:
    """Return the entropy in nats of the frequencies of a text's units; 0 for one unit repeated."""
    counts = Counter(text).values()
    return -sum(count / len(text) * math.log(count / len(text)) for count in counts)


def sacrebleu_class() -> Any:
    """Return what computes BLEU.

    Raises:
        ImportError: where sacrebleu is not installed.
    """
    with needs("Self-BLEU is computed by the package sacrebleu", "quality"):
        from sacrebleu.metrics.bleu import BLEU
    return BLEU


def self_bleu(texts: Sequence[Sequence[str]]) -> float:
    """Return the mean BLEU of each text against all others, by sacrebleu: 1 where all are equal.

    Texygen's measure (arXiv 1802.01886) of n-grams of up to four units; shorter texts are measured
    by those that they have (`effective_order`), and a count of none is smoothed as sacrebleu does
    by default. The work grows with the square of the number of texts.

    Args:
        texts: units of each, at least two texts.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: for fewer than two texts.
        ImportError: where sacrebleu is not installed.
    """
    if len(texts) < 2:
        raise ValueError(f"Self-BLEU compares each text with the others; there is {len(texts)}.")
    bleu = sacrebleu_class()(tokenize="none", effective_order=True)
    # A unit may hold anything but a blank, which separates units for sacrebleu.
    joined = [" ".join(text) for text in texts]
    scores = [
        bleu.sentence_score(text, joined[:place] + joined[place + 1 :]).score
        for place, text in enumerate(joined)
    ]
    return sum(scores) / len(scores) / 100


@dataclass(frozen=True)
class Copies:
    """What texts have in common with those that were trained on.

    Attributes:
        longest: of each text the units of its longest n-gram that a training text holds, too.
        whole: share of the texts that are, as a whole, a training text.
    """

    longest: list[int]
    whole: float


def copied_ngrams(texts: Sequence[Units], training_texts: Sequence[Units]) -> Copies:
    """Find the longest n-gram that each text shares with a training text.

    All places of all training texts are looked at for n = 1, those that matched for n = 2, and so
    on: an n-gram that is copied begins with one that is shorter by a unit.

    Args:
        texts: units of each.
        training_texts: the same; an n-gram lies within one text.

    Raises:
        ValueError: where one of the two has none.
    """
    if not texts or not training_texts:
        raise ValueError("There is nothing to compare; give at least one text on either side.")
    numbers: dict[Hashable, int] = {}
    ours, owners = _joined(texts, numbers)
    theirs, _ = _joined(training_texts, numbers)
    longest = np.zeros(len(texts), dtype=np.int64)
    # places where a run begins that matches the other side so far, and which run of n units it is
    our_places, their_places = np.arange(len(ours)), np.arange(len(theirs))
    our_runs, their_runs = np.zeros_like(our_places), np.zeros_like(their_places)
    n = 0
    while len(our_places):
        our_keys = our_runs * len(numbers) + ours[our_places + n]
        their_keys = their_runs * len(numbers) + theirs[their_places + n]
        our_kept = ours[our_places + n] != _SEPARATOR
        their_kept = theirs[their_places + n] != _SEPARATOR
        shared = np.intersect1d(our_keys[our_kept], their_keys[their_kept])
        our_kept &= np.isin(our_keys, shared)
        their_kept &= np.isin(their_keys, shared)
        our_places, their_places = our_places[our_kept], their_places[their_kept]
        our_runs = np.searchsorted(shared, our_keys[our_kept])
        their_runs = np.searchsorted(shared, their_keys[their_kept])
        n += 1
        longest[owners[our_places]] = n
    known = {tuple(text) for text in training_texts}
    return Copies(longest.tolist(), sum(tuple(text) in known for text in texts) / len(texts))


def _ngrams(text: Units, n: int) -> Iterator[tuple[Any, ...]]:
    return zip(*(text[i:] for i in range(n)), strict=False)


def _joined(
    texts: Sequence[Units], numbers: dict[Hashable, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number the units of all texts, a separator behind each; and the text that each is of."""
    ids: list[int] = []
    owners: list[int] = []
    for owner, text in enumerate(texts):
        ids.extend(numbers.setdefault(unit, len(numbers)) for unit in text)
        ids.append(_SEPARATOR)
        owners.extend([owner] * (len(text) + 1))
    return np.asarray(ids, dtype=np.int64), np.asarray(owners, dtype=np.int64)
