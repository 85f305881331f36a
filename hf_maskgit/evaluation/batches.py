"""What every evaluation shares: a generator to measure, batches of texts, and their masked tokens.

Letters: B batch, L length, V vocabulary, N masked positions.
"""

import contextlib
import math
import numbers
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from ..core.argument_checks import check_flag, check_is_tokenizer, check_whole
from ..core.configuration_maskgit import MaskGitConfig
from ..core.masking import maskable_positions
from ..core.noise import chosen_generator, keyed_generator
from ..core.options import shown
from ..core.row_checks import check_padding_of_example, token_column
from ..core.sampler_scores import highest
from ..core.special_tokens import padding_alone
from ..core.text_bound import predict_masked
from ..core.unknown_tokens import check_read, read_examples
from .progress import ProgressBar


class EvaluatedGenerator(Protocol):
    """What a model must have to be measured; a `MaskGitForMaskedLM` has it.

    Called with ids (B, L) long, an attention mask (B, L) and `masked_positions` (B, L) bool, it
    returns something whose `logits` are (N, V).
    """

    training: bool

    @property
    def config(self) -> MaskGitConfig:
        """Mask, framing, and the tokens without probability."""

    @property
    def device(self) -> torch.device:
        """Where texts have to lie."""

    def train(self, mode: bool = True) -> Any:
        """Switch dropout on, or off."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Predict the masked tokens."""


class TextBatch:
    """Some texts of a data set, padded to one length, and the tokens they are judged by.

    Attributes:
        in_share: whether the batch belongs to the share that is measured. Where it does not, its
            noise is drawn all the same, so that every batch gets the noise that it has in a whole.
        index: number of each text in the data set.
        input_ids: (B, L) long, clean texts.
        attention_mask: (B, L) long, 1 at real tokens.
        allowed: (B, L) bool, False where the data set conditions on a token, and at padding.
    """

    def __init__(
        self,
        index: list[int],
        examples: Sequence[Mapping[str, Any]],
        pad_token_id: int,
        device: torch.device,
        in_share: bool = True,
    ) -> None:
        self.index, self.in_share = index, in_share
        self.input_ids = _stack(examples, "input_ids", pad_token_id).to(device)
        self.attention_mask = _stack(examples, "attention_mask", 0).to(device)
        self.allowed = _stack(examples, "maskable", 0).bool().to(device)

    def judged(self, config: MaskGitConfig) -> Tensor:
        """Mark the tokens to judge a generator by, (B, L) bool.

        Raises:
            ValueError: for a text that holds the mask token, or has nothing to judge.
        """
        judged = judged_positions(config, self.input_ids, self.attention_mask, self.allowed)
        check_texts(config, self.input_ids, judged, self.names)
        return judged

    @property
    def names(self) -> list[str]:
        """What the texts are called in a sentence: by their numbers in the data set."""
        return [f"Text {number}" for number in self.index]


def text_batches(
    model: EvaluatedGenerator,
    texts: Sequence[Any],
    tokenizer: PreTrainedTokenizerBase,
    batch_size: int,
    progress: bool,
    max_unknown_share: float | None = None,
    share: tuple[int, int] = (0, 1),
) -> Iterator[TextBatch]:
    """Yield all texts in batches of similar length, the shortest first.

    Args:
        model: where the batches go, and whose special tokens count.
        texts: examples with `input_ids`; `attention_mask` and `maskable` where they are not 1
            everywhere.
        tokenizer: its padding.
        batch_size: texts per batch.
        progress: show a progress bar, in a log a line now and then.
        max_unknown_share: largest share of all tokens that may be unknown to the tokenizer; None is
            the default of `Tolerance`.
        share: (which, of how many) of the batches are marked as `in_share`: of 3 shares the second
            has batches 1, 4, 7, ...

    Raises:
        TypeError: for a stream, which cannot be sorted, or what is no share.
        ValueError: for no text at all, a share without a batch, texts that are mostly unknown to
            the tokenizer, a column that is not as long as its text, or padding that no
            `attention_mask` tells.
    """
    check_is_tokenizer(tokenizer)
    check_whole("batch_size", batch_size, least=1)
    check_flag("progress", progress)
    listed = hasattr(texts, "__len__") and hasattr(texts, "__getitem__")
    listed = listed and getattr(texts, "ndim", 1) > 0  # an array of no dimension has no length
    if not listed or isinstance(texts, Mapping | str | bytes | Tensor):
        raise TypeError(
            f"`texts` are sorted by length, so they must be a list or a data set with a length, "
            f"got {type(texts).__name__}; of a stream make one: list(stream.take(1000))."
        )
    if len(texts) == 0:
        raise ValueError("There is no text to evaluate.")
    check_share(share, len(texts), batch_size)
    padding = padding_alone(tokenizer, vars(model.config))
    for number in range(len(texts)):
        example = texts[number]
        token_column(example, "attention_mask", 1)  # refuses what is no example
        check_padding_of_example(example, f"Text {number}", padding)
    known = read_examples((texts[i] for i in range(len(texts))), tokenizer)
    check_read(known, "the texts to evaluate", max_unknown_share)
    # Sorting costs nothing and saves most of the padding; who needs the old order has `index`.
    batches = sorted_batches(texts, batch_size)
    pad_token_id = tokenizer.pad_token_id or 0  # behind the attention mask, any id will do
    with ProgressBar("evaluate", len(texts), "text", shown=progress) as told:
        for number, index in enumerate(batches):
            in_share = number % share[1] == share[0]
            yield TextBatch(index, [texts[i] for i in index], pad_token_id, model.device, in_share)
            told.update(len(index))


def sorted_batches(texts: Sequence[Any], batch_size: int) -> list[list[int]]:
    """Return the numbers of the texts of each batch, the shortest texts first."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]["input_ids"]))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _stack(examples: Sequence[Mapping[str, Any]], name: str, padding: int) -> Tensor:
    """Stack one column of some examples, 1 everywhere where an example has none."""
    columns = [token_column(example, name, 1) for example in examples]
    return pad_sequence(columns, batch_first=True, padding_value=padding)


class Predicted(NamedTuple):
    """Masked tokens of some texts, and what a generator makes of them.

    Attributes:
        batch: the texts.
        mask_rate: the share of each that is masked.
        chosen: (B, L) bool, the N masked tokens.
        logits: (N, V), row by row; (N, 0) where the batch is not in the share that is measured.
    """

    batch: TextBatch
    mask_rate: float
    chosen: Tensor
    logits: Tensor


@contextlib.contextmanager
def predicting(
    model: EvaluatedGenerator,
    texts: Sequence[Any],
    tokenizer: PreTrainedTokenizerBase,
    mask_rates: Sequence[float],
    generator: torch.Generator,
    *,
    batch_size: int,
    progress: bool,
    self_condition: bool | None,
    max_unknown_share: float | None,
    share: tuple[int, int] = (0, 1),
) -> Iterator[Iterator[Predicted]]:
    """Mask shares of all texts and predict them, with the model in eval mode.

    Args:
        model: predicts; it is left in the mode it was in.
        texts: see `text_batches`, and so for `tokenizer`, `batch_size`, `progress`,
            `max_unknown_share` and `share`.
        tokenizer: its padding.
        mask_rates: shares of the tokens to mask, each of every batch.
        generator: draws the masks, from `evaluation_generator`.
        batch_size: texts per pass.
        progress: show a progress bar.
        self_condition: see `looks_twice`.
        max_unknown_share: of the tokens.
        share: of the batches, what is predicted.

    Yields:
        What to iterate over: batch by batch, and of each batch one share after another.

    Raises:
        ValueError: for a mask rate out of its range, and what `looks_twice`, `text_batches` and
            `predict_masked` refuse.
    """
    check_mask_rates(mask_rates)
    twice = looks_twice(model.config, self_condition)
    how = batch_size, progress, max_unknown_share, share
    batches = text_batches(model, texts, tokenizer, *how)

    def predicted() -> Iterator[Predicted]:
        for batch in batches:
            ids, real, judged = batch.input_ids, batch.attention_mask, batch.judged(model.config)
            for rate in mask_rates:
                chosen = choose_share(judged, rate, generator)
                logits = torch.empty(int(chosen.sum()), 0)
                if batch.in_share:
                    logits = predict_masked(model, ids, real, chosen, twice)
                yield Predicted(batch, rate, chosen, logits)

    with evaluating(model):
        yield predicted()


def check_share(share: Any, num_texts: int, batch_size: int) -> None:
    """Refuse what is no share of the batches of an evaluation, or an empty one.

    Raises:
        TypeError: for anything but a pair (which, of how many).
        ValueError: for a share that has no batch.
    """
    whole = isinstance(share, Sequence) and all(type(part) is int for part in share)
    if not whole or len(share) != 2:
        raise TypeError(f"`share` must be a pair (which, of how many), got {shown(share)}.")
    num_batches = math.ceil(num_texts / batch_size)
    if not 0 <= share[0] < min(share[1], num_batches):
        raise ValueError(
            f"`share` (which, of how many) must name one that has a batch, counted from 0, got "
            f"{share}: {num_texts} texts make {num_batches} batches of {batch_size}."
        )


def evaluation_generator(seed: int | None, generator: torch.Generator | None) -> torch.Generator:
    """Return what draws the masks of an evaluation: never torch's global generator.

    Args:
        seed: of the caller's; 0 where there is no generator either.
        generator: the caller's own, instead of a seed.

    Raises:
        ValueError: for both.
    """
    chosen = chosen_generator(seed, generator)
    return keyed_generator(0) if chosen is None else chosen


@contextlib.contextmanager
def evaluating(model: EvaluatedGenerator) -> Iterator[None]:
    """Put a model into eval mode, and back into the mode it was in."""
    was_training = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(was_training)


def judged_positions(
    config: MaskGitConfig, input_ids: Tensor, attention_mask: Tensor, allowed: Tensor | None
) -> Tensor:
    """Mark the tokens a text is judged by: never framing, and only where the caller allows it.

    Args:
        config: knows the framing.
        input_ids: (B, L) long.
        attention_mask: (B, L), 1 at real tokens.
        allowed: (B, L), 1 or True at tokens that may be masked; None allows all.

    Returns:
        (B, L) bool.
    """
    maskable = maskable_positions(
        input_ids,
        attention_mask,
        config.prefix_ids or [],
        config.suffix_ids or [],
        config.forbidden_token_ids,
    )
    return maskable if allowed is None else maskable & allowed.bool()


def check_texts(
    config: MaskGitConfig, input_ids: Tensor, judged: Tensor, names: Sequence[str] | None = None
) -> None:
    """Refuse texts that cannot be measured.

    Args:
        config: knows the mask, which no clean text holds.
        input_ids: (B, L) long.
        judged: (B, L) bool, from `judged_positions`.
        names: what the caller knows the texts by; None for their numbers in the batch.

    Raises:
        ValueError: naming the first text that holds a mask or has nothing to judge.
    """
    holds_mask = (input_ids == cast(int, config.mask_token_id)).any(1)
    for bad, what in (
        (holds_mask, "holds the mask token; evaluation needs clean texts"),
        (~judged.any(1), "has no maskable token"),
    ):
        if bool(bad.any()):
            first = int(bad.nonzero()[0])
            name = f"Text {first} of the batch" if names is None else names[first]
            raise ValueError(f"{name} {what}.")


def check_mask_rates(mask_rates: Sequence[float]) -> None:
    """Refuse shares of hidden tokens outside (0, 1].

    Raises:
        ValueError: naming the first of them.
    """
    if not isinstance(mask_rates, Sequence) or isinstance(mask_rates, str | bytes):
        raise TypeError(f"`mask_rates` must be a list of shares, got {shown(mask_rates)}.")
    for rate in mask_rates:
        if isinstance(rate, bool) or not isinstance(rate, numbers.Real):
            raise TypeError(f"Every mask rate must be a number, got {shown(rate)}.")
    bad = [rate for rate in mask_rates if not 0 < rate <= 1]
    if bad:
        raise ValueError(f"Every mask rate must lie in (0, 1], got {bad[0]}.")


def choose_share(judged: Tensor, mask_rate: float, generator: torch.Generator) -> Tensor:
    """Choose a share of each row's positions at random, at least one.

    Args:
        judged: (B, L) bool, where to choose; at least one per row.
        mask_rate: the share, in (0, 1].
        generator: draws them, on the CPU.

    Returns:
        (B, L) bool.
    """
    counts = (judged.sum(1) * mask_rate).round().long().clamp_min(1)
    # Drawn on the CPU, so that a seed gives the same masks on every device.
    noise = torch.rand(judged.shape, generator=generator).to(judged.device)
    return highest(noise, judged, counts)


def looks_twice(config: MaskGitConfig, self_condition: bool | None) -> bool:
    """Decide whether each masked text gets two passes.

    Raises:
        ValueError: when it should, and the model has no self-conditioning.
    """
    check_flag("self_condition", self_condition)
    has = bool(getattr(config, "self_cond", False))  # a denoiser made of a table need not say
    if self_condition and not has:
        raise ValueError(
            "`self_condition=True` asks for a second pass that looks back on the first, and the "
            "model has no self-conditioning; leave it out."
        )
    return has if self_condition is None else self_condition
