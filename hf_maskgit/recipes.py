"""How every script reads its options.

They are dataclasses, parsed by `HfArgumentParser`. A YAML or JSON recipe may stand first on the
command line: it replaces the defaults, and what is written on the command line wins. The options
of a training run are saved beside its weights as such a recipe.
"""

import difflib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser

RECIPE_NAME = "training_options.yaml"


def parse_options(
    option_types: Sequence[type], argv: Sequence[str] | None = None, description: str | None = None
) -> tuple[Any, ...]:
    """Read options from a recipe file and the command line, which wins.

    Args:
        option_types: dataclasses of options; their field names must differ.
        argv: the command line, a recipe's path first where there is one; None reads this process's.
        description: first line of the help text.

    Returns:
        One instance per dataclass. A mistake ends the program with a sentence and exit code 2.
    """
    parser = HfArgumentParser(
        option_types,  # type: ignore[arg-type]  # transformers names its own protocol here
        description=description,
        usage="%(prog)s [recipe.yaml] [--option value ...]   (--help lists all options)",
        allow_abbrev=False,
    )
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words and not words[0].startswith("-"):
            words = [*recipe_words(load_recipe(words[0]), option_types), *words[1:]]
        *options, unknown = parser.parse_args_into_dataclasses(
            words, return_remaining_strings=True, look_for_args_file=False
        )
        for word in unknown:
            raise ValueError(_unknown_option(word, option_types))
    except ValueError as error:
        parser.error(str(error))
    return tuple(options)


def load_recipe(path: str | Path) -> dict[str, Any]:
    """Read a recipe: a YAML or JSON file that maps options to values.

    Raises:
        ValueError: for a file that is not there or holds no mapping.
    """
    try:
        recipe = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(
            f"Cannot read the recipe {str(path)!r} ({error.strerror}). Options start with '--'."
        ) from error
    except yaml.YAMLError as error:
        raise ValueError(f"The recipe {str(path)!r} is no valid YAML: {error}") from error
    if not isinstance(recipe, dict):
        raise ValueError(
            f"The recipe {str(path)!r} must map options to values, one 'option: value' per line; "
            f"it holds {type(recipe).__name__}."
        )
    return recipe


def recipe_words(recipe: Mapping[str, Any], option_types: Sequence[type]) -> list[str]:
    """Spell a recipe as command-line words, so that both are checked by the same parser.

    Raises:
        ValueError: for an unknown option, or a value that YAML took for something else.
    """
    known = {f.name: f for option_type in option_types for f in fields(option_type)}
    words: list[str] = []
    for name, value in recipe.items():
        if name not in known:
            raise ValueError(_unknown_option(name, option_types))
        if value is None and known[name].default is None:
            continue
        if value is None or (isinstance(value, bool) and bool not in _types(known[name].type)):
            raise ValueError(
                f"The recipe's `{name}` reads as {value!r} in YAML, which this option does not "
                "take. Put a word such as no, off or null in quotes, or leave the line out."
            )
        if isinstance(value, list):
            words += [f"--{name}", *map(str, value)]
        elif isinstance(value, dict):
            words.append(f"--{name}={json.dumps(value)}")
        else:
            words.append(f"--{name}={value}")
    return words


def given_options(*options: Any) -> dict[str, Any]:
    """Collect the options that have a value, as trackers want them."""
    merged = {name: value for part in options for name, value in asdict(part).items()}
    return {name: value for name, value in merged.items() if value is not None}


def save_recipe(path: str | Path, *options: Any) -> None:
    """Write all options as a recipe that `parse_options` reads back to equal options."""
    text = yaml.safe_dump(given_options(*options), sort_keys=False)
    Path(path).write_text(text, encoding="utf-8")


def json_object(name: str, text: str) -> dict[str, Any]:
    """Read the value of an option that holds a JSON object.

    Raises:
        ValueError: for anything else.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise ValueError(
            f"`{name}` must be a JSON object such as '{{\"hidden_size\": 256}}', got {text!r}."
        )
    return value


def _types(annotation: Any) -> tuple[Any, ...]:
    return (annotation, *getattr(annotation, "__args__", ()))


def _unknown_option(word: str, option_types: Sequence[type]) -> str:
    name = str(word).lstrip("-").split("=")[0].replace("-", "_")
    known = [f.name for option_type in option_types for f in fields(option_type)]
    close = difflib.get_close_matches(name, known, n=3)
    advice = f"Did you mean {' or '.join(close)}?" if close else "--help lists all options."
    return f"Unknown option {str(word)!r}. {advice}"
