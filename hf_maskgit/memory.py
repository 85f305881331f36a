"""What self-conditioning remembers of each row between the passes of one decoding."""

import torch
from torch import Tensor


class Memory:
    """Keeps the last hidden states of the pass before, row by row.

    Args:
        real: (B, L) bool, the rows of the decoding.
    """

    def __init__(self, real: Tensor) -> None:
        self._has = torch.zeros(len(real), dtype=torch.bool, device=real.device)
        self._states: Tensor | None = None

    def recall(self, rows: Tensor) -> dict[str, Tensor]:
        """Return what `forward` wants to know of these rows, (R,) long, about their last pass."""
        if self._states is None:
            return {}
        return {
            "previous_hidden_states": self._states[rows],
            "has_previous": self._has[rows],
        }

    def keep(self, rows: Tensor, states: Tensor) -> None:
        """Remember the states (R, L, H) of this pass."""
        if self._states is None:
            self._states = states.new_zeros(len(self._has), *states.shape[1:])
        self._states[rows] = states
        self._has[rows] = True
