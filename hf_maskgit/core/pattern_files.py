"""Patterns as files: a table of formats, a row per suffix. None of them runs what it reads.

JSON is what people can read. Safetensors is smaller, mostly a byte a token; its header holds what
stands beside the tensors, each value a string of JSON.

Letters: Q states, C classes of tokens, V vocabulary.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .pattern_automaton import NEVER, Automaton, checked_size, has_texts

# Beside the automaton: what stands in an attribute of this name of a pattern, by its types.
MARKS: dict[str, tuple[type, ...]] = {
    "source": (str,),
    "fingerprint": (str,),
    "mask_token_id": (int, type(None)),
    "spaced": (bool, type(None)),
}
_FORMAT = "hf_maskgit pattern 1"
_PARTS = ("step", "final", "class_of")  # the tensors of an automaton
_UNREADABLE = (LookupError, TypeError, ValueError, RuntimeError, SafetensorError)


class _Format(NamedTuple):
    """How the tensors and what stands beside them become a file, and a file becomes these."""

    write: Callable[[Path, Mapping[str, Tensor], Mapping[str, Any]], None]
    read: Callable[[Path], tuple[dict[str, Tensor], dict[str, Any]]]


def _write_json(path: Path, tensors: Mapping[str, Tensor], beside: Mapping[str, Any]) -> None:
    lists = {name: tensor.long().tolist() for name, tensor in tensors.items()}
    path.write_text(json.dumps({**beside, **lists}, separators=(",", ":")), encoding="utf-8")


def _read_json(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    stored = dict(json.loads(path.read_text(encoding="utf-8")))
    return {name: torch.tensor(stored.pop(name)) for name in _PARTS}, stored


def _write_safetensors(
    path: Path, tensors: Mapping[str, Tensor], beside: Mapping[str, Any]
) -> None:
    small = {name: _narrow(tensor) for name, tensor in tensors.items()}
    header = {name: json.dumps(value) for name, value in beside.items()}
    path.write_bytes(save(small, header))


def _narrow(tensor: Tensor) -> Tensor:
    """Return whole numbers from 0 in the smallest type that holds them; none needs 64 bits."""
    if tensor.dtype == torch.bool:
        return tensor
    most = int(tensor.max())
    fitting = (t for t in (torch.uint8, torch.int16, torch.int32) if most <= torch.iinfo(t).max)
    return tensor.to(next(fitting))


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with path.open("rb"), safe_open(path, framework="pt") as file:  # the first says what is no file
        header = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in _PARTS}
    return tensors, {name: json.loads(value) for name, value in header.items()}


_JSON = _Format(_write_json, _read_json)  # whatever the suffix, unless it has a row
_FORMATS = {".safetensors": _Format(_write_safetensors, _read_safetensors)}


def _format_of(path: Path) -> _Format:
    return _FORMATS.get(path.suffix.lower(), _JSON)


def write_pattern(
    path: str | os.PathLike[str], automaton: Automaton, marks: Mapping[str, Any]
) -> None:
    """Write an automaton and what stands beside it, in the format of the file's suffix."""
    path = Path(path)
    tensors = {name: getattr(automaton, name) for name in _PARTS}
    beside = {"format": _FORMAT, **marks, "start": automaton.start}
    _format_of(path).write(path, tensors, beside)


def read_pattern(path: str | os.PathLike[str]) -> tuple[Automaton, dict[str, Any]]:
    """Read what `write_pattern` wrote.

    Raises:
        FileNotFoundError: where there is no file.
        ValueError: for a file that is something else, or damaged.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"There is no file {str(path)!r} to read a pattern from; name one that `save` wrote."
        )
    try:
        tensors, beside = _format_of(path).read(path)
        if beside["format"] != _FORMAT:
            raise KeyError("format")
        step, final, class_of = (tensors[name] for name in _PARTS)
        if any(part.is_floating_point() for part in tensors.values()):
            raise TypeError("numbers of states and classes are whole")
        automaton = Automaton(step.long(), final.bool(), class_of.long(), beside["start"])
        marks = {name: beside[name] for name in MARKS}
        whole = all(type(marks[name]) in kinds for name, kinds in MARKS.items())
        whole = whole and _is_whole(automaton)
    except _UNREADABLE as error:
        raise ValueError(
            f"{path} holds no pattern that this version reads ({type(error).__name__}); make the "
            "pattern anew and `save` it."
        ) from error
    if not whole:
        raise ValueError(
            f"{path} is damaged: states or classes that it names do not exist, it has no text, or "
            "what stands beside them is of another kind. Make the pattern anew and `save` it."
        )
    return checked_size(automaton), marks


def _is_whole(automaton: Automaton) -> bool:
    step, final, class_of, start = automaton
    states, classes = step.shape
    flat = class_of.ndim == final.ndim == 1 and len(final) == states and classes > NEVER
    known = flat and type(start) is int and 0 <= start < states
    in_range = all(
        bool(((part >= 0) & (part < limit)).all())
        for part, limit in ((step, states + 1), (class_of, classes))
    )
    nowhere = known and in_range and bool((step[:, NEVER] == states).all())
    return nowhere and has_texts(automaton)
