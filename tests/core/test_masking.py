"""The forward process as pure functions, and what its options can be."""

import ast
import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch

from hf_maskgit import get_schedule
from hf_maskgit.core.masking import (
    Masking,
    exact_count_weights,
    exact_counts,
    maskable_positions,
    stratified_times,
)
from hf_maskgit.core.options import options_of
from tests.support.oracles import CLS, FIRST_WORD, MASK, PAD, SEP, UNK
from tests.support.project import PACKAGE
from tests.support.rates import RATES, each_schedule, schedule_of


def test_framing_goes_by_the_template_and_not_by_the_id():
    """An unknown word and the end of a text packed into a block are words; [CLS] inside is none."""
    a = FIRST_WORD
    cases = {
        (CLS, a, UNK, a, SEP): "0 1 1 1 0",
        (CLS, a, SEP, a, SEP): "0 1 1 1 0",
        (CLS, a, SEP, SEP): "0 1 1 0",
        (CLS, CLS, a, SEP): "0 0 1 0",
        (a, a, a, a): "1 1 1 1",
        (a, a, SEP): "1 1 0",
        (CLS, a, a): "0 1 1",
        (CLS, a, MASK, PAD, SEP): "0 1 0 0 0",
    }
    for (ids, expected), gap in itertools.product(cases.items(), [(0, 0), (2, 0), (0, 3)]):
        row = torch.tensor([[a] * gap[0] + list(ids) + [a] * gap[1]])
        mask = torch.tensor([[0] * gap[0] + [1] * len(ids) + [0] * gap[1]])
        found = maskable_positions(row, mask, [CLS], [SEP], [PAD, CLS, MASK])[0]
        assert found.long().tolist() == [0] * gap[0] + [*map(int, expected.split())] + [0] * gap[1]


def test_a_template_of_several_tokens_and_none_at_all():
    ids = torch.tensor([[7, 8, 5, 9, 9]])
    ones = torch.ones_like(ids)
    assert maskable_positions(ids, ones, [7, 8], [9, 9], [])[0].tolist() == [0, 0, 1, 0, 0]
    assert maskable_positions(ids, ones, [], [], [])[0].tolist() == [1] * 5


def test_rows_side_by_side_have_the_framing_that_each_has_alone():
    """Against a reading of each row's real tokens as a list, with padding on either side."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, (3000, 6), generator=generator)
    ends = torch.randint(7, (3000, 2), generator=generator).sort(1).values
    place = torch.arange(6)
    real = (ends[:, :1] <= place) & (place < ends[:, 1:])
    prefix, suffix = [0, 1], [1, 1, 2]
    found = maskable_positions(ids, real.long(), prefix, suffix, [])
    framed = set()
    for row, is_real, maskable in zip(ids, real, found, strict=True):
        text = row[is_real].tolist()
        expected = [True] * len(text)
        if text[:2] == prefix:
            expected[:2] = [False] * 2
        if text[-3:] == suffix:
            expected[-3:] = [False] * 3
        framed.add((text[:2] == prefix, text[-3:] == suffix))
        assert maskable[is_real].tolist() == expected
        assert not maskable[~is_real].any()
    assert len(framed) == 4


@each_schedule
@pytest.mark.parametrize("n", [1, 2, 5, 64])
def test_counts_have_the_law_that_the_schedule_gives_them(schedule, n):
    """Not sampled: the share of a fine grid of times that gives each count."""
    inverse = RATES[schedule][1]
    points = 100_000
    times = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    own = schedule_of(schedule)
    counts = exact_counts(times, torch.full((points,), n), own)
    found = torch.bincount(counts, minlength=n + 1).numpy() / points
    k = np.arange(n + 1)
    expected = np.append(0, np.diff(inverse(k / n)))
    assert found == pytest.approx(expected, abs=2 / points)


@each_schedule
@pytest.mark.parametrize("n", [1, 2, 7, 512])
def test_a_count_weighs_one_over_itself_times_its_probability(schedule, n):
    inverse = RATES[schedule][1]
    k = np.arange(1, n + 1)
    expected = 1 / (k * (inverse(k / n) - inverse((k - 1) / n)))
    own = schedule_of(schedule)
    found = exact_count_weights(torch.from_numpy(k), torch.full((n,), n), own).numpy()
    assert found == pytest.approx(expected, rel=1e-9)
    if schedule == "linear":
        assert found == pytest.approx(n / k, rel=1e-9)


def total_weight(weight, n=4, from_time=2.0**-24):
    """Mean weight of a position over times from 2^-24 on, where float32 starts: 1 if unbiased."""
    schedule, points = get_schedule("linear"), 100_000
    edges = torch.logspace(math.log2(from_time), 0, points + 1, base=2, dtype=torch.float64)
    times = (edges[1:] * edges[:-1]).sqrt()
    sizes = torch.full((points,), n)
    counts = exact_counts(times, sizes, schedule)
    return float((edges.diff() * weight(times, counts, sizes, schedule) * counts / n).sum())


def test_the_total_weight_of_exact_counts_is_one_and_the_weight_of_the_time_gives_4_7():
    right = total_weight(lambda _, k, n, schedule: exact_count_weights(k, n, schedule))
    wrong = total_weight(lambda t, _k, _n, schedule: schedule.loss_weight(t))
    assert right == pytest.approx(1, abs=1e-6)
    assert wrong == pytest.approx(4.7, abs=0.1)


def test_a_time_lies_in_its_stratum_of_the_whole_update_counted_down_from_one():
    offsets = torch.tensor([0.0, 0.3, 0.9, 0.999], dtype=torch.float64)
    strata = torch.tensor([5, 0, 7, 2])
    times = stratified_times(strata, offsets, 8)
    assert ((1 - times) * 8 - strata).tolist() == pytest.approx(offsets.tolist())


def test_times_lie_above_zero_and_reach_one():
    """At time 0 the weight is infinite; the largest uniform below 1 must not round there."""
    for offset in (0.0, 1 - 2**-53):
        times = stratified_times(torch.arange(8), torch.full((8,), offset, dtype=torch.float64), 8)
        assert float(times.min()) > 0
        assert float(times.max()) <= 1
    assert float(stratified_times(torch.arange(8), torch.zeros(8).double(), 8).max()) == 1


# --- choosing and corrupting ---------------------------------------------------------------------


def test_an_exact_count_takes_the_highest_draws():
    maskable = torch.tensor([[1, 1, 1, 1, 0], [0, 1, 1, 0, 0]]).bool()
    draws = torch.tensor([[0.1, 0.8, 0.3, 0.7, 0.9], [0.9, 0.1, 0.2, 0.9, 0.9]]).double()
    chosen, weights = Masking().choose(torch.tensor([0.5, 0.2]).double(), maskable, draws)
    assert chosen.long().tolist() == [[0, 1, 0, 1, 0], [0, 0, 1, 0, 0]]
    assert weights.tolist() == pytest.approx([4 / 2, 2 / 1])


def test_bernoulli_takes_the_draws_below_the_mask_rate():
    masking = Masking(choice="bernoulli", schedule=lambda t: t**2)
    draws = torch.tensor([[0.2, 0.24, 0.26, 0.1]]).double()
    maskable = torch.tensor([[1, 1, 1, 0]]).bool()
    chosen, weights = masking.choose(torch.tensor([0.5]).double(), maskable, draws)
    assert chosen.long().tolist() == [[1, 1, 0, 0]]
    assert weights.tolist() == pytest.approx([2 / 0.5])  # of t^2: 2 t / t^2


@pytest.mark.parametrize("choice", ["exact_count", "bernoulli"])
def test_the_plain_weight_is_one(choice):
    masking = Masking(choice=choice, use_simple_mdlm_loss_weight=False)
    times, draws = torch.rand(3).double(), torch.rand(3, 5).double()
    assert masking.choose(times, torch.ones(3, 5).bool(), draws)[1].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("coins", "shown"),
    [
        ([0.0, 0.0], "k k r r m m"),  # up to 0.15 kept, up to 0.25 random
        ([0.0, 0.5], "k k m m m m"),
        ([0.5, 0.0], "r m m m m m"),  # nothing is kept, so random ones begin at 0
        ([0.5, 0.5], "m m m m m m"),
    ],
)
def test_one_draw_decides_what_a_chosen_position_shows(coins, shown):
    kinds = torch.tensor([0.0, 0.14, 0.16, 0.24, 0.26, 0.99]).double()
    draws = torch.stack([kinds, torch.full((6,), 0.7).double()], -1)  # place 0.7 of [8, 9] is 9
    ids, ordinary = torch.arange(20, 26), torch.tensor([8, 9])
    meant = {"k": ids, "r": torch.full((6,), 9), "m": torch.full((6,), MASK)}
    expected = torch.stack([meant[kind][i] for i, kind in enumerate(shown.split())])
    rows = ids[None], torch.tensor([coins]).double(), draws[None]
    for chosen in (torch.ones(6).bool(), torch.tensor([1, 0, 1, 0, 1, 0]).bool()):
        found = Masking().corrupt(rows[0], chosen[None], rows[1], rows[2], MASK, ordinary)[0]
        assert found.tolist() == torch.where(chosen, expected, ids).tolist()
    assert ids.tolist() == [*range(20, 26)]


# --- its options ---------------------------------------------------------------------------------


def test_a_masking_stays_as_it_was_built():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Masking().choice = "bernoulli"
    assert Masking(schedule="cosine").curve is get_schedule("cosine")
    own = get_schedule(lambda t: t**2)
    assert Masking(schedule=own).curve is own


def test_every_masking_option_says_in_sentences_what_it_is():
    declared = options_of(Masking)
    assert list(declared) == [field.name for field in dataclasses.fields(Masking)]
    for name, option in declared.items():
        assert option.help.endswith(".")
        assert option.default is getattr(Masking(), name)


@pytest.fixture(scope="module")
def names_of_places():
    """What the library's code names in each file and function or class, docstrings left out.

    Words that other tools have for an option are advice, and declare nothing; nor does a call that
    gives an option a value by its name.
    """
    places = {}
    for path in sorted(set(PACKAGE.rglob("*.py")) - {PACKAGE / "training" / "other_names.py"}):
        for part in ast.parse(path.read_text(encoding="utf-8")).body:
            places.setdefault((path.name, getattr(part, "name", "")), set()).update(
                value
                for node in ast.walk(part)
                if not isinstance(node, ast.keyword)
                for value in (
                    getattr(node, key, None) for key in ("id", "arg", "attr", "value", "name")
                )
                if isinstance(value, str)
            )
    return places


@pytest.mark.parametrize(
    "name",
    ["no_replace_prob", "random_token_prob", "corruption_prob", "use_simple_mdlm_loss_weight"],
)
def test_an_option_of_masking_is_written_in_three_places(names_of_places, name):
    """Where it is declared and has its effect, what a checkpoint stores, and the collator."""
    assert {place for place, names in names_of_places.items() if name in names} == {
        ("masking.py", "Masking"),
        ("configuration_maskgit.py", "MaskGitConfig"),
        ("collator.py", "DataCollatorForMaskGit"),
    }
