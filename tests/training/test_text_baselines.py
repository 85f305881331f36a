"""Ways to learn texts: the same tokens for all, and likelihoods that are what they say."""

import itertools
import math

import pytest
import torch

from hf_maskgit.evaluation import nelbo
from hf_maskgit.training.text_baselines import (
    LEARNERS,
    Causal,
    Measure,
    Ours,
    Shape,
    Wrapper,
    blocks_of,
    encoder_of,
    tokenizer_of,
)

TEXTS = [
    f"{one} begat {other}, and lived after he begat {other}."
    for one, other in itertools.permutations(["Seth", "Enos", "Cainan", "Jared"], 2)
]
SHAPE = Shape(length=8, hidden_size=16, num_layers=2, num_heads=2)
MEASURE = Measure(num_samples=4, batch_size=4, seed=0)


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizer_of(TEXTS, 300)


@pytest.fixture(scope="module")
def blocks(tokenizer):
    return blocks_of(TEXTS, tokenizer, SHAPE.length)


def test_blocks_are_the_texts_each_closed_one_behind_the_other(tokenizer, blocks):
    told = tokenizer.decode(blocks.flatten())
    whole = "".join(f"{text}[END]" for text in TEXTS)
    assert whole.startswith(told)
    assert len(whole) - len(told) < 60  # what fills no block, at most 8 tokens
    assert tokenizer("Seth")["input_ids"] == tokenizer("Seth", add_special_tokens=False).input_ids


@pytest.mark.wide
def test_all_have_as_many_parameters_up_to_a_few_percent(tokenizer):
    """At the sizes of the program, where the tables of positions and heads weigh little."""
    shape = Shape(64, 64, 4, 4)
    numbers = {
        name: sum(p.numel() for p in make(shape, tokenizer).network.parameters())
        for name, make in LEARNERS.items()
        if "wrapper" not in name
    }
    assert max(numbers.values()) / min(numbers.values()) < 1.05


@pytest.mark.wide
def test_the_causal_likelihood_is_exact():
    """The probabilities of all texts of two tokens sum to one; its loss is their mean."""
    tokenizer = tokenizer_of(TEXTS, 259)
    model = Causal(Shape(2, 8, 1, 1), tokenizer)
    pairs = torch.tensor(list(itertools.product(range(259), repeat=2)))
    found = model.nats(pairs, Measure(4, 10_000, 0))
    assert float((-found.nats).exp().sum()) == pytest.approx(1, abs=1e-4)
    assert float(found.std_error.sum()) == 0
    assert found.estimator == "exact"
    some = pairs[5:9]
    mean = float(found.nats[5:9].sum()) / some.numel()
    assert float(model.loss(some).detach()) == pytest.approx(mean, rel=1e-5)


def test_the_encoder_is_measured_by_the_bound_over_every_token(tokenizer, blocks):
    torch.manual_seed(0)
    ours = Ours(SHAPE, tokenizer)
    ours.network.eval()
    found = ours.nats(blocks[:4], MEASURE)
    assert found.num_tokens.tolist() == [8] * 4
    expected = nelbo(ours.network, blocks[:4], num_samples=4, seed=0)
    assert found.nats.tolist() == pytest.approx(expected.nats.tolist(), rel=1e-5)


@pytest.mark.wide
def test_our_loss_is_the_bound_in_expectation(tokenizer, blocks):
    """500 draws each; 5 standard errors: false alarm 6e-7."""
    torch.manual_seed(0)
    ours = Ours(SHAPE, tokenizer, corruption_prob=0.0)
    ours.network.eval()
    some = blocks[:4].repeat(125, 1)
    with torch.no_grad():
        losses = torch.stack([ours.loss(some) for _ in range(10)])
        bound = nelbo(ours.network, some, num_samples=4, seed=1)
    error = math.hypot(float(losses.std()) / 10**0.5, bound.nats_per_token_std_error)
    assert abs(float(losses.mean()) - bound.nats_per_token) < 5 * error


@pytest.mark.wide
def test_the_weight_of_the_wrapper_turns_its_loss_round(tokenizer, blocks):
    """Its weight is the derivative of what is still masked, which falls: below zero."""
    pytest.importorskip("x_transformers")
    for weighted, sign in ((False, 1), (True, -1)):
        torch.manual_seed(0)
        wrapper = Wrapper(SHAPE, tokenizer, weighted)
        assert sign * float(wrapper.loss(blocks[:4]).detach()) > 0
        measured = wrapper.nats(blocks[:2], MEASURE)
        assert measured.estimator == "one pass"


def test_ours_is_trained_by_the_defaults_and_has_no_frame(tokenizer):
    config = encoder_of(SHAPE, tokenizer).config
    assert (config.corruption_prob, config.use_simple_mdlm_loss_weight) == (0.5, True)
    assert (config.prefix_ids, config.suffix_ids) == ([], [])


def test_without_weight_all_tokens_that_were_chosen_weigh_alike(tokenizer, blocks):
    torch.manual_seed(0)
    ours = LEARNERS["unweighted ours"](SHAPE, tokenizer)
    ours.network.eval()
    batch = ours._collate([{"input_ids": block.tolist()} for block in blocks[:4]])
    with torch.no_grad():
        output = ours.network(**batch, output_nll=True)
    mean = float(output.nll.sum()) / blocks[:4].numel()
    assert float(output.loss) == pytest.approx(mean, rel=1e-5)


def test_what_is_too_small_is_refused(tokenizer):
    with pytest.raises(ValueError, match="`vocab_size` must be at least 259, all bytes and 3"):
        tokenizer_of(TEXTS, 258)
    with pytest.raises(ValueError, match="1 texts of .* tokens fill no block of 64; give more"):
        blocks_of(TEXTS[:1], tokenizer, 64)
