"""How every script reads its options and ends.

The options are dataclasses, parsed by `HfArgumentParser`. A YAML or JSON recipe may stand first on
the command line: it replaces the defaults, and what is written on the command line wins. The
options of a training run are saved beside its weights as such a recipe.
"""

import atexit
import difflib
import inspect
import json
import logging
import re
import signal
import sys
from argparse import Action, ArgumentDefaultsHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, field, fields
from pathlib import Path
from typing import Any, NoReturn

import yaml
from safetensors import SafetensorError
from transformers import HfArgumentParser

from ..core.checkpoint_files import raised_in
from ..evaluation.progress import no_bars_of_others_in_logs
from .other_names import options_for
from .output_files import disk_failure, reader_has_left
from .repeated_options import Value, gathered, list_options

RECIPE_NAME = "training_options.yaml"

# 12, -0.5, 1e-4, .inf and .nan; not 1:30 (90 to YAML), 010 (8), 0x1f or 1_000.
_PLAIN_NUMBER = (
    r"[-+]?(0|[1-9][0-9]*)?(\.[0-9]*)?([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
_INTERRUPTED = 130  # what a shell reports of a program that Ctrl-C has ended
_READER_LEFT = 141  # and of one whose output nobody reads any more


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

    What this library or the script refuses, or a disk does, is said in one sentence and ends the
    program with exit code 1; Ctrl-C ends it with 130, a training that another signal has stopped
    with 128 and that signal's number, and an output that nobody reads any more with 141. Every
    other error keeps its traceback: there is more to know.

    Args:
        main: reads this process's command line.
    """
    # the library's own lines; where it measures or trains, they say in a log how far it is
    logging.basicConfig(format="%(message)s")
    logging.getLogger("hf_maskgit").setLevel(logging.INFO)
    no_bars_of_others_in_logs()
    try:
        main()
    except BrokenPipeError:
        if not reader_has_left():
            raise
        sys.exit(_READER_LEFT)
    except (ValueError, TypeError, ImportError, RuntimeError, OSError, SafetensorError) as error:
        said = str(error) if _refused_by_us(error, main) else disk_failure(error)
        if said is None:
            raise
        sys.exit(f"error: {said}")  # to stderr, with exit code 1
    except KeyboardInterrupt as interrupt:
        # An impatient further Ctrl-C would meet the interpreter as it ends, with a traceback.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
        sys.stderr.write(f"\n{str(interrupt) or 'Interrupted.'}\n")
        sys.exit(getattr(interrupt, "exit_code", _INTERRUPTED))


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
    named_recipe = words[:1] if words and not words[0].startswith("-") else []
    words = gathered(words[len(named_recipe) :], list_options(option_types))
    try:
        for path in named_recipe:
            words = [*recipe_words(load_recipe(path), option_types), *words]
        *options, unknown = parser.parse_args_into_dataclasses(
            words, return_remaining_strings=True, look_for_args_file=False
        )
        for word in unknown:
            raise ValueError(_unknown_option(word, option_types))
        for part in options:
            _check_homes(part)
            _check_folder(getattr(part, "output_dir", None))
    except ValueError as error:
        parser.error(str(error))
    return tuple(options)


def load_recipe(path: str | Path) -> dict[str, Any]:
    """Read a recipe: a YAML or JSON file that maps options to values.

    Raises:
        ValueError: for a file that is not there or holds no mapping.
    """
    try:
        text = read_text(path)
    except ValueError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        raise ValueError(
            f"Cannot read the recipe {str(path)!r} ({error.__cause__.strerror}). Options start "
            "with '--'."
        ) from error
    try:
        recipe = yaml.load(text, _RecipeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
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
        value = _spelled(value, known[name].metadata)
        if value is None or (isinstance(value, bool) and bool not in _types(known[name].type)):
            raise ValueError(
                f"The recipe's `{name}` reads as {value!r} in YAML, which this option does not "
                "take. Put a word such as no, off or null in quotes, or leave the line out."
            )
        for entry in value if isinstance(value, list) else [value]:
            if not isinstance(entry, str | int | float) and entry is not value:
                raise ValueError(
                    f"The recipe's `{name}` holds {type(entry).__name__} in a list; lists are of "
                    "words and numbers."
                )
            if not isinstance(entry, str | int | float | dict):
                raise ValueError(
                    f"The recipe's `{name}` is {type(entry).__name__} to YAML; write a word, a "
                    "number, or a list of these."
                )
        if isinstance(value, list):
            words += [f"--{name}", *(Value(entry) for entry in value)]
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


def read_text(path: str | Path) -> str:
    """Read a text file.

    Raises:
        ValueError: for a file that cannot be read, or is not in UTF-8.
    """
    try:
        # A byte-order mark in front, as Windows writes it, is no part of the text.
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"Cannot read {str(path)!r}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"The file {str(path)!r} is not in UTF-8 (byte {error.start}: {error.reason}); save it "
            "in that encoding."
        ) from error


def check_least(options: Any, **least: int) -> None:
    """Refuse numbers that are too small; None passes.

    Args:
        options: holds them as attributes.
        **least: the smallest value of each, by its name.

    Raises:
        ValueError: naming the option.
    """
    for name, smallest in least.items():
        value = getattr(options, name)
        if value is not None and value < smallest:
            raise ValueError(f"`{name}` must be at least {smallest}, got {value}.")


def _check_homes(part: Any) -> None:
    """Refuse a place for results that would lie in a folder called "~", as no shell has read it."""
    for name, path in vars(part).items():
        at_home = name.startswith("output_") and str(path).split("/")[0] == "~"
        if at_home and not Path("~").exists():
            raise ValueError(
                f"`{name}` is {path!r}, and only a shell takes '~' for a home, at the beginning of "
                "a word; write the whole path."
            )


def _check_folder(path: str | None) -> None:
    """Make sure that a folder is no file, nor lies in one, before work begins."""
    if path is None:
        return
    there = next((one for one in (Path(path), *Path(path).parents) if one.exists()), Path())
    if not there.is_dir():
        raise ValueError(f"`output_dir` is {path!r}, and {str(there)!r} is a file; name a folder.")


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


class _RecipeLoader(yaml.SafeLoader):
    """Reads YAML in which every value is what it looks like, and every option stands once."""

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        """Refuse aliases: a few of them can stand for more than memory holds."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(
                None,
                None,
                f"*{event.anchor} stands for another value; write it out",
                event.start_mark,
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a name that stands twice; YAML would take the last and say nothing."""
        names = [key.value for key, _ in node.value]
        for number, (key, _) in enumerate(node.value):
            if not isinstance(key, yaml.ScalarNode):
                raise _marked("the name of an option must be a word", key)
            if key.value in names[:number]:
                raise _marked(f"{key.value!r} stands there twice; leave one of the two out", key)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        """Refuse what YAML takes for a number and a reader would not, or not for that one."""
        if not re.fullmatch(_PLAIN_NUMBER, node.value):
            raise _marked(
                f"{node.value!r} is no plain number (YAML would read it as another one); write "
                "it in decimal digits, or in quotes if it is a word",
                node,
            )
        is_whole = node.tag.endswith(":int")
        return self.construct_yaml_int(node) if is_whole else self.construct_yaml_float(node)

    def construct_date(self, node: yaml.ScalarNode) -> Any:
        """Leave a date the word that it is."""
        return self.construct_scalar(node)


for _kind in ("int", "float"):
    _RecipeLoader.add_constructor(f"tag:yaml.org,2002:{_kind}", _RecipeLoader.construct_number)
_RecipeLoader.add_constructor("tag:yaml.org,2002:timestamp", _RecipeLoader.construct_date)


def _marked(sentence: str, node: yaml.Node) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, sentence, node.start_mark)


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

    def _parse_optional(self, arg_string: str) -> Any:
        """Tell whether a word names an option: argparse looks at what it begins with."""
        return None if isinstance(arg_string, Value) else super()._parse_optional(arg_string)


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


def _refused_by_us(error: BaseException, main: Callable[[], object]) -> bool:
    """Tell whether a `raise` of this library or of the script stands at an error's origin."""
    places = Path(__file__).resolve().parents[1], Path(inspect.getfile(main)).resolve().parent
    return raised_in(error, *places)


def _spelled(value: Any, declared: Mapping[str, Any]) -> Any:
    """Take what YAML made a truth value for the word: `no`, and what the option alone means."""
    words = {False: "no"} if "no" in declared.get("choices", ()) else {}
    if "const" in declared:
        words[True] = declared["const"]
    return words.get(value, value) if isinstance(value, bool) else value


def _types(annotation: Any) -> tuple[Any, ...]:
    return (annotation, *getattr(annotation, "__args__", ()))


def _unknown_option(word: str, option_types: Sequence[type]) -> str:
    close = _close_options(word, option_types)
    advice = f"Did you mean {' or '.join(close)}?" if close else "--help lists all options."
    return f"Unknown option {str(word)!r}. {advice}"


def _close_options(word: str, option_types: Sequence[type]) -> list[str]:
    name, names = _option_name(word), _option_names(option_types)
    return options_for(name, names) or difflib.get_close_matches(name, names, n=3)


def _option_name(word: str) -> str:
    return str(word).lstrip("-").split("=")[0].replace("-", "_")


def _option_names(option_types: Sequence[type]) -> list[str]:
    return [f.name for option_type in option_types for f in fields(option_type)]
