"""The likelihood bound: at most how many nats a generator needs per token of a text.

Evaluation always masks purely, whatever corruption the training used: only then does the weighted
cross-entropy bound the negative log-likelihood from above (MDLM, arXiv 2406.07524, eq. 10).
"""

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..core.decoding_layout import plan_layout
from ..core.encoder_pass import warn_of_dropout
from ..core.noise import chosen_generator
from ..core.options import check, option, options_of
from ..core.row_checks import check_beside, check_longest, check_rows
from ..core.text_bound import sampled_bound, sampled_masks
from ..core.trained_length import warn_of_length
from ..core.unknown_tokens import check_read, counted_before, read_ids_of, sum_of
from .batches import (
    EvaluatedGenerator,
    check_texts,
    evaluating,
    evaluation_generator,
    judged_positions,
    looks_twice,
    text_batches,
)

ONE_PASS = "one pass"
TWO_PASSES = "two passes of each masked text, the second conditioned on the first"


@dataclass(frozen=True, kw_only=True)
class Estimation:
    """How a bound is estimated; declares the option and holds none."""

    num_samples: int = option(
        8,
        "Maskings per text that estimate its likelihood bound; an even number, as they come in "
        "opposite pairs.",
        int,
        low=4,
        high=100_000,  # the standard error is long below all rounding
    )


@dataclass(frozen=True)
class NelboOutput:
    """Upper bounds on the negative log-likelihood of texts.

    Attributes:
        nats: (B,) float64, the estimate of each text's bound in nats.
        std_error: (B,) float64, its Monte-Carlo standard error in nats. An estimate may fall below
            the true value; its expectation does not. The error comes from the P pairs alone: two of
            them hold the true value about as often as Student's t with P - 1 degrees of freedom
            says, in 70 of 100 cases with 4 passes, 86 with 8, 94 with 32.
        num_tokens: (B,) long, maskable tokens of each text.
        estimator: what predicted the masked tokens: "one pass", or with self-conditioning "two
            passes ...". Each bounds the likelihood of the sampler that does so at every text.
        pairs: (B, P) float64, the estimate of each pair of opposite maskings, whose mean is `nats`;
            where two models met the same masks, their difference has its error from here.
    """

    nats: Tensor
    std_error: Tensor
    num_tokens: Tensor
    estimator: str = ONE_PASS
    pairs: Tensor | None = None

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
        pairs = [part.pairs for part in parts if part.pairs is not None]
        return cls(
            torch.cat([part.nats for part in parts]),
            torch.cat([part.std_error for part in parts]),
            torch.cat([part.num_tokens for part in parts]),
            estimators[0],
            torch.cat(pairs) if len(pairs) == len(parts) else None,
        )

    def at(self, index: Tensor) -> "NelboOutput":
        """Return the bounds of these texts, on the CPU.

        Args:
            index: (K,) long, numbers of texts, in the order wanted.
        """
        return replace(
            self,
            nats=self.nats.cpu()[index],
            std_error=self.std_error.cpu()[index],
            num_tokens=self.num_tokens.cpu()[index],
            pairs=None if self.pairs is None else self.pairs.cpu()[index],
        )


@torch.no_grad()
def nelbo(
    model: EvaluatedGenerator,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    maskable: Tensor | None = None,
    num_samples: int = 8,
    generator: torch.Generator | None = None,
    self_condition: bool | None = None,
    token_type_ids: Tensor | None = None,
    seed: int | None = None,
    max_unknown_share: float | None = None,
) -> NelboOutput:
    """Estimate the negative evidence lower bound of each text.

    For a text of n maskable tokens the bound is the mean over k = 1..n of (n/k) times the expected
    cross-entropy, summed over k positions chosen at random (any-order form of MDLM, arXiv
    2406.07524, eq. 10). In four steps:

    1. Check, before any pass.
    2. Move each text to the left edge.
    3. Mask k tokens and predict them, for k stratified over 1..n and drawn in antithetic pairs (u
       and 1 - u), because small and large k err in opposite ways.
    4. Average: the standard error comes from the pairs.

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
        generator: draws the masks; with no `seed` either, torch's global generator does.
        self_condition: whether to make two passes; None makes them where the model has
            self-conditioning.
        token_type_ids: (B, L) long, where the encoder knows them.
        seed: of the masks, instead of `generator`.
        max_unknown_share: largest share of the tokens that may be unknown to the tokenizer.

    Returns:
        The bound of each text.

    Raises:
        ValueError: for an odd or small `num_samples`, a text that holds the mask token, one without
            a maskable token, padding that no `attention_mask` tells, a text that is too long, or
            `self_condition` where the model has none, for tokens that are mostly unknown, or for
            both a seed and a generator.
        TypeError: for anything but a generator and a tensor of ids.
    """
    # 1. Check, before any pass
    check_num_samples(num_samples)
    generator = chosen_generator(seed, generator)
    given = model, input_ids, attention_mask, maskable, token_type_ids
    check_measurable(*given, max_unknown_share=max_unknown_share)
    self_condition = looks_twice(model.config, self_condition)
    # 2. Move each text to the left edge
    rows = rows_of(*given)
    # 3. and 4.
    return _estimated(model, rows, num_samples, generator, self_condition)


def _estimated(
    model: EvaluatedGenerator,
    rows: "Rows",
    num_samples: int,
    generator: torch.Generator | None,
    self_condition: bool,
) -> NelboOutput:
    """Estimate the bound of rows that were checked; the arguments are those of `nelbo`."""
    # 3. Mask k tokens and predict them
    samples = [
        sampled_bound(
            model,
            rows.input_ids,
            rows.attention_mask,
            rows.judged,
            chosen,
            self_condition,
            rows.token_type_ids,
        )
        for chosen in sampled_masks(rows.judged, num_samples, generator)
    ]
    # 4. Average: members of a pair depend on each other, pairs of different strata do not
    pairs = torch.stack(samples).view(num_samples // 2, 2, -1).mean(1)  # (pairs, B)
    return NelboOutput(
        pairs.mean(0),
        pairs.std(0) / math.sqrt(len(pairs)),
        rows.judged.sum(1),
        TWO_PASSES if self_condition else ONE_PASS,
        pairs.T,
    )


@dataclass(frozen=True)
class Rows:
    """Texts to measure: each tensor (B, L), `judged` bool, the others as `nelbo` takes them."""

    input_ids: Tensor
    attention_mask: Tensor
    judged: Tensor
    token_type_ids: Tensor | None

    def at_the_left_edge(self) -> "Rows":
        """Move padding from the left to the right, where any is there.

        Most encoders count positions from the left edge and would see a text elsewhere than in
        training. The tokens of `. . [CLS] a [SEP]` become `[CLS] a [SEP] . .`; their masks and
        types go with them.
        """
        if bool(self.attention_mask[:, 0].all()):
            return self
        layout = plan_layout(self.attention_mask, 0, torch.zeros_like(self.attention_mask[:, 0]))
        types = self.token_type_ids
        return Rows(
            layout.pack(self.input_ids),
            layout.pack(self.attention_mask),
            layout.pack(self.judged),
            None if types is None else layout.pack(types),
        )


@torch.no_grad()
def evaluate_nelbo(
    model: EvaluatedGenerator,
    texts: Sequence[Any],
    tokenizer: PreTrainedTokenizerBase,
    *,
    batch_size: int = 32,
    num_samples: int = 8,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    progress: bool = True,
    self_condition: bool | None = None,
    max_unknown_share: float | None = None,
    share: tuple[int, int] = (0, 1),
) -> NelboOutput:
    """Estimate the bound of every text of a data set.

    Args:
        model: a `MaskGitForMaskedLM`; it is evaluated in eval mode and left as it was.
        texts: examples with `input_ids` (framed), and `maskable` where some tokens are fixed
            prompts.
        tokenizer: its padding.
        batch_size: texts per pass.
        num_samples: passes per text.
        seed: of the masks; 0 where there is no `generator` either, and torch's global generator is
            not touched.
        generator: draws the masks, instead of `seed`.
        progress: show a progress bar, in a log a line now and then.
        self_condition: see `nelbo`.
        max_unknown_share: largest share of all tokens that may be unknown to the tokenizer; None is
            the default of `Tolerance`, and above 1 % a warning is given.
        share: (which, of how many) of the batches to measure. Processes that take one share each
            find what one process finds alone: a text has the same masks in every share.

    Returns:
        One bound per text in the order of `texts`, or per text of the share, on the CPU.

    Raises:
        ValueError: as `nelbo`, and for no text at all.
    """
    check_num_samples(num_samples)
    generator = evaluation_generator(seed, generator)
    twice = looks_twice(model.config, self_condition)
    parts, order = [], []
    how = (batch_size, progress, max_unknown_share, share)
    with evaluating(model):
        for batch in text_batches(model, texts, tokenizer, *how):
            given = model, batch.input_ids, batch.attention_mask, batch.allowed
            rows = rows_of(*given, names=batch.names)
            if not batch.in_share:
                list(sampled_masks(rows.judged, num_samples, generator))  # for those that follow
                continue
            with counted_before():  # all together, and not batch by batch
                check_measurable(*given)
            parts.append(_estimated(model, rows, num_samples, generator, twice))
            order.extend(batch.index)
    # from the order of lengths to that of `texts`
    return NelboOutput.concatenate(parts).at(torch.tensor(order).argsort())


def rows_of(
    model: EvaluatedGenerator,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    maskable: Tensor | None = None,
    token_type_ids: Tensor | None = None,
    names: Sequence[str] | None = None,
) -> Rows:
    """Tell what each text is judged by, and move it to the left edge; arguments as for `nelbo`.

    Raises:
        ValueError: for a text that holds the mask token, or has no maskable token; it is called
            what `names` say, or by its number.
    """
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids)
    judged = judged_positions(model.config, input_ids, attention_mask, maskable)
    types = None if token_type_ids is None else token_type_ids.long()
    rows = Rows(input_ids, attention_mask, judged, types).at_the_left_edge()
    check_texts(model.config, rows.input_ids, rows.judged, names)
    return rows


def check_num_samples(value: Any, name: str = "num_samples") -> None:
    """Refuse a number of maskings that is out of its range, or odd.

    Args:
        value: the number.
        name: what the caller calls it.

    Raises:
        ValueError: saying what is allowed.
    """
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        value = int(value)  # NumPy's integers are as good
    check(name, value, options_of(Estimation)["num_samples"])
    if value % 2:
        raise ValueError(f"`{name}` must be even (maskings come in opposite pairs), got {value}.")


def check_measurable(
    model: EvaluatedGenerator,
    input_ids: Any,
    attention_mask: Any = None,
    maskable: Any = None,
    token_type_ids: Any = None,
    *,
    max_unknown_share: float | None = None,
) -> None:
    """Refuse what cannot be measured, before any pass; the arguments are those of `nelbo`.

    Raises:
        ValueError: for ids, masks or types that do not fit together or the encoder, a text that is
            too long, or tokens that are mostly unknown.
        TypeError: for anything but a generator and a tensor of ids.
    """
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
    check_rows(config, input_ids, attention_mask, token_type_ids)
    if maskable is not None:
        check_beside("input_ids", input_ids, "maskable", maskable)
    longest = input_ids.shape[1] if attention_mask is None else int(attention_mask.sum(1).max())
    check_longest(longest, getattr(model, "max_positions", None))
    warn_of_length(config, longest, "its bound")
    warn_of_dropout(model, "its bound")
    real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    known = sum_of(read_ids_of(config, input_ids, real), "tokens")
    check_read(known, "`input_ids`", max_unknown_share)
