"""Confidences against how often they are right."""

import pytest
import torch

from hf_maskgit.evaluation import Calibration, calibration, draw_reliability, masked_accuracy
from tests.support.oracles import word_piece_tokenizer
from tests.support.table_texts import examples, framed_denoiser


def test_the_expected_error_by_hand():
    """Bins of a half: 0.2 and 0.4 with one right, 0.9 and 1.0 with both right."""
    found = Calibration.of(
        torch.tensor([0.2, 0.9, 0.5, 1.0]), torch.tensor([True, True, False, True]), 2
    )
    assert found.count.tolist() == [2, 2]
    assert found.right.tolist() == [1, 2]
    assert found.expected_error == pytest.approx((abs(1 - 0.7) + abs(2 - 1.9)) / 4, abs=1e-7)
    assert found.accuracy == 0.75
    assert found.mean_confidence == pytest.approx(0.65)
    twice = Calibration.add([found, found])
    assert (twice.total, twice.expected_error) == (8, pytest.approx(found.expected_error))


def test_a_law_that_tells_the_truth_is_calibrated_and_a_bold_one_is_not(tokenizer):
    """Of 10 tokens 7 are the first; every prediction of it is made with the same confidence."""
    texts = examples(*[(0,)] * 7, *[(1,)] * 2, (2,))
    common = {"mask_rates": [1.0], "progress": False}
    true, bold = (framed_denoiser(law) for law in ([0.7, 0.2, 0.1], [0.9, 0.05, 0.05]))
    found = calibration(true, texts, tokenizer, **common)[1.0]
    assert (found.accuracy, found.total) == (0.7, 10)
    assert found.expected_error == pytest.approx(0, abs=1e-7)
    bold_one = calibration(bold, texts, tokenizer, **common)[1.0]
    assert bold_one.expected_error == pytest.approx(0.2, abs=1e-7)


def test_shares_add_up_and_the_accuracy_is_that_of_its_own_measure(tokenizer):
    texts = examples((0, 1, 0), (1,), (0, 0, 2, 1), (2, 1), (0, 0))
    common = {"mask_rates": [0.5, 1.0], "progress": False, "batch_size": 2}
    denoiser = framed_denoiser([0.5, 0.3, 0.2])
    whole = calibration(denoiser, texts, tokenizer, **common)
    accuracy = masked_accuracy(denoiser, texts, tokenizer, **common)
    assert {rate: one.accuracy for rate, one in whole.items()} == accuracy
    shares = [calibration(denoiser, texts, tokenizer, **common, share=(i, 2)) for i in (0, 1)]
    for rate, one in whole.items():
        added = Calibration.add([share[rate] for share in shares])
        assert torch.equal(added.count, one.count)
        assert torch.equal(added.right, one.right)


@pytest.mark.wide
def test_the_picture_is_drawn(tmp_path):
    found = Calibration.of(torch.rand(200), torch.rand(200) < 0.5)
    path = draw_reliability({"half hidden": found}, tmp_path / "reliability.png")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_bins_are_at_least_one(tokenizer):
    with pytest.raises(ValueError, match="num_bins"):
        calibration(framed_denoiser(), examples((0,)), word_piece_tokenizer("abc"), num_bins=0)
