"""Schedules of the learning rate: each by its own formula, set to any update exactly."""

import math

import pytest
from torch import nn

from hf_maskgit.training.arguments import TrainArguments
from hf_maskgit.training.learning_rates import LEARNING_RATES, updates_of
from hf_maskgit.training.optimizer import make_optimizer, set_schedule
from tests.support.project import ROOT
from tests.support.tiny_training import log_of, loop_of

pytestmark = pytest.mark.usefixtures("_fresh_accelerate")
N, WARMUP, DECAY, LOW = 40, 4, 10, 0.1


def half_cosine(share):
    return (1 + math.cos(math.pi * share)) / 2


# After the warm-up, as a share of the highest rate, by hand.
FORMULAS = {
    "linear": lambda s: (N - s) / (N - WARMUP),
    "cosine": lambda s: half_cosine((s - WARMUP) / (N - WARMUP)),
    "cosine_with_min_lr": lambda s: LOW + (1 - LOW) * half_cosine((s - WARMUP) / (N - WARMUP)),
    "constant_with_warmup": lambda s: 1.0,
    "inverse_sqrt": lambda s: math.sqrt(WARMUP / s),
    "warmup_stable_decay": lambda s: (
        1.0 if s < N - DECAY else LOW + (1 - LOW) * half_cosine((s - N + DECAY) / DECAY)
    ),
}


def options_of(name, **changes):
    given = {"decay_steps": DECAY / N, "min_lr_rate": LOW}
    reads = {option: given[option] for option in LEARNING_RATES[name].reads}
    return TrainArguments(
        output_dir="run", lr_scheduler_type=name, warmup_steps=WARMUP, **{**reads, **changes}
    )


def scheduler_of(options, num_updates=N):
    return make_optimizer(nn.Linear(2, 2), options, num_updates)[1]


def test_every_schedule_has_its_formula_and_its_line_on_the_page():
    assert FORMULAS.keys() == LEARNING_RATES.keys()
    page = (ROOT / "docs" / "optimisation.md").read_text()
    for name, row in LEARNING_RATES.items():
        told = row.told.replace("`min_lr_rate`", "`min_lr_rate` x `learning_rate`")
        assert f"| `{name}` | {told} |" in page


@pytest.mark.parametrize("name", LEARNING_RATES)
def test_a_schedule_goes_by_its_formula_and_is_set_to_any_update_exactly(name):
    options = options_of(name)
    stepping, peak = scheduler_of(options), options.learning_rate
    low = LOW if name == "warmup_stable_decay" else 0.0  # where the warm-up begins
    for step in range(N + 1):
        warming = low + (1 - low) * step / WARMUP
        expected = warming if step < WARMUP else FORMULAS[name](step)
        assert stepping.get_last_lr()[0] == pytest.approx(peak * expected, abs=1e-12)
        again = scheduler_of(options)
        set_schedule(again, step)
        for scheduler in (stepping, again):
            scheduler.optimizer.step()
            scheduler.step()
        assert again.get_last_lr() == stepping.get_last_lr()
        assert again.optimizer.param_groups[0]["lr"] == stepping.optimizer.param_groups[0]["lr"]


def test_a_part_of_a_run_is_a_number_or_a_share_of_updates():
    assert updates_of(0, 100) == 0
    assert updates_of(0.05, 100) == 5
    assert updates_of(0.05, 101) == 6
    assert updates_of(1, 100) == 1
    assert updates_of(30.0, 100) == 30


def test_what_is_left_out_has_the_defaults_that_the_help_names():
    plain = TrainArguments(output_dir="run", lr_scheduler_type="warmup_stable_decay")
    named = TrainArguments(
        output_dir="run", lr_scheduler_type="warmup_stable_decay", decay_steps=0.2, min_lr_rate=0
    )
    plain, named = scheduler_of(plain, 100), scheduler_of(named, 100)
    factors = [one.lr_lambdas[0] for one in (plain, named)]
    assert [factors[0](s) for s in range(101)] == [factors[1](s) for s in range(101)]
    assert (factors[0](80), factors[0](90), factors[0](100)) == (1, 0.5, 0)


@pytest.mark.wide
def test_a_run_logs_its_rates(tmp_path):
    options = {"lr_scheduler_type": "warmup_stable_decay", "warmup_steps": 2, "decay_steps": 2}
    loop_of(tmp_path / "run", **options).run()
    rates = log_of(tmp_path / "run", "learning_rate")  # after update s: the rate of the next one
    assert list(rates.values()) == pytest.approx([0.005, 0.01, 0.01, 0.01, 0.005, 0.0])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lr_scheduler_type": "steps"}, "`lr_scheduler_type` must be one of linear, cosine, .*ot"),
        ({"decay_steps": 3}, "`decay_steps` is read by lr_scheduler_type warmup_stable_decay, and"),
        ({"min_lr_rate": 0.1}, "read by lr_scheduler_type cosine_with_min_lr and warmup_stable_d"),
        ({"decay_steps": -1}, "`decay_steps` must be at least 0, got -1"),
        ({"min_lr_rate": 1.5}, "`min_lr_rate` must be at most 1, got 1.5"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        TrainArguments(output_dir="run", **options)


def test_a_schedule_that_is_longer_than_the_run_is_refused():
    with pytest.raises(ValueError, match="A warm-up of 4 updates and a decay of 38 do not fit in"):
        scheduler_of(options_of("warmup_stable_decay", decay_steps=38))
