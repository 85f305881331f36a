"""Samplers on a command line: options of `generate` in JSON, refused before anything is done."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..core.generation_config_maskgit import MaskGitGenerationConfig
from ..core.generation_output import OF_A_CALL
from ..core.modeling_maskgit import MaskGitForMaskedLM
from ..evaluation.samplers import resolved_sampler
from .recipes import json_object

# Options of texts that are appended: who fills masks has none to say.
OF_LENGTHS = ("num_tokens", "max_new_tokens", "stop_strings")


def samplers_of(
    text: str | None,
    default: Sequence[Mapping[str, Any]],
    example: Mapping[str, Any],
    name: str = "--samplers",
    decided: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Read an option that is some samplers, a JSON list of objects; `default` where it is absent.

    Args:
        text: of the option.
        default: samplers.
        example: of a sampler, to be shown.
        name: of the option.
        decided: options of `generate` that the program names itself, besides `OF_A_CALL`.

    Raises:
        ValueError: for anything else, for what are no options of `generate`, and for those that
            are decided. What depends on the model `check_samplers` refuses.
    """
    if text is None:
        return [dict(sampler) for sampler in default]
    samplers = _json_objects(name, text, example)
    for sampler in samplers:
        _check_decoding(name, sampler, decided)
    return samplers


def decoding_of(name: str, text: str) -> dict[str, Any]:
    """Read an option that is one sampler, a JSON object.

    Raises:
        ValueError: as `samplers_of`; the option is called `name`.
    """
    decoding = json_object(name, text)
    _check_decoding(name, decoding)
    return decoding


def check_samplers(model: MaskGitForMaskedLM, samplers: Sequence[Mapping[str, Any]]) -> None:
    """Refuse samplers that a model cannot decode by, before the first has worked.

    Raises:
        ValueError: as `generate` would.
    """
    for sampler in samplers:
        resolved_sampler(model, sampler)


def check_decided(name: str, options: Mapping[str, Any], decided: Collection[str]) -> None:
    """Refuse options that a program names itself.

    Raises:
        ValueError: naming the first; the option that they stand in is called `name`.
    """
    for one in decided:
        if one in options:
            raise ValueError(
                f"`{one}` is what this program decides itself; leave it out of {name}."
            )


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


def _check_decoding(name: str, options: Mapping[str, Any], decided: Collection[str] = ()) -> None:
    check_decided(name, options, (*OF_A_CALL, *decided))
    others = {name: value for name, value in options.items() if name != "preset"}
    if options.get("preset") is None:
        MaskGitGenerationConfig(**others)
    else:
        MaskGitGenerationConfig.preset(options["preset"], **others)
