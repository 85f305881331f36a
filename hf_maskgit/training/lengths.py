"""How long training examples are, looked up where they lie."""

import logging
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import GenerationConfig

from ..core.configuration_maskgit import MaskGitConfig
from ..core.decoding_lengths import NUM_TOKENS
from ..core.length_law import histogram
from ..core.trained_length import note_length

logger = logging.getLogger(__name__)

_ROWS = 10_000  # read at a time

Ints = NDArray[np.int64]


def note_length_of(config: MaskGitConfig, examples: Any, denoiser_learns: bool = True) -> None:
    """Remember in a generator's configuration how long the examples are that it learns from.

    Args:
        config: of the generator. The longest example of all trainings is kept, and the lengths of
            this one's texts.
        examples: to train on, see `longest_example`.
        denoiser_learns: False keeps the lengths that are known, where a critic alone learns: the
            texts that are written stay as they are.
    """
    note_length(config, longest_example(examples))
    if not denoiser_learns and config.lengths is not None:
        return
    counted = text_lengths(config, examples)
    config.lengths = histogram(counted.items()) if counted else None


def warn_of_unknown_lengths(config: MaskGitConfig, stored: GenerationConfig) -> None:
    """Say so where a model is to find lengths by what its training does not tell it.

    Args:
        config: after `note_length_of`.
        stored: the options that the model stores.
    """
    named = getattr(stored, "num_tokens", None) or "fixed"
    way = NUM_TOKENS[named]
    if not way.known_by(config):
        logger.warning(
            "The model stores num_tokens=%r, which goes by `%s` of its configuration, and this "
            "training gives it none: `generate` will refuse calls that name no other `num_tokens`. "
            "Name one in `decoding`; 'sampled' needs texts that are neither packed nor a stream, "
            "'window' needs `end_fill`.",
            named,
            way.reads,
        )


def longest_example(examples: Any) -> int | None:
    """Find the number of tokens of the longest example.

    Args:
        examples: with a column `input_ids`.

    Returns:
        None of examples that would have to be made to be looked at: a stream, a data set of one's
        own, one that is transformed on the way.
    """
    return max((int(sizes.max()) for _, sizes in _rows(examples, ids=False)), default=None)


def example_sizes(examples: Any) -> Ints:
    """Return the number of tokens of each example, (E,); see `longest_example` for which."""
    parts = [sizes for _, sizes in _rows(examples, ids=False)]
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])


def text_lengths(config: MaskGitConfig, examples: Any) -> Counter[int] | None:
    """Count how long the texts in examples are, without framing and ends of text behind them.

    Args:
        config: knows the framing, and what ends a text.
        examples: see `longest_example`.

    Returns:
        How many texts have each length; None where that cannot be looked at, or where an example
        holds several texts, as a packed block does.
    """
    counted: Counter[int] = Counter()
    for ids, sizes in _rows(examples):
        lengths = _bodies(config, ids, sizes)
        if lengths is None:
            return None
        counted.update(lengths[lengths > 0].tolist())
    return counted or None


def _bodies(config: MaskGitConfig, ids: Ints, sizes: Ints) -> Ints | None:
    """Measure the texts of some examples.

    Args:
        config: see `text_lengths`.
        ids: (T,) of all examples, one behind the other.
        sizes: (E,) tokens of each.

    Returns:
        (E,), or None where an end of text stands inside of one.
    """
    stop = sizes.cumsum()
    start = stop - sizes
    prefix, suffix = config.prefix_ids or [], config.suffix_ids or []
    framed = sizes >= len(prefix) + len(suffix)
    begins, closes = framed.copy(), framed.copy()
    for offset, token in enumerate(prefix):
        begins[begins] = ids[start[begins] + offset] == token
    for offset, token in enumerate(reversed(suffix)):
        closes[closes] = ids[stop[closes] - 1 - offset] == token
    start = start + begins * len(prefix)
    stop = stop - closes * len(suffix)
    # With [CLS] a b . . [SEP], "." an end of text: the last token that is none stands before the
    # ends that fill the example, and no end may stand before it.
    is_end = np.isin(ids, config.end_token_ids)
    place = np.arange(len(ids))
    last = np.maximum.accumulate(np.where(is_end, -1, place)) if len(ids) else place
    behind = np.where(stop > 0, last[stop - 1] + 1, 0)
    lengths = np.maximum(behind - start, 0)
    ends_before = np.concatenate([[0], is_end.cumsum()])
    if (ends_before[start + lengths] > ends_before[start]).any():
        return None
    return lengths


def _rows(examples: Any, ids: bool = True) -> Iterator[tuple[Ints, Ints]]:
    """Yield the tokens of some examples, one behind the other, and how many each has.

    Nothing is yielded of examples that would have to be made. Without `ids` the first is empty.
    """
    if isinstance(examples, list | tuple):
        rows = [e["input_ids"] for e in examples if hasattr(e, "keys") and "input_ids" in e]
        if rows and len(rows) == len(examples):
            sizes = np.array([len(row) for row in rows])
            yield np.concatenate([np.asarray(row) for row in rows if ids] or [sizes[:0]]), sizes
        return
    datasets = sys.modules.get("datasets")  # an import takes a second, and nothing came without
    if datasets is None or not isinstance(examples, datasets.Dataset):
        return
    if "input_ids" not in examples.column_names or examples.format["type"] == "custom":
        return
    for table in examples.select_columns("input_ids").with_format("arrow").iter(_ROWS):
        column = table["input_ids"].combine_chunks()
        sizes = column.value_lengths().to_numpy()
        yield column.flatten().to_numpy() if ids else sizes[:0], sizes
