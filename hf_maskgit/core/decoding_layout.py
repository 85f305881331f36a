"""Where tokens stand: rows packed for the denoiser, and put back for the caller.

A batch may mix left and right padding and prompts that end in a closing special token. Encoders
differ in which of these they take, but nearly all are right under right padding. So `generate`
packs each row as [prompt][new][closing][padding], decodes, and puts every token back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Layout(NamedTuple):
    """Two orders of the columns [prompt (P) | new (n)], each (B, P + n) long.

    Attributes:
        packed: column that stands at each position of the packed row.
        arranged: column that stands at each position of the caller's row.
        lengths: (B,) long, tokens of each packed row that are not padding.
    """

    packed: Tensor
    arranged: Tensor
    lengths: Tensor

    def pack(self, columns: Tensor) -> Tensor:
        """Reorder (B, P + n) columns into packed rows, cut to the longest one."""
        return columns.gather(1, self.packed)[:, : int(self.lengths.max())]

    def restore(self, columns: Tensor, packed_rows: Tensor) -> Tensor:
        """Write packed rows back over `columns` (B, P + n) and arrange them for the caller."""
        order = self.packed[:, : packed_rows.shape[1]]
        return columns.scatter(1, order, packed_rows).gather(1, self.arranged)

    def pack_arranged(self, rows: Tensor) -> Tensor:
        """Reorder (B, P + n) rows as the caller sees them into packed rows."""
        return self.pack(torch.empty_like(rows).scatter(1, self.arranged, rows))


@dataclass(frozen=True)
class PackedRows:
    """A batch as the denoiser sees it, with the way back.

    Attributes:
        layout: where every column stands.
        columns: (B, P + n) long, the prompt and the appended masks.
        num_new: (B,) long, masks that are appended to each row; n is the most of them.
        mask_token_id: the mask.
        real: (B, L) bool, packed positions that are not padding.
        text: (B, L) long, packed rows, padded with the encoder's own padding id.
        masked: (B, L) bool, the masks to fill.
        can_end: (B, L) bool, masks with no known token behind them: only there may a text end.
        tail: (B, L) bool, what becomes padding behind an end of text.
    """

    layout: Layout
    columns: Tensor
    num_new: Tensor
    mask_token_id: int
    real: Tensor
    text: Tensor
    masked: Tensor
    can_end: Tensor
    tail: Tensor

    def pack_types(self, token_type_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Pack (B, P) token types; new tokens take the last real token's."""
        position = torch.arange(token_type_ids.shape[1], device=token_type_ids.device)
        last = torch.where(attention_mask.bool(), position, -1).amax(1, keepdim=True)
        of_new = token_type_ids.gather(1, last).expand(-1, self.most_new)
        return self.layout.pack(torch.cat([token_type_ids, of_new], 1))

    @property
    def most_new(self) -> int:
        """n, the columns that are appended to every row; one with fewer tokens is padded there."""
        return int(self.num_new.max())

    @property
    def new(self) -> Tensor:
        """Places of the appended tokens, (B, L) bool."""
        is_new = torch.zeros_like(self.columns)
        is_new[:, self.columns.shape[1] - self.most_new :] = 1
        return self.real & (self.layout.pack(is_new) == 1)

    def restore(self, packed: Tensor, elsewhere: float | None = None) -> Tensor:
        """Put packed positions back in their columns, (B, L) -> (B, P + n).

        Args:
            packed: (B, L), what stands there.
            elsewhere: what stands at padding; None for the caller's own ids, which need not be the
                encoder's.
        """
        if elsewhere is None:
            columns = self.columns
            packed = torch.where(self.real, packed, self.layout.pack(columns))
        else:
            columns = packed.new_full(self.columns.shape, elsewhere)
            packed = packed.masked_fill(~self.real, elsewhere)
        return self.layout.restore(columns, packed)

    def finish(self, filled: Tensor, ends: Tensor, pad_token_id: int | None) -> Tensor:
        """Pad behind each row's first end and put all tokens back, (B, L) -> (B, P + n).

        Args:
            filled: (B, L) long; masks are left only in rows that were stopped.
            ends: (B, L) bool, where a text ends.
            pad_token_id: what stands behind the end and in place of masks that are left.
        """
        if pad_token_id is not None:
            filled = filled.masked_fill(self.cut_off(filled, ends), pad_token_id)
        return self.restore(filled)

    def cut_off(self, filled: Tensor, ends: Tensor) -> Tensor:
        """Mark the positions (B, L) bool that `finish` pads; the arguments are its."""
        left = self.masked & (filled == self.mask_token_id)
        return behind_first(ends, self.tail) | left


def pack_rows(
    input_ids: Tensor,
    attention_mask: Tensor,
    *,
    num_new: int | Tensor,
    mask_token_id: int,
    pad_token_id: int,
    suffix_ids: Sequence[int],
    from_nothing: bool,
    filler_id: int = 0,
) -> PackedRows:
    """Append masks to every row and pack it to right padding.

    Args:
        input_ids: (B, P) long.
        attention_mask: (B, P), 1 at real tokens.
        num_new: masks to append, the same number for all or (B,) long.
        mask_token_id: the mask.
        pad_token_id: what the encoder wants to see at padding.
        suffix_ids: closing special tokens; at the end of a prompt that is continued they stay
            behind the new tokens while decoding, as in training.
        from_nothing: the prompt is framing alone; its closing stays behind the text for the caller
            too.
        filler_id: what the caller sees where a row gets fewer masks than another.
    """
    counts = per_row(num_new, attention_mask)
    closed = ends_with(input_ids, attention_mask, suffix_ids) & (counts > 0)
    num_closing = closed * len(suffix_ids)
    layout = plan_layout(attention_mask, counts, num_closing, closing_last=from_nothing)
    columns = append(input_ids, counts, mask_token_id, filler_id)
    position = torch.arange(int(layout.lengths.max()), device=input_ids.device)
    real = position < layout.lengths[:, None]
    text = layout.pack(columns).masked_fill(~real, pad_token_id)
    masked = real & (text == mask_token_id)
    closing = real & (position >= (layout.lengths - num_closing)[:, None])
    behind = real & nothing_behind(real & ~masked & ~closing)
    return PackedRows(
        layout=layout,
        columns=columns,
        num_new=counts,
        mask_token_id=mask_token_id,
        real=real,
        text=text,
        masked=masked,
        can_end=behind & masked,
        tail=behind if from_nothing else behind & masked,
    )


def per_row(num_new: int | Tensor, attention_mask: Tensor) -> Tensor:
    """Return how many tokens each row gets, (B,) long, of one number for all or of theirs."""
    counts = torch.as_tensor(num_new, dtype=torch.long, device=attention_mask.device)
    return counts.expand(len(attention_mask))


def plan_layout(
    attention_mask: Tensor,
    num_new: int | Tensor,
    num_closing: Tensor,
    *,
    closing_last: bool = False,
) -> Layout:
    """Plan both orders of the columns.

    A prompt padded on its right that is continued by two tokens m, its closing token staying behind
    them while decoding:

        columns   [CLS] a b [SEP] .  m m     0 1 2 3 4  5 6
        packed    [CLS] a b m m [SEP] .      0 1 2 5 6 3 4
        arranged  [CLS] a b [SEP] m m .      0 1 2 3 5 6 4

    Args:
        attention_mask: (B, P), 1 at real tokens.
        num_new: tokens to add, the same number for all rows or (B,) long. Every row gets as many
            columns as the most of them, n; one with fewer tokens has padding there.
        num_closing: (B,) long, real tokens at the end of each row that stay behind the new ones
            while decoding.
        closing_last: leave them there in the caller's row too (a text made from nothing);
            otherwise the prompt's columns stay as they were and the new ones follow its last real
            token.
    """
    real = attention_mask.bool()
    batch_size, width = real.shape
    counts = per_row(num_new, attention_mask)
    most = int(counts.max())
    total = width + most
    position = torch.arange(width, device=real.device).expand(batch_size, -1)
    new = torch.arange(width, total, device=real.device).expand(batch_size, -1)

    from_the_end = real.sum(1, keepdim=True) - real.cumsum(1)  # real tokens behind this one
    closing = real & (from_the_end < num_closing[:, None])
    # Sorting by one key: text and new columns by their number, then closing tokens, then padding.
    # In the example above the keys are 0 1 2 10 18 and, of the new ones, 5 6.
    key = position + total * closing + 2 * total * ~real
    unused = new - width >= counts[:, None]
    packed = torch.cat([key, new + 2 * total * unused], 1).argsort(1)

    if closing_last:
        return Layout(packed, packed, real.sum(1) + counts)
    last_real = torch.where(real, position, -1).amax(1, keepdim=True)
    spread = most + 1  # room for the new columns between two old ones
    # In the example every column c has the key 3c and the new ones have 10 11, behind the 9 of the
    # last real token and before the 12 of the padding.
    key = torch.cat([position * spread, last_real * spread + 1 + new - width], 1)
    return Layout(packed, key.argsort(1), real.sum(1) + counts)


def append(rows: Tensor, num_new: Tensor, value: int, filler: int) -> Tensor:
    """Add `num_new` (B,) columns of `value` to (B, P) rows, and of `filler` up to the most."""
    column = torch.arange(int(num_new.max()), device=rows.device)
    added = torch.where(column < num_new[:, None], value, filler)
    return torch.cat([rows, added.to(rows.dtype)], 1)


def ends_with(input_ids: Tensor, attention_mask: Tensor, suffix_ids: Sequence[int]) -> Tensor:
    """Tell which rows' real tokens end in `suffix_ids`, (B,) bool; none for an empty suffix."""
    size = len(suffix_ids)
    real = attention_mask.bool()
    enough = real.sum(1) >= max(size, 1)
    if size == 0 or input_ids.shape[1] < size:
        return torch.zeros_like(enough)
    # A stable sort moves padding to the front, whatever side it stood on.
    last = real.long().argsort(dim=1, stable=True)[:, -size:]
    matches = input_ids.gather(1, last) == torch.tensor(list(suffix_ids), device=input_ids.device)
    return enough & matches.all(1)


def starts_with(input_ids: Tensor, attention_mask: Tensor, prefix_ids: Sequence[int]) -> Tensor:
    """Tell which rows' real tokens begin with `prefix_ids`, (B,) bool; none for an empty prefix."""
    return ends_with(input_ids.flip(1), attention_mask.flip(1), list(prefix_ids)[::-1])


def nothing_behind(known: Tensor) -> Tensor:
    """Mark the positions with no known token at or behind them, (B, L) -> (B, L) bool."""
    return known.flip(1).cumsum(1).flip(1) == 0


def behind_first(ends: Tensor, tail: Tensor) -> Tensor:
    """Mark the tail of each row strictly behind its first end of text.

    Args:
        ends: (B, L) bool, where an end of text stands.
        tail: (B, L) bool, the only positions looked at and marked.

    Returns:
        (B, L) bool.
    """
    ends = ends & tail
    return tail & (ends.cumsum(1) - ends.long() > 0)
