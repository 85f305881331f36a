"""Which masks can be chosen at all: the noise on an order, known beforehand, rules others out.

An order with noise ranks masks by score + noise. The noise is known before the denoiser is asked,
and a score has a most, such as 0 for a log-probability. So the masks with the most noise are tried
first: where n of a row are to be chosen, the n-th best of those is a mark, and a mask whose noise
and the most that a score can be stay below it is none of the n, whatever its logits are. Its logits
are not computed. What is chosen is the same; no other work of a pass in a large vocabulary is as
much as the LM head at every mask.

Letters: R rows still being decoded, L length, V vocabulary, N positions.
"""

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from .decoding_turn import Turn
from .position_logits import LateLogits
from .sampler_orders import Look, placed
from .sampler_rules import Rules
from .sampler_scores import gumbel, highest, ranks

# Masks that are tried, for each that is chosen: the mark is higher with more, and they cost more.
_TRIED = 2
# They are few, so that their logits can be kept; of few masks all had best be asked at once.
_MOST_TRIED = 0.25
# Noise falls from pass to pass: where it ruled out no more than they cost, it will not later.
_LEAST_SPARED = 0.1


def noise_of(turn: Turn, rules: Rules, places: Tensor) -> Tensor | None:
    """Return the Gumbel noise on the order's scores at places (R, L) bool, (N,) float64, or None.

    Args:
        turn: the pass.
        rules: of its sampler.
        places: which compete.
    """
    scale = getattr(turn.sampler, rules.order.noise) if rules.order.noise else 0
    if not scale or not turn.sampler.do_sample:
        return None
    of_row = scale * turn.asked.temperature_scale[places.nonzero()[:, 0]]
    return of_row * gumbel(turn.coins[places])


class Contenders:
    """The masks that can be chosen, pass by pass of one decoding."""

    def __init__(self) -> None:
        self._is_worth_it = True

    def of(self, turn: Turn, rules: Rules, places: Tensor) -> tuple[Turn, Tensor, Look | None]:
        """Leave out the masks that cannot be chosen.

        Args:
            turn: a pass.
            rules: of its sampler.
            places: (R, L) bool, where its order asks for logits.

        Returns:
            The pass, in which the denoiser may have been asked; which of the places are left; and
            what the order has found out about some of these, where that is kept.
        """
        counts = rules.pace.counts
        if not self._is_worth_it or counts is None or not _are_known(turn, rules):
            return turn, places, None
        turn = turn.with_outlook()
        if (
            turn.outlook is not None
            and not rules.order.of_classes
            and _spares_nothing(turn, places)
        ):
            return turn, places, None
        asked_of = turn.with_needed(places)
        found = turn.logits_fn(turn.rows, turn.state.text, asked_of)
        turn = replace(turn, logits_fn=lambda *_: found)
        # Logits that are there cost no more, and nothing need wait for the device.
        noise = noise_of(turn, rules, places) if isinstance(found, LateLogits) else None
        if noise is None:
            return turn, places, None
        of_places, wanted, total = placed(noise, places), counts(turn, places), int(places.sum())
        tried = highest(of_places, places, _TRIED * wanted)
        cost = int(turn.with_needed(tried).sum())
        if turn.outlook is not None and rules.order.of_classes:
            # What a pattern's law needs is read in any case, and gives scores for nothing.
            cost = int((tried & ~turn.outlook.apart).sum())
            tried = turn.with_needed(tried) & places
        if cost > _MOST_TRIED * total:
            return turn, places, None
        late = cast(LateLogits, found)
        turn = replace(turn, logits_fn=lambda _, __, asked: late.only(asked[asked_of]))
        looks = [rules.order.look(part, tried[index]) for index, part in turn.parts(tried)]
        scores = torch.cat([look.scores for look in looks])
        left = places & _can_reach(rules, scores, of_places, tried, wanted)
        # Of more than fit side by side, and of a pattern, whose law is one of all that is asked,
        # they are computed again if they win.
        if len(looks) > 1 or turn.state.patterns is not None:
            spared = total - int(turn.with_needed(left).sum()) - cost
            # Of a pattern, the more is known the less need be asked.
            self._is_worth_it = spared >= _LEAST_SPARED * total or turn.state.patterns is not None
            return turn, left, None
        left |= tried
        self._is_worth_it = total - int(left.sum()) >= _LEAST_SPARED * total
        return turn, left, looks[0]


def _are_known(turn: Turn, rules: Rules) -> bool:
    """Tell whether noise and the most of a score are all that it takes."""
    # The scores of revealed tokens may be weighed.
    return (
        not turn.tokens_compete and rules.order.most is not None and not turn.sampler.changes_scores
    )


def _spares_nothing(turn: Turn, places: Tensor) -> bool:
    """Tell whether a pattern's law needs so many masks that the others are not worth trying."""
    first = places & (places.long().cumsum(1) == 1)  # of each row: what is asked at the least
    return int(turn.with_needed(first).sum()) > _MOST_TRIED * int(places.sum())


def _can_reach(
    rules: Rules, scores: Tensor, noise: Tensor, tried: Tensor, counts: Tensor
) -> Tensor:
    """Tell which places (R, L) bool have a score and noise (R, L) that can reach the mark.

    Args:
        rules: of the sampler.
        scores: of the places that were tried.
        noise: of all that compete; what is found elsewhere means nothing.
        tried: which were, (R, L) bool.
        counts: (R,) long, how many are to be chosen.
    """
    noise = noise.to(scores.dtype)
    reached = scores + noise
    # A row that has fewer masks than are to be chosen is tried whole, and keeps all.
    last = torch.minimum(counts, tried.sum(1)) - 1
    is_mark = (ranks(reached, tried) == last[:, None]) & tried
    mark = reached.masked_fill(~is_mark, torch.inf).amin(1, keepdim=True)
    return torch.where(tried, reached, noise + (rules.order.most or 0.0)) >= mark
