"""JSON schemas: what their patterns write is valid, and what they cannot hold to is refused."""

import datetime
import functools
import itertools
import json
import random
import re
import urllib.parse
import uuid

import pytest
import torch

from hf_maskgit import Pattern
from hf_maskgit.patterns.schema import _DATE
from tests.patterns.test_pattern import walk
from tests.support.grids import wide
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
    ({"type": "string", "pattern": r'"\\\n\x00\u{7f}'}, lambda v: v == '"\\\n\x00\x7f'),
    (
        {"type": "string", "pattern": r"[^@]{1,3}@.\D\s*"},
        lambda v: re.fullmatch(r".{1,3}@.\D\s*", v),
    ),
    ({"type": "string", "pattern": r'[]"a[b]]|[^]"]{2}'}, lambda v: v in "]ab" or len(v) == 2),
    ({"type": "object", "additionalProperties": False}, lambda v: v == {}),
    ({"type": "object", "unevaluatedProperties": False}, lambda v: v == {}),
    ({"type": "array", "items": False}, lambda v: v == []),
    ({"type": "array", "prefixItems": [BOOLEAN], "items": False}, lambda v: type(v[0]) is bool),
    (
        {"type": "object", "properties": {'"a\\': BOOLEAN}, "required": ['"a\\']},
        lambda v: '"a\\' in v,
    ),
    ({"type": ["string", "null"], "maxLength": 1}, lambda v: v is None or len(v) < 2),
    ({"type": "string", "pattern": r"(?i:a\n)\t"}, lambda v: v.lower() == "a\n\t"),
    ({"type": "null", "properties": {"a": BOOLEAN}}, lambda v: v is None),
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


def deep_schema():
    text = "{}"
    for _ in range(3000):
        text = f'{{"type": "array", "items": {text}}}'
    return text


def doubled_schema():
    """Each definition holds the next one twice: 2^30 schemas, if they were written out."""
    both = {i: [{"$ref": f"#/$defs/{i + 1}"}] * 2 for i in range(30)}
    definitions = {str(i): {"anyOf": parts} for i, parts in both.items()}
    return {"$ref": "#/$defs/0", "$defs": {**definitions, "30": BOOLEAN}}


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


NODE = {
    "type": "object",
    "properties": {"v": BOOLEAN, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
    "required": ["next", "v"],
}
TREE = {
    "type": "object",
    "properties": {"in": {"type": "array", "items": {"$ref": "#"}, "maxItems": 2}, "v": BOOLEAN},
    "required": ["in"],
}


def is_node(value):
    inner = value["next"]
    return set(value) == {"v", "next"} and (inner is None or is_node(inner))


def is_tree(value):
    return {"in"} <= set(value) <= {"in", "v"} and all(map(is_tree, value["in"]))


@pytest.mark.parametrize(
    ("schema", "valid", "most"),
    [
        ({"$ref": "#/$defs/node", "$defs": {"node": NODE}}, is_node, 4),
        wide(TREE, is_tree, 8),
        wide(
            {"type": ["object", "null"], "additionalProperties": {"$ref": "#"}}, lambda _: True, 4
        ),
        wide({"type": ["array", "null"], "items": {"$ref": "#"}, "maxItems": 1}, lambda _: True, 4),
        (
            {"type": "array", "prefixItems": [BOOLEAN, {"anyOf": [{"$ref": "#"}, BOOLEAN]}]},
            lambda v: len(v) == 2,
            4,
        ),
    ],
)
def test_what_holds_itself_does_so_to_a_depth_and_lacks_nothing(tokenizer, schema, valid, most):
    pattern = Pattern.from_json_schema(schema, tokenizer)
    generator, depths = torch.Generator().manual_seed(1), set()
    for steps in [0, 3, 10, 30, 60] * 12:
        value = json.loads(text_of(tokenizer, ended(pattern, steps, generator)))
        assert value is None or valid(value), value
        depths.add(int(depth_of(value)))
    assert len(depths) > 2, "the walks see no depth"
    assert max(depths) <= most


@pytest.mark.parametrize(
    ("reference", "schemas"),
    [
        wide("#/$defs/a~1b", {"$defs": {"a/b": BOOLEAN}}),
        ("#/properties/p%22/anyOf/0", {"properties": {'p"': {"anyOf": [BOOLEAN]}}}),
        ("#/$defs/1", {"$defs": {str(i): {"$ref": f"#/$defs/{i + 1}"} for i in range(1, 9)}}),
    ],
)
def test_a_reference_means_what_it_names(tokenizer, reference, schemas):
    schemas.setdefault("$defs", {})["9"] = BOOLEAN
    properties = {"x": {"$ref": reference}, **schemas.get("properties", {})}
    schema = {"type": "object", **schemas, "properties": properties, "required": ["x"]}
    found = Pattern.from_json_schema(schema, tokenizer).automaton
    properties = {"x": BOOLEAN, **schemas.get("properties", {})}
    schema = {"type": "object", "properties": properties, "required": ["x"]}
    expected = Pattern.from_json_schema(schema, tokenizer).automaton
    assert all(map(torch.equal, found[:3], expected[:3]))


@pytest.mark.parametrize(
    "values", [[0.1 + 0.2, 1e-7, -0.0], [100826.40890338877, 1e22], [10**30, -(2**63) - 1, 2**64]]
)
def test_listed_numbers_are_written_to_the_last_digit(tokenizer, values):
    pattern = Pattern.from_json_schema({"enum": [[value] for value in values]}, tokenizer)
    for value in values:
        ids = tokenizer(json.dumps([value]), add_special_tokens=False)["input_ids"]
        assert pattern.matches(ids)
    assert not pattern.matches(tokenizer("[1]", add_special_tokens=False)["input_ids"])


NUMBERS = ["0", "7", "12", "-345", "1.5", "12.25", "1.", "2e+5", "2e+12", "2e+", "1.5e-3", "-0.125"]


@pytest.mark.parametrize(
    ("digits", "matched"),
    [
        ({"type": "integer", "maxDigits": 1}, "0 7"),
        wide({"type": "integer", "minDigits": 2, "maxDigits": 3}, "12 -345"),
        (
            {
                "type": "number",
                "maxDigitsInteger": 1,
                "maxDigitsFraction": 1,
                "maxDigitsExponent": 1,
            },
            "0 7 1.5 2e+5 1.5e-3",
        ),
        wide({"type": "number", "maxDigitsFraction": 0, "maxDigitsExponent": 0}, "0 7 12 -345"),
        (
            {"type": "number", "minDigitsFraction": 2, "maxDigitsExponent": 0},
            "0 7 12 -345 12.25 -0.125",
        ),
        ({"type": ["integer", "number"], "maxDigits": 1, "minDigitsInteger": 3}, "0 7 -345"),
    ],
)
def test_numbers_have_as_many_digits_as_is_said(tokenizer, digits, matched):
    pattern = Pattern.from_json_schema(digits, tokenizer)
    found = {
        n for n in NUMBERS if pattern.matches(tokenizer(n, add_special_tokens=False)["input_ids"])
    }
    assert found == set(matched.split())


@functools.cache
def way_out(pattern):
    """The fewest tokens from each state to the end of a text, a million from nowhere."""
    step, final, *_ = pattern.automaton
    left = torch.where(torch.cat([final, final.new_tensor([False])]), 0, 10**6)
    while True:
        nearer = torch.minimum(left[:-1], left[step].amin(1) + 1)
        if nearer.equal(left[:-1]):
            return left
        left[:-1] = nearer


def ended(pattern, most, generator):
    """A row that belongs to the pattern: some steps at random, and then the shortest way out."""
    step, _, class_of, state = pattern.automaton
    row = walk(pattern, most, generator)
    for token in row:
        state = int(step[state, class_of[token]])
    left = way_out(pattern)
    while left[state]:
        row.append(int(left[step[state]][class_of].argmin()))
        state = int(step[state, class_of[row[-1]]])
    assert pattern.matches(row)
    return row


def depth_of(value):
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, dict | list) and 1 + max(map(depth_of, inner), default=0)


@pytest.mark.wide
@pytest.mark.parametrize(
    ("schema", "most"),
    [("true", 2), ({}, 2), ({"title": "x"}, 2), ({"type": "array"}, 3), ({"type": "object"}, 3)],
)
def test_of_what_nothing_is_said_any_json_may_stand_to_a_depth(tokenizer, schema, most):
    """What a person might write is in it, what the walks write is JSON, and not deeper."""
    pattern = Pattern.from_json_schema(schema, tokenizer)
    values = [
        None,
        True,
        -1.5,
        "a",
        [],
        {},
        [1, [None, "b"]],
        {"a": {"b": [], "c": '"\n'}},
        [[{}]],
        {"a": [{"b": 1}]},
    ]
    for value in values:
        kinds = {"array": list, "object": dict}
        kind = kinds.get(schema.get("type")) if isinstance(schema, dict) else None
        fits = depth_of(value) <= most and (kind is None or isinstance(value, kind))
        ids = tokenizer(json.dumps(value), add_special_tokens=False)["input_ids"]
        assert pattern.matches(ids) == fits, value
    generator, kinds, depths = torch.Generator().manual_seed(0), set(), set()
    for _ in range(60):
        value = json.loads(text_of(tokenizer, ended(pattern, 12, generator)))
        kinds.add(type(value))
        depths.add(int(depth_of(value)))
    assert max(depths) <= most
    assert len(kinds) > 3 or len(kinds) == (kind is not None)


SCALARS = ["null", "boolean", "integer", "number", "string"]
LIKE = {
    "null": [type(None)],
    "boolean": [bool],
    "integer": [int],
    "number": [int, float],
    "string": [str],
    "array": [list],
    "object": [dict],
}


def drawn_schema(dice, depth):
    """A random schema of what patterns hold to."""
    kind = dice.choice(
        ["any", "scalar", "string", "enum"] + ["anyOf", "array", "object"] * (depth > 0)
    )
    if kind == "any":
        return (
            dice.choice([True, {}, {"title": "any"}]) if depth < 2 else {"type": ["null", "string"]}
        )
    if kind == "scalar":
        return {"type": dice.choice(SCALARS)}
    if kind == "string":
        patterns = [".{1,3}", r"[^x]{2}", r'"?[a-z0-9]+\\?', r"\D", "a|b\tc"]
        return {"type": "string", "pattern": dice.choice(patterns)}
    if kind == "enum":
        return {"enum": dice.sample([None, True, 1, "a", 'q"', [1], {"k": "\n"}], 3)}
    if kind == "anyOf":
        return {"anyOf": [drawn_schema(dice, depth - 1) for _ in range(2)]}
    if kind == "array" and dice.random() < 0.4:
        first = [drawn_schema(dice, depth - 1) for _ in range(2)]
        return {"type": "array", "prefixItems": first, "items": dice.choice([True, False])}
    if kind == "array":
        return {"type": "array", "items": drawn_schema(dice, depth - 1), "maxItems": 2}
    names = dice.sample(["a", 'b"', "c\\", "d.*"], 2)
    schema = {"type": "object", "properties": {n: drawn_schema(dice, depth - 1) for n in names}}
    return schema | dice.choice([{"required": names[:1]}, {"additionalProperties": False}])


def is_valid(value, schema):
    """By the words of JSON Schema, for the keywords that `drawn_schema` uses."""
    if isinstance(schema, bool):
        return schema
    of_type = schema.get("type", list(LIKE))
    types = [of_type] if isinstance(of_type, str) else of_type
    checks = {
        "enum": lambda values: any(type(v) is type(value) and v == value for v in values),
        "anyOf": lambda parts: any(is_valid(value, part) for part in parts),
        "pattern": lambda pattern: not isinstance(value, str) or re.search(pattern, value),
    }
    return (
        any(type(value) in LIKE[name] for name in types)
        and all(check(schema[key]) for key, check in checks.items() if key in schema)
        and (not isinstance(value, list) or is_valid_list(value, schema))
        and (not isinstance(value, dict) or is_valid_dict(value, schema))
    )


def is_valid_list(value, schema):
    first = schema.get("prefixItems", [])
    rest = all(is_valid(one, schema.get("items", True)) for one in value[len(first) :])
    return rest and len(value) <= schema.get("maxItems", 99) and all(map(is_valid, value, first))


def is_valid_dict(value, schema):
    declared = schema.get("properties", {})
    more = schema.get("additionalProperties", True)
    return all(name in value for name in schema.get("required", [])) and all(
        is_valid(one, declared.get(name, more)) for name, one in value.items()
    )


@pytest.mark.parametrize("seed", [*range(8), *map(wide, range(8, 40))])
def test_what_random_schemas_write_is_json_and_valid(tokenizer, seed):
    schema = drawn_schema(random.Random(seed), 2)
    pattern = Pattern.from_json_schema(json.dumps(schema), tokenizer)
    generator = torch.Generator().manual_seed(seed)
    for steps in [0, 2, 5, 10, 20, 40] * 3:
        text = text_of(tokenizer, ended(pattern, steps, generator))
        assert is_valid(json.loads(text), schema), (schema, text)


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
        ({"minItems": 1}, "cannot be compiled: Unsupported .* structure {.minItems.:1}.$"),
        (False, "must be a dict or JSON text, got bool"),
        ("false", "At its top the JSON schema says false, which no value meets; leave it out"),
        ({"type": "object", "properties": {"a": False}}, "At /properties/a the JSON schema says f"),
        ({"anyOf": [BOOLEAN, False]}, "At /anyOf/1 the JSON schema says false"),
        ({"type": "array", "items": False, "minItems": 2}, "'minItems' is 2 and above its 'maxIt"),
        (
            {"type": "string", "pattern": "a)(b"},
            r"'a\)\(b', is no .*: the bracket '\)' at 1 closes",
        ),
        ({"type": "string", "pattern": "(a"}, r"is no .*: 1 brackets '\(' are not closed"),
        ({"type": "string", "pattern": "a[b"}, "is no .*: the class of characters at 1 is not cl"),
        ({"type": "string", "pattern": "a\\"}, "is no .*: it ends within an escape"),
        (deep_schema(), "no JSON: .*recursion|nested too deep to be compiled"),
        (
            {"type": "string", "pattern": "(?x)a b"},
            "is no .*: the flag x at 0 lets blanks stand for",
        ),
        ({"$ref": "#"}, "holds itself in all that it may be, so that only values without end"),
        ({**TREE, "required": ["in"], "properties": {"in": {"$ref": "#"}}}, "holds itself in all"),
        ({"$ref": "#/$defs/z"}, r"At its top .* refers to '#/\$defs/z', which is no schema within"),
        ({"anyOf": [{"$ref": "http://a/b"}]}, "At /anyOf/0 .* refers to 'http://a/b', which is no"),
        ({"$ref": 3}, r"At its top the JSON schema's '\$ref' must be a text, got 3"),
        (
            doubled_schema(),
            "comes to more than 10,000 schemas where its references are written out",
        ),
        ({"enum": [float("inf")]}, "lists inf, which is no number of JSON"),
        ({"type": "integer", "maxDigits": 0}, "'maxDigits' must be a whole number from 1, got 0"),
        (
            {"type": "integer", "maxDigitsInteger": 1},
            "'maxDigitsInteger', which is for the type 'n",
        ),
        (
            {"type": "integer", "minDigits": 3, "maxDigits": 2},
            "'minDigits' is 3 and above its 'maxD",
        ),
        ({"type": "array", "prefixItems": 3}, "'prefixItems' must be a list of schemas, got 3"),
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
    with pytest.raises((ValueError, TypeError), match=sentence):
        Pattern.from_json_schema(schema, tokenizer)
