"""The law of one pass, conditioned exactly on a regular language.

A pass gives every position a distribution of its own, so that a text has their product. Given that
the text belongs to a language, it is a Markov chain over the states of the language's automaton:
one sweep from the right and one from the left give every marginal and joint draws without error.
All sums run over classes of tokens, see `pattern_automaton`, and over moves, see `pattern_moves`.

Letters: R rows, W places of a row, Q states, C classes, P moves, U sets of classes.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from .pattern_moves import Chains
from .pattern_sweeps import AT_ONCE, Sweeps, by_row


def _parts(chains: Chains, width: int, numbers: int) -> Iterator[slice]:
    """Cut the places into parts, of which so many numbers for each fit into memory."""
    size = max(1, AT_ONCE // max(1, len(chains.which) * numbers))
    for first in range(0, width, size):
        yield slice(first, min(first + size, width))


def _moved(of: Tensor, moves: Tensor) -> Tensor:
    """Look up (R, w, S) by moves (R, P), (R, w, P)."""
    return of.gather(2, moves[:, None].expand(-1, of.shape[1], -1))


def _through_sets(found: Sweeps, chains: Chains) -> Tensor:
    """Put together all texts that go through each set (R, W, U), but for its own mass."""
    assert found.came is not None
    rows, width, sets = found.sets.shape
    bundles = chains.bundles
    if bundles is not None and found.kind.one == 1:
        came, ways = found.came.permute(1, 2, 0), found.ways.permute(1, 2, 0)
        places = [bundles.through(came[place], ways[place + 1], sets) for place in range(width)]
        return torch.stack(places).permute(2, 0, 1)
    source, target, sort = (part[chains.which] for part in chains.moves[:3])
    found_sets = []
    for part in _parts(chains, width, source.shape[1]):
        behind = found.ways[:, 1:][:, part]
        through = found.kind.along(_moved(found.came[:, part], source), _moved(behind, target))
        flat = through.flatten(0, 1)
        kinds = sort[:, None].expand_as(through).flatten(0, 1)
        of_sets = found.kind.meet(flat.new_empty(len(flat), sets), kinds, flat)
        found_sets.append(of_sets.unflatten(0, (rows, -1)))
    return torch.cat(found_sets, 1)


def class_weights(found: Sweeps, chains: Chains) -> Tensor:
    """Return how much more the language likes each class at each place, (R, W, C) in nats.

    Given that the text belongs to the language, and given all other known tokens, a token v stands
    at a place with a probability proportional to p(v) times the weight of its class.
    """
    of_sets = _through_sets(found, chains)
    _, before, after = found.levels
    if found.kind.one == 1:
        by_class = by_row(chains, lambda own, rows: of_sets[rows] @ own.double())
        return by_class.log() + (before + after[:, 1:])[..., None]
    nothing = torch.tensor(-torch.inf, dtype=of_sets.dtype)

    def of(own: Tensor, rows: Tensor | slice) -> Tensor:
        parts = of_sets[rows].split(1, 1)
        return torch.cat([p[..., None].where(own, nothing).logsumexp(-2) for p in parts], 1)

    return by_row(chains, of)


def told_apart(found: Sweeps, masses: Tensor, chains: Chains) -> tuple[Tensor, Tensor]:
    """Tell where it matters to the law what the denoiser says, given what can be.

    Where all classes that may stand at a place lead along the same moves, how likely they are is a
    factor of every text, and has no say in which it is, but for the token of the place itself.

    Args:
        found: from `reach`.
        masses: (R, W, C), 0 for what may stand at a place, else -inf.
        chains: the automata.

    Returns:
        Where it matters, (R, W) bool; and where no token that may stand there is likelier for the
        law than by itself, (R, W) bool.
    """
    # A set of classes that no text can have here tells nothing apart.
    some = ((_through_sets(found, chains) > 0) & (found.sets > 0)).double()
    most = some.sum(-1, keepdim=True)
    count = by_row(chains, lambda own, rows: some[rows] @ own.double())
    possible = masses > -torch.inf
    several = (count > 0) & (count < most) & possible
    apart = several.any(-1) | _may_have_ended(found, chains)
    plain = ~apart & ~((count == 0) & possible).any(-1)
    asked = chains.inside & ~chains.open
    return apart & asked, plain & asked


def _may_have_ended(found: Sweeps, chains: Chains) -> Tensor:
    """Tell where some texts are over and others are not, (R, W) bool."""
    if not bool(chains.ended.any()):
        return torch.zeros(found.sets.shape[:2], dtype=torch.bool)
    assert found.came is not None
    # States that some text goes through: behind the end of one nothing has a likelihood.
    used = (found.came > 0) & (found.ways[:, :-1] > 0)
    ended = torch.nn.functional.pad(chains.ended, (0, 1))[:, None]
    return (used & ended).any(-1) & (used & ~ended).any(-1)


def draw_sets(found: Sweeps, chains: Chains, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Draw the moves of whole rows jointly, from the left.

    Args:
        found: from `sweeps`, of the right at least.
        chains: the automata.
        uniforms: (R, W) float64 in [0, 1).

    Returns:
        Sets of classes (R, W) long, one of which stands at each place, and what the choice left of
        each uniform: (R, W) again uniform in [0, 1), to draw a token of the set with.
    """
    return _walked(found, chains, uniforms)


def likeliest_sets(found: Sweeps, chains: Chains) -> Tensor:
    """Return the sets (R, W) long of the likeliest text of each row, from `likeliest_sweep`."""
    return _walked(found, chains, None)[0]


def _walked(found: Sweeps, chains: Chains, uniforms: Tensor | None) -> tuple[Tensor, Tensor]:
    """Walk along the moves from the start, drawn or the likeliest.

    Each goes by its own mass and by that of all ways to go on behind it: none leads astray.
    """
    leaving, which = chains.moves.leaving, chains.which
    state, last = chains.start, leaving.shape[1] - 1
    sets, left = [], []
    for place in range(found.sets.shape[1]):
        moves = leaving[which, state]  # (R, D)
        target, sort = (part[which[:, None], moves] for part in chains.moves[1:3])
        along = found.sets[:, place].gather(1, sort)
        on = found.kind.along(along, found.ways[:, place + 1].gather(1, target))
        # Ways to go on hold the likeliest one there already, so the likeliest move is on it.
        if uniforms is None:
            pick = on.argmax(-1, keepdim=True)
        else:
            # Logarithms, of which differences alone count here: no best one is too unlikely.
            if found.kind.one == 0:
                best = on.amax(-1, keepdim=True)
                on = (on - best.where(best.isfinite(), 0)).exp()
            sums = on.cumsum(-1)
            pick = _picked(sums, uniforms[:, place, None])[:, None]
            left.append(_rest(sums, pick, uniforms[:, place, None]).squeeze(1))
        sets.append(sort.gather(1, pick).squeeze(1))
        behind = target.gather(1, pick).squeeze(1)
        # The last one is for a text of no language; it has been refused.
        state = torch.where(chains.inside[:, place], behind.clamp_max(last), state)
    return torch.stack(sets, 1), torch.stack(left, 1) if left else torch.zeros(0)


def _picked(sums: Tensor, uniforms: Tensor) -> Tensor:
    """Find where uniforms fall among running sums (..., D): never on what adds nothing."""
    total = sums[..., -1:]
    pick = (sums <= uniforms * total).sum(-1)
    return torch.minimum(pick, (sums < total).sum(-1))


def _rest(sums: Tensor, pick: Tensor, uniforms: Tensor) -> Tensor:
    """Tell where uniforms fell between the bounds of what they hit: uniform again, independent."""
    upper = sums.gather(-1, pick)
    lower = sums.gather(-1, (pick - 1).clamp_min(0)).masked_fill(pick == 0, 0.0)
    rest = (uniforms * sums[..., -1:] - lower) / (upper - lower)
    return rest.nan_to_num(0.5).clamp(0.0, 1 - 2.0**-53)  # of a row that is no text
