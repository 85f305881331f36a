"""Counting baselines of chorales: against laws that are summed over all texts of a small world."""

import itertools
import math

import pytest
import torch

from hf_maskgit.evaluation import voice_counting
from hf_maskgit.evaluation.voice_counting import (
    NEIGHBOURS,
    chain_marginals,
    count_voices,
    counted_nats,
    likeliest_by_chains,
    most_frequent,
)


@pytest.fixture(autouse=True)
def _three_ids(monkeypatch):
    monkeypatch.setattr(voice_counting, "VOCAB_SIZE", 3)


def drawn_grids(windows, steps, seed=0):
    return torch.randint(3, (windows, steps, 4), generator=torch.Generator().manual_seed(seed))


def test_counts_by_hand():
    grids = torch.tensor([[0, 1, 1], [2, 1, 1]])[..., None].expand(-1, -1, 4)
    counted = count_voices(grids)
    for voice in range(4):
        shares = lambda *counts: [(n + 0.1) / (sum(counts) + 0.3) for n in counts]  # noqa: E731
        assert counted.unigram[voice].tolist() == pytest.approx(shares(1, 4, 1))
        assert counted.first[voice].tolist() == pytest.approx(shares(1, 0, 1))
        assert counted.follows[voice, 1].tolist() == pytest.approx(shares(0, 2, 0))
        assert counted.follows[voice, 2].tolist() == pytest.approx(shares(0, 1, 0))
        assert counted.beside[voice, 0].tolist() == pytest.approx(shares(1, 0, 0))


@pytest.mark.parametrize("name", ["unigram", "bigram"])
def test_probabilities_of_all_windows_sum_to_one(name):
    """A voice alone: the others' parts are taken off, as they are independent of it."""
    counted = count_voices(drawn_grids(20, 3))
    columns = torch.tensor(list(itertools.product(range(3), repeat=3)))
    grids = torch.zeros(len(columns), 3, 4, dtype=torch.long)
    total = 1.0
    for voice in range(4):
        some = grids.clone()
        some[..., voice] = columns
        silent = counted_nats(counted, grids[:1])[name]
        ratio = float((silent - counted_nats(counted, some)[name]).exp().sum())
        total *= ratio  # sum over the voice, over its probability of silence
    assert math.log(total) == pytest.approx(float(silent))


def test_a_chain_is_summed_over_all_its_ways():
    draws = torch.Generator().manual_seed(1)
    first = torch.rand(3, generator=draws, dtype=torch.double)
    follows = torch.rand(3, 3, generator=draws, dtype=torch.double)
    evidence = torch.rand(2, 4, 3, generator=draws, dtype=torch.double)
    expected = torch.zeros(2, 4, 3, dtype=torch.double)
    for way in itertools.product(range(3), repeat=4):
        weight = first[way[0]] * math.prod(follows[a, b] for a, b in itertools.pairwise(way))
        seen = math.prod(evidence[:, step, one] for step, one in enumerate(way))
        for step, one in enumerate(way):
            expected[:, step, one] += weight * seen
    expected /= expected.sum(-1, keepdim=True)
    assert torch.allclose(chain_marginals(first, follows, evidence), expected)


@pytest.mark.parametrize("hidden_voice", range(4))
def test_a_hidden_voice_is_filled_by_its_chain_and_its_neighbour(hidden_voice):
    counted = count_voices(drawn_grids(30, 3))
    grids = drawn_grids(5, 3, seed=2)
    hidden = torch.zeros(3, 4, dtype=torch.bool)
    hidden[:, hidden_voice] = True
    filled = likeliest_by_chains(counted, grids, hidden)
    assert torch.equal(filled[:, ~hidden], grids[:, ~hidden])
    neighbour = grids[..., NEIGHBOURS[hidden_voice]]
    for window in range(5):
        weights = torch.zeros(3, 3, dtype=torch.double)
        for way in itertools.product(range(3), repeat=3):
            steps = math.prod(
                counted.follows[hidden_voice, a, b] for a, b in itertools.pairwise(way)
            )
            beside = math.prod(
                counted.beside[hidden_voice, one, neighbour[window, step]]
                for step, one in enumerate(way)
            )
            for step, one in enumerate(way):
                weights[step, one] += counted.first[hidden_voice, way[0]] * steps * beside
        assert filled[window, :, hidden_voice].tolist() == weights.argmax(-1).tolist()


def test_a_hidden_middle_is_filled_between_its_ends_and_what_it_hid_is_not_read():
    counted = count_voices(drawn_grids(30, 3))
    hidden = torch.tensor([False, True, False])[:, None].expand(-1, 4)
    grids = drawn_grids(5, 3, seed=3)
    filled = likeliest_by_chains(counted, grids, hidden)
    for voice in range(4):
        before, behind = grids[:, 0, voice], grids[:, 2, voice]
        law = counted.follows[voice][before] * counted.follows[voice][:, behind].T
        assert filled[:, 1, voice].tolist() == law.argmax(-1).tolist()
    other = torch.where(hidden, (grids + 1) % 3, grids)
    assert torch.equal(likeliest_by_chains(counted, other, hidden), filled)


def test_the_most_frequent_id_of_each_voice_fills_what_is_hidden():
    train = torch.tensor([[[0, 1, 2, 1]], [[0, 1, 2, 1]], [[1, 2, 0, 0]]])
    hidden = torch.tensor([[True, True, False, True]])
    grids = torch.tensor([[[2, 2, 1, 2]]])
    assert most_frequent(count_voices(train), grids, hidden).tolist() == [[[0, 1, 1, 1]]]
