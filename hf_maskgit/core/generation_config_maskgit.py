"""The options of `generate`, their defaults and their ranges."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from transformers import GenerationConfig

from .sampler import (
    ORDERS,
    P2_PLANNERS,
    PACES,
    REMASKS,
    SCORED_ORDERS,
    resolve_choices,
)
from .sampler_presets import PRESETS
from .schedules import SCHEDULES

DEFAULTS: dict[str, Any] = {
    "max_new_tokens": 64,
    "steps": 18,
    "schedule": "linear",
    "order": None,
    "pace": None,
    "remask": None,
    "can_mask_prev_unmasked": False,
    "block_length": None,
    "do_sample": True,
    "temperature": 1.0,
    "anneal_temperature": True,
    "choice_temperature": 0.0,
    "noise_level_scale": 1.0,
    "top_k": None,
    "top_p": None,
    "repetition_penalty": None,
    "suppress_tokens": None,
    "bad_words_ids": None,
    "guidance_scale": None,
    "confidence_threshold": 0.9,
    "threshold_factor": None,
    "entropy_budget": 0.1,
    "remdm_eta": 0.02,
    "remdm_t_on": 0.55,
    "remdm_t_off": 0.05,
    "remdm_alpha_on": 0.9,
    "p2_eta": 1.0,
    "p2_planner": "self",
    "stop_strings": None,
    "num_return_sequences": 1,
    "return_dict_in_generate": False,
    "output_history": False,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
METADATA = ("transformers_version", "_from_model_config", "_commit_hash", "_original_object_hash")

# Options that only one choice looks at, and which.
_READ_BY = {
    "confidence_threshold": ("pace", ("threshold",)),
    "threshold_factor": ("pace", ("threshold",)),
    "entropy_budget": ("pace", ("entropy_bound",)),
    "remdm_eta": ("remask", ("remdm_cap", "remdm_rescale", "remdm_loop")),
    "remdm_t_on": ("remask", ("remdm_loop",)),
    "remdm_t_off": ("remask", ("remdm_loop",)),
    "remdm_alpha_on": ("remask", ("remdm_loop",)),
    "p2_eta": ("remask", ("p2",)),
    "p2_planner": ("remask", ("p2",)),
    "noise_level_scale": ("order", ("critic",)),
}

# Words of left-to-right generation, and what to write in their place.
_INSTEAD = {
    "max_length": "give `max_new_tokens`",
    "min_length": "suppress the end of text with `suppress_tokens`",
    "min_new_tokens": "suppress the end of text with `suppress_tokens`",
    "num_beams": "take the best of `num_return_sequences`",
    "use_cache": "leave it out: every pass reads the whole text",
    "inputs": "give `input_ids`",
    "no_repeat_ngram_size": "use `repetition_penalty`",
}

# Options that make up one sampler together: mixed from two sources they would seldom go together.
SAMPLER_CHOICES = (
    "order",
    "pace",
    "remask",
    "can_mask_prev_unmasked",
    "choice_temperature",
    "block_length",
)

_NAMES = {
    "order": ORDERS,
    "pace": PACES,
    "remask": REMASKS,
    "p2_planner": P2_PLANNERS,
    "schedule": tuple(SCHEDULES),
}
_INTEGERS_FROM = {
    "steps": 1,
    "max_new_tokens": 0,
    "num_return_sequences": 1,
    "top_k": 0,
    "block_length": 1,
}
# Ends of the range, and whether each belongs to it.
_NUMBERS = {
    "temperature": (0, False, None, False),
    "choice_temperature": (0, True, None, False),
    "noise_level_scale": (0, True, None, False),
    "top_p": (0, False, 1, True),
    "repetition_penalty": (0, False, None, False),
    "guidance_scale": (0, True, None, False),
    "confidence_threshold": (0, True, 1, True),
    "threshold_factor": (0, False, None, False),
    "entropy_budget": (0, True, None, False),
    "remdm_eta": (0, True, 1, True),
    "remdm_t_on": (0, False, 1, True),
    "remdm_t_off": (0, True, 1, False),
    "remdm_alpha_on": (0, False, 1, False),
    "p2_eta": (0, False, None, False),
}
_FLAGS = (
    "can_mask_prev_unmasked",
    "do_sample",
    "anneal_temperature",
    "return_dict_in_generate",
    "output_history",
)


class MaskGitGenerationConfig(GenerationConfig):
    """Options of `generate`; unset ones are None and fall back to the model's, then the library's.

    Args:
        max_new_tokens: masks appended behind each row's last real token (64).
        steps: number of denoiser passes at most, S >= 1 (18). All blocks together share them. The
            paces `first_hitting`, `threshold` and `entropy_bound` take the passes they need.
        schedule: "linear" or "cosine", how fast masks are revealed (the model's own).
        order: which masked positions go first. Scores of a position, known before a token is drawn:
            "top_probability" of the likeliest token (the default), "margin" over the second
            likeliest (arXiv 2502.06768), "entropy", lowest first. "confidence": probability of the
            token drawn (MaskGIT and the ancestor; its texts repeat more). "critic": the token
            critic's view of the token drawn. "random", "left_to_right".
        pace: how many per step. "schedule" (the default) follows `steps` and `schedule`;
            "ancestral" flips a coin per mask, as MDLM samples (arXiv 2406.07524); "first_hitting"
            reveals one (arXiv 2409.02908); "threshold" all of a probability of
            `confidence_threshold` or by `threshold_factor` (Fast-dLLM, arXiv 2505.22618);
            "entropy_bound" as many as lose at most `entropy_budget` nats (EB-Sampler, 2505.24857).
        remask: which revealed tokens are masked again. "never" (the default); "confidence": those
            the denoiser now believes least; "critic": those the critic believes least
            (arXiv 2209.04439); "p2" (arXiv 2502.03540); "remdm_cap", "remdm_rescale", "remdm_conf",
            "remdm_loop" (arXiv 2503.00307).
        can_mask_prev_unmasked: the ancestor's word for remask="confidence", or "critic" where the
            order is (False).
        block_length: decode blocks of that many masks, at least 1, from left to right (None: all
            at once).
        do_sample: draw tokens (True); False takes the likeliest.
        temperature: divides the logits before a token is drawn, > 0 (1.0).
        anneal_temperature: scale the temperature down to 0 over the steps (True). This sharpens:
            the last pass is greedy. For samples from the model's own law set it to False.
        choice_temperature: scale of the Gumbel noise on the order, >= 0, annealed to 0 over the
            steps (0.0).
        noise_level_scale: the same for scores of the critic (1.0).
        top_k, top_p: keep the likeliest k >= 0 tokens, or the smallest set of total probability p
            in (0, 1]; 0 and 1 keep all.
        repetition_penalty: > 0, makes tokens that a row holds less likely (above 1) or likelier.
        suppress_tokens: ids never emitted, besides those the model forbids.
        bad_words_ids: the same as lists of one id each; longer words cannot be kept out of texts
            that are not written from left to right.
        guidance_scale: w of u + w (c - u) with the log-probabilities c of the text and u of the
            text without its prompt, or with the negative prompt; w >= 0, 1 changes nothing (None).
        confidence_threshold: probability in [0, 1], of pace "threshold" (0.9).
        threshold_factor: f > 0 of Fast-dLLM's rule (n + 1)(1 - p_n) < f, instead of the threshold.
        entropy_budget: nats, >= 0, of pace "entropy_bound" (0.1).
        remdm_eta: remask rate of ReMDM, in [0, 1] (0.02).
        remdm_t_on, remdm_t_off: times between which ReMDM-loop remasks, 0 <= off < on <= 1 (0.55,
            0.05).
        remdm_alpha_on: share of tokens revealed meanwhile, in (0, 1) (0.9).
        p2_eta: > 0, scales the log-probability of revealed tokens; above 1 remasks more (1.0).
        p2_planner: "self" or "critic" ("self").
        stop_strings: a row ends behind the first of these in its new text; needs `tokenizer=`.
        num_return_sequences: texts per row (1).
        return_dict_in_generate: return a `MaskGitGenerationOutput` (False).
        output_history: let that hold the text after every pass (False).
        pad_token_id, bos_token_id, eos_token_id: special ids (the model's).

    Raises:
        ValueError: for an unknown option, a value out of its range, or choices that do not go
            together.
    """

    # Types of the resolved options; an unset one is None.
    max_new_tokens: int
    steps: int
    schedule: str
    order: str
    pace: str
    remask: str
    can_mask_prev_unmasked: bool
    block_length: int | None
    do_sample: bool
    temperature: float
    anneal_temperature: bool
    choice_temperature: float
    noise_level_scale: float
    top_k: int | None
    top_p: float | None
    repetition_penalty: float | None
    suppress_tokens: list[int] | None
    bad_words_ids: list[list[int]] | None
    guidance_scale: float | None
    confidence_threshold: float
    threshold_factor: float | None
    entropy_budget: float
    remdm_eta: float
    remdm_t_on: float
    remdm_t_off: float
    remdm_alpha_on: float
    p2_eta: float
    p2_planner: str
    stop_strings: str | list[str] | None
    num_return_sequences: int
    return_dict_in_generate: bool
    output_history: bool
    pad_token_id: int | None
    bos_token_id: int | None
    eos_token_id: int | list[int] | None

    def __init__(self, **kwargs: Any) -> None:
        # transformers' own __init__ would add some sixty options of left-to-right decoding.
        for name in DEFAULTS:
            setattr(self, name, kwargs.pop(name, None))
        self._from_model_config = False
        self.transformers_version = kwargs.pop("transformers_version", None)
        unknown = [k for k, v in kwargs.items() if v is not None and k not in METADATA]
        if unknown:
            raise ValueError(unknown_options(unknown))
        self.validate()

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> "MaskGitGenerationConfig":
        """Return the options of a sampler of the literature.

        Args:
            name: one of `PRESETS`: "maskgit", "mdlm", "llada", "dream", "remdm", "p2", "eb",
                "fast_dllm", "x_transformers".
            **overrides: options that replace or complete the preset's.

        Raises:
            ValueError: for an unknown name, or overrides that do not go with the preset.
        """
        if name not in PRESETS:
            raise ValueError(
                f"Unknown preset {name!r}; choose from {', '.join(map(repr, PRESETS))}."
            )
        return cls(**{**PRESETS[name].options, **overrides})

    def validate(self, strict: bool = False, user_set_attributes: set[str] | None = None) -> None:
        """Check every option that is set; transformers' own arguments change nothing.

        Args:
            strict: unused, every fault raises.
            user_set_attributes: unused.

        Raises:
            ValueError: naming the option, what was got and what is allowed.
        """
        for name, known in _NAMES.items():
            value = getattr(self, name)
            if value is not None and value not in known:
                raise ValueError(
                    f"Unknown {name} {value!r}; choose from {', '.join(map(repr, known))}."
                )
        for name, low in _INTEGERS_FROM.items():
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < low):
                raise ValueError(f"`{name}` must be an integer of at least {low}, got {value!r}.")
        for name, limits in _NUMBERS.items():
            _check_number(name, getattr(self, name), *limits)
        for name in _FLAGS:
            value = getattr(self, name)
            if value is not None and type(value) is not bool:
                raise ValueError(f"`{name}` must be True or False, got {value!r}.")
        self._check_lists()
        self._check_pairs()
        if self.do_sample is False:
            self._check_greedy()

    def complete(self, source: Mapping[str, Any]) -> None:
        """Take the options that are unset from a less specific source."""
        other_rule = {
            "confidence_threshold": self.threshold_factor,
            "threshold_factor": self.confidence_threshold,
        }
        for name in DEFAULTS:
            if getattr(self, name) is None and other_rule.get(name) is None:
                setattr(self, name, source.get(name))

    def without_conflicts(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is stored with a model, less what contradicts the options of a call.

        A sampler named here takes nothing of the stored one. Greedy decoding named here silences
        what is stored and draws at random, and the other way round.
        """
        kept = dict(stored)
        if self.names_a_sampler:
            kept = {k: v for k, v in kept.items() if k not in SAMPLER_CHOICES}
        if self.do_sample is False:
            drawing = set(_what_draws(kept))
            if drawing & {"order", "pace", "remask"}:
                drawing |= set(SAMPLER_CHOICES)
            kept = {k: v for k, v in kept.items() if k not in drawing}
        elif self.do_sample is None and _what_draws(vars(self)):
            kept.pop("do_sample", None)
        return kept

    @property
    def names_a_sampler(self) -> bool:
        """Whether an order, a pace or a remasking is set."""
        choices = (self.order, self.pace, self.remask)
        return any(choices) or bool(self.can_mask_prev_unmasked)

    def resolve_choices(self) -> None:
        """Complete `order`, `pace` and `remask` where unset, and check that they go together."""
        remask = self.remask
        if self.can_mask_prev_unmasked:
            meant = "critic" if self.order == "critic" else "confidence"
            if remask not in (None, meant):
                raise ValueError(
                    f"can_mask_prev_unmasked=True means remask={meant!r} here, got remask="
                    f"{remask!r}; leave one of the two unset."
                )
            remask = meant
        planner = self.p2_planner or DEFAULTS["p2_planner"]
        choices = resolve_choices(self.order, self.pace, remask, planner)
        self.order, self.pace, self.remask = choices

    def _check_lists(self) -> None:
        ids = self.suppress_tokens
        if ids is not None and not _is_list_of_ids(ids):
            raise ValueError(f"`suppress_tokens` must be a list of token ids, got {ids!r}.")
        words = self.bad_words_ids
        if words is not None:
            if not (isinstance(words, list) and all(map(_is_list_of_ids, words))):
                raise ValueError(
                    f"`bad_words_ids` must be a list of lists of token ids, got {words!r}."
                )
            long = [word for word in words if len(word) != 1]
            if long:
                raise ValueError(
                    f"`bad_words_ids` holds {long[0]}; parallel decoding can keep out words of one "
                    "token only, since the tokens of a longer one may be drawn in the same pass."
                )
        stops = self.stop_strings
        if stops is not None and not _is_strings(stops):
            raise ValueError(
                f"`stop_strings` must be a string or a list of strings, none empty, got {stops!r}."
            )

    def _check_pairs(self) -> None:
        on, off = self.remdm_t_on, self.remdm_t_off
        on = DEFAULTS["remdm_t_on"] if on is None else on
        off = DEFAULTS["remdm_t_off"] if off is None else off
        if not off < on:
            raise ValueError(
                f"Time runs from 1 down to 0, so `remdm_t_off` must be less than `remdm_t_on`, got "
                f"{off} and {on}."
            )
        if self.confidence_threshold is not None and self.threshold_factor is not None:
            raise ValueError(
                "`confidence_threshold` and `threshold_factor` are two rules for the same pace; "
                "set one of them."
            )
        if self.output_history and self.return_dict_in_generate is False:
            raise ValueError(
                "`output_history` is a part of what return_dict_in_generate=True returns; set both."
            )
        if None not in (self.order, self.pace, self.remask):
            self.resolve_choices()
        scored = self.order in (None, *SCORED_ORDERS) and self.pace in (None, "schedule")
        if self.choice_temperature and not scored:
            raise ValueError(
                "`choice_temperature` is noise on the scores of an order, and "
                f"order={self.order!r} with pace={self.pace!r} leaves it nothing to change; set it "
                f"to 0, or the order to one of {', '.join(map(repr, SCORED_ORDERS))}."
            )

    def _check_greedy(self) -> None:
        drawing = _what_draws(vars(self))
        if drawing:
            name = drawing[0]
            value = getattr(self, name)
            raise ValueError(
                f"do_sample=False draws nothing at random, which {name}={value!r} needs; set "
                f"do_sample=True or leave `{name}` at its default."
            )

    def to_diff_dict(self) -> dict[str, Any]:
        """Return the options that are set; these are what a checkpoint stores."""
        return {k: v for k, v in self.to_dict().items() if v is not None and k not in METADATA[1:]}

    @staticmethod
    def _get_default_generation_params() -> dict[str, Any]:
        return dict(DEFAULTS)

    @classmethod
    def from_model_config(cls, model_config: Any) -> "MaskGitGenerationConfig":
        """Make the options a fresh model starts with; a pipeline then adds none of its own."""
        positions = getattr(model_config.get_text_config(), "max_position_embeddings", None)
        default_length = DEFAULTS["max_new_tokens"]
        return cls(
            max_new_tokens=min(default_length, positions // 2) if positions else default_length,
            steps=DEFAULTS["steps"],
            schedule=model_config.schedule,
            do_sample=True,
            temperature=1.0,
            pad_token_id=model_config.pad_token_id,
            bos_token_id=model_config.bos_token_id,
            eos_token_id=model_config.eos_token_id,
        )


def _what_draws(options: Mapping[str, Any]) -> list[str]:
    """Name the options that draw at random, besides the tokens themselves."""
    draws = {
        "order": options.get("order") == "random",
        "pace": options.get("pace") in ("ancestral", "first_hitting"),
        "remask": (options.get("remask") or "").startswith("remdm"),
        "choice_temperature": bool(options.get("choice_temperature")),
        "num_return_sequences": (options.get("num_return_sequences") or 1) > 1,
    }
    return [name for name, is_drawn in draws.items() if is_drawn]


def without_effect(options: MaskGitGenerationConfig, named: Iterable[str]) -> list[str]:
    """Say of each option that was named in a call, but that its sampler does not look at, so.

    Args:
        options: resolved.
        named: what the call set.
    """
    return [
        f"`{name}` has no effect with {choice}={getattr(options, choice)!r}; it belongs to "
        f"{choice} {' or '.join(map(repr, readers))}."
        for name in named
        if name in _READ_BY
        for choice, readers in [_READ_BY[name]]
        if getattr(options, choice) not in readers
    ]


def unknown_options(names: Sequence[str]) -> str:
    """Say in a sentence that masked decoding has no such options."""
    hints = []
    for name in sorted(names):
        close = difflib.get_close_matches(name, DEFAULTS, n=1)
        if name in _INSTEAD:
            hints.append(f" Instead of `{name}` {_INSTEAD[name]}.")
        elif close:
            hints.append(f" Did you mean `{close[0]}`?")
    return (
        f"Masked decoding has no option {', '.join(map(repr, sorted(names)))}; its options are "
        f"{', '.join(DEFAULTS)}.{''.join(hints)}"
    )


def _check_number(
    name: str, value: Any, low: float, with_low: bool, high: float | None, with_high: bool
) -> None:
    if value is None:
        return
    if type(value) not in (int, float):
        raise ValueError(f"`{name}` must be a number, got {value!r}.")
    above = value >= low if with_low else value > low
    below = high is None or (value <= high if with_high else value < high)
    if above and below:
        return
    if high is None:
        allowed = f"be at least {low}" if with_low else f"be greater than {low}"
    else:
        allowed = f"lie in {'[' if with_low else '('}{low}, {high}{']' if with_high else ')'}"
    hint = "; for the likeliest token set do_sample=False" if name == "temperature" else ""
    raise ValueError(f"`{name}` must {allowed}, got {value}{hint}.")


def _is_list_of_ids(value: Any) -> bool:
    return isinstance(value, list) and all(type(i) is int for i in value)


def _is_strings(value: Any) -> bool:
    strings = [value] if isinstance(value, str) else value
    return isinstance(strings, list) and all(isinstance(s, str) and s for s in strings)
