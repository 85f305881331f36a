"""How every script reads its options and ends.

The options are dataclasses, parsed by `HfArgumentParser`. A YAML or JSON recipe may stand first on
the command line: it replaces the defaults, and what is written on the command line wins. The
options of a training run are saved beside its weights as such a recipe.
"""

import difflib
import dis
import inspect
import json
import sys
from argparse import Action, ArgumentDefaultsHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import yaml
from transformers import HfArgumentParser

RECIPE_NAME = "training_options.yaml"

_INTERRUPTED = 130  # what a shell reports of a program that Ctrl-C has ended


def option(default: Any, help: str, **argparse: Any) -> Any:
    """Declare an option of a script: the field of a dataclass.

    Args:
        default: its value where nobody names it.
        help: what it is, with its unit; shown by --help.
        **argparse: further arguments of argparse, such as `choices`.
    """
    # argparse fills in what stands behind a %, so one that is meant as such is doubled.
    return field(default=default, metadata={"help": help.replace("%", "%%"), **argparse})


def required(help: str) -> Any:
    """Declare an option that has to be named."""
    return field(metadata={"help": help.replace("%", "%%")})


def run_program(main: Callable[[], object]) -> None:
    """Run a script's main function as a program, whose mistakes are sentences.

    What this library or the script refuses is said in one sentence and ends the program with exit
    code 1; Ctrl-C ends it with 130. Every other error keeps its traceback: there is more to know.

    Args:
        main: reads this process's command line.
    """
    try:
        main()
    except (ValueError, RuntimeError, OSError) as error:
        if not _refused_by_us(error.__traceback__, main):
            raise
        sys.exit(f"error: {error}")  # to stderr, with exit code 1
    except KeyboardInterrupt as interrupt:
        sys.stderr.write(f"\n{str(interrupt) or 'Interrupted.'}\n")
        sys.exit(_INTERRUPTED)


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
    words = list(sys.argv[1:] if argv is None else argv)
    parser = _Parser(
        option_types,  # type: ignore[arg-type]  # transformers names its own protocol here
        description=description,
        formatter_class=_Help,
        usage="%(prog)s [recipe.yaml] [--option value ...]   (--help lists all options)",
        allow_abbrev=False,
    )
    parser.close_misses = _close_misses(words, option_types)
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


class _Help(ArgumentDefaultsHelpFormatter):
    """Help that names a default where there is one; what None stands for is in the option's own."""

    def _get_help_string(self, action: Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


class _Parser(HfArgumentParser):
    """A parser that looks for slips of the pen before it says that an option is missing."""

    close_misses: Sequence[str] = ()  # sentences

    def error(self, message: str) -> NoReturn:
        """End the program with a sentence and exit code 2."""
        slips = [sentence for sentence in self.close_misses if sentence not in message]
        super().error(f"{' '.join(slips)} ({message})" if slips else message)


def _close_misses(words: Sequence[str], option_types: Sequence[type]) -> list[str]:
    """Say of every word that is almost an option which one was perhaps meant."""
    names = _option_names(option_types)
    known = {"help", *names, *(f"no_{name}" for name in names)}
    # as for argparse, what holds a space is a value
    written = [word for word in words if word.startswith("--") and " " not in word]
    return [
        _unknown_option(word, option_types)
        for word in written
        if _option_name(word) not in known and _close_options(word, option_types)
    ]


def _refused_by_us(traceback: TracebackType | None, main: Callable[[], object]) -> bool:
    """Tell whether a `raise` of this library or of the script stands at an error's origin.

    Torch raises errors of its own below the last line of Python, so to know the line's file is not
    enough: it has to be a `raise`.
    """
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return False
    code = traceback.tb_frame.f_code
    places = Path(__file__).resolve().parents[1], Path(inspect.getfile(main)).resolve().parent
    raised = code.co_code[traceback.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    origin = Path(code.co_filename).resolve()
    return raised and any(origin.is_relative_to(place) for place in places)


def _types(annotation: Any) -> tuple[Any, ...]:
    return (annotation, *getattr(annotation, "__args__", ()))


def _unknown_option(word: str, option_types: Sequence[type]) -> str:
    close = _close_options(word, option_types)
    advice = f"Did you mean {' or '.join(close)}?" if close else "--help lists all options."
    return f"Unknown option {str(word)!r}. {advice}"


def _close_options(word: str, option_types: Sequence[type]) -> list[str]:
    return difflib.get_close_matches(_option_name(word), _option_names(option_types), n=3)


def _option_name(word: str) -> str:
    return str(word).lstrip("-").split("=")[0].replace("-", "_")


def _option_names(option_types: Sequence[type]) -> list[str]:
    return [f.name for option_type in option_types for f in fields(option_type)]
