"""Several texts of one prompt: they differ where the model is unsure, or a warning says why not."""

import pytest
import torch

from hf_maskgit import MaskGitGenerationConfig
from hf_maskgit.core.sampler_choices import TABLES
from hf_maskgit.core.sampler_orders import ORDERS
from hf_maskgit.core.sampler_rules import PACES
from tests.support.tiny import TableModel, tiny_config

CLS, SEP, MASK = 2, 3, 4
WORDS = range(5, 11)
WARNED = "texts returned for one prompt are equal"


def prompt(places: int = 48) -> torch.Tensor:
    return torch.tensor([[CLS, *[MASK] * places, SEP]])


@pytest.fixture
def germline() -> TableModel:
    """Of 48 places two thirds are all but certain; at the others one word of six has 47 %.

    An antibody looks like that to its encoder: a germline that is known, and loops that are not.
    """
    model = TableModel(tiny_config())
    for table in (model.of_left, model.of_right):
        table.zero_()
    model.of_place.fill_(-50.0)
    model.of_place[:, list(WORDS)] = 0.0
    for place in range(len(model.of_place)):
        model.of_place[place, WORDS[0]] = 1.5 if place % 3 == 0 else 12.0
    return model


def num_distinct(texts: torch.Tensor) -> int:
    return len({tuple(text) for text in texts.tolist()})


@pytest.mark.parametrize("steps", [8, 18, 32])
def test_eight_texts_of_an_unsure_model_are_eight(germline, steps, caplog):
    """With the defaults; without noise on the order the unsure places come last, and greedily."""
    options = {"num_return_sequences": 8, "steps": steps, "seed": 0}
    assert num_distinct(germline.generate(prompt(), **options)) == 8
    assert WARNED not in caplog.text
    assert num_distinct(germline.generate(prompt(), choice_temperature=0, **options)) <= 2


@pytest.mark.parametrize("order", [name for name, row in ORDERS.items() if row.choice_temperature])
def test_so_it_is_with_every_order_that_takes_noise(germline, order):
    texts = germline.generate(prompt(), num_return_sequences=8, order=order, seed=0, steps=8)
    assert num_distinct(texts) == 8


@pytest.mark.parametrize("order", ORDERS)
def test_the_noise_that_nobody_sets_is_that_of_the_order(germline, order):
    if order == "critic":
        germline = TableModel(tiny_config(), critic=True)
    usual = ORDERS[order].choice_temperature
    assert (usual > 0) == (ORDERS[order].noise == "choice_temperature")
    options = {"order": order, "num_return_sequences": 4, "seed": 3}
    found = germline.generate(prompt(), **options)
    named = {"choice_temperature": usual} if usual else {}
    assert torch.equal(germline.generate(prompt(), **named, **options), found)


@pytest.mark.parametrize("pace", [name for name, row in PACES.items() if not row.takes_noise])
def test_a_pace_that_takes_no_noise_gets_none(pace):
    config = MaskGitGenerationConfig(pace=pace, do_sample=True)
    config.resolve_choices()
    assert config.choice_temperature == 0


def test_greedy_decoding_gets_no_noise(germline):
    config = MaskGitGenerationConfig(do_sample=False)
    config.resolve_choices()
    assert config.choice_temperature == 0
    greedy = germline.generate(prompt(), do_sample=False)
    assert (greedy[0, 1:-1] == WORDS[0]).all()


def test_a_check_of_options_sets_none():
    config = MaskGitGenerationConfig(order="margin", pace="schedule", remask="never")
    assert config.choice_temperature is None
    assert {name: getattr(config, name) for name in TABLES} == {
        "order": "margin",
        "pace": "schedule",
        "remask": "never",
    }


def test_equal_texts_that_were_drawn_bring_one_warning(germline, caplog):
    cold = {"num_return_sequences": 3, "temperature": 1e-3}
    germline.generate(torch.cat([prompt(), prompt()]), **cold)
    germline.generate(prompt(), **cold)
    assert caplog.text.count(f"All 3 {WARNED}, although they were drawn") == 1
    assert "raise `choice_temperature`" in caplog.text
    assert "set anneal_temperature=False" in caplog.text


def test_one_prompt_of_several_is_enough(germline, caplog):
    """Here the second: at its only place the model has one word."""
    certain = prompt().clone()
    certain[0, 1:-1] = 6
    certain[0, 2] = MASK
    texts = germline.generate(torch.cat([prompt(), certain]), num_return_sequences=3, seed=0)
    assert (num_distinct(texts[:3]), num_distinct(texts[3:])) == (3, 1)
    assert WARNED in caplog.text


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (prompt(), {"num_return_sequences": 3, "seed": 0}),
        (prompt(), {"num_return_sequences": 1, "temperature": 1e-3}),
        (prompt(), {"num_return_sequences": 2, "seed": [5, 5]}),
        (torch.tensor([[CLS, 6, 7, SEP]]), {"num_return_sequences": 2, "max_new_tokens": 0}),
    ],
    ids=["they differ", "one text", "one seed for both", "nothing is drawn"],
)
def test_no_warning_where(germline, text, options, caplog):
    germline.generate(text, **options)
    assert WARNED not in caplog.text
