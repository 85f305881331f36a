"""Does decoding with an exact denoiser sample the law that the denoiser knows?

A hidden Markov chain with 3 symbols and 6 places has 729 texts. The denoiser is its exact
posterior, so what reveals one token per pass, at a place chosen without a look at that token, must
give the chain's own law. All samples come through `fill_masks`; chi-square tests whether they could
be the chain's. Each test that accepts raises a false alarm with odds of 1e-6 under a fresh seed
(the seeds here are fixed); beside it the same test, with the same number of samples, rejects a
sampler that breaks the law. Annealing is off throughout, the temperature 1.
"""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from scipy import stats

import hf_maskgit.core.decoding
from hf_maskgit.core.sampler_paces import (
    mask_rates_by_blocks,
    remaining_by_blocks,
    reveal_probability,
)
from hf_maskgit.core.sampler_remasks import loop_mask_rates
from hf_maskgit.core.sampler_rules import PACES, REMASKS
from hf_maskgit.core.sampler_scores import highest
from hf_maskgit.core.schedules import get_schedule
from tests.support.grids import wide
from tests.support.oracles_sampling import (
    CHAIN,
    Oracle,
    all_rows,
    chi_square,
    number_of,
    text_frequencies,
    total_variation,
    total_variation_of_noise,
)
from tests.support.sampler_runs import run

LENGTH, MASK, SAMPLES = 6, 3, 10_000
ACCEPT, REJECT = 1e-6, 1e-30
ORACLE = Oracle.exact(CHAIN, LENGTH)
NOISE, NOISE_DEVIATION = total_variation_of_noise(ORACLE.law.numpy(), SAMPLES)
POSITION_SCORES = ["top_probability", "margin", "entropy"]
PLACE_FIRST = [*POSITION_SCORES, "random", "left_to_right"]


def p_value(filled, law=None):
    """Odds that samples of the law look as odd as these; no mask may be left."""
    law = ORACLE.law if law is None else law
    assert bool((filled.text < MASK).all())
    return chi_square(text_frequencies(filled.text, MASK), law.numpy())


def distance(**options):
    """Total variation between the chain and samples of a sampler."""
    filled = run(ORACLE, SAMPLES, **options)
    return total_variation(text_frequencies(filled.text, MASK), ORACLE.law.numpy())


@pytest.fixture(scope="module")
def one_random_place_at_a_time():
    """As `generate` does it, each row with the noise of its own seed."""
    return run(ORACLE, SAMPLES, order="random", keyed_noise=True)


# --- the oracle ----------------------------------------------------------------------------------


def test_the_oracle_is_the_chain_by_enumeration():
    """Each place of each text with any masks: add up the texts that fit everywhere else."""
    length = 4
    texts, law = CHAIN.texts(length), CHAIN.law(length)
    assert float(law.sum()) == pytest.approx(1)
    revealed = all_rows(MASK + 1, length)  # (256, L)
    fits = (texts == revealed[:, None]) | (revealed[:, None] == MASK)  # (256, 81, L)
    posteriors = CHAIN.posteriors(revealed)
    for place in range(length):
        others = [i for i in range(length) if i != place]
        weights = fits[..., others].all(-1) * law  # (256, 81)
        expected = torch.stack([weights[:, texts[:, place] == k].sum(1) for k in range(3)], 1)
        expected /= expected.sum(1, keepdim=True)
        assert torch.allclose(posteriors[:, place], expected, rtol=1e-12)


def test_the_chain_is_the_one_it_is_simulated_from():
    """As many walks through states and symbols, drawn with nothing but `multinomial`."""
    generator = torch.Generator().manual_seed(1)
    state = torch.multinomial(CHAIN.initial, SAMPLES, replacement=True, generator=generator)
    places = []
    for _ in range(LENGTH):
        places.append(torch.multinomial(CHAIN.emission[state], 1, generator=generator))
        state = torch.multinomial(CHAIN.transition[state], 1, generator=generator).squeeze(1)
    counts = text_frequencies(torch.cat(places, 1), MASK)
    assert chi_square(counts, ORACLE.law.numpy()) > ACCEPT
    assert abs(total_variation(counts, ORACLE.law.numpy()) - NOISE) < 5 * NOISE_DEVIATION


def test_the_critic_knows_the_odds_of_each_token():
    """Log-odds of p(x_i | the others), from the probabilities of the texts that differ there."""
    texts, law = CHAIN.texts(LENGTH), ORACLE.law
    everywhere = torch.ones_like(texts, dtype=torch.bool)
    odds = ORACLE.critic_fn(torch.arange(len(texts)), texts, everywhere).view_as(texts).exp()
    for place in range(LENGTH):
        others = torch.zeros_like(law)
        for shift in (1, 2):
            other = texts.clone()
            other[:, place] = (other[:, place] + shift) % 3
            others += law[number_of(other, 3)]
        assert torch.allclose(odds[:, place], law / others)


# --- one reveal per pass, the place chosen first -------------------------------------------------


def test_random_order_samples_the_chain(one_random_place_at_a_time):
    assert p_value(one_random_place_at_a_time) > ACCEPT
    assert one_random_place_at_a_time.passes.tolist() == [LENGTH] * SAMPLES


@pytest.mark.grid(2)
@pytest.mark.parametrize("order", PLACE_FIRST)
def test_choosing_the_place_before_the_token_samples_the_chain(order):
    assert p_value(run(ORACLE, SAMPLES, order=order)) > ACCEPT
    two_at_a_time = run(ORACLE, SAMPLES, order=order, steps=3)
    assert p_value(two_at_a_time) < REJECT


@pytest.mark.parametrize("order", POSITION_SCORES)
def test_noise_on_the_order_of_places_keeps_the_law(order):
    assert p_value(run(ORACLE, SAMPLES, order=order, choice_temperature=1.0)) > ACCEPT


@pytest.mark.wide
def test_noise_on_the_order_of_drawn_tokens_does_not_restore_the_law():
    bias = [distance(order="confidence", choice_temperature=tau) for tau in (0.0, 1.0, 4.0)]
    assert bias[0] > bias[1] > bias[2] > NOISE + 10 * NOISE_DEVIATION


@pytest.mark.grid(2, first=1)
@pytest.mark.parametrize("order", PLACE_FIRST)
def test_blocks_keep_the_law(order):
    """6 steps over blocks of 4 and 2 are 4 and 2; of 4 steps the larger gets 3: two at once."""
    filled = run(ORACLE, SAMPLES, order=order, block_length=4, steps=6)
    assert p_value(filled) > ACCEPT
    assert filled.passes.tolist() == [LENGTH] * SAMPLES
    assert p_value(run(ORACLE, SAMPLES, order=order, block_length=4, steps=4)) < REJECT


def test_first_hitting_samples_the_chain(monkeypatch):
    filled = run(ORACLE, SAMPLES, pace="first_hitting", steps=1)
    assert p_value(filled) > ACCEPT
    assert filled.passes.tolist() == [LENGTH] * SAMPLES

    def two(turn, look, places):
        return highest(look.scores, places, 2 * torch.ones_like(turn.asked.remaining))

    monkeypatch.setitem(PACES, "first_hitting", replace(PACES["first_hitting"], choose=two))
    assert p_value(run(ORACLE, SAMPLES, pace="first_hitting")) < REJECT


@pytest.mark.parametrize(
    ("exact", "loose"),
    [
        ({"pace": "threshold", "confidence_threshold": 1.0}, {"confidence_threshold": 0.7}),
        ({"pace": "threshold", "threshold_factor": 1e-9}, {"threshold_factor": 1.0}),
        ({"pace": "entropy_bound", "entropy_budget": 0.0}, {"entropy_budget": 1.0}),
        (
            {"pace": "entropy_bound", "entropy_budget": 0.0, "order": "margin"},
            {"entropy_budget": 1.0},
        ),
        (
            {"pace": "entropy_bound", "entropy_budget": 0.0, "order": "top_probability"},
            {"entropy_budget": 1.0},
        ),
    ],
    ids=str,
)
def test_paces_by_certainty_keep_the_law_when_they_reveal_one_per_pass(exact, loose):
    filled = run(ORACLE, SAMPLES, **exact)
    assert p_value(filled) > ACCEPT
    assert filled.passes.tolist() == [LENGTH] * SAMPLES
    faster = run(ORACLE, SAMPLES, **{**exact, **loose})
    assert float(faster.passes.double().mean()) < LENGTH - 1
    assert p_value(faster) < REJECT


# --- what does not keep the law ------------------------------------------------------------------


def test_one_pass_draws_independent_tokens():
    filled = run(ORACLE, SAMPLES, order="random", steps=1)
    assert p_value(filled) < REJECT
    marginals = CHAIN.posteriors(torch.full((1, LENGTH), MASK))[0]
    independent = marginals[torch.arange(LENGTH), CHAIN.texts(LENGTH)].prod(1)
    assert p_value(filled, independent) > ACCEPT


@pytest.mark.parametrize("order", ["random", "entropy"])
def test_fewer_reveals_per_pass_come_closer_to_the_law(order):
    distances = [distance(order=order, steps=steps) for steps in (1, 2, 3, 6)]
    assert all(a > b + 5 * NOISE_DEVIATION for a, b in itertools.pairwise(distances))
    assert distances[-1] == pytest.approx(NOISE, abs=5 * NOISE_DEVIATION)


@pytest.mark.parametrize("order", ["confidence", wide("critic")])
def test_choosing_by_the_drawn_token_moves_away_from_the_law_with_every_further_pass(order):
    """The known bias (arXiv 2510.04525): likely tokens are kept, as if drawn colder."""
    distances = [distance(order=order, steps=steps) for steps in (2, 3, 4, 6)]
    assert all(b > a + 5 * NOISE_DEVIATION for a, b in itertools.pairwise(distances))
    filled = run(ORACLE, SAMPLES, order=order)
    assert p_value(filled) < REJECT
    entropy = -float((ORACLE.law * ORACLE.law.log()).sum())
    assert mean_log_probability(filled) > -entropy + 1


def mean_log_probability(filled):
    return float(ORACLE.law.log()[number_of(filled.text, MASK)].mean())


def test_annealing_sharpens(one_random_place_at_a_time):
    filled = run(ORACLE, SAMPLES, order="random", anneal_temperature=True)
    assert p_value(filled) < REJECT
    unannealed = mean_log_probability(one_random_place_at_a_time)
    assert mean_log_probability(filled) > unannealed + 0.5


COMPETING = [
    {"remask": "confidence"},
    {"remask": "critic"},
    {"remask": "p2"},
    {"remask": "p2", "p2_planner": "critic"},
]


@pytest.mark.parametrize("options", [*COMPETING[:1], *map(wide, COMPETING[1:])], ids=str)
def test_competing_for_places_does_not_keep_the_law(options):
    """Tokens that came out likely stay: more passes sharpen, even with a score of the place."""
    few, many = (run(ORACLE, SAMPLES, steps=steps, **options) for steps in (6, 18))
    assert p_value(few) < REJECT
    assert p_value(many) < REJECT
    assert mean_log_probability(many) > mean_log_probability(few) + 0.1


def compete_by_hand(rows, steps, order, eta, block_length, seed):
    """P2 with itself as planner, position by position, with the noise of `run`."""
    generator = torch.Generator().manual_seed(seed)
    plan = remaining_by_blocks(
        torch.tensor([LENGTH]), steps, get_schedule("linear"), block_length, False
    )[:, 0].tolist()
    size = block_length or LENGTH
    texts = [[MASK] * LENGTH for _ in range(rows)]
    for left in plan[: plan.index(0) + 1]:
        uniforms = torch.rand(rows, LENGTH, 2, generator=generator, dtype=torch.float64)
        for row, text in enumerate(texts):
            laws = CHAIN.posteriors(torch.tensor([text]))[0].tolist()
            start = text.index(MASK) // size * size
            stop = min(start + size, LENGTH)
            drawn, scores = list(text), []
            for i in range(start, stop):
                score = eta * math.log(laws[i][text[i]]) if text[i] != MASK else 0.0
                if text[i] == MASK:
                    u = float(uniforms[row, i, 0])
                    drawn[i] = sum(u >= sum(laws[i][: k + 1]) for k in range(2))
                    score = math.log(laws[i][drawn[i]] if order == "confidence" else max(laws[i]))
                scores.append((score, -i))
            for _, minus_i in sorted(scores)[: left - (LENGTH - stop)]:
                drawn[-minus_i] = MASK
            texts[row] = drawn
    return texts


@pytest.mark.grid(2)
@pytest.mark.parametrize("order", ["top_probability", "confidence"])
@pytest.mark.parametrize(("eta", "block_length"), [(1.0, None), (2.0, 4), (0.5, None)])
def test_competition_is_that_of_a_slow_loop(order, eta, block_length):
    options = {"order": order, "p2_eta": eta, "block_length": block_length, "steps": 9}
    filled = run(ORACLE, 100, remask="p2", seed=3, **options)
    assert filled.text.tolist() == compete_by_hand(100, 9, order, eta, block_length, 3)


@pytest.mark.wide
@pytest.mark.parametrize(
    "denoiser", [ORACLE.flattened(0.7), ORACLE.noisy(1.0)], ids=["flat", "noisy"]
)
def test_competing_corrects_a_wrong_denoiser_in_as_many_passes(denoiser):
    distances = []
    for options in ({"order": "random"}, {"remask": "p2", "choice_temperature": 1.0}):
        filled = run(denoiser, SAMPLES, **options)
        assert filled.passes.tolist() == [LENGTH] * SAMPLES
        distances.append(total_variation(text_frequencies(filled.text, 3), ORACLE.law.numpy()))
    assert distances[1] < distances[0] - 10 * NOISE_DEVIATION


def hidden_again(**options):
    """Share of the passes of a row in which a revealed token goes back to a mask."""
    masks = []
    filled = run(ORACLE, SAMPLES, on_masks=lambda step, masked: masks.append(masked), **options)
    back = sum(float((b & ~a).any(1).double().mean()) for a, b in itertools.pairwise(masks))
    return back / len(masks), filled


@pytest.mark.parametrize("planner", [wide("self"), "critic"])
def test_p2_eta_says_how_easily_revealed_tokens_go_back(planner):
    """Towards 0 every revealed token is certain and stays: then the order's law comes out."""
    options = {"remask": "p2", "p2_planner": planner, "noise_level_scale": 0.0}
    shares = [hidden_again(p2_eta=eta, **options)[0] for eta in (1e-9, 0.5, 1.0, 2.0)]
    assert shares[0] == 0
    assert all(b > a + 0.01 for a, b in itertools.pairwise(shares))
    if planner == "self":
        assert p_value(run(ORACLE, SAMPLES, p2_eta=1e-9, **options)) > ACCEPT


def test_p2_with_eta_1_and_itself_as_planner_is_remasking_by_confidence():
    for order in ("top_probability", "confidence"):
        one, other = (
            run(ORACLE, 500, order=order, remask=remask, steps=12)
            for remask in ("p2", "confidence")
        )
        assert torch.equal(one.text, other.text)


@pytest.mark.parametrize(
    "options", [*COMPETING, {"remask": "remdm_cap", "remdm_eta": 1.0}], ids=str
)
def test_remasking_leaves_finished_blocks_alone(options):
    """12 steps over blocks of 3 and 3: from the sixth pass on the first holds no mask."""
    masks = []
    filled = run(
        ORACLE,
        500,
        steps=12,
        block_length=3,
        on_masks=lambda step, masked: masks.append(masked.clone()),
        **options,
    )
    assert bool((filled.text < MASK).all())
    finished = [step for step, masked in enumerate(masks) if not bool(masked[:, :3].any())]
    assert finished[0] <= 5
    assert finished == list(range(finished[0], len(masks)))
    untouched = torch.stack(masks[: finished[0] + 1])[..., 3:]
    assert bool(untouched.all()), "the second block began before the first was finished"


def test_remasking_spends_every_step_it_is_given():
    """Without it a row of 6 masks is finished after 6 passes; with it the others correct.

    floor(6 (1 - s / 12)) masks are left after pass s, none after the 11th.
    """
    for remask, passes in {"never": 6, "confidence": 11, "critic": 11, "p2": 11}.items():
        masks = {}
        filled = run(
            ORACLE, 50, remask=remask, steps=12, on_masks=lambda s, m, to=masks: to.update({s: m})
        )
        assert filled.passes.tolist() == [passes] * 50
        left = [6 * (12 - s) // 12 for s in range(1, 12)]
        assert [int(masks[s].sum(1).max()) for s in masks] == (
            [5, 4, 3, 2, 1, 0] if remask == "never" else left
        )


# --- given symbols, temperature ------------------------------------------------------------------


@pytest.mark.parametrize("order", ["random", "top_probability"])
def test_infilling_samples_the_chain_given_the_known_symbols(order):
    known = {1: 2, 4: 0}
    filled = run(ORACLE, SAMPLES, known=known, order=order)
    assert bool((filled.text[:, 1] == 2).all())
    assert bool((filled.text[:, 4] == 0).all())
    fits = (CHAIN.texts(LENGTH)[:, [1, 4]] == torch.tensor([2, 0])).all(1)
    counts = text_frequencies(filled.text, 3)[fits.numpy()]
    assert chi_square(counts, ORACLE.law[fits].numpy()) > ACCEPT


def test_temperature_sharpens_as_it_should():
    """One place at temperature T is drawn from the marginal to the power 1/T, normalised."""
    known = {0: 0, 1: 0, 3: 2, 4: 2, 5: 1}
    filled = run(ORACLE, SAMPLES, known=known, order="random", temperature=0.5, steps=1)
    law = CHAIN.posteriors(torch.tensor([[0, 0, MASK, 2, 2, 1]]))[0, 2]
    counts = torch.bincount(filled.text[:, 2], minlength=3).numpy()
    assert chi_square(counts, (law**2).numpy()) > ACCEPT
    assert chi_square(counts, law.numpy()) < REJECT


# --- coin flips: ancestral sampling and ReMDM ----------------------------------------------------


def planned_rates(steps, schedule="linear"):
    """Mask rates after each step."""
    plan = mask_rates_by_blocks(torch.tensor([LENGTH]), steps, get_schedule(schedule), None)
    return plan[2][:, 0].tolist()


def p_value_of_mask_counts(rates, **options):
    """Least odds, over the passes, that counts of masks are binomial with these rates."""
    counts = {}
    run(ORACLE, SAMPLES, on_masks=lambda step, masked: counts.update({step: masked}), **options)
    odds = []
    for step, rate in enumerate(rates):
        observed = torch.bincount(counts[step].sum(1), minlength=LENGTH + 1).numpy()
        expected = stats.binom.pmf(range(LENGTH + 1), LENGTH, rate)
        possible = expected > 0
        assert observed[~possible].sum() == 0
        odds.append(chi_square(observed[possible], expected[possible]) if rate else 1.0)
    return min(odds)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_ancestral_counts_of_masks_are_binomial_with_the_rate_of_the_schedule(schedule):
    options = {"pace": "ancestral", "steps": 5, "schedule": schedule}
    assert p_value_of_mask_counts(planned_rates(5, schedule), **options) > ACCEPT / 5
    other = planned_rates(5, "linear" if schedule == "cosine" else "cosine")
    assert p_value_of_mask_counts(other, **options) < REJECT


@pytest.mark.wide
def test_ancestral_sampling_reaches_the_law_in_the_limit():
    distances = [distance(pace="ancestral", steps=steps) for steps in (2, 4, 8, 16)]
    assert all(a > b + 5 * NOISE_DEVIATION for a, b in itertools.pairwise(distances))
    assert p_value(run(ORACLE, SAMPLES, pace="ancestral", steps=4)) < REJECT
    assert p_value(run(ORACLE, SAMPLES, pace="ancestral", steps=120)) > ACCEPT


CAP = {"remask": "remdm_cap", "remdm_eta": 0.3}
RESCALE = {"remask": "remdm_rescale", "remdm_eta": 0.5}


@pytest.mark.parametrize("options", [CAP, RESCALE], ids=["cap", "rescale"])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_remdm_keeps_the_mask_rate_at_every_time(options, schedule):
    rates = planned_rates(5, schedule)
    settings = {**options, "steps": 5, "schedule": schedule}
    assert p_value_of_mask_counts(rates, **settings) > ACCEPT / 5


@pytest.mark.parametrize("options", [CAP, RESCALE], ids=["cap", "rescale"])
def test_the_mask_rate_shows_when_reveals_do_not_make_up_for_remasking(options, monkeypatch):
    monkeypatch.setattr(
        hf_maskgit.core.decoding,
        "reveal_probability",
        lambda before, after, remask_rate: reveal_probability(before, after),
    )
    assert p_value_of_mask_counts(planned_rates(5), steps=5, **options) < REJECT


def test_the_mask_rate_shows_when_more_is_remasked_than_can_be_made_up_for(monkeypatch):
    """sigma = 0.9 is above sigma_max from the third of five steps on."""
    too_many = replace(
        REMASKS["remdm_cap"], rate=lambda sampler, before, *_: torch.full_like(before, 0.9)
    )
    monkeypatch.setitem(REMASKS, "remdm_cap", too_many)
    assert p_value_of_mask_counts(planned_rates(5)[:-1], steps=5, **CAP) < REJECT


@pytest.mark.wide
def test_remdm_loop_keeps_the_mask_rate_of_its_own_plan():
    options = {"remask": "remdm_loop", "remdm_eta": 0.2, "steps": 12}
    after = loop_mask_rates(12, get_schedule("linear"), 0.55, 0.05, 0.9)[1].tolist()
    assert p_value_of_mask_counts(after, **options) > ACCEPT / 12
    assert p_value_of_mask_counts(planned_rates(12), **options) < REJECT


@pytest.mark.wide
def test_remdm_conf_runs_above_the_mask_rate():
    """Reveals make up for nothing there, as in the paper; the last step reveals what is left."""
    masks = {}
    run(ORACLE, SAMPLES, remask="remdm_conf", steps=8, on_masks=lambda s, m: masks.update({s: m}))
    excess = [float(masks[s].double().mean()) - rate for s, rate in enumerate(planned_rates(8))]
    assert all(e > 0.01 for e in excess[1:-1])
    assert excess[-1] == 0
    assert p_value(run(ORACLE, SAMPLES, remask="remdm_conf", steps=8)) < REJECT


@pytest.mark.wide
@pytest.mark.parametrize(
    "remask", ["remdm_cap", pytest.param("remdm_rescale", marks=pytest.mark.slow)]
)
def test_remdm_reaches_the_law_in_the_limit(remask):
    """With eta falling like 1 / S: a fixed share remasked per pass is drawn again at once."""
    limit = run(ORACLE, SAMPLES, remask=remask, steps=150, remdm_eta=2 / 150)
    assert p_value(limit) > ACCEPT
    assert float(limit.passes.double().mean()) > LENGTH + 0.5, "nothing was remasked"
    coarse = run(ORACLE, SAMPLES, remask=remask, steps=6, remdm_eta=0.5)
    assert p_value(coarse) < REJECT
