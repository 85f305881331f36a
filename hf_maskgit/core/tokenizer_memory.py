"""What was told of a tokenizer once, kept as long as it lives and stays as it is."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

Told = TypeVar("Told")


def per_tokenizer(
    tell: Callable[[PreTrainedTokenizerBase], Told],
) -> Callable[[PreTrainedTokenizerBase], Told]:
    """Make a function of a tokenizer remember what it returned.

    A vocabulary of 250,000 tokens takes seconds to be read. A tokenizer that was given tokens,
    roles or another decoder since is read anew.

    Args:
        tell: what is remembered; what it raises is not.
    """
    known: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[Any, Told]] = WeakKeyDictionary()

    @wraps(tell)
    def remembered(tokenizer: PreTrainedTokenizerBase) -> Told:
        if not isinstance(tokenizer, PreTrainedTokenizerBase):
            return tell(tokenizer)  # which refuses it
        state = _state(tokenizer)
        before = known.get(tokenizer)
        if before is None or before[0] != state:
            # Told first: what it raises must not be taken for an answer.
            before = state, tell(tokenizer)
            known[tokenizer] = before
        return before[1]

    return remembered


def decoder_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return how a tokenizer puts tokens together, as JSON; "" where that is code of its own."""
    decoder = getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)
    return "" if decoder is None else str(decoder.__getstate__().decode())


def _state(tokenizer: PreTrainedTokenizerBase) -> tuple[Any, ...]:
    return len(tokenizer), tuple(tokenizer.all_special_ids), decoder_of(tokenizer)
