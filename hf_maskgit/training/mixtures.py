"""Mixtures: texts of several sources, drawn with weights that the user names."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from datasets import Dataset, concatenate_datasets, interleave_datasets

# When an epoch of a mixture ends, in the words of `datasets.interleave_datasets`.
Stop = Literal["first_exhausted", "all_exhausted"]
FIRST_EXHAUSTED: Stop = "first_exhausted"


def check_weights(weights: Sequence[float] | None, num_sources: int) -> None:
    """Raise a ValueError for weights that are not one positive number per source."""
    if weights is None:
        return
    if len(weights) != num_sources:
        raise ValueError(
            f"`dataset_probs` has {len(weights)} numbers for {num_sources} data sets; give one for "
            "each, in the same order."
        )
    if not all(0 < weight < float("inf") for weight in weights):
        raise ValueError(
            f"`dataset_probs` must be greater than 0, got {list(weights)}; leave out the data set "
            "that is not to be used."
        )


def shares_of(weights: Sequence[float]) -> list[float]:
    """Divide weights by their sum: the probability that a text comes from each source."""
    total = sum(weights)
    return [weight / total for weight in weights]


def mixed(
    sources: Sequence[Dataset],
    weights: Sequence[float] | None,
    seed: int,
    stop: Stop = FIRST_EXHAUSTED,
) -> tuple[Dataset, list[int]]:
    """Mix the texts of several sources into one data set, which is an epoch.

    Without weights every text of all sources is taken once. With them each text comes from a source
    that is drawn, and the epoch ends when a source (or, with stop="all_exhausted", when every
    source) has given all its texts; one that ends sooner begins again. The draw is made once: each
    epoch has the same texts, in another order.

    Args:
        sources: data sets with the same columns.
        weights: relative weight of each, greater than 0, in texts; None takes all texts once.
        seed: of the draw.
        stop: "first_exhausted" or "all_exhausted".

    Returns:
        The mixture, and how many texts of it come from each source.
    """
    if weights is None:
        return concatenate_datasets(list(sources)), [len(source) for source in sources]
    # The draw itself is told by a column, which goes with the texts.
    marked = [
        Dataset.from_dict({"source": np.full(len(source), number)})
        for number, source in enumerate(sources)
    ]
    chosen: tuple[Dataset, Dataset] = tuple(
        interleave_datasets(
            list(parts), probabilities=shares_of(weights), seed=seed, stopping_strategy=stop
        )
        for parts in (sources, marked)
    )  # type: ignore[assignment]
    drawn = np.asarray(chosen[1]["source"][:])
    return chosen[0], np.bincount(drawn, minlength=len(sources)).tolist()
