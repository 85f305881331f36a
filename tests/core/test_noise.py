"""Keyed noise: a stream is a function of its key, and different keys have nothing in common."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from hf_maskgit.core.noise import (
    fresh_seed,
    keyed_generator,
    keyed_uniforms,
    mix,
    mixed,
    row_seeds,
    signed,
)


def first(*key):
    return torch.rand((), generator=keyed_generator(*key), dtype=torch.float64).item()


def test_the_same_key_gives_the_same_stream():
    a, b = (torch.rand(1000, generator=keyed_generator(3, 1, 4)) for _ in range(2))
    assert torch.equal(a, b)


@pytest.mark.parametrize("number", [3, -1, 2**63 - 1])
def test_integers_of_numpy_and_torch_are_keys_as_those_of_python(number):
    assert mix(5, np.int64(number)) == mix(5, torch.tensor(number)) == mix(5, number)
    with pytest.raises(TypeError, match="'float' object cannot be interpreted as an integer"):
        mix(5, 0.5)


@pytest.mark.wide
def test_no_two_keys_share_a_seed():
    """Order, length, sign and every part of a key count.

    By accident two of the 80,000 keys share one of 2^63 seeds with odds below 1e-9.
    """
    keys = list(itertools.product(range(-20, 20), repeat=3)) + [(i,) for i in range(16_000)]
    keys += [(), (0, 0), (0, 0, 0, 0), (2**63,), (2**64 - 1 - 2**40,)]
    seeds = {mix(*key) for key in keys}
    assert len(seeds) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.wide
def test_neighbouring_keys_give_independent_uniform_numbers():
    """False alarm: 3 tests at p < 1e-6 each. The first draw of 20,000 neighbouring examples."""
    draws = np.array([first(0, 0, example) for example in range(20_000)])
    assert stats.kstest(draws, "uniform").pvalue > 1e-6
    assert stats.pearsonr(draws[:-1], draws[1:]).pvalue > 1e-6
    squares = np.histogram2d(draws[:-1:2], draws[1::2], bins=10, range=[(0, 1), (0, 1)])[0]
    assert stats.chisquare(squares.ravel()).pvalue > 1e-6


def test_two_epochs_of_an_example_are_independent():
    """False alarm: p < 1e-6."""
    draws = np.array([[first(0, epoch, example) for epoch in (0, 1)] for example in range(5_000)])
    assert stats.pearsonr(*draws.T).pvalue > 1e-6


def test_tensors_of_keys_are_mixed_as_their_numbers_are():
    edges = [0, 1, -1, 2**31, -(2**62), 2**63 - 1, -(2**63), 2**64 - 1]
    first, second = (torch.tensor([signed(i) for i in row]) for row in (edges, edges[::-1]))
    found = mixed(first, second)
    assert found.tolist() == [mix(a, b) for a, b in zip(edges, reversed(edges), strict=True)]
    assert mixed(first, 7).tolist() == [mix(a, 7) for a in edges]
    assert signed(2**70 + 5) == 5


def test_a_stream_is_that_of_splitmix64():
    """Against the generator as it is published, one number after another."""
    word = 2**64 - 1

    def stream(state, count):
        for _ in range(count):
            state = (state + 0x9E3779B97F4A7C15) & word
            z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & word
            z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & word
            yield ((z ^ (z >> 31)) >> 11) / 2**53

    keys = [0, 1, 12345678901234567, 2**63 - 1]
    found = keyed_uniforms(torch.tensor(keys), 50)
    assert found.tolist() == [list(stream(key, 50)) for key in keys]
    assert torch.equal(keyed_uniforms(torch.tensor(keys), 20), found[:, :20])


def test_the_streams_of_neighbouring_rows_and_passes_are_independent_and_uniform():
    """9 tests at p < 1e-6 each: over all numbers, between places, rows and passes, and in pairs."""
    noise = torch.stack(
        [keyed_uniforms(mixed(torch.arange(500), step), 64) for step in range(4)]
    ).numpy()  # (passes, rows, places)
    assert stats.kstest(noise.ravel(), "uniform").pvalue > 1e-6
    for axis in range(3):
        one, other = (
            np.moveaxis(noise, axis, 0)[part] for part in (slice(None, -1), slice(1, None))
        )
        assert stats.pearsonr(one.ravel(), other.ravel()).pvalue > 1e-6
        cells = np.histogram2d(one.ravel(), other.ravel(), bins=16, range=[(0, 1), (0, 1)])[0]
        assert stats.chisquare(cells.ravel()).pvalue > 1e-6
    last_bits = (noise * 2**53).astype(np.int64) & 255
    assert stats.chisquare(np.bincount(last_bits.ravel(), minlength=256)).pvalue > 1e-6
    assert 0 <= noise.min() <= noise.max() < 1


def test_keyed_generators_live_on_the_cpu_and_leave_the_global_one_alone():
    before = torch.get_rng_state()
    generator = keyed_generator(1, 2)
    torch.rand(7, generator=generator)
    assert generator.device.type == "cpu"
    assert torch.equal(torch.get_rng_state(), before)


def test_a_fresh_seed_comes_from_the_generator_it_is_given_or_from_the_global_one():
    torch.manual_seed(5)
    from_global = fresh_seed()
    assert fresh_seed() != from_global
    torch.manual_seed(5)
    assert fresh_seed() == from_global
    before = torch.get_rng_state()
    own = fresh_seed(torch.Generator().manual_seed(9))
    assert own == fresh_seed(torch.Generator().manual_seed(9)) != from_global
    assert torch.equal(torch.get_rng_state(), before)


def test_every_returned_row_has_a_seed_of_its_own():
    assert row_seeds(2, 3, 7, None, True) == [mix(7, row) for row in range(6)]
    assert row_seeds(2, 2, [5, 6], None, True) == [5, mix(5, 1), 6, mix(6, 1)]
    assert row_seeds(2, 2, [1, 2, 3, 4], None, True) == [1, 2, 3, 4]
    drawn = row_seeds(2, 3, None, torch.Generator().manual_seed(0), True)
    assert len(set(drawn)) == 6
    with pytest.raises(ValueError, match="has 3 entries for 2 rows and 4 returned texts"):
        row_seeds(2, 2, [1, 2, 3], None, True)


@pytest.mark.parametrize("repeats", [50_001, 2**70])
def test_more_texts_than_memory_holds_are_refused_before_each_has_a_seed(repeats):
    assert len(row_seeds(2, 50_000, 0, None, False)) == 100_000
    with pytest.raises(ValueError, match=r"makes [\d,]+ texts of 2 rows; .* 100,000 at most"):
        row_seeds(2, repeats, 0, None, True)


def test_where_nothing_is_drawn_no_generator_is_touched():
    before = torch.get_rng_state()
    assert row_seeds(2, 3, None, None, False) == [0] * 6
    assert torch.equal(torch.get_rng_state(), before)
