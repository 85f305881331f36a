"""What kind a single argument must be: a tensor, an integer, a function, a tokenizer.

Whatever takes it refuses it by its name, before anything is done with it. What rows of tokens must
hold stands in `row_checks`.
"""

import numbers
import os
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .options import is_number, shown

_OVERFLOW = 2**63  # torch's integers end there


def check_tensor(name: str, value: Any) -> None:
    """Refuse anything but a tensor.

    Raises:
        TypeError: for something else.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"`{name}` must be a tensor, got {kind_of(value)}.")


def check_marks(name: str, value: Any, shape: Sequence[int]) -> None:
    """Refuse anything but a bool tensor of a shape: other integers would be taken for indices.

    Raises:
        TypeError: for something else than a tensor.
        ValueError: for another dtype or shape.
    """
    check_tensor(name, value)
    if value.dtype != torch.bool or tuple(value.shape) != tuple(shape):
        raise ValueError(
            f"`{name}` must be of dtype bool and shape {tuple(shape)}, got {value.dtype} and "
            f"{tuple(value.shape)}; of ones and zeros make it with .bool()."
        )


def check_generator(value: Any) -> None:
    """Refuse anything but a generator of torch, or None.

    Raises:
        TypeError: saying how to make one.
    """
    if value is not None and not isinstance(value, torch.Generator):
        raise TypeError(
            f"`generator` must be a torch.Generator, got {kind_of(value)}; of a number make one by "
            "torch.Generator().manual_seed(0)."
        )


def check_whole(name: str, value: Any, least: int | None = None, most: int = _OVERFLOW - 1) -> None:
    """Refuse anything but an integer, of Python or NumPy, within its range.

    Raises:
        ValueError: saying what is allowed.
    """
    if isinstance(value, Tensor) and value.ndim == 0:
        value = value.item()
    limit = "" if least is None else f" of at least {least}"
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or (least is not None and value < least):
        raise ValueError(f"`{name}` must be an integer{limit}, got {shown(value)}.")
    if not -_OVERFLOW <= value <= most:
        raise ValueError(f"`{name}` must be an integer of at most {most}, got {shown(value)}.")


def check_count(name: str, value: Any) -> None:
    """Refuse anything but a number that torch can hold, or a tensor of one.

    Raises:
        ValueError: for something else.
    """
    one = value.numel() == 1 if isinstance(value, Tensor) else is_number(value)
    if not one or (isinstance(value, int) and abs(value) >= _OVERFLOW):
        raise ValueError(f"`{name}` must be a number, got {shown(value)}.")


def check_flag(name: str, value: Any) -> None:
    """Refuse anything but True, False and None.

    Raises:
        TypeError: for something else.
    """
    if value is not None and not isinstance(value, bool):
        raise TypeError(f"`{name}` must be True or False, got {shown(value)}.")


def check_callables(name: str, values: Iterable[Any]) -> None:
    """Refuse what cannot be called.

    Raises:
        TypeError: for the first of them.
    """
    for value in values:
        if not callable(value):
            raise TypeError(
                f"`{name}` must be functions, or objects to be called, got {kind_of(value)}."
            )


def check_source(name: str, value: Any) -> None:
    """Refuse what is neither a model nor says where one lies.

    Raises:
        TypeError: for something else, or an empty name.
    """
    named = isinstance(value, str | os.PathLike) and str(value).strip()
    if not named and not isinstance(value, PreTrainedModel):
        raise TypeError(
            f"`{name}` must be the name or path of a checkpoint, or a loaded model, got "
            f"{kind_of(value)}."
        )


def check_is_tokenizer(value: Any) -> None:
    """Refuse anything but a tokenizer of transformers.

    Raises:
        TypeError: for something else.
    """
    if not isinstance(value, PreTrainedTokenizerBase):
        raise TypeError(
            f"`tokenizer` must be a tokenizer of transformers, got {kind_of(value)}; load one with "
            "AutoTokenizer.from_pretrained()."
        )


def describes_generator(config: Any) -> bool:
    """Tell whether a configuration is one of a generator.

    Also one whose class came with a checkpoint, and one of a user's class that derives from it and
    has a `model_type` of its own.
    """
    return any(vars(kind).get("model_type") == "maskgit" for kind in type(config).__mro__)


def kind_of(value: Any) -> str:
    """Tell the type of a value and show it, for the sentence that refuses it."""
    return f"{type(value).__name__} {shown(value)}"


def is_list_of_ids(value: Any) -> bool:
    """Tell whether something is a list of integers, as token ids are."""
    return isinstance(value, list) and all(type(i) is int for i in value)


def is_strings(value: Any) -> bool:
    """Tell whether something is a string or a list of strings, none of them empty."""
    strings = [value] if isinstance(value, str) else value
    return isinstance(strings, list) and all(isinstance(s, str) and s for s in strings)
