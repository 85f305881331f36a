"""One pass of an encoder: rows of different lengths without their padding, in the order asked."""

import pytest
import torch

from hf_maskgit.core.encoder_padding import run_by_length

PAD = 0
# The worked row of `run_by_length`: x are the places wanted, - is padding.
ROWS = torch.tensor([[1, 2, 3], [4, 5, PAD], [6, 7, 8]])
WANTED = torch.tensor([[False, True, True], [False, True, False], [False, False, True]])


def spell(seen):
    """A pass whose two logits of a token are its id and its id squared; notes what it was given."""

    def run(of_rows, places):
        ids = of_rows["input_ids"]
        seen.append(ids.tolist())
        logits = torch.stack([ids, ids**2], -1).float()
        return logits if places is None else logits[places]

    return run


@pytest.mark.parametrize("side", ["right", "left"])
def test_rows_run_by_length_and_come_back_in_their_order(side):
    rows, wanted = ROWS, WANTED
    if side == "left":
        rows, wanted = rows.clone(), wanted.clone()
        rows[1], wanted[1] = rows[1].roll(1), wanted[1].roll(1)
    seen = []
    found = run_by_length(spell(seen), {"input_ids": rows}, (rows != PAD).long(), wanted)
    assert seen == [[[4, 5]], [[1, 2, 3], [6, 7, 8]]]
    assert found.tolist() == [[2, 4], [3, 9], [5, 25], [8, 64]]


def test_everywhere_means_zeros_at_padding():
    found = run_by_length(spell([]), {"input_ids": ROWS}, (ROWS != PAD).long(), None)
    assert torch.equal(found, torch.stack([ROWS, ROWS**2], -1).float())


def test_a_row_of_one_token_has_its_pass_and_one_of_none_has_zeros():
    seen, rows = [], torch.tensor([[1, 2], [3, PAD], [PAD, PAD]])
    found = run_by_length(spell(seen), {"input_ids": rows}, (rows != PAD).long(), None)
    assert seen == [[[3]], [[1, 2]]]
    assert found.tolist() == [[[1, 1], [2, 4]], [[3, 9], [0, 0]], [[0, 0], [0, 0]]]


def test_the_gradient_of_each_row_finds_its_pass():
    rows = ROWS.float().requires_grad_()
    logits = run_by_length(
        lambda of_rows, places: of_rows["input_ids"].pow(2).unsqueeze(-1),
        {"input_ids": rows},
        (ROWS != PAD).long(),
        None,
    )
    (gradient,) = torch.autograd.grad(logits.sum(), rows)
    assert torch.equal(gradient, 2.0 * ROWS)
