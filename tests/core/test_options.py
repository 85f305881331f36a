"""One declaration of an option, and every sentence with which a value is refused."""

import dataclasses
import math
import re

import numpy as np
import pytest
import torch

from hf_maskgit.core.options import Option, check, option, option_of, options_of


@dataclasses.dataclass
class Example:
    plain: int = 3
    share: float = option(0.5, "A share.", int, float, low=0, high=1)
    name: str | None = option(None, "A name.", choices=(None, "a", "b"))


def test_an_option_is_a_field_with_its_declaration():
    assert Example() == Example(3, 0.5, None)
    assert options_of(Example) == {
        "share": Option("A share.", 0.5, (int, float), low=0, high=1),
        "name": Option("A name.", None, choices=(None, "a", "b")),
    }


def test_another_class_can_have_the_same_option():
    @dataclasses.dataclass
    class Other:
        share: float = option_of(Example, "share")

    assert options_of(Other)["share"] is options_of(Example)["share"]
    assert Other().share == 0.5
    with pytest.raises(KeyError):
        option_of(Example, "plain")


WHOLE = {"kinds": (int,), "low": 1}
FLAG = {"kinds": (bool,)}
NUMBER = {"kinds": (int, float), "low": 0}
PROBABILITY = {"low": 0, "high": 1, "noun": "probability"}


@pytest.mark.parametrize(
    ("declared", "value", "sentence"),
    [
        (WHOLE, 0, "`x` must be an integer of at least 1, got 0."),
        (WHOLE, 2.0, "`x` must be an integer of at least 1, got 2.0."),
        (WHOLE, True, "`x` must be an integer of at least 1, got True."),
        (WHOLE, "2", "`x` must be an integer of at least 1, got '2'."),
        ({"kinds": (int,)}, None, "`x` must be an integer, got None."),
        (FLAG, 1, "`x` must be True or False, got 1."),
        (FLAG, "no", "`x` must be True or False, got 'no'."),
        (NUMBER, "1", "`x` must be a number, got '1'."),
        (NUMBER, True, "`x` must be a number, got True."),
        (NUMBER, -1, "`x` must be at least 0, got -1."),
        (NUMBER, float("nan"), "`x` must be at least 0, got nan."),
        ({**NUMBER, "open_low": True}, 0, "`x` must be greater than 0, got 0."),
        ({**NUMBER, "high": 1}, 1.5, "`x` must lie in [0, 1], got 1.5."),
        ({**NUMBER, "open_low": True, "high": 1}, 0.0, "`x` must lie in (0, 1], got 0.0."),
        ({**NUMBER, "high": 1, "open_high": True}, 1, "`x` must lie in [0, 1), got 1."),
        (
            {**NUMBER, "open_low": True, "hint": "; set it to 1"},
            0,
            "`x` must be greater than 0, got 0; set it to 1.",
        ),
        (PROBABILITY, 2, "`x` is a probability and must lie in [0, 1], got 2."),
        (PROBABILITY, float("nan"), "`x` is a probability and must lie in [0, 1], got nan."),
        (PROBABILITY, "often", "`x` must be a number, got 'often'."),
        (PROBABILITY, None, "`x` must be a number, got None."),
        (PROBABILITY, [0.5], "`x` must be a number, got [0.5]."),
        (PROBABILITY, True, "`x` must be a number, got True."),
        (PROBABILITY, torch.tensor([0.5]), "`x` must be a number, got tensor([0.5000])."),
        (NUMBER, 10**400, f"`x` must be finite, got {10**400}."),
        (NUMBER, math.inf, "`x` must be finite, got inf."),
        ({**WHOLE, "high": 9}, 10, "`x` must be an integer of at most 9, got 10."),
        ({**WHOLE, "high": 9}, 0, "`x` must be an integer of at least 1, got 0."),
        (WHOLE, 2**31, "`x` must be an integer below 2**31, got 2147483648."),
        (
            WHOLE,
            "a" * 500,
            f"`x` must be an integer of at least 1, got {repr('a' * 500)[:200]}....",
        ),
        ({"choices": (None, "a")}, "c", "Unknown x 'c'; choose from None, 'a'."),
        ({"choices": ("a",)}, ["a"], "Unknown x ['a']; choose from 'a'."),
        (
            {"choices": ("a",)},
            np.array(["a", "b"]),
            "Unknown x array(['a', 'b'], dtype='<U1'); choose from 'a'.",
        ),
        ({"choices": ("a",)}, torch.ones(2), "Unknown x tensor([1., 1.]); choose from 'a'."),
    ],
)
def test_what_a_value_cannot_be_is_said_in_a_sentence(declared, value, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        check("x", value, Option("An example.", None, **declared))


@pytest.mark.parametrize(
    ("declared", "values"),
    [
        ({}, [None, "anything", [1]]),
        (WHOLE, [1, 10**9]),
        ({"kinds": (int,)}, [-5]),
        (FLAG, [True, False]),
        (NUMBER, [0, 0.0, 1e300]),
        (PROBABILITY, [0, 1.0, np.float32(0.5), np.int64(1), torch.tensor(0.5)]),
        ({**NUMBER, "high": 1}, [0, 1, 0.5]),
        ({"choices": (None, "a")}, [None, "a"]),
    ],
)
def test_what_a_value_can_be_passes(declared, values):
    for value in values:
        check("x", value, Option("An example.", None, **declared))
