"""Decoding with the exact denoisers of list operations is as often right as the closed form says.

Each share of right answers is tested against its closed form by the exact binomial test. The odds
that a fresh seed raises a false alarm in this file are below 1e-5 (1e-6 per test); beside them a
sampler that breaks the rule is found.
"""

from dataclasses import replace

import pytest
from scipy import stats

from hf_maskgit.core.sampler_rules import PACES
from hf_maskgit.core.sampler_scores import highest
from hf_maskgit.evaluation.list_decoding import every_sampler, measure
from hf_maskgit.evaluation.list_tasks import TASKS, ask

FALSE_ALARM = 1e-6


def p_value(figures, samples):
    """Odds of a share that differs as much from its closed form."""
    return stats.binomtest(round(figures.accuracy * samples), samples, figures.expected).pvalue


def check(items, samples):
    for task in TASKS.values():
        for number, options in enumerate(every_sampler(items)):
            figures = measure(task, ask(items, options), samples, seed=number)
            if figures.expected in (0, 1):
                assert figures.accuracy == figures.expected, options
                assert figures.deviation == 0
            else:
                assert p_value(figures, samples) > FALSE_ALARM / len(every_sampler(items)), options


@pytest.mark.wide
def test_every_order_and_pace_is_right_as_often_as_its_closed_form():
    check(items=4, samples=100)


@pytest.mark.slow
def test_every_order_and_pace_is_right_as_often_as_its_closed_form_in_many_lists():
    check(items=8, samples=10_000)


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("replace", {"order": "confidence", "steps": 3}),
        ("shuffle", {"order": "random", "steps": 3}),
        ("shuffle", {"order": "random", "pace": "ancestral", "steps": 4}),
        ("replace", {"pace": "threshold", "confidence_threshold": 0.87}),
    ],
    ids=str,
)
def test_so_many_lists_tell_close_samplers_apart(task, options):
    samples = 4000
    figures = measure(TASKS[task], ask(6, options), samples)
    assert p_value(figures, samples) > FALSE_ALARM
    assert abs(figures.deviation) < 5
    other = measure(TASKS[task], ask(6, {"order": "left_to_right", "steps": 2}), samples)
    assert p_value(other._replace(expected=figures.expected), samples) < FALSE_ALARM


def test_a_sampler_that_breaks_its_rule_is_found(monkeypatch):
    def two(turn, look, places):
        return highest(look.scores, places, 2 + 0 * turn.asked.remaining)

    asked = ask(6, {"pace": "first_hitting"})
    assert measure(TASKS["shuffle"], asked, 50).accuracy == 1
    monkeypatch.setitem(PACES, "first_hitting", replace(PACES["first_hitting"], choose=two))
    broken = measure(TASKS["shuffle"], asked, 50)
    assert broken.accuracy < 1
    assert broken.deviation == -float("inf")
    assert broken.tokens_per_pass == 2


def test_a_seed_decides_the_figures():
    asked = ask(5, {"order": "random", "steps": 2})
    first, again, other = (measure(TASKS["shuffle"], asked, 500, seed) for seed in (1, 1, 2))
    assert first == again != other
