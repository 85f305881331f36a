"""Options of the optimisation beside a rate and its warm-up; all are off unless they are named."""

from dataclasses import dataclass
from typing import Literal

from .compiling import check_backend
from .learning_rates import DEFAULTS, check_learning_rates
from .optimizers import OPTIMIZERS
from .recipes import option
from .weighting import WEIGHTINGS, check_weighting


@dataclass(kw_only=True)
class OptimisationArguments:
    """What learns, how fast, on average, and what ends or outlives an update that fails."""

    optim: str = option(
        "adamw_torch_fused",
        "How weights move by their gradients: "
        + "; ".join(f"'{name}' is {row.told}" for name, row in OPTIMIZERS.items())
        + ". Rates and decays are the same for both.",
        choices=list(OPTIMIZERS),
    )
    decay_steps: float | None = option(
        None,
        "Updates at the end over which 'warmup_stable_decay' falls; a value below 1 is a share of "
        f"all updates. Default: {DEFAULTS['decay_steps']}.",
    )
    min_lr_rate: float | None = option(
        None,
        "Where a schedule that reads it ends, as a share of `learning_rate`; "
        "'warmup_stable_decay' begins its warm-up there too. "
        f"Default: {DEFAULTS['min_lr_rate']}.",
    )
    layer_decay: float = option(
        1.0,
        "Factor on the learning rate from each layer of an encoder to the one before it: the head "
        "learns with `learning_rate`, the last layer with this share of it, the embeddings with "
        "the least. 1 treats all alike.",
    )
    freeze: list[str] | None = option(
        None,
        "What is not to learn: 'embeddings', 'encoder' (they included), 'head' of the denoiser, "
        "paths of modules or weights, or patterns of paths such as '*.layer.[0-5].*'.",
    )
    on_nonfinite: Literal["stop", "skip"] = option(
        "stop",
        "What to do when the loss or the gradient of an update is nan or infinite: 'stop' ends the "
        "run, 'skip' leaves the update out; both name it and its examples, and 10 in a row end the "
        "run. Nothing of such an update is saved.",
    )
    ema_decay: float = option(
        0.0,
        "Decay per update of an exponential moving average of the weights, such as 0.999, in "
        "float32: it is what evaluations measure and what is saved as the model. Update n counts "
        "with min(ema_decay, (1 + n) / (10 + n)). 0 keeps none.",
    )
    loss_weighting: str = option(
        "bound",
        "How the losses of tokens are weighed: "
        + "; ".join(f"'{name}' {row.told}" for name, row in WEIGHTINGS.items())
        + ". With all but 'bound' the loss of training is no bound on the likelihood; what "
        "evaluations measure is.",
        choices=list(WEIGHTINGS),
    )
    clip_weights: list[float] | None = option(
        None,
        "Lowest and highest weight with loss_weighting 'clipped'. Where k of n tokens are masked "
        "under the linear schedule, the weight of the bound is n / k.",
    )
    torch_compile: bool = option(
        False, "Compile the passes of the model by `torch.compile`, for texts of any length."
    )
    torch_compile_backend: str | None = option(
        None, "Compiler of `torch_compile`, as torch names it. Default: 'inductor'."
    )
    patience: int | None = option(
        None,
        "Evaluations in a row without a better bound on held-out texts (a better critic where it "
        "alone learns) after which the run ends as if it were done. Default: it does not.",
    )
    load_best_model_at_end: bool = option(
        False,
        "Let the model that is saved at the end be the one in `best`, and not that of the last "
        "update.",
    )
    lora_r: int = option(
        0,
        "Rank of low-rank adapters (LoRA, through peft) that learn in the place of the denoiser's "
        "own weights; saved merged into an ordinary model, and beside it in the folder 'adapter'. "
        "0 trains the weights themselves.",
    )
    lora_alpha: int | None = option(
        None, "Scale of the adapters is lora_alpha / lora_r. Default: twice `lora_r`."
    )
    lora_dropout: float | None = option(
        None, "Dropout in front of the adapters, in [0, 1). Default: 0."
    )
    lora_target_modules: list[str] | None = option(
        None,
        "Linear layers that get an adapter, by the ends of their paths such as 'query value'. "
        "Default: all of the encoder.",
    )
    lora_modules_to_save: list[str] | None = option(
        None,
        "What of the denoiser learns fully beside its adapters, named as in `freeze`, such as "
        "'head'. What is new always does: self-conditioning, critics, a head that the encoder came "
        "without, tables that were resized.",
    )

    def check_whole_matrices(self, what: str, advice: str) -> None:
        """Refuse an optimizer that wants whole matrices where there are none.

        Args:
            what: leaves none, as the subject of a sentence.
            advice: how to have them.

        Raises:
            ValueError: naming both.
        """
        if not OPTIMIZERS[self.optim].by_number:
            raise ValueError(
                f"optim={self.optim!r} moves whole matrices, and {what} leaves none. "
                f"{advice}, or leave `optim` out."
            )

    def check_optimisation(self, lr_scheduler_type: str, train: str) -> None:
        """Check ranges and what goes together.

        Args:
            lr_scheduler_type: name of the schedule.
            train: which part learns.
        """
        if self.optim not in OPTIMIZERS:
            raise ValueError(f"`optim` must be one of {', '.join(OPTIMIZERS)}, got {self.optim!r}.")
        for name in ("decay_steps", "min_lr_rate", "lora_r"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"`{name}` must be at least 0, got {value}.")
        if self.min_lr_rate is not None and self.min_lr_rate > 1:
            raise ValueError(f"`min_lr_rate` must be at most 1, got {self.min_lr_rate}.")
        for name in ("ema_decay", "lora_dropout"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise ValueError(f"`{name}` must lie in [0, 1), got {value}.")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"`patience` must be at least 1, got {self.patience}.")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"`layer_decay` must lie in (0, 1], got {self.layer_decay}.")
        if self.lora_alpha is not None and not self.lora_alpha > 0:
            raise ValueError(f"`lora_alpha` must be greater than 0, got {self.lora_alpha}.")
        if self.torch_compile_backend is not None:
            if not self.torch_compile:
                raise ValueError(
                    "`torch_compile_backend` names a compiler; set `torch_compile`, or leave it "
                    "out."
                )
            check_backend(self.torch_compile_backend)
        check_weighting(self.loss_weighting, self.clip_weights, train)
        check_learning_rates(lr_scheduler_type, self.learning_rate_options)
        for name in ("alpha", "dropout", "target_modules", "modules_to_save"):
            if getattr(self, f"lora_{name}") is not None and not self.lora_r:
                raise ValueError(f"`lora_{name}` shapes adapters; set `lora_r`, or leave it out.")
        if self.lora_r:
            self.check_whole_matrices("`lora_r`", "Leave `lora_r` out")
        if self.lora_r and train == "critic":
            raise ValueError(
                "`lora_r` adapts the denoiser, which stays as it is with train='critic'; leave one "
                "of the two out."
            )

    @property
    def learning_rate_options(self) -> dict[str, float | None]:
        """The options that only some schedules of the learning rate read."""
        return {name: getattr(self, name) for name in DEFAULTS}
