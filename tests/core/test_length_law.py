"""The law of lengths: bins that join on, draws in proportion to them, none outside of bounds."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_maskgit import MaskGitConfig, MaskGitForMaskedLM
from hf_maskgit.core.length_law import LengthLaw, bin_of, histogram, pick
from tests.support.oracles_sampling import chi_square
from tests.support.tiny import tiny_config, tiny_model


def test_bins_join_on_and_are_narrow():
    start = 1
    for length in range(1, 5000):
        of, width = bin_of(length)
        assert of <= length < of + width
        assert width == 1 if length < 64 else width <= length / 32
        assert of == start or of == length  # the bin before it, or one that begins here
        start = of


@pytest.mark.wide
@given(st.dictionaries(st.integers(1, 3000), st.integers(1, 50), min_size=1, max_size=30))
def test_a_histogram_keeps_every_text_within_its_bin(counts):
    bins = histogram(counts.items())
    expected = Counter()
    for length, count in counts.items():
        expected[bin_of(length)[0]] += count
    assert {int(start): count for start, count in bins.items()} == expected
    assert list(map(int, bins)) == sorted(expected)
    law = LengthLaw(bins)
    assert law.longest >= max(counts)
    every = law.weights(torch.arange(0, 4000))
    assert float(every.sum()) == pytest.approx(sum(counts.values()))
    assert float(every[0]) == 0


@pytest.mark.wide
@given(st.lists(st.integers(0, 4), min_size=1, max_size=6).filter(any), st.floats(0, 1))
def test_a_pick_inverts_the_sum_of_the_weights(weights, uniform):
    uniform = min(uniform, math.nextafter(1, 0))
    below, expected = 0.0, None
    for i, weight in enumerate(weights):
        below += weight
        if expected is None and uniform * sum(weights) < below:
            expected = i
    assert pick(torch.tensor(weights, dtype=torch.float64), uniform) == expected
    assert weights[expected] > 0


@pytest.mark.wide
def test_draws_have_the_conditional_law():
    """Chi-squared over 4,000 evenly spaced uniforms, of which each cell has its share to one."""
    law = LengthLaw({"2": 1, "3": 2, "5": 3, "64": 4})
    uniforms = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    for low, high, cells in (
        (1, 99, {2: 0.1, 3: 0.2, 5: 0.3, 64: 0.2, 65: 0.2}),
        (3, 64, {3: 2 / 7, 5: 3 / 7, 64: 2 / 7}),
        (5, 5, {5: 1.0}),
    ):
        drawn = Counter(law.draw([low] * 4000, [high] * 4000, uniforms).tolist())
        assert drawn.keys() == cells.keys()
        for length, share in cells.items():
            assert abs(drawn[length] - 4000 * share) <= 1
    assert law.draw([6, 66, 9], [63, 99, 8], uniforms[:3]).tolist() == [0, 0, 0]


def test_generate_draws_from_it_given_what_is_known():
    """Chi-squared over 300 rows; other seeds would fail once in 10,000 times."""
    model = tiny_model("bert", lengths={"1": 50, "3": 20, "4": 10, "9": 30, "20": 40})
    prompt = torch.tensor([[2, 7, 8, 3]])  # 2 known tokens, so that T is 3, 4, 9 or 20
    options = {"steps": 1, "return_dict_in_generate": True, "seed": 5, "num_return_sequences": 300}
    out = model.generate(prompt, num_tokens="sampled", max_new_tokens=8, **options)
    drawn = Counter((out.num_new_tokens + 2).tolist())
    assert set(drawn) <= {3, 4, 9}  # 20 would take 18 tokens
    observed = torch.tensor([drawn[3], drawn[4], drawn[9]]).numpy()
    assert chi_square(observed, torch.tensor([20.0, 10.0, 30.0]).numpy()) > 1e-4
    nothing = model.generate(num_tokens="sampled", **options)
    assert set(nothing.num_new_tokens.tolist()) == {1, 3, 4, 9, 20}


def test_a_checkpoint_keeps_the_lengths(tmp_path):
    lengths = {"3": 2, "64": 7}
    tiny_model("bert", lengths=lengths, end_fill=9).save_pretrained(tmp_path)
    config = MaskGitForMaskedLM.from_pretrained(tmp_path).config
    assert config.lengths == MaskGitConfig.from_pretrained(tmp_path).lengths == lengths
    assert config.end_fill == 9
    without = tiny_config("bert").to_dict()
    assert "lengths" not in without
    assert "end_fill" not in without


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"lengths": {}}, "such as {'12': 3}, or be None where nobody knows; got {}"),
        ({"lengths": {"0": 1}}, "`lengths` holds '0': 1; its keys are texts, the least length"),
        ({"lengths": {"-1": 1}}, "`lengths` holds '-1': 1"),
        ({"lengths": {"5": 0}}, "`lengths` holds '5': 0; .* count one text or more"),
        ({"lengths": {"65": 1}}, "`lengths` holds '65': 1"),
        ({"end_fill": 2}, "`end_fill` must leave room .* framing of 2 tokens, got 2"),
    ],
)
def test_what_is_no_histogram_is_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny_config("bert", **options)


@pytest.mark.parametrize(
    ("config", "call", "sentence"),
    [
        ({}, {"num_tokens": "sampled"}, "has no `lengths`: .* Give `max_new_tokens`"),
        ({}, {"num_tokens": "window"}, "trained without `end_fill`. Give `max_new_tokens`"),
        (
            {"lengths": {"2": 1}},
            {"num_tokens": "sampled"},
            "no length for row 0: it has 2 tokens, .* room for 60 more, .* training had 2. Shorten",
        ),
        (
            {"lengths": {"9": 1}},
            {"num_tokens": "sampled", "max_new_tokens": 6},
            "no length for row 0: .* room for 6 more, .* training had 9",
        ),
        ({"end_fill": 4}, {"num_tokens": "window"}, "no room in row 0: .* window .* takes 2"),
        (
            {"lengths": {"9": 1}, "pad_token_id": None},
            {"num_tokens": "sampled", "eos_token_id": 3},
            "`pad_token_id` is not set, which fills rows that get fewer new tokens",
        ),
        ({}, {"num_tokens": "drawn"}, "Unknown num_tokens 'drawn'; choose from 'fixed', 'sam"),
    ],
)
def test_what_cannot_be_drawn_is_said(config, call, sentence):
    model = tiny_model("bert", **config)
    with pytest.raises(ValueError, match=sentence):
        model.generate(torch.tensor([[2, 7, 8, 3]]), seed=0, **call)
