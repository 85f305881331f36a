"""Sliding windows judge every token once, and add up to the chain rule."""

import numpy as np
import pytest
import torch

from hf_maskgit.evaluation import evaluate_nelbo, windowed
from hf_maskgit.evaluation.windows import sliding_windows
from tests.support.oracles import (
    CLS,
    FIRST_WORD,
    SEP,
    TableDenoiser,
    bound,
    word_piece_tokenizer,
)


@pytest.mark.parametrize("num_tokens", [1, 3, 4, 5, 9, 10])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_every_token_is_judged_once_with_what_fits_before_it(num_tokens, stride):
    windows = list(sliding_windows(num_tokens, 4, stride))
    assert [i for _, first, stop in windows for i in range(first, stop)] == list(range(num_tokens))
    for start, first, stop in windows:
        assert stop - start == min(4, num_tokens)
        assert first == 0 or first - start >= 4 - stride


@pytest.mark.wide
def test_the_bound_of_a_long_text_is_the_sum_of_its_pieces():
    """By enumeration; 6 tokens in windows of 4 that move by 2. 5 standard errors: 6e-7."""
    denoiser, text = TableDenoiser.inconsistent(framed=True), (0, 2, 1, 1, 0, 2)
    bodies = [{"input_ids": [FIRST_WORD + token for token in text]}, {"input_ids": [5, 6, 7, 5]}]
    cut = windowed(bodies, [CLS], [SEP], max_length=6, stride=2)
    assert cut.text_of.tolist() == [0, 0, 1]
    assert cut.examples[1] == {"input_ids": [CLS, 6, 6, 5, 7, SEP], "maskable": [1, 0, 0, 1, 1, 1]}
    of_windows = evaluate_nelbo(
        denoiser, cut.examples, word_piece_tokenizer("abc"), num_samples=800, progress=False
    )
    found = cut.summed(of_windows)
    expected = bound(denoiser, text[:4]) + bound(denoiser, text[2:], (2, 3))
    assert found.num_tokens.tolist() == [6, 4]
    assert abs(float(found.nats[0]) - expected) < 5 * float(found.std_error[0])
    assert found.pairs.mean(1).tolist() == pytest.approx(found.nats.tolist())


def test_windows_of_a_long_prompt_are_left_out():
    bodies = [{"input_ids": list(range(5, 15)), "maskable": [0] * 7 + [1] * 3}]
    cut = windowed(bodies, [CLS], [SEP], max_length=6, stride=4)
    assert [one["input_ids"][1:-1] for one in cut.examples] == [[9, 10, 11, 12], [11, 12, 13, 14]]
    assert [one["maskable"][1:-1] for one in cut.examples] == [[0, 0, 0, 1], [0, 0, 1, 1]]


def test_columns_of_arrays_are_as_good_as_lists_and_are_as_long_as_the_text():
    body = {"input_ids": list(range(5, 15)), "maskable": [0] * 7 + [1] * 3}
    how = {"max_length": 6, "stride": 4}
    arrays = {name: np.array(column) for name, column in body.items()}
    expected = windowed([body, {"input_ids": [5, 6]}], [CLS], [SEP], **how)
    found = windowed([arrays, {"input_ids": torch.tensor([5, 6])}], [CLS], [SEP], **how)
    assert found.examples == expected.examples
    with pytest.raises(ValueError, match="`maskable` has 9 entries for a text of 10 tokens"):
        windowed([{**body, "maskable": body["maskable"][1:]}], [CLS], [SEP], **how)


def test_a_stride_beyond_the_window_is_refused():
    with pytest.raises(ValueError, match="`window_stride` is 5 tokens, but a window of 6 holds 4"):
        windowed([], [CLS], [SEP], max_length=6, stride=5)
    with pytest.raises(ValueError, match="window_stride"):
        windowed([], [CLS], [SEP], max_length=6, stride=0)
