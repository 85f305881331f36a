"""When a row needs no further pass: end of text, stop strings, criteria of the caller's.

Letters: R rows, L length, n new tokens.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.generation import stopping_criteria

from .argument_checks import check_callables, check_is_tokenizer
from .decoding import StopFn
from .decoding_state import DecodingState
from .options import shown
from .sampler import Sampler
from .sampler_rules import REMASKS

# Criteria of transformers that measure something parallel decoding does not have, with what does.
_REFUSED_CRITERIA = {
    "MaxLengthCriteria": "use `max_new_tokens`",
    "EosTokenCriteria": "an end of text stops a row by itself",
    "StopStringCriteria": "use `stop_strings`",
    "ConfidenceCriteria": "use pace='threshold'",
}


def settled(state: DecodingState, remask: str) -> Tensor:
    """Mark the positions (R, L) bool that will not change any more: no remasking reaches them."""
    known = state.block < 0
    if REMASKS[remask].rate is not None:
        return known
    if REMASKS[remask].competes:
        return known | (state.block < state.active_block)
    return ~state.masked


def ended_rows(ends: Tensor, certain: Tensor) -> Tensor:
    """Tell which rows have a certain end with nothing uncertain before it.

    Args:
        ends: (R, L) bool, where an end stands.
        certain: (R, L) bool, positions that will not change any more.

    Returns:
        (R,) bool.
    """
    # A mask before the end may still become an earlier end, and a token that may be masked again
    # may still go: then the row is not done, although an end stands there.
    certain_ends = ends & certain
    before_first = certain_ends.cumsum(1) == 0
    return certain_ends.any(1) & (certain | ~before_first).all(1)


def _verdict(given: Any, rows: Tensor) -> Tensor:
    """Return what a criterion says of R rows: (R,) bool, or one for all of them.

    Raises:
        ValueError: for anything else.
    """
    try:
        verdict = torch.as_tensor(given, device=rows.device).bool()
    except (TypeError, ValueError, RuntimeError):  # such as of a criterion without a `return`
        verdict = None
    if verdict is None or verdict.shape not in (rows.shape, torch.Size([])):
        raise ValueError(
            "`stopping_criteria` must return True or False, or one of them for each of the "
            f"{len(rows)} rows still being decoded, got {shown(given)}."
        )
    return verdict


def tokens_until(
    ids: Sequence[int], stop_strings: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> int | None:
    """Count the tokens after which the decoded text first holds one of the strings.

    Returns:
        From 1 to the number of ids, or None when the text holds none.
    """

    def holds(count: int) -> bool:
        text = tokenizer.decode(list(ids[:count]), skip_special_tokens=True)
        return any(string in text for string in stop_strings)

    if not ids or not holds(len(ids)):
        return None
    # By bisection, since decoding costs most: more tokens only add text.
    low, high = 0, len(ids)  # holds(high) and not holds(low)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


class StopRules:
    """All the reasons for which a row of one decoding may be finished before its masks are.

    Args:
        sampler: its end ids and remasking.
        new: (B, L) bool, positions of the appended tokens.
        stop_strings: see `MaskGitGenerationConfig`.
        tokenizer: decodes the new tokens for them.
        criteria: called with (text (R, L), None), return True for rows that are done; masks that
            are left become padding.

    Raises:
        ValueError: for a criterion that cannot work here.
    """

    def __init__(
        self,
        sampler: Sampler,
        new: Tensor,
        stop_strings: str | Sequence[str] | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        criteria: Sequence[Callable[..., Any]] | None = None,
    ) -> None:
        self._sampler, self._new, self._tokenizer = sampler, new, tokenizer
        strings = [stop_strings] if isinstance(stop_strings, str) else stop_strings
        self._strings = list(strings or [])
        if criteria is not None and not isinstance(criteria, Sequence):
            raise TypeError(
                f"`stopping_criteria` must be a list, got {type(criteria).__name__}; put a single "
                "one in brackets."
            )
        self._criteria = list(criteria or [])
        self._may_end = len(sampler.end_ids) > 0
        check_callables("stopping_criteria", self._criteria)
        if self._strings and tokenizer is not None:
            check_is_tokenizer(tokenizer)
        for criterion in self._criteria:
            kind = type(criterion)
            hint = _REFUSED_CRITERIA.get(kind.__name__)
            if kind.__module__ == stopping_criteria.__name__ and hint:
                raise ValueError(f"{kind.__name__} cannot stop parallel decoding: {hint}.")

    def check(
        self, num_new: int, can_end: Tensor, pad_token_id: int | None, are_named: bool
    ) -> None:
        """Refuse rules that this batch has no use or no padding for, and note whether texts end.

        Args:
            num_new: tokens that are appended to each row.
            can_end: (B, L) bool, positions where a text may end.
            pad_token_id: what fills a row that is cut off.
            are_named: whether the call itself names the stop strings.

        Raises:
            ValueError: for stop strings without a tokenizer, or named where nothing is appended,
                or no padding.
        """
        if not num_new and not are_named:
            self._strings = []  # as a stored length, stored ones are for texts that are continued
        if self._strings and self._tokenizer is None:
            raise ValueError(
                "`stop_strings` are looked for in decoded text; pass the model's `tokenizer=` too."
            )
        self._may_end = self._may_end and bool(can_end.any())
        if self._may_end and pad_token_id is None:
            raise ValueError(
                "`pad_token_id` is not set, which fills a row behind its end of text; pass it, or "
                "set it in model.generation_config."
            )
        if self._strings and not num_new:
            raise ValueError(
                "`stop_strings` end appended text, and nothing is appended here; leave them out, "
                "or ask for `max_new_tokens`."
            )
        if (self._strings or self._criteria) and pad_token_id is None:
            raise ValueError(
                "`pad_token_id` is not set, which fills a row that `stopping_criteria` or "
                "`stop_strings` cut off; pass it, or set it in model.generation_config."
            )

    @property
    def stop_fn(self) -> StopFn | None:
        """What `fill_masks` asks after each pass; None when nothing can stop a row."""
        return self._stop if self._may_end or self._strings or self._criteria else None

    def ends(self, text: Tensor, can_end: Tensor) -> Tensor:
        """Mark where the rows end, (B, L) bool: an end of text, or the last token of a stop."""
        # The id of an end may also be a separator inside what is known: that ends nothing.
        return torch.isin(text, self._sampler.end_ids) & can_end | self._stops(text, self._new)

    def ends_so_far(self, rows: Tensor, state: DecodingState) -> tuple[Tensor, Tensor]:
        """Mark where these rows (R,) end as they stand, and what is certain, both (R, L) bool."""
        certain = settled(state, self._sampler.remask)
        ends = torch.isin(state.text, self._sampler.end_ids) & state.can_end
        new = self._new[rows]
        # Only the certain start of the new text can be read: what comes behind may still change it.
        readable = new & ((certain | ~new).long().cumprod(1) == 1)
        return ends | self._stops(state.text, readable), certain

    def _stop(self, rows: Tensor, state: DecodingState) -> Tensor:
        # Criteria of the caller's see the rows as they stand, masks and all.
        done = ended_rows(*self.ends_so_far(rows, state))
        for criterion in self._criteria:
            done = done | _verdict(criterion(state.text, None), done)
        return done

    def _stops(self, text: Tensor, readable: Tensor) -> Tensor:
        marks = torch.zeros_like(readable)
        if not self._strings or self._tokenizer is None:
            return marks
        for row, positions in enumerate(readable):
            ids = text[row, positions].tolist()
            count = tokens_until(ids, self._strings, self._tokenizer)
            if count is not None:
                marks[row, positions.nonzero()[count - 1]] = True
        return marks
