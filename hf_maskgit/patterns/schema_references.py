"""A JSON schema written out: references by what they name, and one schema for each type.

The compiler's own way with references to what they stand in leaves out properties that are
required, behind commas that stay; and it takes `properties` for an object whatever the type.
"""

from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import unquote

from ..core.options import shown

_WITHIN = 3  # times that a schema may stand within itself; each takes its states again
# What is said of values of each type.
KEYWORDS: dict[str, tuple[str, ...]] = {
    "array": ("items", "maxItems", "minItems", "prefixItems"),
    "boolean": (),
    "integer": ("maxDigits", "minDigits"),
    "null": (),
    "number": tuple(
        f"{most}Digits{part}"
        for part in ("Exponent", "Fraction", "Integer")
        for most in ("max", "min")
    ),
    "object": ("additionalProperties", "properties", "required"),
    "string": ("format", "maxLength", "minLength", "pattern"),
}
_MOST_REPEATED = 100_000  # of the compiler's expression, which it makes in this process's memory
_MOST_PARTS = 10_000  # of the written-out schema: one doubles with every line of `$defs`


def written_out(
    schema: dict[str, Any], parts: Collection[tuple[str, dict[str, Any]]]
) -> dict[str, Any]:
    """Return a schema with what its references name in their place, to a depth.

    Args:
        schema: all of it.
        parts: every schema within it, itself among them, with where it stands in words.

    Raises:
        ValueError: for a reference to what is no schema within it, and for a schema that only
            values without end meet, or one that grows beyond all measure.
    """
    written = _Writer(schema, parts).of(schema, (id(schema),))
    if written is None:
        raise ValueError(
            "The JSON schema holds itself in all that it may be, so that only values without end "
            "meet it; let something stand beside, as null in `anyOf`."
        )
    if (size := _size_of(written)) > _MOST_REPEATED:
        raise ValueError(
            f"The JSON schema makes an expression of {size:,} parts, more than {_MOST_REPEATED:,}: "
            "what an array holds stands in it twice, so that each array within an array doubles "
            "it. Ask for less depth."
        )
    return written


def _size_of(schema: Any) -> int:
    """Count the parts of the expression that the compiler makes of a schema."""
    if not isinstance(schema, dict):
        return 1
    once = [*schema.get("anyOf", ()), *schema.get("prefixItems", ())]
    twice = [schema[name] for name in ("items", "additionalProperties") if name in schema]
    properties = schema.get("properties", {})
    # Where none is required, each may be the last one, and the others stand before it again.
    times = 1 if schema.get("required") else len(properties)
    return (
        1
        + sum(map(_size_of, once))
        + 2 * sum(map(_size_of, twice))
        + times * sum(map(_size_of, properties.values()))
    )


class _Writer:
    """Copies schemas; None stands for one that no value meets which is as shallow as allowed."""

    def __init__(self, root: dict[str, Any], parts: Collection[tuple[str, dict[str, Any]]]) -> None:
        self._root = root
        self._places = {id(part): where for where, part in parts}
        self._num_parts = 0

    def of(self, schema: Any, within: tuple[int, ...]) -> Any:
        """Copy a schema that stands within some others, of which references name these."""
        if not isinstance(schema, dict):
            return schema  # the compiler says what it does not know
        self._num_parts += 1
        if self._num_parts > _MOST_PARTS:
            raise ValueError(
                f"The JSON schema comes to more than {_MOST_PARTS:,} schemas where its references "
                "are written out; ask less of it, or let it hold itself in fewer places."
            )
        if "$ref" in schema:
            return self._named(schema, within)
        if "anyOf" in schema:
            return self._any_of(schema["anyOf"], within)
        types = schema.get("type")
        if "enum" in schema or "const" in schema or types is None:
            copied = {key: schema[key] for key in schema if key not in ("$defs", "definitions")}
        elif isinstance(types, list):
            return self._any_of([{**schema, "type": name} for name in types], within)
        else:  # the compiler would take what is said of another type for this one's
            copied = {key: schema[key] for key in KEYWORDS[types] if key in schema}
            copied["type"] = types
        fits = self._object(copied, within) and self._array(copied, within)
        return copied if fits else None

    def _any_of(self, schemas: list[Any], within: tuple[int, ...]) -> dict[str, Any] | None:
        some = [one for one in self._all(schemas, within) if one is not None]
        return {"anyOf": some} if some else None

    def _all(self, schemas: list[Any], within: tuple[int, ...]) -> list[Any]:
        return [self.of(one, within) for one in schemas]

    def _object(self, copied: dict[str, Any], within: tuple[int, ...]) -> bool:
        """Copy what an object holds; tell whether there is one."""
        if "additionalProperties" in copied:
            more = self.of(copied.pop("additionalProperties"), within)
            if more is None:
                copied.setdefault("properties", {})
            else:
                copied["additionalProperties"] = more
        if "properties" not in copied:
            return True
        held = {name: self.of(one, within) for name, one in copied["properties"].items()}
        copied["properties"] = {name: one for name, one in held.items() if one is not None}
        return all(name in copied["properties"] for name in copied.get("required", ()))

    def _array(self, copied: dict[str, Any], within: tuple[int, ...]) -> bool:
        """Copy what an array holds; tell whether there is one."""
        if "prefixItems" in copied:  # behind which nothing is written
            copied["prefixItems"] = self._all(copied["prefixItems"], within)
            return None not in copied["prefixItems"]
        if "items" in copied:
            items = self.of(copied.pop("items"), within)
            if items is None:
                copied["maxItems"] = 0
                return not copied.get("minItems")
            copied["items"] = items
        return True

    def _named(self, schema: Mapping[str, Any], within: tuple[int, ...]) -> Any:
        """Copy what a reference names, where it does not stand within itself too often."""
        found = self._found(schema["$ref"], self._places[id(schema)])
        if within.count(id(found)) > _WITHIN:
            return None
        return self.of(found, (*within, id(found)))

    def _found(self, reference: str, where: str) -> Any:
        found: Any = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            key = unquote(step).replace("~1", "/").replace("~0", "~")
            found = _held(found, key)
        named = id(found) in self._places and (reference == "#" or reference.startswith("#/"))
        if not named:
            raise ValueError(
                f"{where} the JSON schema refers to {shown(reference)}, which is no schema within "
                "it; refer to one as '#/$defs/name'."
            )
        return found


def _held(holder: Any, key: str) -> Any:
    if isinstance(holder, dict):
        return holder.get(key)
    if isinstance(holder, list) and key.isdecimal() and int(key) < len(holder):
        return holder[int(key)]
    return None
