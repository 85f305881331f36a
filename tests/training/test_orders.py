"""Orders of the examples: each once per epoch, and little padding where they are grouped."""

import pytest
import torch
from datasets import Dataset

from hf_maskgit.training.batching import check_not_grouped
from hf_maskgit.training.orders import (
    grouped_updates,
    lengths_of,
    padding_share,
    shuffled_updates,
)
from tests.support.tiny_training import SMALL, loop_of

LENGTHS = torch.randint(3, 112, (5003,), generator=torch.Generator().manual_seed(0))


def test_a_grouped_epoch_takes_what_a_shuffled_one_does():
    for epoch in range(3):
        grouped = grouped_updates(LENGTHS, 16, seed=4, epoch=epoch)
        plain = shuffled_updates(len(LENGTHS), 16, 4, epoch)
        assert grouped.shape == plain.shape
        assert torch.equal(grouped.flatten().sort().values, plain.flatten().sort().values)
        assert not torch.equal(grouped, grouped_updates(LENGTHS, 16, seed=4, epoch=epoch + 1))
        assert torch.equal(grouped, grouped_updates(LENGTHS, 16, seed=4, epoch=epoch))


def test_grouping_leaves_little_padding_and_no_order_of_lengths():
    shares = [
        padding_share(LENGTHS, updates, 8)
        for updates in (
            shuffled_updates(len(LENGTHS), 16, 0, 0),
            grouped_updates(LENGTHS, 16, 0, 0),
        )
    ]
    assert shares[0] > 0.2
    assert shares[1] < 0.03
    means = LENGTHS[grouped_updates(LENGTHS, 16, 0, 0)].double().mean(1)
    steps = means.diff().sign()
    assert 0.3 < float((steps > 0).double().mean()) < 0.7


def test_shares_of_two_processes_are_alike_within_an_update():
    """Means of halves of 100 updates of 64: beyond 5 standard errors once in 1.7 million runs."""
    updates = grouped_updates(LENGTHS, 64, 0, 0)
    halves = LENGTHS[updates].double().view(len(updates), 2, 32).mean(2)
    differences = halves[:, 0] - halves[:, 1]
    assert abs(float(differences.mean())) < 5 * float(differences.std()) / len(updates) ** 0.5


def test_every_example_is_in_any_update_alike():
    """One example's place over 400 epochs is even: its mean beyond 5 standard errors is as rare."""
    lengths = torch.arange(40)
    places = []
    for epoch in range(400):
        updates = grouped_updates(lengths, 4, 0, epoch)
        places.append(float((updates == 39).nonzero()[0, 0]))
    spread = ((10**2 - 1) / 12 / 400) ** 0.5
    assert abs(sum(places) / 400 - 4.5) < 5 * spread


def test_too_few_examples_make_no_update():
    assert grouped_updates(LENGTHS[:3], 4, 0, 0).shape == (0, 4)


def test_lengths_are_those_of_the_rows_that_are_left():
    data = Dataset.from_dict({"input_ids": [[1] * n for n in (3, 1, 4, 1, 5)]})
    assert lengths_of(data.select([4, 0])).tolist() == [5, 3]


def test_streams_are_not_grouped():
    check_not_grouped(False)
    with pytest.raises(ValueError, match="sorts all examples by length"):
        check_not_grouped(True)


@pytest.mark.wide
@pytest.mark.usefixtures("_fresh_accelerate")
def test_a_run_takes_grouped_updates(tmp_path):
    loop = loop_of(tmp_path / "run", **{**SMALL, "group_by_length": True})
    lengths = lengths_of(loop.batches.shares.examples)
    taken = [rows for _, rows in zip(range(8), loop.batches.order, strict=False)]
    assert taken == grouped_updates(lengths, 8, 0, 0).tolist()
    assert loop.run().step == 6
