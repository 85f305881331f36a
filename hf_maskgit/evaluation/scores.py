"""Scores of single sequences: what a generator makes of one text, and of mutants against it.

Four figures, in nats, each of another question:

- the *conditional* cost of a token is -log p(token | all others), one pass per token; minus its sum
  is the pseudo-log-likelihood (Salazar et al., arXiv 1910.14659), which is no likelihood: nothing
  is paid for what the tokens tell each other twice;
- the *marginal* cost is -log p(token | none of them), one pass for all;
- the *bound* on -log p(text) predicts each token from a random part of the others. Its estimate has
  an error, and so many maskings are drawn as the error asked for takes;
- the share of a token in that bound, its mean cost when it is revealed in a random order.

Mutants are scored in pairs: wild type and mutant meet the same masks, so that what they have in
common cancels, and the error told is that of their *difference*.
"""

import itertools
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..core.argument_checks import check_is_tokenizer, check_whole
from ..core.losses import cross_entropy
from ..core.noise import keyed_generator
from ..core.options import check, option, options_of
from ..core.text_bound import forbidden_ids, predict_masked, sampled_masks
from ..core.text_reader import check_texts
from .batches import EvaluatedGenerator, evaluating, looks_twice
from .bound import Rows, check_measurable, rows_of

logger = logging.getLogger(__name__)

_ROUND = 8  # maskings of one round: one of every eighth of (0, 1], see `antithetic_fractions`
_ROUNDS = 8  # independent rounds drawn together; after them one can plan by their spread
_BLOCK = _ROUND * _ROUNDS  # maskings
_HEADROOM = 1.1  # more of them than the spread asks for, which is itself an estimate
_STREAM = 0x73636F7265  # tells this noise from that of other measures under the same seed


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How scores are estimated; declares the options and holds none."""

    std_error: float = option(
        0.5,
        "Standard error of a score in nats that is asked for; maskings are drawn until it is "
        "reached.",
        int,
        float,
        low=0,
        open_low=True,
    )
    max_maskings: int = option(
        4096,
        f"Most maskings of a sequence that are drawn for that, a multiple of {_BLOCK}; where they "
        "do not do, a warning says which error was reached.",
        int,
        low=_BLOCK,
    )


@dataclass(frozen=True)
class SequenceScore:
    """What a generator makes of one sequence; everything in nats.

    Attributes:
        bound: estimate of the bound on -log p(sequence), given its number of tokens.
        std_error: its standard error over maskings.
        num_maskings: that it rests on.
        reached: whether the error asked for was.
        positions: (n,) long, places of the judged tokens among the ids of the sequence.
        shares: (n,) float64, what each token adds to `bound`.
        conditional: (n,) float64, -log p(token | all others).
        marginal: (n,) float64, -log p(token | none of the others).
    """

    bound: float
    std_error: float
    num_maskings: int
    reached: bool
    positions: Tensor
    shares: Tensor
    conditional: Tensor
    marginal: Tensor

    @property
    def pseudo_log_likelihood(self) -> float:
        """Sum of log p(token | all others); higher is likelier."""
        return -float(self.conditional.sum())


@dataclass(frozen=True)
class MutantScore:
    """A mutant against its wild type, in nats; below 0 the generator prefers the mutant.

    Attributes:
        difference: estimate of bound(mutant) - bound(wild type) under common masks.
        std_error: of the difference, over maskings.
        num_maskings: that it rests on.
        reached: whether the error asked for was.
        pseudo_difference: the same of minus the pseudo-log-likelihoods, which have no error.
        mutations: (place among the ids, id of the wild type, id of the mutant) of each.
    """

    difference: float
    std_error: float
    num_maskings: int
    reached: bool
    pseudo_difference: float
    mutations: tuple[tuple[int, int, int], ...]

    @property
    def is_told_apart(self) -> bool:
        """Whether the difference is larger than its standard error."""
        return abs(self.difference) > self.std_error


@torch.no_grad()
def score(
    model: EvaluatedGenerator,
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    std_error: float = Scoring.std_error,
    max_maskings: int = Scoring.max_maskings,
    batch_size: int = 64,
    seed: int = 0,
    self_condition: bool | None = None,
    max_unknown_share: float | None = None,
) -> list[SequenceScore]:
    """Score sequences one by one, each until its bound is known as well as asked for.

    The number of maskings is chosen by the spread seen so far, never below 64. Each sequence has
    masks of its own under the seed, whatever is scored beside it.

    Args:
        model: a `MaskGitForMaskedLM`; it is evaluated in eval mode and left as it was.
        texts: as typed; special tokens are put around.
        tokenizer: of the model.
        std_error: in nats, see `Scoring`.
        max_maskings: likewise.
        batch_size: masked sequences per pass.
        seed: of the masks.
        self_condition: see `nelbo`.
        max_unknown_share: see `nelbo`.

    Raises:
        ValueError: for values out of their range, and texts that cannot be measured, see `nelbo`.
        TypeError: for a single text instead of a list, or what is no tokenizer.
    """
    check_scoring(std_error, max_maskings, batch_size)
    with evaluating(model):
        rows = _rows_of_texts(model, texts, tokenizer, max_unknown_share)
        twice = looks_twice(model.config, self_condition)
        found = [
            _scored(_Passes(model, row, batch_size, twice), std_error, max_maskings, seed, text)
            for row, text in zip(rows, texts, strict=True)
        ]
    for one, text in zip(found, texts, strict=True):
        if not one.reached:
            _warn_of_cap(f"the bound of {_named(text)}", one.std_error, std_error, max_maskings)
    _warn_of_close(found, texts)
    return found


@torch.no_grad()
def score_mutants(
    model: EvaluatedGenerator,
    wild_type: str,
    mutants: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    std_error: float = Scoring.std_error,
    max_maskings: int = Scoring.max_maskings,
    batch_size: int = 64,
    seed: int = 0,
    self_condition: bool | None = None,
    max_unknown_share: float | None = None,
) -> list[MutantScore]:
    """Score mutants against their wild type, each pair under common masks.

    All meet the masks of the wild type, so that a mutant's figure does not depend on the others.

    Args:
        model: as for `score`, and so are the others.
        wild_type: as typed.
        mutants: texts of as many tokens, which differ in some.
        tokenizer: of the model.
        std_error: of each difference in nats.
        max_maskings: see `Scoring`.
        batch_size: masked sequences per pass.
        seed: of the masks.
        self_condition: see `nelbo`.
        max_unknown_share: see `nelbo`.

    Raises:
        ValueError: as for `score`, and for a mutant of another number of tokens, or equal to the
            wild type.
        TypeError: as for `score`.
    """
    check_scoring(std_error, max_maskings, batch_size)
    with evaluating(model):
        _check_list(mutants, "mutants")
        rows = _rows_of_texts(model, [wild_type, *mutants], tokenizer, max_unknown_share)
        twice = looks_twice(model.config, self_condition)
        wild, *others = (_Passes(model, row, batch_size, twice) for row in rows)
        for other, text in zip(others, mutants, strict=True):
            _check_mutant(wild, other, text)
        pseudo = -float(wild.conditional().sum())
        found = [_pair(wild, other, pseudo, std_error, max_maskings, seed) for other in others]
    for one, text in zip(found, mutants, strict=True):
        if not one.reached:
            _warn_of_cap(f"the score of {_named(text)}", one.std_error, std_error, max_maskings)
    unclear = [text for one, text in zip(found, mutants, strict=True) if not one.is_told_apart]
    if unclear:
        logger.warning(
            "%d of %d mutants differ from the wild type by no more than the error of that "
            "difference, such as %s: their signs say nothing. Ask for a smaller `std_error`.",
            len(unclear),
            len(mutants),
            _named(unclear[0]),
        )
    return found


class _Passes:
    """One sequence and what predicts it: its costs under masks, in batches.

    Args:
        model: predicts.
        row: the sequence alone, B = 1.
        batch_size: masked sequences per pass.
        twice: whether a second pass predicts.
    """

    def __init__(self, model: EvaluatedGenerator, row: Rows, batch_size: int, twice: bool) -> None:
        self.model, self.batch_size, self.twice = model, batch_size, twice
        self.ids, self.real, self.judged = row.input_ids, row.attention_mask, row.judged
        self.where = row.judged[0].nonzero()[:, 0]
        self._blocks: dict[int, Tensor] = {}  # a wild type meets the same with every mutant

    def costs(self, masks: Tensor) -> Tensor:
        """Return -log p of each masked token by masking, 0 elsewhere.

        Args:
            masks: (M, L) bool.

        Returns:
            (M, n) float64 at the judged positions, on the CPU.
        """
        found = []
        for chosen in masks.split(self.batch_size):
            ids = self.ids.expand(len(chosen), -1)
            real = self.real.expand(len(chosen), -1)
            logits = predict_masked(self.model, ids, real, chosen, self.twice)
            cost = torch.zeros(chosen.shape, dtype=torch.float64, device=chosen.device)
            nats = cross_entropy(logits, ids[chosen], forbidden_ids(self.model.config))
            cost[chosen] = nats.double()
            found.append(cost[:, self.where].cpu())
        return torch.cat(found)

    def block(self, number: int, seed: int) -> Tensor:
        """Estimate the share of each token in the bound by each of 8 rounds, (8, n) float64."""
        if number not in self._blocks:
            generator = keyed_generator(_STREAM, seed, number)
            masks = list(sampled_masks(self.judged.expand(_ROUNDS, -1), _ROUND, generator))
            together = torch.cat(masks)  # masking by masking, of each all rounds
            weights = len(self.where) / together.sum(1).double().cpu()  # n / k
            shares = self.costs(together) * weights[:, None]
            self._blocks[number] = shares.view(_ROUND, _ROUNDS, -1).mean(0)
        return self._blocks[number]

    def conditional(self) -> Tensor:
        """Return -log p(token | all others), (n,) float64."""
        masks = torch.zeros(len(self.where), self.ids.shape[1], dtype=torch.bool)
        masks = masks.to(self.ids.device)
        masks[torch.arange(len(self.where)), self.where] = True
        return self.costs(masks).diagonal()

    def marginal(self) -> Tensor:
        """Return -log p(token | none of the others), (n,) float64."""
        return self.costs(self.judged)[0]


def _scored(
    passes: _Passes, std_error: float, max_maskings: int, seed: int, text: str
) -> SequenceScore:
    rounds, error = _until(lambda i: passes.block(i, seed), std_error, max_maskings)
    shares = rounds.mean(0)
    return SequenceScore(
        float(shares.sum()),
        error,
        len(rounds) * _ROUND,
        error <= std_error,
        passes.where.cpu(),
        shares,
        passes.conditional(),
        passes.marginal(),
    )


def _pair(
    wild: _Passes, other: _Passes, pseudo: float, std_error: float, max_maskings: int, seed: int
) -> MutantScore:
    rounds, error = _until(
        lambda i: other.block(i, seed) - wild.block(i, seed), std_error, max_maskings
    )
    differ = (wild.ids != other.ids)[0].nonzero()[:, 0].tolist()
    return MutantScore(
        float(rounds.mean(0).sum()),
        error,
        len(rounds) * _ROUND,
        error <= std_error,
        float(other.conditional().sum()) + pseudo,
        tuple((place, int(wild.ids[0, place]), int(other.ids[0, place])) for place in differ),
    )


def _until(
    estimate: Callable[[int], Tensor], std_error: float, max_maskings: int
) -> tuple[Tensor, float]:
    """Draw blocks of rounds, which are independent, until their mean is known well enough.

    Args:
        estimate: of each share by the rounds of the block of a number, (8, n) float64.
        std_error: of the sum of the shares, asked for.
        max_maskings: most of them.

    Returns:
        (R, n) all rounds, and the standard error of the sum of their mean.
    """
    most, wanted = max_maskings // _BLOCK, 1
    blocks: list[Tensor] = []
    while True:
        blocks += [estimate(i) for i in range(len(blocks), wanted)]
        rounds = torch.cat(blocks)
        sums = rounds.sum(1)
        error = float(sums.std()) / math.sqrt(len(sums))
        if error <= std_error or len(blocks) >= most:
            return rounds, error
        asked = math.ceil(_HEADROOM * len(blocks) * (error / std_error) ** 2)
        wanted = min(most, max(asked, len(blocks) + 1))


def _rows_of_texts(
    model: EvaluatedGenerator,
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    max_unknown_share: float | None,
) -> list[Rows]:
    """Read texts, and check each before any pass."""
    check_is_tokenizer(tokenizer)
    _check_list(texts, "texts")
    check_texts(tokenizer, texts, max_unknown_share)
    rows = []
    for text in texts:
        ids = torch.tensor([tokenizer(text)["input_ids"]], device=model.device)
        check_measurable(model, ids, max_unknown_share=1.0)  # counted by words above
        rows.append(rows_of(model, ids))
    return rows


def check_scoring(std_error: float, max_maskings: int, batch_size: int) -> None:
    """Refuse options of `score` that are out of their range.

    Raises:
        ValueError: saying what is allowed.
    """
    for name, value in (("std_error", std_error), ("max_maskings", max_maskings)):
        check(name, value, options_of(Scoring)[name])
    if max_maskings % _BLOCK:
        raise ValueError(f"`max_maskings` must be a multiple of {_BLOCK}, got {max_maskings}.")
    check_whole("batch_size", batch_size, least=1)


def _check_list(texts: object, name: str) -> None:
    if not isinstance(texts, Sequence) or isinstance(texts, str | bytes):
        raise TypeError(f"`{name}` must be a list of texts, got {type(texts).__name__}.")
    other = [type(text).__name__ for text in texts if not isinstance(text, str)]
    if other:
        raise TypeError(f"`{name}` must be a list of texts, got a list with {other[0]}.")
    if not texts:
        raise ValueError(f"`{name}` is empty: there is nothing to score.")


def _check_mutant(wild: _Passes, other: _Passes, text: str) -> None:
    if wild.ids.shape != other.ids.shape or not torch.equal(wild.judged, other.judged):
        raise ValueError(
            f"The mutant {_named(text)} has {len(other.where)} tokens and the wild type "
            f"{len(wild.where)}: masks are common to sequences of one length. Score each for "
            "itself with score()."
        )
    if torch.equal(wild.ids, other.ids):
        raise ValueError(
            f"The mutant {_named(text)} has the tokens of the wild type; leave it out."
        )


def _warn_of_cap(what: str, error: float, asked: float, most: int) -> None:
    logger.warning(
        "%d maskings were drawn, the most allowed: %s has a standard error of %.3g nats, and %.3g "
        "was asked for. Allow more `max_maskings`.",
        most,
        what,
        error,
        asked,
    )


def _warn_of_close(found: Sequence[SequenceScore], texts: Sequence[str]) -> None:
    """Say where two neighbours in the ranking are no further apart than their errors."""
    order = sorted(range(len(found)), key=lambda i: found[i].bound)
    close = [
        (i, j)
        for i, j in itertools.pairwise(order)
        if found[j].bound - found[i].bound <= math.hypot(found[i].std_error, found[j].std_error)
    ]
    if close:
        first, second = (_named(texts[i]) for i in close[0])
        logger.warning(
            "%d neighbours in the order of the bounds are no further apart than the error of their "
            "difference, such as %s and %s: their order says nothing. Ask for a smaller "
            "`std_error`, or compare texts of one length with score_mutants().",
            len(close),
            first,
            second,
        )


def _named(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
