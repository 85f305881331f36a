"""Counting: against counts made by hand."""

import math

import pytest

from hf_maskgit.evaluation import text_statistics, unigram_cross_entropy


def test_the_unigram_cross_entropy_is_that_of_counting_by_hand():
    train, held_out = [[5, 5], [6]], [[5, 7], [6]]
    # With one pseudo-count each: 5 has 3 of 6, 6 has 2 of 6, 7 has 1 of 6.
    found = unigram_cross_entropy(train, held_out, num_ordinary=3)
    assert found == pytest.approx(-math.log(3 / 6 * 1 / 6 * 2 / 6) / 3)
    # With half a pseudo-count: 2.5, 1.5 and 0.5 of 4.5.
    found = unigram_cross_entropy(train, held_out, num_ordinary=3, smoothing=0.5)
    assert found == pytest.approx(-math.log(2.5 * 0.5 * 1.5 / 4.5**3) / 3)
    assert unigram_cross_entropy([], held_out, num_ordinary=8) == pytest.approx(math.log(8))


def test_repetition_is_that_of_counting_by_hand():
    found = text_statistics(["a b a b", "The the the", "c"])
    # Word pairs: ab ba ab | the-the twice; distinct words: 2 of 4, 1 of 3, 1 of 1.
    assert found.repeated_bigrams == pytest.approx((1 + 1) / (3 + 2))
    assert found.distinct_words == pytest.approx((2 / 4 + 1 / 3 + 1) / 3)
    assert text_statistics(["x y z", ""]).repeated_bigrams == 0
    assert text_statistics(["one"]) == text_statistics(["two"])


@pytest.mark.parametrize("texts", [[], ["", "  "]])
def test_texts_without_words_have_no_statistics(texts):
    with pytest.raises(ValueError, match="There is no text with words to measure"):
        text_statistics(texts)


def test_a_unigram_needs_something_to_be_measured_on():
    with pytest.raises(ValueError, match="held"):
        unigram_cross_entropy([[5]], [[], []], num_ordinary=3)
