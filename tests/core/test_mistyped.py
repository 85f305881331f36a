"""Calls with values of the wrong kind end well or in a sentence of ours, in nobody else's."""

import math

import numpy as np
import pytest
import torch
from transformers.utils import logging

from hf_maskgit import DataCollatorForMaskGit, nelbo
from hf_maskgit.core.generation_config_maskgit import OPTIONS, MaskGitGenerationConfig
from hf_maskgit.evaluation import critic_auroc, evaluate_nelbo, masked_accuracy
from tests.support.mistyped import CLEAN, LABELS, TEXT, Calls, raw_error
from tests.support.tiny import tiny_model, word_tokenizer


@pytest.fixture
def _quiet():
    """What is said of options without effect would fill pages."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    yield
    logging.set_verbosity(verbosity)


def raw(seed, number):
    """What goes wrong in a sentence of another library, of so many calls."""
    calls, found = Calls(seed), []
    for _ in range(number):
        kind, odd, call = calls.draw()
        error = raw_error(call)
        if error is not None:
            found.append(f"{kind} {odd}: {error}")
    return found


@pytest.mark.wide
@pytest.mark.usefixtures("_quiet")
def test_a_mistyped_call_is_refused_in_a_sentence():
    assert raw(0, 400) == []


@pytest.mark.slow
@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize("seed", range(1, 6))
def test_many_mistyped_calls_are_refused_in_a_sentence(seed):
    assert raw(seed, 4000) == []


TEXTS = [{"input_ids": row.tolist()} for row in CLEAN]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"num_samples": "4"}, "`num_samples` must be an integer of at least 4, got '4'"),
        ({"num_samples": 10**18}, "`num_samples` must be an integer of at most 100000, got 1000"),
        ({"input_ids": CLEAN[0]}, r"`input_ids` must be integers of shape \(batch, length\), got"),
        ({"input_ids": CLEAN + 99}, "`input_ids` run from 101 to 108; the vocabulary has 0 to 39"),
        ({"attention_mask": [1]}, r"`attention_mask` must be a tensor, got list \[1\]"),
        ({"attention_mask": CLEAN}, r"`attention_mask` must hold 0 \(padding\) and 1"),
        ({"maskable": CLEAN[:1] > 0}, r"`maskable` must have the shape of `input_ids`, \(2, 6\)"),
        ({"token_type_ids": CLEAN}, "`token_type_ids` run from 2 to 9; the encoder has types 0 to"),
        ({"generator": 3}, "`generator` must be a torch.Generator, got int 3"),
        ({"self_condition": "no"}, "`self_condition` must be True or False, got 'no'"),
    ],
)
def test_nelbo_names_what_is_of_the_wrong_kind(given, said):
    with pytest.raises((TypeError, ValueError), match=said):
        nelbo(tiny_model(), **{"input_ids": CLEAN, "num_samples": 4} | given)


# In the place of a number; True is one to Python.
NO_NUMBERS = ["a", ["a"], [[1.0]], {}, {1}, ..., 1j, b"3", True, torch.ones(2), math.nan]
NUMBERS = [
    name
    for name, declared in OPTIONS.items()
    if set(declared.kinds) & {int, float} or declared.low is not None
]


@pytest.mark.parametrize("name", NUMBERS)
def test_what_is_no_number_is_refused_in_a_sentence_by_every_option_that_is_one(name):
    for value in NO_NUMBERS:
        with pytest.raises(ValueError, match=f"`{name}`"):
            MaskGitGenerationConfig(**{name: value})


@pytest.mark.parametrize("value", [*NO_NUMBERS, 0, -1.0, math.inf], ids=repr)
def test_a_temperature_of_what_a_critic_judges_is_a_number_above_zero(value):
    model = tiny_model(token_critic="self")
    given = {"input_ids": TEXT, "labels": LABELS, "critic_temperature": value}
    with pytest.raises(ValueError, match="`critic_temperature` must be (a number|greater|finite)"):
        model(**given)
    with pytest.raises(ValueError, match="`temperature` must be (a number|greater|finite)"):
        critic_auroc(model, TEXTS, word_tokenizer(), temperature=value, progress=False)


@pytest.mark.parametrize("value", ["a", [1], [[1]], {}, torch.ones(2, 6), np.array("x")], ids=repr)
def test_what_a_loss_is_divided_by_is_one_number(value):
    given = {"input_ids": TEXT, "labels": LABELS, "num_items_in_batch": value}
    with pytest.raises(ValueError, match="`num_items_in_batch` must be a number, got"):
        tiny_model()(**given)
    with pytest.raises(ValueError, match="must be greater than 0 where there are labels, got -inf"):
        tiny_model()(**{**given, "num_items_in_batch": -math.inf})


@pytest.mark.parametrize("measure", [evaluate_nelbo, masked_accuracy])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"texts": iter(TEXTS)}, "`texts` are sorted by length, so they must be a list or a data"),
        ({"texts": {"input_ids": [1]}}, "`texts` are sorted by length, .*, got dict"),
        ({"texts": ["w1 w2"]}, "An example must be a dict with `input_ids`, .* got str 'w1 w2'"),
        ({"texts": [{"input_ids": "w1"}]}, "`input_ids` of an example must be a list of whole num"),
        ({"tokenizer": "bert"}, "`tokenizer` must be a tokenizer of transformers, got str 'bert'"),
        ({"batch_size": 0}, "`batch_size` must be an integer of at least 1, got 0"),
        ({"progress": "yes"}, "`progress` must be True or False, got 'yes'"),
    ],
)
def test_an_evaluation_names_what_is_of_the_wrong_kind(measure, given, said):
    arguments = {"texts": TEXTS, "tokenizer": word_tokenizer(), "progress": False} | given
    with pytest.raises((TypeError, ValueError), match=said):
        measure(tiny_model(), **arguments)


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        (0.5, "`mask_rates` must be a list of shares, got 0.5"),
        (["a"], "Every mask rate must be a number, got 'a'"),
        ([0], r"Every mask rate must lie in \(0, 1\], got 0"),
    ],
)
def test_mask_rates_are_numbers_in_a_list(rates, said):
    with pytest.raises((TypeError, ValueError), match=said):
        masked_accuracy(tiny_model(), TEXTS, word_tokenizer(), mask_rates=rates)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tokenizer": None}, "`tokenizer` must be a tokenizer of transformers, got NoneType"),
        ({"seed": 0.5}, "`seed` must be an integer, got 0.5"),
        ({"num_processes": "2"}, "`num_processes` must be an integer of at least 1, got '2'"),
        ({"process_index": None}, "`process_index` must be an integer, got None"),
        (
            {"pad_to_multiple_of": 10**18},
            "`pad_to_multiple_of` must be an integer of at most 65536",
        ),
        ({"corruption_prob": "often"}, "`corruption_prob` must be a number, got 'often'"),
        ({"schedule": len}, "The schedule returned int for times"),
        (
            {"schedule": str.upper},
            r"The schedule fails when it is called .* \(TypeError: .*it must",
        ),
    ],
)
def test_the_collator_names_what_is_of_the_wrong_kind(given, said):
    arguments = {"tokenizer": word_tokenizer()} | given
    with pytest.raises((TypeError, ValueError), match=said):
        DataCollatorForMaskGit(arguments.pop("tokenizer"), **arguments)


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        (iter(TEXTS), "A batch must be a list of examples, got list_iterator"),
        ([[2, 7, 3]], r"An example must be a dict with `input_ids`, .* got list \[2, 7, 3\]"),
        ([{"labels": [2]}], "An example must be a dict with `input_ids`"),
        ([{"input_ids": 3}], "`input_ids` of an example must be a list of whole numbers, got int"),
        ([{"input_ids": [[2, 3]]}], "`input_ids` of an example must be a list of whole numbers"),
        ([{"input_ids": [2, 0.5]}], "`input_ids` of an example must be a list of whole numbers"),
        ([{"input_ids": [2], "maskable": "x"}], "`maskable` of an example must be a list of whole"),
        ([{"input_ids": [2], "labels": {}}], "`labels` of an example must be a list of whole num"),
        ([{"input_ids": [2], "example_id": "a"}], "`example_id` must be an integer, got 'a'"),
    ],
)
def test_the_collator_names_examples_of_the_wrong_kind(batch, said):
    with pytest.raises((TypeError, ValueError), match=said):
        DataCollatorForMaskGit(word_tokenizer())(batch)


def test_a_seed_of_any_integer_is_the_same():
    batch = [{**example, "example_id": 3} for example in TEXTS]
    one, *others = (
        DataCollatorForMaskGit(word_tokenizer(), seed=seed)(batch)
        for seed in (3, torch.tensor(3), np.int64(3))
    )
    for other in others:
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_examples_of_any_integers_are_the_same():
    of_floats = [{"input_ids": row.double(), "example_id": torch.tensor(0).item()} for row in CLEAN]
    of_bytes = [{"input_ids": row.byte(), "example_id": 0} for row in CLEAN]
    plain = [{"input_ids": row.tolist(), "example_id": 0} for row in CLEAN]
    collator = DataCollatorForMaskGit(word_tokenizer())
    one, *others = (collator(batch) for batch in (plain, of_floats, of_bytes))
    for other in others:
        assert all(torch.equal(one[name], other[name]) for name in one)
