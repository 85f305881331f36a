"""What parts of texts cost given the rest: the bound on -log p of each, many parts in one pass.

The masked texts of all parts are put into passes together, so that the number of texts in a pass
changes the time and, but for rounding, no figure: each part has masks of its own key.

The bound of a part of n tokens is a mean over its subsets (`exact.py`). Where these are no more
than the maskings asked for, all are taken, and the bound has no error; elsewhere it is estimated.
Both are the same quantity, so that short and long parts can be compared.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..core.argument_checks import check_whole
from ..core.losses import cross_entropy
from ..core.noise import keyed_generator
from ..core.text_bound import forbidden_ids, predict_masked, sampled_masks
from .batches import EvaluatedGenerator, evaluating, looks_twice
from .bound import check_num_samples, rows_of
from .exact import MOST_TOKENS, hidden_subsets, sum_over_orders

_STREAM = 0x7061727473  # tells this noise from that of other measures under the same seed


class PartCost(NamedTuple):
    """What a part of a text costs given the rest.

    Attributes:
        nats: -log p, or the bound on it.
        std_error: over maskings; 0 where nothing is estimated.
    """

    nats: float
    std_error: float


@dataclass(frozen=True)
class _Part:
    """A text, its judged places (n,), and what of these each masked copy hides, (M, n) bool."""

    ids: Tensor
    where: Tensor
    hidden: Tensor
    all_subsets: bool


@torch.no_grad()
def part_costs(
    model: EvaluatedGenerator,
    examples: Sequence[Mapping[str, Any]],
    keys: Sequence[tuple[int, ...]],
    *,
    num_samples: int = 64,
    batch_size: int = 64,
    exact: bool = False,
    most_tokens: int = MOST_TOKENS,
) -> list[PartCost]:
    """Tell what the judged part of each text costs given the rest of it.

    Args:
        model: a `MaskGitForMaskedLM`; it is evaluated in eval mode and left as it was.
        examples: framed `input_ids`, and `maskable`, 1 at what is judged.
        keys: of the masks of each. Parts of as many tokens meet the same masks under the same key,
            and their difference has less error than each.
        num_samples: maskings per part, an even number of at least 4.
        batch_size: masked texts per pass.
        exact: sum -log p over all orders, instead of the bound on it.
        most_tokens: that a part may have for that.

    Raises:
        ValueError: for numbers out of their range, a part with a special token or without any, and
            with `exact` one that is too long.
    """
    check_num_samples(num_samples)
    check_whole("batch_size", batch_size, least=1)
    check_whole("most_tokens", most_tokens, least=1)
    with evaluating(model):
        twice = looks_twice(model.config, None)
        many = most_tokens if exact else int(math.log2(num_samples + 1))
        parts = [
            _part(model, example, key, num_samples, many, exact)
            for example, key in zip(examples, keys, strict=True)
        ]
        nats = [torch.zeros(part.hidden.shape, dtype=torch.float64) for part in parts]
        for rows in _passes(parts, batch_size):
            costs = _hidden_costs(model, [(parts[i], parts[i].hidden[m]) for i, m in rows], twice)
            for (i, m), cost in zip(rows, costs, strict=True):
                nats[i][m, parts[i].hidden[m]] = cost
    return [_summed(part, one, exact) for part, one in zip(parts, nats, strict=True)]


def _part(
    model: EvaluatedGenerator,
    example: Mapping[str, Any],
    key: tuple[int, ...],
    num_samples: int,
    all_up_to: int,
    exact: bool,
) -> _Part:
    """Decide what of a text is judged, and by which masks."""
    ids = torch.tensor(example["input_ids"])
    wanted = torch.tensor(example["maskable"]).bool()
    judged = rows_of(model, ids[None], None, wanted[None]).judged[0]
    if not bool((judged == wanted).all()):
        special = ids[wanted & ~judged].tolist()
        raise ValueError(
            f"What is judged holds the special id {special[0]}, which no model writes; leave "
            "special tokens out of it."
        )
    where = judged.nonzero()[:, 0]
    n = len(where)
    if n <= all_up_to:
        return _Part(ids, where, hidden_subsets(n)[1:], True)
    if exact:
        raise ValueError(
            f"What is judged has {n} tokens: its exact likelihood takes 2^{n} - 1 passes, and "
            f"`most_tokens` allows {all_up_to}. Take the bound, or raise `most_tokens`."
        )
    # drawn for the part alone, so that what stands before it changes no mask
    generator = keyed_generator(_STREAM, *key)
    own = torch.ones(1, n, dtype=torch.bool)
    return _Part(ids, where, torch.cat(list(sampled_masks(own, num_samples, generator))), False)


def _passes(parts: Sequence[_Part], batch_size: int) -> Iterator[list[tuple[int, int]]]:
    """Yield (part, mask) of the masked texts of each pass, the longest texts first."""
    order = sorted(range(len(parts)), key=lambda i: -len(parts[i].ids))
    rows = [(i, m) for i in order for m in range(len(parts[i].hidden))]
    for start in range(0, len(rows), batch_size):
        yield rows[start : start + batch_size]


def _hidden_costs(
    model: EvaluatedGenerator, rows: Sequence[tuple[_Part, Tensor]], twice: bool
) -> list[Tensor]:
    """Return -log p of each hidden token of masked texts, (k,) float64 on the CPU for each."""
    places = [part.where[hidden] for part, hidden in rows]
    padding = model.config.pad_token_id or 0  # behind the attention mask, any id will do
    ids = pad_sequence([part.ids for part, _ in rows], batch_first=True, padding_value=padding)
    real = pad_sequence([torch.ones_like(part.ids) for part, _ in rows], batch_first=True)
    chosen = torch.zeros(ids.shape, dtype=torch.bool)
    for row, place in enumerate(places):
        chosen[row, place] = True
    ids, real, chosen = (tensor.to(model.device) for tensor in (ids, real, chosen))
    logits = predict_masked(model, ids, real, chosen, twice)
    nats = cross_entropy(logits, ids[chosen], forbidden_ids(model.config)).double().cpu()
    return list(nats.split([len(place) for place in places]))


def _summed(part: _Part, nats: Tensor, exact: bool) -> PartCost:
    """Make one figure of the costs (M, n) of a part, 0 where a token is not hidden."""
    if part.all_subsets:
        likelihood, bound = sum_over_orders(torch.cat([torch.zeros_like(nats[:1]), nats]))
        return PartCost(likelihood if exact else bound, 0.0)
    weights = part.hidden.shape[1] / part.hidden.sum(1).double()  # n / k
    pairs = (nats.sum(1) * weights).view(-1, 2).mean(1)  # of opposite maskings, see `nelbo`
    return PartCost(float(pairs.mean()), float(pairs.std()) / math.sqrt(len(pairs)))
