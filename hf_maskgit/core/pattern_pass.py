"""One pass of rows with patterns: what becomes of their logits, and how its tokens are drawn.

The scores of a pass become those of its law given that the text will match, so that every order,
pace and remasking goes by it; and the tokens of a pass are drawn jointly: a whole text is drawn, of
which the chosen positions are kept, so that the rest stays possible.

Letters: R rows, L length, W places of a span, P patterns, Q states, C classes, V vocabulary, N
positions that were asked for.
"""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from .finite import no_text
from .pattern_law import (
    class_masses,
    class_maxima,
    class_weights,
    draw_classes,
    from_the_left,
    from_the_right,
    likeliest_classes,
    log_mass,
)
from .pattern_rows import RowPatterns
from .position_logits import PositionLogits
from .sampler_scores import Distribution, likeliest

# Scores (n, V) of some positions, by which of the N they are, as a token is to be drawn from them.
Warp = Callable[[Tensor, Tensor], Tensor]


class Path(NamedTuple):
    """A joint draw.

    Attributes:
        classes: (N,) long, the class that the token of each position is of; -1 for any.
        uniforms: (N,) float64, to draw a token of it with.
        likeliest: (N,) bool, where the likeliest one is taken instead.
    """

    classes: Tensor
    uniforms: Tensor
    likeliest: Tensor


class _Drawing(NamedTuple):
    """What texts are drawn by: scores before and after filters, masses and ways of the classes.

    `cold` (R,) bool has rows of which the likeliest is taken; `weights` (R, W, C) is what filters
    looked at, None without any.
    """

    scores: Warp
    draws: Warp
    masses: Tensor
    ways: Tensor
    cold: Tensor
    weights: Tensor | None


class PatternLaw:
    """The law of one pass, given that every row will match its pattern.

    Args:
        patterns: of the R rows.
        logits: the denoiser's at the N positions asked for, as they are.
        text: (R, L) long.
        masked: (R, L) bool.
        positions: (R, L) bool, the N positions.

    Attributes:
        tentative: let rows be that can match no more, (R,) bool `hopeless`; they have no chances.
    """

    tentative = False
    hopeless: Tensor

    def __init__(
        self,
        patterns: RowPatterns,
        logits: PositionLogits,
        text: Tensor,
        masked: Tensor,
        positions: Tensor,
    ) -> None:
        self.logits, self.positions = logits, positions
        self._patterns = patterns
        where = positions.nonzero()
        self.rows = where[:, 0]  # (N,)
        in_span = patterns.span[positions]
        self._pattern = torch.where(in_span, patterns.pattern[self.rows], -1)  # (N,)
        # Masks with logits of their own, and where in (R, W) they stand.
        self._free = in_span & masked[positions]
        place = (where[:, 1] - patterns.first[self.rows]).clamp_min(0)
        self._slot = (self.rows * patterns.possible.shape[1] + place).where(in_span, 0)
        self._in_span = in_span
        self._chains = patterns.chains(masked & ~positions)
        self._known = patterns.known_masses(text, masked)

    def weigh(self, scores: Tensor, index: Tensor) -> Tensor:
        """Condition the scores (n, V) of some of the N positions."""
        return self._weighed(scores, index, self._at(self._weights, scores, index))

    def path(
        self, warp: Warp | None, filtering: Warp | None, cold: Tensor, uniforms: Tensor
    ) -> tuple[Path, Warp]:
        """Draw a whole text of every row.

        Args:
            warp: what the denoiser's scores become before a token is drawn from them; None for
                these themselves.
            filtering: takes -inf to some tokens of these scores, conditioned; None for none.
            cold: (R,) bool, rows of which the likeliest text is taken.
            uniforms: (R, L) float64 in [0, 1).

        Returns:
            The path, and the scores (n, V) of some positions from which its tokens are drawn.
        """
        scores, draws, masses, ways, cold, _ = self._drawing(warp, filtering, cold)
        spans = uniforms.gather(1, self._patterns.places).cpu()
        classes, left = torch.zeros_like(self._chains.inside, dtype=torch.long), spans
        if not bool(cold.all()):
            classes, left = draw_classes(masses, ways, self._chains, spans)
        if bool(cold.any()):
            classes = torch.where(cold[:, None], self._likeliest(scores), classes)
        # Known tokens, and rows without a pattern, are drawn as without one.
        device = uniforms.device
        cold, free = cold.to(device)[self.rows], self._free
        path = Path(
            classes.flatten().to(device)[self._slot].where(free, -1),
            left.flatten().to(device)[self._slot].where(free, uniforms[self.positions]),
            cold,
        )
        return path, lambda block, index: self._chosen(scores, draws, path, block, index)

    def chances(
        self, warps: tuple[Warp | None, Warp | None], own: Warp | None, cold: Tensor
    ) -> Warp:
        """Return what gives the probabilities (n, V) that `path` draws some places with.

        Args:
            warps: `warp` and `filtering` of `path`, by which all other places go.
            own: warps the scores of the place itself.
            cold: (R,) bool, see `path`.
        """
        warp, filtering = warps
        drawing = self._drawing(warp, filtering, cold)
        came = from_the_left(drawing.masses, self._chains)
        weights = class_weights(came, drawing.ways, self._chains)
        if bool(drawing.cold.any()):
            likely = self._likeliest(drawing.scores)[..., None]
            only = torch.full_like(weights, -torch.inf).scatter(2, likely, 0.0)
            weights = torch.where(drawing.cold[:, None, None], only, weights)
        weights = weights.masked_fill(self.hopeless[:, None, None], 0.0)
        plain: Warp = own or (lambda block, index: block)
        draws = plain
        if filtering is not None and drawing.weights is not None:
            draws = self._filtered(plain, filtering, drawing.weights)

        def chances(block: Tensor, index: Tensor) -> Tensor:
            rows = self.rows[index].cpu()
            certain = drawing.cold[rows].to(block.device)[:, None]
            found = plain(block, index)
            if filtering is not None:
                found = torch.where(certain, found, draws(block, index))
            weighed = self._weighed(found, index, self._at(weights, found, index))
            # Filters at a warmth of its own may keep nothing that the other places leave.
            empty = (weighed == -torch.inf).all(-1, keepdim=True)
            if bool(empty.any()):
                found = drawing.draws(block, index)
                others = self._weighed(found, index, self._at(weights, found, index))
                weighed = torch.where(empty, others, weighed)
            law = weighed.softmax(-1)
            if bool(certain.any()):
                best = torch.zeros_like(law).scatter(1, likeliest(weighed)[:, None], 1.0)
                law = torch.where(certain, best, law)
            return law.masked_fill(self.hopeless[rows].to(block.device)[:, None], 0.0)

        return chances

    def _drawing(self, warp: Warp | None, filtering: Warp | None, cold: Tensor) -> "_Drawing":
        """Find what texts are drawn by; the arguments are those of `path`."""
        scores: Warp = warp or (lambda block, index: block)
        if warp is None:
            masses, ways = self._masses, self._ways
        else:
            masses = self._masses_of(scores)
            ways = self._checked(from_the_right(masses, self._chains))
        cold = cold.cpu()
        if filtering is None:
            return _Drawing(scores, scores, masses, ways, cold, None)
        # What is likeliest given the pattern is kept: the likeliest tokens of the denoiser may
        # all be none that the pattern takes.
        came = from_the_left(masses, self._chains)
        weights = class_weights(came, ways, self._chains)
        weights = weights.masked_fill(self.hopeless[:, None, None], 0.0)
        draws = self._filtered(scores, filtering, weights)
        masses = self._masses_of(draws)
        ways = from_the_right(masses, self._chains)
        # Filters may leave no text at all: then it is the likeliest one.
        cold = cold | (log_mass(ways, self._chains) == -torch.inf)
        return _Drawing(scores, draws, masses, ways, cold, weights)

    def _likeliest(self, scores: Warp) -> Tensor:
        """Return the classes (R, W) of the likeliest text of each row."""
        maxima = self._masses_of(scores, likeliest=True)
        best = from_the_right(maxima, self._chains, likeliest=True)
        return likeliest_classes(maxima, best, self._chains)

    @property
    def log_mass(self) -> Tensor:
        """Log-probability that a text of the denoiser's own law matches, (R,) float64."""
        return log_mass(from_the_right(self._masses, self._chains), self._chains)

    @cached_property
    def _masses(self) -> Tensor:
        return self._masses_of(lambda block, index: block)

    def log_weights(self, chosen: Tensor, text: Tensor) -> Tensor:
        """Return what one pass adds to the importance weights of its rows, (R,) float64.

        Tokens x drawn from this law have the probability p(x) P(match | x) / P(match), p being the
        denoiser's: so much too often, or too rarely, for the denoiser restricted to the language.

        Args:
            chosen: (R, L) bool, the positions that the pass reveals.
            text: (R, L) long, with their tokens.
        """
        known = self._patterns.known_masses(text, ~chosen)
        revealed = chosen.gather(1, self._patterns.places).cpu() & self._chains.inside
        masses = torch.where(revealed[..., None], known, self._masses)
        before, after = self._ways, from_the_right(masses, self._chains)
        return log_mass(before, self._chains) - log_mass(after, self._chains)

    @cached_property
    def _ways(self) -> Tensor:
        return self._checked(from_the_right(self._masses, self._chains))

    @cached_property
    def _weights(self) -> Tensor:
        came = from_the_left(self._masses, self._chains)
        weights = class_weights(came, self._ways, self._chains)
        return weights.masked_fill(self.hopeless[:, None, None], 0.0)

    def _checked(self, ways: Tensor) -> Tensor:
        self.hopeless = log_mass(ways, self._chains) == -torch.inf
        if not self.tentative and bool(self.hopeless.any()):
            raise no_text(int(self.hopeless.nonzero()[0]))
        return ways

    def _masses_of(self, scores: Warp, likeliest: bool = False) -> Tensor:
        """Sum up the classes everywhere, (R, W, C) float64: at masks asked for by their scores."""
        classes = self._known.shape[2]
        expected = self._patterns.possible.flatten(0, 1).to(self._slot.device)

        def read(block: Distribution, which: slice) -> tuple[Tensor]:
            device = block.logits.device
            index = torch.arange(len(self._slot), device=device)[which]
            warped, slots = scores(block.logits, index), self._slot[index]
            if len(self._patterns.class_of) == 1:  # as it mostly is, and without a copy
                return (sums(warped, self._patterns.class_of[0], slots),)
            found = torch.zeros(len(warped), classes, dtype=torch.float64, device=device)
            for class_of, mine in self._by_pattern(index):
                found[mine] = sums(warped[mine], class_of, slots[mine])
            return (found,)

        def sums(warped: Tensor, class_of: Tensor, slots: Tensor) -> Tensor:
            wanted = expected[slots]
            wanted[:, 0] = False  # what stands in no pattern is never looked for
            masses = class_masses(warped, class_of, classes, wanted)
            # Of 1 in all, so that what stands behind an end of text comes to nothing in nats.
            total = masses.logsumexp(-1, keepdim=True)
            if likeliest:
                masses = class_maxima(warped, class_of, classes).double()
            return masses - total

        (found,) = self.logits.read(read)
        # Sums over states are small and many: they are taken where a step costs least.
        whole = self._known.clone()
        free = self._free.cpu()
        whole.flatten(0, 1)[self._slot.cpu()[free]] = found.cpu()[free]
        return whole

    def _by_pattern(self, index: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the classes (V,) of each pattern with which of some positions have it, (n,)."""
        pattern = self._pattern[index]
        for number in pattern.unique().tolist():
            if number >= 0:
                yield self._patterns.class_of[number], (pattern == number).nonzero().squeeze(1)

    def _at(self, weights: Tensor, scores: Tensor, index: Tensor) -> Tensor:
        """Pick the weights (n, C) of some positions from (R, W, C); 0 outside the spans."""
        found = weights.flatten(0, 1).to(scores.device, scores.dtype)[self._slot[index]]
        return found.masked_fill(~self._in_span[index, None], 0.0)

    def _weighed(self, scores: Tensor, index: Tensor, slots: Tensor) -> Tensor:
        """Add to the scores (n, V) of some positions what their classes weigh, (n, C)."""
        if len(self._patterns.class_of) == 1:
            return scores + slots.index_select(-1, self._patterns.class_of[0])
        weighed = scores.clone()
        for class_of, mine in self._by_pattern(index):
            weighed[mine] += slots[mine].index_select(-1, class_of)
        return weighed

    def _filtered(self, scores: Warp, filtering: Warp, weights: Tensor) -> Warp:
        def filtered(block: Tensor, index: Tensor) -> Tensor:
            warped = scores(block, index)
            weighed = self._weighed(warped, index, self._at(weights, warped, index))
            kept = filtering(weighed, index)
            return warped.masked_fill(kept == -torch.inf, -torch.inf)

        return filtered

    def _chosen(
        self, scores: Warp, draws: Warp, path: Path, block: Tensor, index: Tensor
    ) -> Tensor:
        """Return the scores (n, V) of the tokens of the path's classes."""
        cold = path.likeliest[index, None]
        if bool(cold.all()):
            found = scores(block, index)
        elif bool(cold.any()):
            found = torch.where(cold, scores(block, index), draws(block, index))
        else:
            found = draws(block, index)
        # Of a class, its tokens by their own scores.
        number = path.classes[index, None]
        classes = torch.arange(self._known.shape[2], device=number.device)
        others = (classes != number) & (number >= 0)  # (n, C)
        return self._weighed(found, index, found.new_zeros(()).where(~others, -torch.inf))
