"""One pass given a regular language, against the enumeration of every text."""

import itertools

import pytest
import torch

from hf_maskgit.core import pattern_rows
from hf_maskgit.core.class_sums import class_sums, grouping_of
from hf_maskgit.core.pattern_automaton import Automaton
from hf_maskgit.core.pattern_law import class_weights
from hf_maskgit.core.pattern_moves import chains_of
from hf_maskgit.core.pattern_sweeps import log_mass, sweeps
from tests.support.grids import wide
from tests.support.oracles_sampling import CHAIN, Oracle, chi_square, number_of
from tests.support.pattern_cells import Cell, cell

SAMPLES = 4000


def messages(of):
    """Masses, chains and both sweeps of a cell, by the library."""
    automaton = of.pattern.automaton
    class_of, classes = automaton.class_of, automaton.step.shape[1]
    scores = torch.nn.functional.pad(of.logits, (0, 2), value=-torch.inf)
    masses = class_sums(scores, grouping_of(class_of, classes)).masses
    masses = masses - masses.logsumexp(-1, keepdim=True)
    for place, symbol in of.known.items():
        masses[place] = -torch.inf
        masses[place, class_of[symbol]] = 0
    chains = chains_of(automaton, torch.ones(1, of.shape[0]).bool())
    return masses[None], chains, sweeps(masses[None], chains)


@pytest.mark.parametrize("seed", range(20))
def test_marginals_and_the_mass_are_those_of_enumeration_to_1e_12(seed):
    of = cell(seed)
    _, chains, found = messages(of)
    assert log_mass(found, chains).item() == pytest.approx(of.log_mass(), abs=1e-12)
    weights = class_weights(found, chains)[0][:, of.pattern.automaton.class_of[:-2]]
    law = (of.logits + weights).softmax(-1)
    for place, truth in enumerate(of.marginals()):
        if place not in of.known:
            assert (law[place] - truth).abs().max() < 1e-12


@pytest.mark.parametrize("seed", range(6))
def test_one_pass_draws_texts_jointly_from_the_law_given_the_language(seed):
    """Fails by chance once in 10,000 runs each; a text of another language is a KeyError."""
    of = cell(seed)
    drawn = of.fill(SAMPLES, seed=100 + seed, steps=1)
    assert chi_square(of.counts(drawn.text), of.law()) > 1e-4


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_the_temperature_is_the_denoisers(temperature):
    """The language conditions what is drawn from, at its temperature. Once in 10,000 runs."""
    of = cell(11)
    drawn = of.fill(SAMPLES, seed=7, steps=1, temperature=temperature)
    assert chi_square(of.counts(drawn.text), of.law(temperature)) > 1e-4


@pytest.mark.grid(2)
@pytest.mark.parametrize("steps", [2, 6])
@pytest.mark.parametrize(
    "options",
    [
        {"order": "random"},
        {"order": "left_to_right"},
        {"order": "top_probability", "choice_temperature": 1.0},
        {"order": "entropy"},
        {"order": "margin"},
        {"order": "random", "pace": "ancestral"},
        {"order": "random", "pace": "first_hitting"},
        {"order": "top_probability", "pace": "entropy_bound"},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_a_denoiser_that_says_the_same_of_every_text_keeps_that_law_at_any_pace(options, steps):
    """Given what stands there, the rest has the law of what is left. Once in 10,000 runs each."""
    of = cell(21)
    drawn = of.fill(1200, seed=9, steps=steps, **options)
    assert chi_square(of.counts(drawn.text), of.law()) > 1e-4


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("steps", [1, 4])
def test_greedy_takes_the_likeliest_text(seed, steps):
    of = cell(seed)
    drawn = of.fill(1, steps=steps, do_sample=False, order="left_to_right").text[0]
    assert drawn.tolist() == of.texts[of.law().argmax()].tolist()


@pytest.mark.parametrize("seed", range(5))
def test_probabilities_of_tokens_are_those_given_the_language(seed):
    of = cell(seed)
    filled = of.fill(3, steps=1, records_probabilities=True)
    free = [place for place in range(of.shape[0]) if place not in of.known]
    truth = of.marginals()[free, filled.text[:, free]].log()
    assert (filled.log_probabilities[:, free].double() - truth).abs().max() < 1e-5


@pytest.mark.parametrize("seed", [0, *map(wide, range(1, 4))])
def test_with_an_open_end_texts_end_where_they_may(seed):
    """What stands behind the end has no say. Fails by chance once in 10,000 runs each."""
    of = cell(seed, known=False)
    length, symbols = of.shape
    scores = torch.nn.functional.pad(of.logits, (0, 2)).index_fill(
        1, torch.tensor([symbols]), -torch.inf
    )
    scores = scores.log_softmax(-1)
    law = {}
    for size in range(length + 1):
        for text in itertools.product(range(symbols), repeat=size):
            if of.accepts(text):
                ending = scores[size, symbols + 1] if size < length else 0.0
                law[text] = float(scores[range(size), list(text)].sum() + ending)
    drawn = of.fill(SAMPLES, seed=3, steps=2, can_end=True).text.tolist()
    end = symbols + 1
    cut = [tuple(row[: row.index(end)] if end in row else row) for row in drawn]
    truth = torch.tensor(list(law.values())).softmax(0)
    counts = torch.zeros(len(law))
    for text in cut:
        counts[list(law).index(text)] += 1
    assert chi_square(counts.numpy(), truth) > 1e-4


def test_what_is_merely_unlikely_stays_possible():
    """Beyond the reach of float32 and float64: e^-2000 at each of six places."""
    scores = torch.full((6, 5), -2000.0)
    scores[:, 0] = 0.0
    class_of = torch.tensor([0, 1, 1, 2, 2])
    masses = class_sums(scores, grouping_of(class_of, 3)).masses
    expected = torch.tensor([0.0, -2000 + 0.693147, -2000 + 0.693147]).double()
    assert torch.allclose(masses, expected.expand(6, 3), atol=1e-3)
    step = torch.tensor([[2, 1, 2], [2, 2, 0]])
    automaton = Automaton(step, torch.tensor([True, False]), class_of, 0)
    chains = chains_of(automaton, torch.ones(1, 6).bool())
    found = sweeps(masses[None], chains)
    assert log_mass(found, chains).item() == pytest.approx(-11995.84, abs=0.05)


def fill_chain(samples, steps, seed, **options):
    """Texts of the chain's exact denoiser, in random order, that a small automaton takes."""
    oracle = Oracle.exact(CHAIN, 5)
    symbols = oracle.mask
    # No text has the symbol 2 beside a 0, and none ends in 1.
    step = torch.tensor([[1, 2, 3], [1, 2, 4], [1, 2, 3], [4, 2, 3]])
    final = torch.tensor([True, True, False, True])
    of = Cell(torch.zeros(5, symbols).double(), step, final, {})
    law = oracle.law * torch.tensor([of.accepts(row) for row in CHAIN.texts(5).tolist()])

    def logits_fn(rows, text, positions):
        logits = oracle.logits_fn(rows, text, positions)
        return torch.nn.functional.pad(logits, (0, 1), value=-torch.inf)

    filled = of.fill(samples, seed, steps=steps, order="random", logits_fn=logits_fn, **options)
    return filled, law


@pytest.mark.parametrize(
    ("steps", "pace"), [wide(1, None), (2, None), wide(5, None), (5, "speculative")]
)
def test_importance_weights_make_up_for_the_lookahead(steps, pace):
    """Of any number of passes; without them five passes miss the restricted law.

    Means of 3,000 texts within 4.5 standard errors: by chance once in 10,000 runs each.
    """
    filled, law = fill_chain(3000, steps, seed=steps, records_probabilities=True, pace=pace)
    weights = filled.log_weights.exp()
    numbers = number_of(filled.text, 3)
    if steps == 5:  # one reveal per pass, so that the denoiser's own law is the chain's
        truths = [(torch.ones_like(weights), law.sum())]
        likely = law.topk(3).indices.tolist()
        truths += [((numbers == text).double(), law[text]) for text in likely]
        for of_text, truth in truths:
            found = weights * of_text
            error = found.std() / len(found) ** 0.5
            assert abs(found.mean() - truth) < 4.5 * error
    if steps == 1:  # exact: all texts weigh the same
        assert weights.std() < 1e-9
        marginals = CHAIN.posteriors(torch.full((1, 5), 3))[0]
        product = marginals[torch.arange(5), CHAIN.texts(5)].prod(1)
        assert weights[0] == pytest.approx(float(product[law > 0].sum()), abs=1e-9)
    plain, _ = fill_chain(3, 1, seed=0, records_probabilities=True, temperature=2.0)
    assert plain.log_weights.isnan().all()


@pytest.mark.grid(3)
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("scale", [40.0, 400.0, 40_000.0])
def test_what_is_merely_unlikely_never_becomes_impossible(seed, scale):
    """Near things are summed up as numbers, far ones as logarithms: both give the law."""
    of = cell(seed)
    of = Cell(of.logits * scale, of.step, of.final, of.known)
    masses, chains, found = messages(of)
    nats = torch.stack([of.logits.log_softmax(-1)[i, of.texts[:, i]] for i in range(of.shape[0])])
    free = [i for i in range(of.shape[0]) if i not in of.known]
    expected = nats[free].sum(0).logsumexp(0).item()
    assert log_mass(found, chains).item() == pytest.approx(expected, rel=1e-12)
    # From the left, all there is comes to the last place.
    came = found.logs(found.came, found.levels[1][..., None])[0, -1, :-1]
    step, ends = of.pattern.automaton.step, torch.where(chains.final[0], 0.0, -torch.inf)
    ends = torch.cat([ends, torch.tensor([-torch.inf])])[step]
    last = came[:, None] + masses[0, -1] + ends
    assert last.flatten().logsumexp(0).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.grid(4)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "options",
    [
        {"order": "random"},
        {"order": "top_probability", "choice_temperature": 1.0, "anneal_temperature": True},
        {"order": "confidence", "block_length": 2},
        {"order": "left_to_right", "do_sample": False},
    ],
    ids=lambda options: options["order"],
)
def test_what_has_no_say_in_the_law_is_not_asked_for(monkeypatch, seed, options):
    """The texts and their weights are those of asking for every mask, and fewer are asked for."""
    of, asked = cell(seed), []
    logits = torch.nn.functional.pad(of.logits, (0, 2))

    def logits_fn(rows, text, positions):
        asked[-1] += int(positions.sum())
        return logits[positions.nonzero()[:, 1]]

    def fill():
        asked.append(0)
        own = {"steps": 4, "logits_fn": logits_fn, "records_probabilities": True}
        return of.fill(40, seed=5, **own, **options)

    few = fill()
    everywhere = lambda _, __, chains: (chains.inside, torch.zeros_like(chains.inside))  # noqa: E731
    monkeypatch.setattr(pattern_rows, "told_apart", everywhere)
    all_masks = fill()
    assert few.text.equal(all_masks.text)
    assert torch.allclose(few.log_weights, all_masks.log_weights, atol=1e-9, equal_nan=True)
    assert asked[0] <= asked[1]
    if options["order"] == "random":
        assert asked[0] < asked[1]


def test_classes_are_summed_up_however_many_they_are():
    """Against `logsumexp` of each class by itself; groups of 32 down to single tokens."""
    torch.manual_seed(0)
    for size, classes in ((2000, 3), (2000, 40), (300, 90), (5, 5)):
        class_of = torch.randint(0, classes, (size,))
        scores = 30 * torch.randn(4, size).double()
        scores[:, class_of == 1] = -torch.inf
        warmth = torch.tensor([0.01, 0.5, 1.0, 7.0]).double()
        of = class_sums(scores, grouping_of(class_of, classes), warmth)
        for number in range(classes):
            own = scores[:, class_of == number]
            for found, given in ((of.masses, own), (of.warm, own / warmth[:, None])):
                assert torch.allclose(found[:, number], given.logsumexp(-1), rtol=1e-12)
            if own.shape[1]:
                assert of.maxima[:, number].equal(own.amax(-1))
