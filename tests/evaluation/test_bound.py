"""The bound against its enumeration, and what is no text for it."""

import math

import numpy as np
import pytest
import torch
from datasets import Dataset

from hf_maskgit.evaluation import NelboOutput, evaluate_nelbo, exact_likelihood, nelbo
from tests.support.grids import wide
from tests.support.oracles import (
    MASK,
    PAD,
    TableDenoiser,
    all_texts,
    bound,
    negative_log_likelihood,
)
from tests.support.table_texts import (
    TEXT,
    TEXTS_OF_ALL_LENGTHS,
    UNIFORM,
    examples,
    framed_denoiser,
    ids,
    keyed,
)
from tests.support.tiny import TableModel, tiny_config, tiny_model
from tests.support.tiny import word_tokenizer as tiny_tokenizer


@pytest.mark.wide
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


@pytest.mark.wide
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


@pytest.mark.wide
@pytest.mark.parametrize(("num_samples", "share"), [(4, 0.705), (8, 0.861), (32, 0.936)])
def test_two_standard_errors_hold_the_bound_as_often_as_students_t_says(num_samples, share):
    """Student's t with a degree of freedom less than there are pairs; 2,000 estimates of one text.

    Sampling noise is 0.01 at most; estimates are not normal, so 0.1 is left above.
    """
    torch.manual_seed(0)
    model, tokenizer = tiny_model(), tiny_tokenizer()
    framed = [tokenizer.cls_token_id, *torch.randint(5, 12, (8,)).tolist(), tokenizer.sep_token_id]
    exact = float(exact_likelihood(model, torch.tensor([framed])).bound_nats)
    found = nelbo(model, torch.tensor([framed]).expand(2000, -1), num_samples=num_samples, seed=1)
    held = ((found.nats - exact).abs() <= 2 * found.std_error).double().mean()
    assert share - 0.04 < float(held) < share + 0.1


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


@pytest.mark.parametrize("padding", [wide("left"), "right"])
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


def test_nelbo_and_the_evaluation_of_a_data_set_take_the_same_seed(tokenizer):
    """One batch of texts has the same masks either way."""
    denoiser, before = TableDenoiser.inconsistent(framed=True), torch.get_rng_state()
    alone = nelbo(denoiser, ids(TEXT, framed=True), seed=5)
    together = evaluate_nelbo(denoiser, examples(TEXT), tokenizer, seed=5, progress=False)
    assert torch.equal(alone.nats, together.nats)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(ValueError, match="Give `seed` or `generator`, not both"):
        nelbo(denoiser, ids(TEXT, framed=True), seed=5, generator=keyed(1))


@pytest.mark.parametrize("num_samples", [0, 1, 2, 7])
def test_an_odd_or_small_number_of_samples_is_refused(num_samples):
    wanted = "an integer of at least 4" if num_samples < 4 else r"even \(maskings .* pairs\)"
    sentence = rf"`num_samples` must be {wanted}, got {num_samples}\."
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


@pytest.mark.grid(2)
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


@pytest.mark.wide
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


def test_results_of_batches_are_joined_in_their_order():
    a, b = (
        NelboOutput(torch.tensor([x]), torch.tensor([3 * x]), torch.tensor([2])) for x in (1.0, 4.0)
    )
    joined = NelboOutput.concatenate([a, b])
    assert joined.nats.tolist() == [1, 4]
    assert joined.num_tokens.tolist() == [2, 2]
    assert joined.nats_per_token == pytest.approx(5 / 4)
    assert joined.nats_per_token_std_error == pytest.approx(math.hypot(3, 12) / 4)


@pytest.mark.parametrize("padding_side", ["left", wide("right")])
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
        return nelbo(model, **{**batch, **changes}, generator=draws, num_samples=16).nats

    assert not torch.allclose(bound(), bound(token_type_ids=None), atol=0.1)
    text = tokenizer("w1 w2", "w3", return_tensors="pt")
    draws = torch.Generator().manual_seed(0)
    alone = nelbo(model, **text, generator=draws, num_samples=128)
    together = nelbo(model, **batch, generator=draws, num_samples=128)
    gap = float(alone.nats[0] - together.nats[0])
    assert abs(gap) < 5.5 * math.hypot(alone.std_error[0], together.std_error[0])  # odds 4e-8


def test_token_types_move_with_left_padded_tokens():
    """The same texts padded on either side are asked about in the same words."""
    table = TableModel(tiny_config())
    texts, types = [[2, 5, 6, 7, 3], [2, 8, 3]], [[0, 1, 0, 1, 1], [1, 0, 1]]

    def asked(side):
        padded = [
            [0] * (5 - len(row)) + row if side == "left" else row + [0] * (5 - len(row))
            for row in (*texts, *types, *[[1] * len(row) for row in texts])
        ]
        ids, kinds, real = torch.tensor(padded).split(2)
        table.calls.clear()
        found = nelbo(table, ids, real, num_samples=4, seed=0, token_type_ids=kinds)
        return found.nats, [call.token_type_ids.tolist() for call in table.calls]

    nats, seen = asked("right")
    assert seen == [[[0, 1, 0, 1, 1], [1, 0, 1, 0, 0]]] * 4
    left_nats, left_seen = asked("left")
    assert left_seen == seen
    assert torch.equal(left_nats, nats)


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
