"""Averages of the weights over the updates: what a run measures and publishes instead of the last.

After the n-th update that is averaged, each trained weight's average goes

    average <- d average + (1 - d) weight,   d = min(ema_decay, (1 + n) / (10 + n))

so that a short run is not dominated by the weights that it began with (the rule of TensorFlow's
`ExponentialMovingAverage` with `num_updates`, which MDLM, arXiv 2406.07524, trains with too). A
weight that does not learn is its own average.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .finiteness import check_finite
from .shards import as_part_of, held, is_sharded, shape_of, whole

AVERAGES_FILE = "averages.safetensors"


def decay_after(num_updates: int, ema_decay: float) -> float:
    """Return d of the n-th update that is averaged, n = `num_updates` from 1 on."""
    return min(ema_decay, (1 + num_updates) / (10 + num_updates))


class WeightAverages:
    """Exponential moving averages of the weights of a model that learn.

    They are kept in float32, or in the weights' own format where that is finer.

    Args:
        model: its trained weights are averaged from now on; tied ones once.
        ema_decay: in (0, 1).

    Attributes:
        num_updates: updates that were averaged.
        values: the averages, by the names of the model's `state_dict`.
    """

    def __init__(self, model: nn.Module, ema_decay: float) -> None:
        self.ema_decay, self.num_updates = ema_decay, 0
        self._weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.values: dict[str, Tensor] = {}
        self.begin_anew()

    def begin_anew(self) -> None:
        """Let the averages be the weights as they are now."""
        self.num_updates = 0
        for name, weight in self._weights.items():
            kind = torch.promote_types(weight.dtype, torch.float32)
            self.values[name] = held(weight).to(kind, copy=True)

    @torch.no_grad()
    def update(self) -> None:
        """Average the weights after one more update."""
        self.num_updates += 1
        averages = list(self.values.values())
        weights = [
            held(self._weights[name]).to(average.dtype) for name, average in self.values.items()
        ]
        share = 1 - decay_after(self.num_updates, self.ema_decay)
        torch._foreach_lerp_(averages, weights, share)

    @contextmanager
    def in_place_of_weights(self) -> Iterator[None]:
        """Let the model have the averages as its weights for a while; then its own, to the bit."""
        own = {name: _taken_out(weight) for name, weight in self._weights.items()}
        try:
            for name, weight in self._weights.items():
                _put_in(weight, self.values[name].to(weight.dtype))
            yield
        finally:
            for name, weight in self._weights.items():
                _put_in(weight, own[name])

    def tensors(self, keep: bool) -> dict[str, Tensor]:
        """Return them whole, where they are kept; of shards, every process must ask.

        Args:
            keep: whether this process is to have them.
        """
        return {
            name: whole(self._weights[name], keep, value).contiguous()
            for name, value in self.values.items()
        }

    def write(self, folder: Path, tensors: dict[str, Tensor]) -> None:
        """Write them into a checkpoint.

        Args:
            folder: is there.
            tensors: from `tensors`.

        Raises:
            NotFiniteError: where they hold nan or infinite numbers.
        """
        check_finite("averages of the weights", tensors.items())
        path = str(folder / AVERAGES_FILE)
        save_file(tensors, path, metadata={"num_updates": str(self.num_updates)})

    def read(self, folder: Path) -> None:
        """Take over what `write` wrote.

        Raises:
            ValueError: when it is missing or does not fit this run's model.
        """
        path = folder / AVERAGES_FILE
        try:
            with safe_open(str(path), framework="pt") as opened:
                num_updates = int((opened.metadata() or {})["num_updates"])
                found: dict[str, Any] = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise ValueError(f"{str(path)!r} holds no averages of weights ({error}).") from error
        shapes = {name: tensor.shape for name, tensor in found.items()}
        if shapes != {name: shape_of(weight) for name, weight in self._weights.items()}:
            raise ValueError(
                f"{str(path)!r} holds the averages of other weights than this run trains."
            )
        self.num_updates = num_updates
        for name, average in self.values.items():
            average.copy_(as_part_of(self._weights[name], found[name]))


def _taken_out(weight: Tensor) -> Tensor:
    """Return a weight's values, to be put back."""
    # The memory of a shard is what the layers are gathered from, so that it stays where it is.
    return held(weight).clone() if is_sharded(weight) else weight.data


@torch.no_grad()
def _put_in(weight: Tensor, values: Tensor) -> None:
    if is_sharded(weight):
        held(weight).copy_(values)
    else:
        weight.data = values
