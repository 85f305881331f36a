"""Pace "speculative" with a pattern: the law of one reveal per pass, in fewer passes.

Each chi-square fails by chance once in 10,000 runs.
"""

import pytest
import torch

from hf_maskgit.core import sampler_speculation
from tests.support.grids import wide
from tests.support.oracles_sampling import CHAIN, Oracle, chi_square, number_of
from tests.support.pattern_cells import Cell, cell

SAMPLES, LENGTH = 4000, 5
ORACLE = Oracle.exact(CHAIN, LENGTH).noisy(1.0, seed=3)
# No text has the symbol 2 beside a 0, and none ends in 1.
STEP = torch.tensor([[1, 2, 3], [1, 2, 4], [1, 2, 3], [4, 2, 3]])
LANGUAGE = Cell(torch.zeros(LENGTH, 3).double(), STEP, torch.tensor([True, True, False, True]), {})


def logits_fn(rows, text, positions):
    logits = ORACLE.logits_fn(rows, text, positions)
    return torch.nn.functional.pad(logits, (0, 1), value=-torch.inf)


def fill(samples=SAMPLES, **options):
    return LANGUAGE.fill(samples, logits_fn=logits_fn, pace="speculative", **options)


def sequential_law(temperature=1.0):
    """Of every text of the language from left to right, by enumeration: (K,).

    Each token by the sum over all texts of the language that go on from it, with what the denoiser
    says of each place behind the tokens before.
    """
    texts, chance = LANGUAGE.texts, torch.ones(len(LANGUAGE.texts)).double()
    for place in range(LENGTH):
        before = texts.clone()
        before[:, place:] = 3
        for number, text in enumerate(texts):
            row = ORACLE.logits[int(number_of(before[number, None], 4))] / temperature  # (L, 3)
            same = texts[(texts[:, :place] == text[:place]).all(1)]
            later = range(place, LENGTH)
            mass = row.log_softmax(-1)[later, same[:, place:]].sum(1).exp()
            chance[number] *= mass[same[:, place] == text[place]].sum() / mass.sum()
    assert float(chance.sum()) == pytest.approx(1)
    return chance


@pytest.mark.grid(2)
@pytest.mark.parametrize("seed", [21, 3])
@pytest.mark.parametrize("order", ["random", "left_to_right"])
def test_a_denoiser_that_says_the_same_of_every_text_keeps_its_law(order, seed):
    of = cell(seed)
    drawn = of.fill(SAMPLES, seed=9, order=order, pace="speculative")
    assert chi_square(of.counts(drawn.text), of.law()) > 1e-4


@pytest.mark.parametrize("temperature", [wide(1.0), 1.5])
def test_texts_have_the_law_of_one_reveal_per_pass(temperature):
    """Of a denoiser whose words depend on each other, so that most rounds end in a refusal."""
    filled = fill(order="left_to_right", temperature=temperature)
    law = sequential_law(temperature)
    assert chi_square(LANGUAGE.counts(filled.text), law) > 1e-4
    assert float(filled.passes.double().mean()) < LENGTH


def test_accepting_every_draft_breaks_the_law(monkeypatch):
    """Drafts know nothing of each other: soon no text of the language holds what stands there."""
    drafted = sampler_speculation._drafted

    def never_refused(turn, chosen, rank):
        draft = drafted(turn, chosen, rank)
        return draft._replace(chances=draft.chances * 0 - 1)

    monkeypatch.setattr(sampler_speculation, "_drafted", never_refused)
    with pytest.raises(ValueError, match="can match its pattern no more"):
        fill(500, order="left_to_right")


@pytest.mark.wide
def test_random_order_has_the_law_of_one_reveal_per_pass_too():
    """Against as many texts of that pace: two samples, by the chi-square of their difference."""
    many = LANGUAGE.counts(fill(order="random").text)
    one = LANGUAGE.counts(
        LANGUAGE.fill(SAMPLES, 50_000, logits_fn=logits_fn, order="random", steps=LENGTH).text
    )
    both = many + one
    seen = both > 10
    statistic = float(((many - one)[seen] ** 2 / both[seen]).sum())
    chance = torch.special.gammaincc(
        torch.tensor(seen.sum() / 2).double(), torch.tensor(statistic / 2).double()
    )
    assert float(chance) > 1e-4


@pytest.mark.parametrize("seed", range(4))
def test_greedy_is_the_text_of_one_per_pass(seed):
    own = {"logits_fn": logits_fn, "do_sample": False, "order": "left_to_right"}
    assert fill(1, **{k: v for k, v in own.items() if k != "logits_fn"}).text.equal(
        LANGUAGE.fill(1, steps=LENGTH, **own).text
    )
    of = cell(seed)
    best = of.fill(1, pace="speculative", do_sample=False, order="left_to_right").text[0]
    assert best.tolist() == of.texts[of.law().argmax()].tolist()


def test_weights_are_told_at_temperature_1_alone():
    """What they are worth is seen where those of other paces are."""
    for options, known in (
        ({}, True),
        ({"temperature": 1.5}, False),
        ({"do_sample": False}, False),
    ):
        filled = fill(3, order="random", records_probabilities=True, **options)
        assert filled.log_weights.isfinite().all() == known
        assert filled.log_weights.isnan().any() != known
