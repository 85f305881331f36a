"""Choices for a blank: exact where one pass tells, else by a bound with its error."""

import functools
import math

import pytest
import torch
from transformers import pipeline as any_pipeline

from hf_maskgit.core.pipeline_choices import _of_shares
from tests.support.tiny import tiny_model, tokenizer_for
from tests.support.tiny_tokenizers import TOKENIZERS, model_for

pipeline = functools.partial(any_pipeline, device="cpu")


@pytest.fixture(scope="module")
def words():
    return pipeline("infilling", model=tiny_model("bert"), tokenizer=tokenizer_for("bert"))


def log_law(model, ids):
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double()
    logits[:, model.config.forbidden_token_ids] = -torch.inf
    return logits.log_softmax(-1)


def test_choices_of_one_length_are_exact(words):
    tokenizer = words.tokenizer
    choices = ["w1 w2", "w3 w3", "w9 w4"]
    masked = tokenizer("w5 [MASK] [MASK] w6")["input_ids"]
    logs = log_law(words.model, masked)
    weights = []
    for choice in choices:
        first, second = tokenizer(choice, add_special_tokens=False)["input_ids"]
        weights.append(math.exp(float(logs[2, first] + logs[3, second])))
    expected = {c: w / sum(weights) for c, w in zip(choices, weights, strict=True)}
    for text in ("w5 {blank} w6", "w5 {blank:7} w6", "w5 [MASK] w6"):
        out = words(text, choices=choices)
        assert [set(one) for one in out] == [{"choice", "text", "probability"}] * 3
        found = {one["choice"]: one["probability"] for one in out}
        assert found == pytest.approx(expected, abs=1e-5)
        assert sum(found.values()) == pytest.approx(1)
        shares = [one["probability"] for one in out]
        assert shares == sorted(shares, reverse=True)
        assert {one["text"] for one in out} == {f"w5 {c} w6" for c in choices}


def exact_bound(model, ids, places):
    """The bound of two tokens: half of it from both masked, half from one or the other."""
    mask = model.config.mask_token_id

    def nll(hidden):
        row = [mask if i in hidden else token for i, token in enumerate(ids)]
        logs = log_law(model, row)
        return -sum(float(logs[i, ids[i]]) for i in hidden)

    if len(places) == 1:
        return nll(places)
    return nll(places) / 2 + (nll(places[:1]) + nll(places[1:])) / 2


@pytest.mark.wide
def test_choices_of_several_lengths_go_by_the_bound_within_their_error(words):
    tokenizer = words.tokenizer
    choices = {"w1 w2": [2, 3], "w3": [2]}
    bounds = [
        exact_bound(words.model, tokenizer(f"w5 {choice} w6")["input_ids"], places)
        for choice, places in choices.items()
    ]
    expected = 1 / (1 + math.exp(bounds[0] - bounds[1]))
    found = []
    for seed in range(10):
        out = words("w5 {blank} w6", choices=list(choices), seed=seed, length_samples=16)
        first = next(one for one in out if one["choice"] == "w1 w2")
        assert sum(one["probability"] for one in out) == pytest.approx(1)
        found.append((first["probability"], first["std_error"]))
    shares, errors = torch.tensor(found).T
    # Errors are on the safe side; the mean of 10 is within 5 of its own (false alarm < 10^-5).
    assert abs(float(shares.mean()) - expected) <= 5 * float(errors.mean()) / math.sqrt(10) + 1e-6
    assert 0 < float(shares.std()) <= 2 * float(errors.mean())


def test_a_choice_of_one_token_has_no_error_of_its_own(words):
    out = words("w5 {blank}", choices=["w1", "w2", "w3 w4"], seed=0)
    same = words("w5 {blank}", choices=["w1", "w2"])
    of = {one["choice"]: one["probability"] for one in out}
    pair = {one["choice"]: one["probability"] for one in same}
    assert of["w1"] / of["w2"] == pytest.approx(pair["w1"] / pair["w2"], rel=1e-4)


def test_errors_are_carried_over_to_shares():
    """By the derivative of the softmax, taken by autograd."""
    nats = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    errors = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: torch.softmax(-x, 0), nats)
    expected = ((jacobian * errors) ** 2).sum(1).sqrt()
    assert torch.allclose(_of_shares(torch.softmax(-nats, 0), errors), expected)


@pytest.mark.wide
def test_choices_are_the_same_alone_and_in_a_batch(words):
    texts = ["w5 {blank} w6", "{blank} w1 w2 w3"]
    options = {"choices": ["w1 w2", "w3"], "seed": 4}
    together = words(texts, batch_size=2, **options)
    assert together == [words(text, **options) for text in texts]
    assert words(texts[0], **options) == words(texts[0], **options)


def test_choices_stand_in_the_text_as_their_tokenizer_reads_them():
    """A space before the blank is part of a byte-level token, and of a mask it is not."""
    tokenizer = TOKENIZERS["byte-level"]()
    pipe = pipeline("infilling", model=model_for(tokenizer), tokenizer=tokenizer)
    out = pipe("The {blank} sat", choices=["cat", "players", "ball of wool"], seed=0)
    assert {one["text"] for one in out} == {
        "The cat sat", "The players sat", "The ball of wool sat"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "choices", "sentence"),
    [
        ("{blank}", "w1", "list of two or more texts that are not empty, got 'w1'"),
        ("{blank}", ["w1"], "list of two or more texts"),
        ("{blank}", ["w1", " "], "list of two or more texts that are not empty"),
        ("{blank}", ["w1", 2], "list of two or more texts"),
        ("{blank}", ["w1", "w2", "w1"], "has 'w1' twice"),
        ("{blank} {blank}", ["w1", "w2"], "fills one blank, and the text has 2 blanks"),
        ("{blank}", ["w1", "[PAD]"], r"'\[PAD\]' comes to the token '\[PAD\]' .id 0., which the m"),
        ("{blank}", ["w1 [SEP]", "w2"], r"comes to the token '\[SEP\]' .* writes in a blank"),
        ("{blank}", ["cat", "dog"], "does not know 1 of the 1 words of the text 'cat' .100 %."),
    ],
)
def test_choices_that_are_none_are_refused(words, text, choices, sentence):
    with pytest.raises(ValueError, match=sentence):
        words(text, choices=choices)


def test_an_option_that_there_is_not_is_refused_beside_choices_too(words):
    with pytest.raises(ValueError, match="no option 'temprature'; .* Did you mean `temperature`"):
        words("{blank}", choices=["w1", "w2"], temprature=2.0)


def test_a_choice_that_changes_its_neighbours_is_refused():
    tokenizer = TOKENIZERS["wordpiece"]()
    pipe = pipeline("infilling", model=model_for(tokenizer), tokenizer=tokenizer)
    with pytest.raises(ValueError, match="With the choice '.*' in its blank the tokenizer"):
        pipe("the {blank}ing", choices=["play", "ers"])
