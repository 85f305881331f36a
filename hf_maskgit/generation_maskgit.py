"""`generate`: masked decoding under the names that users of transformers know.

Infilling is the general case: every mask token of the input is filled and every other token is
known. Continuing a prompt, or writing from nothing, appends masks and does the same.

Letters: B rows, P prompt columns, n new tokens, L length, V vocabulary, N masked positions.
"""

import copy
import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList
from transformers.generation import logits_process
from transformers.utils import ModelOutput, logging

from .configuration_maskgit import MaskGitConfig
from .decoding import DecodingState, LogitsFn, Sampler, fill_masks
from .layout import PackedRows, pack_rows
from .noise import fresh_seed, mix
from .sampling import ORDERS, PACES
from .schedules import SCHEDULES, Schedule, get_schedule

logger = logging.get_logger(__name__)

_DEFAULTS: dict[str, Any] = {
    "max_new_tokens": 64,
    "steps": 18,
    "schedule": "linear",
    "order": "top_probability",
    "pace": "schedule",
    "do_sample": True,
    "temperature": 1.0,
    "anneal_temperature": True,
    "choice_temperature": 0.0,
    "top_k": None,
    "top_p": None,
    "suppress_tokens": None,
    "num_return_sequences": 1,
    "return_dict_in_generate": False,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
_METADATA = ("transformers_version", "_from_model_config", "_commit_hash", "_original_object_hash")

# Processors of transformers that look at one position's scores alone (or, the penalty, at which
# tokens a row holds): they mean the same in parallel decoding. The others count on tokens arriving
# one by one.
_PARALLEL_PROCESSORS = frozenset(
    "EpsilonLogitsWarper EtaLogitsWarper InfNanRemoveLogitsProcessor LogitNormalization "
    "MinPLogitsWarper RepetitionPenaltyLogitsProcessor SuppressTokensLogitsProcessor "
    "TemperatureLogitsWarper TopHLogitsWarper TopKLogitsWarper TopPLogitsWarper "
    "TypicalLogitsWarper".split()
)


class MaskGitGenerationConfig(GenerationConfig):
    """Options of `generate`; unset ones are None and fall back to the model's, then the library's.

    Args:
        max_new_tokens: masks appended behind each row's last real token (64).
        steps: number of denoiser passes at most, S >= 1 (18).
        schedule: "linear" or "cosine", how fast masks are revealed (the model's own).
        order: which masked positions go first ("top_probability"): "top_probability" by the
            probability of the likeliest token, "confidence" by that of the token drawn (MaskGIT and
            the ancestor; its texts repeat more), "random".
        pace: how many per step; "schedule" follows `steps` and `schedule`.
        do_sample: draw tokens (True); False takes the likeliest.
        temperature: divides the logits before a token is drawn, > 0 (1.0).
        anneal_temperature: scale the temperature down to 0 over the steps (True). This sharpens:
            the last pass is greedy. For samples from the model's own law set it to False.
        choice_temperature: scale of the Gumbel noise on the order, annealed to 0 over the steps
            (0.0).
        top_k, top_p: keep the likeliest k tokens, or the smallest set of total probability p.
        suppress_tokens: ids never emitted, besides those the model forbids.
        num_return_sequences: texts per row (1).
        return_dict_in_generate: return a `MaskGitGenerationOutput` (False).
        pad_token_id, bos_token_id, eos_token_id: special ids (the model's).

    Raises:
        ValueError: for an unknown option or a value out of its range.
    """

    # Types of the resolved options; an unset one is None.
    max_new_tokens: int
    steps: int
    schedule: str
    order: str
    pace: str
    do_sample: bool
    temperature: float
    anneal_temperature: bool
    choice_temperature: float
    top_k: int | None
    top_p: float | None
    suppress_tokens: list[int] | None
    num_return_sequences: int
    return_dict_in_generate: bool
    pad_token_id: int | None
    bos_token_id: int | None
    eos_token_id: int | list[int] | None

    def __init__(self, **kwargs: Any) -> None:
        # transformers' own __init__ would add some sixty options of left-to-right decoding.
        for name in _DEFAULTS:
            setattr(self, name, kwargs.pop(name, None))
        self._from_model_config = False
        self.transformers_version = kwargs.pop("transformers_version", None)
        unknown = [k for k, v in kwargs.items() if v is not None and k not in _METADATA]
        if unknown:
            raise ValueError(_unknown_options(unknown))
        self.validate()

    def validate(self, strict: bool = False, user_set_attributes: set[str] | None = None) -> None:
        """Check every option that is set; transformers' own arguments change nothing.

        Args:
            strict: unused, every fault raises.
            user_set_attributes: unused.

        Raises:
            ValueError: naming the option, what was got and what is allowed.
        """
        for name, known in (("order", ORDERS), ("pace", PACES), ("schedule", tuple(SCHEDULES))):
            value = getattr(self, name)
            if value is not None and value not in known:
                raise ValueError(
                    f"Unknown {name} {value!r}; choose from {', '.join(map(repr, known))}."
                )
        for name, low in (
            ("steps", 1),
            ("max_new_tokens", 0),
            ("num_return_sequences", 1),
            ("top_k", 1),
        ):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < low):
                raise ValueError(f"`{name}` must be an integer of at least {low}, got {value!r}.")
        for name in ("temperature", "choice_temperature", "top_p"):
            value = getattr(self, name)
            if value is not None and type(value) not in (int, float):
                raise ValueError(f"`{name}` must be a number, got {value!r}.")
        ids = self.suppress_tokens
        if ids is not None and not (isinstance(ids, list) and all(type(i) is int for i in ids)):
            raise ValueError(f"`suppress_tokens` must be a list of token ids, got {ids!r}.")
        if self.temperature is not None and not self.temperature > 0:
            raise ValueError(
                f"`temperature` must be greater than 0, got {self.temperature}; for the likeliest "
                "token set do_sample=False."
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"`top_p` must lie in (0, 1], got {self.top_p}.")
        if self.choice_temperature is not None and self.choice_temperature < 0:
            raise ValueError(
                f"`choice_temperature` must be at least 0, got {self.choice_temperature}."
            )
        if self.do_sample is False:
            self._check_greedy()

    def _check_greedy(self) -> None:
        drawn = {
            "order='random'": self.order == "random",
            "choice_temperature": bool(self.choice_temperature),
            "num_return_sequences": (self.num_return_sequences or 1) > 1,
        }
        for what, is_set in drawn.items():
            if is_set:
                raise ValueError(
                    f"do_sample=False draws nothing at random, which {what} needs; set "
                    f"do_sample=True or leave {what} at its default."
                )

    def to_diff_dict(self) -> dict[str, Any]:
        """Return the options that are set; these are what a checkpoint stores."""
        return {k: v for k, v in self.to_dict().items() if v is not None and k not in _METADATA[1:]}

    @staticmethod
    def _get_default_generation_params() -> dict[str, Any]:
        return dict(_DEFAULTS)

    @classmethod
    def from_model_config(cls, model_config: Any) -> "MaskGitGenerationConfig":
        """Make the options a fresh model starts with; a pipeline then adds none of its own."""
        positions = getattr(model_config.get_text_config(), "max_position_embeddings", None)
        default_length = _DEFAULTS["max_new_tokens"]
        return cls(
            max_new_tokens=min(default_length, positions // 2) if positions else default_length,
            steps=_DEFAULTS["steps"],
            schedule=model_config.schedule,
            do_sample=True,
            temperature=1.0,
            pad_token_id=model_config.pad_token_id,
            bos_token_id=model_config.bos_token_id,
            eos_token_id=model_config.eos_token_id,
        )


@dataclass
class MaskGitGenerationOutput(ModelOutput):
    """What `generate` returns with `return_dict_in_generate=True`.

    Args:
        sequences: (B, P + n) long.
        denoiser_passes: (B,) long, passes of the denoiser in which each row took part.
        reveal_steps: (B, P + n) long, the pass that revealed each token, from 0; -1 for known ones
            and padding of the prompt.
    """

    sequences: Tensor | None = None
    denoiser_passes: Tensor | None = None
    reveal_steps: Tensor | None = None


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

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        generation_config: GenerationConfig | None = None,
        logits_processor: Sequence[LogitsProcessor] | None = None,
        schedule: str | Callable[[Tensor], Tensor] | Schedule | None = None,
        seed: int | Sequence[int] | None = None,
        generator: torch.Generator | None = None,
        token_type_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor | MaskGitGenerationOutput:
        """Fill the masks of a text, continue a prompt, or write from nothing.

        1. Resolve the options: this call's, then `generation_config`, then the model's, then
        defaults. 2. Check the rows and repeat them `num_return_sequences` times.
        3. Append masks where a length is asked for, and pack every row to right padding.
        4. Decode: at most `steps` passes, each reveals at least one token of every unfinished row.
        5. Pad behind the first end of text and put every token back in its column.

        Args:
            input_ids: (B, P) long. Mask tokens are filled; every other token is known. None writes
                one text from nothing, framed as the tokenizer frames a text.
            attention_mask: (B, P), 1 at real tokens; padding on either side. None means all are
                real.
            generation_config: options, see `MaskGitGenerationConfig`.
            logits_processor: change the scores of the positions about to be drawn, called with
                their rows' text (N, L) and scores (N, V).
            schedule: overrides the option of that name, and may be a function of your own.
            seed: one int, from which every row gets a seed of its own; or one int per row (or per
                returned row): a row's result then depends on its own text and seed alone.
            generator: draws the rows' seeds. Without it and without `seed`, torch's global one
                does.
            token_type_ids: (B, P) long; new tokens take the last real token's.
            **kwargs: single options of `MaskGitGenerationConfig`. `max_new_tokens` named here
                appends masks to a text that holds masks already; the model's own default does not.

        Returns:
            (B * num_return_sequences, P + n) long: the prompt's columns unchanged but for its
            masks, new tokens right behind each row's last real token. With
            `return_dict_in_generate`, a `MaskGitGenerationOutput`.

        Raises:
            ValueError: for a bad option or input, before any pass.
        """
        # 1.
        options = self._resolve(generation_config, kwargs)
        sampler = self._sampler(options, schedule, logits_processor)
        # 2.
        from_nothing = input_ids is None or input_ids.shape[-1] == 0
        if input_ids is None or from_nothing:
            input_ids = self._frame(1 if input_ids is None else len(input_ids))
            attention_mask = token_type_ids = None
        attention_mask = self._check_rows(input_ids, attention_mask, token_type_ids)
        repeats = options.num_return_sequences
        seeds = _row_seeds(len(input_ids), repeats, seed, generator, sampler.do_sample)
        input_ids = input_ids.long().repeat_interleave(repeats, 0)
        attention_mask = attention_mask.repeat_interleave(repeats, 0)
        # 3.
        holds_masks = self.config.mask_token_id in input_ids[attention_mask == 1]
        appends = kwargs.get("max_new_tokens") is not None or not holds_masks
        rows = pack_rows(
            input_ids,
            attention_mask,
            num_new=options.max_new_tokens if appends else 0,
            mask_token_id=cast(int, self.config.mask_token_id),  # checked in 2.
            pad_token_id=self._encoder_pad_token_id(),
            suffix_ids=self.config.suffix_ids or [],
            from_nothing=from_nothing,
        )
        self._check_length(rows)
        if token_type_ids is not None:
            token_type_ids = token_type_ids.repeat_interleave(repeats, 0)
            token_type_ids = rows.pack_types(token_type_ids, attention_mask)
        # 4.
        filled = fill_masks(
            self._logits_fn(rows.real, token_type_ids),
            DecodingState(rows.text, rows.masked, rows.can_end),
            rows.layout.lengths,
            sampler,
            seeds,
        )
        # 5.
        sequences = rows.finish(filled.text, sampler.end_ids, options.pad_token_id)
        if not options.return_dict_in_generate:
            return sequences
        return MaskGitGenerationOutput(
            sequences=sequences,
            denoiser_passes=filled.passes,
            reveal_steps=rows.restore_steps(filled.reveal_steps),
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
        loading = {name: value for name, value in given.items() if name in (*names, *_DEFAULTS)}
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

    def _resolve(
        self, generation_config: GenerationConfig | None, call: dict[str, Any]
    ) -> MaskGitGenerationConfig:
        unknown = [name for name in call if name not in _DEFAULTS]
        if unknown:
            raise ValueError(_unknown_options(unknown))
        options = MaskGitGenerationConfig()
        given = [] if generation_config is None else [_as_own(generation_config).to_dict()]
        for source in (call, *given, self.generation_config.to_dict(), _DEFAULTS):
            for name in _DEFAULTS:
                if getattr(options, name) is None:
                    setattr(options, name, source.get(name))
        options.validate()
        return options

    def _sampler(
        self,
        options: MaskGitGenerationConfig,
        schedule: str | Callable[[Tensor], Tensor] | Schedule | None,
        logits_processor: Sequence[LogitsProcessor] | None,
    ) -> Sampler:
        vocab_size = self.config.get_text_config().vocab_size
        suppressed = {*self.config.forbidden_token_ids, *(options.suppress_tokens or [])}
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
        warpers: list[LogitsProcessor] = []
        if options.top_k is not None:
            warpers.append(logits_process.TopKLogitsWarper(options.top_k))
        if options.top_p is not None and options.top_p < 1:
            warpers.append(logits_process.TopPLogitsWarper(options.top_p))
        return Sampler(
            steps=options.steps,
            schedule=get_schedule(schedule if schedule is not None else options.schedule),
            suppressed=torch.tensor(sorted(suppressed), dtype=torch.long, device=self.device),
            end_ids=torch.tensor(end_ids, dtype=torch.long, device=self.device),
            order=options.order,
            do_sample=options.do_sample,
            temperature=options.temperature,
            anneal_temperature=options.anneal_temperature,
            choice_temperature=options.choice_temperature,
            processors=_check_processors(logits_processor),
            warpers=LogitsProcessorList(warpers),
        )

    def _logits_fn(self, real: Tensor, token_type_ids: Tensor | None) -> LogitsFn:
        def logits_fn(rows: Tensor, text: Tensor, positions: Tensor) -> Tensor:
            types = {} if token_type_ids is None else {"token_type_ids": token_type_ids[rows]}
            mask = real[rows].long()
            return self(
                input_ids=text, attention_mask=mask, masked_positions=positions, **types
            ).logits

        return logits_fn

    def _frame(self, num_rows: int) -> Tensor:
        """Return an empty text in its framing, (B, P) long."""
        frame = [*(self.config.prefix_ids or []), *(self.config.suffix_ids or [])]
        return torch.tensor([frame] * num_rows, dtype=torch.long, device=self.device)

    def _encoder_pad_token_id(self) -> int:
        # RoBERTa and its kin derive positions from the padding id, so their own must stand there.
        pad = self.config.get_text_config().pad_token_id
        return pad if pad is not None else self.config.pad_token_id or 0

    def _check_rows(
        self, input_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor | None
    ) -> Tensor:
        """Check what the caller gave and return the attention mask, (B, P) long."""
        if self.config.mask_token_id is None:
            raise ValueError(
                "The model's config has no `mask_token_id`, so nothing can be filled; set "
                "model.config.mask_token_id = tokenizer.mask_token_id."
            )
        if input_ids.ndim != 2 or len(input_ids) == 0 or input_ids.is_floating_point():
            raise ValueError(
                "`input_ids` must be integers of shape (batch, length), got dtype "
                f"{input_ids.dtype} and shape {tuple(input_ids.shape)}."
            )
        vocab_size = self.config.get_text_config().vocab_size
        if bool(((input_ids < 0) | (input_ids >= vocab_size)).any()):
            raise ValueError(
                f"`input_ids` run from {int(input_ids.min())} to {int(input_ids.max())}; the "
                f"vocabulary has 0 to {vocab_size - 1}. Is this the model's own tokenizer?"
            )
        for name, tensor in (
            ("attention_mask", attention_mask),
            ("token_type_ids", token_type_ids),
        ):
            if tensor is not None and tensor.shape != input_ids.shape:
                raise ValueError(
                    f"`{name}` must have the shape of `input_ids`, {tuple(input_ids.shape)}, got "
                    f"{tuple(tensor.shape)}."
                )
        if attention_mask is None:
            pad = self.config.pad_token_id
            if pad is not None and pad in input_ids:
                raise ValueError(
                    f"`input_ids` hold the padding id {pad} and no "
                    "`attention_mask` says which tokens are real; pass the tokenizer's."
                )
            return torch.ones_like(input_ids)
        if not bool(((attention_mask == 0) | (attention_mask == 1)).all()):
            raise ValueError("`attention_mask` must hold 0 (padding) and 1 (real tokens) only.")
        empty = (attention_mask.sum(1) == 0).nonzero()
        if len(empty):
            raise ValueError(
                f"Row {int(empty[0])} of the batch is all padding; give it at least one "
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


def _as_own(config: GenerationConfig) -> MaskGitGenerationConfig:
    """Turn a plain `GenerationConfig` into ours; options that mean nothing here raise."""
    if isinstance(config, MaskGitGenerationConfig):
        return copy.deepcopy(config)
    return MaskGitGenerationConfig(**config.to_diff_dict())


def _unknown_options(names: Sequence[str]) -> str:
    hint = ""
    if "max_length" in names:
        hint = " Instead of `max_length` give `max_new_tokens`."
    return (
        f"Masked decoding has no option {', '.join(map(repr, sorted(names)))}; its options are "
        f"{', '.join(_DEFAULTS)}.{hint}"
    )


def _check_processors(processors: Sequence[LogitsProcessor] | None) -> LogitsProcessorList:
    for processor in processors or []:
        kind = type(processor)
        if kind.__module__ == logits_process.__name__ and kind.__name__ not in _PARALLEL_PROCESSORS:
            raise ValueError(
                f"{kind.__name__} reads the tokens in the order they were written, which parallel "
                f"decoding does not have; these work: {', '.join(sorted(_PARALLEL_PROCESSORS))}, "
                "and processors of your own that look at one position at a time."
            )
    return LogitsProcessorList(processors or [])


def _row_seeds(
    num_rows: int,
    repeats: int,
    seed: int | Sequence[int] | None,
    generator: torch.Generator | None,
    do_sample: bool,
) -> list[int]:
    """Give each returned row its seed; see `generate`."""
    returned = num_rows * repeats
    if seed is not None and generator is not None:
        raise ValueError("Give `seed` or `generator`, not both; each decides the noise alone.")
    if seed is None and not do_sample:
        return [0] * returned  # never looked at; no generator is touched
    if seed is None:
        return [fresh_seed(generator) for _ in range(returned)]
    if isinstance(seed, int | numbers.Integral):
        return [mix(int(seed), row) for row in range(returned)]
    seeds = [int(s) for s in seed]
    if len(seeds) == returned:
        return seeds
    if len(seeds) == num_rows:
        return [mix(s, copy_) if copy_ else s for s in seeds for copy_ in range(repeats)]
    raise ValueError(
        f"`seed` has {len(seeds)} entries for {num_rows} rows and {returned} returned texts; give "
        "one int, one per row, or one per returned text."
    )
