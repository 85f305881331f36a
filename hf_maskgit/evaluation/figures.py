"""Figures as JSON that every reader takes."""

import json
import math
from collections.abc import Mapping
from typing import Any


def figures_text(figures: Any, indent: int = 2) -> str:
    """Write figures as JSON, with null for what is no finite number.

    JSON has no word for nan and infinities, such as the share of none. Python writes one of its
    own, which other readers refuse together with all the rest of a file.

    Args:
        figures: numbers, words, truth values and None in mappings and sequences of any depth.
        indent: blanks of a level.
    """
    return json.dumps(_plain(figures), indent=indent, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
