"""Scores of single sequences and of mutants, against enumeration."""

import math
import re

import pytest
import torch

from hf_maskgit.evaluation import score, score_mutants
from tests.support.oracles import TableDenoiser, bound
from tests.support.tiny import tiny_model, word_tokenizer

TEXT, MUTANT = "a c b b", "a c a b"
IDS, MUTANT_IDS = (0, 2, 1, 1), (0, 2, 0, 1)


@pytest.fixture
def denoiser():
    return TableDenoiser.inconsistent(framed=True)


def _nats(denoiser, text, position, hidden):
    return -denoiser.log_prob(text, position, frozenset(hidden))


def test_the_shares_of_a_sequence_are_those_of_its_tokens(denoiser, tokenizer):
    (found,) = score(denoiser, [TEXT], tokenizer)
    one = [_nats(denoiser, IDS, i, {i}) for i in range(4)]
    assert found.conditional.tolist() == pytest.approx(one)
    assert found.pseudo_log_likelihood == pytest.approx(-sum(one))
    assert found.marginal.tolist() == pytest.approx(
        [_nats(denoiser, IDS, i, range(4)) for i in range(4)]
    )
    assert found.positions.tolist() == [1, 2, 3, 4]
    assert float(found.shares.sum()) == pytest.approx(found.bound)


@pytest.mark.wide
def test_maskings_are_drawn_until_the_error_asked_for(denoiser, tokenizer):
    """5 standard errors: false alarm 6e-7."""
    (rough,) = score(denoiser, [TEXT], tokenizer, std_error=9.0)
    (fine,) = score(denoiser, [TEXT], tokenizer, std_error=0.1, max_maskings=32_000)
    assert (rough.reached, fine.reached) == (True, True)
    assert rough.num_maskings == 64 < fine.num_maskings
    assert fine.std_error <= 0.1
    assert abs(fine.bound - bound(denoiser, IDS)) < 5 * fine.std_error


@pytest.mark.wide
def test_the_error_told_is_the_spread_over_seeds(denoiser, tokenizer):
    """Over 40 seeds the told variance is the true one within a factor of
    2.5, four standard errors of the logarithm: false alarm 1e-4."""
    found = [score(denoiser, [TEXT], tokenizer, std_error=9.0, seed=s)[0] for s in range(40)]
    spread = torch.tensor([one.bound for one in found]).double().var()
    told = torch.tensor([one.std_error**2 for one in found]).double().mean()
    assert 0.4 < float(told / spread) < 2.5


@pytest.mark.wide
def test_a_sequence_has_its_score_alone_and_beside_others(denoiser, tokenizer):
    together = score(denoiser, ["b a c a", TEXT], tokenizer, batch_size=3)
    (alone,) = score(denoiser, [TEXT], tokenizer, batch_size=1)
    assert together[1].bound == pytest.approx(alone.bound, rel=1e-12)


@pytest.mark.wide
def test_a_mutant_is_scored_in_pairs_under_common_masks(denoiser, tokenizer):
    (found,) = score_mutants(
        denoiser, TEXT, [MUTANT], tokenizer, std_error=0.1, max_maskings=32_000
    )
    expected = bound(denoiser, MUTANT_IDS) - bound(denoiser, IDS)
    assert abs(found.difference - expected) < 5 * found.std_error
    assert found.mutations == ((3, 6, 5),)
    assert found.pseudo_difference == pytest.approx(
        sum(_nats(denoiser, MUTANT_IDS, i, {i}) - _nats(denoiser, IDS, i, {i}) for i in range(4))
    )


def test_what_wild_type_and_mutant_have_in_common_cancels(tokenizer):
    """Where tokens do not depend on each other, a mutation costs what it costs, in every masking
    that hides it: the error of the difference is far below that of either bound."""
    law = TableDenoiser.context_free([0.7, 0.2, 0.1], [4], framed=True)
    (pair,) = score_mutants(law, TEXT, [MUTANT], tokenizer)
    wild, mutant = score(law, [TEXT, MUTANT], tokenizer, seed=0)
    assert abs(pair.difference - math.log(0.2 / 0.7)) < 5 * pair.std_error
    assert pair.std_error < 0.8 * math.hypot(wild.std_error, mutant.std_error)


def test_a_network_gives_finite_scores_and_keeps_its_mode():
    model = tiny_model().train()
    (found,) = score(model, ["w1 w2 w3"], word_tokenizer(), std_error=5.0)
    assert math.isfinite(found.bound)
    assert model.training


def test_one_is_told_where_the_error_is_as_large_as_what_is_compared(denoiser, tokenizer, caplog):
    score(denoiser, [TEXT, "a c b b"], tokenizer)
    assert "1 neighbours in the order of the bounds are no further apart" in caplog.text
    caplog.clear()
    flat = TableDenoiser.context_free([1 / 3] * 3, [4], framed=True)
    (found,) = score_mutants(flat, TEXT, [MUTANT], tokenizer)
    assert not found.is_told_apart
    assert "1 of 1 mutants differ from the wild type by no more than the error" in caplog.text


def test_one_is_told_where_the_most_maskings_do_not_do(denoiser, tokenizer, caplog):
    few = {"std_error": 1e-3, "max_maskings": 64}
    (found,) = score(denoiser, [TEXT], tokenizer, **few)
    assert (found.reached, found.num_maskings) == (False, 64)
    assert "64 maskings were drawn, the most allowed: the bound of 'a c b b' has" in caplog.text
    (pair,) = score_mutants(denoiser, TEXT, [MUTANT], tokenizer, **few)
    assert not pair.reached
    assert "the score of 'a c a b' has a standard error of" in caplog.text


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"std_error": 0}, "`std_error` must be greater than 0, got 0"),
        ({"max_maskings": 8}, "`max_maskings` must be an integer of at least 64, got 8"),
        ({"max_maskings": 100}, "`max_maskings` must be a multiple of 64, got 100"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": 0.5}, "`seed` must be an integer, got 0.5"),
    ],
)
def test_options_out_of_their_range_are_refused(options, told, denoiser, tokenizer):
    with pytest.raises(ValueError, match=told):
        score(denoiser, [TEXT], tokenizer, **options)
    assert denoiser.calls == 0


def test_what_is_no_list_of_texts_is_refused(denoiser, tokenizer):
    with pytest.raises(TypeError, match="`texts` must be a list of texts, got str"):
        score(denoiser, TEXT, tokenizer)
    with pytest.raises(TypeError, match="got a list with int"):
        score(denoiser, [7], tokenizer)
    with pytest.raises(ValueError, match="`mutants` is empty: there is nothing to score"):
        score_mutants(denoiser, TEXT, [], tokenizer)


@pytest.mark.parametrize(("bad", "told"), [("", "has no maskable"), ("a [MASK]", "holds the mask")])
def test_a_text_that_cannot_be_scored_is_named(denoiser, tokenizer, bad, told):
    with pytest.raises(ValueError, match=re.escape(f"The text {bad!r} {told} token")):
        score(denoiser, [TEXT, bad], tokenizer)
    assert denoiser.calls == 0


def test_what_is_no_mutant_is_refused(denoiser, tokenizer):
    with pytest.raises(ValueError, match="'a c b' has 3 tokens and the wild type 4"):
        score_mutants(denoiser, TEXT, ["a c b"], tokenizer)
    with pytest.raises(ValueError, match="has the tokens of the wild type; leave it out"):
        score_mutants(denoiser, TEXT, [TEXT], tokenizer)
    assert denoiser.calls == 0


def test_texts_that_begin_alike_are_told_apart_by_their_numbers(denoiser, tokenizer, caplog):
    """Of a library of mutants every beginning is that of the wild type."""
    wild, mutant, short = (text.replace(" ", " " * 20) for text in (TEXT, MUTANT, "a c b"))
    with pytest.raises(ValueError, match=r"\.\.\.' \(number 2\) has the tokens of the wild type"):
        score_mutants(denoiser, wild, [mutant, wild], tokenizer)
    with pytest.raises(ValueError, match=r"\.\.\.' \(number 2\) has 3 tokens and the wild type 4"):
        score_mutants(denoiser, wild, [mutant, short], tokenizer)
    assert denoiser.calls == 0
    flat = TableDenoiser.context_free([1 / 3] * 3, [4], framed=True)
    score_mutants(flat, wild, [mutant], tokenizer)
    assert "...' (number 1): their signs say nothing" in caplog.text
