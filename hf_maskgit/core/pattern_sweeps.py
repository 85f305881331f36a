"""Sweeps over the texts of a regular language: all ways to come to a state, and to go on from it.

A sweep is the same for sums, for the likeliest text and for what can be reached at all; only what
is done along a move, and where moves meet, differs. Sums are taken of numbers, scaled from place to
place; where one is so small that digits would be lost, all are taken of logarithms instead, so that
what is merely unlikely never becomes impossible.

Letters: R rows, W places of a row, Q states, C classes, P moves, U sets of classes.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .pattern_bundles import Bundles
from .pattern_moves import Chains

# A product of two numbers of e^-300 is far above the least of float64, one of e^-700 is not.
_SPREAD = 300.0
AT_ONCE = 2**21  # numbers of a part, so that not everything need fit into memory


class _Kind(NamedTuple):
    """What a sweep carries.

    Attributes:
        nothing: where no way leads.
        one: at the end that it begins from.
        along: what a way and a move along it make.
        meet: of (R, S), of targets (R, P) and what comes along (R, P): what comes to each, (R, S).
    """

    nothing: float
    one: float
    along: Callable[[Tensor, Tensor], Tensor]
    meet: Callable[[Tensor, Tensor, Tensor], Tensor]


def _log_sum(like: Tensor, target: Tensor, paths: Tensor) -> Tensor:
    most = _most(like, target, paths)
    most = most.where(most.isfinite(), 0)
    over = (paths - most.gather(1, target)).exp()
    return torch.zeros_like(like).scatter_add_(1, target, over).log() + most


def _most(like: Tensor, target: Tensor, paths: Tensor) -> Tensor:
    return torch.full_like(like, -torch.inf).scatter_reduce_(1, target, paths, "amax")


def _sum(like: Tensor, target: Tensor, paths: Tensor) -> Tensor:
    return torch.zeros_like(like).scatter_add_(1, target, paths)


_NUMBERS = _Kind(0.0, 1.0, torch.mul, _sum)
_LOGS = _Kind(-torch.inf, 0.0, torch.add, _log_sum)
_BEST = _Kind(-torch.inf, 0.0, torch.add, _most)
_REACH = _Kind(0.0, 1.0, torch.mul, lambda *given: _sum(*given).clamp_max_(1.0))


class Sweeps(NamedTuple):
    """What two sweeps found, as numbers or as logarithms.

    Attributes:
        kind: of sweep.
        sets: (R, W, U), of every set of classes at every place.
        came: (R, W, Q + 1), of all ways that come to a state before a place; None was not asked.
        ways: (R, W + 1, Q + 1), of all ways to go on from a state; the last state is nowhere.
        levels: (R, W), (R, W) and (R, W + 1), by whose exponentials these three are multiplied.
    """

    kind: _Kind
    sets: Tensor
    came: Tensor | None
    ways: Tensor
    levels: tuple[Tensor, Tensor, Tensor]

    @property
    def scaled(self) -> bool:
        """Whether they are numbers, of which `levels` tell the size."""
        return self.kind is _NUMBERS

    def logs(self, part: Tensor, level: Tensor) -> Tensor:
        """Return the logarithms of some."""
        return part.log() + level if self.scaled else part


def sweeps(masses: Tensor, chains: Chains, both: bool = True) -> Sweeps:
    """Sweep from the right, and from the left too.

    Args:
        masses: (R, W, C) float64, log-masses of the classes, which sum up to 1 at a place; at
            open places 0 or -inf.
        chains: the automata.
        both: sweep from the left too, to know how likely every class is at every place.
    """
    if not bool(chains.ended.any()):  # else class 0 leads nowhere, and may be nearly all there is
        masses = masses.index_fill(2, torch.tensor(0), -torch.inf)
    level = masses.amax(-1, keepdim=True)
    level = level.where(level.isfinite() & chains.inside[..., None], 0)
    below = masses - level
    if not bool(((below < -_SPREAD) & (below > -torch.inf)).any()):
        numbers = below.exp()
        sets = by_row(chains, lambda own, rows: numbers[rows] @ own.T.double())
        found = _swept(sets, chains, _NUMBERS, both, level.squeeze(-1))
        if not any(_is_blurred(part) for part in (found.came, found.ways[:, both:])):
            return found
    return _swept(_set_logs(masses, chains, torch.logsumexp), chains, _LOGS, both)


def _is_blurred(numbers: Tensor | None) -> bool:
    """Tell whether some of the numbers are so small that digits may be lost."""
    return numbers is not None and bool(((numbers > 0) & (numbers < torch.e**-_SPREAD)).any())


def likeliest_sweep(maxima: Tensor, chains: Chains) -> Sweeps:
    """Sweep from the right for the likeliest text: `maxima` (R, W, C) of tokens' log-probabilities.

    At open places no text is likelier than another: it only counts that there is one.
    """
    return _swept(_set_logs(maxima, chains, torch.amax), chains, _BEST, both=False)


def reach(masses: Tensor, chains: Chains) -> Sweeps:
    """Sweep for what can be reached at all: 1 where some way leads, else 0."""
    some = (masses > -torch.inf).double()
    sets = by_row(chains, lambda own, rows: some[rows] @ own.T.double()).clamp_max_(1.0)
    return _swept(sets, chains, _REACH, both=True)


def by_row(chains: Chains, of: Callable[[Tensor, Tensor | slice], Tensor]) -> Tensor:
    """Apply a function of sets (U, C) and of rows to the rows of every automaton."""
    used = chains.which.unique().tolist()
    if len(used) == 1:
        return of(chains.moves.takes[used[0]], slice(None))
    parts = [(chains.which == number).nonzero().squeeze(1) for number in used]
    found = [of(chains.moves.takes[n], rows) for n, rows in zip(used, parts, strict=True)]
    order = torch.cat(parts).argsort()
    return torch.cat(found)[order]


def _set_logs(logs: Tensor, chains: Chains, take: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Take sums or maxima of logarithms over the classes of each set, (R, W, C) -> (R, W, U)."""
    nothing = torch.tensor(-torch.inf, dtype=logs.dtype)

    def of(own: Tensor, rows: Tensor | slice) -> Tensor:
        given = logs[rows]
        parts = given.split(max(1, AT_ONCE // (len(given) * own.numel())), 1)
        return torch.cat([take(part[:, :, None].where(own, nothing), -1) for part in parts], 1)

    return by_row(chains, of)


class _Track(NamedTuple):
    """What sweeps go along, both side by side: half the steps in as many calls.

    The first of H halves goes from the right, the second from the left; S is Q + 1 of each.

    Attributes:
        begin: (R, H S), what they begin with.
        leave, come, by: (R, H P) long, the states that moves leave and come to, and their sets.
        along: (W, R, H U), the sets step by step.
        stays: (R, W, H) bool, where nothing happens: behind the last place of a row.
        shut: (R, W, H) bool, open places that are left to the left.
        ended: (R, H S) bool, behind the end of a text on the way from the right.
    """

    begin: Tensor
    leave: Tensor
    come: Tensor
    by: Tensor
    along: Tensor
    stays: Tensor
    shut: Tensor
    ended: Tensor


def _track(sets: Tensor, chains: Chains, kind: _Kind, both: bool) -> _Track:
    rows, _, number = sets.shape
    states = chains.final.shape[1]
    size = states + 1
    source, target, sort = (part[chains.which] for part in chains.moves[:3])
    right = sets.new_full((rows, size), kind.nothing)
    right[:, :states].masked_fill_(chains.final, kind.one)
    along, ended = sets.flip(1), torch.nn.functional.pad(chains.ended, (0, 1))
    stays, shut = ~chains.inside.flip(1)[..., None], chains.open.flip(1)[..., None]
    if not both:
        along = along.transpose(0, 1).contiguous()
        return _Track(right, target, source, sort, along, stays, shut, ended)
    left = torch.full_like(right, kind.nothing).scatter_(1, chains.start[:, None], kind.one)
    return _Track(
        torch.cat([right, left], 1),
        torch.cat([target, size + source], 1),
        torch.cat([source, size + target], 1),
        torch.cat([sort, number + sort], 1),
        torch.cat([along, sets], 2).transpose(0, 1).contiguous(),
        torch.cat([stays, ~chains.inside[..., None]], 2),
        torch.cat([shut, torch.zeros_like(shut)], 2),
        torch.nn.functional.pad(ended, (0, size)),
    )


def _swept(
    sets: Tensor, chains: Chains, kind: _Kind, both: bool, level: Tensor | None = None
) -> Sweeps:
    rows, width, _ = sets.shape
    bundles = chains.bundles if kind.along is torch.mul else None
    walked = (
        _by_moves(sets, chains, kind, both)
        if bundles is None
        else _by_bundles(sets, chains, kind, both, bundles)
    )
    level = sets.new_zeros(rows, width) if level is None else level
    levels = sets.new_zeros(rows, width + 1, 2)
    if kind is _NUMBERS:
        gained = torch.stack([level.flip(1), level], 2)[..., : 1 + both]
        gained = gained + walked.tops.log().nan_to_num(neginf=0.0)
        begins = torch.stack([chains.open.flip(1), torch.zeros_like(chains.open)], 2)
        levels[:, 1:, : 1 + both] = _summed_up(gained, begins[..., : 1 + both])
    levels_of = level, levels[:, :-1, -1], levels[..., 0].flip(1)
    return Sweeps(kind, sets, walked.came, walked.ways, levels_of)


class _Walked(NamedTuple):
    """What was found along the places, see `Sweeps`.

    Attributes:
        came: (R, W, Q + 1), or None.
        ways: (R, W + 1, Q + 1).
        tops: (R, W, 1 or 2), by how much numbers were divided at each step from the right, and
            from the left.
    """

    came: Tensor | None
    ways: Tensor
    tops: Tensor


def _by_moves(sets: Tensor, chains: Chains, kind: _Kind, both: bool) -> _Walked:
    rows, width, _ = sets.shape
    size, scaled, track = (
        chains.final.shape[1] + 1,
        kind is _NUMBERS,
        _track(sets, chains, kind, both),
    )
    whole, none_open = bool(chains.inside.all()), not bool(chains.open.any())
    ends = bool(chains.ended.any()) and kind.one == 0
    now, tops = track.begin, [sets.new_ones(rows, 1 + both)]
    found = [now]
    for place in range(width):
        paths = kind.along(now.gather(1, track.leave), track.along[place].gather(1, track.by))
        behind = kind.meet(now, track.come, paths)
        if not none_open:
            some = torch.full_like(now, kind.one).masked_fill(behind <= kind.nothing, kind.nothing)
            behind = torch.where(track.shut[:, place].repeat_interleave(size, 1), some, behind)
        if ends:  # whatever follows an end, as numbers sum up to it by themselves
            behind = behind.masked_fill(track.ended, kind.one)
        if not whole:
            behind = torch.where(track.stays[:, place].repeat_interleave(size, 1), now, behind)
        if scaled:
            top = behind.view(rows, -1, size).amax(-1, keepdim=True)
            behind = (behind.view(rows, -1, size) / top.masked_fill(top == 0, 1.0)).view_as(now)
            tops.append(top.squeeze(-1))
        found.append(behind)
        now = behind
    values = torch.stack(found, 1)  # (R, W + 1, S or 2 S)
    came = values[:, :-1, size:] if both else None
    top = torch.stack(tops[1:], 1) if tops[1:] else sets.new_ones(rows, width, 1 + both)
    return _Walked(came, values[..., :size].flip(1), top)


def _by_bundles(sets: Tensor, chains: Chains, kind: _Kind, both: bool, bundles: Bundles) -> _Walked:
    """Do so where all rows have one automaton: states come first here, and then rows."""
    rows, width, _ = sets.shape
    along = sets.permute(1, 2, 0).contiguous()  # (W, U, R)
    inside, is_open = chains.inside.T, chains.open.T
    whole, none_open = bool(inside.all()), not bool(is_open.any())
    tops = sets.new_ones(width, 1 + both, rows)
    shape = width + 1, chains.final.shape[1] + 1, rows
    ways = sets.new_empty(shape)
    ways[width, :-1] = chains.final.T.to(ways.dtype)
    ways[width, -1] = 0

    def settle(now: Tensor, behind: Tensor, before: Tensor, place: int, top: Tensor) -> None:
        if not whole:
            behind = torch.where(inside[place], behind, before)
        if kind is _REACH:
            torch.clamp_max(behind, 1.0, out=now)
        else:
            torch.amax(behind, 0, out=top)
            # A product takes a fraction of a quotient's time.
            torch.mul(behind, top.masked_fill(top == 0, 1.0).reciprocal(), out=now)

    for place in reversed(range(width)):
        behind = bundles.back(ways[place + 1], along[place])
        if not none_open:
            behind = torch.where(is_open[place], (behind > 0).to(behind.dtype), behind)
        settle(ways[place], behind, ways[place + 1], place, tops[width - 1 - place, 0])
    came = None
    if both:
        came = sets.new_empty(shape)
        came[0] = 0
        came[0].scatter_(0, chains.start[None], 1.0)
        for place in range(width):
            behind = bundles.on(came[place], along[place])
            settle(came[place + 1], behind, came[place], place, tops[place, 1])
        came = came[:-1].permute(2, 0, 1)
    return _Walked(came, ways.permute(2, 0, 1), tops.permute(2, 0, 1))


def _summed_up(numbers: Tensor, begins: Tensor) -> Tensor:
    """Sum up along (R, W, H), from 0 again where it begins: behind an open place."""
    total = numbers.masked_fill(begins, 0.0).cumsum(1)
    place = torch.arange(numbers.shape[1])[None, :, None].expand(begins.shape)
    last = place.masked_fill(~begins, -1).cummax(1).values
    before = total.gather(1, last.clamp_min(0)).masked_fill(last < 0, 0.0)
    return total - before


def log_mass(found: Sweeps, chains: Chains) -> Tensor:
    """Return the log-probability (R,) that a text of the product law belongs to the language."""
    first = found.ways[:, 0].gather(1, chains.start[:, None]).squeeze(1)
    return found.logs(first, found.levels[2][:, 0])
