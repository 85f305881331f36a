"""Errors over texts and over maskings, told apart; two models in pairs."""

import itertools
import math

import numpy as np
import pytest
import torch

from hf_maskgit.evaluation import NelboOutput, compare_bounds, evaluate_nelbo, nelbo, per_token
from hf_maskgit.evaluation.corpus import per_unit
from tests.support.oracles import TableDenoiser, word_piece_tokenizer
from tests.support.table_texts import TEXT, examples, ids, keyed


def test_a_ratio_and_its_errors_by_hand():
    """Texts of 1 and 3 units with 2 and 10 nats: 12 / 4, residuals -1 and 1."""
    found = per_unit(
        torch.tensor([2.0, 10.0]).double(), torch.tensor([0.3, 0.4]).double(), torch.tensor([1, 3])
    )
    assert found.value == 3
    assert found.masking_std_error == pytest.approx(0.5 / 4)
    assert found.std_error == pytest.approx(math.sqrt(2 / 1 * 2) / 4)
    assert found.text_std_error == pytest.approx(math.sqrt(4 - 0.25) / 4)
    low, high = found.interval()
    assert (low + high) / 2 == pytest.approx(3)
    assert high - low == pytest.approx(2 * 1.959964 * found.std_error, rel=1e-6)
    assert found.interval(0.5, "maskings")[1] == pytest.approx(3 + 0.67449 * 0.125, rel=1e-5)


def test_the_error_over_texts_is_the_spread_over_corpora():
    """2000 corpora of 40 texts: the mean squared error is the squared error told, within 10 %.

    The relative error of a variance from 2000 draws is 3 %, of the told one less."""
    generator = torch.Generator().manual_seed(0)
    units = torch.randint(1, 20, (2000, 40), generator=generator)
    own = (2 + 0.5 * torch.randn(2000, 40, generator=generator)) * units
    masking = 0.3 * units.double()
    nats = own + masking * torch.randn(2000, 40, generator=generator)
    found = [per_unit(*row) for row in zip(nats, masking, units, strict=True)]
    spread = torch.tensor([one.value for one in found]).double().var()
    told = torch.tensor([one.std_error**2 for one in found]).double().mean()
    assert float(told / spread) == pytest.approx(1, abs=0.12)
    of_texts = torch.tensor([one.text_std_error**2 for one in found]).double().mean()
    assert float(of_texts / told) == pytest.approx(0.25 / (0.25 + 0.09), abs=0.05)


def test_one_text_has_no_error_over_texts():
    found = per_token(nelbo(TableDenoiser.inconsistent(), ids(TEXT), generator=keyed()))
    assert (found.text_std_error, found.std_error) == (None, None)
    with pytest.raises(ValueError, match="One text does not tell how much texts differ"):
        found.interval()
    assert found.interval(errors="maskings")[0] < found.value
    with pytest.raises(ValueError, match=r"`confidence` must lie in \(0, 1\), got 95"):
        found.interval(95)
    with pytest.raises(ValueError, match="`errors` must be 'both' or 'maskings', got 'texts'"):
        found.interval(errors="texts")


def _measured(denoiser, **options):
    return evaluate_nelbo(
        denoiser,
        examples((0, 2, 1, 1), (0, 1, 2, 0), (2, 2, 2, 1)),
        word_piece_tokenizer("abc"),
        progress=False,
        **options,
    )


def test_common_masks_leave_nothing_between_models_that_differ_by_a_constant():
    """A model whose every token costs log 2 more: the difference is n log 2 in every masking."""
    one = TableDenoiser.inconsistent(framed=True)
    wide = np.full((5,) * 4 + (4, 4), math.log(0.5))  # a fourth token has the other half
    for state in itertools.product(range(4), repeat=4):  # 3 is hidden, and 4 in the wide table
        at = tuple(4 if token == 3 else token for token in state)
        wide[at][:, :3] = one.table[4][state] - math.log(2)
    other = TableDenoiser({4: wide}, framed=True)
    narrow, broad = _measured(one), _measured(other)
    found = compare_bounds(broad, narrow)
    assert found.nats.tolist() == pytest.approx([4 * math.log(2)] * 3, rel=1e-9)
    assert found.nats_per_token.value == pytest.approx(math.log(2))
    assert found.std_error.max() < 1e-9 < float(narrow.std_error.min())
    assert found.nats_per_token.std_error < 1e-9
    assert (found.share_better, compare_bounds(narrow, broad).share_better) == (0, 1)
    assert compare_bounds(narrow, narrow).share_better == 0.5


def test_the_error_of_a_difference_is_that_of_its_pairs():
    one, other = (TableDenoiser.inconsistent(seed=seed, framed=True) for seed in (0, 1))
    first, second = _measured(one), _measured(other)
    found = compare_bounds(first, second)
    pairs = first.pairs - second.pairs
    assert torch.equal(found.nats, pairs.mean(1))
    torch.testing.assert_close(found.nats, first.nats - second.nats)
    torch.testing.assert_close(found.std_error, pairs.std(1) / 2)


def test_what_cannot_be_compared_is_refused():
    denoiser = TableDenoiser.inconsistent(framed=True)
    found = _measured(denoiser)
    with pytest.raises(ValueError, match="The two were measured on different texts"):
        compare_bounds(found, found.at(torch.tensor([0])))
    with pytest.raises(ValueError, match="measured with 8 and 4 maskings per text"):
        compare_bounds(found, _measured(denoiser, num_samples=4))
    bare = NelboOutput(found.nats, found.std_error, found.num_tokens)
    with pytest.raises(ValueError, match="without its `pairs` of maskings"):
        compare_bounds(found, bare)
