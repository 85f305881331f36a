"""The accuracy of list operations in closed form, against textbook formulas and enumeration."""

import itertools
import math
from fractions import Fraction

import pytest
import torch

from hf_maskgit.core.sampler_choices import orders_with
from hf_maskgit.core.sampler_rules import PACES
from hf_maskgit.evaluation.list_decoding import denoiser_of, every_sampler
from hf_maskgit.evaluation.list_tasks import TASKS, ask, draws_first, expected_accuracy


def accuracy(task, items, **options):
    return expected_accuracy(TASKS[task], ask(items, options))


# --- one pass, and k per pass --------------------------------------------------------------------


@pytest.mark.parametrize("items", [2, 3, 8, 12])
def test_one_pass_is_right_as_often_as_independent_draws_fit_together(items):
    one_pass = {"order": "random", "steps": 1}
    assert accuracy("copy", items, **one_pass) == 1
    assert accuracy("replace", items, **one_pass) == pytest.approx((1 - 1 / items) ** (items - 1))
    shuffled = math.factorial(items) / items**items
    assert accuracy("shuffle", items, **one_pass) == pytest.approx(shuffled)


@pytest.mark.parametrize("items", [2, 5, 8])
def test_one_pass_loses_the_total_correlation(items):
    """All right answers are equally likely, so their share is exp of minus sum H(y_i) - H(y)."""
    h = -(1 - 1 / items) * math.log(1 - 1 / items) + math.log(items) / items
    correlation = {
        "copy": 0.0,
        "replace": items * h - math.log(items),
        "shuffle": items * math.log(items) - math.lgamma(items + 1),
    }
    for task, nats in correlation.items():
        assert accuracy(task, items, steps=1) == pytest.approx(math.exp(-nats))


@pytest.mark.parametrize("steps", [1, 2, 3, 6])
def test_shuffling_k_per_pass_is_a_product_over_the_passes(steps):
    k, left, expected = 6 // steps, 6, 1.0
    while left:
        expected *= math.perm(left, k) / left**k
        left -= k
    assert accuracy("shuffle", 6, order="left_to_right", steps=steps) == pytest.approx(expected)


def test_one_per_pass_is_always_right():
    for task, pace in itertools.product(TASKS, ("schedule", "first_hitting", "speculative")):
        for order in set(orders_with(pace, "never")) - {"critic"}:
            assert accuracy(task, 5, order=order, pace=pace) == 1


def test_cosine_leaves_most_for_the_last_passes_and_pays_for_it():
    """8 masks in 4 passes: floor(8 cos(pi s / 8)) are left, 7, 5, 3 and 0."""
    counts, m, expected = [1, 2, 2, 3], 8, 1.0
    for k in counts:
        expected *= math.perm(m, k) / m**k
        m -= k
    assert accuracy("shuffle", 8, steps=4, schedule="cosine") == pytest.approx(expected)
    assert expected < accuracy("shuffle", 8, steps=4)


# --- against enumeration of every draw -----------------------------------------------------------


def enumerated(n, counts, drawn_first):
    """Share of right answers to `replace`, over every outcome of every pass, in fractions.

    Args:
        n: items.
        counts: how many each pass reveals.
        drawn_first: of all masks a token is drawn, and the likeliest are taken, leftmost first;
            otherwise the leftmost masks are taken.
    """

    def go_on(text, counts):
        masks = [i for i in range(n) if text[i] is None]
        if not masks:
            return Fraction(text.count("new") == 1)
        if text.count("new"):  # decided, right or wrong: the rest is copied
            return Fraction(text.count("new") == 1)
        chance = {"new": Fraction(1, len(masks)), "old": 1 - Fraction(1, len(masks))}
        total = Fraction(0)
        for tokens in itertools.product(("new", "old"), repeat=len(masks)):
            weight = math.prod(chance[token] for token in tokens)
            places = list(range(len(masks)))
            if drawn_first:
                places.sort(key=lambda i: -chance[tokens[i]])  # stable, of equals the leftmost
            after = list(text)
            for i in places[: counts[0]]:
                after[masks[i]] = tokens[i]
            if weight:
                total += weight * go_on(after, counts[1:])
        return total

    return go_on([None] * n, counts)


@pytest.mark.grid(2)
@pytest.mark.parametrize(("items", "steps"), [(2, 1), (3, 1), (4, 2), (6, 3), (6, 2), (5, 5)])
@pytest.mark.parametrize("order", ["top_probability", "confidence"])
def test_replacing_is_as_right_as_enumeration_says(items, steps, order):
    expected = enumerated(items, [items // steps] * steps, order == "confidence")
    found = accuracy("replace", items, order=order, steps=steps)
    assert found == pytest.approx(float(expected), rel=1e-12)


def test_taking_likely_draws_first_puts_off_what_has_to_be_decided():
    """So that it is less often right at as many tokens per pass."""
    assert accuracy("replace", 8, order="confidence", steps=4) == pytest.approx(0.5218, abs=5e-5)
    assert accuracy("replace", 8, order="random", steps=4) == pytest.approx(0.7803, abs=5e-5)


def test_coins_are_averaged_over_what_they_may_show():
    """Two masks, two linear steps: half of the rows reveal both at once, in one pass or another."""
    both_at_once = 0.5
    expected = (1 - both_at_once) + both_at_once * 0.5
    for task in ("replace", "shuffle"):
        assert accuracy(task, 2, pace="ancestral", steps=2) == pytest.approx(expected)


def test_certainty_decides_how_many():
    # 1 / 4, 1 / 3 and 1 / 2 are below it: one by one, but the two last together, half of them wrong
    assert accuracy("shuffle", 4, pace="threshold", confidence_threshold=0.4) == 0.5
    # log 4 nats are lost with the second of four, log 3 with the second of three
    assert accuracy("shuffle", 4, pace="entropy_bound", entropy_budget=1.2) == pytest.approx(
        2 / 3 * 1
    )


# --- the denoiser --------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_the_denoiser_is_the_law_of_right_answers_given_what_is_revealed(task):
    """For every part of every right answer: add up the right answers that hold it."""
    n, items = 3, [2, 0, 1]
    right = {
        "copy": [items],
        "replace": [[*items[:i], n, *items[i + 1 :]] for i in range(n)],
        "shuffle": [list(answer) for answer in itertools.permutations(items)],
    }[task]
    every = torch.tensor(list(itertools.product(range(n + 1), repeat=n)))
    judged = TASKS[task].is_right(torch.tensor([items]).expand(len(every), -1), every)
    assert every[judged].tolist() == sorted(right)
    for answer, shown in itertools.product(right, itertools.product((False, True), repeat=n)):
        text = [token if seen else n + 1 for token, seen in zip(answer, shown, strict=True)]
        masks = torch.tensor([[False] * n + [not seen for seen in shown]])
        fits = [a for a in right if all(a[i] == text[i] for i in range(n) if shown[i])]
        expected = [
            [sum(a[i] == token for a in fits) / len(fits) for token in range(n + 2)]
            for i in range(n)
            if not shown[i]
        ]
        logits = denoiser_of(TASKS[task], n)(torch.tensor([0]), torch.tensor([items + text]), masks)
        assert torch.allclose(logits.exp(), torch.tensor(expected).double().view(-1, n + 2))
        if expected and fits == right:  # nothing is decided
            assert sorted(TASKS[task].probabilities(sum(not s for s in shown))) == pytest.approx(
                sorted(p for p in expected[0] if p)
            )


# --- what is refused -----------------------------------------------------------------------------


def test_every_order_and_pace_is_there_but_the_critics():
    found = {(s["pace"], s["order"]) for s in every_sampler(8)}
    expected = {(pace, order) for pace in PACES for order in orders_with(pace, "never")}
    assert found == {(pace, order) for pace, order in expected if order != "critic"}
    for sampler, task in itertools.product(every_sampler(8), TASKS.values()):
        assert 0 < expected_accuracy(task, ask(8, sampler)) <= 1
        assert draws_first(sampler["order"]) == (sampler["order"] == "confidence")


@pytest.mark.parametrize(
    ("items", "options", "sentence"),
    [
        (1, {}, "needs at least 2 items, got 1"),
        (4, {"temperature": 2}, "knows order, pace, steps, .* got temperature"),
        (4, {"order": "critic"}, "order='critic' asks a second network"),
        (4, {"pace": "ancestral", "order": "entropy"}, "goes with order 'random'"),
    ],
)
def test_what_has_no_closed_form_is_refused(items, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        ask(items, options)


@pytest.mark.parametrize(
    "options",
    [
        {"pace": "threshold", "confidence_threshold": 0.5},
        {"pace": "threshold", "threshold_factor": 1.5},
        {"pace": "entropy_bound", "entropy_budget": math.log(3)},
    ],
    ids=str,
)
def test_a_limit_that_rounding_would_decide_is_refused(options):
    name = next(reversed(options))
    with pytest.raises(ValueError, match=f"`{name}` is compared with .* Choose another value"):
        accuracy("shuffle", 4, **options)
