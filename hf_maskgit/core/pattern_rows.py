"""Rows with patterns in the middle of decoding: which places they speak of, and what stands there.

Letters: R rows, L length, W places of a span, P patterns, Q states, C classes, V vocabulary.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .pattern_law import Chains


@dataclass(frozen=True)
class RowPatterns:
    """What the rows of a decoding must look like.

    Attributes:
        pattern: (R,) long, which pattern a row has; -1 for none.
        span: (R, L) bool, the places that it speaks of: from the first mask to the last.
        first: (R,) long, the position of the first of them.
        step, final, start, ended: the automata of the rows, see `Chains`; on the CPU.
        possible: (R, W, C) bool, classes of which something may be emitted; on the CPU.
        class_of: (P, V) long, the class of each token.
    """

    pattern: Tensor
    span: Tensor
    first: Tensor
    step: Tensor
    final: Tensor
    start: Tensor
    ended: Tensor
    possible: Tensor
    class_of: Tensor

    def rows(self, index: Tensor) -> "RowPatterns":
        """Pick some of the rows."""
        names = "pattern span first step final start ended possible".split()
        picked = {n: getattr(self, n)[index.to(getattr(self, n).device)] for n in names}
        return replace(self, **picked)

    def asked(self, positions: Tensor, masked: Tensor, up_to: Tensor) -> Tensor:
        """Add the masks whose logits the law of a pass needs, to positions (R, L) bool.

        Args:
            positions: what is asked for anyway.
            masked: (R, L) bool.
            up_to: (R, L) bool, places of the block that is worked on and of those before it; masks
                behind them stay open.
        """
        busy = positions.any(1, keepdim=True)  # a row that nothing is asked of costs nothing
        return positions | (masked & self.span & up_to & busy)

    @property
    def places(self) -> Tensor:
        """Position of each place in its row, (R, W) long; 0 behind the span."""
        place = torch.arange(self.possible.shape[1], device=self.span.device)
        return torch.where(self._inside, self.first[:, None] + place, 0)

    def chains(self, open_places: Tensor) -> Chains:
        """Return the automata, with the places (R, L) bool that are open in this pass."""
        inside = self._inside
        is_open = open_places.gather(1, self.places) & inside
        parts = self.step, self.final, self.start, inside.cpu(), is_open.cpu(), self.ended
        return Chains(*parts)

    @property
    def _inside(self) -> Tensor:
        place = torch.arange(self.possible.shape[1], device=self.span.device)
        return place < self.span.sum(1, keepdim=True)

    def known_masses(self, text: Tensor, masked: Tensor) -> Tensor:
        """Return (R, W, C) float64: certainty at known tokens, elsewhere 0 where possible."""
        places = self.places
        tokens = text.gather(1, places)
        of_row = self.class_of[self.pattern.clamp_min(0)]
        known = of_row.gather(1, tokens).cpu()[..., None]  # the class of what stands there
        possible = self.possible
        there = torch.zeros_like(possible).scatter(2, known, True)
        holds = torch.where(masked.gather(1, places).cpu()[..., None], possible, there)
        return torch.zeros(holds.shape, dtype=torch.float64).masked_fill(~holds, -torch.inf)
