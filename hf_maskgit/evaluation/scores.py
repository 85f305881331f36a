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
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..core.argument_checks import check_is_tokenizer, check_whole
from ..core.noise import check_seed
from ..core.options import check, option, options_of
from ..core.text_reader import check_texts
from ..core.unknown_tokens import counted_before
from .batches import EvaluatedGenerator, evaluating, looks_twice
from .bound import Rows, check_measurable, rows_of
from .score_rounds import BLOCK, ROUND, MaskedCosts, drawn_until

logger = logging.getLogger(__name__)
_SHOWN = 40  # characters of a text that a sentence names


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
        f"Most maskings of a sequence that are drawn for that, a multiple of {BLOCK}; where they "
        "do not do, a warning says which error was reached.",
        int,
        low=BLOCK,
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
    check_seed(seed)
    with evaluating(model):
        names = _names(texts, "texts")
        rows = _rows_of_texts(model, texts, names, tokenizer, max_unknown_share)
        twice = looks_twice(model.config, self_condition)
        found = [
            _scored(MaskedCosts(model, row, batch_size, twice), std_error, max_maskings, seed, text)
            for row, text in zip(rows, texts, strict=True)
        ]
    for one, name in zip(found, names, strict=True):
        if not one.reached:
            _warn_of_cap(f"the bound of {name}", one.std_error, std_error, max_maskings)
    _warn_of_close(found, names)
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
    check_seed(seed)
    with evaluating(model):
        names = _names(mutants, "mutants")
        texts, told = [wild_type, *mutants], [_shown(wild_type), *names]
        rows = _rows_of_texts(model, texts, told, tokenizer, max_unknown_share)
        twice = looks_twice(model.config, self_condition)
        wild, *others = (MaskedCosts(model, row, batch_size, twice) for row in rows)
        for other, name in zip(others, names, strict=True):
            _check_mutant(wild, other, name)
        pseudo = -float(wild.conditional().sum())
        found = [_pair(wild, other, pseudo, std_error, max_maskings, seed) for other in others]
    for one, name in zip(found, names, strict=True):
        if not one.reached:
            _warn_of_cap(f"the score of {name}", one.std_error, std_error, max_maskings)
    unclear = [name for one, name in zip(found, names, strict=True) if not one.is_told_apart]
    if unclear:
        logger.warning(
            "%d of %d mutants differ from the wild type by no more than the error of that "
            "difference, such as %s: their signs say nothing. Ask for a smaller `std_error`.",
            len(unclear),
            len(mutants),
            unclear[0],
        )
    return found


def _scored(
    passes: MaskedCosts, std_error: float, max_maskings: int, seed: int, text: str
) -> SequenceScore:
    rounds, error = drawn_until(lambda i: passes.block(i, seed), std_error, max_maskings)
    shares = rounds.mean(0)
    return SequenceScore(
        float(shares.sum()),
        error,
        len(rounds) * ROUND,
        error <= std_error,
        passes.where.cpu(),
        shares,
        passes.conditional(),
        passes.marginal(),
    )


def _pair(
    wild: MaskedCosts,
    other: MaskedCosts,
    pseudo: float,
    std_error: float,
    max_maskings: int,
    seed: int,
) -> MutantScore:
    rounds, error = drawn_until(
        lambda i: other.block(i, seed) - wild.block(i, seed), std_error, max_maskings
    )
    differ = (wild.ids != other.ids)[0].nonzero()[:, 0].tolist()
    return MutantScore(
        float(rounds.mean(0).sum()),
        error,
        len(rounds) * ROUND,
        error <= std_error,
        float(other.conditional().sum()) + pseudo,
        tuple((place, int(wild.ids[0, place]), int(other.ids[0, place])) for place in differ),
    )


def _rows_of_texts(
    model: EvaluatedGenerator,
    texts: Sequence[str],
    names: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    max_unknown_share: float | None,
) -> list[Rows]:
    """Read texts, and check each before any pass; sentences call them by their names."""
    check_is_tokenizer(tokenizer)
    check_texts(tokenizer, texts, max_unknown_share)
    rows = []
    for text, name in zip(texts, names, strict=True):
        ids = torch.tensor([tokenizer(text)["input_ids"]], device=model.device)
        with counted_before():  # by words, all together
            check_measurable(model, ids)
        rows.append(rows_of(model, ids, names=[f"The text {name}"]))
    return rows


def check_scoring(std_error: float, max_maskings: int, batch_size: int) -> None:
    """Refuse options of `score` that are out of their range.

    Raises:
        ValueError: saying what is allowed.
    """
    for name, value in (("std_error", std_error), ("max_maskings", max_maskings)):
        check(name, value, options_of(Scoring)[name])
    if max_maskings % BLOCK:
        raise ValueError(f"`max_maskings` must be a multiple of {BLOCK}, got {max_maskings}.")
    check_whole("batch_size", batch_size, least=1)


def _names(texts: Sequence[str], name: str) -> list[str]:
    """Name texts for sentences, those that are cut short by their numbers too.

    Mutants of one sequence begin alike, so that their beginnings alone would tell nobody which.

    Raises:
        TypeError: for what is no list of texts.
        ValueError: for an empty one.
    """
    _check_list(texts, name)
    return [
        _shown(text) if len(text) <= _SHOWN else f"{_shown(text)} (number {number})"
        for number, text in enumerate(texts, 1)
    ]


def _check_list(texts: object, name: str) -> None:
    if not isinstance(texts, Sequence) or isinstance(texts, str | bytes):
        raise TypeError(f"`{name}` must be a list of texts, got {type(texts).__name__}.")
    other = [type(text).__name__ for text in texts if not isinstance(text, str)]
    if other:
        raise TypeError(f"`{name}` must be a list of texts, got a list with {other[0]}.")
    if not texts:
        raise ValueError(f"`{name}` is empty: there is nothing to score.")


def _check_mutant(wild: MaskedCosts, other: MaskedCosts, name: str) -> None:
    if wild.ids.shape != other.ids.shape or not torch.equal(wild.judged, other.judged):
        raise ValueError(
            f"The mutant {name} has {len(other.where)} tokens and the wild type "
            f"{len(wild.where)}: masks are common to sequences of one length. Score each for "
            "itself with score()."
        )
    if torch.equal(wild.ids, other.ids):
        raise ValueError(f"The mutant {name} has the tokens of the wild type; leave it out.")


def _warn_of_cap(what: str, error: float, asked: float, most: int) -> None:
    logger.warning(
        "%d maskings were drawn, the most allowed: %s has a standard error of %.3g nats, and %.3g "
        "was asked for. Allow more `max_maskings`.",
        most,
        what,
        error,
        asked,
    )


def _warn_of_close(found: Sequence[SequenceScore], names: Sequence[str]) -> None:
    """Say where two neighbours in the ranking are no further apart than their errors."""
    order = sorted(range(len(found)), key=lambda i: found[i].bound)
    close = [
        (i, j)
        for i, j in itertools.pairwise(order)
        if found[j].bound - found[i].bound <= math.hypot(found[i].std_error, found[j].std_error)
    ]
    if close:
        first, second = (names[i] for i in close[0])
        logger.warning(
            "%d neighbours in the order of the bounds are no further apart than the error of their "
            "difference, such as %s and %s: their order says nothing. Ask for a smaller "
            "`std_error`, or compare texts of one length with score_mutants().",
            len(close),
            first,
            second,
        )


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "...")
