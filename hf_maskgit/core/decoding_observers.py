"""What looks on while a text comes about: the caller's callback, the history, the streamer."""

from typing import Any

import torch
from torch import Tensor

from .argument_checks import check_callables
from .decoding import StepCallback
from .decoding_layout import behind_first
from .decoding_prompts import Prompts
from .decoding_state import DecodingState
from .decoding_stops import StopRules
from .equal_texts import warn_of_equal_texts
from .sampler import Sampler


class Observer:
    """Looks on after every pass.

    Args:
        prompts: the batch, whose rows it knows how to put back into the caller's columns.
        sampler: its mask and remasking.
        stops: when a row ends.
        vocab_size: V; a callback writes no other ids.
        callback: of the caller's, see `generate`.
        streamer: of transformers, see `generate`.

    Raises:
        ValueError: for a streamer that cannot show this batch.
    """

    def __init__(
        self,
        prompts: Prompts,
        sampler: Sampler,
        stops: StopRules,
        vocab_size: int,
        callback: StepCallback | None = None,
        streamer: Any = None,
    ) -> None:
        self._prompts, self._sampler, self._stops = prompts, sampler, stops
        self._rows = prompts.rows
        self._vocab_size, self._callback = vocab_size, callback
        check_callables("callback_on_step_end", [] if callback is None else [callback])
        self._history: list[Tensor] | None = None
        self._feed = None
        if streamer is not None:
            rows = prompts.rows
            check_streamable(streamer, len(rows.text))
            # The prompt is streamed first, and once; padding around the text is not.
            real = rows.restore(rows.real.long(), 0)[0].nonzero()[:, 0]
            num_prompt = len(real) - rows.most_new if prompts.is_continued else 0
            self._streamed = real[num_prompt:]
            self._feed = StreamFeed(streamer, rows.restore(rows.text)[0, real[:num_prompt]])

    def keep_history(self) -> None:
        """Remember the rows after every pass."""
        self._history = []

    @property
    def on_step_end(self) -> StepCallback | None:
        """What `fill_masks` calls after a pass; None when there is nothing to do."""
        idle = self._callback is None and self._history is None and self._feed is None
        return None if idle else self

    @property
    def history(self) -> Tensor | None:
        """Rows after every pass, (passes, B, P + n) long, if they are kept."""
        if self._history is None:
            return None
        if not self._history:  # there was nothing to do
            return self._rows.columns.new_empty(0, *self._rows.columns.shape)
        return torch.stack(self._history)

    def __call__(self, step: int, state: DecodingState) -> DecodingState:
        """Do what is to be done after a pass."""
        if self._callback is not None:
            changed = self._callback(step, state)
            if changed is not None:
                _check_changed(changed, state, self._sampler.mask_token_id, self._vocab_size)
                state = changed
        if self._history is not None:
            self._history.append(self._rows.restore(state.text))
        if self._feed is not None:
            # A streamer has one row, number 0.
            row = torch.zeros(1, dtype=torch.long, device=state.text.device)
            ends, certain = self._stops.ends_so_far(row, state)
            certain &= ~behind_first(ends & certain, self._rows.tail)  # that will be cut off
            text = self._rows.restore(state.text)[0, self._streamed]
            self._feed.show(text, self._rows.restore(certain.long(), 1)[0, self._streamed] == 1)
        return state

    def finish(self, sequences: Tensor, cut_off: Tensor) -> None:
        """Warn of equal texts; stream what is left, without the padding behind the end."""
        warn_of_equal_texts(sequences, self._prompts)
        if self._feed is None:
            return
        text = sequences[0, self._streamed]
        # Behind the last kept token stands the padding that `generate` writes, which is no text.
        kept = (self._rows.restore(cut_off.long(), 0)[0, self._streamed] == 0).nonzero()
        self._feed.finish(text[: int(kept[-1]) + 1] if len(kept) else text[:0])


def _check_changed(
    changed: DecodingState, state: DecodingState, mask_token_id: int, vocab_size: int
) -> None:
    """Refuse a callback's state that decoding cannot go on from."""
    if not isinstance(changed, DecodingState) or changed.text.shape != state.text.shape:
        raise ValueError(
            "`callback_on_step_end` must return the DecodingState it got, changed with "
            f"dataclasses.replace(), or None; got {type(changed).__name__}."
        )
    if bool(((changed.text < 0) | (changed.text >= vocab_size)).any()):
        raise ValueError(
            f"`callback_on_step_end` wrote ids from {int(changed.text.min())} to "
            f"{int(changed.text.max())}; the vocabulary has 0 to {vocab_size - 1}."
        )
    # Block -1 is what the caller gave.
    known = state.block < 0
    if bool((changed.text != state.text)[known].any()):
        raise ValueError("`callback_on_step_end` changed a known token; those never change.")
    if not torch.equal((changed.text == mask_token_id) & ~known, changed.masked):
        raise ValueError(
            "`callback_on_step_end` returned a state in which `masked` does not say where the mask "
            "tokens stand; change `text` and `masked` together."
        )


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
        self._num_put, self._put = 0, prompt[:0]  # of the text behind the prompt
        streamer.put(prompt.cpu())

    def show(self, tokens: Tensor, settled: Tensor) -> None:
        """Put what is settled from the left, and show the rest as a draft.

        Args:
            tokens: (n,) long, the text behind the prompt as it stands.
            settled: (n,) bool, tokens that will not change any more.

        Raises:
            ValueError: where one has changed, which only a callback does.
        """
        if not torch.equal(tokens[: self._num_put], self._put):
            raise ValueError(
                "`callback_on_step_end` changed a token that `streamer` had been given as settled, "
                "and what is put is not taken back; change masks and later tokens alone, or leave "
                "one of the two out."
            )
        # Tokens come from everywhere, a left-to-right streamer only wants the finished start.
        until = int(settled.long().cumprod(0).sum())
        if until > self._num_put:
            self._streamer.put(tokens[self._num_put : until].cpu())
            self._num_put, self._put = until, tokens[:until].clone()
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
        TypeError: for something that is no streamer.
        ValueError: for more than one text.
    """
    if streamer is not None and not (hasattr(streamer, "put") and hasattr(streamer, "end")):
        raise TypeError(
            "`streamer` must have the methods put() and end(), as those of transformers have, got "
            f"{type(streamer).__name__}."
        )
    if streamer is not None and num_texts != 1:
        raise ValueError(
            f"A streamer shows one text, and {num_texts} are asked for; pass one row and leave "
            "num_return_sequences at 1."
        )
