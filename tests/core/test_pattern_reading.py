"""Sums over classes: read once in a pass, at two temperatures only where the second has a say."""

import pytest
import torch
from transformers import LogitsProcessorList, TopKLogitsWarper

from hf_maskgit.core import pattern_pass
from hf_maskgit.core.class_sums import grouping_of
from hf_maskgit.core.pattern_pass import PatternLaw
from hf_maskgit.core.pattern_reading import OfClasses, Readings, read_classes
from hf_maskgit.core.position_logits import LateLogits, PositionLogits
from tests.support.pattern_cells import Cell, cell


def mixed(before, behind):
    """A cell with free places around three: of the first nothing depends, of the second the third.

    At the first a 3 may not stand.
    """
    free, length, states = [0, 1, 2, 3], before + 3 + behind, before + 5 + behind
    step = torch.full((states, 4), states)
    for state in range(before):
        step[state, free] = state + 1
    step[before, [0, 1, 2]] = before + 1
    step[before + 1, [0, 3]], step[before + 1, 1] = before + 2, before + 3
    step[before + 2, [0, 2, 3]], step[before + 3, [1, 2]] = before + 4, before + 4
    for state in range(before + 4, states - 1):
        step[state, free] = state + 1
    generator = torch.Generator().manual_seed(4)
    logits = 2 * torch.randn(length, 4, generator=generator, dtype=torch.float64)
    return Cell(logits, step, torch.arange(states) == states - 1, {})


CELLS = {"short": mixed(1, 0), "long": mixed(5, 8), "drawn": cell(21)}
of_cells = pytest.mark.parametrize("of", CELLS.values(), ids=CELLS)
OPTIONS = [
    {"order": "random", "temperature": 0.6},
    {"order": "top_probability", "choice_temperature": 2.0, "temperature": 1.7},
    {"order": "confidence", "temperature": 0.6, "anneal_temperature": True},
    {"order": "entropy", "block_length": 2, "temperature": 1.7},
    {"order": "left_to_right", "pace": "speculative", "temperature": 0.6},
]
with_options = pytest.mark.parametrize("options", OPTIONS, ids=lambda of: of["order"])


def fill(of, **options):
    logits = torch.nn.functional.pad(of.logits, (0, 2))

    def logits_fn(rows, text, positions):
        return LateLogits(lambda places: logits[places], positions.nonzero()[:, 1], rows=7)

    steps = {} if "pace" in options else {"steps": 3 if len(logits) < 9 else len(logits)}
    own = {"records_probabilities": True, "logits_fn": logits_fn}
    return of.fill(6, seed=2, **own, **steps, **options)


def same(one, other):
    for name in ("text", "log_probabilities", "log_weights"):
        parts = (getattr(filled, name) for filled in (one, other))
        torch.testing.assert_close(*parts, rtol=0, atol=1e-9, equal_nan=True)


def test_readings_read_what_is_new_and_return_what_is_asked_for():
    truth, asked = torch.randn(20, 3).double(), []
    readings = Readings()
    assert not readings
    for wanted in ([4, 9], [9], [1, 4, 9, 15], [], [0, 15, 19], list(range(20))):
        places = torch.tensor(wanted, dtype=torch.long)

        def read(new, places=places):
            asked.extend(places[new].tolist())
            return OfClasses(*(truth[places[new]] + number for number in range(4)))

        found = readings.of(places, False, read)
        assert all(part.equal(truth[places] + number) for number, part in enumerate(found))
    assert sorted(asked) == list(range(20))
    assert readings
    # Sums at a second temperature are others.
    readings.of(torch.tensor([3]), True, lambda new: OfClasses(*[truth[:1]] * 4))
    assert readings.of(torch.tensor([3]), False, read).warm.equal(truth[[3]] + 3)


@pytest.mark.grid(5, first=2)
@of_cells
@with_options
def test_no_mask_of_a_pass_is_read_twice_and_what_was_read_is_what_a_fresh_reading_gives(
    monkeypatch, of, options
):
    kept, calls, read_of, of_readings = [], [], {}, Readings.of

    def watched(readings, places, is_warm, read):
        own, seen = places.tolist(), []

        def noted(new):
            seen.extend(places[new].tolist())
            return read(new)

        found = of_readings(readings, places, is_warm, noted)
        fresh = read(torch.ones_like(places, dtype=torch.bool))
        for part, other in zip(found, fresh, strict=True):
            torch.testing.assert_close(part, other, rtol=0, atol=1e-12)
        kept.append(readings)  # so that no other has its number
        calls.append(own)
        before = read_of.setdefault((id(readings), is_warm), set())
        assert not before & set(seen)
        before |= set(seen)
        assert set(own) <= before
        return found

    monkeypatch.setattr(Readings, "of", watched)
    fill(of, **options)
    assert len(calls) >= len(read_of) > 0
    if of is CELLS["long"] and options["order"] == "top_probability":
        assert len(calls) > len(read_of)  # masks that are tried are among those that are scored


@pytest.mark.grid(5, first=1)
@pytest.mark.parametrize("filters", [False, True])
@of_cells
@with_options
def test_a_second_temperature_has_a_say_only_where_the_law_depends_on_the_place(
    monkeypatch, of, options, filters
):
    """As if it were read everywhere, and as if all sweeps went both ways: texts, not only laws."""
    if filters:
        options = {**options, "warpers": LogitsProcessorList([TopKLogitsWarper(2)])}
    few = fill(of, **options)
    spared, begin, sweeps = [], PatternLaw.__init__, pattern_pass.sweeps

    def everywhere(law, *given):
        begin(law, *given)
        temperature = given[5] if len(given) > 5 else None
        if temperature is not None:
            spared.append(int((law._temperature != temperature).sum()))
        law._temperature = temperature

    monkeypatch.setattr(PatternLaw, "__init__", everywhere)
    both_ways = lambda masses, chains, both=True: sweeps(masses, chains)  # noqa: E731
    monkeypatch.setattr(pattern_pass, "sweeps", both_ways)
    same(few, fill(of, **options))
    if of is not CELLS["drawn"] and options["order"] in ("top_probability", "confidence"):
        assert sum(spared) > 0


@pytest.mark.grid(5, first=4)
@of_cells
@with_options
def test_masks_that_a_pattern_leaves_as_they_are_need_no_classes(monkeypatch, of, options):
    plain, begin, together = fill(of, **options), PatternLaw.__init__, []

    def apart(law, *given):
        begin(law, *given)
        together.append(int(law._plain.any(-1).sum()))
        law._plain = torch.zeros_like(law._plain)

    monkeypatch.setattr(PatternLaw, "__init__", apart)
    same(plain, fill(of, **options))
    if of is not CELLS["drawn"] and options["order"] in ("top_probability", "confidence"):
        assert sum(together) > 0


@pytest.mark.parametrize("patterns", [1, 2])
def test_one_maximum_and_one_sum_are_those_of_all_classes(patterns):
    torch.manual_seed(patterns)
    positions, size, classes = 40, 300, 6
    scores = 8 * torch.randn(positions, size)
    class_of = torch.randint(0, classes - 1, (patterns, size))
    scores[:, ::7] = -torch.inf
    ends = torch.zeros(0, dtype=torch.long)
    logits = PositionLogits(scores, ends, ends, torch.zeros(positions, dtype=torch.bool))
    groupings = tuple(grouping_of(own, classes) for own in class_of)
    pattern = torch.arange(positions) % patterns
    is_plain = torch.arange(positions) % 3 == 0
    taken = (torch.arange(classes) < classes - 1) & is_plain[:, None]
    temperature = torch.where(is_plain, 1.0, 0.5).double()
    given = logits, groupings, pattern
    fresh = read_classes(*given, torch.zeros_like(taken), None, temperature)
    found = read_classes(*given, taken, None, temperature)
    for part, other in zip(found, fresh, strict=True):
        assert part[~is_plain].equal(other[~is_plain])
        assert part.dtype == other.dtype
    torch.testing.assert_close(found.level, fresh.level, rtol=1e-6, atol=0)
    assert found.maxima.amax(-1).equal(fresh.maxima.amax(-1))
    for part in (found.masses, found.warm):
        torch.testing.assert_close(part.logsumexp(-1), torch.zeros(positions).double())
        assert (part[is_plain, -1] == -torch.inf).all()
    assert found.maxima[is_plain, 0].equal(found.maxima[is_plain, 1])
