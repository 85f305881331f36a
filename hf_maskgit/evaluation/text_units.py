"""Bits per character and per byte: what a bound per token is in units that no tokenizer made.

A bound on the tokens bounds the text as well, if the text can be made of the tokens: then all
tokens that stand for it are among those that the probability of the text adds up. Where the
tokenizer folded case, dropped an accent or put an unknown token, the tokens are those of another
text, and the figure would flatter: it is refused.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

_SHOWN = 40  # characters of a text in a sentence


def text_units(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], ids: Sequence[Sequence[int]]
) -> tuple[Tensor, Tensor]:
    """Count the characters and the bytes of texts, once their tokens give back every text.

    Tokens become text by the tokenizer's `decode`, or by `decode` with all space left out (as of
    proteins, whose tokens are residues): the same way for all texts.

    Args:
        tokenizer: that made the tokens.
        texts: B.
        ids: the tokens of each, without framing.

    Returns:
        (B,) long, characters (Unicode code points), and (B,) long, bytes in UTF-8.

    Raises:
        ValueError: showing the first text that does not come back.
    """

    def plain(tokens: Sequence[int]) -> str:
        return str(tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False))

    def joined(tokens: Sequence[int]) -> str:
        return "".join(plain(tokens).split())

    ways: list[Callable[[Sequence[int]], str]] = [plain, joined]
    first: tuple[str, str] | None = None
    for text, tokens in zip(texts, ids, strict=True):
        ways = [way for way in ways if way(tokens) == text]
        if not ways:
            first = text, plain(tokens)
            break
    if first is not None:
        text, back = (one if len(one) <= _SHOWN else one[:_SHOWN] + "..." for one in first)
        raise ValueError(
            "Characters and bytes are counted only where the tokens give back every text, and the "
            f"tokens of {text!r} read {back!r}: the bound is that of another text. Judge per token."
        )
    characters = torch.tensor([len(text) for text in texts])
    return characters, torch.tensor([len(text.encode("utf-8")) for text in texts])


def units_of_bodies(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], bodies: Iterable[Any]
) -> tuple[Tensor, Tensor]:
    """Count what is judged of tokenised texts: all of a text, a completion without its prompt.

    Args:
        tokenizer: that made the tokens.
        texts: of the data set, or completions.
        bodies: `input_ids` without framing, `row` in the data set, and `maskable` where tokens are
            given.

    Returns:
        As `text_units`, which may refuse them.
    """
    judged = []
    for body in bodies:
        maskable = body.get("maskable") or [1] * len(body["input_ids"])
        judged.append([i for i, free in zip(body["input_ids"], maskable, strict=True) if free])
    return text_units(tokenizer, [texts[body["row"]] for body in bodies], judged)
