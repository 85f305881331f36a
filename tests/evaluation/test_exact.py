"""The exact likelihood against all orders written out."""

import math

import numpy as np
import pytest
import torch

from hf_maskgit.evaluation import exact_likelihood, nelbo
from tests.support.grids import wide
from tests.support.oracles import (
    CLS,
    MASK,
    SEP,
    TableDenoiser,
    all_texts,
    bound,
    negative_log_likelihood,
)
from tests.support.table_texts import TEXT, ids, keyed
from tests.support.tiny import tiny_model


@pytest.mark.wide
def test_summing_over_subsets_is_the_mean_over_all_orders():
    denoiser, texts = TableDenoiser.inconsistent(), all_texts(3, 4)
    found = exact_likelihood(denoiser, ids(*texts), batch_size=7)
    assert found.nats.tolist() == pytest.approx(
        [negative_log_likelihood(denoiser, text) for text in texts], rel=1e-12
    )
    assert found.bound_nats.tolist() == pytest.approx(
        [bound(denoiser, text) for text in texts], rel=1e-12
    )
    assert (found.bound_nats - found.nats).min() >= 0
    assert found.num_tokens.tolist() == [4] * 81


def test_the_exact_probabilities_of_all_texts_sum_to_one():
    """Whatever the conditionals: random-order generation is a law."""
    found = exact_likelihood(TableDenoiser.inconsistent(lengths=(3,)), ids(*all_texts(3, 3)))
    assert float((-found.nats).exp().sum()) == pytest.approx(1, abs=1e-12)


def test_a_joint_law_costs_what_it_says_in_both():
    joint = np.random.default_rng(1).dirichlet(np.ones(27)).reshape(3, 3, 3)
    found = exact_likelihood(TableDenoiser.consistent(joint), ids(*all_texts(3, 3)))
    expected = [-math.log(joint[text]) for text in all_texts(3, 3)]
    assert found.nats.tolist() == pytest.approx(expected, rel=1e-9)
    assert found.bound_nats.tolist() == pytest.approx(expected, rel=1e-9)


def test_given_tokens_are_conditioned_on():
    denoiser = TableDenoiser.inconsistent()
    maskable = torch.tensor([[False, True, False, True]])
    found = exact_likelihood(denoiser, ids(TEXT), maskable=maskable)
    assert float(found.bound_nats) == pytest.approx(bound(denoiser, TEXT, (1, 3)), rel=1e-12)
    assert int(found.num_tokens) == 2


def test_texts_in_padding_cost_what_they_cost_alone():
    denoiser = TableDenoiser.inconsistent(lengths=(1, 2, 3), framed=True)
    rows = torch.tensor([[CLS, 5, 7, 6, SEP], [0, 0, CLS, 6, SEP]])
    together = exact_likelihood(denoiser, rows, rows.ne(0).long())
    alone = [exact_likelihood(denoiser, rows[i : i + 1, at:]) for i, at in ((0, 0), (1, 2))]
    assert together.nats.tolist() == pytest.approx([float(one.nats) for one in alone], rel=1e-12)


@pytest.mark.wide
@pytest.mark.parametrize("num_samples", [300, wide(2000)])
def test_the_estimated_bound_of_a_network_lies_about_the_exact_one(num_samples):
    """5 standard errors: false alarm 6e-7."""
    model = tiny_model()
    rows = torch.tensor([[2, 7, 8, 9, 30, 11, 3]])
    exact = exact_likelihood(model, rows)
    estimate = nelbo(model.eval(), rows, num_samples=num_samples, generator=keyed())
    assert abs(float(estimate.nats - exact.bound_nats)) < 5 * float(estimate.std_error)
    assert float(exact.bound_nats) > float(exact.nats)


def test_a_long_text_is_refused_before_any_pass():
    denoiser = TableDenoiser.inconsistent()
    with pytest.raises(ValueError, match=r"A text has 4 maskable tokens: .* 2\^4 - 1 passes"):
        exact_likelihood(denoiser, ids(TEXT), most_tokens=3)
    with pytest.raises(ValueError, match="holds the mask token"):
        exact_likelihood(denoiser, torch.tensor([[5, MASK, 6, 7]]))
    assert denoiser.calls == 0
