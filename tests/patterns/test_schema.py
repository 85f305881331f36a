"""JSON schemas: what their patterns write is valid, and what they cannot hold to is refused."""

import datetime
import itertools
import json
import re
import urllib.parse
import uuid

import pytest
import torch

from hf_maskgit import Pattern
from hf_maskgit.patterns.schema import _DATE
from tests.patterns.test_pattern import walk
from tests.support.pattern_texts import text_of
from tests.support.tiny_tokenizers import byte_level_tokenizer

BOOLEAN = {"type": "boolean"}


def of_format(name):
    return {"type": "string", "format": name}


def is_date(text):
    """Gregorian, whose calendar repeats after 400 years; Python knows no year 0."""
    year, rest = int(text[:4]), text[4:]
    return datetime.date.fromisoformat(f"{2000 + year % 400}{rest}").year >= 2000


# Schemas, and what a value of them is, told by hand.
VALID = [
    ({"type": "string", "maxLength": 4}, lambda v: isinstance(v, str) and len(v) <= 4),
    (of_format("date"), lambda v: is_date(v)),
    (of_format("time"), lambda v: datetime.time.fromisoformat(v).tzinfo),
    (
        of_format("date-time"),
        lambda v: is_date(v[:10]) and datetime.time.fromisoformat(v.split("T")[1]).tzinfo,
    ),
    (of_format("uuid"), lambda v: uuid.UUID(v)),
    (of_format("email"), lambda v: re.fullmatch(r"[\w+.-]+@[\w-]+(\.[\w-]+)+", v)),
    (of_format("uri"), lambda v: urllib.parse.urlparse(v).hostname),
    ({"type": "string", "pattern": "[ab]{2}"}, lambda v: v in ("aa", "ab", "ba", "bb")),
    ({"type": "string", "pattern": "^a|b$"}, lambda v: v in ("a", "b")),
    ({"type": "string", "pattern": r"a\$"}, lambda v: v == "a$"),
    ({"type": ["string", "null"], "maxLength": 1}, lambda v: v is None or len(v) < 2),
    ({"type": "array", "prefixItems": [BOOLEAN], "maxItems": 3}, lambda v: v in ([True], [False])),
    ({"type": ["string", "integer"], "enum": ["a", 3.0]}, lambda v: v in ("a", 3)),
    ({"type": "integer"}, lambda v: type(v) is int),
    ({"type": "number"}, lambda v: type(v) in (int, float)),
    ({"enum": ["a", 3, None]}, lambda v: v in ("a", 3, None)),
    ({"const": "a", "title": "an a"}, lambda v: v == "a"),
    (
        {"type": "array", "items": BOOLEAN, "minItems": 1, "maxItems": 3},
        lambda v: 1 <= len(v) <= 3 and all(type(i) is bool for i in v),
    ),
    (
        {"type": "object", "properties": {"a": BOOLEAN, "b": {"type": "null"}}, "required": ["a"]},
        lambda v: type(v["a"]) is bool and set(v) <= {"a", "b"} and v.get("b") is None,
    ),
    (
        {
            "type": "object",
            "properties": {
                "in": {"type": "object", "properties": {"x": {"$ref": "#/$defs/y"}}},
                "or": {"anyOf": [{"type": "integer"}, BOOLEAN]},
            },
            "required": ["in", "or"],
            "additionalProperties": False,
            "$defs": {"y": BOOLEAN},
        },
        lambda v: type(v["or"]) in (int, bool) and all(type(x) is bool for x in v["in"].values()),
    ),
]


@pytest.fixture(scope="module")
def tokenizer():
    return byte_level_tokenizer()


@pytest.mark.parametrize(("schema", "valid"), VALID)
def test_what_a_schema_writes_is_json_that_it_describes(tokenizer, schema, valid):
    pattern = Pattern.from_json_schema(schema, tokenizer)
    generator, seen = torch.Generator().manual_seed(3), 0
    for _ in range(30):
        row = walk(pattern, 200, generator)
        if pattern.matches(row):
            value = json.loads(text_of(tokenizer, row))
            assert valid(value) not in (False, None), value
            seen += 1
    assert seen


def test_dates_are_days_of_the_calendar():
    """Every day and no other, in years of each kind."""
    for year in ("1900", "2000", "2023", "2024", "0004"):
        for month, day in itertools.product(range(14), range(33)):
            text = f"{year}-{month:02}-{day:02}"
            try:
                real = is_date(text)
            except ValueError:
                real = False
            assert (re.fullmatch(_DATE, text) is not None) == real, text


@pytest.mark.parametrize(
    ("schema", "sentence"),
    [
        ({"type": "integer", "minimum": 1}, "At its top .* 'minimum', .*; list the numbers in `en"),
        (
            {"type": "object", "properties": {"a": {"type": "number", "multipleOf": 2}}},
            "At /properties/a the JSON schema says 'multipleOf', which a pattern cannot hold to",
        ),
        ({"type": "array", "items": BOOLEAN, "uniqueItems": True}, "'uniqueItems', .* leave it ou"),
        ({"anyOf": [BOOLEAN, {"not": {}}]}, "At /anyOf/1 the JSON schema says 'not'"),
        ({"oneOf": [BOOLEAN]}, "'oneOf', which a pattern cannot hold to; write `anyOf`"),
        ({"allOf": [BOOLEAN]}, "'allOf', .*; write its parts as one schema"),
        ({"$defs": {"x": {"if": {}}}, "$ref": "#/$defs/x"}, r"At /\$defs/x .* 'if'"),
        ({"enum": ["a"], "maxLength": 1}, "'maxLength' beside 'enum', of which a pattern holds to"),
        (
            {"type": "string", "format": "date", "maxLength": 3},
            "'maxLength' beside 'format', .* say the length in `pattern`",
        ),
        ({"type": "string", "format": "date", "pattern": "a"}, "'format' beside 'pattern', of whi"),
        ({"type": "string", "anyOf": [BOOLEAN]}, "says 'type' beside 'anyOf'"),
        ({"type": "string", "$ref": "#/$defs/y"}, r"says 'type' beside '\$ref'"),
        ({"type": "string", "enum": ["a", 2]}, "lists 2, which is not of its type, 'string'"),
        ({"type": "integer", "const": True}, "lists True, which is not of its type, 'integer'"),
        ({"enum": []}, "'enum' must be a list of one or more values, got"),
        ({"anyOf": []}, "'anyOf' must be a list of one or more schemas, got"),
        ({"type": []}, "'type' must be one of array, .*, or a list of these, got"),
        ({"type": "text"}, "'type' must be one of array, .*, got 'text'"),
        ({"type": "string", "pattern": 3}, "'pattern' must be a text, got 3"),
        ({"type": "string", "maxLength": "3"}, "'maxLength' must be a whole number from 0, got '"),
        ({"type": "array", "minItems": -1}, "'minItems' must be a whole number from 0, got -1"),
        ({"type": "object", "properties": []}, "'properties' must be an object, got"),
        ({"type": "object", "required": "a"}, "'required' must be a list of names, got 'a'"),
        ({"type": "array", "minItems": 3, "maxItems": 1}, "'minItems' is 3 and above its 'maxIt"),
        (
            {"type": "array", "prefixItems": [BOOLEAN], "minItems": 3},
            "has 1 'prefixItems', .*; its 'minItems' and 'maxItems' must allow so many",
        ),
        ({"type": "array", "items": True}, "cannot be compiled: Unsupported .* structure true.$"),
        (of_format("ipv4"), "says the format 'ipv4'; known are date, time, .*. Write a `pattern`"),
        ({"type": "object", "properties": {}, "required": ["z"]}, "requires 'z', which its"),
        ({"type": "array", "prefixItems": [{"minProperties": 1}]}, "At /prefixItems/0 .* 'minProp"),
        ({"type": "array", "items": {"dependentRequired": {}}}, "At /items the JSON schema says"),
        (
            {"type": "string", "maxLength": {1, 2}},
            "`schema` holds something that is no JSON: .*set",
        ),
    ],
)
def test_what_a_pattern_would_not_hold_to_is_refused(tokenizer, schema, sentence):
    with pytest.raises(ValueError, match=sentence):
        Pattern.from_json_schema(schema, tokenizer)
