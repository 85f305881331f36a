"""Feeding transformers' streamers from a decoding that does not run from left to right.

A token is put once nothing before it is open any more and nothing can change it, so a streamer for
left-to-right text prints the finished part as it grows: block by block with `block_length`, token
by token with order "left_to_right", else mostly at the end. A streamer that knows drafts
(`TextDiffusionStreamer`) is shown the whole rest, masks included, after every pass.
"""

from typing import Any

from torch import Tensor


class StreamFeed:
    """Puts one text into a streamer as it comes about.

    Args:
        streamer: has `put` and `end`, and may have `put_draft`.
        prompt: (P,) long, put first; empty where the prompt itself is being filled.

    Raises:
        ValueError: for a streamer that wants logits.
    """

    def __init__(self, streamer: Any, prompt: Tensor) -> None:
        if getattr(streamer, "_takes_logits", False):
            raise ValueError(
                f"{type(streamer).__name__} wants the logits of every position, which masked "
                "decoding does not compute; use a streamer whose put_draft() takes tokens."
            )
        self._streamer = streamer
        self._shows_drafts = hasattr(streamer, "put_draft")
        self._num_put = 0
        streamer.put(prompt.cpu())

    def show(self, tokens: Tensor, settled: Tensor) -> None:
        """Put what is settled from the left, and show the rest as a draft.

        Args:
            tokens: (n,) long, the text behind the prompt as it stands.
            settled: (n,) bool, tokens that will not change any more.
        """
        until = int(settled.long().cumprod(0).sum())
        if until > self._num_put:
            self._streamer.put(tokens[self._num_put : until].cpu())
            self._num_put = until
        if self._shows_drafts and until < len(tokens):
            self._streamer.put_draft(value=tokens[until:].cpu())

    def finish(self, tokens: Tensor) -> None:
        """Put the rest of the finished text and end the stream."""
        if len(tokens) > self._num_put:
            self._streamer.put(tokens[self._num_put :].cpu())
        self._streamer.end()


def check_streamable(streamer: Any, num_texts: int) -> None:
    """Refuse a streamer for several texts.

    Raises:
        ValueError: for more than one text.
    """
    if streamer is not None and num_texts != 1:
        raise ValueError(
            f"A streamer shows one text, and {num_texts} are asked for; pass one row and leave "
            "num_return_sequences at 1."
        )
