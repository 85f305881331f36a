r"""What a regular expression of a JSON schema may write within quotes, so that JSON comes of it.

An expression speaks of a value, and its text stands escaped in JSON: a quote as `\"`. What stands
for itself in an expression is escaped; classes of characters lose those that JSON would escape.
"""

import json
import re
from collections.abc import Iterator

_ESCAPED = r'"\\\x00-\x1F\x7F-\x9F'  # in a class: quotes, backslashes, control characters
_SHORT = {character: json.dumps(character)[1:-1] for character in '"\\\b\f\n\r\t'}
_LETTERS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f"}  # escapes of characters in expressions
_ANY = f"[^{_ESCAPED}]"
_TOKEN = re.compile(
    r"""\\(?:x\{(?P<braced>[0-9A-Fa-f]+)\}|x(?P<two>[0-9A-Fa-f]{2})|u\{(?P<u>[0-9A-Fa-f]+)\}
       |u(?P<four>[0-9A-Fa-f]{4})|U(?P<eight>[0-9A-Fa-f]{8})
       |(?P<set>[dDsSwW]|[pP](?:\{[^}]*\}|.))|(?P<letter>[nrtf])|(?P<sign>[^0-9A-Za-z<>])
       |(?P<other>.))
    |(?P<open>\((?:\?(?P<flags>[A-Za-z]+))?)|(?P<close>\))|(?P<class>\[)|(?P<dot>\.)
    |(?P<plain>[^\\])""",
    re.VERBOSE | re.DOTALL,
)
# Of a class; a bracket that closes stands for itself right behind one that opens.
_CLASS = re.compile(r"\\.|\[\^?\]?|.", re.DOTALL)


def within_quotes(pattern: str) -> str:
    """Return an expression of what stands between the quotes of a string whose value matches.

    Args:
        pattern: of the value, in the syntax of Rust's regex; a `^` before all of it and a `$`
            behind it are left out, since it is matched wholly.

    Raises:
        ValueError: for brackets that do not belong together, and for the flag x, in words for the
            end of a sentence.
    """
    inner = pattern.removeprefix("^")
    if inner.endswith("$") and not inner.endswith(r"\$"):
        inner = inner[:-1]
    return f"({''.join(_pieces(inner))})"


def _pieces(pattern: str) -> Iterator[str]:
    place = depth = 0
    while found := _TOKEN.match(pattern, place):
        kind, end = found.lastgroup or "", found.end()
        depth += {"open": 1, "close": -1}.get(kind, 0)
        if depth < 0:
            raise ValueError(f"the bracket ')' at {place} closes none")
        if "x" in (found["flags"] or ""):
            raise ValueError(f"the flag x at {place} lets blanks stand for nothing; write none")
        if kind == "class":
            end = _end_of_class(pattern, place)
        yield _written(kind, found[kind], pattern[place:end])
        place = end
    if place < len(pattern):
        raise ValueError("it ends within an escape")
    if depth:
        raise ValueError(f"{depth} brackets '(' are not closed")


def _written(kind: str, inner: str, whole: str) -> str:
    """Return an expression of how one element of an expression is written in JSON."""
    if kind == "dot":
        return _ANY
    if kind in ("class", "set"):
        return rf"[{whole}&&{_ANY}]"
    codes = ("braced", "two", "u", "four", "eight")
    value = chr(min(int(inner, 16), 0x10FFFF)) if kind in codes else _LETTERS.get(inner, inner)
    if kind not in (*codes, "letter", "sign", "plain"):
        return whole
    if re.match(f"[{_ESCAPED}]", value):
        # Of an escape there is no other case, whatever flags stand before it.
        return f"(?-i:{re.escape(_SHORT.get(value, f'{chr(92)}u{ord(value):04x}'))})"
    return whole


def _end_of_class(pattern: str, place: int) -> int:
    """Return where a class in brackets ends, which may hold others."""
    depth, start = 0, place
    while found := _CLASS.match(pattern, place):
        depth += {"[": 1, "]": -1}.get(found[0][0], 0)
        place = found.end()
        if not depth:
            return place
    raise ValueError(f"the class of characters at {start} is not closed")
