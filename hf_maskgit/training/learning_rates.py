"""How the learning rate goes over a run: the table of schedules, one row per name of transformers.

Each is a function of the update alone, so that a resumed run needs nothing of it but its number.
"""

import math
from typing import NamedTuple


class LearningRates(NamedTuple):
    """A schedule of `transformers.get_scheduler`.

    Attributes:
        told: what the rate does after the warm-up, as part of a sentence.
        reads: options that shape it, and the keyword of transformers that each goes to.
    """

    told: str
    reads: dict[str, str]


LEARNING_RATES = {
    "linear": LearningRates("falls to 0 in a straight line", {}),
    "cosine": LearningRates("falls to 0 as half a cosine", {}),
    "cosine_with_min_lr": LearningRates(
        "falls as half a cosine to `min_lr_rate`", {"min_lr_rate": "min_lr_rate"}
    ),
    "constant_with_warmup": LearningRates("stays", {}),
    "inverse_sqrt": LearningRates("falls with the square root of the updates", {}),
    "warmup_stable_decay": LearningRates(
        "stays, and falls as half a cosine to `min_lr_rate` over the last `decay_steps`",
        {"decay_steps": "num_decay_steps", "min_lr_rate": "min_lr_ratio"},
    ),
}
# Of the options that not every schedule reads, where they are not given.
DEFAULTS = {"decay_steps": 0.2, "min_lr_rate": 0.0}


def updates_of(steps: float, num_updates: int) -> int:
    """Count the updates of a part of a run; a value below 1 is a share of all, rounded up."""
    return math.ceil(steps * num_updates if steps < 1 else steps)


def check_learning_rates(name: str, given: dict[str, float | None]) -> None:
    """Refuse a schedule that there is none of, and options that it does not read.

    Args:
        name: of the schedule.
        given: the options that only some read, None where they are not given.

    Raises:
        ValueError: saying what there is.
    """
    if name not in LEARNING_RATES:
        raise ValueError(
            f"`lr_scheduler_type` must be one of {', '.join(LEARNING_RATES)}, got {name!r}."
        )
    for option, value in given.items():
        if value is not None and option not in LEARNING_RATES[name].reads:
            readers = [row for row, rates in LEARNING_RATES.items() if option in rates.reads]
            raise ValueError(
                f"`{option}` is read by lr_scheduler_type {' and '.join(readers)}, and this run "
                f"has {name!r}; leave it out or choose another schedule."
            )


def settings_of(
    name: str, given: dict[str, float | None], warmup: int, num_updates: int
) -> dict[str, float]:
    """Return what transformers is told of a schedule beside its warm-up and length.

    Args:
        name: of the schedule.
        given: the options that only some read, None for their defaults.
        warmup: updates of the warm-up.
        num_updates: of the whole run.

    Raises:
        ValueError: when warm-up and decay are longer than the run.
    """
    reads, settings = LEARNING_RATES[name].reads, {}
    for option, keyword in reads.items():
        value = given[option]
        settings[keyword] = DEFAULTS[option] if value is None else value
    if "decay_steps" in reads:
        keyword = reads["decay_steps"]
        decay = settings[keyword] = updates_of(settings[keyword], num_updates)
        if warmup + decay > num_updates:
            raise ValueError(
                f"A warm-up of {warmup} updates and a decay of {decay} do not fit into a run of "
                f"{num_updates}; lower `warmup_steps` or `decay_steps`."
            )
    return settings
