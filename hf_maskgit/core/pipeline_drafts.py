"""Texts to fill side by side, and which of several fillings is kept: of drafts, the likeliest."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from .blank_lengths import LENGTHS, prior_nats
from .decoding_lengths import NUM_TOKENS
from .options import Option, check
from .pipeline_blanks import MOST_DIGITS, Template
from .text_bound import text_bounds
from .token_pattern import TokenPattern

LENGTH_SAMPLES = Option("Maskings per filled text.", 16, (int,), low=4, high=1000)


@dataclass(frozen=True)
class Draft:
    """A text whose blanks have lengths, tokenised.

    Attributes:
        columns: what the tokenizer made of it, by name and without padding.
        template: where its spans stand.
        length: T, its tokens without framing.
        pattern: what all from its first mask to its last must look like; None for anything.
        patterned: by the number of each span that has a pattern of its own, whether its text has
            the spaces that decoding puts between any two tokens; None where nobody knows.
    """

    columns: dict[str, list[int]]
    template: Template
    length: int
    pattern: TokenPattern | None = None
    patterned: Mapping[int, bool | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Filled:
    """A finished text.

    Attributes:
        ids: its tokens.
        log_probabilities: of each at the moment of its reveal, 0 where it was known.
        draft: what it was filled from.
    """

    ids: list[int]
    log_probabilities: list[float]
    draft: Draft

    def probability(self, start: int, stop: int) -> float:
        """Multiply the probabilities of the tokens from `start` to before `stop`."""
        return math.exp(math.fsum(self.log_probabilities[start:stop]))


def most_drawn(results: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """Return the different texts among results, the most often drawn first, with their `count`.

    Args:
        results: of one text, each with its `token_ids`; of equals the first drawn is kept.
        most: how many at most.
    """
    drawn = Counter(tuple(result["token_ids"]) for result in results)
    first = {tuple(result["token_ids"]): result for result in reversed(results)}
    return [{**first[ids], "count": count} for ids, count in drawn.most_common(most)]


def padded(
    drafts: Sequence[Draft], tokenizer: PreTrainedTokenizerBase, device: torch.device
) -> dict[str, Tensor]:
    """Put drafts side by side, (R, L) long each, padded on the right.

    Args:
        drafts: R of them.
        tokenizer: its padding.
        device: where to.
    """
    padding = {
        "input_ids": tokenizer.pad_token_id or 0,
        "token_type_ids": tokenizer.pad_token_type_id,
    }
    return {
        name: pad_sequence(
            [torch.tensor(draft.columns[name]) for draft in drafts],
            batch_first=True,
            padding_value=padding.get(name, 0),
        ).to(device)
        for name in drafts[0].columns
    }


def likeliest(
    candidates: Sequence[Filled],
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    key: int,
    num_samples: int,
) -> Filled:
    """Choose the filled text of the least bound and prior together; of equals the first.

    The bound is that of the whole text: how well what is known goes with this many tokens counts,
    too. What is compared is -ln of a probability of texts of every length: that of the length, by
    what training saw, and that of the text given it.

    Args:
        candidates: of one returned text, the shortest first.
        model: judges.
        tokenizer: its padding.
        key: of the maskings.
        num_samples: maskings, an even number.
    """
    columns = padded([one.draft for one in candidates], tokenizer, model.device)
    for row, one in enumerate(candidates):
        columns["input_ids"][row, : len(one.ids)] = torch.tensor(one.ids)
    spans = [one.draft.template.spans for one in candidates]
    keys = [(key, *(stop - start for start, stop in of_one)) for of_one in spans]
    bounds = text_bounds(
        model,
        columns["input_ids"],
        columns["attention_mask"],
        keys,
        num_samples,
        columns.get("token_type_ids"),
    ).tolist()
    prior = prior_nats(model.config, [one.draft.length for one in candidates])
    nats = [bound + weight for bound, weight in zip(bounds, prior, strict=True)]
    return candidates[nats.index(min(nats))]


def check_nothing_appended(options: Mapping[str, Any]) -> None:
    """Refuse options of `generate` that append tokens, where blanks alone are filled.

    Raises:
        ValueError: saying how to have tokens at the end.
    """
    way = NUM_TOKENS.get(options.get("num_tokens") or "")
    name = "num_tokens" if way is not None and way.varies else "max_new_tokens"
    if options.get(name) is not None:
        raise ValueError(
            f"The infilling pipeline fills what is blank and appends nothing, so it has no "
            f"`{name}`. Put {{blank:8}} at the end of the text to have 8 tokens there."
        )


def check_lengths(blank_lengths: Any, length: Any = None, length_samples: Any = None) -> None:
    """Refuse what says nothing about the lengths of blanks.

    Args:
        blank_lengths: see `InfillingPipeline`.
        length: see there.
        length_samples: see there.

    Raises:
        ValueError: saying what does.
    """
    if blank_lengths is not None:
        bounds = list(blank_lengths) if isinstance(blank_lengths, tuple | list) else []
        if not (
            len(bounds) == 2
            and all(type(b) is int for b in bounds)  # True is no length
            and 1 <= bounds[0] <= bounds[1] < 10**MOST_DIGITS
        ):
            raise ValueError(
                "`blank_lengths` must be two integers, the least and the greatest number of "
                "tokens, the least at least 1 and the greatest below "
                f"{10**MOST_DIGITS:,}; got {blank_lengths!r}."
            )
    if length is not None:
        check("length", length, Option("", "", choices=tuple(LENGTHS)))
    if length_samples is not None:
        check("length_samples", length_samples, LENGTH_SAMPLES)
        if length_samples % 2:
            raise ValueError(
                f"`length_samples` must be even (maskings come in pairs), got {length_samples}."
            )


def of_each(allowed: Any, count: int) -> list[Any]:
    """Return what each of so many returned texts may hold, of what `generate` takes for all."""
    is_list = isinstance(allowed, list) and len(allowed) == count
    is_of_each = is_list and not all(type(one) is int for one in allowed)
    return allowed if is_of_each else [allowed] * count


def per_row(allowed: list[Any], rows: list[tuple[int, Draft]], returned: list[Any]) -> list[Any]:
    """Give every draft what its returned text may hold, where a list has one entry for each.

    Args:
        allowed: as of `generate`, a list.
        rows: every draft with the number of the returned text that it belongs to.
        returned: the returned texts.
    """
    if len(allowed) != len(returned) or all(type(one) is int for one in allowed):
        return allowed  # for all rows, or for `generate` to refuse
    return [allowed[place] for place, _ in rows]
