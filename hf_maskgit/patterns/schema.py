"""What a JSON schema may say: the compiler ignores the rest, and would write what breaks it.

Formats (RFC 3339, 4122, 5321, 3986) are patterns of our own, narrow enough that what they write is
JSON, too; the compiler's write quotes, backslashes and years of six digits.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

_NOTES = frozenset(
    "$comment $id $schema contentEncoding contentMediaType default deprecated description examples "
    "readOnly title writeOnly".split()
)
# Nothing is written but what a schema declares, so that these forbid nothing.
_HARMLESS = frozenset("additionalItems unevaluatedItems unevaluatedProperties".split())
_DEFINITIONS = "$defs definitions".split()
_ALONE = "$ref anyOf const enum".split()  # what stands beside one of them is not read
_READ = frozenset(
    "additionalProperties format items maxDigits maxDigitsExponent maxDigitsFraction "
    "maxDigitsInteger maxItems maxLength minDigits minDigitsExponent minDigitsFraction "
    "minDigitsInteger minItems minLength pattern prefixItems properties required type".split()
)
_INSTEAD = {
    "allOf": "write its parts as one schema",
    "oneOf": "write `anyOf`",
    "minimum": "list the numbers in `enum`",
    "maximum": "list the numbers in `enum`",
    "exclusiveMinimum": "list the numbers in `enum`",
    "exclusiveMaximum": "list the numbers in `enum`",
    "multipleOf": "list the numbers in `enum`",
}
_DATE = "[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
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


def readable_schema(text: str) -> str:
    """Return a schema whose pattern holds to all of it, its formats as patterns of strings.

    Args:
        text: as JSON; what is none is left to the compiler.

    Raises:
        ValueError: for one that says more, naming the keyword, where it stands, and what to do.
    """
    try:
        schema = json.loads(text)
    except ValueError:
        return text
    for path, part in list(_parts("", schema)):
        where = f"At {path}" if path else "At its top"
        _check_keywords(where, part)
        if "format" in part:
            part["pattern"] = _pattern_of(where, part.pop("format"))
    return json.dumps(schema)


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
    for keyword in ("properties", *_DEFINITIONS):
        inner = schema.get(keyword)
        for name, part in inner.items() if isinstance(inner, Mapping) else ():
            yield from _parts(f"{path}/{keyword}/{name}", part)
    for keyword in ("anyOf", "prefixItems"):
        inner = schema.get(keyword)
        for number, part in enumerate(inner if isinstance(inner, list) else []):
            yield from _parts(f"{path}/{keyword}/{number}", part)
    for keyword in ("items", "additionalProperties"):
        yield from _parts(f"{path}/{keyword}", schema.get(keyword))


def _check_keywords(where: str, schema: Mapping[str, Any]) -> None:
    said = [key for key in schema if key not in _NOTES | _HARMLESS and key not in _DEFINITIONS]
    unread = next((key for key in said if key not in _READ and key not in _ALONE), None)
    if unread is not None:
        instead = _INSTEAD.get(unread, "leave it out")
        raise ValueError(
            f"{where} the JSON schema says {unread!r}, which a pattern cannot hold to; {instead}."
        )
    alone = next((key for key in _ALONE if key in schema), None)
    beside = next((key for key in said if key not in (alone, "type")), None)
    if alone is not None and beside is not None:
        raise ValueError(
            f"{where} the JSON schema says {beside!r} beside {alone!r}, of which a pattern holds "
            f"to {alone!r} alone; leave one of them out."
        )
    written = next((key for key in ("pattern", "format") if key in schema), None)
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
