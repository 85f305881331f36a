"""Every text at the left edge of its row, whatever side a tokenizer pads on.

Most encoders count positions from the left edge: a text behind padding would be another text to
them than in training, without a word. So `forward` and `score_tokens` move the tokens of each row
to the left, together and in their order, and put what comes out back in the caller's columns.

Letters: B rows, L columns of the caller, M columns that are kept, N chosen positions, H width.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from .losses import IGNORED_LABEL
from .modeling_output import MaskGitOutput
from .row_checks import can_be_read, check_longest

Method = TypeVar("Method", bound=Callable[..., Any])


@dataclass(frozen=True)
class LeftEdge:
    """Where the columns of a batch go.

    Attributes:
        order: (B, L) long, the column that stands at each place once all are moved.
        real: (B, L) bool, the caller's columns that are no padding.
        width: M, columns that are kept; the others are padding in every row.
    """

    order: Tensor
    real: Tensor
    width: int

    @classmethod
    def of(cls, model: Any, text: Any, attention_mask: Any) -> "LeftEdge | None":
        """Plan the move of a batch; None where every text is at the left edge, and short enough.

        Args:
            model: knows how many positions its encoder has.
            text: (B, L) or (B, L, H), the tokens or their embeddings.
            attention_mask: (B, L), 1 at real tokens; None and masks of other shapes move nothing.

        Raises:
            ValueError: for a text that is longer than that.
        """
        if not isinstance(text, Tensor) or text.ndim < 2:
            return None  # and refused where it is read
        width, limit = text.shape[1], model.known_limit
        if limit is not None and width > limit:
            limit = model.max_positions  # asked anew: somebody may have given it more
        too_wide = limit is not None and width > limit
        if not isinstance(attention_mask, Tensor) or attention_mask.shape != text.shape[:2]:
            check_longest(width, limit)
            return None
        # A traced pass, too, has to have its padding on the right.
        if not can_be_read(attention_mask):
            return None
        real = attention_mask.bool()
        if too_wide:
            # Rounded up to a multiple, a batch may be wider than any of its texts.
            width = int(real.sum(1).max())
            check_longest(width, limit)
        elif not bool((real[:, 1:] > real[:, :-1]).any()):  # nothing real behind padding
            return None
        return cls((~real).long().argsort(dim=1, stable=True), real, width)

    def move(self, values: dict[str, Any]) -> dict[str, Any]:
        """Move all tensors that have an entry per token, (B, L) or (B, L, ...)."""
        shape = self.real.shape
        return {
            name: self._pack(value)
            if isinstance(value, Tensor) and value.shape[:2] == shape
            else value
            for name, value in values.items()
        }

    def restore(self, output: MaskGitOutput, chosen: Tensor | None) -> None:
        """Put what a pass returned back in the caller's columns, in place; 0 where none was kept.

        Args:
            output: of the model.
            chosen: (B, L) bool, the positions of its logits in the caller's columns; None means
                that it has logits everywhere.

        Raises:
            ValueError: for attention maps that are not (B, heads, M, M).
        """
        if output.logits is not None:
            everywhere = chosen is None
            logits = output.logits
            output.logits = self._back(logits) if everywhere else self.in_order(logits, chosen)
        if output.last_hidden_state is not None:
            output.last_hidden_state = self._back(output.last_hidden_state)
        if output.hidden_states is not None:
            output.hidden_states = tuple(map(self._back, output.hidden_states))
        if output.attentions is not None:
            maps = [self._back(layer, 2) for layer in output.attentions]
            output.attentions = tuple(self._back(layer, 3) for layer in maps)

    def in_order(self, found: Tensor, chosen: Tensor | None) -> Tensor:
        """Put what was found at the moved positions, (N, ...), in the caller's order.

        Real tokens keep their order, so that only a chosen position at padding is out of it.

        Args:
            found: (N, ...) of the moved rows, read row by row.
            chosen: (B, L) bool, the positions in the caller's columns.
        """
        if chosen is None or not bool((chosen & ~self.real).any()):
            return found
        number = chosen.flatten().cumsum(0).view_as(chosen) - 1
        places = self._pack(number)[self._pack(chosen)]
        ordered = found.new_zeros(int(chosen.sum()), *found.shape[1:])
        return ordered.index_copy(0, places, found)

    def _pack(self, columns: Tensor) -> Tensor:
        rows = torch.arange(len(self.order), device=self.order.device)[:, None]
        return columns[rows, self.order[:, : self.width]]

    def _back(self, packed: Tensor, axis: int = 1) -> Tensor:
        """Put an axis of M places back into L columns."""
        if packed.shape[0] != len(self.order) or packed.shape[axis] != self.width:
            raise ValueError(
                f"The encoder returned hidden states or attentions of shape {tuple(packed.shape)}, "
                f"which have no entry for each of {self.width} tokens, so they cannot be put back "
                "where padding stands on the left. Pad on the right."
            )
        columns = packed.movedim(axis, 1)
        short = self.order.shape[1] - self.width
        if short:
            columns = F.pad(columns, (0, 0) * (columns.ndim - 2) + (0, short))
        rows = torch.arange(len(self.order), device=self.order.device)[:, None]
        return columns[rows, self.order.argsort(1)].movedim(1, axis)


def at_the_left_edge(forward: Method) -> Method:
    """Let the model's `forward` see every text at the left edge, and its caller notice nothing.

    Args:
        forward: of a model, with arguments named as those of `MaskGitForMaskedLM.forward`.
    """
    names = tuple(inspect.signature(forward).parameters)[1:]  # behind the model itself

    @functools.wraps(forward)
    def moved(model: Any, *args: Any, **kwargs: Any) -> Any:
        # A compiled or exported pass cannot depend on where padding stands, and moving all would
        # double its graphs: there, padding has to stand on the right.
        if torch.compiler.is_compiling():
            return forward(model, *args, **kwargs)
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        text = given.get("input_ids")
        text = given.get("inputs_embeds") if text is None else text
        edge = LeftEdge.of(model, text, given.get("attention_mask"))
        if edge is None or len(given) != len(args) + len(kwargs):  # what is given twice is refused
            return forward(model, *args, **kwargs)
        chosen, labels = given.get("masked_positions"), given.get("labels")
        if chosen is None and labels is not None:
            chosen = labels != IGNORED_LABEL
        as_dict = given.pop("return_dict", None)
        output = forward(model, **edge.move(given), return_dict=True)
        edge.restore(output, chosen)
        as_dict = model.config.return_dict if as_dict is None else as_dict
        return output if as_dict else output.to_tuple()

    return cast(Method, moved)
