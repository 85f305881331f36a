"""Options that take several values and stand more than once on a command line: all values count."""

from collections.abc import Collection, Sequence
from dataclasses import fields
from typing import get_args, get_origin


def list_options(option_types: Sequence[type]) -> set[str]:
    """Name the options, fields of dataclasses, that take several values."""
    every = (one for option_type in option_types for one in fields(option_type))
    return {
        f.name for f in every if any(get_origin(t) is list for t in (f.type, *get_args(f.type)))
    }


class Value(str):
    """A word that is a value, whatever it begins with: of `--text=-x`, or of a list in a recipe."""


def gathered(words: Sequence[str], lists: Collection[str]) -> list[str]:
    """Put the values of such an option together, where it stands first.

    argparse would keep the last ones alone, so that `--text one --text two` forgot `one`.

    Args:
        words: of a command line, without a recipe.
        lists: names of the options that take several values, with underscores.
    """
    groups: list[list[str]] = []
    for word in words:
        # as for argparse, what holds a space is a value
        is_option = word.startswith("--") and " " not in word.partition("=")[0]
        if is_option or not groups:
            groups.append([])
        groups[-1].append(word)
    first: dict[str, list[str]] = {}
    kept = []
    for head, *values in groups:
        name, joined, value = head.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if head.startswith("--") and name in lists:
            values = [Value(value), *values] if joined else values
            if name in first:
                first[name] += values
                continue
            first[name] = [f"--{name}", *values]
            kept.append(first[name])
        else:
            kept.append([head, *values])
    return [word for group in kept for word in group]
