"""Counting: against counts made by hand."""

import math

import pytest

from hf_maskgit.evaluation import (
    evaluate_nelbo,
    evaluate_unigram,
    text_statistics,
    unigram_cross_entropy,
)
from tests.support.tiny import tiny_model, word_tokenizer


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


@pytest.mark.parametrize("framed", [True, False])
@pytest.mark.parametrize("prompt", [0, 2])
def test_a_unigram_is_measured_on_the_tokens_that_the_bound_is_measured_on(framed, prompt):
    """Texts over 39 ordinary words and the unknown token; a prompt, and [CLS] where it is no frame,
    have no cost."""
    model = tiny_model(**({} if framed else {"prefix_ids": None, "suffix_ids": None}))
    given = {"maskable": [0] * prompt + [1] * (5 - prompt)} if prompt else {}
    train = [{"input_ids": [2, 8, 8, 7, 3], **given}, {"input_ids": [8, 9, 3]}]
    held_out = [{"input_ids": [2, 8, 9, 7, 3], **given}, {"input_ids": [9, 9]}]
    config, end = model.config, [] if framed else [3]
    num_ordinary = config.get_text_config().vocab_size - len(config.forbidden_token_ids)
    rest = slice(max(prompt, 1), 4)
    bodies = [
        [[*[2, 8, 8, 7][rest], *end], [8, 9, *end]],
        [[*[2, 8, 9, 7][rest], *end], [9, 9]],
    ]
    bound = evaluate_nelbo(model, held_out, word_tokenizer(), progress=False)
    assert bound.num_tokens.tolist() == [len(ids) for ids in bodies[1]]
    found = evaluate_unigram(config, train, held_out)
    assert found == unigram_cross_entropy(*bodies, num_ordinary)
