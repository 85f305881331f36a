"""Evaluation: the bound against its enumeration, accuracy, baselines, and what is left alone."""

import math

import numpy as np
import pytest
import torch
from datasets import Dataset
from scipy import stats

from hf_maskgit import nelbo
from hf_maskgit.evaluation import (
    NelboOutput,
    evaluate_nelbo,
    masked_accuracy,
    text_statistics,
    unigram_cross_entropy,
)
from tests.support.oracles import (
    CLS,
    FIRST_WORD,
    MASK,
    PAD,
    SEP,
    TableDenoiser,
    all_texts,
    bound,
    negative_log_likelihood,
    word_piece_tokenizer,
)
from tests.support.tiny import tiny_model
from tests.support.tiny import word_tokenizer as tiny_tokenizer

TEXT = (0, 2, 1, 1)
TEXTS_OF_ALL_LENGTHS = [(0, 1, 2, 0), (1,), (2, 2, 1), (0, 2), (1, 1, 1, 1), (2,), (0, 0)]
UNIFORM = [1 / 3] * 3


def ids(*texts, framed=False):
    """Token ids of texts of equal length."""
    rows = [[FIRST_WORD + token for token in text] for text in texts]
    return torch.tensor([[CLS, *row, SEP] for row in rows] if framed else rows)


def examples(*texts):
    """Framed examples of any lengths."""
    return [{"input_ids": ids(text, framed=True)[0].tolist()} for text in texts]


def keyed(seed=0):
    return torch.Generator().manual_seed(seed)


def framed_denoiser(probabilities=UNIFORM):
    return TableDenoiser.context_free(probabilities, [1, 2, 3, 4], framed=True)


@pytest.fixture
def tokenizer():
    return word_piece_tokenizer("abc")


def test_nelbo_is_the_mean_over_the_orders_within_its_standard_errors():
    """All 81 texts of length 4. The seed is fixed; another raises a false alarm with odds of 0.5 %
    for one of the 81 texts, and 6e-5 for their mean."""
    denoiser, texts = TableDenoiser.inconsistent(), all_texts(3, 4)
    expected = torch.tensor([bound(denoiser, text) for text in texts], dtype=torch.float64)
    found = nelbo(denoiser, ids(*texts), num_samples=400, generator=keyed())
    assert found.nats.dtype == torch.float64
    assert found.num_tokens.tolist() == [4] * 81
    assert float(((found.nats - expected).abs() / found.std_error).max()) < 4
    mean = float(expected.sum()) / (4 * 81)
    assert abs(found.nats_per_token - mean) < 4 * found.nats_per_token_std_error
    assert found.nats_per_token_std_error < 0.01 * mean  # power


def test_the_expectation_of_nelbo_is_at_least_the_negative_log_likelihood():
    """By enumeration for all texts, with equality for the conditionals of a joint law.

    For the text with the widest gap also by 400,000 passes; false alarm: 5 standard errors, 6e-7.
    """
    denoiser, texts = TableDenoiser.inconsistent(), all_texts(3, 4)
    gaps = [bound(denoiser, text) - negative_log_likelihood(denoiser, text) for text in texts]
    assert min(gaps) >= 0
    assert np.mean(gaps) > 0.1
    widest = texts[int(np.argmax(gaps))]
    rows = ids(widest).expand(50_000, -1)
    nats = nelbo(denoiser, rows, num_samples=8, generator=keyed()).nats
    error = float(nats.std()) / math.sqrt(len(nats))
    assert abs(float(nats.mean()) - bound(denoiser, widest)) < 5 * error
    assert float(nats.mean()) - negative_log_likelihood(denoiser, widest) > 20 * error

    joint = np.random.default_rng(1).dirichlet(np.ones(27)).reshape(3, 3, 3)
    consistent = TableDenoiser.consistent(joint)
    for text in all_texts(3, 3):
        assert bound(consistent, text) == pytest.approx(-math.log(joint[text]), rel=1e-9)


@pytest.mark.parametrize("num_samples", [4, 8, 40])
def test_the_standard_error_is_no_smaller_than_the_spread_of_the_estimates(num_samples):
    """Over 4000 estimates, whose spread is known to about 2 %; pairs of different strata make the
    standard error err to the safe side, by a third at most here."""
    rows = ids(TEXT).expand(4000, -1)
    found = nelbo(TableDenoiser.inconsistent(), rows, num_samples=num_samples, generator=keyed())
    ratio = float(found.std_error.square().mean().sqrt() / found.nats.std())
    assert 0.95 < ratio < 1.5


def test_independent_uniform_tokens_cost_the_logarithm_of_their_number_in_every_sample():
    found = nelbo(TableDenoiser.context_free(UNIFORM, [4]), ids(TEXT, TEXT), num_samples=4)
    assert found.nats.tolist() == pytest.approx([4 * math.log(3)] * 2, rel=1e-12)
    assert found.std_error.tolist() == pytest.approx([0, 0], abs=1e-12)
    assert found.nats_per_token == pytest.approx(math.log(3))
    assert found.bits_per_token == pytest.approx(math.log2(3))
    assert found.perplexity == pytest.approx(3)


@pytest.mark.parametrize("padding", ["left", "right"])
def test_framing_and_padding_cost_nothing(padding):
    """Texts of 2, 3 and 4 tokens against their own orders. False alarm: 3 times 6e-5."""
    denoiser = TableDenoiser.inconsistent(lengths=[2, 3, 4], framed=True)
    texts = [(1, 2), (0, 0, 1), TEXT]
    rows, masks = [], []
    for text in texts:
        real, gap = ids(text, framed=True)[0].tolist(), 4 - len(text)
        rows.append([PAD] * gap + real if padding == "left" else real + [PAD] * gap)
        masks.append([int(token != PAD) for token in rows[-1]])
    found = nelbo(
        denoiser, torch.tensor(rows), torch.tensor(masks), num_samples=400, generator=keyed()
    )
    expected = torch.tensor([bound(denoiser, text) for text in texts])
    assert found.num_tokens.tolist() == [2, 3, 4]
    assert float(((found.nats - expected).abs() / found.std_error).max()) < 4


def test_a_token_that_is_not_maskable_is_a_condition():
    """The orders of the other positions only. False alarm: 5 standard errors, 6e-7."""
    denoiser, count = TableDenoiser.inconsistent(), 4000
    free = torch.tensor([True, False, True, True]).expand(count, -1)
    found = nelbo(denoiser, ids(TEXT).expand(count, -1), maskable=free, generator=keyed())
    expected, error = bound(denoiser, TEXT, free=[0, 2, 3]), found.nats.std() / count**0.5
    assert set(found.num_tokens.tolist()) == {3}
    assert abs(float(found.nats.mean()) - expected) < 5 * float(error)
    assert abs(bound(denoiser, TEXT) - expected) > 20 * float(error)  # power


def test_framing_that_a_caller_calls_maskable_still_costs_nothing():
    rows = ids(TEXT, framed=True)
    found = nelbo(framed_denoiser(), rows, maskable=torch.ones_like(rows).bool(), num_samples=4)
    assert found.nats.tolist() == pytest.approx([4 * math.log(3)])


def test_nelbo_repeats_with_its_generator_and_leaves_the_global_one_alone():
    denoiser, before = TableDenoiser.inconsistent(), torch.get_rng_state()
    a, b = (nelbo(denoiser, ids(TEXT), generator=keyed(1)).nats for _ in range(2))
    assert torch.equal(a, b)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(3)
    c = nelbo(denoiser, ids(TEXT)).nats
    torch.manual_seed(3)
    assert torch.equal(nelbo(denoiser, ids(TEXT)).nats, c)


@pytest.mark.parametrize("num_samples", [0, 1, 2, 7])
def test_an_odd_or_small_number_of_samples_is_refused(num_samples):
    sentence = rf"`num_samples` must be even and at least 4 .*, got {num_samples}\."
    with pytest.raises(ValueError, match=sentence):
        nelbo(TableDenoiser.inconsistent(), ids(TEXT), num_samples=num_samples)


def test_a_text_that_cannot_be_measured_is_named():
    denoiser = TableDenoiser.inconsistent()
    rows = ids(TEXT, TEXT)
    rows[1, 2] = MASK
    with pytest.raises(ValueError, match=r"Text 1 of the batch holds the mask token; evaluation"):
        nelbo(denoiser, rows)
    free = torch.tensor([[False] * 4, [True] * 4])
    with pytest.raises(ValueError, match=r"Text 0 of the batch has no maskable token"):
        nelbo(denoiser, ids(TEXT, TEXT), maskable=free)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize("kind", [list, Dataset.from_list])
def test_results_come_in_the_order_of_the_texts(tokenizer, batch_size, kind):
    lengths = [len(text) for text in TEXTS_OF_ALL_LENGTHS]
    found = evaluate_nelbo(
        framed_denoiser(),
        kind(examples(*TEXTS_OF_ALL_LENGTHS)),
        tokenizer,
        batch_size=batch_size,
        progress=False,
    )
    assert found.num_tokens.tolist() == lengths
    assert found.nats.tolist() == pytest.approx([n * math.log(3) for n in lengths])
    assert found.nats_per_token == pytest.approx(math.log(3))


def test_evaluation_over_a_data_set_is_the_bound_of_every_text(tokenizer):
    """False alarm: 7 times 6e-5."""
    denoiser = TableDenoiser.inconsistent(lengths=[1, 2, 3, 4], framed=True)
    found = evaluate_nelbo(
        denoiser,
        examples(*TEXTS_OF_ALL_LENGTHS),
        tokenizer,
        batch_size=3,
        num_samples=400,
        progress=False,
    )
    expected = torch.tensor([bound(denoiser, t) for t in TEXTS_OF_ALL_LENGTHS])
    assert bool(((found.nats - expected).abs() <= 4 * found.std_error + 1e-6).all())


def test_a_fixed_prompt_in_a_data_set_is_a_condition(tokenizer):
    texts = examples(TEXT, TEXT)
    texts[1]["maskable"] = [0, 0, 0, 1, 1, 0]
    found = evaluate_nelbo(framed_denoiser(), texts, tokenizer, progress=False)
    assert found.num_tokens.tolist() == [4, 2]
    assert found.nats.tolist() == pytest.approx([4 * math.log(3), 2 * math.log(3)])


def test_examples_that_are_already_padded_are_the_same_examples(tokenizer):
    padded = examples((1, 2), TEXT)
    padded[0]["input_ids"] += [PAD, PAD]
    padded[0]["attention_mask"] = [1, 1, 1, 1, 0, 0]
    padded[1]["attention_mask"] = [1] * 6
    found = evaluate_nelbo(framed_denoiser(), padded, tokenizer, progress=False)
    assert found.num_tokens.tolist() == [2, 4]
    assert found.nats.tolist() == pytest.approx([2 * math.log(3), 4 * math.log(3)])


@pytest.mark.parametrize("measure", [evaluate_nelbo, masked_accuracy])
@pytest.mark.parametrize("name", ["maskable", "attention_mask"])
def test_a_column_that_is_not_as_long_as_the_text_is_refused(tokenizer, measure, name):
    texts = examples((1, 2), TEXT)
    texts[0][name] = [1, 1]
    with pytest.raises(ValueError, match=f"`{name}` has 2 entries for a text of 4 tokens"):
        measure(framed_denoiser(), texts, tokenizer, progress=False)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("measure", [evaluate_nelbo, masked_accuracy])
def test_evaluation_leaves_the_mode_and_the_global_generator_as_they_were(
    tokenizer, measure, training
):
    denoiser = framed_denoiser().train(training)
    modes = []
    denoiser.register_forward_hook(lambda *_: modes.append(denoiser.training))
    before = torch.get_rng_state()
    texts = examples(*TEXTS_OF_ALL_LENGTHS)
    first, second = (measure(denoiser, texts, tokenizer, progress=False) for _ in range(2))
    assert denoiser.training == training
    assert modes
    assert not any(modes)
    assert torch.equal(torch.get_rng_state(), before)
    if measure is masked_accuracy:
        assert first == second
    else:
        assert torch.equal(first.nats, second.nats)


@pytest.mark.parametrize("measure", [evaluate_nelbo, masked_accuracy])
def test_a_failed_evaluation_still_restores_the_mode(tokenizer, measure):
    denoiser = framed_denoiser().train()
    with pytest.raises(ValueError, match="holds the mask token"):
        measure(denoiser, [{"input_ids": [CLS, 5, MASK, SEP]}], tokenizer, progress=False)
    assert denoiser.training


@pytest.mark.parametrize("measure", [evaluate_nelbo, masked_accuracy])
def test_an_empty_data_set_is_refused(tokenizer, measure):
    with pytest.raises(ValueError, match="There is no text to evaluate"):
        measure(framed_denoiser(), [], tokenizer, progress=False)


def test_gradients_are_not_recorded(tokenizer):
    denoiser = framed_denoiser()
    recorded = []
    denoiser.register_forward_hook(lambda *_: recorded.append(torch.is_grad_enabled()))
    evaluate_nelbo(denoiser, examples(TEXT), tokenizer, progress=False)
    masked_accuracy(denoiser, examples(TEXT), tokenizer, progress=False)
    assert recorded
    assert not any(recorded)


def test_results_of_batches_are_joined_in_their_order():
    a, b = (
        NelboOutput(torch.tensor([x]), torch.tensor([3 * x]), torch.tensor([2])) for x in (1.0, 4.0)
    )
    joined = NelboOutput.concatenate([a, b])
    assert joined.nats.tolist() == [1, 4]
    assert joined.num_tokens.tolist() == [2, 2]
    assert joined.nats_per_token == pytest.approx(5 / 4)
    assert joined.nats_per_token_std_error == pytest.approx(math.hypot(3, 12) / 4)


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


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_token_types_reach_the_denoiser_at_their_tokens(padding_side):
    """What a tokenizer returns goes in as it is; padding moves types with their tokens."""
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = padding_side
    model = tiny_model()
    batch = tokenizer(
        [("w1 w2", "w3"), ("w4 w5", "w6 w7 w8 w9")], padding=True, return_tensors="pt"
    )

    def bound(**changes):
        draws = torch.Generator().manual_seed(0)
        return nelbo(model, **{**batch, **changes}, generator=draws, num_samples=64).nats

    assert not torch.allclose(bound(), bound(token_type_ids=None), atol=0.1)
    text = tokenizer("w1 w2", "w3", return_tensors="pt")
    draws = torch.Generator().manual_seed(0)
    alone = nelbo(model, **text, generator=draws, num_samples=256)
    together = nelbo(model, **batch, generator=draws, num_samples=256)
    gap = float(alone.nats[0] - together.nats[0])
    assert abs(gap) < 5.5 * math.hypot(alone.std_error[0], together.std_error[0])  # odds 4e-8


def test_what_is_no_text_for_the_bound(caplog):
    model, tokenizer = tiny_model(), tiny_tokenizer()
    batch = tokenizer(["w1", "w2 w3 w4"], padding=True, return_tensors="pt")
    with pytest.raises(
        ValueError, match="hold the padding id 0 and no `attention_mask` says which"
    ):
        nelbo(model, batch["input_ids"])
    with pytest.raises(TypeError, match="must be a tensor of ids, got BatchEncoding; what a token"):
        nelbo(model, batch)
    with pytest.raises(TypeError, match="is that of a generator, got a BertForMaskedLM; make one"):
        nelbo(model.denoiser, **batch)
    with pytest.raises(ValueError, match="The longest text has 70 tokens, the encoder takes 64"):
        nelbo(model, torch.full((1, 70), 20))
    nelbo(model.train(), **batch)
    assert "The model is in training mode" in caplog.text
