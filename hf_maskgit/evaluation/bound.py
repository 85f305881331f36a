"""How good a model is: the likelihood bound, the accuracy by mask rate, and simple baselines.

Evaluation always masks purely, whatever corruption the training used: only then does the weighted
cross-entropy bound the negative log-likelihood from above (MDLM, arXiv 2406.07524, eq. 10).
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from ..core.decoding_layout import check_no_padding, plan_layout
from ..core.encoder_pass import warn_of_dropout
from ..core.losses import cross_entropy, forbid
from ..core.masking import maskable_positions, token_column
from ..core.noise import keyed_generator
from ..core.sampler_scores import highest
from ..core.token_critic import fill_in

ONE_PASS = "one pass"
TWO_PASSES = "two passes of each masked text, the second conditioned on the first"


@dataclass(frozen=True)
class NelboOutput:
    """Upper bounds on the negative log-likelihood of texts.

    Attributes:
        nats: (B,) float64, the estimate of each text's bound in nats.
        std_error: (B,) float64, its Monte-Carlo standard error in nats. An estimate may fall below
            the true value; its expectation does not.
        num_tokens: (B,) long, maskable tokens of each text.
        estimator: what predicted the masked tokens: "one pass", or with self-conditioning "two
            passes ...". Each bounds the likelihood of the sampler that does so at every text.
    """

    nats: Tensor
    std_error: Tensor
    num_tokens: Tensor
    estimator: str = ONE_PASS

    @property
    def nats_per_token(self) -> float:
        """The bound in nats per maskable token, over all texts."""
        return float(self.nats.sum() / self.num_tokens.sum())

    @property
    def nats_per_token_std_error(self) -> float:
        """Monte-Carlo standard error of `nats_per_token`."""
        return float(self.std_error.square().sum().sqrt() / self.num_tokens.sum())

    @property
    def bits_per_token(self) -> float:
        """The bound in bits per maskable token, over all texts."""
        return self.nats_per_token / math.log(2)

    @property
    def perplexity(self) -> float:
        """The bound on the perplexity per maskable token, over all texts."""
        return math.exp(self.nats_per_token)

    @classmethod
    def concatenate(cls, parts: Sequence["NelboOutput"]) -> "NelboOutput":
        """Join the results of several batches.

        Raises:
            ValueError: for results of different estimators.
        """
        estimators = sorted({part.estimator for part in parts})
        if len(estimators) > 1:
            raise ValueError(
                f"These bounds are of different estimators: {' and '.join(estimators)}. Join those "
                "of one."
            )
        return cls(
            torch.cat([part.nats for part in parts]),
            torch.cat([part.std_error for part in parts]),
            torch.cat([part.num_tokens for part in parts]),
            *estimators,
        )


@torch.no_grad()
def nelbo(
    model: Any,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    maskable: Tensor | None = None,
    num_samples: int = 8,
    generator: torch.Generator | None = None,
    self_condition: bool | None = None,
    token_type_ids: Tensor | None = None,
) -> NelboOutput:
    """Estimate the negative evidence lower bound of each text.

    For a text of n maskable tokens the bound is the mean over k = 1..n of (n/k) times the expected
    cross-entropy, summed over k positions chosen at random. The k of one text are stratified over
    1..n and drawn in antithetic pairs (u and 1 - u), because small and large k err in opposite
    ways; the standard error comes from the pairs.

    With self-conditioning, each masked text gets two passes, and the second predicts. That is a
    denoiser like any other, so the bound holds for the sampler that makes two passes at each text;
    `generate` makes one and looks back on that at the text before.

    Args:
        model: a `MaskGitForMaskedLM` or anything with its `config` and `forward`; in eval mode, or
            dropout is measured too.
        input_ids: (B, L) long, clean texts in their framing.
        attention_mask: (B, L), 1 at real tokens; None means all are real.
        maskable: (B, L) bool; False conditions on a token. Framing and padding never count.
        num_samples: passes per text, an even number of at least 4.
        generator: draws the masks; None uses torch's global generator.
        self_condition: whether to make two passes; None makes them where the model has
            self-conditioning.
        token_type_ids: (B, L) long, where the encoder knows them.

    Returns:
        The bound of each text.

    Raises:
        ValueError: for an odd or small `num_samples`, a text that holds the mask token, one without
            a maskable token, padding that no `attention_mask` tells, a text that is too long, or
            `self_condition` where the model has none.
        TypeError: for anything but a generator and a tensor of ids.
    """
    if num_samples < 4 or num_samples % 2:
        raise ValueError(
            f"`num_samples` must be even and at least 4 (antithetic pairs), got {num_samples}."
        )
    config = model.config
    _check_rows(model, input_ids, attention_mask)
    self_condition = _looks_twice(config, self_condition)
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids)
    maskable = _maskable(config, input_ids, attention_mask, maskable)
    if not bool(attention_mask[:, 0].all()):  # most encoders count positions from the left edge
        layout = plan_layout(attention_mask, 0, torch.zeros_like(attention_mask[:, 0]))
        rows = (input_ids, attention_mask, maskable.to(input_ids.dtype))
        input_ids, attention_mask, maskable = (layout.pack(row) for row in rows)
        maskable = maskable.bool()
        token_type_ids = None if token_type_ids is None else layout.pack(token_type_ids)
    _check_texts(input_ids, maskable, config.mask_token_id)
    num_tokens = maskable.sum(1)

    samples = []
    device = generator.device if generator is not None else None
    for fraction in _antithetic_fractions(len(input_ids), num_samples, generator):
        counts = torch.ceil(fraction.to(num_tokens.device) * num_tokens).long().clamp_min(1)
        noise = torch.rand(input_ids.shape, generator=generator, device=device)
        chosen = highest(noise.to(input_ids.device), maskable, counts)
        logits = _predict(model, input_ids, attention_mask, chosen, self_condition, token_type_ids)
        nll = cross_entropy(logits, input_ids[chosen], _forbidden(model))  # (N,)
        summed = torch.zeros(len(input_ids), dtype=torch.float64, device=nll.device)
        summed.index_add_(0, chosen.nonzero()[:, 0], nll.double())
        samples.append(summed * num_tokens / counts)
    pairs = torch.stack(samples).view(num_samples // 2, 2, -1).mean(1)  # (pairs, B)
    estimator = TWO_PASSES if self_condition else ONE_PASS
    return NelboOutput(pairs.mean(0), pairs.std(0) / math.sqrt(len(pairs)), num_tokens, estimator)


def evaluate_nelbo(
    model: Any,
    texts: Sequence[Any],
    tokenizer: Any,
    *,
    batch_size: int = 32,
    num_samples: int = 8,
    seed: int = 0,
    progress: bool = True,
    self_condition: bool | None = None,
) -> NelboOutput:
    """Estimate the bound of every text of a data set.

    Args:
        model: a `MaskGitForMaskedLM`; it is evaluated in eval mode and left as it was.
        texts: examples with `input_ids` (framed), and `maskable` where some tokens are fixed
            prompts.
        tokenizer: its padding.
        batch_size: texts per pass.
        num_samples: passes per text.
        seed: of the masks; torch's global generator is not touched.
        progress: show a progress bar.
        self_condition: see `nelbo`.

    Returns:
        One bound per text in the order of `texts`, on the CPU.
    """
    generator = keyed_generator(seed)
    parts, order = [], []
    with _evaluating(model):
        for index, ids, mask, maskable in _batches(
            texts, tokenizer, batch_size, progress, model.device
        ):
            part = nelbo(model, ids, mask, maskable, num_samples, generator, self_condition)
            parts.append(part)
            order.extend(index)
    joined = NelboOutput.concatenate(parts)
    back = torch.tensor(order).argsort()
    return replace(
        joined,
        nats=joined.nats.cpu()[back],
        std_error=joined.std_error.cpu()[back],
        num_tokens=joined.num_tokens.cpu()[back],
    )


@torch.no_grad()
def masked_accuracy(
    model: Any,
    texts: Sequence[Any],
    tokenizer: Any,
    *,
    mask_rates: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
    batch_size: int = 32,
    seed: int = 0,
    progress: bool = True,
    self_condition: bool | None = None,
) -> dict[float, float]:
    """Measure how often the likeliest token is the masked one.

    Args:
        model: a `MaskGitForMaskedLM`.
        texts: examples with `input_ids` (framed).
        tokenizer: its padding.
        mask_rates: fractions of the maskable tokens to hide, each in (0, 1]; at least one is
            hidden.
        batch_size: texts per pass.
        seed: of the masks.
        progress: show a progress bar.
        self_condition: see `nelbo`.

    Returns:
        The fraction of hidden tokens predicted right, by mask rate.
    """
    _check_rates(mask_rates)
    right: Counter[float] = Counter()
    total: Counter[float] = Counter()
    generator = keyed_generator(seed)
    config = model.config
    self_condition = _looks_twice(config, self_condition)
    with _evaluating(model):
        for _, ids, mask, given in _batches(texts, tokenizer, batch_size, progress, model.device):
            maskable = _maskable(config, ids, mask, given)
            _check_texts(ids, maskable, config.mask_token_id)
            for rate in mask_rates:
                chosen = _choose(maskable, rate, generator)
                logits = _predict(model, ids, mask, chosen, self_condition)
                predicted = forbid(logits, _forbidden(model)).argmax(-1)
                right[rate] += int((predicted == ids[chosen]).sum())
                total[rate] += int(chosen.sum())
    return {rate: right[rate] / total[rate] for rate in mask_rates}


@dataclass(frozen=True)
class CriticAuroc:
    """How well a token critic tells right tokens from wrong ones of the same text.

    Attributes:
        wins: pairs of a right and a wrong token of one text in which the right one has the higher
            score; a tie counts half.
        num_pairs: all such pairs.
        num_tokens: tokens that were judged.
        num_wrong: how many of them were wrong.
    """

    wins: float
    num_pairs: int
    num_tokens: int
    num_wrong: int

    @property
    def auroc(self) -> float:
        """Share of the pairs in which the right token has the higher score; 0.5 is chance."""
        if not self.num_pairs:
            raise ValueError(
                "No text has both a right and a wrong token, so there is nothing to tell apart. "
                "Measure on more texts, or at another mask rate or temperature."
            )
        return self.wins / self.num_pairs

    @classmethod
    def add(cls, parts: Sequence["CriticAuroc"]) -> "CriticAuroc":
        """Join what was found on several batches."""
        return cls(
            sum(part.wins for part in parts),
            sum(part.num_pairs for part in parts),
            sum(part.num_tokens for part in parts),
            sum(part.num_wrong for part in parts),
        )


@torch.no_grad()
def critic_auroc(
    model: Any,
    texts: Sequence[Any],
    tokenizer: Any,
    *,
    mask_rate: float = 0.5,
    temperature: float = 1.0,
    batch_size: int = 32,
    seed: int = 0,
    progress: bool = True,
    self_condition: bool | None = None,
) -> CriticAuroc:
    """Measure how well the token critic finds the tokens that the denoiser got wrong.

    A share of each text is masked, the denoiser fills it in one step, and the critic scores the
    filled text. Only filled tokens of one text are compared with each other: that some texts are
    harder, or that most tokens were never masked, must not count for the critic.

    Args:
        model: a `MaskGitForMaskedLM` with a token critic.
        texts: examples with `input_ids` (framed).
        tokenizer: its padding.
        mask_rate: fraction of the maskable tokens to fill, in (0, 1]; at least one is.
        temperature: of the denoiser's draws, above 0.
        batch_size: texts per pass.
        seed: of masks and draws; torch's global generator is not touched.
        progress: show a progress bar.
        self_condition: see `nelbo`.

    Raises:
        ValueError: for a model without a critic, or a value out of its range.
    """
    _check_rates([mask_rate])
    if not temperature > 0:
        raise ValueError(f"`temperature` must be greater than 0, got {temperature}.")
    if not model.has_token_critic:
        raise ValueError(
            "The model has no token critic to measure; train one with token_critic='self' or "
            "'separate'."
        )
    generator, parts = keyed_generator(seed), []
    self_condition = _looks_twice(model.config, self_condition)
    with _evaluating(model):
        for _, ids, mask, given in _batches(texts, tokenizer, batch_size, progress, model.device):
            maskable = _maskable(model.config, ids, mask, given)
            _check_texts(ids, maskable, model.config.mask_token_id)
            chosen = _choose(maskable, mask_rate, generator)
            logits = _predict(model, ids, mask, chosen, self_condition)
            filled = fill_in(logits, ids, chosen, _forbidden(model), temperature, generator)
            scores = model.score_tokens(filled, mask, chosen)
            parts.append(_compare(scores, (filled == ids)[chosen], chosen.nonzero()[:, 0]))
    return CriticAuroc.add(parts)


def _compare(scores: Tensor, right: Tensor, rows: Tensor) -> CriticAuroc:
    """Compare right (N,) bool with wrong tokens of the same of the rows (N,) long."""
    wins, num_pairs = 0.0, 0
    for row in rows.unique():
        of_right, of_wrong = (scores[(rows == row) & kind] for kind in (right, ~right))
        lead = (of_right[:, None] - of_wrong).sign()  # 1, or 0 for a tie
        wins += float((lead + 1).sum() / 2)
        num_pairs += lead.numel()
    return CriticAuroc(wins, num_pairs, len(scores), int((~right).sum()))


def unigram_cross_entropy(
    train: Iterable[Sequence[int]],
    held_out: Iterable[Sequence[int]],
    num_ordinary: int,
    smoothing: float = 1.0,
) -> float:
    """Cross-entropy of a smoothed unigram model, the least a model of text has to beat.

    Args:
        train: maskable token ids of each training text.
        held_out: maskable token ids of each held-out text.
        num_ordinary: number of tokens that can be emitted.
        smoothing: pseudo-count added to every token (Lidstone).

    Returns:
        Nats per held-out token.
    """
    counts: Counter[int] = Counter()
    for ids in train:
        counts.update(ids)
    total = sum(counts.values()) + smoothing * num_ordinary
    nats, tokens = 0.0, 0
    for ids in held_out:
        nats -= sum(math.log((counts[i] + smoothing) / total) for i in ids)
        tokens += len(ids)
    if tokens == 0:
        raise ValueError("There is no held-out token to measure the unigram model on.")
    return nats / tokens


@dataclass(frozen=True)
class TextStatistics:
    """How varied texts are.

    Attributes:
        repeated_bigrams: share of the word pairs inside a text that occurred earlier in it, in [0,
            1].
        distinct_words: distinct words of a text over its words, mean over texts, in [0, 1].
    """

    repeated_bigrams: float
    distinct_words: float


def text_statistics(texts: Iterable[str]) -> TextStatistics:
    """Measure repetition within each of the texts; words are separated by blanks."""
    repeated = pairs = 0
    distinct = []
    for text in texts:
        words = text.lower().split()
        bigrams = list(itertools.pairwise(words))
        repeated += len(bigrams) - len(set(bigrams))
        pairs += len(bigrams)
        if words:
            distinct.append(len(set(words)) / len(words))
    if not distinct:
        raise ValueError("There is no text with words to measure.")
    return TextStatistics(repeated / max(pairs, 1), sum(distinct) / len(distinct))


def _antithetic_fractions(
    num_texts: int, num_samples: int, generator: torch.Generator | None
) -> Iterator[Tensor]:
    """Yield pairs u, 1 - u of fractions in (0, 1], one stratum of (0, 1/2] per pair; each (B,)."""
    device = generator.device if generator is not None else None
    num_pairs = num_samples // 2
    for stratum in range(num_pairs):
        offset = torch.rand(num_texts, generator=generator, dtype=torch.float64, device=device)
        fraction = (stratum + 1 - offset) / num_samples
        yield fraction
        yield 1 - fraction


def _maskable(
    config: Any, input_ids: Tensor, attention_mask: Tensor, allowed: Tensor | None
) -> Tensor:
    """Mark the tokens a text is judged by: never framing, and only where the caller allows it."""
    maskable = maskable_positions(
        input_ids,
        attention_mask,
        config.prefix_ids or [],
        config.suffix_ids or [],
        config.forbidden_token_ids,
    )
    return maskable if allowed is None else maskable & allowed.bool()


def _check_rates(mask_rates: Sequence[float]) -> None:
    bad = [rate for rate in mask_rates if not 0 < rate <= 1]
    if bad:
        raise ValueError(f"Every mask rate must lie in (0, 1], got {bad[0]}.")


def _choose(maskable: Tensor, mask_rate: float, generator: torch.Generator) -> Tensor:
    """Choose a share of each row's maskable positions (B, L) bool, at least one."""
    counts = (maskable.sum(1) * mask_rate).round().long().clamp_min(1)
    noise = torch.rand(maskable.shape, generator=generator).to(maskable.device)
    return highest(noise, maskable, counts)


def _looks_twice(config: Any, self_condition: bool | None) -> bool:
    """Decide whether each masked text gets two passes."""
    has = bool(getattr(config, "self_cond", False))
    if self_condition and not has:
        raise ValueError(
            "`self_condition=True` asks for a second pass that looks back on the first, and the "
            "model has no self-conditioning; leave it out."
        )
    return has if self_condition is None else self_condition


def _predict(
    model: Any,
    input_ids: Tensor,
    attention_mask: Tensor,
    chosen: Tensor,
    self_condition: bool,
    token_type_ids: Tensor | None = None,
) -> Tensor:
    """Return the logits (N, V) at the chosen positions of texts in which these are masked."""
    shown = input_ids.masked_fill(chosen, model.config.mask_token_id)
    given: dict[str, Any] = {"self_condition": True} if self_condition else {}
    if token_type_ids is not None:
        given["token_type_ids"] = token_type_ids
    output = model(shown, attention_mask, masked_positions=chosen, **given)
    logits: Tensor = output.logits
    return logits


def _check_rows(model: Any, input_ids: Any, attention_mask: Tensor | None) -> None:
    """Refuse what cannot be measured before any pass."""
    config = model.config
    if not hasattr(config, "prefix_ids"):
        raise TypeError(
            f"The bound is that of a generator, got a {type(model).__name__}; make one with "
            "MaskGitForMaskedLM.from_encoder()."
        )
    if not isinstance(input_ids, Tensor):
        raise TypeError(
            f"`input_ids` must be a tensor of ids, got {type(input_ids).__name__}; what a "
            'tokenizer returns goes in as nelbo(model, **tokenizer(text, return_tensors="pt")).'
        )
    if attention_mask is None:
        check_no_padding(input_ids, config.pad_token_id)
    longest = input_ids.shape[1] if attention_mask is None else int(attention_mask.sum(1).max())
    limit = getattr(model, "max_positions", None)
    if limit is not None and longest > limit:
        raise ValueError(
            f"The longest text has {longest} tokens, the encoder takes {limit}; shorten it."
        )
    warn_of_dropout(model, "its bound")


def _forbidden(model: Any) -> Tensor:
    return torch.tensor(model.config.forbidden_token_ids, dtype=torch.long)


def _check_texts(input_ids: Tensor, maskable: Tensor, mask_token_id: int) -> None:
    for bad, what in (
        ((input_ids == mask_token_id).any(1), "holds the mask token; evaluation needs clean texts"),
        (~maskable.any(1), "has no maskable token"),
    ):
        if bool(bad.any()):
            raise ValueError(f"Text {int(bad.nonzero()[0])} of the batch {what}.")


class _evaluating:
    """Put a model into eval mode and back."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __enter__(self) -> None:
        self.was_training = self.model.training
        self.model.eval()

    def __exit__(self, *_: Any) -> None:
        self.model.train(self.was_training)


def _batches(
    texts: Sequence[Any], tokenizer: Any, batch_size: int, progress: bool, device: torch.device
) -> Iterator[tuple[list[int], Tensor, Tensor, Tensor]]:
    """Yield (indices, input_ids, attention_mask, maskable) of texts of similar length."""
    if len(texts) == 0:
        raise ValueError("There is no text to evaluate.")
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]["input_ids"]))
    bar = tqdm(total=len(texts), desc="evaluate", unit="text", disable=not progress)
    with bar:
        for start in range(0, len(order), batch_size):
            index = order[start : start + batch_size]
            rows = [texts[i] for i in index]
            ids = _pad(rows, "input_ids", tokenizer.pad_token_id or 0)
            mask = _pad(rows, "attention_mask", 0)
            maskable = _pad(rows, "maskable", 0).bool()
            yield index, ids.to(device), mask.to(device), maskable.to(device)
            bar.update(len(index))


def _pad(rows: Sequence[Any], name: str, value: int) -> Tensor:
    """Stack one column of some examples, 1 everywhere where an example has none."""
    columns = [token_column(row, name, 1) for row in rows]
    return pad_sequence(columns, batch_first=True, padding_value=value)
