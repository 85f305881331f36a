"""Batches: the shares of however many processes are together the updates of one."""

from functools import partial

import pytest
import torch
from accelerate.data_loader import SeedableRandomSampler
from datasets import Dataset

from hf_maskgit import DataCollatorForMaskGit
from hf_maskgit.training.checkpoints import Progress
from hf_maskgit.training.examples import prepare_examples
from hf_maskgit.training.orders import shuffled_updates
from hf_maskgit.training.passes import UpdateBatches, UpdateOrder, UpdateShares
from tests.support.tiny import word_tokenizer
from tests.support.tiny_training import examples, repeated_symbols

SIZE = 8  # of an update
CPU = torch.device("cpu")


def batches_of(process=0, num_processes=1, count=8, start=0, data=None, num_workers=0):
    """One process's batches of updates `start`, `start` + 1, ..., of 3 updates an epoch."""
    data = examples(3 * SIZE + 5) if data is None else data
    collator = DataCollatorForMaskGit(word_tokenizer(), seed=3)
    order = UpdateOrder(partial(shuffled_updates, len(data), SIZE, 3))
    shares = UpdateShares(data, collator, process, num_processes)
    progress = Progress({}, step=start, epoch=start // 3, updates_in_epoch=start % 3)
    found = []
    for batch in UpdateBatches(shares, order, CPU, num_workers).from_where_it_stands(progress):
        found.append(batch)
        progress.advance(3)
        if len(found) == count:
            return found
    raise AssertionError("batches come without end")


def rows_of(batches):
    """What each example of each batch holds, by example; padding, which others decide, is cut."""
    return [
        {
            int(number): {
                name: tensor[row][batch["attention_mask"][row].bool()].tolist()
                for name, tensor in batch.items()
                if tensor.ndim > 1
            }
            for row, number in enumerate(batch["example_id"])
        }
        for batch in batches
    ]


@pytest.mark.grid(2)
@pytest.mark.parametrize("num_processes", [1, 2, 4])
@pytest.mark.parametrize("start", [0, 2])
def test_the_shares_of_all_processes_are_the_update_of_one(num_processes, start):
    """The same examples with the same masks, tokens shown and weights: so, the same loss."""
    whole = rows_of(batches_of(count=5, start=start))
    shares = [
        rows_of(batches_of(process, num_processes, count=5, start=start))
        for process in range(num_processes)
    ]
    lengths = {len(rows["labels"]) for update in whole for rows in update.values()}
    assert len(lengths) > 3
    for update, *parts in zip(whole, *shares, strict=True):
        assert [len(part) for part in parts] == [SIZE // num_processes] * num_processes
        together = {number: rows for part in parts for number, rows in part.items()}
        assert together == update  # `==` of numbers, whose order in a dict does not count
        assert len(together) == SIZE


def test_an_update_is_that_of_the_collator_on_all_its_examples():
    data = examples(3 * SIZE + 5)
    collator = DataCollatorForMaskGit(word_tokenizer(), seed=3)
    for step, batch in enumerate(batches_of(count=6)):
        collator.set_epoch(step // 3)
        plain = collator([data[int(number)] for number in batch.pop("example_id")])
        assert plain.keys() == batch.keys()
        assert all(torch.equal(plain[name], batch[name]) for name in plain)


def test_a_run_that_goes_on_takes_the_batches_that_were_left():
    whole = rows_of(batches_of(1, 2, count=8))
    for start in range(1, 8):
        assert rows_of(batches_of(1, 2, count=8 - start, start=start)) == whole[start:]


@pytest.mark.wide
def test_workers_prepare_the_same_batches():
    alone, helped = (rows_of(batches_of(1, 2, count=5, num_workers=n)) for n in (0, 2))
    assert helped == alone


@pytest.mark.wide
@pytest.mark.parametrize("pack", ["joined", "separate"])
def test_workers_prepare_the_same_packed_batches(pack):
    texts = Dataset.from_dict({"text": repeated_symbols(96)})
    data, _ = prepare_examples(texts, word_tokenizer(), max_length=24, pack=pack)
    assert len(data) > 3 * SIZE
    alone, helped = (rows_of(batches_of(1, 2, count=5, data=data, num_workers=n)) for n in (0, 2))
    assert helped == alone


def test_columns_that_shape_the_masks_come_along():
    data = examples(3 * SIZE + 5)
    fixed = [[0, 0, *[1] * (len(ids) - 2)] for ids in data["input_ids"]]
    for batch in batches_of(1, 2, count=2, data=data.add_column("maskable", fixed)):
        assert (batch["labels"][:, 1] == -100).all()
        assert (batch["labels"][:, 2] != -100).all()


def test_examples_are_known_by_their_id_and_not_by_their_row():
    data = examples(3 * SIZE + 5)
    ids = [7 * number + 1000 for number in range(len(data))]
    data = data.remove_columns("example_id").add_column("example_id", ids)
    plain = rows_of(batches_of(count=1, data=data))
    parts = [rows_of(batches_of(process, 2, count=1, data=data)) for process in (0, 1)]
    assert {**parts[0][0], **parts[1][0]} == plain[0]
    assert set(plain[0]) <= set(ids)


@pytest.mark.parametrize(("num_examples", "size"), [(29, 8), (24, 8), (5, 5), (9, 1)])
def test_an_epoch_takes_each_example_once_in_the_order_of_accelerates_sampler(num_examples, size):
    """The order of releases in which Accelerate shuffled, so that their runs go on."""
    sampler = SeedableRandomSampler(range(num_examples), data_seed=4, generator=torch.Generator())
    for epoch in range(3):
        sampler.set_epoch(epoch)
        expected = list(sampler)
        found = shuffled_updates(num_examples, size, 4, epoch)
        assert found.shape == (num_examples // size, size)
        assert found.flatten().tolist() == expected[: found.numel()]
        assert sorted(expected) == list(range(num_examples))


def test_batches_leave_torchs_global_generator_as_it_was():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    batches_of(count=7)
    assert torch.equal(torch.get_rng_state(), before)
