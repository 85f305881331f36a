"""How many tokens each row gets: as many as are asked for, or what training says of lengths.

Letters: B rows, R returned rows, P prompt columns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .configuration_maskgit import MaskGitConfig
from .decoding_layout import ends_with, starts_with
from .length_law import LengthLaw
from .noise import keyed_generator

_LENGTH_STREAM = 0x6C656E67  # tells the draw of a row's length from those of its passes
UNLIMITED = 2**31 - 1


class Room(NamedTuple):
    """What there is to know of R rows before their new tokens are counted.

    Attributes:
        config: of the model.
        known: (R,) long, tokens of each row without its framing.
        asked: (R,) long, `max_new_tokens`.
        most: (R,) long, new tokens that the encoder has room for and, where the call itself names
            it, `max_new_tokens` allows.
        seeds: one per row.
        limited: whether the call itself names `max_new_tokens`.
        yields: whether it does, and leaves the way to count to what is stored: of a row for which
            that finds no number, its own counts.
        repeats: returned rows per row that was given.
        spanned: (R,) long, tokens from each row's first mask on, 0 where it holds none.
        pack: returns every so-many-th row as it would be decoded with (M,) new tokens each.
        by_pattern: chooses by the patterns of the call.
    """

    config: MaskGitConfig
    known: Tensor
    asked: Tensor
    most: Tensor
    seeds: Sequence[int]
    limited: bool
    yields: bool
    repeats: int
    spanned: Tensor
    pack: Callable[[Tensor, int], Any]
    by_pattern: Callable[["Room"], Tensor]


def body_lengths(config: MaskGitConfig, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Count the tokens of each row without its framing, (B, P) -> (B,) long."""
    prefix, suffix = config.prefix_ids or [], config.suffix_ids or []
    framed = starts_with(input_ids, attention_mask, prefix) * len(prefix)
    framed = framed + ends_with(input_ids, attention_mask, suffix) * len(suffix)
    return (attention_mask.bool().sum(1) - framed).clamp_min(0)


def spanned_lengths(
    config: MaskGitConfig, input_ids: Tensor, attention_mask: Tensor, masks: Tensor
) -> Tensor:
    """Count the tokens from each row's first mask (B, P) bool on, what closes it left out."""
    suffix = config.suffix_ids or []
    from_first = (masks.long().cumsum(1) > 0) & attention_mask.bool()
    closing = ends_with(input_ids, attention_mask, suffix) * len(suffix)
    return (from_first.sum(1) - closing).clamp_min(0)


def asked_lengths(
    max_new_tokens: int | Sequence[int], num_rows: int, repeats: int, device: torch.device
) -> Tensor:
    """Give each returned row its number of new tokens, (R,) long.

    Args:
        max_new_tokens: one for all, or one per row or per returned row.
        num_rows: B.
        repeats: returned rows per row.
        device: where to.

    Raises:
        ValueError: for a number of entries that does not fit.
    """
    returned = num_rows * repeats
    lengths = torch.as_tensor(max_new_tokens, dtype=torch.long, device=device)
    if lengths.ndim == 0:
        return lengths.expand(returned)
    if len(lengths) == returned:
        return lengths
    if len(lengths) != num_rows:
        raise ValueError(
            f"`max_new_tokens` has {len(lengths)} entries for {num_rows} rows and {returned} "
            "returned texts; give one number for all, one per row, or one per returned text."
        )
    return lengths.repeat_interleave(repeats)


def _as_asked(room: Room) -> Tensor:
    return room.asked


def _sampled(room: Room) -> Tensor:
    """Draw T - known for the length T of a whole text, given that known < T <= known + most."""
    if room.config.lengths is None and room.yields:
        return room.asked
    if room.config.lengths is None:
        raise ValueError(
            "num_tokens='sampled' draws from the lengths of the texts that the model was trained "
            "on, and its configuration has no `lengths`: it was trained before they were stored, "
            "or on a stream or on packed blocks. Give `max_new_tokens`."
        )
    law = LengthLaw(room.config.lengths)
    uniforms = torch.tensor(
        [
            float(torch.rand((), generator=keyed_generator(s, _LENGTH_STREAM), dtype=torch.float64))
            for s in room.seeds
        ],
        dtype=torch.float64,
    )
    known, most = room.known.tolist(), room.most.tolist()
    total = law.draw(
        [k + 1 for k in known], [k + m for k, m in zip(known, most, strict=True)], uniforms
    )
    if bool((total == 0).any()) and not room.yields:
        row = int((total == 0).nonzero()[0])
        raise ValueError(
            f"num_tokens='sampled' finds no length for row {row}: it has {known[row]} tokens, "
            f"framing left out, there is room for {max(most[row], 0)} more, and the longest text "
            f"of training had {law.longest}. Shorten the prompt, or give `max_new_tokens` with "
            "num_tokens='fixed'."
        )
    total = total.to(room.known.device)
    return torch.where(total == 0, room.asked, total - room.known)


def _window(room: Room) -> Tensor:
    """Count what is missing to the window that training filled texts up to."""
    window = room.config.end_fill
    if window is None and room.yields:
        return room.asked
    if window is None:
        raise ValueError(
            "num_tokens='window' fills each row up to the window in which training showed ends of "
            "text, and the model was trained without `end_fill`. Give `max_new_tokens`."
        )
    framing = len(room.config.prefix_ids or []) + len(room.config.suffix_ids or [])
    missing = window - framing - room.known
    if bool((missing < 1).any()) and not room.yields:
        row = int((missing < 1).nonzero()[0])
        raise ValueError(
            f"num_tokens='window' has no room in row {row}: it has {int(room.known[row])} tokens, "
            f"framing left out, and the window of training takes {window - framing}. Shorten the "
            "prompt, or give `max_new_tokens` with num_tokens='fixed'."
        )
    if not room.limited:
        return missing
    return torch.where(missing < 1, room.asked, torch.minimum(missing, room.asked))


def _by_pattern(room: Room) -> Tensor:
    return room.by_pattern(room)


@dataclass(frozen=True)
class NumTokens:
    """One way to decide how many tokens each row gets.

    Attributes:
        help: what it does, as part of a sentence.
        count: returns the number of each row, (R,) long.
        draws: whether it needs the rows' seeds.
        varies: whether rows get different numbers by themselves: a call that names it asks for a
            length.
        reads: the field of the configuration that it goes by; None needs none.
        exact: whether texts of a pattern have just so many, and do not end before.
    """

    help: str
    count: Callable[[Room], Tensor]
    draws: bool = False
    varies: bool = True
    reads: str | None = None
    exact: bool = False

    def known_by(self, config: MaskGitConfig) -> bool:
        """Whether a model knows what this needs."""
        return self.reads is None or getattr(config, self.reads) is not None


NUM_TOKENS: dict[str, NumTokens] = {
    "fixed": NumTokens("`max_new_tokens` of them", _as_asked, varies=False),
    "sampled": NumTokens(
        "as many as make a text of a length drawn from those that training saw, given that it is "
        "longer than what is known and fits; `max_new_tokens`, named in the call, is the most",
        _sampled,
        draws=True,
        reads="lengths",
    ),
    "window": NumTokens(
        "as many as fill the window that a model trained with `end_fill` ends its texts in; "
        "`max_new_tokens`, named in the call, is the most",
        _window,
        reads="end_fill",
    ),
    "pattern": NumTokens(
        "as many as the row's `pattern` takes, drawn by the probability with which the first pass "
        "writes a text of it in so many, greedily the likeliest; `max_new_tokens`, named in the "
        "call, is the most",
        _by_pattern,
        exact=True,
    ),
}
