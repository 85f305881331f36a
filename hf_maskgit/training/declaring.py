"""How a script declares an option that the library has declared already: default, help, words."""

from typing import Any

from ..core.options import Option, options_of
from .recipes import option


def words_of(declared: Option) -> dict[str, Any]:
    """Say to argparse which words an option can be; {} leaves that to its type."""
    words = [choice for choice in declared.choices if choice is not None]
    return {"choices": words} if words else {}


def option_of(source: type, name: str) -> Any:
    """Declare an option as the library declares it, default and all."""
    declared = options_of(source)[name]
    return option(declared.default, declared.description, **words_of(declared))
