"""`generate`: masked decoding under the names that users of transformers know.

Infilling is the general case: every mask token of the input is filled and every other token is
known. Continuing a prompt, or writing from nothing, appends masks and does the same.

Letters: B rows, P prompt columns, n new tokens, L length, V vocabulary, N masked positions.
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, PreTrainedTokenizerBase
from transformers.utils import logging

from .attention_cache import twin_of
from .checkpoint_files import stored_options
from .configuration_maskgit import MaskGitConfig
from .decoding import StepCallback, StepFn, fill_masks
from .decoding_constraints import AllowedTokens, asked_processors, asked_warpers
from .decoding_observers import Observer
from .decoding_pattern_lengths import FirstPass
from .decoding_patterns import Patterns
from .decoding_prompts import (
    Given,
    ids_of_decoding,
    input_device,
    mask_token_id_of,
    pack_prompts,
)
from .decoding_start import Asked, begin
from .decoding_stops import StopRules
from .decoding_turn import CriticFn
from .encoder_pass import warn_of_dropout
from .generation_config_maskgit import (
    DEFAULTS,
    METADATA,
    OPTIONS,
    MaskGitGenerationConfig,
    unknown_options,
)
from .generation_output import MaskGitGenerationOutput, output_of
from .options import options_of
from .packed_weights import PackedWeights
from .sampler import Sampler
from .sampler_choices import check_blocks, check_memory, without_effect
from .sampler_orders import ORDERS
from .sampler_rules import PACES
from .schedules import Schedule, get_schedule

logger = logging.get_logger(__name__)


class MaskGitGenerationMixin:
    """Gives a masked-language model `generate`."""

    # What the model it is mixed into has, besides `max_positions`.
    config: MaskGitConfig
    generation_config: MaskGitGenerationConfig
    device: Any
    __call__: Callable[..., Any]
    output_modalities = ("text",)
    _step_fn: StepFn | None = None  # of who decodes for many at once
    packed_weights: PackedWeights | None = None  # of who keeps them from one decoding to the next

    @property
    def max_positions(self) -> int | None:
        """Longest text in tokens that the denoiser takes; None when it sets no limit."""
        raise NotImplementedError

    @property
    def has_token_critic(self) -> bool:
        """Whether `score_tokens` can be asked."""
        return False

    def attention_twin(self) -> Any:
        """Return what is asked for the passes of a decoding with an attention cache."""
        return twin_of(cast(Any, self))

    def score_tokens(
        self, input_ids: Tensor, attention_mask: Tensor, positions: Tensor, **kwargs: Any
    ) -> Tensor:
        """Ask the token critic for the log-odds (N,) that the tokens at (B, L) bool are right."""
        raise NotImplementedError

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        generation_config: GenerationConfig | None = None,
        preset: str | None = None,
        logits_processor: Sequence[LogitsProcessor] | None = None,
        stopping_criteria: Sequence[Callable[..., Any]] | None = None,
        schedule: str | Callable[[Tensor], Tensor] | Schedule | None = None,
        seed: int | Sequence[int] | None = None,
        generator: torch.Generator | None = None,
        token_type_ids: Tensor | None = None,
        negative_prompt_ids: Tensor | None = None,
        negative_prompt_attention_mask: Tensor | None = None,
        allowed_token_ids: AllowedTokens | None = None,
        pattern: Patterns | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        streamer: Any = None,
        callback_on_step_end: StepCallback | None = None,
        **kwargs: Any,
    ) -> Tensor | MaskGitGenerationOutput:
        """Fill the masks of a text, continue a prompt, or write from nothing.

        1. Resolve the options: this call's, then `generation_config`, then those stored with the
        model, then what follows from its configuration, then defaults; a sampler named by the first
        two takes nothing of the model's own (order, pace, remasking, choice noise).
        2. Pack the prompts: check the rows, repeat them `num_return_sequences` times, append masks
        where a length is asked for, and pack every row to right padding.
        3. Say who is asked, what may stand where, when a row ends and who looks on.
        4. Decode: every pass reveals tokens of every unfinished row.
        5. Put every token back in its column, with padding behind the first end of text.

        Args:
            input_ids: (B, P) long. Mask tokens are filled; every other token is known. None writes
                one text from nothing, framed as the tokenizer frames a text.
            attention_mask: (B, P), 1 at real tokens; padding on either side. None means all are
                real.
            generation_config: options, see `MaskGitGenerationConfig`.
            preset: name of a sampler of the literature, see `MaskGitGenerationConfig.preset`; its
                options go before those of `generation_config`.
            logits_processor: change the scores of the positions about to be drawn, called with
                their rows' text (N, L) and scores (N, V).
            stopping_criteria: called after each pass with the rows still being decoded (R, L) and
                None, return which of them are done. Their last masks become padding.
            schedule: overrides the option of that name, and may be a function of your own.
            seed: one int, from which every row gets a seed of its own; or one int per row (or per
                returned row): a row's result then depends on its own text and seed alone.
            generator: draws the rows' seeds. Without it and without `seed`, torch's global one
                does.
            token_type_ids: (B, P) long; new tokens take the last real token's, and so does a
                negative prompt.
            negative_prompt_ids: (B, Q) long, what `guidance_scale` pushes away from; one row per
                prompt or returned row, or one for all. Without it, from the text with its prompt
                masked.
            negative_prompt_attention_mask: (B, Q), 1 at its real tokens; None means all are.
            allowed_token_ids: ids that may be emitted: a list for all filled positions, a dict from
                column of the returned rows to such a list, or one such dict (or None) per returned
                row.
            pattern: what each row must look like from its first mask to its last, the known tokens
                between them included: a `hf_maskgit.Pattern`, or one or None per row (or per
                returned row). Tokens of a pass are drawn jointly from its distribution given that
                the text will match; with an open end, the text may also end where it matches, or
                `num_tokens="pattern"` chooses how long it is.
            tokenizer: decodes for `stop_strings`, and must be the one of `pattern`.
            streamer: a streamer of transformers; takes one text, whose settled start no callback
                may change.
            callback_on_step_end: called after each pass with its number, from 0, and the
                `DecodingState` of all rows, packed to right padding with closing special tokens
                behind the new ones; may return a changed one. Masks that it leaves behind the last
                step take further passes.
            **kwargs: single options of `MaskGitGenerationConfig`. `max_new_tokens` or `num_tokens`
                named here appends masks to a text that holds masks already; the model's own default
                does not.

        Returns:
            (B * num_return_sequences, P + n) long: the prompt's columns unchanged but for its
            masks, new tokens right behind each row's last real token, padding behind those of a row
            that gets fewer than n. With `return_dict_in_generate`, a `MaskGitGenerationOutput`.

        Raises:
            TypeError: for `input_ids` that are no tensor.
            ValueError: for a bad option or input, before any pass.
        """
        # 1. Resolve the options.
        options = self.resolve_options(generation_config, preset, kwargs)
        warn_of_dropout(self, "what it generates")
        device = input_device(self, input_ids)
        sampler = make_sampler(self.config, options, schedule, logits_processor, device)
        # 2. Pack the prompts.
        given = Given(input_ids, attention_mask, token_type_ids, seed, generator)
        named = {name for name, value in kwargs.items() if value is not None}
        negative = negative_prompt_ids, negative_prompt_attention_mask
        asked = Asked(allowed_token_ids, pattern, tokenizer, *negative)
        start = partial(begin, self, options, sampler)
        first_pass = FirstPass(start, asked, sampler)
        prompts = pack_prompts(self, given, options, named, first_pass.choose)
        rows, vocab_size = prompts.rows, self.config.get_text_config().vocab_size
        # 3. Say who is asked, what may stand where, when a row ends and who looks on.
        check_blocks(sampler, int(rows.masked.sum(1).max()))
        stops = StopRules(sampler, rows.new, options.stop_strings, tokenizer, stopping_criteria)
        stops.check(rows.most_new, rows.can_end, options.pad_token_id, "stop_strings" in named)
        state, denoise = start(asked, prompts)
        state = state.keeping(options.output_alternatives)
        observer = Observer(prompts, sampler, stops, vocab_size, callback_on_step_end, streamer)
        if options.output_history:
            observer.keep_history()
        # 4. Decode.
        filled = fill_masks(
            denoise,
            state,
            rows.layout.lengths,
            sampler,
            prompts.seeds,
            critic_fn=self._critic_fn(rows.real, prompts.token_type_ids),
            stop_fn=stops.stop_fn,
            on_step_end=observer.on_step_end,
            step_fn=self._step_fn,
        )
        # 5. Put every token back.
        ends = stops.ends(filled.text, rows.can_end)
        cut_off = rows.cut_off(filled.text, ends)
        sequences = rows.finish(filled.text, ends, options.pad_token_id)
        observer.finish(sequences, cut_off)
        if not options.return_dict_in_generate:
            return sequences
        return output_of(filled, rows, sequences, cut_off, observer.history)

    def adjust_generation_fn(
        self,
        generation_config: GenerationConfig | None,
        from_auto_class: bool,
        from_pipeline: str | None,
        pretrained_model_name_or_path: str | None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Take up the options stored with a checkpoint; called by `from_pretrained`."""
        names = (
            "cache_dir",
            "force_download",
            "proxies",
            "local_files_only",
            "token",
            "revision",
            "subfolder",
        )
        # `from_pretrained` hands over everything it was called with, fields of the config too.
        given = dict(zip(names, args, strict=False)) | kwargs
        loading = {name: value for name, value in given.items() if name in (*names, *DEFAULTS)}
        if generation_config is not None:
            self.generation_config = _as_own(generation_config)
        elif pretrained_model_name_or_path is not None:
            stored = stored_options(
                MaskGitGenerationConfig,
                pretrained_model_name_or_path,
                _from_auto=from_auto_class,
                _from_pipeline=from_pipeline,
                **loading,
            )
            if stored is not None:
                self.generation_config = stored

    def prepare_inputs_for_generation(self, input_ids: Tensor, **kwargs: Any) -> dict[str, Any]:
        """Return the arguments of a denoiser pass as they come; a cache accounts for itself.

        PEFT looks for this method when an adapter's task is "CAUSAL_LM".

        Args:
            input_ids: (R, L) long, the rows still being decoded.
            **kwargs: the pass's other arguments.
        """
        return {"input_ids": input_ids, **kwargs}

    def resolve_options(
        self, generation_config: GenerationConfig | None, preset: str | None, call: dict[str, Any]
    ) -> MaskGitGenerationConfig:
        """Complete the options of a call from less and less specific sources, and check them.

        Args:
            generation_config: as for `generate`.
            preset: as for `generate`.
            call: the options that a call of `generate` names, by name.

        Returns:
            The options as `generate` will understand them, none left out.

        Raises:
            ValueError: for an unknown option, a bad value, or options that do not go together.
        """
        unknown = [name for name in call if name not in OPTIONS]
        if unknown:
            raise ValueError(unknown_options(unknown))
        options = MaskGitGenerationConfig()
        options.complete(call)
        options.check_values()
        if preset is not None:
            options.complete(MaskGitGenerationConfig.preset(preset).to_dict())
        if generation_config is not None:
            given = _as_own(generation_config).to_dict()
            options.complete(options.without_conflicts(given) if preset else given)
        stored = _as_own(self.generation_config).to_dict()
        if options.max_new_tokens is None and isinstance(stored["max_new_tokens"], list):
            raise ValueError(
                f"The model stores max_new_tokens={stored['max_new_tokens']}, and a list has an "
                "entry per row of one call; store one number, and name lists in calls."
            )
        options.complete(options.without_conflicts(stored))
        # A preset, or a file written by hand, is stored without what only the model knows: how it
        # pads, how long it may write.
        options.complete(MaskGitGenerationConfig.from_model_config(self.config).to_dict())
        options.complete(DEFAULTS)
        options.validate()
        options.resolve_choices()
        options.validate()  # now of what the choices have become
        if ORDERS[options.order].asks_critic and not self.has_token_critic:
            # It is the order that asks, also where remasking does.
            raise ValueError(
                "The model has no token critic, which this order or remasking asks; train one "
                "(MaskGitConfig(token_critic='self') or 'separate') or choose another."
            )
        if PACES[options.pace].write is not None:
            check_memory(options.pace, options.use_cache, self.config.self_cond)
            options.complete({"use_cache": False})  # blocks would turn it on
        _warn_of_no_effect(options, call)
        return options

    def _critic_fn(self, real: Tensor, token_type_ids: Tensor | None) -> CriticFn:
        def critic_fn(rows: Tensor, text: Tensor, positions: Tensor) -> Tensor:
            types = {} if token_type_ids is None else {"token_type_ids": token_type_ids[rows]}
            return self.score_tokens(text, real[rows].long(), positions, **types)

        return critic_fn


def _warn_of_no_effect(options: MaskGitGenerationConfig, call: dict[str, Any]) -> None:
    """Warn once of what a call names by name, and nothing looks at."""
    named = [name for name, value in call.items() if value is not None]
    for sentence in without_effect(vars(options), named):
        logger.warning_once(sentence)


def make_sampler(
    config: MaskGitConfig,
    options: MaskGitGenerationConfig,
    schedule: str | Callable[[Tensor], Tensor] | Schedule | None,
    logits_processor: Sequence[LogitsProcessor] | None,
    device: torch.device,
) -> Sampler:
    """Turn resolved options into what the decoding loop goes by; ids become tensors."""
    _warn_of_no_effect(options, {"schedule": schedule})
    suppressed, end_ids = ids_of_decoding(config, options)
    return Sampler(
        **{name: getattr(options, name) for name in options_of(Sampler)},
        schedule=get_schedule(schedule if schedule is not None else options.schedule),
        mask_token_id=mask_token_id_of(config),
        suppressed=torch.tensor(suppressed, dtype=torch.long, device=device),
        end_ids=torch.tensor(end_ids, dtype=torch.long, device=device),
        processors=asked_processors(logits_processor, options.repetition_penalty),
        warpers=asked_warpers(options.top_k, options.top_p),
        records_probabilities=options.return_dict_in_generate,
    )


def _as_own(config: GenerationConfig) -> MaskGitGenerationConfig:
    """Turn a plain `GenerationConfig` into ours; options that mean nothing here raise."""
    if not isinstance(config, GenerationConfig):
        raise TypeError(
            f"`generation_config` must be a GenerationConfig, got {type(config).__name__}; for a "
            "sampler by its name give `preset`."
        )
    if isinstance(config, MaskGitGenerationConfig):
        known = OPTIONS.keys() | METADATA  # an attribute may be set to any name
        unknown = [name for name, value in vars(config).items() if value is not None]
        if unknown := [name for name in unknown if name not in known]:
            raise ValueError(unknown_options(unknown))
        return copy.deepcopy(config)
    return MaskGitGenerationConfig(**config.to_diff_dict())
