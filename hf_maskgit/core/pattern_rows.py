"""Rows with patterns in the middle of decoding: which places they speak of, and what stands there.

Letters: R rows, L length, W places of a span, P patterns, Q states, C classes, V vocabulary.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from .class_sums import Grouping
from .pattern_law import told_apart
from .pattern_moves import Chains, Moves
from .pattern_reading import Readings
from .pattern_sweeps import Sweeps, reach


class Outlook(NamedTuple):
    """What is known of rows with patterns before the denoiser is asked.

    Attributes:
        chains: their automata, and which places are open.
        known: (R, W, C) float64, certainty at known tokens, elsewhere 0 where possible.
        reached: what can be reached.
        apart: (R, L) bool, masks at which it matters what the denoiser says.
        plain: (R, L) bool, masks whose tokens the patterns leave as likely as they are.
        readings: what it said of them in this pass.
    """

    chains: Chains
    known: Tensor
    reached: Sweeps
    apart: Tensor
    plain: Tensor
    readings: Readings


@dataclass(frozen=True)
class RowPatterns:
    """What the rows of a decoding must look like.

    Attributes:
        pattern: (R,) long, which pattern a row has; -1 for none.
        span: (R, L) bool, the places that it speaks of: from the first mask to the last.
        first: (R,) long, the position of the first of them.
        moves: of the P patterns, and of none; on the CPU.
        final, start, ended: the automata of the rows, see `Chains`; on the CPU.
        possible: (R, W, C) bool, classes of which something may be emitted; on the CPU.
        class_of: (P, V) long, the class of each token.
        groupings: the same of each pattern, as sums are taken.
    """

    pattern: Tensor
    span: Tensor
    first: Tensor
    moves: Moves
    final: Tensor
    start: Tensor
    ended: Tensor
    possible: Tensor
    class_of: Tensor
    groupings: tuple[Grouping, ...]

    def rows(self, index: Tensor) -> "RowPatterns":
        """Pick some of the rows."""
        names = "pattern span first final start ended possible".split()
        picked = {n: getattr(self, n)[index.to(getattr(self, n).device)] for n in names}
        return replace(self, **picked)

    def outlook(self, text: Tensor, masked: Tensor, open_masks: Tensor) -> Outlook:
        """Tell what can be, and where it matters how likely it is.

        Args:
            text: (R, L) long.
            masked: (R, L) bool.
            open_masks: (R, L) bool, those of later blocks.
        """
        chains, known = self.chains(open_masks & masked), self.known_masses(text, masked)
        reached = reach(known, chains)
        found = torch.stack(told_apart(reached, known, chains)).to(self.span.device)
        apart, plain = torch.zeros_like(masked).repeat(2, 1, 1)
        for where, is_so in zip((apart, plain), found, strict=True):
            rows, slots = is_so.nonzero(as_tuple=True)
            where[rows, self.places[rows, slots]] = True
        return Outlook(chains, known, reached, apart & masked, plain & masked, Readings())

    @property
    def places(self) -> Tensor:
        """Position of each place in its row, (R, W) long; 0 behind the span."""
        place = torch.arange(self.possible.shape[1], device=self.span.device)
        return torch.where(self._inside, self.first[:, None] + place, 0)

    def chains(self, open_places: Tensor) -> Chains:
        """Return the automata, with the places (R, L) bool that are open in this pass."""
        inside = self._inside
        is_open = open_places.gather(1, self.places) & inside
        # The last automaton is that of rows without a pattern.
        which = self.pattern.cpu() % self.moves.source.shape[0]
        own = self.final, self.start, self.ended
        return Chains(self.moves, which, *own, inside.cpu(), is_open.cpu())

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
