"""How long training examples are, looked up where they lie."""

import sys
from typing import Any

from ..core.configuration_maskgit import MaskGitConfig
from ..core.trained_length import note_length

_ROWS = 10_000  # read at a time


def note_length_of(config: MaskGitConfig, examples: Any) -> None:
    """Remember in a generator's configuration how long the examples are that it learns from.

    Args:
        config: of the generator.
        examples: to train on, see `longest_example`.
    """
    note_length(config, longest_example(examples))


def longest_example(examples: Any) -> int | None:
    """Find the number of tokens of the longest example.

    Args:
        examples: with a column `input_ids`.

    Returns:
        None of examples that would have to be made to be looked at: a stream, a data set of one's
        own, one that is transformed on the way.
    """
    if isinstance(examples, list | tuple):
        lengths = [len(e["input_ids"]) for e in examples if hasattr(e, "keys") and "input_ids" in e]
        return max(lengths, default=None) if len(lengths) == len(examples) else None
    datasets = sys.modules.get("datasets")  # an import takes a second, and nothing came without
    if datasets is None or not isinstance(examples, datasets.Dataset):
        return None
    if "input_ids" not in examples.column_names or examples.format["type"] == "custom":
        return None
    rows = examples.select_columns("input_ids").with_format("arrow").iter(_ROWS)
    parts = (table["input_ids"].combine_chunks().value_lengths().to_numpy() for table in rows)
    return max((int(part.max()) for part in parts), default=None)
