"""Options of the training script, one declaration each: a dataclass field with a help text."""

import math
import numbers
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from ..core.configuration_maskgit import MaskGitConfig
from ..core.generation_config_maskgit import MaskGitGenerationConfig
from ..core.masking import Masking
from ..core.options import check, options_of, shown
from ..evaluation.bound import Estimation, check_num_samples
from .data_arguments import DataArguments as DataArguments
from .declaring import option_of, words_of
from .encoder_settings import check_dropouts
from .learning_rates import LEARNING_RATES
from .optimisation import OptimisationArguments
from .recipes import json_object, option, required
from .time_samplers import TIME_SAMPLERS
from .weighting import WEIGHTINGS

T = TypeVar("T")


def _left_out(name: str) -> Any:
    """Declare an option of `MaskGitConfig` that is the checkpoint's where it is not given."""
    declared = options_of(MaskGitConfig)[name]
    default = f"Default: as in the checkpoint, else {declared.default!r}."
    return option(None, f"{declared.description} {default}", **words_of(declared))


def _with_masking(arguments: type[T]) -> type[T]:
    """Add to a class of options those of `Masking` that a checkpoint stores.

    No line of the training script reads one by its name, so a list of them would only repeat.
    """
    for name, declared in options_of(Masking).items():
        if name in options_of(MaskGitConfig):
            # The default has the type that a command line can give: a schedule's is a name.
            arguments.__annotations__[name] = type(declared.default) | None
            setattr(arguments, name, _left_out(name))
    return arguments


@dataclass
@_with_masking
class ModelArguments:
    """What is trained, and how its tokens are hidden: the last options are those of `Masking`."""

    encoder: str = required(
        "Encoder to turn into a generator: a name on the Hub or a local folder, also a checkpoint "
        "of this library. With from_scratch a configuration: name, folder, JSON file or model "
        "type such as 'bert'."
    )
    tokenizer: str | None = option(
        None, "Tokenizer: a name on the Hub or a local folder. Default: the encoder's own."
    )
    check_tokenizer: bool = option(
        True,
        "Refuse a tokenizer that plainly is not the encoder's: one that knows fewer than half of "
        "its rows.",
    )
    resize_embeddings: bool = option(
        False,
        "Take a tokenizer that has grown since the encoder was made: ids that the encoder has no "
        "row for get one each, drawn around the mean of the others.",
    )
    revision: str = option("main", "Branch, tag or commit of the encoder on the Hub.")
    attn_implementation: str | None = option(
        None,
        "How the encoder computes attention, as in from_pretrained: 'sdpa', 'eager' or another "
        "that it knows. Left out, transformers chooses; on a CPU 'eager' may train faster.",
    )
    from_scratch: bool = option(
        False,
        "Start from random weights; the vocabulary has the tokenizer's size. Needs `tokenizer`.",
    )
    encoder_overrides: str | None = option(
        None,
        "Settings of the encoder that differ from its configuration: a JSON object such as "
        "'{\"hidden_size\": 256}', in a recipe also a mapping. Any with `from_scratch`; of "
        "pretrained weights only dropout, such as '{\"hidden_dropout_prob\": 0}'.",
    )
    self_cond: bool | None = _left_out("self_cond")
    self_cond_train_prob: float | None = _left_out("self_cond_train_prob")
    token_critic: str | None = _left_out("token_critic")
    critic: str | None = option(
        None,
        "Encoder of a separate critic with the same tokenizer: a name on the Hub or a local "
        "folder. Default: a copy of the encoder.",
    )
    critic_loss_weight: float | None = _left_out("critic_loss_weight")
    decoding: str | None = option(
        None,
        "Options of `generate` that are stored with the model, for the texts of evaluations and "
        'for calls that do not name them: a JSON object such as \'{"order": "margin"}\', in a '
        "recipe also a mapping.",
    )

    def __post_init__(self) -> None:
        """Check ranges and what belongs together."""
        # Said here already, because the configuration is built only once the encoder is loaded.
        for name, value in self.maskgit_overrides.items():
            check(name, value, options_of(MaskGitConfig)[name])
        if self.encoder_overrides and not self.from_scratch:
            check_dropouts(json_object("encoder_overrides", self.encoder_overrides))
        if self.decoding:
            # Said here, since the first text is decoded at the first evaluation.
            MaskGitGenerationConfig(**json_object("decoding", self.decoding)).resolve_choices()
        if self.critic is not None and self.token_critic == "self":
            raise ValueError(
                "`critic` names the encoder of a separate critic, and token_critic='self' has "
                "none; leave one of the two out."
            )

    @property
    def maskgit_overrides(self) -> dict[str, Any]:
        """The fields of `MaskGitConfig` that were given."""
        given = {name: getattr(self, name) for name in options_of(MaskGitConfig)}
        return {name: value for name, value in given.items() if value is not None}


@dataclass
class TrainArguments(OptimisationArguments):
    """How it is trained; an update is one step of the optimizer. The base class has more."""

    output_dir: str = required("Folder for the model, its checkpoints and these options.")
    overwrite_output_dir: bool = option(
        False, "Allow a folder that holds another run; its files go."
    )
    dry_run: bool = option(
        False,
        "Load everything, take a few updates in memory, say what the run would need (updates, "
        "tokens, memory and disk in bytes, time), and stop: nothing is written.",
    )
    resume_from_checkpoint: str | None = option(
        None,
        "Checkpoint folder to go on from, or 'latest' for the newest whole one in `output_dir`. "
        "Default: an interrupted run in `output_dir` goes on from its newest, any other begins.",
    )
    allow_changes: list[str] | None = option(
        None,
        "Names of what may differ from the run that wrote the checkpoint, such as max_steps's "
        "num_updates; a run that differs in anything else is refused with the names.",
    )
    seed: int = option(
        0, "Seed of weights, data order, masks and dropout; at least 0, below 2**31."
    )
    num_train_epochs: float = option(3.0, "Passes over the examples; the last may be a part.")
    max_steps: int | None = option(None, "Number of updates, instead of `num_train_epochs`.")
    group_by_length: bool = option(
        False,
        "Put examples of about one length into one update, so that little of a batch is padding; "
        "each epoch they are grouped anew.",
    )
    per_device_batch_size: int = option(32, "Examples per device and forward pass.")
    gradient_accumulation_steps: int = option(
        1,
        "Forward passes per update; examples per update = devices x this x per_device_batch_size.",
    )
    learning_rate: float = option(1e-4, "Highest learning rate.")
    lr_scheduler_type: str = option(
        "linear",
        "How the learning rate goes after the warm-up: "
        + "; ".join(f"'{name}' {rates.told}" for name, rates in LEARNING_RATES.items())
        + ".",
        choices=list(LEARNING_RATES),
    )
    warmup_steps: float = option(
        0.05, "Updates of linear warm-up; a value below 1 is a share of all updates."
    )
    choice: str = option_of(Masking, "choice")
    time_sampler: str = option(
        "uniform",
        "How the times of an update are drawn: 'uniform', spread evenly over the schedule; or "
        "'importance', in place of the schedule: each share of masked tokens as often as its loss "
        "varies, measured as the run goes on, and weighed so that the loss means the same.",
        choices=list(TIME_SAMPLERS),
    )
    weight_decay: float = option(0.01, "Weight decay, not applied to biases and norms.")
    adam_beta1: float = option(0.9, "Decay of AdamW's mean of the gradient.")
    adam_beta2: float = option(0.98, "Decay of AdamW's mean of the squared gradient.")
    adam_epsilon: float = option(1e-8, "Term in AdamW's denominator.")
    max_grad_norm: float = option(1.0, "Norm to which gradients are clipped; 0 does not clip.")
    train: Literal["both", "denoiser", "critic"] = option(
        "both",
        "Which part learns where there is a token critic; the weights of the other stay as they "
        "are. Of a critic of kind 'self', 'critic' trains the head alone.",
    )
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] | None = option(
        None,
        "Number format of the forward pass; 'auto' is bf16 where the device has products of it. "
        "Default: what `accelerate launch` says.",
    )
    gradient_checkpointing: bool = option(False, "Save memory: compute activations a second time.")
    find_unused_parameters: bool = option(
        False,
        "For several processes: look for weights without gradient in every update. The encoders "
        "of docs/encoders.md need none of it, since theirs are frozen.",
    )
    use_cpu: bool = option(False, "Train on the CPU even where there is a GPU.")
    log_every: int = option(10, "Updates between two log lines.")
    log_with: str | None = option(
        None, "Tracker: 'tensorboard', 'wandb', 'trackio', ..., or 'all' that are installed."
    )
    eval_every: int = option(500, "Updates between two evaluations; there is one more at the end.")
    eval_batch_size: int = option(
        32,
        "Examples per device and forward pass of an evaluation; it and the seed say which masks "
        "they get there.",
    )
    eval_samples: int = option_of(Estimation, "num_samples")
    eval_texts: int = option(
        3,
        "Texts that the model writes at every evaluation, for each of `eval_prompts`; 0 for none.",
    )
    eval_prompts: list[str] | None = option(
        None,
        "Prompts that they continue or, with the tokenizer's mask token, fill. Default: they start "
        "from nothing.",
    )
    checkpoint_every: int = option(
        500, "Updates between two checkpoints; there is one more at the end."
    )
    keep_checkpoints: int = option(2, "Newest checkpoints that are kept.")
    push_to_hub: bool = option(
        False, "Push model, tokenizer and card to the Hub at the end; needs a token from the start."
    )
    hub_model_id: str | None = option(
        None, "Name on the Hub, 'owner/name'. Default: one of your own named like `output_dir`."
    )
    hub_private_repo: bool = option(
        False, "Make the repository private; one that is public already is refused."
    )
    license: str | None = option(
        None, "Licence of the trained weights for the model card: the Hub's name for it."
    )
    language: list[str] | None = option(
        None, "Languages of the texts for the model card: ISO 639 codes such as 'en'."
    )

    def __post_init__(self) -> None:
        """Check ranges."""
        check_numbers(self)
        _at_least(
            self,
            1,
            "max_steps",
            "per_device_batch_size",
            "gradient_accumulation_steps",
            "log_every",
            "eval_every",
            "eval_batch_size",
            "checkpoint_every",
            "keep_checkpoints",
        )
        check_seed(self.seed)
        _at_least(self, 0, "eval_texts", "warmup_steps", "weight_decay", "max_grad_norm")
        # "not greater" and not "at most", so that nan is refused too.
        for name in ("learning_rate", "num_train_epochs", "adam_epsilon"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be greater than 0, got {getattr(self, name)}.")
        for name in ("adam_beta1", "adam_beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"`{name}` must lie in [0, 1), got {getattr(self, name)}.")
        check_num_samples(self.eval_samples, "eval_samples")
        self.check_optimisation(self.lr_scheduler_type, self.train)
        if self.eval_prompts and not self.eval_texts:
            raise ValueError(
                "`eval_prompts` are what texts are written from, and eval_texts=0 writes none; "
                "leave one of the two out."
            )
        if not self.push_to_hub and (self.hub_model_id or self.hub_private_repo):
            raise ValueError(
                "`hub_model_id` and `hub_private_repo` say where to push; add `push_to_hub`, or "
                "leave them out."
            )
        if self.dry_run and self.resume_from_checkpoint:
            raise ValueError(
                "`dry_run` looks at a run from its beginning, and `resume_from_checkpoint` goes on "
                "with one; leave one of the two out."
            )
        if self.allow_changes and not self.resume_from_checkpoint:
            raise ValueError(
                "`allow_changes` says what may differ from the checkpoint that is resumed; add "
                "`resume_from_checkpoint`, or leave it out."
            )
        adapts = TIME_SAMPLERS[self.time_sampler].adapts
        if adapts and not WEIGHTINGS[self.loss_weighting].is_bound:
            raise ValueError(
                f"time_sampler={self.time_sampler!r} corrects the weights of the bound, and "
                f"loss_weighting={self.loss_weighting!r} takes others; leave one of the two out."
            )
        if adapts and self.train == "critic":
            raise ValueError(
                f"time_sampler={self.time_sampler!r} follows the loss of the denoiser, which does "
                "not learn with train='critic'; leave one of the two out."
            )
        if self.overwrite_output_dir and self.resume_from_checkpoint:
            raise ValueError(
                "`overwrite_output_dir` deletes what `resume_from_checkpoint` continues; give one "
                "of them."
            )


def _at_least(options: Any, smallest: int, *names: str) -> None:
    for name in names:
        value = getattr(options, name)
        if value is not None and not value >= smallest:
            raise ValueError(f"`{name}` must be at least {smallest}, got {value}.")


def check_seed(seed: int, name: str = "seed") -> None:
    """Raise a ValueError for a seed that not all generators take, of whichever process."""
    if not 0 <= seed < 2**31:
        raise ValueError(f"`{name}` must be at least 0 and below 2**31, got {seed}.")


def check_numbers(options: Any) -> None:
    """Raise a ValueError for what is no finite number where one is declared."""
    for name, declared in get_type_hints(type(options)).items():
        kinds = set(get_args(declared) or (declared,)) - {NoneType}
        value = getattr(options, name)
        if not kinds or not kinds <= {int, float} or value is None:
            continue
        kind = numbers.Real if float in kinds else numbers.Integral
        if isinstance(value, bool) or not isinstance(value, kind):
            noun = "a number" if float in kinds else "an integer"
            raise ValueError(f"`{name}` must be {noun}, got {shown(value)}.")
    for name, value in vars(options).items():
        if value == math.inf and name != "max_grad_norm":  # which then clips nothing
            raise ValueError(f"`{name}` must be finite, got {value}.")
