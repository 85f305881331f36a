"""The first act of the demonstration: its loops, its table, and what it says of slow machines."""

import importlib.util
import os
import re

import pytest

from scripts import demo_antibody, telling
from scripts.demo_antibody import AROUND, CHAIN, LOOPS
from tests.support.antibodies import residue_generator, residue_tokenizer


@pytest.fixture
def _tiny(monkeypatch, _untouched_libraries):
    """An encoder of random weights, on a machine that counts as fast."""
    written = residue_generator(), residue_tokenizer()
    monkeypatch.setattr(demo_antibody, "load_antiberty", lambda: written)
    monkeypatch.setattr(demo_antibody, "IDLE_SECONDS", 1e9)


def test_the_loops_stand_once_in_the_chain_between_their_neighbours():
    """By IMGT the first two are followed and preceded by framework residues that hardly vary."""
    assert len(CHAIN) == 121
    assert all(CHAIN.count(loop) == 1 for loop in LOOPS)
    before, between, behind, last = re.split("|".join(LOOPS), CHAIN)
    assert (before[-4], before[-3:], between[2]) == ("C", "AAS", "W")
    assert (behind[-1], last) == ("C", "WGQGTLVTVSS")


@pytest.mark.wide
@pytest.mark.usefixtures("_tiny")
def test_every_loop_is_filled_and_shown(capsys):
    loops = demo_antibody.main()
    printed = capsys.readouterr().out
    assert [loop.real for loop in loops] == list(LOOPS)
    for number, loop in enumerate(loops, 1):
        assert len(loop.written) == len(loop.probabilities) == len(loop.real)
        assert all(0 < p <= 1 for p in loop.probabilities)
        rows = printed.split(f"loop {number}, real")[1].splitlines()[:4]
        assert rows[0].split() == list(loop.real)
        assert rows[1].split() == ["written", *loop.written]
        assert rows[2].split()[3:] == [f"{100 * p:.0f}" for p in loop.probabilities]
        right = sum(a == b for a, b in zip(loop.real, loop.written, strict=True))
        assert rows[3].split()[:3] == [str(right), "of", str(len(loop.real))]
    # The second loop comes about residue by residue between what is known.
    start = CHAIN.index(LOOPS[1])
    left, right = CHAIN[start - AROUND : start], CHAIN[start + 8 : start + 8 + AROUND]
    passes = re.findall(r"^ +(\d+)   (.+)$", printed, re.M)
    assert [int(number) for number, _ in passes] == list(range(9))
    assert passes[0][1].split() == [*left, *8 * ["\N{MIDDLE DOT}" * 3], *right]
    assert passes[8][1].split() == [*left, *loops[1].written, *right]
    assert "times as long" not in printed


@pytest.mark.wide
@pytest.mark.usefixtures("_tiny")
def test_a_slow_machine_is_told_of_in_time(monkeypatch, capsys):
    monkeypatch.setattr(demo_antibody, "IDLE_SECONDS", 1e-9)
    demo_antibody.main(minutes=9)
    printed = capsys.readouterr().out
    assert "times as long as two idle cores" in printed.split("Loop 2")[0]


def test_what_is_said_of_a_slow_machine(monkeypatch):
    """Four times slower: nine minutes become 36; with one thread there is none to save.

    Where nothing comes after, or nothing is shorter, neither is promised.
    """
    cores = os.cpu_count()
    monkeypatch.setattr(os, "getloadavg", lambda: (2.5 * cores, 0, 0), raising=False)
    told = " ".join(telling.told_of_slowness(4.0, 9, 2, "python little.py"))
    assert "takes 4 times as long as two idle cores. Other programs want its cores" in told
    assert "about 36 minutes instead of 9" in told
    assert "OMP_NUM_THREADS=1 make demo" in told
    assert told.endswith("The same story in little: python little.py")
    (told,) = telling.told_of_slowness(4.0, 0, 1, None)
    assert told.endswith("as two idle cores. Other programs want its cores as well.")
    assert "OMP_NUM_THREADS" not in " ".join(telling.told_of_slowness(4.0, 9, 1, None))
    monkeypatch.setattr(os, "getloadavg", lambda: (0.5, 0, 0))
    assert "slow, or few" in telling.told_of_slowness(4.0, 9, 2, None)[0]
    monkeypatch.delattr(os, "getloadavg")
    assert "slow, or few" in telling.told_of_slowness(4.0, 9, 2, None)[0]
    assert telling.told_of_slowness(2.9, 9, 2, None) == []


@pytest.mark.slow
@pytest.mark.usefixtures("_untouched_libraries")
def test_the_pretrained_encoder_finds_the_germline_loops():
    """The first two loops nearly as they are, the third by far not: it is no copy."""
    if importlib.util.find_spec("antiberty") is None:
        pytest.skip("the package antiberty is not installed")
    right = [
        sum(a == b for a, b in zip(loop.real, loop.written, strict=True))
        for loop in demo_antibody.main()
    ]
    assert right[0] >= 6
    assert right[1] >= 5
    assert right[2] <= 9
