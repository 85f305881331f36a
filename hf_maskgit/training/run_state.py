"""What a run is made of beside its data, in and out of a folder without any pickle.

    model.safetensors            weights, under the names of the model's own `state_dict`
    averages.safetensors         averages of the weights, where there are any; see `averages.py`
    optimizer.safetensors        "<state>:<weight>", such as "exp_avg:denoiser.bert...": by name
    scaler.json                  where fp16 scales the loss
    random_states_0.safetensors  Python's, numpy's and torch's generators, and the sums for the next
                                 line of the log; a file per process

The schedule of the learning rate is a function of the update, so nothing of it is stored. Where a
run goes on with another number of processes, nobody could say which of the old random states is
whose: each process begins new streams, keyed by seed, update and process. The sums are kept.
"""

import json
import random  # noqa: TID251  # its state is only kept
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..core.noise import mix
from .averages import AVERAGES_FILE, WeightAverages
from .engines import engine_of
from .finiteness import check_finite
from .run_files import read_json, write_json
from .shards import fill_state, shape_of, untied, whole_state

MODEL_FILE = "model.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
SCALER_FILE = "scaler.json"
_NO_STATES = (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError)
_SEEDS = 2**32  # that numpy's generator takes


def random_states_file(process_index: int | str) -> str:
    """Name the file with the random states of a process; "*" stands for any."""
    return f"random_states_{process_index}.safetensors"


class RunState:
    """Weights, optimizer, loss scale and random states of a run.

    Args:
        accelerator: prepared the others.
        model: as it was prepared.
        optimizer: as it was prepared.
        averages: of the weights; None keeps none.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        optimizer: Any,
        averages: WeightAverages | None = None,
    ) -> None:
        self.accelerator, self.optimizer, self.averages = accelerator, optimizer, averages
        self.model: nn.Module = accelerator.unwrap_model(model)
        self._prepared, self._engine = model, engine_of(accelerator)
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        self._trained = [names[id(parameter)] for parameter in self._engine.trained(optimizer)]

    def write(self, folder: Path, sums: dict[str, Any]) -> None:
        """Write this process's part; the main one writes what all have in common.

        Args:
            folder: is there.
            sums: what this process has summed up for the next line of the log.

        Raises:
            NotFiniteError: for weights, or an optimizer, that no run can go on from.
        """
        keep = self.accelerator.is_main_process
        weights = untied(whole_state(self.model, keep))
        optimizer = self._optimizer_tensors(keep)
        averages = {} if self.averages is None else self.averages.tensors(keep)
        if keep:
            check_finite("weights", weights.items())
            check_finite("averages of the optimizer", optimizer.items())
            trained = {"trained": json.dumps(self._trained)}
            save_file(optimizer, str(folder / OPTIMIZER_FILE), metadata=trained)
            save_file(weights, str(folder / MODEL_FILE), metadata={"format": "pt"})
            if self.averages is not None:
                self.averages.write(folder, averages)
            if self.accelerator.scaler is not None:
                write_json(folder / SCALER_FILE, self.accelerator.scaler.state_dict())
        own = folder / random_states_file(self.accelerator.process_index)
        _write_random_states(own, self.accelerator.device, sums)

    def read(
        self,
        folder: Path,
        new_streams: tuple[int, int] | None = None,
        new_optimizer: bool = False,
    ) -> dict[str, Any]:
        """Take over a checkpoint that is whole.

        Args:
            folder: holds what `write` wrote.
            new_streams: seed and update, where another number of processes wrote it: the key of
                the random streams that each process then begins.
            new_optimizer: whether this run has another kind, to which what the former one
                remembered means nothing.

        Returns:
            This process's sums for the next line of the log.

        Raises:
            ValueError: naming what does not fit this run's model.
        """
        self._read_optimizer(folder / OPTIMIZER_FILE, forget=new_optimizer)
        self._read_model(folder / MODEL_FILE)
        self._engine.weights_changed(self._prepared)
        if self.averages is not None:
            if (folder / AVERAGES_FILE).exists():
                self.averages.read(folder)
            else:  # written by a run without any, which `--allow_changes ema_decay` has allowed
                self.averages.begin_anew()
        if self.accelerator.scaler is not None and (folder / SCALER_FILE).exists():
            self.accelerator.scaler.load_state_dict(read_json(folder / SCALER_FILE))
        rank = self.accelerator.process_index
        if new_streams is not None:
            files = sorted(folder.glob(random_states_file("*")))
            sums = _joined([_read_sums(path) for path in files], whole=rank == 0)
            set_seed(mix(*new_streams, rank) % _SEEDS)
            return sums
        own = folder / random_states_file(rank)
        sums = _read_sums(own)
        try:
            _read_random_states(own, self.accelerator.device)
        except _NO_STATES as error:
            raise ValueError(_no_states(own, error)) from error
        return sums

    def _optimizer_tensors(self, keep: bool) -> dict[str, Tensor]:
        states = self._engine.optimizer_state(self.optimizer, keep)
        return {
            f"{key}:{name}": value.contiguous()
            for name, state in zip(self._trained, states, strict=True)
            for key, value in state.items()
        }

    def _read_optimizer(self, path: Path, forget: bool) -> None:
        try:
            with safe_open(str(path), framework="pt") as opened:
                trained = json.loads((opened.metadata() or {})["trained"])
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{str(path)!r} holds no state of an optimizer ({error}).") from error
        if set(trained) != set(self._trained):  # whatever groups they are in
            raise ValueError(
                f"The checkpoint {path.parent.name!r} was written by a run that trained other "
                "weights; use the same `train` and `freeze`, which say what learns, or start "
                "a new run from its model."
            )
        states: dict[str, dict[str, Tensor]] = {name: {} for name in self._trained}
        parameters = dict(self.model.named_parameters())
        for full_name, tensor in tensors.items():
            key, _, name = full_name.partition(":")
            if name not in states or tensor.shape not in (shape_of(parameters[name]), ()):
                raise ValueError(
                    f"{str(path)!r} holds {full_name!r} of shape {tuple(tensor.shape)}, which fits "
                    "no weight of this run's model."
                )
            states[name][key] = tensor
        if forget:
            return
        self._engine.set_optimizer_state(self.optimizer, list(states.values()))

    def _read_model(self, path: Path) -> None:
        try:
            missing, unknown = fill_state(self.model, load_file(str(path)))
        except (OSError, SafetensorError, RuntimeError) as error:
            words = " ".join(str(error).split())
            raise ValueError(f"{str(path)!r} holds other weights: {words}") from error
        if missing or unknown:
            raise ValueError(
                f"{str(path)!r} holds other weights than this run's model: it lacks {missing} and "
                f"has {unknown} beside them."
            )


def _write_random_states(path: Path, device: torch.device, sums: dict[str, Any]) -> None:
    version, internal, gauss_next = random.getstate()
    legacy: Any = np.random.get_state(legacy=False)  # noqa: NPY002
    numbers = {
        "python": [version, gauss_next],
        "numpy": [
            legacy["bit_generator"],
            legacy["state"]["pos"],
            legacy["has_gauss"],
            legacy["gauss"],
        ],
        "window": sums,
    }
    tensors = {
        "python": torch.tensor(internal, dtype=torch.long),
        "numpy": torch.from_numpy(legacy["state"]["key"].astype(np.int64)),
        "torch": torch.get_rng_state(),
    }
    if device.type != "cpu":
        tensors[device.type] = torch.get_device_module(device).get_rng_state().cpu()
    save_file(tensors, str(path), metadata={"numbers": json.dumps(numbers)})


def _no_states(path: Path, error: Exception) -> str:
    return (
        f"{str(path)!r} holds no random states that a run can go on with ({error}); dropout and "
        "masks would be others. Resume from another checkpoint."
    )


def _read_sums(path: Path) -> dict[str, Any]:
    """Read what a process has summed up for the log."""
    try:
        with safe_open(str(path), framework="pt") as opened:
            sums = json.loads(opened.metadata()["numbers"])["window"]
        if not isinstance(sums, dict):
            raise TypeError(f"the sums for the log are {sums!r}")
    except _NO_STATES as error:
        raise ValueError(_no_states(path, error)) from error
    return sums


def _joined(parts: list[dict[str, Any]], whole: bool) -> dict[str, Any]:
    """Join the sums of all processes that wrote a checkpoint.

    Args:
        parts: of each process; all but the losses are the same in all, or the first one's.
        whole: True for the one process that takes them over. The others begin with losses of 0, so
            that all processes together have what all had before.
    """
    totals = {name: sum(part["losses"][name] for part in parts) for name in parts[0]["losses"]}
    return {**parts[0], "losses": {name: total * whole for name, total in totals.items()}}


def _read_random_states(path: Path, device: torch.device) -> None:
    with safe_open(str(path), framework="pt") as opened:
        numbers = json.loads(opened.metadata()["numbers"])
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    version, gauss_next = numbers["python"]
    random.setstate((version, tuple(tensors["python"].tolist()), gauss_next))
    kind, position, has_gauss, gauss = numbers["numpy"]
    key = tensors["numpy"].numpy().astype(np.uint32)
    np.random.set_state((kind, key, position, has_gauss, gauss))  # noqa: NPY002
    torch.set_rng_state(tensors["torch"])
    if device.type != "cpu":
        if device.type not in tensors:
            raise ValueError(f"there is none of {device.type!r}")
        torch.get_device_module(device).set_rng_state(tensors[device.type])
