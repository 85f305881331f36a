"""Works in turn: what is timed, what memory is, what an exponent is."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from hf_maskgit.evaluation.benchmark_rounds import (
    Contestant,
    beginning_of,
    counted_passes,
    exponent,
    measure,
    number_of_works,
    peak_bytes,
    quartiles,
)

CPU = torch.device("cpu")
MEGA = 2**20


def test_works_are_run_in_turn_and_each_round_begins_with_another():
    done = []

    def contestant(name):
        return Contestant(name, lambda: done.append(name), "a", lambda: done.append(name) or {})

    timings = measure([contestant(name) for name in "abc"], 4, CPU, counts_bytes=False)
    assert "".join(done) == "abc" + "abc" + "bca" + "cab" + "abc"
    assert [t.name for t in timings] == ["a", "b", "c"]
    assert timings[0].ratios == (1.0,) * 4
    for timing in timings:
        assert timing.peak_bytes is None
        expected = [x / y for x, y in zip(timing.seconds, timings[0].seconds, strict=True)]
        assert list(timing.ratios) == expected


def test_what_takes_long_is_timed_in_the_first_rounds_alone():
    done, told = [], []

    def contestant(name, most):
        work = partial(done.append, name)
        return Contestant(name, work, "a", dict, peak=lambda: done.append("p"), most_rounds=most)

    bar = SimpleNamespace(update=lambda: told.append(1))
    few = [contestant("a", None), contestant("b", 2)]
    timings = measure(few, 4, CPU, counts_bytes=True, told=bar)
    assert "".join(done) == "pp" + "ab" + "ba" + "a" + "a"
    assert [len(one.ratios) for one in timings] == [4, 2]
    assert len(told) == number_of_works(few, 4) == 8
    expected = [x / y for x, y in zip(timings[1].seconds, timings[0].seconds, strict=False)]
    assert list(timings[1].ratios) == expected


def test_a_work_that_was_not_done_stops_the_measurement():
    def check():
        raise RuntimeError("not done")

    with pytest.raises(RuntimeError, match="not done"):
        measure([Contestant("a", lambda: None, "a", check)], 1, CPU)


def test_the_peak_is_what_is_held_at_once():
    """Temporary tensors count while they live, and what was held before does not."""
    held = torch.ones(3 * MEGA // 4)  # before: not counted

    def work():
        for _ in range(5):
            torch.ones(MEGA // 4)  # one at a time
        first = torch.ones(MEGA // 4)
        return first + torch.ones(MEGA // 2)[: MEGA // 4] + held[: MEGA // 4]

    # first, the two mebibytes behind the slice, and their sum; then the last sum without the slice
    assert peak_bytes(work, CPU) == 4 * MEGA


def test_the_peak_of_a_backward_pass_is_seen():
    x = torch.ones(MEGA // 4, requires_grad=True)

    def work():
        (x.exp() * 2).sum().backward()
        x.grad = None

    assert 2 * MEGA <= peak_bytes(work, CPU) <= 4.1 * MEGA


def test_passes_are_counted_with_their_rows_while_they_are_looked_at():
    layer = nn.Linear(2, 2)
    with counted_passes(layer) as shapes:
        layer(torch.ones(3, 2))
        layer(input=torch.ones(5, 7, 2))
    layer(torch.ones(1, 2))
    assert shapes == [(3, 2), (5, 7)]


def test_a_work_can_be_begun_and_left():
    layer, done = nn.Linear(2, 2), []

    def work():
        for number in range(5):
            layer(torch.ones(3, 2))
            done.append(number)

    beginning_of(work, layer, 2)()
    assert done == [0, 1]
    beginning_of(work, layer, 9)()
    assert done == [0, 1, 0, 1, 2, 3, 4]

    def mistaken():
        layer(torch.ones(3, 2))
        raise ValueError("its own")

    with pytest.raises(ValueError, match="its own"):
        beginning_of(mistaken, layer, 2)()


@pytest.mark.parametrize("power", [0, 1, 1.5, 2, -1])
def test_the_exponent_of_an_exact_power_is_that_power(power):
    sizes = [4, 16, 64, 256, 1000]
    fitted, error = exponent(sizes, [0.37 * size**power for size in sizes])
    assert fitted == pytest.approx(power, abs=1e-12)
    assert error == pytest.approx(0, abs=1e-12)


def test_the_error_of_an_exponent_is_that_of_a_straight_line():
    """By hand: logs x = -1, 0, 1 and y = 0, 1, 1 leave residuals 1/6, -1/3, 1/6 on 1 degree."""
    e = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64).exp().tolist()
    seconds = torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64).exp().tolist()
    assert exponent(e, seconds) == pytest.approx((0.5, (1 / 12) ** 0.5))
    assert exponent(e[:2], seconds[:2]) == pytest.approx((1.0, 0.0))


def test_quartiles_of_few_values():
    assert quartiles([3.0]) == [3.0, 3.0, 3.0]
    assert quartiles([4.0, 1.0, 3.0, 2.0, 5.0]) == [2.0, 3.0, 4.0]
