"""How an option is declared once: its default, its help, its range, and the check of a value.

A dataclass field made by `option` carries all of it. Whatever else knows the option (a stored
configuration, the command line, the sentence of an error, the documentation) reads it from there.
"""

import math
import numbers
from dataclasses import dataclass, field, fields, replace
from typing import Any

_OVERFLOW = 2**31  # what is counted in 32 bits would wrap around
_LONGEST_SHOWN = 200  # characters of a value in a sentence


@dataclass(frozen=True)
class Option:
    """What there is to know of one option.

    Attributes:
        help: what it is, its unit and its source, as sentences.
        default: its value where nobody sets it.
        kinds: exact types of a value: `(bool,)`, `(int,)` or `(int, float)`. () asks for none, so
            that numbers of other libraries pass.
        low, high: ends of the range of a number; None where it has none.
        open_low, open_high: whether that end is itself refused.
        choices: the values there are, where they can be counted.
        noun: what a number is, for the sentence that refuses it: "probability".
        hint: what to do instead, for the end of that sentence.
        per_row: a list of such values is one, too: one per row.
    """

    help: str
    default: Any
    kinds: tuple[type, ...] = ()
    low: float | None = None
    high: float | None = None
    open_low: bool = False
    open_high: bool = False
    choices: tuple[Any, ...] = ()
    noun: str = ""
    hint: str = ""
    per_row: bool = False

    @property
    def range(self) -> str:
        """The range in words that follow "must": "lie in [0, 1)", "be at least 0"; "" if none."""
        if self.low is None:
            return ""
        if self.high is None:
            return f"be greater than {self.low}" if self.open_low else f"be at least {self.low}"
        opening, closing = "(" if self.open_low else "[", ")" if self.open_high else "]"
        return f"lie in {opening}{self.low}, {self.high}{closing}"

    @property
    def description(self) -> str:
        """The help and, as a sentence of its own, the range: "... Must be at least 0."."""
        return f"{self.help} Must {self.range}." if self.range else self.help

    def spans(self, value: Any) -> bool:
        """Tell whether a number lies in the range; one that is not a number (nan) lies in none."""
        above = self.low is None or (value > self.low if self.open_low else value >= self.low)
        below = self.high is None or (value < self.high if self.open_high else value <= self.high)
        return bool(above and below)


# Of what is drawn where it is an argument of a call, and no option of the sampler.
TEMPERATURE = Option("Of what is drawn.", None, low=0, open_low=True)


def option(default: Any, help: str, *kinds: type, **more: Any) -> Any:
    """Declare a dataclass field that is an option.

    Args:
        default: its value where nobody sets it.
        help: what it is, as sentences.
        *kinds: exact types of a value, none to ask for none.
        **more: the other attributes of `Option`.
    """
    declared = Option(help, default, kinds, **more)
    return field(default=default, metadata={"option": declared})


def option_of(source: type, name: str) -> Any:
    """Declare a dataclass field as another dataclass declares it.

    Args:
        source: the dataclass whose option it is.
        name: the option's name there.
    """
    declared = options_of(source)[name]
    return field(default=declared.default, metadata={"option": declared})


def options_of(source: type) -> dict[str, Option]:
    """Return the options that a dataclass declares, by name and in their order."""
    return {f.name: f.metadata["option"] for f in fields(source) if "option" in f.metadata}


def check(name: str, value: Any, option: Option) -> None:
    """Refuse a value that an option cannot have.

    Args:
        name: the option's name.
        value: what was given; None is a value like every other, so leave out what is unset.
        option: its declaration.

    Raises:
        ValueError: saying what was got and what is allowed.
    """
    if option.per_row and isinstance(value, list):
        if not value:
            raise ValueError(f"`{name}` is an empty list; give one value, or one per row.")
        for one in value:
            check(name, one, replace(option, per_row=False))
        return
    if option.choices and not _is_one_of(value, option.choices):
        known = ", ".join(map(repr, option.choices))
        raise ValueError(f"Unknown {name} {shown(value)}; choose from {known}.")
    # True is an int to Python, hence `type` and not `isinstance`.
    is_kind = not option.kinds or type(value) in option.kinds
    if option.kinds == (bool,) and not is_kind:
        raise ValueError(f"`{name}` must be True or False, got {shown(value)}.")
    # Of an integer, type and range are one sentence, since it is mostly a count.
    if option.kinds == (int,) and not (is_kind and option.spans(value)):
        limit = "" if option.low is None else f" of at least {option.low}"
        if is_kind and option.high is not None and value > option.high:
            limit = f" of at most {option.high}"
        raise ValueError(f"`{name}` must be an integer{limit}, got {shown(value)}.")
    if option.kinds == (int,) and not -_OVERFLOW < value < _OVERFLOW:
        raise ValueError(f"`{name}` must be an integer below 2**31, got {value}.")
    # What is compared with a range below is a number by then: a text or a list would raise there.
    ranged = option.low is not None or option.high is not None
    if not is_kind or (ranged and not is_number(value)):
        raise ValueError(f"`{name}` must be a number, got {shown(value)}.")
    if not option.spans(value):
        noun = f"is a {option.noun} and " if option.noun else ""
        raise ValueError(f"`{name}` {noun}must {option.range}, got {value}{option.hint}.")
    if ranged and not _is_finite(value):
        raise ValueError(f"`{name}` must be finite, got {value}.")


def _is_one_of(value: Any, choices: tuple[Any, ...]) -> bool:
    # Of another type it is none of them, and may not be comparable: a tensor, a list.
    return isinstance(value, tuple({type(choice) for choice in choices})) and value in choices


def is_number(value: Any) -> bool:
    """Tell whether it is one number: of Python, of NumPy, or the only one of a tensor."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def shown(value: Any) -> str:
    """Show a value of any size and kind on one line."""
    words = " ".join(repr(value).split())
    return words if len(words) <= _LONGEST_SHOWN else f"{words[:_LONGEST_SHOWN]}..."
