"""Rows before the first pass: bound to what a call asks of them, and to their denoiser."""

from functools import partial
from typing import Any, NamedTuple

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from .decoding_cache import cache_of, make_denoiser
from .decoding_constraints import AllowedTokens, start_state
from .decoding_guidance import denoiser_of
from .decoding_lengths import NUM_TOKENS
from .decoding_patterns import Patterns, per_row, with_patterns
from .decoding_prompts import Prompts
from .decoding_state import DecodingState
from .decoding_turn import LogitsFn
from .generation_config_maskgit import MaskGitGenerationConfig
from .packed_weights import PackedWeights
from .sampler import Sampler


class Asked(NamedTuple):
    """What a call of `generate` asks of its rows, under its names there."""

    allowed_token_ids: AllowedTokens | None
    pattern: Patterns | None
    tokenizer: PreTrainedTokenizerBase | None
    negative_prompt_ids: Tensor | None
    negative_prompt_attention_mask: Tensor | None


def begin(
    model: Any,
    options: MaskGitGenerationConfig,
    sampler: Sampler,
    asked: Asked,
    prompts: Prompts,
    check: bool = True,
) -> tuple[DecodingState, LogitsFn]:
    """Return rows as they are before the first pass, and their denoiser.

    Args:
        model: whose passes they ask for.
        options: how it is asked.
        sampler: what it suppresses, and what ends a text.
        asked: by the call.
        prompts: the rows.
        check: whether rows are refused that cannot match their patterns.

    Raises:
        ValueError: for what does not fit the rows.
    """
    rows, vocab_size = prompts.rows, model.config.get_text_config().vocab_size
    state = start_state(rows, sampler, asked.allowed_token_ids, vocab_size)
    # A number that was chosen by its texts is theirs; masks that are given may end before.
    exact = NUM_TOKENS[options.num_tokens].exact and rows.most_new > 0
    patterns = asked.pattern
    if patterns is not None:
        patterns = per_row(patterns, len(rows.text), prompts.repeats)
    state = with_patterns(state, rows, sampler, patterns, vocab_size, asked.tokenizer, exact, check)
    if patterns is not None and asked.tokenizer is None:
        for pattern in {one for one in patterns if one is not None}:
            pattern.check_fingerprint(model.config.tokenizer_fingerprint)
    # One place for the weights of all its denoisers.
    packs = model.packed_weights or PackedWeights()
    make = partial(make_denoiser, model, options=cache_of(model, options), packs=packs)
    negative = asked.negative_prompt_ids, asked.negative_prompt_attention_mask
    return state, denoiser_of(model, make, prompts, state.block, options.guidance_scale, *negative)
