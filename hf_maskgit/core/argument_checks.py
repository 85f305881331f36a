"""Arguments of the wrong kind, refused by name before anything is done with them."""

import numbers
import os
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .options import shown


def check_tensor(name: str, value: Any, shape: tuple[int, ...] | None = None) -> None:
    """Refuse anything but a tensor, and one of another shape than that of the ids.

    Raises:
        TypeError: for something else.
        ValueError: for another shape.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"`{name}` must be a tensor, got {_kind(value)}.")
    if shape is not None and value.shape != shape:
        raise ValueError(
            f"`{name}` must have the shape of the ids, {tuple(shape)}, got {tuple(value.shape)}."
        )


def check_same_shape(name: str, scores: Any, given: Tensor) -> None:
    """Refuse scores of another shape than those that a function was given to change.

    Raises:
        ValueError: saying what it must return.
    """
    if not isinstance(scores, Tensor) or scores.shape != given.shape:
        got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise ValueError(
            f"`{name}` must return the scores it got, changed: one per position and token, "
            f"{tuple(given.shape)}, got {got}."
        )


def check_token_types(value: Tensor, encoder: Any) -> None:
    """Refuse token types that the encoder has no row for.

    Args:
        value: (B, L).
        encoder: its configuration.

    Raises:
        ValueError: saying which it takes.
    """
    if value.is_floating_point() or value.is_complex():
        raise ValueError(f"`token_type_ids` must be integers, got dtype {value.dtype}.")
    known = getattr(encoder, "type_vocab_size", None)
    if value.numel() == 0 or not known:
        return
    low, high = int(value.min()), int(value.max())
    if low < 0 or high >= known:
        raise ValueError(
            f"`token_type_ids` run from {low} to {high}; the encoder has types 0 to {known - 1}."
        )


def check_generator(value: Any) -> None:
    """Refuse anything but a generator of torch, or None.

    Raises:
        TypeError: saying how to make one.
    """
    if value is not None and not isinstance(value, torch.Generator):
        raise TypeError(
            f"`generator` must be a torch.Generator, got {_kind(value)}; of a number make one by "
            "torch.Generator().manual_seed(0)."
        )


def check_whole(name: str, value: Any, least: int | None = None) -> None:
    """Refuse anything but an integer, of Python or NumPy, that is large enough.

    Raises:
        ValueError: saying what is allowed.
    """
    limit = "" if least is None else f" of at least {least}"
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or (least is not None and value < least):
        raise ValueError(f"`{name}` must be an integer{limit}, got {shown(value)}.")


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
                f"`{name}` must be functions, or objects to be called, got {_kind(value)}."
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
            f"{_kind(value)}."
        )


def check_tokenizer(value: Any) -> None:
    """Refuse anything but a tokenizer of transformers.

    Raises:
        TypeError: for something else.
    """
    if not isinstance(value, PreTrainedTokenizerBase):
        raise TypeError(
            f"`tokenizer` must be a tokenizer of transformers, got {_kind(value)}; load one with "
            "AutoTokenizer.from_pretrained()."
        )


def _kind(value: Any) -> str:
    return f"{type(value).__name__} {shown(value)}"
