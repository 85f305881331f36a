"""The options of `generate`: whose option counts, and what goes together."""

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transformers import GenerationConfig

from .argument_checks import is_list_of_ids, is_strings
from .checkpoint_files import UnknownOptionError, read_json_object
from .decoding_cache import CacheOptions
from .decoding_lengths import NUM_TOKENS
from .generation_output import PARTS_OF_OUTPUT
from .options import Option, check, option, option_of, options_of
from .sampler import Sampler
from .sampler_choices import (
    P2_PLANNERS,
    TABLES,
    Choices,
    default_noise,
    described,
    resolve_choices,
    what_draws,
)
from .sampler_orders import ORDERS
from .sampler_presets import PRESETS
from .sampler_rules import PACES
from .schedules import SCHEDULES
from .unknown_tokens import Tolerance


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a call of `generate` asks for besides its sampler; declares options and holds none."""

    max_new_tokens: int | list[int] = option(
        64,
        "Masks appended behind each row's last real token; a list gives each row, or each returned "
        "row, a number of its own.",
        int,
        low=0,
        per_row=True,
    )
    num_tokens: str = option(
        "fixed",
        "How many masks are appended: "
        + "; ".join(f'"{name}", {row.help}' for name, row in NUM_TOKENS.items())
        + ".",
        choices=tuple(NUM_TOKENS),
    )
    schedule: str = option(
        "linear",
        'How fast masks are revealed: "linear" or "cosine"; unset, the model\'s own.',
        choices=tuple(SCHEDULES),
    )
    can_mask_prev_unmasked: bool = option(
        False,
        'The ancestor\'s word for remask="confidence", or "critic" where the order is.',
        bool,
    )
    top_k: int | None = option(None, "Draw from the likeliest k tokens; 0 keeps all.", int, low=0)
    top_p: float | None = option(
        None,
        "Draw from the fewest tokens of this total probability; 1 keeps all.",
        int,
        float,
        low=0,
        high=1,
        open_low=True,
    )
    repetition_penalty: float | None = option(
        None,
        "Makes tokens that a row holds less likely, above 1, or likelier.",
        int,
        float,
        low=0,
        open_low=True,
    )
    suppress_tokens: list[int] | None = option(
        None, "Ids that are never emitted, besides those the model forbids."
    )
    bad_words_ids: list[list[int]] | None = option(
        None,
        "Words that are never emitted, as lists of one id each; longer ones cannot be kept out of "
        "texts that are not written from left to right.",
    )
    guidance_scale: float | None = option(
        None,
        "Push away from the text without its prompt, or with the negative one: w of u + w (c - u) "
        "with its log-probabilities u and c of the text itself; 1 changes nothing.",
        int,
        float,
        low=0,
    )
    p2_planner: str = option(
        "self", 'Who judges in remask="p2": "self" or "critic".', choices=tuple(P2_PLANNERS)
    )
    stop_strings: str | list[str] | None = option(
        None,
        "Strings behind the first of which a row's new text ends; in Python with `tokenizer=`.",
    )
    max_unknown_share: float = option_of(Tolerance, "max_unknown_share")
    num_return_sequences: int = option(1, "Texts per row.", int, low=1)
    return_dict_in_generate: bool = option(False, "Return a `MaskGitGenerationOutput`.", bool)
    output_history: bool = option(False, "Let it hold the text after every pass, too.", bool)
    output_alternatives: int = option(
        0, "How many of the likeliest tokens of each place, at its reveal, it holds.", int, low=0
    )
    pad_token_id: int | None = option(
        None, "Id that fills a row behind its end; unset, the model's."
    )
    bos_token_id: int | None = option(None, "Id that begins a text; unset, the model's.")
    eos_token_id: int | list[int] | None = option(
        None,
        "Id, or list of ids, that ends a text besides the model's own end, which is never a word: "
        "to write on and on, put that into `suppress_tokens`.",
    )


# Every option of `generate` by name; those that pick a row of a table may have its names.
OPTIONS: dict[str, Option] = {
    name: described(name, declared) if name in TABLES else declared
    for name, declared in (
        options_of(Request) | options_of(Sampler) | options_of(CacheOptions)
    ).items()
}
# An order, a pace or a remasking that nobody sets follows from the other two.
DEFAULTS: dict[str, Any] = {
    name: None if name in TABLES else declared.default for name, declared in OPTIONS.items()
}
METADATA = ("transformers_version", "_from_model_config", "_commit_hash", "_original_object_hash")

# Words of left-to-right generation, and what to write in their place.
_INSTEAD = {
    "max_length": "give `max_new_tokens`",
    "min_length": "suppress the end of text with `suppress_tokens`",
    "min_new_tokens": "suppress the end of text with `suppress_tokens`",
    "num_beams": "take the best of `num_return_sequences`",
    "inputs": "give `input_ids`",
    "no_repeat_ngram_size": "use `repetition_penalty`",
}

# Options that make up one sampler together: mixed from two sources they would seldom go together.
_CHOOSING = (*TABLES, "can_mask_prev_unmasked", "p2_planner")
SAMPLER_CHOICES = (*TABLES, "can_mask_prev_unmasked", "choice_temperature", "block_length")


class MaskGitGenerationConfig(GenerationConfig):
    """Options of `generate`; unset ones are None and fall back to the model's, then the library's.

    Raises:
        ValueError: for an unknown option, a value out of its range, or choices that do not go
            together.
    """

    if TYPE_CHECKING:  # every option is an attribute

        def __getattr__(self, name: str) -> Any: ...

    def __init__(self, **kwargs: Any) -> None:
        # transformers' own __init__ would add some sixty options of left-to-right decoding.
        for name in OPTIONS:
            setattr(self, name, kwargs.pop(name, None))
        self._from_model_config = False
        self.transformers_version = kwargs.pop("transformers_version", None)
        unknown = [k for k, v in kwargs.items() if v is not None and k not in METADATA]
        if unknown:
            raise UnknownOptionError(unknown_options(unknown))
        self.validate()

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> "MaskGitGenerationConfig":
        """Return the options of a sampler of the literature, or of the one tuned here.

        Args:
            name: one of `PRESETS`: "maskgit", "mdlm", "llada", "dream", "remdm", "p2", "eb",
                "fast_dllm", "x_transformers", "fast".
            **overrides: options that replace or complete the preset's.

        Raises:
            ValueError: for an unknown name, or overrides that do not go with the preset.
        """
        if not isinstance(name, str) or name not in PRESETS:
            raise ValueError(
                f"Unknown preset {name!r}; choose from {', '.join(map(repr, PRESETS))}."
            )
        return cls(**{**PRESETS[name].options, **overrides})

    @classmethod
    def _dict_from_json_file(cls, json_file: str | os.PathLike[str]) -> dict[str, Any]:
        return read_json_object(json_file)

    def validate(self, strict: bool = False, user_set_attributes: set[str] | None = None) -> None:
        """Check every option that is set; transformers' own arguments change nothing.

        Args:
            strict: unused, every fault raises.
            user_set_attributes: unused.

        Raises:
            ValueError: naming the option, what was got and what is allowed.
        """
        self.check_values()
        self._check_pairs()
        if self.do_sample is False:
            self._check_greedy()

    def check_values(self) -> None:
        """Check every option that is set by itself, before it is compared with others."""
        for name, declared in OPTIONS.items():
            if getattr(self, name) is not None:
                check(name, getattr(self, name), declared)
        self._check_lists()

    def complete(self, source: Mapping[str, Any]) -> None:
        """Take the options that are unset from a less specific source."""
        # Each of the two silences the other of a less specific source: two forms of one rule.
        other_rule = {
            "confidence_threshold": self.threshold_factor,
            "threshold_factor": self.confidence_threshold,
        }
        for name in OPTIONS:
            if getattr(self, name) is None and other_rule.get(name) is None:
                setattr(self, name, source.get(name))

    def without_conflicts(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is stored with a model, less what contradicts the options of a call.

        A sampler named here takes nothing of the stored one. Greedy decoding named here silences
        what is stored and draws at random, and the other way round. Where ids alone are returned,
        what is stored of an output means nothing.
        """
        kept = dict(stored)
        returns = self.return_dict_in_generate
        if not (stored.get("return_dict_in_generate") if returns is None else returns):
            kept = {k: v for k, v in kept.items() if k not in PARTS_OF_OUTPUT}
        if self.names_a_sampler:
            kept = {k: v for k, v in kept.items() if k not in SAMPLER_CHOICES}
        if self.do_sample is False:
            # A stored pace may draw by the order that follows from it.
            chosen = MaskGitGenerationConfig(**{k: kept.get(k) for k in _CHOOSING})._choices()
            drawing = set(what_draws({**kept, **chosen._asdict()}))
            # Of a sampler that draws nothing is left over that would mean anything alone.
            if drawing & TABLES.keys():
                drawing |= set(SAMPLER_CHOICES)
            kept = {k: v for k, v in kept.items() if k not in drawing}
        elif self.do_sample is None and what_draws(vars(self)):
            kept.pop("do_sample", None)
        return kept

    @property
    def names_a_sampler(self) -> bool:
        """Whether an order, a pace or a remasking is set."""
        return bool(any(getattr(self, choice) for choice in (*TABLES, "can_mask_prev_unmasked")))

    def resolve_choices(self) -> None:
        """Complete `order`, `pace`, `remask` and the noise on the order where they are unset.

        Raises:
            ValueError: for choices that do not go together.
        """
        choices = self._choices()
        vars(self).update(choices._asdict())
        self.complete({"choice_temperature": default_noise(choices, self.do_sample is not False)})

    def _choices(self) -> Choices:
        remask = self.remask
        if self.can_mask_prev_unmasked:
            meant = ORDERS[self.order or OPTIONS["order"].default].competing
            if remask not in (None, meant):
                raise ValueError(
                    f"can_mask_prev_unmasked=True means remask={meant!r} here, got remask="
                    f"{remask!r}; leave one of the two unset."
                )
            remask = meant
        planner = self.p2_planner or DEFAULTS["p2_planner"]
        return resolve_choices(self.order, self.pace, remask, planner)

    def _check_lists(self) -> None:
        for name in ("pad_token_id", "bos_token_id"):
            if getattr(self, name) is not None and type(getattr(self, name)) is not int:
                raise ValueError(f"`{name}` must be a token id, got {getattr(self, name)!r}.")
        ends = self.eos_token_id
        if ends is not None and type(ends) is not int and not is_list_of_ids(ends):
            raise ValueError(
                f"`eos_token_id` must be a token id or a list of token ids, got {ends!r}."
            )
        ids = self.suppress_tokens
        if ids is not None and not is_list_of_ids(ids):
            raise ValueError(f"`suppress_tokens` must be a list of token ids, got {ids!r}.")
        words = self.bad_words_ids
        if words is not None:
            if not (isinstance(words, list) and all(map(is_list_of_ids, words))):
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
        if stops is not None and not is_strings(stops):
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
        for part in PARTS_OF_OUTPUT:
            if getattr(self, part) and self.return_dict_in_generate is False:
                told = "is a part of what return_dict_in_generate=True returns; set both."
                raise ValueError(f"`{part}` {told}")
        if None not in (self.order, self.pace, self.remask):
            self._choices()
        orders = [name for name, row in ORDERS.items() if row.noise == "choice_temperature"]
        paces = [name for name, row in PACES.items() if row.takes_noise]
        takes_noise = self.order in (None, *orders) and self.pace in (None, *paces)
        if self.choice_temperature and not takes_noise:
            raise ValueError(
                "`choice_temperature` is noise on the scores of an order, and "
                f"order={self.order!r} with pace={self.pace!r} leaves it nothing to change; set it "
                f"to 0, or the order to one of {', '.join(map(repr, orders))} with pace "
                f"{' or '.join(map(repr, paces))}."
            )

    def _check_greedy(self) -> None:
        drawing = what_draws(vars(self))
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


# The declared sentences are the class's documentation, too.
MaskGitGenerationConfig.__doc__ = str(MaskGitGenerationConfig.__doc__).replace(
    "    Raises:",
    "    Args:\n"
    + "".join(
        f"        {name}: {o.description} Default: {o.default!r}.\n" for name, o in OPTIONS.items()
    )
    + "\n    Raises:",
)


def unknown_options(names: Sequence[str]) -> str:
    """Say in a sentence that masked decoding has no such options."""
    hints = []
    for name in sorted(names):
        close = difflib.get_close_matches(name, OPTIONS, n=1)
        if name in _INSTEAD:
            hints.append(f" Instead of `{name}` {_INSTEAD[name]}.")
        elif close:
            hints.append(f" Did you mean `{close[0]}`?")
    return (
        f"Masked decoding has no option {', '.join(map(repr, sorted(names)))}; its options are "
        f"{', '.join(OPTIONS)}.{''.join(hints)}"
    )
