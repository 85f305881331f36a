"""Which tokens may stand where: vocabularies of single positions.

Letters: B rows, W columns of the returned rows, V vocabulary.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

# For every filled position; by column of the returned rows; or that for each row.
AllowedTokens = (
    Sequence[int] | Mapping[int, Sequence[int]] | Sequence[Mapping[int, Sequence[int]] | None]
)


def allowed_tables(
    allowed: AllowedTokens, num_rows: int, width: int, suppressed: Tensor, vocab_size: int
) -> tuple[Tensor, Tensor]:
    """Turn a caller's constraints into a table.

    Args:
        allowed: ids that may be emitted, see `AllowedTokens`.
        num_rows: B.
        width: W.
        suppressed: (K,) long, ids that are never emitted anyway.
        vocab_size: V.

    Returns:
        Row of the table that each column keeps to (B, W) long, and the table (T, V) bool.

    Raises:
        ValueError: for a wrong shape, a column or an id out of range, or nothing left to emit.
    """
    table = [torch.ones(vocab_size, dtype=torch.bool)]  # row 0: anything
    index = torch.zeros(num_rows, width, dtype=torch.long)
    known: dict[tuple[int, ...], int] = {}

    def entry(ids: Sequence[int], where: str) -> int:
        key = tuple(sorted({int(i) for i in ids}))
        if key not in known:
            known[key] = len(table)
            table.append(_row(key, where, suppressed, vocab_size))
        return known[key]

    per_row = _per_row(allowed, num_rows)
    if per_row is None:
        index += entry(list(allowed), "everywhere")  # type: ignore[arg-type]
        return index, torch.stack(table)
    for row, columns in enumerate(per_row):
        for column, ids in (columns or {}).items():
            if not 0 <= column < width:
                raise ValueError(
                    f"`allowed_token_ids` names column {column}; the returned rows have 0 to "
                    f"{width - 1}."
                )
            index[row, column] = entry(ids, f"in column {column}")
    return index, torch.stack(table)


def _per_row(
    allowed: AllowedTokens, num_rows: int
) -> Sequence[Mapping[int, Sequence[int]] | None] | None:
    if isinstance(allowed, Mapping):
        return [allowed] * num_rows
    if not isinstance(allowed, Sequence) or isinstance(allowed, str) or not len(allowed):
        raise ValueError(
            "`allowed_token_ids` must be a list of ids, a dict from column to such a list, or one "
            f"dict (or None) per row, got {allowed!r}."
        )
    if all(isinstance(i, int) for i in allowed):
        return None
    if len(allowed) != num_rows:
        raise ValueError(
            f"`allowed_token_ids` has {len(allowed)} entries for {num_rows} returned rows."
        )
    return allowed  # type: ignore[return-value]


def _row(ids: tuple[int, ...], where: str, suppressed: Tensor, vocab_size: int) -> Tensor:
    outside = [i for i in ids if not 0 <= i < vocab_size]
    if outside:
        raise ValueError(
            f"`allowed_token_ids` names the id {outside[0]}; the vocabulary has 0 to "
            f"{vocab_size - 1}."
        )
    row = torch.zeros(vocab_size, dtype=torch.bool)
    row[list(ids)] = True
    row[suppressed.cpu()] = False
    if not bool(row.any()):
        raise ValueError(
            f"`allowed_token_ids` leaves nothing to emit {where}: every id it names is suppressed."
        )
    return row
