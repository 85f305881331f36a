"""From what a caller gives `generate` to packed rows, with every check on the way.

Letters: B rows, R returned rows, P prompt columns, Q columns of negative prompts, L length.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from .configuration_maskgit import MaskGitConfig
from .decoding_layout import PackedRows, pack_rows
from .decoding_lengths import (
    NUM_TOKENS,
    UNLIMITED,
    Room,
    asked_lengths,
    body_lengths,
    spanned_lengths,
)
from .generation_config_maskgit import MaskGitGenerationConfig
from .noise import row_seeds
from .row_checks import check_ids, check_rows
from .trained_length import warn_of_length
from .unknown_tokens import Tolerance, check_rows_read


class Reader(Protocol):
    """What is asked of the model that is to read the prompts: `MaskGitGenerationMixin` has it."""

    config: MaskGitConfig
    device: Any

    @property
    def max_positions(self) -> int | None:
        """Longest text in tokens that it takes; None when it sets no limit."""


class Given(NamedTuple):
    """What a caller gives `generate` to start from, under its names there.

    Attributes:
        input_ids: (B, P) long; None or no columns is one text, or B, from nothing.
        attention_mask: (B, P), 1 at real tokens; None means that all are.
        token_type_ids: (B, P) long.
        seed: one int, or one per row or returned row.
        generator: draws the seeds where there are none.
    """

    input_ids: Tensor | None
    attention_mask: Tensor | None = None
    token_type_ids: Tensor | None = None
    seed: int | Sequence[int] | None = None
    generator: torch.Generator | None = None


@dataclass(frozen=True)
class Prompts:
    """A batch that is ready to be decoded.

    Attributes:
        rows: the R returned rows as the denoiser sees them.
        token_type_ids: (R, L) long, packed likewise, where some were given.
        seeds: one per returned row.
        repeats: returned rows per row that was given.
        holds_masks: masks were given, so that the text is filled.
        from_nothing: there is no prompt but the framing.
        max_unknown_share: how much of a row may be unknown to the tokenizer.
    """

    rows: PackedRows
    token_type_ids: Tensor | None
    seeds: Sequence[int]
    repeats: int
    holds_masks: bool
    from_nothing: bool
    max_unknown_share: float = Tolerance.max_unknown_share

    @property
    def is_continued(self) -> bool:
        """Whether there is a prompt in which nothing is filled."""
        return not self.holds_masks and not self.from_nothing


def pack_prompts(
    model: Reader,
    given: Given,
    options: MaskGitGenerationConfig,
    named: Collection[str],
    by_pattern: Callable[[Room], Tensor],
) -> Prompts:
    """Check the rows, give each its seed, append masks and pack them to right padding.

    Args:
        model: its vocabulary, framing and longest text.
        given: the B rows.
        options: how many texts per row, and how many masks where some are appended.
        named: options that the call itself names; only if it says how many masks are some appended
            to rows that hold masks.
        by_pattern: counts them by the patterns of the call, where that is asked for.

    Raises:
        ValueError: for rows that cannot be read, are too long or mostly unknown to the tokenizer,
            or of which it cannot be told whether they are filled or continued.
    """
    config, repeats = model.config, options.num_return_sequences
    input_ids, attention_mask, token_type_ids, seed, generator = given
    # A tokenizer without framing makes a row of no columns of an empty text.
    from_nothing = input_ids is None or (input_ids.ndim == 2 and input_ids.shape[1] == 0)
    if input_ids is None or from_nothing:
        num_rows = 1 if input_ids is None else len(input_ids)
        if input_ids is not None and num_rows == 0:
            check_ids("input_ids", input_ids, None)  # which refuses it
        input_ids = _frames(config, num_rows, input_device(model, input_ids))
        # All of it is real, also where a token that frames a text pads it elsewhere.
        attention_mask, token_type_ids = torch.ones_like(input_ids), None
    else:
        attention_mask = _checked_mask(config, input_ids, attention_mask, token_type_ids)
    tolerated = options.max_unknown_share
    check_rows_read(config, input_ids, attention_mask, "`input_ids`", tolerated)
    draws = options.do_sample or NUM_TOKENS[options.num_tokens].draws
    seeds = row_seeds(len(input_ids), repeats, seed, generator, draws)
    asked = asked_lengths(options.max_new_tokens, len(input_ids), repeats, input_ids.device)
    input_ids = input_ids.long().repeat_interleave(repeats, 0)
    attention_mask = attention_mask.repeat_interleave(repeats, 0)
    masks = (input_ids == config.mask_token_id) & (attention_mask == 1)
    holds_masks = bool(masks.any())
    limited, way = "max_new_tokens" in named, NUM_TOKENS[options.num_tokens]

    def pack(num_new: Tensor, stride: int = 1) -> Prompts:
        ids, real = input_ids[::stride], attention_mask[::stride]
        packing = ids, real, num_new, model.max_positions, from_nothing
        rows = _pack(config, *packing, options.pad_token_id or 0)
        types = token_type_ids
        if types is not None:
            types = rows.pack_types(types.long().repeat_interleave(repeats, 0)[::stride], real)
        copies = repeats // stride
        return Prompts(rows, types, seeds[::stride], copies, holds_masks, from_nothing, tolerated)

    # A stored length is for texts that are continued; it must not lengthen one that is filled.
    if holds_masks and not limited and not ("num_tokens" in named and way.varies):
        _check_all_hold_masks(masks)
        return pack(torch.zeros_like(asked))
    room = (model.max_positions or UNLIMITED) - attention_mask.sum(1)
    most = torch.minimum(room, asked) if limited else room
    known = body_lengths(config, input_ids, attention_mask)
    spanned = spanned_lengths(config, input_ids, attention_mask, masks)
    yields = limited and "num_tokens" not in named
    lengths = known, asked, most, seeds, limited, yields, repeats, spanned
    num_new = way.count(Room(config, *lengths, pack, by_pattern))
    _check_can_be_padded(num_new, options)
    return pack(num_new)


def input_device(model: Reader, input_ids: Tensor | None) -> torch.device:
    """Return where tokens lie; offloaded weights may lie nowhere until they are used.

    Raises:
        TypeError: for `input_ids` that are no tensor.
    """
    if input_ids is None:
        return torch.device("cpu") if model.device.type == "meta" else model.device
    if not isinstance(input_ids, Tensor):
        raise TypeError(
            f"`input_ids` must be a tensor of token ids, got {type(input_ids).__name__}. Of "
            "texts write model.generate(**tokenizer(texts, padding=True, "
            'return_tensors="pt")).'
        )
    return input_ids.device


def pack_negative_prompts(
    model: Reader, prompts: Prompts, input_ids: Tensor, attention_mask: Tensor | None
) -> PackedRows:
    """Pack the prompts that guidance pushes away from, with room for the same new tokens.

    Args:
        model: its vocabulary, framing and longest text.
        prompts: the rows that are decoded.
        input_ids: (1, Q), (B, Q) or (R, Q) long.
        attention_mask: (.., Q), 1 at real tokens; None means that all are.

    Raises:
        ValueError: for rows that cannot be read or do not fit those that are decoded.
    """
    rows = prompts.rows
    if prompts.holds_masks or not rows.most_new:
        raise ValueError(
            "`negative_prompt_ids` stand in for a prompt that is continued; this text holds "
            "masks of its own. Leave them out to push away from the text with what is known "
            "masked."
        )
    attention_mask = _checked_mask(
        model.config, input_ids, attention_mask, None, "negative_prompt_"
    )
    tolerated = prompts.max_unknown_share
    check_rows_read(model.config, input_ids, attention_mask, "`negative_prompt_ids`", tolerated)
    given, returned = len(input_ids), len(rows.text)
    num_prompts = returned // prompts.repeats
    if given not in (1, num_prompts, returned):
        raise ValueError(
            f"`negative_prompt_ids` have {given} rows for {num_prompts} prompts and "
            f"{returned} returned texts; give one for all, or one per prompt or returned text."
        )
    # Each row of the other prompts needs as many new positions as its row of the batch has masks.
    others = _pack(
        model.config,
        input_ids.long().repeat_interleave(returned // given, 0),
        attention_mask.repeat_interleave(returned // given, 0),
        rows.num_new,
        model.max_positions,
    )
    if int(others.masked.sum()) != int(rows.masked.sum()):
        raise ValueError("`negative_prompt_ids` hold masks; a prompt must be whole.")
    return others


def mask_token_id_of(config: MaskGitConfig) -> int:
    """Return the id of the mask.

    Raises:
        ValueError: when the config has none.
    """
    if config.mask_token_id is None:
        raise ValueError(
            "The model's config has no `mask_token_id`, so nothing can be filled; set "
            "model.config.mask_token_id = tokenizer.mask_token_id."
        )
    return config.mask_token_id


def ids_of_decoding(
    config: MaskGitConfig, options: MaskGitGenerationConfig
) -> tuple[list[int], list[int]]:
    """Say which ids are never written, and which ones end a text.

    Options add to what the model knows of its tokens and take nothing away: what ends a text for
    the model ends it under every option, so that it never stands in a hole as a word would.

    Args:
        config: what the model knows.
        options: `suppress_tokens`, `bad_words_ids`, `eos_token_id`, and the id of padding.

    Returns:
        Both sorted.

    Raises:
        ValueError: for an id that the vocabulary does not have, or when nothing is left to write.
    """
    vocab_size = config.get_text_config().vocab_size
    named = [*(options.suppress_tokens or []), *(word[0] for word in options.bad_words_ids or [])]
    ends = options.eos_token_id if isinstance(options.eos_token_id, list) else None
    if ends is None:
        ends = [] if options.eos_token_id is None else [options.eos_token_id]
    padding = [] if options.pad_token_id is None else [options.pad_token_id]
    for name, ids in (
        ("suppress_tokens` or `bad_words_ids", named),
        ("eos_token_id", ends),
        ("pad_token_id", padding),
    ):
        outside = [i for i in ids if not 0 <= i < vocab_size]
        if outside:
            raise ValueError(
                f"`{name}` names the id {outside[0]}; the vocabulary has 0 to {vocab_size - 1}."
            )
    suppressed = {*config.unwritten_token_ids, *named}
    end_ids = {*config.end_token_ids, *ends}
    if len(suppressed | end_ids) == vocab_size:
        raise ValueError("Every token of the vocabulary is suppressed; leave at least one.")
    return sorted(suppressed), sorted(end_ids)


def _checked_mask(
    config: MaskGitConfig,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    token_type_ids: Tensor | None,
    prefix: str = "",
) -> Tensor:
    """Check what the caller gave, see `check_rows`, and return the attention mask, (B, P) long.

    Raises:
        ValueError: also for a row that is all padding.
    """
    check_rows(config, input_ids, attention_mask, token_type_ids, prefix)
    if attention_mask is None:
        return torch.ones_like(input_ids)
    empty = (attention_mask.sum(1) == 0).nonzero()
    if len(empty):
        raise ValueError(
            f"Row {int(empty[0])} of `{prefix or 'input_'}ids` is all padding; give it at least "
            "one real token, or call generate() without input_ids to write from nothing."
        )
    return attention_mask.long()


def _check_all_hold_masks(masks: Tensor) -> None:
    """Refuse a batch of which it cannot be told whether its rows are filled or continued."""
    without = (~masks.any(1)).nonzero()
    if len(without):
        raise ValueError(
            f"Row {int(without[0])} of the batch holds no mask and other rows do. Name "
            "`max_new_tokens` in the call: every row is then continued by as many tokens, 0 "
            "only fills masks. Or pass texts to fill and texts to continue in calls of their "
            "own."
        )


def _check_can_be_padded(num_new: Tensor, options: MaskGitGenerationConfig) -> None:
    """Refuse rows of different lengths where nothing can stand behind the shorter ones."""
    # also where they came out equal: whether it works must not hang on a draw
    varies = NUM_TOKENS[options.num_tokens].varies or int(num_new.min()) < int(num_new.max())
    if varies and options.pad_token_id is None:
        raise ValueError(
            "`pad_token_id` is not set, which fills rows that get fewer new tokens than others; "
            "pass it, or set it in model.generation_config."
        )


def _frames(config: MaskGitConfig, num_rows: int, device: torch.device) -> Tensor:
    """Return empty texts in their framing, (B, P) long."""
    frame = [*(config.prefix_ids or []), *(config.suffix_ids or [])]
    return torch.tensor([frame] * num_rows, dtype=torch.long, device=device)


def _pack(
    config: MaskGitConfig,
    input_ids: Tensor,
    attention_mask: Tensor,
    num_new: Tensor,
    max_positions: int | None,
    from_nothing: bool = False,
    filler_id: int = 0,
) -> PackedRows:
    # RoBERTa and its kin derive positions from the padding id, so their own must stand there.
    pad_token_id = config.get_text_config().pad_token_id
    most = int(num_new.max())
    if max_positions is not None and most > max_positions:  # before there is room for them
        raise ValueError(
            f"`max_new_tokens` is {most}, and the encoder takes {max_positions} tokens, the "
            "prompt among them; ask for fewer."
        )
    rows = pack_rows(
        input_ids,
        attention_mask,
        num_new=num_new,
        mask_token_id=mask_token_id_of(config),
        pad_token_id=config.pad_token_id or 0 if pad_token_id is None else pad_token_id,
        suffix_ids=config.suffix_ids or [],
        from_nothing=from_nothing,
        filler_id=filler_id,
    )
    row = int(rows.layout.lengths.argmax())
    longest = int(rows.layout.lengths[row])
    if max_positions is not None and longest > max_positions:
        raise ValueError(
            f"The longest row comes to {longest} tokens ({int(num_new[row])} of them new), the "
            f"encoder takes {max_positions}. Shorten the prompt or ask for fewer `max_new_tokens`."
        )
    warn_of_length(config, longest, "what it writes")
    return rows
