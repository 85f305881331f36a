"""Samplers on a command line: options of `generate` in JSON, refused before anything is done."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..core.generation_config_maskgit import MaskGitGenerationConfig
from .recipes import json_object


def samplers_of(
    text: str | None,
    default: Sequence[Mapping[str, Any]],
    example: Mapping[str, Any],
    name: str = "--samplers",
) -> list[dict[str, Any]]:
    """Read an option that is some samplers, a JSON list of objects; `default` where it is absent.

    Raises:
        ValueError: for anything else, and for what are no options of `generate`; an `example` is
            shown. What depends on the model is refused by `generate` itself.
    """
    if text is None:
        return [dict(sampler) for sampler in default]
    samplers = _json_objects(name, text, example)
    for sampler in samplers:
        _check_decoding(sampler)
    return samplers


def decoding_of(name: str, text: str) -> dict[str, Any]:
    """Read an option that is one sampler, a JSON object.

    Raises:
        ValueError: as `samplers_of`; the option is called `name`.
    """
    decoding = json_object(name, text)
    _check_decoding(decoding)
    return decoding


def _json_objects(name: str, text: str, example: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Read an option that is a list of objects in JSON.

    Raises:
        ValueError: for anything else; the option is called `name`, and an `example` is shown.
    """
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{name} is no JSON: {error}.") from error
    if not (isinstance(found, list) and found and all(isinstance(one, dict) for one in found)):
        shown = f"'{json.dumps([dict(example)])}'"
        raise ValueError(f"{name} must be a JSON list of objects such as {shown}, got {text}.")
    return found


def _check_decoding(options: Mapping[str, Any]) -> None:
    others = {name: value for name, value in options.items() if name != "preset"}
    if options.get("preset") is None:
        MaskGitGenerationConfig(**others)
    else:
        MaskGitGenerationConfig.preset(options["preset"], **others)
