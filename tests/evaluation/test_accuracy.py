"""Accuracy: counted by hand, at the share of tokens asked for."""

import pytest
from scipy import stats

from hf_maskgit.evaluation import masked_accuracy
from tests.support.oracles import MASK
from tests.support.table_texts import TEXT, examples, framed_denoiser


def accuracy(denoiser, texts, tokenizer, rates, **options):
    return masked_accuracy(
        denoiser, examples(*texts), tokenizer, mask_rates=rates, progress=False, **options
    )


def test_accuracy_is_the_share_of_hidden_tokens_that_are_the_likeliest(tokenizer):
    always_b = framed_denoiser([0.2, 0.5, 0.3])
    rates = (0.25, 0.5, 1.0)
    assert accuracy(always_b, [(1, 1, 1, 1), (1,)], tokenizer, rates) == dict.fromkeys(rates, 1.0)
    assert accuracy(always_b, [(0, 2, 2, 0)], tokenizer, rates) == dict.fromkeys(rates, 0.0)
    everything = accuracy(always_b, [(1, 0, 1, 2), (1, 1)], tokenizer, (1.0,))
    assert everything == {1.0: pytest.approx(4 / 6)}


def test_the_share_hidden_is_the_mask_rate_and_at_least_one(tokenizer):
    """Read off the inputs of the denoiser: texts of 4 and of 1 words."""
    denoiser, hidden = framed_denoiser(), []
    denoiser.register_forward_pre_hook(lambda _, args: hidden.append((args[0] == MASK).sum(1)))
    accuracy(denoiser, [TEXT, (1,)], tokenizer, (0.1, 0.5, 0.75, 1.0))
    found = [sorted(counts.tolist()) for counts in hidden]
    assert found == [[1, 1], [1, 2], [1, 3], [1, 4]]


@pytest.mark.wide
def test_hidden_words_are_chosen_uniformly(tokenizer):
    """False alarm: p < 1e-6. Of the 4 words only the first is predicted right."""
    texts = [(1, 0, 2, 0)] * 2000
    always_b = framed_denoiser([0.2, 0.5, 0.3])
    found = accuracy(always_b, texts, tokenizer, (0.5,), batch_size=500)[0.5]
    right = round(found * 4000)
    assert right == pytest.approx(found * 4000)
    assert stats.binomtest(right, 2000, 0.5).pvalue > 1e-6


@pytest.mark.parametrize("rate", [0.0, -0.5, 1.01])
def test_a_mask_rate_outside_its_range_is_refused(tokenizer, rate):
    with pytest.raises(ValueError, match=rf"Every mask rate must lie in \(0, 1\], got {rate}"):
        accuracy(framed_denoiser(), [TEXT], tokenizer, (0.5, rate))
