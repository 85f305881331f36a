"""What a JSON schema may say: the compiler ignores the rest, and would write what breaks it.

Formats (RFC 3339, 4122, 5321, 3986) are patterns of our own, narrow enough that what they write is
JSON, too; the compiler's write quotes, backslashes and years of six digits.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..core.options import shown
from .schema_numbers import Numbers
from .schema_references import KEYWORDS, written_out
from .schema_strings import within_quotes

_NOTES = frozenset(
    "$comment $id $schema contentEncoding contentMediaType default deprecated description examples "
    "readOnly title writeOnly".split()
)
# Nothing is written but what a schema declares, so that these forbid nothing.
_HARMLESS = frozenset("additionalItems unevaluatedItems unevaluatedProperties".split())
_DEPTH = 2  # of arrays and objects of which nothing is said; at 3 an automaton has 550 states
_SCALARS = ["boolean", "null", "number", "string"]
_DEFINITIONS = "$defs definitions".split()
_ALONE = "$ref anyOf const enum".split()  # what stands beside one of them is not read
_OF_VALUES = ("const", "enum")  # beside these a `type` may stand that they keep to
_TYPES: dict[str, tuple[type, ...]] = {
    "array": (list,),
    "boolean": (bool,),
    "integer": (int,),
    "null": (type(None),),
    "number": (int, float),
    "object": (dict,),
    "string": (str,),
}
_READ = frozenset({"type"}.union(*KEYWORDS.values()))
_ONE = ("maxDigits", "maxDigitsInteger")  # a number without digits is none
_INSTEAD = {
    "allOf": "write its parts as one schema",
    "oneOf": "write `anyOf`",
    "minimum": "list the numbers in `enum`",
    "maximum": "list the numbers in `enum`",
    "exclusiveMinimum": "list the numbers in `enum`",
    "exclusiveMaximum": "list the numbers in `enum`",
    "multipleOf": "list the numbers in `enum`",
}


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _are_types(value: Any) -> bool:
    names = value if isinstance(value, list) else [value]
    return bool(names) and all(isinstance(name, str) and name in _TYPES for name in names)


def _is_filled(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


# What the value of a keyword must be, and that in words.
_Check = tuple[Callable[[Any], bool], str]
_COUNT: _Check = (_is_count, "a whole number from 0")
_VALUES: dict[str, _Check] = {
    "anyOf": (_is_filled, "a list of one or more schemas"),
    "enum": (_is_filled, "a list of one or more values"),
    "pattern": (lambda value: isinstance(value, str), "a text"),
    "prefixItems": (lambda value: isinstance(value, list), "a list of schemas"),
    "properties": (lambda value: isinstance(value, dict), "an object"),
    "required": (_are_names, "a list of names"),
    "$ref": (lambda value: isinstance(value, str), "a text"),
    "type": (_are_types, f"one of {', '.join(_TYPES)}, or a list of these"),
    **{key: _COUNT for key in sorted(_READ) if key.startswith(("min", "max"))},
    **{
        key: (lambda value: _is_count(value) and value > 0, "a whole number from 1") for key in _ONE
    },
}
_LEAP = "([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)"
_DAY_OF_MONTH = (
    "(0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|"
    "02-(0[1-9]|1[0-9]|2[0-8])"
)
_DATE = f"([0-9]{{4}}-({_DAY_OF_MONTH})|{_LEAP}-02-29)"
_HOUR = "([01][0-9]|2[0-3]):[0-5][0-9]"
_TIME = rf"{_HOUR}:[0-5][0-9](\.[0-9]{{1,6}})?(Z|[+-]{_HOUR})"
_HOST = r"([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?\.)+[A-Za-z]{2,}"
_LOCAL = r"[A-Za-z0-9_+-]+(\.[A-Za-z0-9_+-]+)*"
_OF_PATH = r"[A-Za-z0-9._~!$&'()*+,;=:@-]"
_FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "uuid": "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "email": f"{_LOCAL}@{_HOST}",
    "uri": rf"https?://{_HOST}(:[0-9]{{1,5}})?(/{_OF_PATH}*)*(\?({_OF_PATH}|/)*)?",
}


def readable_schema(text: str) -> tuple[str, dict[str, str]]:
    """Return a schema whose pattern holds to all of it, its formats as patterns of strings.

    Args:
        text: as JSON; what is none is left to the compiler.

    Returns:
        The schema, and texts in it that stand for numbers, with a regular expression of each.

    Raises:
        ValueError: for one that says more, naming the keyword, where it stands, and what to do.
    """
    try:
        schema = json.loads(text)
    except ValueError:
        return text, {}
    schema = _spelled_out("", schema)
    parts = [(_where(path), part) for path, part in _parts("", schema)]
    for where, part in parts:
        _check_keywords(where, part)
        _check_values(where, part)
        if "format" in part:
            part["pattern"] = f"({_pattern_of(where, part.pop('format'))})"
        elif "pattern" in part:
            part["pattern"] = _quoted(where, part["pattern"])
    if isinstance(schema, dict):
        schema = written_out(schema, parts)
    numbers = Numbers(text)
    for _, part in list(_parts("", schema)):
        _escape_names(part)
        numbers.hide(part)
    return json.dumps(schema), numbers.written


def _where(path: str) -> str:
    return f"At {path}" if path else "At its top"


def _spelled_out(path: str, schema: Any) -> Any:
    """Say in keywords that the compiler reads what `true`, `false` and their likes mean."""
    if schema is False:
        raise ValueError(
            f"{_where(path)} the JSON schema says false, which no value meets; leave it out."
        )
    if schema is True or (isinstance(schema, dict) and _says_nothing(schema)):
        more = schema if isinstance(schema, dict) else {}
        schema = {**anything(_DEPTH), **{key: more[key] for key in _DEFINITIONS if key in more}}
    if isinstance(schema, dict):
        _declare(schema)
        for step, holder, key in list(_places(schema)):
            holder[key] = _spelled_out(path + step, holder[key])
    return schema


def _says_nothing(schema: Mapping[str, Any]) -> bool:
    return all(key in _NOTES or key in _DEFINITIONS for key in schema)


def anything(depth: int) -> dict[str, Any]:
    """Return the schema of any JSON value whose arrays and objects are at most so deep."""
    scalar = {"type": list(_SCALARS)}
    if not depth:
        return scalar
    array = {"type": "array", "items": anything(depth - 1)}
    return {"anyOf": [scalar, array, {"type": "object", "additionalProperties": array["items"]}]}


def _declare(schema: dict[str, Any]) -> None:
    """Say what arrays and objects hold of which it is not said, and where it is nothing."""
    if any(key in schema for key in _ALONE):
        return
    of_type = schema.get("type")
    types = of_type if isinstance(of_type, list) else [of_type]
    if "array" in types:
        items = schema.pop("items", schema.get("unevaluatedItems", True))
        if items is False and "prefixItems" not in schema:
            schema["maxItems"] = 0
        elif not isinstance(items, bool) or "prefixItems" not in schema:
            schema["items"] = items
    if "object" in types:
        more = schema.pop("additionalProperties", schema.get("unevaluatedProperties", True))
        if more is False:
            schema.setdefault("properties", {})
        elif not isinstance(more, bool) or "properties" not in schema:
            schema["additionalProperties"] = more


def _quoted(where: str, pattern: str) -> str:
    try:
        return within_quotes(pattern)
    except ValueError as error:
        raise ValueError(
            f"{where} the 'pattern' of the JSON schema, {shown(pattern)}, is no regular "
            f"expression of strings: {error}."
        ) from error


def _escape_names(schema: dict[str, Any]) -> None:
    """Write the names of properties as JSON does, since the compiler puts them between quotes."""
    properties, required = schema.get("properties"), schema.get("required")
    if isinstance(properties, dict):
        schema["properties"] = {_in_json(name): part for name, part in properties.items()}
    if isinstance(required, list):
        schema["required"] = [_in_json(name) for name in required]


def _in_json(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)[1:-1]


def _pattern_of(where: str, name: Any) -> str:
    if not isinstance(name, str) or name not in _FORMATS:
        raise ValueError(
            f"{where} the JSON schema says the format {name!r}; known are {', '.join(_FORMATS)}. "
            "Write a `pattern`."
        )
    return _FORMATS[name]


def _parts(path: str, schema: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every schema within a schema, with where it stands."""
    if not isinstance(schema, dict):
        return
    yield path, schema
    for step, holder, key in list(_places(schema)):
        yield from _parts(path + step, holder[key])


def _places(schema: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield where schemas stand right within one: the path, and what holds them under which key."""
    for keyword in ("properties", *_DEFINITIONS):
        inner = schema.get(keyword)
        for name in inner if isinstance(inner, dict) else ():
            yield f"/{keyword}/{name}", inner, name
    for keyword in ("anyOf", "prefixItems"):
        inner = schema.get(keyword)
        for number in range(len(inner) if isinstance(inner, list) else 0):
            yield f"/{keyword}/{number}", inner, number
    for keyword in ("items", "additionalProperties"):
        if keyword in schema:
            yield f"/{keyword}", schema, keyword


def _check_keywords(where: str, schema: Mapping[str, Any]) -> None:
    said = [key for key in schema if key not in _NOTES | _HARMLESS and key not in _DEFINITIONS]
    unread = next((key for key in said if key not in _READ and key not in _ALONE), None)
    if unread is not None:
        instead = _INSTEAD.get(unread, "leave it out")
        raise ValueError(
            f"{where} the JSON schema says {unread!r}, which a pattern cannot hold to; {instead}."
        )
    alone = next((key for key in _ALONE if key in schema), None)
    with_type = ("type",) if alone in _OF_VALUES else ()
    beside = next((key for key in said if key not in (alone, *with_type)), None)
    if alone is not None and beside is not None:
        raise ValueError(
            f"{where} the JSON schema says {beside!r} beside {alone!r}, of which a pattern holds "
            f"to {alone!r} alone; leave one of them out."
        )
    written = next((key for key in ("pattern", "format") if key in schema), None)
    if "pattern" in schema and "format" in schema:
        raise ValueError(
            f"{where} the JSON schema says 'format' beside 'pattern', of which a pattern holds to "
            "one alone; leave one of them out."
        )
    length = next((key for key in ("minLength", "maxLength") if key in schema), None)
    if written is not None and length is not None:
        raise ValueError(
            f"{where} the JSON schema says {length!r} beside {written!r}, of which a pattern holds "
            f"to one alone; say the length in `pattern`."
        )
    properties, required = schema.get("properties"), schema.get("required")
    if isinstance(required, list):
        declared = properties if isinstance(properties, Mapping) else {}
        absent = next((name for name in required if name not in declared), None)
        if absent is not None:
            raise ValueError(
                f"{where} the JSON schema requires {absent!r}, which its `properties` do not "
                "declare; declare it."
            )


def _check_values(where: str, schema: Mapping[str, Any]) -> None:
    """Refuse values of keywords that the compiler would not read, or make no JSON of."""
    for key, (fits, words) in _VALUES.items():
        if key in schema and not fits(schema[key]):
            raise ValueError(
                f"{where} the JSON schema's {key!r} must be {words}, got {shown(schema[key])}."
            )
    bounded = sorted(key[3:] for key in _READ if key.startswith("max"))
    for of_what in bounded:
        least, most = schema.get(f"min{of_what}"), schema.get(f"max{of_what}")
        if least is not None and most is not None and least > most:
            raise ValueError(
                f"{where} the JSON schema's 'min{of_what}' is {least} and above its "
                f"'max{of_what}', {most}; nothing has both."
            )
    of_type = schema.get("type")
    types = [of_type] if isinstance(of_type, str) else of_type
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    kinds = [kind for name in types or () for kind in _TYPES[name]]
    # 1.0 is an integer to JSON; True is an int to Python, hence `type` and not `isinstance`.
    whole = [int(v) if isinstance(v, float) and v.is_integer() else v for v in values]
    other = [value for value in whole if types and type(value) not in kinds]
    for name in ("integer", "number"):  # no keywords of JSON Schema, which says when they count
        foreign = next((key for key in KEYWORDS[name] if key in schema), None)
        if foreign is not None and name not in (types or ()):
            raise ValueError(
                f"{where} the JSON schema says {foreign!r}, which is for the type {name!r} alone; "
                f"known there are {', '.join(KEYWORDS[name])}."
            )
    if other:
        raise ValueError(
            f"{where} the JSON schema lists {shown(other[0])}, which is not of its type, "
            f"{shown(of_type)}; leave it out."
        )
    first = schema.get("prefixItems")
    if isinstance(first, list):
        least, most = schema.get("minItems", 0), schema.get("maxItems", len(first))
        if not least <= len(first) <= most:
            raise ValueError(
                f"{where} the JSON schema has {len(first)} 'prefixItems', which are all written, "
                "with nothing behind them; its 'minItems' and 'maxItems' must allow so many."
            )
