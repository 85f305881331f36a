"""The distance between two samples of lengths, by scipy; lengths, by counting."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hf_maskgit.evaluation import length_distance, written_lengths
from tests.support.tiny import tiny_config

SAMPLES = st.lists(st.integers(1, 9), min_size=1, max_size=30)


@pytest.mark.wide
@given(SAMPLES, SAMPLES)
def test_the_distance_is_that_of_kolmogorov_and_smirnov(one, other):
    found = length_distance(one, other)
    assert found.distance == pytest.approx(
        stats.ks_2samp(one, other, method="asymp").statistic, abs=1e-12
    )
    assert found == length_distance(other, one)


def test_the_noise_is_the_quantile_of_its_law():
    quantile = stats.kstwobign.ppf(0.95)
    expected = quantile * ((40 + 60) / (40 * 60)) ** 0.5
    assert length_distance(range(40), range(60)).noise == pytest.approx(expected, rel=1e-3)


def test_nothing_is_no_sample():
    with pytest.raises(ValueError, match="There is no length to compare; give at least one"):
        length_distance([], [3])


def test_lengths_are_counted_to_the_first_end_and_without_framing():
    rows = torch.tensor(
        [
            [2, 7, 8, 3, 0, 0],  # framed and padded
            [2, 7, 3, 0, 0, 3],  # what `generate` leaves of a window that ended
            [2, 7, 8, 9, 9, 3],
            [7, 8, 3, 9, 0, 0],  # not framed, with an end inside
            [2, 3, 0, 0, 0, 0],
            [0, 2, 7, 8, 9, 3],  # padded on the left
        ]
    )
    config = tiny_config("bert")
    assert written_lengths(config, rows) == [2, 1, 4, 2, 0, 3]
    assert written_lengths(config, rows, (rows != 0).long()) == [2, 1, 4, 2, 0, 3]
    # a model without padding, whose texts hold none
    assert written_lengths(tiny_config("bert", pad_token_id=None), rows[2:3]) == [4]
