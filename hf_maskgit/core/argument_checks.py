"""Arguments of the wrong kind, refused by name before anything is done with them."""

import numbers
import os
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .options import shown

_OVERFLOW = 2**63  # torch's integers end there


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


def check_ids(name: str, value: Any, vocab_size: int | None) -> None:
    """Refuse anything but ids of the vocabulary in rows, (B, L); None says of no vocabulary.

    Raises:
        TypeError: for something else than a tensor.
        ValueError: for another shape, numbers that are no integers, or ids out of range.
    """
    check_tensor(name, value)
    if value.ndim != 2 or not value.numel() or value.is_floating_point() or value.is_complex():
        raise ValueError(
            f"`{name}` must be integers of shape (batch, length), got dtype {value.dtype} and "
            f"shape {tuple(value.shape)}."
        )
    if vocab_size is not None and bool(((value < 0) | (value >= vocab_size)).any()):
        raise ValueError(
            f"`{name}` run from {int(value.min())} to {int(value.max())}; the vocabulary has 0 to "
            f"{vocab_size - 1}. Is this the model's own tokenizer?"
        )


def check_mask(name: str, value: Tensor) -> None:
    """Refuse a mask that holds anything but 0 and 1.

    Raises:
        ValueError: for anything else.
    """
    if not bool(((value == 0) | (value == 1)).all()):
        raise ValueError(f"`{name}` must hold 0 (padding) and 1 (real tokens) only.")


def check_example(value: Any) -> None:
    """Refuse anything but an example as tokenizers and data sets give it.

    Raises:
        TypeError: for something else.
    """
    if not isinstance(value, Mapping) or "input_ids" not in value:
        raise TypeError(
            "An example must be a dict with `input_ids`, as a tokenizer returns it, got "
            f"{_kind(value)}."
        )


def whole_numbers(name: str, value: Any) -> Tensor:
    """Return a column of an example as a tensor, (L,) long.

    Raises:
        ValueError: for anything but a list of whole numbers.
    """
    try:
        numbers_ = torch.as_tensor(value)
        real = numbers_.real if numbers_.is_complex() else numbers_  # or torch warns of the rest
        whole = real.long()
        fits = numbers_.ndim == 1 and real is numbers_ and bool((whole == real).all())
    # torch has an error of its own for everything that is no number.
    except (TypeError, ValueError, RuntimeError, OverflowError):
        fits = False
    if not fits:
        raise ValueError(
            f"`{name}` of an example must be a list of whole numbers, got {_kind(value)}."
        )
    return whole


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


def check_is_tokenizer(value: Any) -> None:
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
