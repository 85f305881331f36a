"""Lengths of blanks: the law of what is drawn, by enumeration of every choice there is."""

import itertools
import math
from collections import Counter

import pytest
import torch

from hf_maskgit.core.blank_lengths import LENGTHS, Blank, Blanks, prior_nats, ways_to_sum
from tests.support.oracles_sampling import chi_square
from tests.support.tiny import tiny_config

SIZES = [(1,), (4,), (2, 3), (3, 1, 4), (5, 5, 2)]


def blanks(ranges, base=0, room=100, lengths=None):
    return Blanks([Blank(*r) for r in ranges], base, room, tiny_config("bert", lengths=lengths))


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("most", [0, 2, 20])
def test_choices_are_counted_by_what_they_sum_to(sizes, most):
    ways = ways_to_sum(sizes, most)
    assert len(ways) == len(sizes) + 1
    for first in range(len(sizes) + 1):
        sums = Counter(map(sum, itertools.product(*map(range, sizes[first:]))))
        assert ways[first] == [sums[s] for s in range(most + 1)]


@pytest.mark.wide
def test_sampled_lengths_have_the_law_of_the_whole_text():
    """Chi-squared over 1,500 draws; other keys would fail once in 10,000 times."""
    lengths = {"5": 10, "6": 30, "8": 20, "40": 99}
    asked = blanks([(1, 3), (2, 2), (1, 2)], base=5, lengths=lengths)  # T from 5 to 8
    law = {}
    choices = list(itertools.product(range(1, 4), [2], range(1, 3)))
    sums = Counter(5 + sum(c) - 4 for c in choices)
    for choice in choices:
        total = 5 + sum(choice) - 4
        law[choice] = lengths.get(str(total), 0) / sums[total]
    drawn = Counter(LENGTHS["sampled"].choose(asked, key)[0] for key in range(1500))
    assert set(drawn) == {choice for choice, weight in law.items() if weight}
    possible = sorted(drawn)
    observed = torch.tensor([drawn[c] for c in possible]).numpy()
    assert chi_square(observed, torch.tensor([law[c] for c in possible]).numpy()) > 1e-4


def test_an_open_blank_is_as_long_as_training_and_the_encoder_allow():
    lengths = {"5": 1, "20": 1, "50": 1}
    sampled = LENGTHS["sampled"]
    for room, expected in ((100, {1, 16, 46}), (20, {1, 16}), (3, {1})):
        asked = blanks([(1, None)], base=5, room=room, lengths=lengths)
        assert {sampled.choose(asked, key)[0][0] for key in range(100)} == expected


def test_candidates_are_all_there_are_and_the_shortest_come_first():
    found = LENGTHS["likeliest"].choose(blanks([(1, 3), (2, 4)]), 0)
    assert sorted(found) == sorted(itertools.product(range(1, 4), range(2, 5)))
    assert [sum(c) for c in found] == sorted(sum(c) for c in found)


def test_the_prior_is_the_share_of_such_texts_with_one_more_of_each():
    config = tiny_config("bert", lengths={"3": 4, "64": 6})
    seen = {3: 4, 4: 0, 64: 3, 65: 3}  # a bin of two lengths
    assert prior_nats(config, list(seen)) == pytest.approx(
        [-math.log(n + 1) for n in seen.values()]
    )
    assert prior_nats(tiny_config("bert"), [3, 4]) == [0.0, 0.0]
