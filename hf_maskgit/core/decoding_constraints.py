"""Which tokens may stand where, and which processors of scores mean something here.

Letters: B rows, W columns of the returned rows, V vocabulary.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.generation import logits_process

from .argument_checks import check_callables
from .decoding_layout import PackedRows
from .decoding_state import DecodingState
from .sampler import Sampler

# For every filled position; by column of the returned rows; or that for each row.
AllowedTokens = (
    Sequence[int] | Mapping[int, Sequence[int]] | Sequence[Mapping[int, Sequence[int]] | None]
)


def start_state(
    rows: PackedRows, sampler: Sampler, allowed: AllowedTokens | None, vocab_size: int
) -> DecodingState:
    """Make the state before the first pass, with the caller's constraints in packed order.

    Args:
        rows: the B packed rows.
        sampler: its blocks, and what it suppresses anyway.
        allowed: ids that may be emitted, see `AllowedTokens`; None allows all.
        vocab_size: V.

    Raises:
        ValueError: for constraints that do not fit or leave nothing to emit.
    """
    if allowed is None:
        return DecodingState.start(rows.text, rows.masked, rows.can_end, sampler.block_length)
    num_rows, width = rows.columns.shape
    index, table = allowed_tables(allowed, num_rows, width, sampler.suppressed, vocab_size)
    index, table = index.to(rows.text.device), table.to(rows.text.device)
    # The caller counts columns of the returned rows, the denoiser positions of the packed ones.
    packed = rows.layout.pack_arranged(index)
    check_ends(packed, table, sampler.end_ids, rows.masked, rows.can_end)
    return DecodingState.start(
        rows.text, rows.masked, rows.can_end, sampler.block_length, packed, table
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
        # Positions with the same ids share a row: (T, V) stays small where a thousand have one.
        key = tuple(sorted({int(i) for i in ids}))
        if key not in known:
            known[key] = len(table)
            table.append(_row(key, where, suppressed, vocab_size))
        return known[key]

    per_row = _per_row(allowed, num_rows)
    if per_row is None:
        index += entry(list(allowed), "anywhere")  # type: ignore[arg-type]
        return index, torch.stack(table)
    for row, columns in enumerate(per_row):
        for column, ids in (columns or {}).items():
            if type(column) is not int or not 0 <= column < width:
                raise ValueError(
                    f"`allowed_token_ids` names column {column!r}; the returned rows have 0 to "
                    f"{width - 1}."
                )
            if not _is_ids(ids):
                raise ValueError(
                    f"`allowed_token_ids` must give column {column} a list of token ids, got "
                    f"{ids!r}."
                )
            index[row, column] = entry(ids, f"in column {column}")
    return index, torch.stack(table)


def _per_row(
    allowed: AllowedTokens, num_rows: int
) -> Sequence[Mapping[int, Sequence[int]] | None] | None:
    if isinstance(allowed, Mapping):
        return [allowed] * num_rows
    if _is_ids(allowed) and len(allowed):
        return None
    per_row = isinstance(allowed, Sequence) and len(allowed)
    if not per_row or not all(isinstance(i, Mapping | None) for i in allowed):
        raise ValueError(
            "`allowed_token_ids` must be a list of ids, a dict from column to such a list, or one "
            f"dict (or None) per row, got {allowed!r}."
        )
    if len(allowed) != num_rows:
        raise ValueError(
            f"`allowed_token_ids` has {len(allowed)} entries for {num_rows} returned rows."
        )
    return allowed  # type: ignore[return-value]


def check_ends(
    allowed: Tensor, allowed_table: Tensor, end_ids: Tensor, masked: Tensor, can_end: Tensor
) -> None:
    """Refuse masks that may hold nothing but an end of text where none may stand.

    Args:
        allowed: (B, L) long, row of the table that each position keeps to.
        allowed_table: (T, V) bool, see `allowed_tables`.
        end_ids: (E,) long, ids that end a text.
        masked: (B, L) bool, positions to fill.
        can_end: (B, L) bool, those of them where a text may end.

    Raises:
        ValueError: naming the row.
    """
    holds_others = allowed_table.index_fill(1, end_ids, False).any(1)[allowed]
    impossible = (masked & ~can_end & ~holds_others).any(1).nonzero()
    if len(impossible):
        raise ValueError(
            "`allowed_token_ids` allows nothing but an end of text at a mask with known tokens "
            f"behind it, in returned row {int(impossible[0])}; allow another id there."
        )


def _is_ids(value: object) -> bool:
    return isinstance(value, Sequence) and all(type(i) is int for i in value)


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
            f"`allowed_token_ids` leaves nothing to emit {where}: every id it names there is "
            "suppressed."
        )
    return row


# Processors of transformers that look at one position's scores alone (or, the penalty, at which
# tokens a row holds): they mean the same in parallel decoding. The others count on tokens arriving
# one by one.
_PARALLEL_PROCESSORS = frozenset(
    "EpsilonLogitsWarper EtaLogitsWarper InfNanRemoveLogitsProcessor LogitNormalization "
    "MinPLogitsWarper RepetitionPenaltyLogitsProcessor SuppressTokensLogitsProcessor "
    "TemperatureLogitsWarper TopHLogitsWarper TopKLogitsWarper TopPLogitsWarper "
    "TypicalLogitsWarper".split()
)


def asked_processors(
    given: Sequence[LogitsProcessor] | None, repetition_penalty: float | None
) -> LogitsProcessorList:
    """Collect what changes the scores before the temperature.

    Args:
        given: by the caller.
        repetition_penalty: option of that name.

    Raises:
        ValueError: for a processor that counts on tokens arriving one by one.
    """
    processors = _check_processors(given)
    if repetition_penalty is not None and repetition_penalty != 1:
        penalty = float(repetition_penalty)  # transformers takes no integer
        processors.append(logits_process.RepetitionPenaltyLogitsProcessor(penalty))
    return processors


def asked_warpers(top_k: int | None, top_p: float | None) -> LogitsProcessorList:
    """Collect what changes them after the temperature: the options of these names."""
    warpers = LogitsProcessorList()
    if top_k:
        warpers.append(logits_process.TopKLogitsWarper(top_k))
    if top_p is not None and top_p < 1:
        warpers.append(logits_process.TopPLogitsWarper(top_p))
    return warpers


def _check_processors(processors: Sequence[LogitsProcessor] | None) -> LogitsProcessorList:
    if processors is not None and not isinstance(processors, Sequence):
        raise TypeError(
            f"`logits_processor` must be a list of processors, got {type(processors).__name__}; "
            "put a single one in brackets."
        )
    check_callables("logits_processor", processors or [])
    for processor in processors or []:
        kind = type(processor)
        if kind.__module__ == logits_process.__name__ and kind.__name__ not in _PARALLEL_PROCESSORS:
            raise ValueError(
                f"{kind.__name__} reads the tokens in the order they were written, which parallel "
                f"decoding does not have; these work: {', '.join(sorted(_PARALLEL_PROCESSORS))}, "
                "and processors of your own that look at one position at a time."
            )
    return LogitsProcessorList(processors or [])
