"""Which of several texts belongs into a blank: the probability of each.

Letters: K choices, n tokens of one of them, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from .blank_lengths import prior_nats
from .configuration_maskgit import MaskGitConfig
from .losses import cross_entropy
from .noise import keyed_generator
from .pipeline_blanks import Holes
from .pipeline_drafts import Draft, padded
from .text_bound import forbidden_ids, predict_masked, sampled_bound, sampled_masks

_CHOICE_STREAM = 0x63686F696365  # tells these maskings from other noise under the same seed


@dataclass(frozen=True)
class Choices:
    """What one blank may hold.

    Attributes:
        written: K texts.
        filled: the whole text with each of them.
        drafts: the same as tokens; the template of each has the one span.
    """

    written: tuple[str, ...]
    filled: tuple[str, ...]
    drafts: tuple[Draft, ...]


def check_choices(choices: Any) -> tuple[str, ...]:
    """Refuse what is no list of two or more different texts.

    Raises:
        ValueError: saying what is.
    """
    given = tuple(choices) if isinstance(choices, list | tuple) else ()
    if len(given) < 2 or not all(isinstance(text, str) and text.strip() for text in given):
        raise ValueError(
            f"`choices` must be a list of two or more texts that are not empty, got {choices!r}."
        )
    twice = next((text for text in given if given.count(text) > 1), None)
    if twice is not None:
        raise ValueError(f"`choices` has {twice!r} twice; each may be chosen once.")
    return given


def check_one_hole(holes: Holes) -> None:
    """Refuse a text in which a choice would not know where to stand.

    Raises:
        ValueError: for another number of blanks than one.
    """
    if len(holes.blanks) != 1:
        raise ValueError(
            f"`choices` fills one blank, and the text has {len(holes.blanks)} blanks and masks; "
            "leave one {blank}, whose length the choices decide."
        )


def span_between(ids: Sequence[int], around: Draft, choice: str) -> tuple[int, int]:
    """Find a choice among the tokens of a text: what is left between those around the blank.

    Args:
        ids: the text with the choice.
        around: the text with a mask.
        choice: for the sentence.

    Raises:
        ValueError: where the choice has changed the tokens around it, or has none.
    """
    masked = around.columns["input_ids"]
    start, stop = around.template.spans[0]
    behind = len(masked) - stop
    same = list(ids[:start]) == masked[:start] and list(ids[len(ids) - behind :]) == masked[stop:]
    if not same or len(ids) - behind <= start:
        raise ValueError(
            f"With the choice {choice!r} in its blank the tokenizer reads the text around it "
            "differently, so that it cannot be compared. Move what joins on to it into the choices."
        )
    return start, len(ids) - behind


def check_written(
    ids: Sequence[int], config: MaskGitConfig, tokenizer: PreTrainedTokenizerBase, choice: str
) -> None:
    """Refuse a choice that has no probability: one with a special token, which is no word.

    Args:
        ids: its tokens.
        config: of the model.
        tokenizer: names the token.
        choice: for the sentence.

    Raises:
        ValueError: naming the token.
    """
    never = {*config.forbidden_token_ids, *config.end_token_ids}
    found = next((token for token in ids if token in never), None)
    if found is not None:
        token = tokenizer.convert_ids_to_tokens(found)
        raise ValueError(
            f"The choice {choice!r} comes to the token {token!r} (id {found}), which the model "
            "never writes in a blank; name words of its vocabulary."
        )


def weighed_choices(
    choices: Choices, model: Any, tokenizer: PreTrainedTokenizerBase, key: int, num_samples: int
) -> list[dict[str, Any]]:
    """Weigh the choices, the likeliest first.

    Args:
        choices: K of them.
        model: predicts.
        tokenizer: its padding.
        key: of the maskings, where there are any.
        num_samples: maskings of each choice, an even number.

    Returns:
        For each `choice`, `text`, `probability`, and `std_error` where it is estimated.
    """
    columns = padded(choices.drafts, tokenizer, model.device)
    spans = [draft.template.spans[0] for draft in choices.drafts]
    judged = torch.zeros_like(columns["input_ids"], dtype=torch.bool)
    for row, (start, stop) in enumerate(spans):
        judged[row, start:stop] = True
    exact = len({stop - start for start, stop in spans}) == 1
    if exact:
        nats, errors = _one_pass(model, columns, judged), None
    else:
        nats, errors = _bounds(model, columns, judged, choices, key, num_samples)
    prior = prior_nats(model.config, [draft.length for draft in choices.drafts])
    # Lengths weigh as they do where blanks of several lengths are compared.
    shares = torch.softmax(-nats - torch.tensor(prior, dtype=torch.float64), 0)
    results: list[dict[str, Any]] = [
        {"choice": choice, "text": text, "probability": share}
        for choice, text, share in zip(
            choices.written, choices.filled, shares.tolist(), strict=True
        )
    ]
    if errors is not None:
        for result, error in zip(results, _of_shares(shares, errors).tolist(), strict=True):
            result["std_error"] = error
    return sorted(results, key=lambda result: -float(result["probability"]))


@torch.no_grad()
def _one_pass(model: Any, columns: dict[str, Tensor], judged: Tensor) -> Tensor:
    """Return -ln of the probability of each choice under one pass with the blank masked, (K,)."""
    ids, types = columns["input_ids"], columns.get("token_type_ids")
    # With its blank masked every choice is the same text: one row is enough.
    alone = {"input_ids": ids[:1], "attention_mask": columns["attention_mask"][:1]}
    logits = predict_masked(
        model,
        alone["input_ids"],
        alone["attention_mask"],
        judged[:1],
        bool(model.config.self_cond),
        None if types is None else types[:1],
    )
    num_choices, forbidden = len(ids), forbidden_ids(model.config)
    nll = [cross_entropy(logits, ids[row][judged[row]], forbidden) for row in range(num_choices)]
    return torch.stack(nll).double().sum(1).cpu()


@torch.no_grad()
def _bounds(
    model: Any,
    columns: dict[str, Tensor],
    judged: Tensor,
    choices: Choices,
    key: int,
    num_samples: int,
) -> tuple[Tensor, Tensor]:
    """Estimate the bound of each choice given the text around it: nats and standard error, (K,)."""
    masks = torch.zeros(num_samples, *judged.shape, dtype=torch.bool, device=judged.device)
    for row, draft in enumerate(choices.drafts):
        # As wide as the text alone, so that longer choices beside it change no mask.
        width = len(draft.columns["input_ids"])
        generator = keyed_generator(_CHOICE_STREAM, key, row)
        own = judged[row : row + 1, :width]
        masks[:, row, :width] = torch.cat(list(sampled_masks(own, num_samples, generator)))
    given = columns["input_ids"], columns["attention_mask"], judged
    twice, types = bool(model.config.self_cond), columns.get("token_type_ids")
    samples = torch.stack([sampled_bound(model, *given, m, twice, types) for m in masks]).cpu()
    # Maskings come in pairs that belong together; pairs of other strata spread more than pairs of
    # one, so that the error is on the safe side.
    pairs = samples.view(num_samples // 2, 2, -1).mean(1)
    return samples.mean(0), pairs.std(0) / len(pairs) ** 0.5


def _of_shares(shares: Tensor, errors: Tensor) -> Tensor:
    """Carry standard errors of nats over to the shares that a softmax makes of them (K,)."""
    own = (1 - shares) ** 2 * errors**2
    others = (shares**2 * errors**2).sum() - shares**2 * errors**2
    result: Tensor = shares * (own + others).sqrt()
    return result
