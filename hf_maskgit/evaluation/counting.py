"""What mere counting says of texts: a unigram model's cross-entropy, and how much they repeat."""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..core.configuration_maskgit import MaskGitConfig
from ..core.row_checks import token_column
from .batches import judged_positions


def unigram_cross_entropy(
    train: Iterable[Sequence[int]],
    held_out: Iterable[Sequence[int]],
    num_ordinary: int,
    smoothing: float = 1.0,
) -> float:
    """Cross-entropy of a smoothed unigram model, the least a model of text has to beat.

    Args:
        train: maskable token ids of each training text.
        held_out: maskable token ids of each held-out text.
        num_ordinary: number of tokens that can be emitted.
        smoothing: pseudo-count added to every token (Lidstone), above 0.

    Returns:
        Nats per held-out token.

    Raises:
        ValueError: when there is no held-out token.
    """
    counts: Counter[int] = Counter()
    for ids in train:
        counts.update(ids)
    # Smoothed, or one held-out token that the training never showed would cost infinitely much.
    total = sum(counts.values()) + smoothing * num_ordinary
    nats, tokens = 0.0, 0
    for ids in held_out:
        nats -= sum(math.log((counts[i] + smoothing) / total) for i in ids)
        tokens += len(ids)
    if tokens == 0:
        raise ValueError("There is no held-out token to measure the unigram model on.")
    return nats / tokens


def evaluate_unigram(
    config: MaskGitConfig,
    train: Iterable[Mapping[str, Any]],
    held_out: Iterable[Mapping[str, Any]],
) -> float:
    """Measure a unigram model of training examples on held-out ones, as the bound is measured.

    Args:
        config: of the generator to compare with: its framing does not count, and its forbidden
            tokens have no probability.
        train: examples with `input_ids`, framed, and `maskable` where some tokens are fixed
            prompts, which do not count either.
        held_out: the same.

    Returns:
        Nats per held-out token.

    Raises:
        ValueError: when there is no held-out token.
    """

    def bodies(examples: Iterable[Mapping[str, Any]]) -> Iterator[list[int]]:
        for example in examples:
            ids, real, allowed = (
                token_column(example, name, 1)[None]
                for name in ("input_ids", "attention_mask", "maskable")
            )
            yield ids[judged_positions(config, ids, real, allowed)].tolist()

    num_ordinary = config.get_text_config().vocab_size - len(config.forbidden_token_ids)
    return unigram_cross_entropy(bodies(train), bodies(held_out), num_ordinary)


@dataclass(frozen=True)
class TextStatistics:
    """How varied texts are.

    Attributes:
        repeated_bigrams: share of the word pairs inside a text that occurred earlier in it, in [0,
            1].
        distinct_words: distinct words of a text over its words, mean over texts, in (0, 1].
    """

    repeated_bigrams: float
    distinct_words: float


def text_statistics(texts: Iterable[str], ignore_case: bool = True) -> TextStatistics:
    """Measure repetition within each of the texts; words are separated by blanks.

    Args:
        texts: at least one with a word.
        ignore_case: take capitals and small letters for the same.

    Raises:
        ValueError: when no text has a word.
    """
    repeated = pairs = 0
    distinct = []
    for text in texts:
        words = (text.lower() if ignore_case else text).split()
        bigrams = list(itertools.pairwise(words))
        repeated += len(bigrams) - len(set(bigrams))
        pairs += len(bigrams)
        if words:
            # Per text: over many texts together this number would fall with how many there are.
            distinct.append(len(set(words)) / len(words))
    if not distinct:
        raise ValueError("There is no text with words to measure.")
    return TextStatistics(repeated / max(pairs, 1), sum(distinct) / len(distinct))
