"""Does decoding with an exact denoiser sample the law that the denoiser knows?

A chain of 3 symbols and 5 places has 243 texts. The denoiser is its exact posterior, so any order
that does not look at the drawn token must give the chain's own law when each pass reveals one
token. All samples come through `fill_masks`; chi-square tests whether they could be the chain's.
Each test that accepts raises a false alarm with odds of 1e-6 under a fresh seed; the same test with
the same number of samples rejects what is known to distort the law.
"""

import itertools

import pytest
import torch

from hf_maskgit.decoding import DecodingState, Sampler, fill_masks
from hf_maskgit.schedules import get_schedule
from tests.oracles_sampling import CHAIN, chi_square, text_frequencies

LENGTH, MASK, SAMPLES = 5, 3, 20_000
ACCEPT, REJECT = 1e-6, 1e-30


def sample(known=None, *, seed=0, **options):
    """Draw SAMPLES texts, (SAMPLES, LENGTH) long; `known` fixes symbols by place."""
    text = torch.full((SAMPLES, LENGTH), MASK)
    for place, symbol in (known or {}).items():
        text[:, place] = symbol
    settings = {"steps": LENGTH, "schedule": "linear", "anneal_temperature": False, **options}
    sampler = Sampler(
        mask_token_id=MASK,
        suppressed=torch.tensor([MASK]),
        end_ids=torch.tensor([], dtype=torch.long),
        **{**settings, "schedule": get_schedule(settings["schedule"])},
    )
    masked = text == MASK
    filled, passes, *_ = fill_masks(
        CHAIN.logits_fn,
        DecodingState.start(text, masked, masked),
        torch.full((SAMPLES,), LENGTH),
        sampler,
        range(seed, seed + SAMPLES),
    )
    assert bool((filled < MASK).all())
    assert bool((passes == min(settings["steps"], LENGTH - len(known or {}))).all())
    return filled


def p_value(texts, law=None):
    """Odds that samples of the chain look as odd as these."""
    law = CHAIN.law(LENGTH) if law is None else law
    return chi_square(text_frequencies(texts, 3), law.numpy())


@pytest.fixture(scope="module")
def one_random_place_at_a_time():
    return sample(order="random")


def test_the_oracle_is_the_chain_by_enumeration():
    texts, law = CHAIN.texts(LENGTH), CHAIN.law(LENGTH)
    assert float(law.sum()) == pytest.approx(1)
    revealed = torch.tensor(list(itertools.product(range(4), repeat=LENGTH)))  # (1024, L)
    fits = ((texts == revealed[:, None]) | (revealed[:, None] == MASK)).all(-1)
    has = torch.nn.functional.one_hot(texts).double()  # (243, L, 3)
    joint = torch.einsum("rt,t,tls->rls", fits.double(), law, has)
    assert torch.allclose(CHAIN.posteriors(revealed), joint / joint.sum(-1, keepdim=True))


def test_random_order_samples_the_chain(one_random_place_at_a_time):
    assert p_value(one_random_place_at_a_time) > ACCEPT


@pytest.mark.parametrize("choice_temperature", [0.0, 1.0])
def test_choosing_the_place_before_the_token_samples_the_chain(choice_temperature):
    texts = sample(order="top_probability", choice_temperature=choice_temperature)
    assert p_value(texts) > ACCEPT


def test_one_pass_does_not_sample_the_chain():
    """All places at once are independent draws from the marginals, and not from the chain."""
    texts = sample(order="random", steps=1)
    assert p_value(texts) < REJECT
    marginals = CHAIN.posteriors(torch.full((1, LENGTH), MASK))[0]
    independent = marginals[torch.arange(LENGTH), CHAIN.texts(LENGTH)].prod(1)
    assert p_value(texts, independent) > ACCEPT


def test_choosing_by_the_drawn_token_does_not_sample_the_chain():
    assert p_value(sample(order="confidence")) < REJECT


def test_annealing_sharpens(one_random_place_at_a_time):
    texts = sample(order="random", anneal_temperature=True)
    assert p_value(texts) < REJECT
    law = CHAIN.law(LENGTH)

    def mean_log_probability(samples):
        index = (samples * 3 ** torch.arange(LENGTH - 1, -1, -1)).sum(1)
        return float(law.log()[index].mean())

    assert mean_log_probability(texts) > mean_log_probability(one_random_place_at_a_time) + 0.5


@pytest.mark.parametrize("order", ["random", "top_probability"])
def test_infilling_samples_the_chain_given_the_known_symbols(order):
    known = {1: 2, 4: 0}
    texts = sample(known, order=order)
    assert bool((texts[:, 1] == 2).all())
    assert bool((texts[:, 4] == 0).all())
    law = CHAIN.law(LENGTH)
    fits = (CHAIN.texts(LENGTH)[:, [1, 4]] == torch.tensor([2, 0])).all(1)
    given = law[fits] / law[fits].sum()
    assert chi_square(text_frequencies(texts, 3)[fits.numpy()], given.numpy()) > ACCEPT


def test_temperature_sharpens_as_it_should():
    """One place at temperature T is drawn from the marginal to the power 1/T, normalised."""
    known = {0: 0, 1: 0, 3: 2, 4: 2}
    texts = sample(known, order="random", temperature=0.5, steps=1)
    evidence = torch.tensor([[0, 0, MASK, 2, 2]])
    sharp = CHAIN.posteriors(evidence)[0, 2] ** 2
    counts = torch.bincount(texts[:, 2], minlength=3).numpy()
    assert chi_square(counts, (sharp / sharp.sum()).numpy()) > ACCEPT
    assert chi_square(counts, CHAIN.posteriors(evidence)[0, 2].numpy()) < REJECT
