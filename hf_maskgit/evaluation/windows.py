"""Long texts by windows that slide: every token is judged once, given a good part before it.

A text of n tokens that no pass holds is written piece by piece: the first window from nothing, each
further piece of `stride` tokens given as many of those before it as fit. By the chain rule the
bounds of the pieces add up to one of the whole text, for a generator that writes it so.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.argument_checks import check_whole
from ..core.row_checks import token_column
from .bound import NelboOutput


@dataclass(frozen=True)
class WindowedTexts:
    """Windows of texts, as examples to evaluate.

    Attributes:
        examples: framed `input_ids`, and `maskable`, 1 at what a window judges.
        text_of: (W,) long, the text that each window is of.
        num_texts: how many texts there are.
    """

    examples: list[dict[str, Any]]
    text_of: Tensor
    num_texts: int

    def summed(self, bound: NelboOutput) -> NelboOutput:
        """Add the bounds of the windows of each text.

        Args:
            bound: of all windows, in the order of `examples`.
        """

        def by_text(values: Tensor) -> Tensor:
            shape = (self.num_texts, *values.shape[1:])
            return torch.zeros(shape, dtype=values.dtype).index_add_(0, self.text_of, values)

        return NelboOutput(
            by_text(bound.nats),
            by_text(bound.std_error.square()).sqrt(),
            by_text(bound.num_tokens),
            bound.estimator,
            None if bound.pairs is None else by_text(bound.pairs),
        )


def sliding_windows(num_tokens: int, size: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Yield (start, first judged, stop) of each window of a text.

    Args:
        num_tokens: of the text, at least 1.
        size: tokens of a window.
        stride: tokens by which it moves on, 1 .. `size`; the rest of it is given.
    """
    judged, stop = 0, min(size, num_tokens)
    while True:
        yield max(0, stop - size), judged, stop
        if stop == num_tokens:
            return
        judged, stop = stop, min(stop + stride, num_tokens)


def windowed(
    bodies: Iterable[Any],
    prefix_ids: Sequence[int],
    suffix_ids: Sequence[int],
    *,
    max_length: int,
    stride: int,
) -> WindowedTexts:
    """Cut texts into sliding windows; one that fits is a single window.

    Args:
        bodies: rows with `input_ids` without framing, and `maskable` where tokens are given.
        prefix_ids: framing before each window.
        suffix_ids: framing behind it.
        max_length: tokens of a window, framing included.
        stride: tokens by which a window moves on, at least 1.

    Raises:
        ValueError: for a stride out of its range, or a column that is not as long as its text.
    """
    size = max_length - len(prefix_ids) - len(suffix_ids)
    check_whole("window_stride", stride, least=1)
    if stride > size:
        raise ValueError(
            f"`window_stride` is {stride} tokens, but a window of {max_length} holds {size} of a "
            f"text; set it to {size} at most. Half of that gives every token a good part before it."
        )
    examples, text_of, number = [], [], -1
    for number, body in enumerate(bodies):
        ids = token_column(body, "input_ids", 1).tolist()
        allowed = token_column(body, "maskable", 1).tolist()
        for start, first, stop in sliding_windows(len(ids), size, stride):
            maskable = [0] * (first - start) + allowed[first:stop]
            if not any(maskable):  # a part of a long prompt
                continue
            framed = [*prefix_ids, *ids[start:stop], *suffix_ids]
            around = [1] * len(prefix_ids), [1] * len(suffix_ids)
            examples.append({"input_ids": framed, "maskable": [*around[0], *maskable, *around[1]]})
            text_of.append(number)
    return WindowedTexts(examples, torch.tensor(text_of, dtype=torch.long), number + 1)
