"""Numbers of a JSON schema, as they are written: the compiler rounds them, and leaves digits out.

It writes 0.1 and the like in digits of its own, `1.` where a fraction has few digits, and heeds no
bound of one digit.
"""

import json
import re
from collections.abc import Mapping
from hashlib import sha256
from math import isfinite
from typing import Any


class Numbers:
    """Puts texts in place of numbers, which are no part of what the compiler compiles then.

    Args:
        text: of the schema, which these texts do not stand in.

    Attributes:
        written: a regular expression of what is to stand in place of each text and its quotes.
    """

    def __init__(self, text: str) -> None:
        self._name = f"number {sha256(text.encode(errors='surrogatepass')).hexdigest()} "
        self.written: dict[str, str] = {}

    def hide(self, schema: dict[str, Any]) -> None:
        """Replace the numbers that a schema lists, and those whose digits it bounds.

        Raises:
            ValueError: for a number that JSON does not have.
        """
        for keyword in ("const", "enum"):
            if keyword in schema:
                schema[keyword] = self._values(schema[keyword])
        if schema.get("type") in ("integer", "number") and len(schema) > 1:
            regex = _regex_of(schema)
            schema.clear()
            schema["const"] = self._hidden(regex)

    def _values(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._values(one) for one in value]
        if isinstance(value, dict):
            return {name: self._values(one) for name, one in value.items()}
        if isinstance(value, bool) or not isinstance(value, int | float):
            return value
        if isinstance(value, float) and not isfinite(value):
            raise ValueError(
                f"The JSON schema lists {value}, which is no number of JSON; leave it out."
            )
        return self._hidden(re.escape(json.dumps(value)))

    def _hidden(self, regex: str) -> str:
        name = f"{self._name}{len(self.written)}"
        self.written[name] = f"({regex})"
        return name


def _regex_of(schema: Mapping[str, Any]) -> str:
    """Return an expression of the numbers of a schema, whose digits have bounds."""
    if schema["type"] == "integer":
        return _whole(*_bounds(schema, ""))
    fraction = _optional(r"\.", *_bounds(schema, "Fraction"))
    exponent = _optional("[eE][+-]", *_bounds(schema, "Exponent"))
    return _whole(*_bounds(schema, "Integer")) + fraction + exponent


def _bounds(schema: Mapping[str, Any], of_what: str) -> tuple[int, int | None]:
    least = schema.get(f"minDigits{of_what}", 1)
    return max(1, least), schema.get(f"maxDigits{of_what}")


def _whole(least: int, most: int | None) -> str:
    more = f"[1-9][0-9]{{{least - 1},{'' if most is None else most - 1}}}"
    return f"-?(0|{more})" if least == 1 else f"-?{more}"


def _optional(sign: str, least: int, most: int | None) -> str:
    if most == 0:
        return ""
    return f"({sign}[0-9]{{{least},{'' if most is None else most}}})?"
