"""`num_tokens="pattern"`: the number of new tokens, chosen by the mass of the language."""

import itertools
import math

import pytest
import torch
from scipy.stats import chisquare

from hf_maskgit.core.token_pattern import TokenPattern
from tests.support.tiny import TableModel, tiny_config

CLS, SEP, MASK, PAD = 2, 3, 4, 0
LENGTHS = {"3": 3, "4": 150, "5": 12000}


def of_classes(*elements):
    return TokenPattern.from_token_classes(list(elements), 40)


# One to four tokens; every length has several texts.
PATTERN = of_classes([10, 11, 12], ([20, 21], 0, 2), ([30, 31, 32], 0, 1))
OTHER = of_classes([5, 6], [7, 8], ([9], 0, 1))


@pytest.fixture
def model():
    model = TableModel(tiny_config(lengths=LENGTHS))
    for table in (model.of_place, model.of_left, model.of_right):
        table *= 0.3  # so that no number is nearly certain
    return model


def masses(model, prompt, pattern, numbers, ids=None, scale=None):
    """By enumeration: the product law of the first pass, summed over the texts that match."""
    forbidden, found = torch.tensor(model.config.unwritten_token_ids), {}
    for number in numbers:
        row = torch.tensor([[*prompt, *[MASK] * number, SEP]])
        logits = model(row, torch.ones_like(row), row == MASK).logits
        logits[:, forbidden] = -torch.inf
        if ids is not None:
            others = torch.tensor([i for i in range(40) if i not in ids])
            logits[:, others] = -torch.inf
        first = row[0].tolist().index(MASK)
        span, hidden = row[0, first:-1], (row[0, first:-1] == MASK).nonzero().squeeze(1)
        mass = 0.0
        for text in itertools.product([*range(5, 13), 20, 21, 30, 31, 32], repeat=len(hidden)):
            span[hidden] = torch.tensor(text)
            if pattern.matches(span):
                logs = logits.log_softmax(-1)[torch.arange(len(text)), torch.tensor(text)]
                mass += math.exp(float(logs.sum()))
        found[number] = mass * (LENGTHS.get(str(len(prompt) - 1 + number), 0) + 1)
    return found


@pytest.mark.wide
@pytest.mark.parametrize(
    ("prompt", "pattern", "numbers"),
    [([CLS, 9], PATTERN, (1, 2, 3, 4)), ([CLS, 9, MASK, 20], PATTERN, (1, 2))],
    ids=["continued", "with a mask and a known token of its own"],
)
def test_a_number_comes_as_often_as_the_mass_of_its_texts(model, prompt, pattern, numbers):
    """1,500 texts; a false alarm in one run of 10^6."""
    found = masses(model, prompt, pattern, numbers)
    weights = torch.tensor([found[number] for number in numbers]).double()
    ids = torch.tensor([[*prompt, SEP]])
    options = {"pattern": pattern, "num_tokens": "pattern", "return_dict_in_generate": True}
    greedy = model.generate(ids, do_sample=False, **options)
    assert int(greedy.num_new_tokens) == numbers[int(weights.argmax())]
    out = model.generate(ids, seed=0, steps=1, num_return_sequences=1500, **options)
    drawn = torch.bincount(out.num_new_tokens, minlength=numbers[-1] + 1)[list(numbers)]
    assert int(drawn.sum()) == 1500
    expected = weights / weights.sum() * 1500
    assert bool((expected >= 5).all())
    assert chisquare(drawn, expected).pvalue > 1e-6


@pytest.mark.grid(2)
@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"do_sample": False},
        {"max_new_tokens": 2},
        {"guidance_scale": 2.0},
        {"block_length": 2, "steps": 6},
        {"allowed_token_ids": [5, 6, 7, 8, 9, 10, 20, 30]},
    ],
    ids=lambda o: next(iter(o), "default"),
)
def test_a_row_is_the_same_alone_and_in_a_batch_and_always_matches(model, options, left):
    rows = [[CLS, 9, SEP], [CLS, 7, 8, 9, SEP], [CLS, 9, MASK, SEP], [CLS, 6]]
    patterns = [PATTERN, OTHER, PATTERN, OTHER]
    pads = [[PAD] * (5 - len(row)) for row in rows]
    padded = [p + r if left else r + p for p, r in zip(pads, rows, strict=True)]
    ids = torch.tensor(padded)
    options = {**options, "num_tokens": "pattern", "return_dict_in_generate": True}
    out = model.generate(ids, (ids != PAD).long(), pattern=patterns, seed=[1, 2, 3, 4], **options)
    for row, pattern in enumerate(patterns):
        one = torch.tensor([rows[row]])
        alone = model.generate(one, pattern=pattern, seed=[row + 1], **options)
        number = int(alone.num_new_tokens)
        assert int(out.num_new_tokens[row]) == number
        mine = [token for token in out.sequences[row].tolist() if token != PAD]
        assert mine == alone.sequences[0].tolist()
        text = alone.sequences[0].tolist()
        new = text[len(rows[row]) :]
        held = text[2:3] if MASK in rows[row] else []
        assert len(new) == number  # no end of text before it
        assert pattern.matches([*held, *new])


@pytest.mark.wide
def test_copies_of_a_row_share_its_first_pass(model):
    ids = torch.tensor([[CLS, 9, SEP], [CLS, 8, SEP]])
    options = {"num_tokens": "pattern", "steps": 1, "seed": 0, "num_return_sequences": 5}
    model.generate(ids, pattern=PATTERN, **options)
    assert [len(call.input_ids) for call in model.calls[:-1]] == [2, 2, 2, 2]
    model.calls.clear()
    together = model.generate(ids, pattern=[PATTERN, OTHER], **options)
    assert [len(call.input_ids) for call in model.calls[:-1]] == [2, 2, 2, 2]
    model.calls.clear()
    each = [PATTERN] * 5 + [OTHER] * 5
    assert model.generate(ids, pattern=each, **options).equal(together)
    model.calls.clear()
    most = [1, 2, 3, 4, 4, 2, 3, 3, 3, 3]
    out = model.generate(
        ids, pattern=each, max_new_tokens=most, return_dict_in_generate=True, **options
    )
    assert bool((out.num_new_tokens <= torch.tensor(most)).all())
    # Copies with other limits are measured by themselves; what is the same text is read once.
    read = [torch.stack([call.input_ids, call.attention_mask], 1) for call in model.calls[:-1]]
    assert [len(texts) for texts in read] == [len(texts.unique(dim=0)) for texts in read]


@pytest.mark.wide
def test_what_is_suppressed_has_no_mass(model):
    """With only one text of each of two numbers left, their masses are two products."""
    ids = [10, 20, 30, 31, 32]
    pattern = of_classes([10, 11], ([20], 0, 1))
    found = masses(model, [CLS, 9], pattern, (1, 2), ids)
    options = {"pattern": pattern, "num_tokens": "pattern", "return_dict_in_generate": True}
    out = model.generate(
        torch.tensor([[CLS, 9, SEP]]),
        allowed_token_ids=ids,
        seed=3,
        steps=1,
        num_return_sequences=1000,
        **options,
    )
    share = found[1] / (found[1] + found[2])
    drawn = float((out.num_new_tokens == 1).double().mean())
    # a false alarm in one of 10^6
    assert abs(drawn - share) <= 4.9 * math.sqrt(share * (1 - share) / 1000)
    greedy = model.generate(
        torch.tensor([[CLS, 9, SEP]]), suppress_tokens=[20], do_sample=False, **options
    )
    assert int(greedy.num_new_tokens) == 1


def test_the_text_that_is_written_from_nothing_has_a_length_of_its_pattern(model):
    out = model.generate(pattern=OTHER, num_tokens="pattern", seed=0)
    assert out[0, 0] == CLS
    assert out[0, -1] == SEP
    assert OTHER.matches(out[0, 1:-1])


ENDLESS = of_classes([10], ([20], 0, None))


@pytest.mark.parametrize(
    ("pattern", "options", "sentence"),
    [
        (None, {}, "goes by the lengths that a `pattern` takes, and returned row 0 has none"),
        ([PATTERN, None], {}, "and returned row 1 has none; give every row one, or `max_new_to"),
        (ENDLESS, {}, "no most for returned row 0: .* takes any number of tokens from 1. Name the"),
        (of_classes(([10], 80, 90)), {}, "takes from 80 to 90 tokens, and there is room for 61"),
        (PATTERN, {"max_new_tokens": 0}, "takes from 1 to 4 tokens, and there is room for 0 more"),
        (
            of_classes([10], ([20], 5, None)),
            {"max_new_tokens": 4},
            "takes from 6 to any number tokens, and there is room for 4 more. Shorten the prompt",
        ),
        (PATTERN, {"allowed_token_ids": {3: [10]}}, "`allowed_token_ids` name columns, and with"),
        ([PATTERN] * 3, {}, "`pattern` has 3 entries for 2 returned rows"),
        (of_classes([39]), {"suppress_tokens": [39]}, "the mask in column 3 may hold nothing"),
    ],
)
def test_what_gives_no_number_is_refused(model, pattern, options, sentence):
    ids = torch.tensor([[CLS, 9, SEP], [CLS, 8, SEP]])
    with pytest.raises(ValueError, match=sentence):
        model.generate(ids, pattern=pattern, num_tokens="pattern", seed=0, **options)


def test_a_row_that_holds_too_much_is_refused(model):
    ids = torch.tensor([[CLS, MASK, 10, 11, 12, SEP]])
    with pytest.raises(ValueError, match="of which the row holds 4 from its first mask on, and"):
        model.generate(ids, pattern=PATTERN, num_tokens="pattern", seed=0)


def test_too_many_numbers_are_refused():
    model = TableModel(tiny_config(), max_positions=400)
    with pytest.raises(ValueError, match="for returned row 0 are 300; 128 at most are compared"):
        model.generate(
            torch.tensor([[CLS, 9]]),
            pattern=ENDLESS,
            num_tokens="pattern",
            max_new_tokens=300,
            seed=0,
        )


def test_four_rows_do_not_share_two_patterns(model):
    ids = torch.tensor([[CLS, MASK, SEP]] * 4)
    with pytest.raises(ValueError, match="`pattern` has 2 entries for 4 returned rows"):
        model.generate(ids, pattern=[of_classes([10]), None], seed=0)
