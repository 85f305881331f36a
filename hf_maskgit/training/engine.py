"""What a run asks of the engine that shares its work among processes, and the plainest one.

An engine knows where weights, gradients and the optimizer's averages lie. All else of a run is the
same with each, and so are its files. The table of engines is in `engines.py`.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from .arguments import TrainArguments
from .shards import as_part_of, is_sharded, shape_of, whole

# The state of an optimizer for one weight by name, such as "exp_avg", whole.
WeightState = dict[str, Tensor]


class Engine:
    """Whole copies of the model, one per process, as Accelerate keeps them by itself."""

    def layout(self, accelerator: Accelerator) -> str:
        """Return the row of `cost.SHARDED` that says what is divided among the processes."""
        return "DDP"

    def check(self, accelerator: Accelerator, options: TrainArguments) -> None:
        """Refuse settings that do not go with the engine, before anything is loaded.

        Raises:
            ValueError: naming the setting.
        """

    def shard(self, accelerator: Accelerator, model: nn.Module) -> None:
        """Change a model in place before its optimizer is made, where the engine needs that.

        Raises:
            ValueError: for a model that does not go with the engine.
        """

    def prepare(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        optimizer: Any,
        scheduler: Any,
        options: TrainArguments,
    ) -> tuple[Any, Any, Any]:
        """Return model, optimizer and schedule as the run uses them."""
        # No loader: Accelerate would share out what each process takes its share of already.
        prepared: tuple[Any, Any, Any] = accelerator.prepare(model, optimizer, scheduler)
        return prepared

    def trained(self, optimizer: Any) -> list[nn.Parameter]:
        """Return the weights that learn, in the order of the optimizer that was prepared."""
        return [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def passing(
        self, accelerator: Accelerator, model: nn.Module, is_last: bool
    ) -> AbstractContextManager[Any]:
        """Surround a forward and backward pass; at an update's last one gradients are exchanged."""
        return nullcontext() if is_last else accelerator.no_sync(model)

    def backward(self, accelerator: Accelerator, model: nn.Module, loss: Tensor) -> None:
        """Add the gradient of a loss, over the number of processes, to that of all processes."""
        accelerator.backward(loss)

    def clip(self, accelerator: Accelerator, model: nn.Module, max_grad_norm: float) -> Tensor:
        """Clip the gradient, unless `max_grad_norm` is 0, and return its norm before."""
        if max_grad_norm:
            norm = accelerator.clip_grad_norm_(model.parameters(), max_grad_norm)
            assert norm is not None  # which it is for other kinds of processes than ours
            return norm
        return get_total_norm([p.grad for p in model.parameters() if p.grad is not None])

    def forget(self, accelerator: Accelerator, optimizer: Any, was_clipped: bool) -> None:
        """Forget the gradients of an update that is left out."""
        # the scaler of fp16 has seen them for clipping
        if accelerator.scaler is not None and was_clipped:
            accelerator.scaler.update()
        optimizer.zero_grad()

    def optimizer_state(self, optimizer: Any, keep: bool) -> list[WeightState]:
        """Return the optimizer's state whole for each trained weight; every process must ask.

        Args:
            optimizer: as it was prepared.
            keep: see `shards.whole`.
        """
        state = optimizer.state_dict()["state"]
        return [
            {key: whole(value, keep) for key, value in state.get(i, {}).items()}
            for i in range(len(self.trained(optimizer)))
        ]

    def set_optimizer_state(self, optimizer: Any, states: Sequence[WeightState]) -> None:
        """Take over what `optimizer_state` returned.

        Args:
            optimizer: as it was prepared.
            states: whole, for each trained weight; {} for one that no update has used.

        Raises:
            ValueError: where the engine cannot hold them.
        """
        parts = {}
        for i, (weight, state) in enumerate(zip(self.trained(optimizer), states, strict=True)):
            if state:
                parts[i] = {key: _laid_out(weight, value) for key, value in state.items()}
        # Rates, decays and their kin are this run's; they were compared before.
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": parts, "param_groups": groups})

    def whole_weights(self, model: nn.Module) -> AbstractContextManager[None]:
        """Have all weights whole for a while, so that a process may work with the model on its own.

        Passes over a sharded model wait for each other, and processes that measure shares of texts,
        or one that writes a text, do not make equally many. All processes enter and leave together.

        Args:
            model: as `accelerator.unwrap_model` returns it.
        """
        return nullcontext()

    def weights_changed(self, model: nn.Module) -> None:
        """Hear that the weights were replaced from outside, in every process."""


def _laid_out(weight: Tensor, value: Tensor) -> Tensor:
    """Return a state of a weight where the weight lies; a number of steps stays one."""
    fits = is_sharded(weight) and value.shape == shape_of(weight)
    return as_part_of(weight, value) if fits else value
