"""DeepSpeed: ZeRO-2 divides gradients and optimizer among processes, ZeRO-3 the weights as well.

Accelerate's launcher says that DeepSpeed is to be used and how (`accelerate launch --use_deepspeed
--zero_stage 2`). Processes are Accelerate's plain ones; DeepSpeed is called from here, since
Accelerate would take its step before anybody has seen whether the gradient is a number.

Everything is float32, and with `bf16` a pass works in it as a pass of whole copies does. So no
weight is rounded, and an update is that of whole copies but for the order of sums. ZeRO-2 learns
on a copy of its part of the weights; ZeRO-3 has one, which lies in `ds_tensor` (see `shards.py`).
"""

import copy
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed
from accelerate import Accelerator, DeepSpeedPlugin
from accelerate.utils import is_deepspeed_available
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from .arguments import TrainArguments
from .engine import Engine, WeightState
from .shards import as_part_of, whole

_ASKED = "ACCELERATE_USE_DEEPSPEED"  # set by its launcher
_STEP = "step"  # what AdamW counts for each weight, and DeepSpeed for all together
_EPSILON = 1e-6  # beside the norm that is divided by, as in torch's clipping
_BUCKET = 50_000_000  # gradients that are exchanged at once: 200 MB instead of DeepSpeed's 2 GB
# Sections of a DeepSpeed configuration whose work is done here, and what to use in their place.
_OURS = {
    "optimizer": "`learning_rate`, `weight_decay` and their kin",
    "scheduler": "`lr_scheduler_type`",
    "fp16": "`mixed_precision`",
    "bf16": "`mixed_precision`",
    "torch_autocast": "`mixed_precision`",
    "amp": "`mixed_precision`",
}
# Values of a DeepSpeed configuration that are options here, too.
_OPTIONS = {
    "gradient_clipping": "max_grad_norm",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
}
_UNNAMED = {"gradient_accumulation_steps": 1}  # by Accelerate, where a file does not name them
_OFFLOADS = ("offload_optimizer", "offload_param")
_NOT_SET = ("auto", None)


def asked_for_deepspeed() -> bool:
    """Tell whether Accelerate was told to use DeepSpeed."""
    return os.environ.get(_ASKED, "false").lower() == "true"


@contextmanager
def plain_processes() -> Iterator[None]:
    """Let Accelerate set up processes for a while as it does without DeepSpeed."""
    asked = os.environ.pop(_ASKED, None)
    try:
        yield
    finally:
        if asked is not None:
            os.environ[_ASKED] = asked


class ZeRO(Engine):
    """Gradients and optimizer in shards (ZeRO-2), or weights as well (ZeRO-3), by DeepSpeed."""

    def layout(self, accelerator: Accelerator) -> str:
        """See `Engine`."""
        return f"ZeRO-{_settings()['zero_optimization']['stage']}"

    def check(self, accelerator: Accelerator, options: TrainArguments) -> None:
        """See `Engine`."""
        if not is_deepspeed_available():
            raise ValueError(
                "Accelerate is set up for DeepSpeed, which is not installed: pip install "
                "'hf_maskgit[deepspeed]' (docs/cost.md says how), or launch with --use_fsdp "
                "--fsdp_version 2 instead."
            )
        if not torch.distributed.is_initialized():
            raise ValueError(
                "DeepSpeed needs processes that know of each other, and this one was started "
                "alone. Start it with `accelerate launch`."
            )
        if accelerator.mixed_precision not in ("no", "bf16"):
            raise ValueError(
                f"`mixed_precision` {accelerator.mixed_precision!r} and DeepSpeed do not go "
                "together here; use 'bf16' or 'no', or FSDP2."
            )
        for name in ("lora_r", "torch_compile"):
            if getattr(options, name):
                raise ValueError(
                    f"`{name}` and DeepSpeed do not go together here. Train with whole copies of "
                    f"the model (without --use_deepspeed), or without `{name}`."
                )
        options.check_whole_matrices(
            "DeepSpeed", "Train with whole copies of the model (without --use_deepspeed)"
        )
        check_settings(_settings(), options)

    def prepare(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        optimizer: Any,
        scheduler: Any,
        options: TrainArguments,
    ) -> tuple[Any, Any, Any]:
        """See `Engine`."""
        os.environ.setdefault("DS_ACCELERATOR", accelerator.device.type)
        import deepspeed

        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        # It would compile a way to talk through memory, for minutes, where gloo does as well.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        # Accelerate's number format around each pass, and nothing else of it
        model = accelerator.prepare_model(model, evaluation_mode=True)
        weights = self.trained(optimizer)
        settings = settings_of(_settings(), options.per_device_batch_size)
        engine, zero, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings)
        kind = OPTIMIZERS[settings["zero_optimization"]["stage"]]
        return engine, kind(engine, zero, weights), scheduler

    def trained(self, optimizer: Any) -> list[nn.Parameter]:
        """See `Engine`."""
        known = optimizer.weights if isinstance(optimizer, ZeroOptimizer) else None
        return super().trained(optimizer) if known is None else known

    def passing(
        self, accelerator: Accelerator, model: Any, is_last: bool
    ) -> AbstractContextManager[Any]:
        """See `Engine`."""
        model.set_gradient_accumulation_boundary(is_last)
        return nullcontext()

    def backward(self, accelerator: Accelerator, model: Any, loss: Tensor) -> None:
        """See `Engine`."""
        model.backward(loss / accelerator.gradient_accumulation_steps)

    def clip(self, accelerator: Accelerator, model: Any, max_grad_norm: float) -> Tensor:
        """See `Engine`."""
        parts = [part for parts in model.optimizer.averaged_gradients.values() for part in parts]
        norm = accelerator.reduce(get_total_norm(parts).square(), "sum").sqrt()
        if max_grad_norm:
            torch._foreach_mul_(parts, (max_grad_norm / (norm + _EPSILON)).clamp(max=1.0))
        return norm

    def optimizer_state(self, optimizer: Any, keep: bool) -> list[WeightState]:
        """See `Engine`."""
        optimizer.link()
        return [optimizer.state_of(weight, keep) for weight in optimizer.weights]

    def set_optimizer_state(self, optimizer: Any, states: Sequence[WeightState]) -> None:
        """See `Engine`."""
        optimizer.begin_state(*form_of(states))
        optimizer.link()
        for weight, state in zip(optimizer.weights, states, strict=True):
            for key, value in state.items():
                if key != _STEP:
                    optimizer.set_state(weight, key, value)

    def whole_weights(self, model: nn.Module) -> AbstractContextManager[None]:
        """See `Engine`."""
        return _whole_weights(model)

    def weights_changed(self, model: Any) -> None:
        """See `Engine`."""
        model.optimizer.refresh_fp32_params()


class ZeroOptimizer:
    """What the loop calls an optimizer, of a model that DeepSpeed trains.

    Args:
        engine: DeepSpeed's.
        zero: its optimizer, around `torch.optim.AdamW`.
        weights: those that learn.
    """

    step_was_skipped = False  # as only fp16 may

    def __init__(self, engine: Any, zero: Any, weights: list[nn.Parameter]) -> None:
        self.engine, self.zero, self.weights = engine, zero, weights

    def step(self) -> None:
        """Take a step with the gradients of all processes, and forget them."""
        self.engine.step()

    def zero_grad(self) -> None:
        """Forget the gradients of an update, which DeepSpeed keeps apart from the weights."""
        self.zero.zero_grad()
        for name in ("averaged_gradients", "all_grad_tensors"):
            gradients = getattr(self.zero, name, {})
            gradients.update(dict.fromkeys(gradients))

    def link(self) -> None:
        """Find out which weight has which stretch of the states, where these lie in a row."""

    def state_of(self, weight: nn.Parameter, keep: bool) -> WeightState:
        """Return the state of a weight whole, in the processes that keep it; {} before a step."""
        state = self.zero.optimizer.state
        parts = [part for part in self._parts() if part in state]
        found = {}
        for key, value in state[parts[0]].items() if parts else ():
            own = value if key == _STEP else self._whole(weight, key)
            found[key] = own.clone().cpu() if keep else own.new_empty(0)
        return found

    def begin_state(self, steps: Tensor | None, keys: Sequence[str]) -> None:
        """Make room for a state of zeros.

        Args:
            steps: that were taken, a scalar; None of none, which removes any state.
            keys: of the state beside them.
        """
        state = self.zero.optimizer.state
        state.clear()
        if steps is None:
            return
        for part in self._parts():
            zeros = {key: torch.zeros_like(part, requires_grad=False) for key in keys}
            state[part] = {_STEP: steps.to(part.device, copy=True), **zeros}

    def set_state(self, weight: nn.Parameter, key: str, value: Tensor) -> None:
        """Take over a state of a weight, whole."""
        raise NotImplementedError

    def _whole(self, weight: nn.Parameter, key: str) -> Tensor:
        raise NotImplementedError

    def _parts(self) -> list[Tensor]:
        """Return the flat tensors that AdamW learns on."""
        raise NotImplementedError


class Zero2Optimizer(ZeroOptimizer):
    """Of ZeRO-2, where each process has its part of all weights in a row."""

    def link(self) -> None:
        """See `ZeroOptimizer`."""
        if self.zero.optimizer.state:  # in the first step DeepSpeed does it for one group alone
            self.zero._hp_optimizer_states_linked = False
            self.zero._lazy_init_hp_params_optimizer_state()

    def set_state(self, weight: nn.Parameter, key: str, value: Tensor) -> None:
        """See `ZeroOptimizer`."""
        from deepspeed.utils import safe_set_full_optimizer_state

        safe_set_full_optimizer_state(weight, value.to(weight.device), key)

    def _whole(self, weight: nn.Parameter, key: str) -> Tensor:
        from deepspeed.utils import safe_get_full_optimizer_state

        return safe_get_full_optimizer_state(weight, key)

    def _parts(self) -> list[Tensor]:
        return self.zero.single_partition_of_fp32_groups


class Zero3Optimizer(ZeroOptimizer):
    """Of ZeRO-3, where each process has its part of each weight."""

    def zero_grad(self) -> None:
        """See `ZeroOptimizer`."""
        super().zero_grad()
        self.zero.parameter_offload.partition_all_parameters()  # as a step does first

    def set_state(self, weight: nn.Parameter, key: str, value: Tensor) -> None:
        """See `ZeroOptimizer`."""
        from deepspeed.utils import safe_set_local_optimizer_state

        safe_set_local_optimizer_state(weight, as_part_of(weight, value), key)

    def _whole(self, weight: nn.Parameter, key: str) -> Tensor:
        from deepspeed.utils import safe_get_local_optimizer_state

        return whole(weight, values=safe_get_local_optimizer_state(weight, key))

    def _parts(self) -> list[Tensor]:
        return self.zero.fp32_partitioned_groups_flat


# By the stage of ZeRO.
OPTIMIZERS: dict[int, type[ZeroOptimizer]] = {2: Zero2Optimizer, 3: Zero3Optimizer}


def check_settings(settings: Mapping[str, Any], options: TrainArguments) -> None:
    """Refuse a configuration of DeepSpeed that this library does not train by.

    Args:
        settings: as Accelerate reads it, or the file that is named to it.
        options: of the run.

    Raises:
        ValueError: naming the setting.
    """
    zero = settings["zero_optimization"]
    if zero.get("stage") not in OPTIMIZERS:
        raise ValueError(
            f"DeepSpeed's `zero_stage` must be 2 or 3, got {zero.get('stage')}. With whole copies "
            "of the model train without DeepSpeed."
        )
    for name in _OFFLOADS:
        device = (zero.get(name) or {}).get("device") or "none"
        if device != "none":
            raise ValueError(
                f"DeepSpeed's `{name}` to {device!r} is not supported. FSDP2 moves weights and "
                "optimizer to the CPU's memory (fsdp_offload_params: true)."
            )
    for name, instead in _OURS.items():
        section = settings.get(name)
        if section is not None and section.get("enabled", True) is not False:
            raise ValueError(
                f"The section {name!r} of DeepSpeed's configuration is not used, since options "
                f"of this run say the same: remove it and set {instead}."
            )
    for name, option in _OPTIONS.items():
        value, wanted = settings.get(name), getattr(options, option)
        if value not in (*_NOT_SET, wanted, _UNNAMED.get(name)):
            raise ValueError(
                f"DeepSpeed's `{name}` is {value} and `{option}` is {wanted}; leave the first out, "
                "or make it 'auto'."
            )


def settings_of(settings: Mapping[str, Any], micro_batch: int) -> dict[str, Any]:
    """Return DeepSpeed's configuration with what a run sets itself.

    Args:
        settings: from a user, see `check_settings`.
        micro_batch: examples of a pass.
    """
    found = copy.deepcopy(dict(settings))
    zero = {k: value for k, value in found["zero_optimization"].items() if value not in _NOT_SET}
    zero.setdefault("reduce_bucket_size", _BUCKET)
    zero["stage3_param_persistence_threshold"] = 0  # a weight lies in one place alone
    for name in (*_OFFLOADS, "stage3_gather_16bit_weights_on_model_save"):
        zero.pop(name, None)
    for name in (*_OURS, "train_batch_size"):
        found.pop(name, None)
    return {
        **found,
        "zero_optimization": zero,
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": 1,  # their losses are parts of a sum already
        "gradient_clipping": 0.0,  # done before, where the norm is looked at
        "zero_allow_untested_optimizer": True,
    }


def form_of(states: Sequence[WeightState]) -> tuple[Tensor | None, list[str]]:
    """Return the steps that all weights have taken, None for none, and the keys of their states.

    Raises:
        ValueError: where they have not taken equally many.
    """
    used = [state for state in states if state]
    steps = {float(state[_STEP]) for state in used}
    if len(steps) > 1:
        raise ValueError(
            f"Weights of this checkpoint have taken different numbers of steps, {min(steps):.0f} "
            f"to {max(steps):.0f}, and DeepSpeed counts those of all together. Go on without it, "
            "or begin a new run from the checkpoint's model."
        )
    if not used:
        return None, []
    return used[0][_STEP], [key for key in used[0] if key != _STEP]


def _settings() -> dict[str, Any]:
    """Return the configuration that Accelerate's launcher was given."""
    settings: dict[str, Any] = DeepSpeedPlugin().deepspeed_config
    return settings


@contextmanager
def _whole_weights(model: nn.Module) -> Iterator[None]:
    """Gather all weights, and leave out what DeepSpeed does before and after each module."""
    weights = [weight for weight in model.parameters() if hasattr(weight, "ds_tensor")]
    if not weights:
        yield
        return
    import deepspeed

    hooked = next(w._z3_optimizer for w in weights if hasattr(w, "_z3_optimizer")).parameter_offload
    hooked.partition_all_parameters()
    with ExitStack() as until_the_end, deepspeed.zero.GatheredParameters(weights):
        hooked._remove_module_hooks()
        hooked.forward_hooks.clear()
        hooked.backward_hooks.clear()
        until_the_end.callback(hooked.setup_zero_stage3_hooks)
        yield
