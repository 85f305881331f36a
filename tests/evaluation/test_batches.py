"""What every evaluation shares: batches of any examples, and what is left as it was."""

import math

import pytest
import torch

from hf_maskgit.core.noise import keyed_generator
from hf_maskgit.evaluation import critic_auroc, evaluate_nelbo, masked_accuracy
from tests.support.oracles import CLS, MASK, PAD, SEP, TableDenoiser
from tests.support.table_texts import TEXT, TEXTS_OF_ALL_LENGTHS, examples, framed_denoiser
from tests.support.tiny import tiny_model, word_tokenizer


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
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_text_that_cannot_be_measured_is_named_by_its_place_in_the_list(
    tokenizer, measure, batch_size
):
    """Though the shortest are measured first."""
    texts = [[CLS, 5, 6, 7, SEP], [CLS, 5, MASK, SEP], [CLS, 5, SEP]]
    with pytest.raises(ValueError, match="^Text 1 holds the mask token"):
        measure(
            framed_denoiser(),
            [{"input_ids": text} for text in texts],
            tokenizer,
            batch_size=batch_size,
            progress=False,
        )


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


def test_examples_that_are_already_padded_are_the_same_examples(tokenizer):
    padded = examples((1, 2), TEXT)
    padded[0]["input_ids"] += [PAD, PAD]
    padded[0]["attention_mask"] = [1, 1, 1, 1, 0, 0]
    padded[1]["attention_mask"] = [1] * 6
    found = evaluate_nelbo(framed_denoiser(), padded, tokenizer, progress=False)
    assert found.num_tokens.tolist() == [2, 4]
    assert found.nats.tolist() == pytest.approx([2 * math.log(3), 4 * math.log(3)])


def test_padding_that_nothing_tells_is_refused_and_told_it_costs_nothing(tokenizer):
    texts = examples((1, 2), TEXT)
    padded = [{"input_ids": [*text["input_ids"], PAD, PAD]} for text in texts]
    told = [{**one, "attention_mask": [int(i != PAD) for i in one["input_ids"]]} for one in padded]
    for measure in (evaluate_nelbo, masked_accuracy):
        with pytest.raises(ValueError, match=f"Text 1 holds the padding id {PAD} and no `atten"):
            measure(framed_denoiser(), [texts[0], padded[1]], tokenizer, progress=False)
    bounds = [
        evaluate_nelbo(framed_denoiser(), t, tokenizer, progress=False) for t in (told, texts)
    ]
    assert bounds[0].num_tokens.tolist() == bounds[1].num_tokens.tolist()
    assert torch.equal(bounds[0].nats, bounds[1].nats)


def test_padding_that_ends_texts_too_is_no_padding_in_a_text(tokenizer):
    texts = examples(TEXT)
    expected = evaluate_nelbo(framed_denoiser(), texts, tokenizer, progress=False)
    tokenizer.pad_token = tokenizer.sep_token
    found = evaluate_nelbo(framed_denoiser(), texts, tokenizer, progress=False)
    assert torch.equal(found.nats, expected.nats)


@pytest.mark.parametrize("measure", [evaluate_nelbo, masked_accuracy, critic_auroc])
def test_every_evaluation_takes_a_seed_or_a_generator(tokenizer, measure):
    """A seed is the generator keyed by it; neither is seed 0; both are one too many."""
    texts = examples(*TEXTS_OF_ALL_LENGTHS, *TEXTS_OF_ALL_LENGTHS)
    model = TableDenoiser.inconsistent(lengths=(1, 2, 3, 4), framed=True)
    if measure is critic_auroc:
        model = tiny_model("bert", token_critic="self")
        texts = [{"input_ids": [2, *range(7 + i, 37), 3]} for i in range(20)]

    def run(**source):
        found = measure(model, texts, tokenizer, progress=False, **source)
        return found.nats.tolist() if measure is evaluate_nelbo else found

    assert run(seed=3) == run(generator=keyed_generator(3)) != run(seed=4)
    assert run() == run(seed=0)
    with pytest.raises(ValueError, match="Give `seed` or `generator`, not both"):
        run(seed=3, generator=keyed_generator(3))
    with pytest.raises(ValueError, match="`seed` must be an integer, got '3'"):
        run(seed="3")


@pytest.mark.parametrize("num_shares", [1, 2, 3])
def test_shares_find_together_what_the_whole_finds(tokenizer, num_shares):
    """Also of texts that are padded on the left, whose noise is drawn at the left edge."""
    texts = examples(*TEXTS_OF_ALL_LENGTHS, TEXT, (1, 2))
    texts[0] = {"input_ids": [PAD, PAD, PAD, CLS, 5, SEP], "attention_mask": [0, 0, 0, 1, 1, 1]}
    common = {"batch_size": 2, "seed": 3, "num_samples": 4, "progress": False}
    whole = evaluate_nelbo(framed_denoiser(), texts, tokenizer, **common)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]["input_ids"]))
    for which in range(num_shares):
        share = (which, num_shares)
        part = evaluate_nelbo(framed_denoiser(), texts, tokenizer, **common, share=share)
        own = sorted(i for place, i in enumerate(order) if place // 2 % num_shares == which)
        assert torch.equal(part.nats, whole.nats[own])
        assert torch.equal(part.std_error, whole.std_error[own])
        assert torch.equal(part.num_tokens, whole.num_tokens[own])


@pytest.mark.parametrize("measure", [evaluate_nelbo, critic_auroc])
@pytest.mark.parametrize(
    ("share", "said"),
    [
        (1, r"`share` must be a pair \(which, of how many\), got 1"),
        ((0, 1, 2), r"`share` must be a pair"),
        ((0, 2.0), r"`share` must be a pair"),
        ((2, 2), r"must name one that has a batch, .* got \(2, 2\): 3 texts make 2 batches of 2"),
        ((-1, 2), r"must name one that has a batch, .* got \(-1, 2\)"),
        ((2, 3), r"must name one that has a batch, .* got \(2, 3\): 3 texts make 2 batches of 2"),
    ],
)
def test_a_share_without_a_batch_is_refused(measure, share, said):
    model, texts = tiny_model(token_critic="self"), [{"input_ids": [2, 7, 3]}] * 3
    with pytest.raises((TypeError, ValueError), match=said):
        measure(model, texts, word_tokenizer(), batch_size=2, share=share, progress=False)
