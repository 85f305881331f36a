"""`generate`: masked decoding under the names that users of transformers know.

Infilling is the general case: every mask token of the input is filled and every other token is
known. Continuing a prompt, or writing from nothing, appends masks and does the same.

Letters: B rows, P prompt columns, n new tokens, L length, V vocabulary, N masked positions.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    PreTrainedTokenizerBase,
)
from transformers.utils import ModelOutput, logging

from .configuration_maskgit import MaskGitConfig
from .decoding import CriticFn, DecodingState, LogitsFn, StepCallback, fill_masks
from .decoding_constraints import (
    AllowedTokens,
    allowed_tables,
    asked_processors,
    asked_warpers,
    check_ends,
)
from .decoding_guidance import guided, with_other_prompt, without_prompt
from .decoding_layout import PackedRows, check_no_padding, pack_rows
from .decoding_observers import Observer, check_streamable
from .decoding_stops import StopRules
from .encoder_pass import warn_of_dropout
from .generation_config_maskgit import (
    DEFAULTS,
    MaskGitGenerationConfig,
    unknown_options,
    without_effect,
)
from .noise import row_seeds
from .sampler import Sampler
from .sampler_paces import block_sizes
from .schedules import Schedule, get_schedule
from .self_conditioning import Memory

logger = logging.get_logger(__name__)

# Options that are the sampler's own under the same name; of a schedule it has the object.
_SAMPLER_OPTIONS = {f.name for f in fields(Sampler)} & DEFAULTS.keys() - {"schedule"}


@dataclass
class MaskGitGenerationOutput(ModelOutput):
    """What `generate` returns with `return_dict_in_generate=True`.

    Args:
        sequences: (B, P + n) long.
        denoiser_passes: (B,) long, passes of the denoiser in which each row took part. With
            guidance each of them asks the denoiser twice.
        critic_passes: (B,) long, passes of the token critic likewise.
        reveal_steps: (B, P + n) long, the pass that revealed each token, from 0; -1 for known ones
            and padding.
        reveal_log_probabilities: (B, P + n) float32, log-probability of each token when it was
            revealed, under the denoiser's law without temperature and filters; 0 where
            `reveal_steps` is -1.
        history: (passes, B, P + n) long with `output_history`, the rows after every pass, masks and
            all.
    """

    sequences: Tensor | None = None
    denoiser_passes: Tensor | None = None
    critic_passes: Tensor | None = None
    reveal_steps: Tensor | None = None
    reveal_log_probabilities: Tensor | None = None
    history: Tensor | None = None


class MaskGitGenerationMixin:
    """Gives a masked-language model `generate`."""

    # What the model it is mixed into has, besides `max_positions`.
    config: MaskGitConfig
    generation_config: MaskGitGenerationConfig
    device: Any
    __call__: Callable[..., Any]
    output_modalities = ("text",)

    @property
    def max_positions(self) -> int | None:
        """Longest text in tokens that the denoiser takes; None when it sets no limit."""
        raise NotImplementedError

    @property
    def has_token_critic(self) -> bool:
        """Whether `score_tokens` can be asked."""
        return False

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
        tokenizer: PreTrainedTokenizerBase | None = None,
        streamer: Any = None,
        callback_on_step_end: StepCallback | None = None,
        **kwargs: Any,
    ) -> Tensor | MaskGitGenerationOutput:
        """Fill the masks of a text, continue a prompt, or write from nothing.

        1. Resolve the options: this call's, then `generation_config`, then the model's, then
        defaults; a sampler named by the first two takes nothing of the model's own (order, pace,
        remasking, choice noise). 2. Check the rows, repeat them `num_return_sequences` times.
        3. Append masks where a length is asked for, and pack every row to right padding.
        4. Decode: every pass reveals tokens of every unfinished row.
        5. Pad behind the first end of text and put every token back in its column.

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
            token_type_ids: (B, P) long; new tokens take the last real token's.
            negative_prompt_ids: (B, Q) long, what `guidance_scale` pushes away from; one row per
                prompt or returned row, or one for all. Without it, from the text with its prompt
                masked.
            negative_prompt_attention_mask: (B, Q), 1 at its real tokens; None means all are.
            allowed_token_ids: ids that may be emitted: a list for all filled positions, a dict from
                column of the returned rows to such a list, or one such dict (or None) per returned
                row.
            tokenizer: decodes for `stop_strings`.
            streamer: a streamer of transformers; takes one text.
            callback_on_step_end: called after each pass with its number, from 0, and the
                `DecodingState` of all rows, packed to right padding with closing special tokens
                behind the new ones; may return a changed one. Masks that it leaves behind the last
                step take further passes.
            **kwargs: single options of `MaskGitGenerationConfig`. `max_new_tokens` named here
                appends masks to a text that holds masks already; the model's own default does not.

        Returns:
            (B * num_return_sequences, P + n) long: the prompt's columns unchanged but for its
            masks, new tokens right behind each row's last real token. With
            `return_dict_in_generate`, a `MaskGitGenerationOutput`.

        Raises:
            TypeError: for `input_ids` that are no tensor.
            ValueError: for a bad option or input, before any pass.
        """
        # 1.
        options = self._resolve(generation_config, preset, kwargs)
        warn_of_dropout(self, "what it generates")
        device = self._input_device(input_ids)
        sampler = self._sampler(options, schedule, logits_processor, device)
        # 2.
        from_nothing = input_ids is None or input_ids.shape[-1] == 0
        if input_ids is None or from_nothing:
            input_ids = self._frame(1 if input_ids is None else len(input_ids), device)
            attention_mask = token_type_ids = None
        attention_mask = self._check_rows(input_ids, attention_mask, token_type_ids)
        repeats = options.num_return_sequences
        check_streamable(streamer, len(input_ids) * repeats)
        seeds = row_seeds(len(input_ids), repeats, seed, generator, sampler.do_sample)
        input_ids = input_ids.long().repeat_interleave(repeats, 0)
        attention_mask = attention_mask.repeat_interleave(repeats, 0)
        # 3.
        holds_masks = self.config.mask_token_id in input_ids[attention_mask == 1]
        appends = kwargs.get("max_new_tokens") is not None or not holds_masks
        num_new = options.max_new_tokens if appends else 0
        if holds_masks and kwargs.get("max_new_tokens") is None:
            self._check_all_hold_masks(input_ids, attention_mask)
        rows = self._pack(input_ids, attention_mask, num_new, from_nothing)
        _check_blocks(rows, sampler)
        if token_type_ids is not None:
            token_type_ids = token_type_ids.repeat_interleave(repeats, 0)
            token_type_ids = rows.pack_types(token_type_ids, attention_mask)
        stops = StopRules(sampler, rows.new, options.stop_strings, tokenizer, stopping_criteria)
        if options.stop_strings and not num_new:
            raise ValueError(
                "`stop_strings` end appended text, and nothing is appended here; leave them out, "
                "or ask for `max_new_tokens`."
            )
        if stops.need_padding and options.pad_token_id is None:
            raise ValueError(
                "`pad_token_id` is not set, which fills a row that `stopping_criteria` or "
                "`stop_strings` cut off; pass it, or set it in model.generation_config."
            )
        denoise = self._logits_fn(rows.real, token_type_ids)
        if options.guidance_scale is not None and options.guidance_scale != 1:
            # A denoiser of its own: each remembers its own previous pass.
            unconditional = self._logits_fn(rows.real, token_type_ids)
            other = self._other_logits_fn(
                unconditional,
                rows,
                repeats,
                holds_masks,
                negative_prompt_ids,
                negative_prompt_attention_mask,
            )
            denoise = guided(denoise, other, options.guidance_scale)
        elif negative_prompt_ids is not None:
            raise ValueError(
                "`negative_prompt_ids` needs a `guidance_scale` other than 1, for example 1.5."
            )
        state = self._start(rows, sampler, allowed_token_ids)
        observer = Observer(
            rows,
            sampler,
            stops,
            callback_on_step_end,
            streamer,
            vocab_size=self.config.get_text_config().vocab_size,
            keeps_history=options.output_history,
            prompt_is_fixed=not holds_masks and not from_nothing,
        )
        # 4.
        filled = fill_masks(
            denoise,
            state,
            rows.layout.lengths,
            sampler,
            seeds,
            critic_fn=self._critic_fn(rows.real, token_type_ids),
            stop_fn=stops.stop_fn,
            on_step_end=observer if observer.is_needed else None,
        )
        # 5.
        ends = stops.ends(filled.text, rows.can_end)
        sequences = rows.finish(filled.text, ends, options.pad_token_id)
        cut_off = rows.cut_off(filled.text, ends)
        observer.finish(sequences, cut_off)
        if not options.return_dict_in_generate:
            return sequences
        # What an end of text cut off was not revealed, as far as the caller can see.
        reveal_steps = filled.reveal_steps.masked_fill(cut_off, -1)
        log_probabilities = filled.log_probabilities.masked_fill(reveal_steps < 0, 0)
        return MaskGitGenerationOutput(
            sequences=sequences,
            denoiser_passes=filled.passes,
            critic_passes=filled.critic_passes,
            reveal_steps=rows.restore(reveal_steps, -1),
            reveal_log_probabilities=rows.restore(log_probabilities, 0),
            history=observer.history,
        )

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
            try:
                stored = MaskGitGenerationConfig.from_pretrained(
                    pretrained_model_name_or_path,
                    _from_auto=from_auto_class,
                    _from_pipeline=from_pipeline,
                    **loading,
                )
            except OSError:
                logger.info("The checkpoint stores no generation options; using the defaults.")
            else:
                self.generation_config = cast(MaskGitGenerationConfig, stored)

    def prepare_inputs_for_generation(self, input_ids: Tensor, **kwargs: Any) -> dict[str, Any]:
        """Return the arguments of a denoiser pass as they come: there is no cache to account for.

        PEFT looks for this method when an adapter's task is "CAUSAL_LM".

        Args:
            input_ids: (R, L) long, the rows still being decoded.
            **kwargs: the pass's other arguments.
        """
        return {"input_ids": input_ids, **kwargs}

    def _resolve(
        self, generation_config: GenerationConfig | None, preset: str | None, call: dict[str, Any]
    ) -> MaskGitGenerationConfig:
        unknown = [name for name in call if name not in DEFAULTS]
        if unknown:
            raise ValueError(unknown_options(unknown))
        options = MaskGitGenerationConfig()
        options.complete(call)
        if preset is not None:
            options.complete(MaskGitGenerationConfig.preset(preset).to_dict())
        if generation_config is not None:
            given = _as_own(generation_config).to_dict()
            options.complete(options.without_conflicts(given) if preset else given)
        options.complete(options.without_conflicts(self.generation_config.to_dict()))
        options.complete(DEFAULTS)
        options.validate()
        options.resolve_choices()
        options.validate()  # now of what the choices have become
        for sentence in without_effect(options, [k for k, v in call.items() if v is not None]):
            logger.warning_once(sentence)
        if options.order == "critic":  # as it is wherever remasking asks the critic
            self._check_critic()
        return options

    def _check_critic(self) -> None:
        if not self.has_token_critic:
            raise ValueError(
                "The model has no token critic, which this order or remasking asks; train one "
                "(MaskGitConfig(token_critic='self') or 'separate') or choose another."
            )

    def _sampler(
        self,
        options: MaskGitGenerationConfig,
        schedule: str | Callable[[Tensor], Tensor] | Schedule | None,
        logits_processor: Sequence[LogitsProcessor] | None,
        device: torch.device,
    ) -> Sampler:
        vocab_size = self.config.get_text_config().vocab_size
        bad_words = [word[0] for word in options.bad_words_ids or []]
        named = [*(options.suppress_tokens or []), *bad_words]
        suppressed = {*self.config.forbidden_token_ids, *named}
        if self.config.unk_token_id is not None:
            suppressed.add(self.config.unk_token_id)
        ends = options.eos_token_id if options.eos_token_id is not None else []
        end_ids = ends if isinstance(ends, list) else [ends]
        for name, ids in (("suppress_tokens", suppressed), ("eos_token_id", end_ids)):
            outside = [i for i in ids if not 0 <= i < vocab_size]
            if outside:
                raise ValueError(
                    f"`{name}` names the id {outside[0]}; the vocabulary has 0 to {vocab_size - 1}."
                )
        if len(suppressed | set(end_ids)) == vocab_size:
            raise ValueError("Every token of the vocabulary is suppressed; leave at least one.")
        if end_ids and options.pad_token_id is None:
            raise ValueError(
                "`pad_token_id` is not set, which fills a row behind its end of text; pass it, or "
                "set it in model.generation_config."
            )
        own = {name: getattr(options, name) for name in _SAMPLER_OPTIONS}
        return Sampler(
            **own,
            schedule=get_schedule(schedule if schedule is not None else options.schedule),
            mask_token_id=self._mask_token_id(),
            suppressed=torch.tensor(sorted(suppressed), dtype=torch.long, device=device),
            end_ids=torch.tensor(end_ids, dtype=torch.long, device=device),
            processors=asked_processors(logits_processor, options.repetition_penalty),
            warpers=asked_warpers(options.top_k, options.top_p),
            records_probabilities=options.return_dict_in_generate,
        )

    def _check_all_hold_masks(self, input_ids: Tensor, attention_mask: Tensor) -> None:
        """Refuse a batch of which it cannot be told whether its rows are filled or continued."""
        masks = (input_ids == self.config.mask_token_id) & (attention_mask == 1)
        without = (~masks.any(1)).nonzero()
        if len(without):
            raise ValueError(
                f"Row {int(without[0])} of the batch holds no mask and other rows do. Name "
                "`max_new_tokens` in the call: every row is then continued by as many tokens, 0 "
                "only fills masks. Or pass texts to fill and texts to continue in calls of their "
                "own."
            )

    def _pack(
        self, input_ids: Tensor, attention_mask: Tensor, num_new: int, from_nothing: bool
    ) -> PackedRows:
        rows = pack_rows(
            input_ids,
            attention_mask,
            num_new=num_new,
            mask_token_id=self._mask_token_id(),
            pad_token_id=self._encoder_pad_token_id(),
            suffix_ids=self.config.suffix_ids or [],
            from_nothing=from_nothing,
        )
        self._check_length(rows)
        return rows

    def _start(
        self, rows: PackedRows, sampler: Sampler, allowed_token_ids: AllowedTokens | None
    ) -> DecodingState:
        if allowed_token_ids is None:
            return DecodingState.start(rows.text, rows.masked, rows.can_end, sampler.block_length)
        device = rows.text.device
        index, table = allowed_tables(
            allowed_token_ids,
            rows.columns.shape[0],
            rows.columns.shape[1],
            sampler.suppressed,
            self.config.get_text_config().vocab_size,
        )
        allowed, table = rows.layout.pack_arranged(index.to(device)), table.to(device)
        check_ends(allowed, table, sampler.end_ids, rows.masked, rows.can_end)
        return DecodingState.start(
            rows.text,
            rows.masked,
            rows.can_end,
            sampler.block_length,
            allowed=allowed,
            allowed_table=table,
        )

    def _other_logits_fn(
        self,
        denoise: LogitsFn,
        rows: PackedRows,
        repeats: int,
        holds_masks: bool,
        negative_prompt_ids: Tensor | None,
        negative_prompt_attention_mask: Tensor | None,
    ) -> LogitsFn:
        """Return the denoiser of what guidance pushes away from."""
        if negative_prompt_ids is None:
            # A word that the tokenizer does not know is no frame, special as its id may be.
            frame = {*(self.config.special_token_ids or [])} - {self.config.unk_token_id}
            special = torch.tensor(sorted(frame), dtype=torch.long, device=rows.text.device)
            prompt = rows.real & ~rows.masked & ~torch.isin(rows.text, special)
            return without_prompt(denoise, prompt, self._mask_token_id())
        if holds_masks or not rows.num_new:
            raise ValueError(
                "`negative_prompt_ids` stand in for a prompt that is continued; this text holds "
                "masks of its own. Leave them out to push away from the text with what is known "
                "masked."
            )
        mask = self._check_rows(
            negative_prompt_ids, negative_prompt_attention_mask, None, "negative_prompt_"
        )
        given, returned = len(negative_prompt_ids), len(rows.text)
        if given not in (1, returned // repeats, returned):
            raise ValueError(
                f"`negative_prompt_ids` have {given} rows for {returned // repeats} prompts and "
                f"{returned} returned texts; give one for all, or one per prompt or returned text."
            )
        others = self._pack(
            negative_prompt_ids.long().repeat_interleave(returned // given, 0),
            mask.repeat_interleave(returned // given, 0),
            rows.num_new,
            False,
        )
        if int(others.masked.sum()) != int(rows.masked.sum()):
            raise ValueError("`negative_prompt_ids` hold masks; a prompt must be whole.")
        other_denoise = self._logits_fn(others.real, None)
        return with_other_prompt(other_denoise, rows.masked, others.text, others.masked)

    def _input_device(self, input_ids: Tensor | None) -> torch.device:
        """Return where tokens lie; offloaded weights may lie nowhere until they are used."""
        if input_ids is None:
            return torch.device("cpu") if self.device.type == "meta" else self.device
        if not isinstance(input_ids, Tensor):
            raise TypeError(
                f"`input_ids` must be a tensor of token ids, got {type(input_ids).__name__}. Of "
                "texts write model.generate(**tokenizer(texts, padding=True, "
                'return_tensors="pt")).'
            )
        return input_ids.device

    def _logits_fn(self, real: Tensor, token_type_ids: Tensor | None) -> LogitsFn:
        memory = Memory(real) if self.config.self_cond else None

        def logits_fn(rows: Tensor, text: Tensor, positions: Tensor) -> Tensor:
            types = {} if token_type_ids is None else {"token_type_ids": token_type_ids[rows]}
            inputs = self.prepare_inputs_for_generation(
                text, attention_mask=real[rows].long(), masked_positions=positions, **types
            )
            if memory is None:
                return self(**inputs).logits
            output = self(**inputs, **memory.recall(rows), output_last_hidden_state=True)
            memory.keep(rows, output.last_hidden_state)
            return output.logits

        return logits_fn

    def _critic_fn(self, real: Tensor, token_type_ids: Tensor | None) -> CriticFn:
        def critic_fn(rows: Tensor, text: Tensor, positions: Tensor) -> Tensor:
            types = {} if token_type_ids is None else {"token_type_ids": token_type_ids[rows]}
            return self.score_tokens(text, real[rows].long(), positions, **types)

        return critic_fn

    def _frame(self, num_rows: int, device: torch.device) -> Tensor:
        """Return an empty text in its framing, (B, P) long."""
        frame = [*(self.config.prefix_ids or []), *(self.config.suffix_ids or [])]
        return torch.tensor([frame] * num_rows, dtype=torch.long, device=device)

    def _mask_token_id(self) -> int:
        if self.config.mask_token_id is None:
            raise ValueError(
                "The model's config has no `mask_token_id`, so nothing can be filled; set "
                "model.config.mask_token_id = tokenizer.mask_token_id."
            )
        return self.config.mask_token_id

    def _encoder_pad_token_id(self) -> int:
        # RoBERTa and its kin derive positions from the padding id, so their own must stand there.
        pad = self.config.get_text_config().pad_token_id
        return pad if pad is not None else self.config.pad_token_id or 0

    def _check_rows(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        token_type_ids: Tensor | None,
        prefix: str = "",
    ) -> Tensor:
        """Check what the caller gave and return the attention mask, (B, P) long."""
        ids_name, mask_name = f"{prefix or 'input_'}ids", f"{prefix}attention_mask"
        if input_ids.ndim != 2 or len(input_ids) == 0 or input_ids.is_floating_point():
            raise ValueError(
                f"`{ids_name}` must be integers of shape (batch, length), got dtype "
                f"{input_ids.dtype} and shape {tuple(input_ids.shape)}."
            )
        vocab_size = self.config.get_text_config().vocab_size
        if bool(((input_ids < 0) | (input_ids >= vocab_size)).any()):
            raise ValueError(
                f"`{ids_name}` run from {int(input_ids.min())} to {int(input_ids.max())}; the "
                f"vocabulary has 0 to {vocab_size - 1}. Is this the model's own tokenizer?"
            )
        for name, tensor in (
            (mask_name, attention_mask),
            ("token_type_ids", token_type_ids),
        ):
            if tensor is not None and tensor.shape != input_ids.shape:
                raise ValueError(
                    f"`{name}` must have the shape of `{ids_name}`, {tuple(input_ids.shape)}, got "
                    f"{tuple(tensor.shape)}."
                )
        if attention_mask is None:
            check_no_padding(input_ids, self.config.pad_token_id, ids_name, mask_name)
            return torch.ones_like(input_ids)
        if not bool(((attention_mask == 0) | (attention_mask == 1)).all()):
            raise ValueError(f"`{mask_name}` must hold 0 (padding) and 1 (real tokens) only.")
        empty = (attention_mask.sum(1) == 0).nonzero()
        if len(empty):
            raise ValueError(
                f"Row {int(empty[0])} of `{ids_name}` is all padding; give it at least one "
                "real token, or call generate() without input_ids to write from nothing."
            )
        return attention_mask.long()

    def _check_length(self, rows: PackedRows) -> None:
        longest, limit = int(rows.layout.lengths.max()), self.max_positions
        if limit is not None and longest > limit:
            raise ValueError(
                f"The longest row comes to {longest} tokens ({rows.num_new} of them new), the "
                f"encoder takes {limit}. Shorten the prompt or ask for fewer `max_new_tokens`."
            )


def _check_blocks(rows: PackedRows, sampler: Sampler) -> None:
    if sampler.block_length is None or not sampler.goes_by_steps:
        return
    most = int(rows.masked.sum(1).max())
    num_blocks = len(block_sizes(most, sampler.block_length))
    if sampler.steps < num_blocks:
        raise ValueError(
            f"{most} masks make {num_blocks} blocks of block_length={sampler.block_length}, and "
            f"each needs a step of its own, got steps={sampler.steps}."
        )
    if sampler.remask == "remdm_loop":
        raise ValueError(
            "remask='remdm_loop' plans its time over the whole text; leave `block_length` unset."
        )


def _as_own(config: GenerationConfig) -> MaskGitGenerationConfig:
    """Turn a plain `GenerationConfig` into ours; options that mean nothing here raise."""
    if not isinstance(config, GenerationConfig):
        raise TypeError(
            f"`generation_config` must be a GenerationConfig, got {type(config).__name__}; for a "
            "sampler by its name give `preset`."
        )
    if isinstance(config, MaskGitGenerationConfig):
        return copy.deepcopy(config)
    return MaskGitGenerationConfig(**config.to_diff_dict())
