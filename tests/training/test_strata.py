"""Strata of times: a part of an update has those that it has in the whole, or says so."""

import numpy as np
import pytest
import torch

from hf_maskgit import DataCollatorForMaskGit
from hf_maskgit.training.strata import ranks, strata_given
from tests.support.tiny import word_tokenizer
from tests.support.tiny_training import examples


def test_the_lowest_draw_has_rank_0():
    assert ranks(torch.tensor([0.7, 0.1, 0.4])).tolist() == [2, 0, 1]


@pytest.mark.parametrize("pair", [(1, 4), [1, 4], (np.int64(1), np.int64(4))])
def test_pairs_of_any_integers_are_read(pair):
    strata, count = strata_given([{"time_stratum": (3, 4)}, {"time_stratum": pair}])
    assert (strata.tolist(), count) == ([3, 1], 4)
    assert strata_given([{}, {"time_stratum": None}]) is None


@pytest.mark.parametrize(
    "given",
    [
        [(0, 2), None],
        [(0, 2), (0, 2)],
        [(0, 2), (1, 3)],
        [(0, 2), (2, 2)],
        [(-1, 2), (0, 2)],
        [0, 1],
        ["ab", (1, 2)],
        [(0.0, 2), (1, 2)],
        [(0, 2, 2), (1, 2)],
        [(0, 10**30), (1, 10**30)],
    ],
)
def test_strata_that_no_update_has_are_refused(given):
    features = [
        {"input_ids": [2, 7, 8, 3], **({} if pair is None else {"time_stratum": pair})}
        for pair in given
    ]
    with pytest.raises(ValueError, match=r"must be of one update: each with a `time_stratum`.*got"):
        DataCollatorForMaskGit(word_tokenizer())(features)


@pytest.mark.parametrize("choice", ["exact_count", "bernoulli"])
def test_any_part_of_an_update_is_masked_as_in_the_whole(choice):
    collate = DataCollatorForMaskGit(word_tokenizer(), seed=5, choice=choice)
    collate.set_epoch(2)
    features = list(examples(12))
    whole = collate(features)
    strata = collate.strata([feature["example_id"] for feature in features])
    assert sorted(strata) == list(range(12))
    for part in ([3], [7, 0, 11], [1, 2, 4, 5, 6, 8, 9, 10]):
        batch = collate([{**features[i], "time_stratum": (strata[i], 12)} for i in part])
        width = batch["input_ids"].shape[1]
        assert all(torch.equal(batch[name], whole[name][part, :width]) for name in batch)


def test_strata_depend_on_seed_and_epoch():
    collate, other = (DataCollatorForMaskGit(word_tokenizer(), seed=seed) for seed in (0, 1))
    first = collate.strata(range(20))
    assert other.strata(range(20)) != first
    collate.set_epoch(1)
    assert collate.strata(range(20)) != first
