"""The law of one pass, conditioned exactly on a regular language.

A pass gives every position a distribution of its own, so that a text has their product. Given that
the text belongs to a language, it is a Markov chain over the states of the language's automaton:
one sweep from the right and one from the left give every marginal and joint draws without error.
All sums run over classes of tokens, see `pattern_automaton`, in logarithms, so that what is merely
unlikely never becomes impossible.

Letters: R rows, W places of a row, Q states, C classes, V vocabulary, n positions.
"""

from typing import NamedTuple

import torch
from torch import Tensor

# Numbers e^-300 and their products are far above the least of float64, those of e^-700 are not.
_SPREAD = 300.0


class Chains(NamedTuple):
    """The automata of some rows, padded to one size.

    Attributes:
        step: (R, Q, C) long, the state after a class; Q is nowhere.
        final: (R, Q) bool.
        start: (R,) long.
        inside: (R, W) bool, the places that a row has; they come first.
        open: (R, W) bool, places of which nothing is asked but that something fits.
        ended: (R, Q) bool, states behind the end of a text: whatever follows is no part of it.
    """

    step: Tensor
    final: Tensor
    start: Tensor
    inside: Tensor
    open: Tensor
    ended: Tensor

    def rows(self, index: Tensor) -> "Chains":
        """Pick some of the rows."""
        return Chains(*(part[index] for part in self))


def class_masses(scores: Tensor, class_of: Tensor, num_classes: int, expected: Tensor) -> Tensor:
    """Sum up the probability of every class.

    Args:
        scores: (n, V) float, logits with -inf at what cannot stand there.
        class_of: (V,) long.
        num_classes: C.
        expected: (n, C) bool, classes whose sum is wanted exactly however small it is.

    Returns:
        Logarithms of the sums, (n, C) float64.
    """
    level = scores.amax(-1, keepdim=True)
    level = level.where(level.isfinite(), 0)
    zeros = scores.new_zeros(len(scores), num_classes)
    sums = zeros.index_add(-1, class_of, (scores - level).exp_())
    # Far below the likeliest token nothing is left of a number: such classes are summed up anew,
    # from their own likeliest.
    info = torch.finfo(scores.dtype)
    if bool((expected & (sums < info.tiny / info.eps)).any()):
        level = class_maxima(scores, class_of, num_classes)
        level = level.where(level.isfinite(), 0)
        below = scores - level.index_select(-1, class_of)
        sums = zeros.index_add(-1, class_of, below.exp())
    return sums.log().double() + level.double()


def class_maxima(scores: Tensor, class_of: Tensor, num_classes: int) -> Tensor:
    """Return the highest score of every class, (n, V) -> (n, C); -inf where it has none."""
    nothing = scores.new_full((len(scores), num_classes), -torch.inf)
    return nothing.scatter_reduce(-1, class_of.expand(scores.shape), scores, "amax")


def from_the_right(masses: Tensor, chains: Chains, likeliest: bool = False) -> Tensor:
    """Return the log-mass of all ways to go on from each state, (R, W + 1, Q).

    Args:
        masses: (R, W, C) float64, log-masses of the classes, which sum up to 1 at a place; at
            open places 0 or -inf.
        chains: the automata.
        likeliest: of the likeliest way instead, with the scores of the likeliest token of each
            class for masses.
    """
    rows, width, _ = masses.shape
    ways = masses.new_empty(rows, width + 1, chains.final.shape[1])
    ways[:, width] = torch.zeros_like(ways[:, width]).masked_fill(~chains.final, -torch.inf)
    whole, some_open = chains.inside.all(0).tolist(), chains.open.any(0).tolist()
    near, some_ended = _factors(masses), bool(chains.ended.any())
    exact = near.exact.all(0).tolist()
    for place in reversed(range(width)):
        after = ways[:, place + 1]
        behind = _factors(after)
        if likeliest or some_open[place] or not (exact[place] and bool(behind.exact.all())):
            on = _behind(after, chains.step) + masses[:, place, None]
            total = on.amax(-1) if likeliest else on.logsumexp(-1)
        else:
            found = _looked_up(behind.values, chains.step, 0.0) @ near.values[:, place, :, None]
            total = found.squeeze(-1).log() + behind.level + near.level[:, place]
        if some_ended:
            total = total.masked_fill(chains.ended, 0.0)  # all of it, also where a text is sought
        if some_open[place]:
            # There no text is likelier than another: it only counts that there is one.
            best = on.amax(-1).masked_fill(chains.ended, 0.0)
            some = torch.zeros_like(best).masked_fill(best == -torch.inf, -torch.inf)
            total = torch.where(chains.open[:, place, None], some, total)
        # Rows end at different places; behind the last nothing happens.
        if not whole[place]:
            total = torch.where(chains.inside[:, place, None], total, after)
        ways[:, place] = total
    return ways


class _Factors(NamedTuple):
    """Logarithms (..., K) as numbers: `level + values.log()`.

    Attributes:
        level: (..., 1), the greatest of each.
        values: (..., K), in [0, 1].
        exact: (...) bool, whether none that is not 0 is so small that a product of two would lose
            digits.
    """

    level: Tensor
    values: Tensor
    exact: Tensor


def _factors(logs: Tensor) -> _Factors:
    level = logs.amax(-1, keepdim=True)
    level = level.where(level.isfinite(), 0)
    below = logs - level
    lowest = below.masked_fill(below == -torch.inf, 0.0).amin(-1)
    return _Factors(level, below.exp(), lowest > -_SPREAD)


def from_the_left(masses: Tensor, chains: Chains) -> Tensor:
    """Return the log-mass of all ways to come to each state, (R, W, Q): before each place.

    Args:
        masses: (R, W, C) float64.
        chains: the automata.
    """
    rows, width, _ = masses.shape
    states = chains.final.shape[1]
    came = masses.new_full((rows, width, states), -torch.inf)
    now = masses.new_full((rows, states + 1), -torch.inf)  # the last is nowhere
    now.scatter_(1, chains.start[:, None], 0.0)
    target = chains.step.flatten(1)
    near = _factors(masses)
    exact = near.exact.all(0).tolist()
    for place in range(width):
        # What stands at a place has no say in how one comes to it: of a known token, too, it can be
        # told how likely it is given all the others.
        came[:, place] = now[:, :-1]
        if place == width - 1:
            break
        here = _factors(now)
        if exact[place] and bool(here.exact.all()):
            paths = (here.values[:, :-1, None] * near.values[:, place, None]).flatten(1)
            behind = torch.zeros_like(now).scatter_add(1, target, paths).log()
            behind = behind + here.level + near.level[:, place]
        else:
            paths = (now[:, :-1, None] + masses[:, place, None]).flatten(1)
            # A logarithm of a sum over the paths that meet in a state, as `logsumexp` takes it.
            most = torch.full_like(now, -torch.inf).scatter_reduce(1, target, paths, "amax")
            most = most.where(most.isfinite(), 0)
            over = (paths - most.gather(1, target)).exp()
            behind = torch.zeros_like(now).scatter_add(1, target, over).log() + most
        behind[:, -1] = -torch.inf
        now = torch.where(chains.inside[:, place, None], behind, now)
    return came


def class_weights(came: Tensor, ways: Tensor, chains: Chains) -> Tensor:
    """Return how much more the language likes each class at each place, (R, W, C) in nats.

    Given that the text belongs to the language, and given all other known tokens, a token v stands
    at a place with a probability proportional to p(v) times the weight of its class.
    """
    weights = []
    for place in range(came.shape[1]):  # the whole (R, W, Q, C) may not fit into memory
        before, after = came[:, place], ways[:, place + 1]
        here, behind = _factors(before), _factors(after)
        if bool(here.exact.all() & behind.exact.all()):
            found = here.values[:, None] @ _looked_up(behind.values, chains.step, 0.0)
            weights.append(found.squeeze(1).log() + here.level + behind.level)
        else:
            through = before[:, :, None] + _behind(after, chains.step)
            weights.append(through.logsumexp(1))
    return torch.stack(weights, 1)


def draw_classes(
    masses: Tensor, ways: Tensor, chains: Chains, uniforms: Tensor
) -> tuple[Tensor, Tensor]:
    """Draw the classes of whole rows jointly, from the left.

    Args:
        masses: (R, W, C) float64.
        ways: from `from_the_right`.
        chains: the automata.
        uniforms: (R, W) float64 in [0, 1).

    Returns:
        Classes (R, W) long, and what their choice left of each uniform: (R, W) again uniform in
        [0, 1), to draw a token of the class with.
    """
    state, drawn, left = chains.start, [], []
    for place in range(masses.shape[1]):
        # A class by its own mass and by that of all ways to go on behind it: no draw leads astray.
        on = _behind_state(ways[:, place + 1], chains.step, state) + masses[:, place]
        cumulative = (on - on.amax(-1, keepdim=True)).exp().cumsum(-1)  # (R, C)
        total = cumulative[:, -1:].contiguous()
        target = uniforms[:, place, None] * total
        pick = torch.searchsorted(cumulative, target, right=True)
        pick = torch.minimum(pick, torch.searchsorted(cumulative, total))
        pick = pick.clamp_max(masses.shape[2] - 1)  # of a row of nan
        # Where a uniform fell between the bounds of its class is uniform again, and independent.
        upper = cumulative.gather(1, pick)
        lower = cumulative.gather(1, (pick - 1).clamp_min(0)).masked_fill(pick == 0, 0.0)
        rest = (target - lower) / (upper - lower)
        drawn.append(pick.squeeze(1))
        left.append(rest.squeeze(1).clamp(0.0, 1 - 2.0**-53))
        state = _next_state(chains, state, drawn[-1], place)
    return torch.stack(drawn, 1), torch.stack(left, 1)


def likeliest_classes(maxima: Tensor, ways: Tensor, chains: Chains) -> Tensor:
    """Return the classes (R, W) long of the likeliest text of each row.

    Args:
        maxima: (R, W, C) float64, the score of each class's likeliest token.
        ways: from `from_the_right` with `likeliest`.
        chains: the automata.
    """
    state, taken = chains.start, []
    for place in range(maxima.shape[1]):
        on = _behind_state(ways[:, place + 1], chains.step, state) + maxima[:, place]
        taken.append(on.argmax(-1))
        state = _next_state(chains, state, taken[-1], place)
    return torch.stack(taken, 1)


def log_mass(ways: Tensor, chains: Chains) -> Tensor:
    """Return the log-probability (R,) that a text of the product law belongs to the language."""
    return ways[:, 0].gather(1, chains.start[:, None]).squeeze(1)


def _behind(ways: Tensor, step: Tensor) -> Tensor:
    """Look up (R, Q) by the state after each class, (R, Q, C); nowhere there is no way."""
    return _looked_up(ways, step, -torch.inf)


def _looked_up(ways: Tensor, step: Tensor, nowhere: float) -> Tensor:
    """Do so with another number for nowhere."""
    rows, states, classes = step.shape
    found = torch.cat([ways, ways.new_full((rows, 1), nowhere)], 1).gather(1, step.flatten(1))
    return found.view(rows, states, classes)


def _behind_state(ways: Tensor, step: Tensor, state: Tensor) -> Tensor:
    """Look up (R, Q) by the state after each class from one state of each row, (R, C)."""
    nowhere = ways.new_full((len(ways), 1), -torch.inf)
    return torch.cat([ways, nowhere], 1).gather(1, step[torch.arange(len(state)), state])


def _next_state(chains: Chains, state: Tensor, classes: Tensor, place: int) -> Tensor:
    behind = chains.step[torch.arange(len(state)), state, classes]
    # Only of a text that belongs to no language does it lead nowhere; it has been refused before.
    behind = behind.clamp_max(chains.final.shape[1] - 1)
    return torch.where(chains.inside[:, place], behind, state)
