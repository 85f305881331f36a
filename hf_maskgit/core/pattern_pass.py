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
from .pattern_law import class_weights, draw_sets, likeliest_sets
from .pattern_reading import OfClasses, Warp, read_classes
from .pattern_rows import Outlook, RowPatterns
from .pattern_sweeps import Sweeps, likeliest_sweep, log_mass, sweeps
from .position_logits import PositionLogits
from .sampler_scores import Distribution, likeliest


class Path(NamedTuple):
    """A joint draw.

    Attributes:
        classes: (N, C) bool, the classes that the token of each position may be of.
        uniforms: (N,) float64, to draw a token of them with.
        likeliest: (N,) bool, where the likeliest one is taken instead.
    """

    classes: Tensor
    uniforms: Tensor
    likeliest: Tensor


class _Drawing(NamedTuple):
    """What texts are drawn by: scores before and after filters, and the sweeps of these.

    `cold` (R,) bool has rows of which the likeliest is taken; `weights` (R, W, C) is what filters
    looked at, None without any.
    """

    scores: Warp
    draws: Warp
    found: Sweeps
    cold: Tensor
    weights: Tensor | None


class Conditioned(Distribution):
    """Conditional scores of n positions, weighed only where all of them are asked for."""

    def __init__(self, scores: Callable[[], Tensor], law: "PatternLaw", index: Tensor) -> None:
        self._scores, self._law, self._index = scores, law, index

    def __len__(self) -> int:
        """Return n."""
        return len(self._index)

    @cached_property
    def highest(self) -> Tensor:
        """Highest score of each, (n,): of its classes, whichever token has it."""
        return self._law.tops[self._index, 0]

    @cached_property
    def top(self) -> Tensor:
        """Highest probability of each, (n,), likewise."""
        return self._law.tops[self._index, 1]

    @cached_property
    def given(self) -> Tensor:
        """Scores (n, V) as they were before."""
        return self._scores()

    @cached_property
    def logits(self) -> Tensor:  # type: ignore[override]
        """Conditional scores (n, V)."""
        return self._law.weigh(self.given, self._index)

    def of_tokens(self, tokens: Tensor) -> Tensor:
        """Conditional scores of one token each, (n,)."""
        return self._law.weigh_tokens(self.given, tokens, self._index)


class PatternLaw:
    """The law of one pass, given that every row will match its pattern.

    Args:
        patterns: of the R rows.
        logits: the denoiser's at the N positions asked for, as they are.
        positions: (R, L) bool, the N positions.
        masked: (R, L) bool.
        outlook: of the rows; all masks that it tells apart are among the positions.
        temperature: (N,) float64, what tokens are drawn at, where nothing else warps the scores;
            None for 1.

    Attributes:
        tentative: let rows be that can match no more, (R,) bool `hopeless`; they have no chances.
    """

    tentative = False
    hopeless: Tensor

    def __init__(
        self,
        patterns: RowPatterns,
        logits: PositionLogits,
        positions: Tensor,
        masked: Tensor,
        outlook: Outlook,
        temperature: Tensor | None = None,
    ) -> None:
        self.logits, self.positions = logits, positions
        self._patterns, self._readings = patterns, outlook.readings
        self._number = positions.flatten().nonzero().squeeze(1)  # (N,) of each in (R, L)
        where = positions.nonzero()
        self.rows = where[:, 0]  # (N,)
        in_span = patterns.span[positions]
        self._pattern = torch.where(in_span, patterns.pattern[self.rows], -1)  # (N,)
        # Masks with logits of their own, and where in (R, W) they stand.
        self._free = in_span & masked[positions]
        place = (where[:, 1] - patterns.first[self.rows]).clamp_min(0)
        self._slot = (self.rows * patterns.possible.shape[1] + place).where(in_span, 0)
        self._in_span = in_span
        self._chains, self._known = outlook.chains, outlook.known
        # Of these, which classes weigh the same; none elsewhere.
        plain = (outlook.known == 0).flatten(0, 1).to(where.device)[self._slot]
        self._plain = plain & outlook.plain[positions][:, None]
        self._reached, self._apart = outlook.reached, bool(outlook.apart.any())
        # How likely the tokens of the others are is a factor of every text, at any temperature.
        matters = outlook.apart[positions]
        self._temperature = None if temperature is None else temperature.where(matters, 1.0)

    def weigh(self, scores: Tensor, index: Tensor) -> Tensor:
        """Condition the scores (n, V) of some of the N positions."""
        return self._weighed(scores, index, self._at(self._weights, scores, index))

    def weigh_tokens(self, scores: Tensor, tokens: Tensor, index: Tensor) -> Tensor:
        """Do so for one token (n,) of each, (n,)."""
        slots = self._at(self._weights, scores, index)
        number = self._pattern[index].clamp_min(0)
        classes = self._patterns.class_of[number, tokens]
        return (scores.gather(1, tokens[:, None]) + slots.gather(1, classes[:, None])).squeeze(1)

    def distribution(self, scores: Callable[[], Tensor], index: Tensor) -> Distribution:
        """Return the conditional distributions of some of the N positions, see `Condition`."""
        return Conditioned(scores, self, index)

    @cached_property
    def tops(self) -> Tensor:
        """The highest conditional score of each position and its probability, (N, 2)."""
        of, everyone = self._of_classes, torch.arange(len(self.rows), device=self.rows.device)
        weights = self._at(self._weights, of.masses, everyone)
        highest = (of.maxima.double() + weights).amax(-1)
        total = (of.masses + weights).logsumexp(-1) + of.level.squeeze(-1)
        return torch.stack([highest, (highest - total).exp()], -1).to(of.maxima.dtype)

    def path(
        self, warp: Warp | None, filtering: Warp | None, cold: Tensor, uniforms: Tensor
    ) -> tuple[Path, Warp]:
        """Draw a whole text of every row.

        Args:
            warp: what the denoiser's scores become before a token is drawn from them; None for
                these themselves. With a `temperature`, it is no more than that.
            filtering: takes -inf to some tokens of these scores, conditioned; None for none.
            cold: (R,) bool, rows of which the likeliest text is taken.
            uniforms: (R, L) float64 in [0, 1).

        Returns:
            The path, and the scores (n, V) of some positions from which its tokens are drawn.
        """
        scores, draws, found, cold, _ = self._drawing(warp, filtering, cold)
        spans = uniforms.gather(1, self._patterns.places).cpu()
        sets, left = torch.zeros_like(self._chains.inside, dtype=torch.long), spans
        if not bool(cold.all()):
            sets, left = draw_sets(found, self._chains, spans)
        if bool(cold.any()):
            sets = torch.where(cold[:, None], self._likeliest(scores), sets)
        # Known tokens, and rows without a pattern, are drawn as without one.
        device = uniforms.device
        cold, free = cold.to(device)[self.rows], self._free
        path = Path(
            self._classes_in(sets).flatten(0, 1).to(device)[self._slot] | ~free[:, None],
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
        drawing = self._drawing(warp, filtering, cold, both=True)
        weights = class_weights(drawing.found, self._chains)
        if bool(drawing.cold.any()):
            likely = self._classes_in(self._likeliest(drawing.scores))
            only = torch.zeros_like(weights).masked_fill(~likely, -torch.inf)
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

    def _drawing(
        self, warp: Warp | None, filtering: Warp | None, cold: Tensor, both: bool = False
    ) -> "_Drawing":
        """Find what texts are drawn by, as for `path`; `both` sweeps from the left too."""
        scores: Warp = warp or (lambda block, index: block)
        own = self._temperature is not None  # which changes nothing that is settled
        if warp is None or (own and self._settled):
            found = self._found
        elif own:
            found = self._swept(self._of_classes.warm, both or filtering is not None)
        else:
            found = self._swept(self._read(scores).masses)
        cold = cold.cpu()
        if filtering is None:
            return _Drawing(scores, scores, found, cold, None)
        # What is likeliest given the pattern is kept: the likeliest tokens of the denoiser may
        # all be none that the pattern takes.
        weights = class_weights(found, self._chains)
        weights = weights.masked_fill(self.hopeless[:, None, None], 0.0)
        draws = self._filtered(scores, filtering, weights)
        found = sweeps(self._everywhere(self._read(draws).masses), self._chains)
        # Filters may leave no text at all: then it is the likeliest one.
        cold = cold | (log_mass(found, self._chains) == -torch.inf)
        return _Drawing(scores, draws, found, cold, weights)

    def _likeliest(self, scores: Warp) -> Tensor:
        """Return the sets (R, W) of the likeliest text of each row."""
        of = self._read(scores)
        best = likeliest_sweep(self._everywhere(of.maxima.double() - of.level), self._chains)
        return likeliest_sets(best, self._chains)

    def _classes_in(self, sets: Tensor) -> Tensor:
        """Return the classes (R, W, C) bool of sets (R, W)."""
        return self._chains.moves.takes[self._chains.which[:, None], sets]

    @property
    def log_mass(self) -> Tensor:
        """Log-probability that a text of the denoiser's own law matches, (R,) float64."""
        return log_mass(sweeps(self._masses, self._chains, both=False), self._chains)

    def log_weights(self, chosen: Tensor, text: Tensor) -> Tensor:
        """Return what one pass adds to the importance weights of its rows, (R,) float64.

        Tokens x drawn from this law have the probability p(x) P(match | x) / P(match), p being the
        denoiser's: so much too often, or too rarely, for the denoiser restricted to the language.
        What it says of places that were not asked for is a factor of both.

        Args:
            chosen: (R, L) bool, the positions that the pass reveals.
            text: (R, L) long, with their tokens.
        """
        known = self._patterns.known_masses(text, ~chosen)
        revealed = chosen.gather(1, self._patterns.places).cpu() & self._chains.inside
        masses = torch.where(revealed[..., None], known, self._masses)
        after = sweeps(masses, self._chains, both=False)
        return self.log_mass - log_mass(after, self._chains)

    @cached_property
    def _of_classes(self) -> "OfClasses":
        temperature, everything = self._temperature, self.logits

        def read(new: Tensor) -> OfClasses:
            logits = everything if bool(new.all()) else everything.only(new)
            warmth = None if temperature is None else temperature[new]
            of = self._patterns.groupings
            return read_classes(logits, of, self._pattern[new], self._plain[new], None, warmth)

        return self._readings.of(self._number, temperature is not None, read)

    @cached_property
    def _masses(self) -> Tensor:
        return self._everywhere(self._of_classes.masses)

    @cached_property
    def _settled(self) -> bool:
        """Whether every text that can be goes through the same states."""
        if self._apart:
            return False
        possible = self._known.flatten(0, 1)[self._slot.cpu()] == 0
        nothing = (self._of_classes.masses == -torch.inf).cpu() & self._free.cpu()[:, None]
        return not bool((possible & nothing).any())

    @cached_property
    def _found(self) -> Sweeps:
        if not self._settled:
            return self._swept(self._of_classes.masses)
        ways = self._reached.ways[:, 0].gather(1, self._chains.start[:, None])
        self._mark(ways.squeeze(1) == 0)
        return self._reached

    @cached_property
    def _weights(self) -> Tensor:
        found = self._found
        weights = class_weights(found, self._chains)
        return weights.masked_fill(self.hopeless[:, None, None], 0.0)

    def _swept(self, masses: Tensor, both: bool = True) -> Sweeps:
        """Sweep over masses (N, C), and refuse rows that can match no more."""
        found = sweeps(self._everywhere(masses), self._chains, both)
        self._mark(log_mass(found, self._chains) == -torch.inf)
        return found

    def _mark(self, hopeless: Tensor) -> None:
        self.hopeless = hopeless
        if not self.tentative and bool(hopeless.any()):
            raise no_text(int(hopeless.nonzero()[0]))

    def _read(self, scores: Warp) -> OfClasses:
        of = self._patterns.groupings
        return read_classes(self.logits, of, self._pattern, self._plain, scores)

    def _everywhere(self, of: Tensor) -> Tensor:
        """Put (N, C) into (R, W, C) at masks asked for, beside what is known of the others."""
        # Sums over states are small and many: they are taken where a step costs least.
        whole, free = self._known.clone(), self._free.cpu()
        whole.flatten(0, 1)[self._slot.cpu()[free]] = of.double().cpu()[free]
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
            return slots.index_select(-1, self._patterns.class_of[0]).add_(scores)
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
        # Of the classes that may stand there, their tokens by their own scores.
        others = found.new_zeros(()).where(path.classes[index], -torch.inf)
        return self._weighed(found, index, others)
