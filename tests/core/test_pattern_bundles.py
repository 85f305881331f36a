"""Sweeps by bundles, all rows at a time, are those move by move."""

import pytest
import torch

from hf_maskgit.core.pattern_automaton import Automaton, minimal
from hf_maskgit.core.pattern_bundles import Groups, bundles_of
from hf_maskgit.core.pattern_law import class_weights, told_apart
from hf_maskgit.core.pattern_moves import Chains, chains_of
from hf_maskgit.core.pattern_sweeps import log_mass, reach, sweeps

ROWS, WIDTH, STATES, CLASSES = 3, 7, 6, 5


def drawn_chains(seed):
    """A random automaton, rows of several lengths, and a place that is open."""
    drawn = torch.Generator().manual_seed(seed)
    step = torch.randint(0, STATES + 3, (STATES, CLASSES), generator=drawn).clamp_max(STATES)
    step[:, 0] = STATES
    final = torch.rand(STATES, generator=drawn) < 0.5
    final[0] = True
    automaton = minimal(Automaton(step, final, torch.arange(CLASSES), 0))
    lengths = torch.tensor([WIDTH, WIDTH - 2, WIDTH])
    chains = chains_of(automaton, torch.arange(WIDTH) < lengths[:, None])
    is_open = torch.zeros_like(chains.inside)
    is_open[2, 4] = True
    classes = automaton.step.shape[1]
    masses = torch.randn(ROWS, WIDTH, classes, generator=drawn, dtype=torch.float64)
    masses = masses.log_softmax(-1).masked_fill(is_open[..., None], 0.0)
    known = torch.rand(ROWS, WIDTH, classes, generator=drawn) < 0.2
    return chains._replace(open=is_open), masses.masked_fill(known, -torch.inf)


def move_by_move(monkeypatch):
    monkeypatch.setattr(Chains, "bundles", property(lambda self: None))


@pytest.mark.parametrize("seed", range(12))
def test_sweeps_are_those_move_by_move(monkeypatch, seed):
    chains, masses = drawn_chains(seed)
    assert chains.bundles is not None

    def everything():
        both, right, can = (
            sweeps(masses, chains),
            sweeps(masses, chains, False),
            reach(masses, chains),
        )
        assert both.scaled
        assert right.came is None
        logs = [both.logs(both.ways, both.levels[2][..., None])]
        logs += [both.logs(both.came, both.levels[1][..., None])]
        marks = told_apart(can, masses.where(masses == -torch.inf, 0), chains)
        found = [*logs, class_weights(both, chains), log_mass(both, chains)]
        found += [log_mass(right, chains), can.came, can.ways]
        # Behind a row nothing is asked.
        return [f.where(f.isfinite(), -1e6) for f in found], marks

    together, marks = everything()
    move_by_move(monkeypatch)
    apart, other = everything()
    for one, two in zip(together, apart, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)
    assert all(torch.equal(a, b) for a, b in zip(marks, other, strict=True))


def test_rows_of_several_automata_have_no_bundles_in_common():
    chains, _ = drawn_chains(0)
    moves = chains.moves._replace(bundles=(chains.moves.bundles[0],) * 2)
    several = chains._replace(moves=moves, which=torch.tensor([0, 1, 0]))
    assert several.bundles is None
    assert several._replace(which=torch.tensor([1, 1, 1])).bundles is not None


def test_groups_are_summed_up_and_an_empty_one_is_nothing():
    table = torch.arange(6, dtype=torch.float64).view(3, 2)
    found = Groups(torch.tensor([2, 0, 2]), torch.tensor([0, 0, 2])).sums(table)
    assert found.tolist() == [[0, 0], [4, 6], [4, 5]]
    nothing = Groups(torch.tensor([], dtype=torch.long), torch.tensor([0, 0])).sums(table)
    assert nothing.tolist() == [[0, 0], [0, 0]]


def test_moves_to_one_state_by_one_set_are_one_bundle():
    source, target, kind = torch.tensor([[0, 1, 0, 2], [1, 1, 2, 1], [0, 0, 1, 1]])
    bundles = bundles_of(source, target, kind, 3)
    assert len(bundles.target) == 3
    drawn = torch.Generator().manual_seed(0)
    came, ways, sets = (torch.rand(n, 3, generator=drawn, dtype=torch.float64) for n in (4, 4, 2))
    back, on = torch.zeros(2, 4, 3, dtype=torch.float64)
    through = torch.zeros(2, 3, dtype=torch.float64)
    for s, t, k in zip(source, target, kind, strict=True):
        back[s] += ways[t] * sets[k]
        on[t] += came[s] * sets[k]
        through[k] += came[s] * ways[t]
    torch.testing.assert_close(bundles.back(ways, sets), back)
    torch.testing.assert_close(bundles.on(came, sets), on)
    torch.testing.assert_close(bundles.through(came, ways, 2), through)
