"""The fields of a request: which are options of `generate`, under what name."""

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..core.generation_config_maskgit import OPTIONS, unknown_options
from ..core.generation_output import PARTS_OF_OUTPUT
from ..core.options import check, shown
from .errors import BadRequest, NoSuchModel

# Words of OpenAI's for options of `generate`.
OPENAI_NAMES = {
    "n": "num_return_sequences",
    "stop": "stop_strings",
    "max_tokens": "max_new_tokens",
}
# Of a request the server says them itself.
OWN_OPTIONS = ("return_dict_in_generate", *PARTS_OF_OUTPUT)
# Arguments of `generate` that are no options, as JSON can say them.
ARGUMENTS = ("preset", "seed", "pattern", "allowed_token_ids", "negative_prompt_ids")
# What OpenAI's clients may send that means nothing here, and the values that ask for nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (None, 1),
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "logit_bias": (None, {}),
    "suffix": (None, ""),
}
_INSTEAD = {
    "best_of": "ask for `n` texts and choose",
    "frequency_penalty": "use `repetition_penalty`",
    "presence_penalty": "use `repetition_penalty`",
    "logit_bias": "use `suppress_tokens` or `allowed_token_ids`",
    "suffix": "write prompt, {blank} and suffix to /v1/infill",
}
_COLUMN = re.compile("0|-?[1-9][0-9]{0,9}")  # of a row, in the one way to write it


@dataclass(frozen=True)
class Limits:
    """What one request may ask for.

    Attributes:
        max_texts: texts that it gets.
        max_pattern_chars: characters of the patterns that it has compiled.
        max_pattern_seconds: that each of its regular expressions may take.
        max_compiling: requests whose patterns are compiled at the same time, which all share.
        max_uncompiled: requests that may wait for that.
        max_unread: requests that may wait to be read.
    """

    max_texts: int = 128
    max_pattern_chars: int = 2000
    max_pattern_seconds: float = 30.0
    max_compiling: int = 2
    max_uncompiled: int = 64
    max_unread: int = 1024


def checked(fields: Any, own: Sequence[str], model: str) -> dict[str, Any]:
    """Return the fields that are set, under the names of `generate`.

    Args:
        fields: the JSON of a request.
        own: names of fields that are the endpoint's own.
        model: the name that is served.

    Raises:
        BadRequest: for what is no object, or a field that means nothing here.
        ValueError: for a value that an option cannot have, in the name that the client gave.
        NoSuchModel: for another model.
    """
    if not isinstance(fields, dict):
        raise BadRequest(f"A request is a JSON object, got {shown(fields)}.")
    named = {name: value for name, value in fields.items() if value is not None}
    asked = named.pop("model", model)
    if asked != model:
        raise NoSuchModel(f"The model {shown(asked)} is not served here; {model!r} is.")
    named.pop("user", None)
    for name, nothing in _NEUTRAL.items():
        if named.pop(name, None) not in nothing:
            raise BadRequest(f"`{name}` means nothing in masked decoding; {_INSTEAD[name]}.")
    for name, ours in OPENAI_NAMES.items():
        if name in named and ours in named:
            raise BadRequest(f"`{name}` and `{ours}` are two words for one option; give one.")
        if name in named:  # here, where its name is the client's
            check(name, named[name], OPTIONS[ours])
    named = {OPENAI_NAMES.get(name, name): value for name, value in named.items()}
    known = {*OPTIONS, *ARGUMENTS, *own} - {*OWN_OPTIONS}
    for name in OWN_OPTIONS:
        if name in named:
            raise BadRequest(f"`{name}` is what the server decides itself; leave it out.")
    unknown = [name for name in named if name not in known]
    if unknown:
        raise BadRequest(unknown_options(unknown))
    return named


def flag(fields: dict[str, Any], name: str) -> bool:
    """Take a truth value out of the fields; unset, it is false.

    Raises:
        BadRequest: for anything else.
    """
    value = fields.pop(name, False)
    if not isinstance(value, bool):
        raise BadRequest(f"`{name}` must be true or false, got {shown(value)}.")
    return value


def seed_of(fields: dict[str, Any]) -> int:
    """Take the seed out of the fields; unset, it is drawn anew.

    Raises:
        BadRequest: for anything but an integer.
    """
    seed = fields.pop("seed", None)
    if seed is None:
        return secrets.randbits(53)  # what every reader of JSON takes for an integer
    if type(seed) is not int:
        raise BadRequest(f"`seed` must be one integer, got {shown(seed)}.")
    return seed


def texts_of(name: str, value: Any) -> list[str]:
    """Return the texts of a field that holds one or several.

    Raises:
        BadRequest: for anything else, or none.
    """
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise BadRequest(f"`{name}` must be a text or a list of texts, got {shown(value)}.")
    return texts


def arguments_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Turn fields into arguments of `generate`.

    Args:
        fields: from `checked`, without what is the endpoint's own.

    Raises:
        BadRequest: for an argument that JSON cannot say so.
    """
    arguments = dict(fields)
    allowed = arguments.get("allowed_token_ids")
    if isinstance(allowed, dict):  # the names of an object are texts in JSON
        if not all(_COLUMN.fullmatch(name) for name in allowed):
            raise BadRequest(
                "`allowed_token_ids` must be a list of ids, or an object from columns of the row "
                f"to such lists, got {shown(allowed)}."
            )
        arguments["allowed_token_ids"] = {int(name): ids for name, ids in allowed.items()}
    negative = arguments.get("negative_prompt_ids")
    if negative is not None:
        arguments["negative_prompt_ids"] = torch.tensor([ids_of("negative_prompt_ids", negative)])
    return arguments


def ids_of(name: str, value: Any) -> list[int]:
    """Return a list of token ids.

    Raises:
        BadRequest: for anything else, or none.
    """
    if not (isinstance(value, list) and value and all(type(one) is int for one in value)):
        raise BadRequest(f"`{name}` must be a list of token ids, got {shown(value)}.")
    if not all(-(2**63) <= one < 2**63 for one in value):
        raise BadRequest(f"`{name}` must be a list of token ids, got integers beyond 64 bits.")
    return value


def check_patterns(fields: Mapping[str, Any], limits: Limits) -> None:
    """Refuse patterns that may take minutes to compile.

    Raises:
        BadRequest: naming the limit.
    """
    given = (fields.get("pattern"), fields.get("patterns"))
    length = sum(len(str(one)) for one in given if one is not None)
    if length > limits.max_pattern_chars:
        raise BadRequest(
            f"The patterns of the request have {length} characters, and this server compiles "
            f"{limits.max_pattern_chars} at most."
        )


def check_texts_asked(count: int, limits: Limits) -> None:
    """Refuse a request for more texts than one may get.

    Raises:
        BadRequest: naming both numbers.
    """
    if count > limits.max_texts:
        raise BadRequest(
            f"The request asks for {count} texts, and one gets {limits.max_texts} at most here."
        )
