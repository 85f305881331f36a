"""Every text at the left edge of its row, whatever side a tokenizer pads on.

Most encoders count positions from the left edge: a text behind padding would be another text to
them than in training, without a word. So a pass moves the tokens of each row to the left, together
and in their order, and puts what comes out back in the caller's columns (`encoder_pass`): who calls
it notices nothing.

Letters: B rows, L columns of the caller, M columns that are kept, H width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .row_checks import can_be_read, check_longest


@dataclass(frozen=True)
class LeftEdge:
    """Where the columns of a batch go.

    Attributes:
        order: (B, L) long, the column that stands at each position once all are moved.
        width: M, columns that are kept; the others are padding in every row.
    """

    order: Tensor
    width: int

    @classmethod
    def of(cls, model: Any, arguments: Mapping[str, Any]) -> "LeftEdge | None":
        """Plan the move of a batch; None where every text is at the left edge, and short enough.

        Args:
            model: knows how many positions its encoder has.
            arguments: `input_ids` (B, L) or `inputs_embeds` (B, L, H), and `attention_mask` (B, L),
                1 at real tokens; none, and masks of other shapes, move nothing.

        Raises:
            ValueError: for a text that is longer than that.
        """
        text, attention_mask = arguments.get("input_ids"), arguments.get("attention_mask")
        if text is None:
            text = arguments["inputs_embeds"]
        width = text.shape[1]
        if not isinstance(attention_mask, Tensor) or attention_mask.shape != text.shape[:2]:
            check_longest(width, _limit_now(model, width))
            return None
        real = attention_mask.bool()
        # A compiled, exported or traced pass cannot depend on where padding stands: it always
        # moves, which changes nothing where none stands on the left.
        if can_be_read(real):
            limit = _limit_now(model, width)
            if limit is not None and width > limit:
                # Rounded up to a multiple, a batch may be wider than any of its texts.
                width = int(real.sum(1).max())
                check_longest(width, limit)
            elif not bool((real[:, 1:] > real[:, :-1]).any()):  # nothing real behind padding
                return None
        return cls((~real).long().argsort(dim=1, stable=True), width)

    def move(self, values: dict[str, Any]) -> dict[str, Any]:
        """Move all tensors that have an entry per token, (B, L) or (B, L, ...)."""
        shape = self.order.shape
        return {
            name: self.pack(value)
            if isinstance(value, Tensor) and value.shape[:2] == shape
            else value
            for name, value in values.items()
        }

    def pack(self, columns: Tensor) -> Tensor:
        """Move one tensor, (B, L, ...) -> (B, M, ...)."""
        rows = torch.arange(len(self.order), device=self.order.device)[:, None]
        return columns[rows, self.order[:, : self.width]]

    def restore(self, output: Any) -> None:
        """Put the hidden states and attention maps of an encoder back, in place.

        Args:
            output: what the encoder returned, by name.

        Raises:
            ValueError: for attention maps that are not (B, heads, M, M).
        """
        if output.get("hidden_states") is not None:
            output["hidden_states"] = tuple(map(self.back, output["hidden_states"]))
        if output.get("attentions") is not None:
            maps = [self.back(layer, 2) for layer in output["attentions"]]
            output["attentions"] = tuple(self.back(layer, 3) for layer in maps)

    def back(self, packed: Tensor, axis: int = 1) -> Tensor:
        """Put an axis of M positions back into the caller's L columns; 0 where none was kept.

        Raises:
            ValueError: for an axis of another length.
        """
        if packed.shape[0] != len(self.order) or packed.shape[axis] != self.width:
            raise ValueError(
                f"The encoder returned hidden states or attentions of shape {tuple(packed.shape)}, "
                f"which have no entry for each of {self.width} tokens, so they cannot be put back "
                "where padding may stand on the left. Pad on the right, and do not compile the "
                "pass."
            )
        columns = packed.movedim(axis, 1)
        short = self.order.shape[1] - self.width
        if short:
            columns = F.pad(columns, (0, 0) * (columns.ndim - 2) + (0, short))
        rows = torch.arange(len(self.order), device=self.order.device)[:, None]
        return columns[rows, self.order.argsort(1)].movedim(1, axis)


def _limit_now(model: Any, width: int) -> int | None:
    """Return how many positions a model takes, asked anew only where the known ones are too few."""
    limit: int | None = model.known_limit
    # Somebody may have given it more since.
    return model.max_positions if limit is not None and width > limit else limit
