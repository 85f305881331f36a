"""Variety and copies of texts, by hand and by slow search."""

import math
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_maskgit.evaluation.text_variety import (
    copied_ngrams,
    distinct_ngrams,
    self_bleu,
    split_units,
    unit_entropy,
)


def words(*texts):
    return [text.split() for text in texts]


def test_units_are_words_or_characters():
    assert split_units(" C C(=O)\n") == ["C", "C(=O)"]
    assert split_units(" C C(=O)\n", by_characters=True) == list("CC(=O)")


def test_distinct_ngrams_by_hand():
    texts = words("a b a b", "a b c")
    assert distinct_ngrams(texts, 1) == 3 / 7
    assert distinct_ngrams(texts, 2) == 3 / 5  # ab ba ab, ab bc
    assert distinct_ngrams(texts, 4) == 1
    assert math.isnan(distinct_ngrams(texts, 5))


def test_entropy_by_hand():
    assert unit_entropy("aaaa") == 0
    assert unit_entropy("abab") == pytest.approx(math.log(2))
    assert unit_entropy("aaab") == pytest.approx(math.log(4) - 0.75 * math.log(3))


def test_self_bleu_by_hand():
    pytest.importorskip("sacrebleu")
    assert self_bleu(words("a b c d e", "a b c d e")) == pytest.approx(1)
    # Of "a b c d e" against "a b c d x": 4/5, 3/4, 2/3, 1/2 of its n-grams; geometric mean of 0.2.
    assert self_bleu(words("a b c d e", "a b c d x")) == pytest.approx(0.2**0.25)
    # As long as the closest other text, or a penalty of exp(1 - 5/4) for four units beside five.
    both = self_bleu(words("a b c d", "a b c d e"))
    assert both == pytest.approx((math.exp(1 - 5 / 4) + 0.2**0.25) / 2)


def test_self_bleu_says_what_it_needs(monkeypatch):
    with pytest.raises(ValueError, match=r"compares each text with the others; there is 1\."):
        self_bleu(words("a b"))
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics.bleu", None)
    with pytest.raises(ImportError, match=r"pip install 'hf_maskgit\[quality\]'"):
        self_bleu(words("a b", "c"))


def test_copies_by_hand():
    train = words("in the beginning was the word", "the end")
    found = copied_ngrams(words("in the beginning the end", "the end", "new", ""), train)
    assert found.longest == [3, 2, 0, 0]  # "the end" lies in one training text, "the the" in none
    assert found.whole == 1 / 4
    with pytest.raises(ValueError, match="nothing to compare"):
        copied_ngrams([], train)
    with pytest.raises(ValueError, match="nothing to compare"):
        copied_ngrams(train, [])


_TEXTS = st.lists(st.text("abc", max_size=9), min_size=1, max_size=6)


@pytest.mark.wide
@settings(max_examples=60, deadline=None)
@given(_TEXTS, _TEXTS)
def test_the_longest_copy_is_what_a_search_through_all_substrings_finds(texts, train):
    def longest(text):
        parts = (text[i:j] for i in range(len(text)) for j in range(i, len(text) + 1))
        return max((len(part) for part in parts if any(part in one for one in train)), default=0)

    found = copied_ngrams(texts, train)
    assert found.longest == [longest(text) for text in texts]
    assert found.whole == sum(text in train for text in texts) / len(texts)


def test_many_long_copies_are_found_exactly():
    generator = torch.Generator().manual_seed(0)
    train = torch.randint(50, (2000, 30), generator=generator).tolist()
    texts = [[99, *train[7][3:25], 99], train[11]]
    assert copied_ngrams(texts, train).longest == [22, 30]
