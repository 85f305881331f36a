"""Rows of a pass that are one and the same text: one of them is read, and gives what all take.

So are the texts of one prompt before anything is drawn, and all texts that are written from
nothing. No position learns of other rows, so nothing changes by it.

Letters: R rows, U different ones, L length, N positions that are asked for, M of the rows read.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class EqualRows(NamedTuple):
    """Which rows are equal.

    Attributes:
        read: (U,) long, one row for each different text.
        text: (R,) long, which of these each row is.
    """

    read: Tensor
    text: Tensor

    @classmethod
    def of(cls, *parts: Tensor) -> "EqualRows | None":
        """Compare rows by all that is known of them, (R, ..) long or bool each.

        Returns:
            None where no two are equal.
        """
        whole = torch.cat([part.flatten(1).long() for part in parts], 1)
        different, text = whole.unique(dim=0, return_inverse=True)
        if len(different) == len(whole):
            return None
        number = torch.arange(len(whole), device=whole.device)
        read = torch.zeros_like(number[: len(different)])
        return cls(read.scatter_reduce(0, text, number, "amin", include_self=False), text)

    def asked(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Say what is asked of the rows that are read, where (R, L) bool is asked of all.

        Returns:
            (U, L) bool, M positions; and which of the M each of the N is, (N,) long, both in
            row-major order.
        """
        asked = torch.zeros_like(positions[self.read], dtype=torch.long)
        asked = asked.index_add_(0, self.text, positions.long()) > 0
        number = (asked.flatten().cumsum(0) - 1).view_as(asked)
        return asked, number[self.text][positions]
