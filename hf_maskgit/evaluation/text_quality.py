"""The quality of a set of texts in one row of numbers, the same for written and for real ones."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from .counting import text_statistics
from .judges import FEWEST_FOR_MAUVE, CausalJudge, Featuriser, mauve
from .text_lengths import length_distance
from .text_variety import copied_ngrams, distinct_ngrams, self_bleu, split_units

TEXTS_OF_SELF_BLEU = 200  # its work grows with their square; the first ones are taken

# What a row may hold, in the order of the table, and what the column is called there.
MEASURES: Mapping[str, str] = {
    "passes": "passes",
    "perplexity": "perplexity",
    "token_entropy": "token entropy",
    "nats_per_character": "nats per character",
    "mauve": "MAUVE",
    "mauve_star": "MAUVE*",
    "distinct_1": "distinct-1",
    "distinct_2": "distinct-2",
    "distinct_3": "distinct-3",
    "self_bleu": "self-BLEU",
    "repeated_bigrams": "repeated bigrams",
    "longest_copy": "longest copy",
    "copied_share": "share of it",
    "whole_copies": "whole copies",
    "mean_length": "length",
    "length_distance": "distance of lengths",
    "length_noise": "noise of it",
}


class TextMeter:
    """Measures sets of texts against the same references.

    Args:
        reference: real texts, for the lengths and MAUVE.
        training: texts that were trained on, for what is copied; None leaves it out.
        judge: for the perplexity; None leaves it out, and the entropy with it.
        featuriser: for MAUVE; None leaves it out.
        by_characters: a unit is a character; False takes words.

    Raises:
        ValueError: without a reference, or with too few for MAUVE.
    """

    def __init__(
        self,
        reference: Sequence[str],
        training: Sequence[str] | None = None,
        judge: CausalJudge | None = None,
        featuriser: Featuriser | None = None,
        by_characters: bool = False,
    ) -> None:
        if not reference:
            raise ValueError("There is no real text to compare with.")
        if featuriser is not None and len(reference) < FEWEST_FOR_MAUVE:
            raise ValueError(
                f"MAUVE needs {FEWEST_FOR_MAUVE} texts on either side, and {len(reference)} real "
                "ones are to be compared with; take more, or leave the featuriser out."
            )
        self._by_characters, self._judge, self._featuriser = by_characters, judge, featuriser
        self._lengths = list(map(len, self._units(reference)))
        self._training = None if training is None else self._units(training)
        self._features = None if featuriser is None else featuriser.features(reference)

    def measure(self, texts: Sequence[str]) -> dict[str, Any]:
        """Return the numbers of `MEASURES` but for the passes, as far as they were asked for.

        Args:
            texts: at least two; lengths, n-grams and copies are in units.
        """
        units = self._units(texts)
        spread = [" ".join(text) for text in units]
        lengths = list(map(len, units))
        lengths_apart = length_distance(lengths, self._lengths)
        found: dict[str, Any] = {
            "num_texts": len(texts),
            **{f"distinct_{n}": distinct_ngrams(units, n) for n in (1, 2, 3)},
            "self_bleu": self_bleu(units[:TEXTS_OF_SELF_BLEU]),
            "repeated_bigrams": text_statistics(spread, ignore_case=False).repeated_bigrams,
            "mean_length": fmean(lengths),
            "length_distance": lengths_apart.distance,
            "length_noise": lengths_apart.noise,
        }
        if self._training is not None:
            copies = copied_ngrams(units, self._training)
            found["longest_copy"] = fmean(copies.longest)
            found["copied_share"] = sum(copies.longest) / max(1, sum(lengths))
            found["whole_copies"] = copies.whole
        if self._judge is not None:
            found.update(vars(self._judge.judge(texts)))
        if self._featuriser is not None and self._features is not None:
            found.update(mauve(self._featuriser.features(texts), self._features))
        return found

    def _units(self, texts: Sequence[str]) -> list[list[str]]:
        return [split_units(text, self._by_characters) for text in texts]


def halves_of_real(texts: Sequence[str], size: int, seed: int) -> tuple[list[str], list[str]]:
    """Draw two disjoint sets of real texts: one to measure as if written, one to compare with.

    Args:
        texts: real ones.
        size: texts of each set.
        seed: of the draw.

    Raises:
        ValueError: where there are too few.
    """
    if len(texts) < 2 * size:
        raise ValueError(
            f"There are {len(texts):,} real texts, and {2 * size:,} are needed: as many as are "
            "written to compare with, and as many again that are measured like written ones, to "
            "show how good the numbers can be. Write fewer texts, or name more real ones."
        )
    drawn = torch.randperm(len(texts), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen = [texts[place] for place in drawn[: 2 * size]]
    return chosen[:size], chosen[size:]


def read_back(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return texts as a tokenizer gives them back: in its case and with its blanks.

    Written texts are compared with real ones in this form, which is all that a generator can write.
    """
    ids = tokenizer(list(texts))["input_ids"]
    return list(tokenizer.batch_decode(ids, skip_special_tokens=True))
