"""One update: however many pieces it is taken in, the gradient is the same."""

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import SGD

from hf_maskgit import DataCollatorForMaskGit
from hf_maskgit.training.learning_rates import updates_of
from hf_maskgit.training.updates import (
    backward_factor,
    examples_per_update,
    micro_batches,
    take_update,
    total_updates,
    updates_per_epoch,
)
from tests.support.tiny import tiny_model, word_tokenizer
from tests.support.tiny_training import repeated_symbols

pytestmark = pytest.mark.usefixtures("_fresh_accelerate")


def update_of(num_examples):
    """One update of texts of different lengths, masked and corrupted as in training."""
    tokenizer = word_tokenizer()
    texts = tokenizer(repeated_symbols(num_examples))["input_ids"]
    collate = DataCollatorForMaskGit(tokenizer, seed=1)
    return collate([{"input_ids": ids, "example_id": i} for i, ids in enumerate(texts)])


def gradient_by_hand(model, batch):
    """The gradient of the plain formula: all logits, one sum, one division."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    logits[..., model.config.forbidden_token_ids] = -torch.inf
    losses = F.cross_entropy(logits.transpose(1, 2), batch["labels"], reduction="none")
    loss = (losses * batch["loss_weights"])[batch["masked_positions"]].sum()
    loss = loss / (batch["labels"] != -100).sum()
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return float(loss.detach()), gradients


def gradient_of_update(batch, micro_batch_size, accumulation=1, max_grad_norm=0.0):
    """The loss and the gradient that `take_update` steps along, read off plain SGD with rate 1."""
    model = tiny_model().double()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulation)
    prepared, optimizer = accelerator.prepare(model, SGD(model.parameters(), lr=1.0))
    update = take_update(accelerator, prepared, optimizer, batch, micro_batch_size, max_grad_norm)
    after = dict(model.named_parameters())
    return update, {name: before[name] - after[name].detach() for name in before}


@pytest.mark.parametrize(("size", "accumulation"), [(8, 1), (2, 1), (2, 4), (3, 3), (1, 1)])
def test_an_update_taken_in_pieces_has_the_gradient_of_the_plain_formula(size, accumulation):
    batch = update_of(8)
    loss, expected = gradient_by_hand(tiny_model().double(), batch)
    update, found = gradient_of_update(batch, size, accumulation)
    assert float(update.loss) == pytest.approx(loss, abs=1e-6)
    assert int(update.num_tokens) == int((batch["labels"] != -100).sum())
    for name, gradient in found.items():
        if name in expected:
            torch.testing.assert_close(gradient, expected[name], atol=1e-9, rtol=1e-7)
        else:
            assert not gradient.any(), name


def test_the_gradient_is_clipped_as_one_vector():
    batch = update_of(8)
    _, free = gradient_of_update(batch, 4)
    _, clipped = gradient_of_update(batch, 4, max_grad_norm=0.01)
    norm = torch.cat([g.flatten() for g in free.values()]).norm()
    assert norm > 0.01
    for name, gradient in free.items():
        torch.testing.assert_close(clipped[name], gradient * 0.01 / norm, rtol=1e-3, atol=1e-9)


def test_an_update_without_a_maskable_token_is_refused():
    batch = update_of(2)
    batch["labels"] = torch.full_like(batch["labels"], -100)
    batch["masked_positions"] = torch.zeros_like(batch["masked_positions"])
    with pytest.raises(ValueError, match="No token of this update may be masked"):
        gradient_of_update(batch, 2)


@pytest.mark.parametrize("padding_side", ["right", "left"])
def test_micro_batches_keep_every_real_token_and_drop_mere_padding(padding_side):
    tokenizer = word_tokenizer()
    tokenizer.padding_side = padding_side
    lengths = [3, 9, 2, 2, 5]
    features = [{"input_ids": [2, *range(5, 5 + n), 3], "example_id": n} for n in lengths]
    batch = DataCollatorForMaskGit(tokenizer)(features)
    batch["row"] = torch.arange(5)
    pieces = list(micro_batches(batch, 2))
    assert [piece["row"].tolist() for piece in pieces] == [[1, 4], [0, 2], [3]]
    assert [piece["input_ids"].shape[1] for piece in pieces] == [11, 5, 4]
    for name in ("input_ids", "labels", "loss_weights", "masked_positions"):
        for piece in pieces:
            for row, values, real in zip(
                piece["row"], piece[name], piece["attention_mask"].bool(), strict=True
            ):
                whole = batch[name][row][batch["attention_mask"][row].bool()]
                assert torch.equal(values[real], whole)


def test_processes_exchange_gradients_once_per_update(monkeypatch):
    spared = []

    def no_sync(self, model):
        spared.append(model)
        return nullcontext()

    monkeypatch.setattr(Accelerator, "no_sync", no_sync)
    gradient_of_update(update_of(8), micro_batch_size=3)
    assert len(spared) == 2  # of the three micro-batches


@given(
    st.integers(1, 64),
    st.integers(1, 16),
    st.integers(1, 64),
    st.integers(0, 5000),
    st.floats(0.1, 9),
)
def test_counts_of_updates_fit_together(processes, accumulation, size, spare, epochs):
    update = examples_per_update(processes, accumulation, size)
    assert update % (processes * accumulation) == 0
    assert update // processes // accumulation == size
    examples = update + spare
    per_epoch = updates_per_epoch(examples, update)
    assert per_epoch * update <= examples < (per_epoch + 1) * update
    total = total_updates(epochs, per_epoch, None)
    assert total >= 1
    assert abs(total - epochs * per_epoch) <= 1
    assert total_updates(epochs, per_epoch, 7) == 7
    assert 0 <= updates_of(0.1, total) <= total
    # what accelerate divides by (its accumulation) times what averaging divides by (processes)
    assert backward_factor(processes, accumulation) / accumulation / processes == 1


def test_examples_that_do_not_fill_an_update_are_refused():
    with pytest.raises(ValueError, match="63 training examples, too few for one update of 64"):
        updates_per_epoch(63, 64)
