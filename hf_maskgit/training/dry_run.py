"""What a run would be, before it begins: counted, and measured in a few updates that are forgotten.

Nothing is written. Data, model and optimizer are those of the run, in memory; a few updates of it
are taken for time and memory. What is counted is exact; what is measured or estimated says so.
"""

import shutil
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ..evaluation.progress import duration
from .cost import Memory, memory_of
from .data import Data
from .engines import engine_of
from .loop import TrainingLoop
from .optimizers import OPTIMIZERS
from .run_files import bytes_of_run
from .shards import held, size_of
from .updates import micro_batches

WARM_UP, TIMED = 1, 3  # updates: the first one also builds what the others find


@dataclass(frozen=True)
class Plan:
    """What a run would be.

    Attributes:
        device: kind of device of each process.
        processes: how many.
        texts, examples, held_out: texts to learn from, the examples made of them, and those that it
            would be measured on; None of a stream, for what is counted in all texts.
        tokens_per_epoch: of all examples, framing included.
        updates: of the whole run.
        epochs: passes over the examples.
        examples_per_update: of all processes.
        tokens_per_update: maskable tokens of all processes, mean of the measured updates.
        padding_share: of the positions that the device works on, mean of the measured updates.
        parameters, trained: of the model, and those that learn.
        memory: of each process, activations measured.
        peak: bytes that a GPU held at most in these updates; None on a CPU, which does not tell.
        disk: bytes that checkpoints and models would take.
        free: bytes that are free where they would go.
        seconds_per_update: median of the measured updates.
        cpu_seconds_per_update: of all threads of one process, likewise: on a busy CPU it says more.
    """

    device: str
    processes: int
    texts: int | None
    examples: int | None
    held_out: int
    tokens_per_epoch: int | None
    updates: int
    epochs: float | None
    examples_per_update: int
    tokens_per_update: float
    padding_share: float
    parameters: int
    trained: int
    memory: Memory
    peak: int | None
    disk: int
    free: int
    seconds_per_update: float
    cpu_seconds_per_update: float

    @property
    def seconds(self) -> float:
        """Of all updates, without evaluations and checkpoints."""
        return self.updates * self.seconds_per_update

    @property
    def tokens_per_second(self) -> float:
        """Maskable tokens of all processes."""
        return self.tokens_per_update / self.seconds_per_update

    def lines(self) -> list[str]:
        """Say it, a line per subject."""
        memory = self.memory
        peak = "" if self.peak is None else f" Measured at its peak: {_size(self.peak)}."
        rows = {
            "data": f"{self._data()}; {self.held_out:,} examples held out",
            "updates": f"{self.updates:,} of {self.examples_per_update:,} examples on "
            f"{self.processes} x {self.device}: {self._epochs()}about "
            f"{self.tokens_per_update:,.0f} maskable tokens per update and "
            f"{self.updates * self.tokens_per_update:.3g} in all",
            "padding": f"{self.padding_share:.1%} of the positions, in {TIMED} updates",
            "model": f"{self.parameters:,} parameters, of which {self.trained:,} learn",
            "memory": f"about {_size(memory.total)} per process: weights {_size(memory.weights)}, "
            f"gradients {_size(memory.gradients)}, optimizer {_size(memory.optimizer)}, averages "
            f"{_size(memory.averages)}, all counted at 4 bytes a number; activations "
            f"{_size(memory.activations)}, measured.{peak}",
            "disk": f"{_size(self.disk)} for checkpoints and models; {_size(self.free)} are free",
            "time": f"about {duration(self.seconds)} without evaluations and checkpoints: "
            f"{self.seconds_per_update:.3g} s per update, {self.tokens_per_second:,.0f} maskable "
            f"tokens per second, the median of {TIMED} updates, each "
            f"{self.cpu_seconds_per_update:.3g} s of CPU time in {torch.get_num_threads()} threads",
        }
        return [f"{name:<8} {said}" for name, said in rows.items()]

    def _data(self) -> str:
        if self.texts is None or not self.examples or self.tokens_per_epoch is None:
            return "a stream, whose texts nobody has counted"
        return (
            f"{self.texts:,} texts, {self.examples:,} examples of "
            f"{self.tokens_per_epoch / self.examples:.1f} tokens on average, "
            f"{self.tokens_per_epoch:,} tokens per epoch"
        )

    def _epochs(self) -> str:
        return "" if self.epochs is None else f"{self.epochs:.3g} epochs, "


def plan_of(loop: TrainingLoop, data: Data) -> Plan:
    """Take a few updates in memory, and say what the whole run would be.

    Args:
        loop: new; what it has learned afterwards is good for nothing.
        data: its examples, and what became of the texts.

    Raises:
        ValueError, NotFiniteError: as the run would.
    """
    accelerator, report = loop.accelerator, data.train_report
    plain = accelerator.unwrap_model(loop.model)
    measured = _measure(loop)
    parameters = sum(size_of(p) for p in plain.parameters())
    trained = sum(size_of(p) for p in plain.parameters() if p.requires_grad)
    return Plan(
        device=accelerator.device.type,
        processes=accelerator.num_processes,
        texts=None if report is None else report.texts,
        examples=None if report is None else report.examples,
        held_out=0 if data.held_out is None else len(data.held_out),
        tokens_per_epoch=None if report is None else report.tokens,
        updates=loop.num_updates,
        epochs=loop.num_updates / loop.epoch_updates if loop.epoch_updates else None,
        examples_per_update=loop.progress.setting["examples_per_update"],
        tokens_per_update=statistics.fmean(measured.tokens),
        padding_share=measured.padding / measured.positions,
        parameters=parameters,
        trained=trained,
        memory=memory_of(
            parameters,
            trained,
            remembered=OPTIMIZERS[loop.options.optim].numbers(plain),
            averages=loop.averages is not None,
            activations=measured.kept.most,
            devices=accelerator.num_processes,
            how=engine_of(accelerator).layout(accelerator),
        ),
        peak=measured.peak,
        disk=disk_of(loop),
        free=shutil.disk_usage(_existing(Path(loop.options.output_dir))).free,
        seconds_per_update=statistics.median(measured.seconds),
        cpu_seconds_per_update=statistics.median(measured.cpu_seconds),
    )


def disk_of(loop: TrainingLoop, present: int = 0) -> int:
    """Estimate the bytes of what a run is still to write: checkpoints, the best model, the last.

    Args:
        loop: where it stands.
        present: checkpoints that are in its folder already.
    """
    options, model = loop.options, loop.accelerator.unwrap_model(loop.model)
    left = -(-(loop.num_updates - loop.progress.step) // options.checkpoint_every)
    coming = min(options.keep_checkpoints + 1 - present, left)
    return bytes_of_run(
        model,
        max(1, coming),
        2,
        remembered=OPTIMIZERS[options.optim].numbers(model),
        averages=loop.averages is not None,
    )


class KeptBytes:
    """Counts what autograd keeps for the backward pass, weights aside.

    A tensor counts from when it is kept until nobody needs it, tensors that share memory once.

    Args:
        model: whose weights are not counted.

    Attributes:
        most: bytes at the most at one time.
    """

    def __init__(self, model: nn.Module) -> None:
        self.most = 0
        self._now = 0
        self._uses: dict[int, int] = {}
        tensors = (_here(tensor) for tensor in (*model.parameters(), *model.buffers()))
        self._weights = {tensor.untyped_storage().data_ptr() for tensor in tensors}

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count in what runs inside."""
        with torch.autograd.graph.saved_tensors_hooks(lambda t: _Kept(self, t), lambda k: k.tensor):
            yield

    def note(self, tensor: Tensor, change: int) -> None:
        """Count one use more of a tensor's memory, or one less."""
        memory = _here(tensor).untyped_storage()
        key, before = memory.data_ptr(), self._uses.get(memory.data_ptr(), 0)
        if key in self._weights:
            return
        self._uses[key] = before + change
        if 0 in (before, before + change):  # the first use, or the last
            self._now += change * memory.nbytes()
            self.most = max(self.most, self._now)


class _Kept:
    """A tensor that autograd keeps."""

    def __init__(self, count: KeptBytes, tensor: Tensor) -> None:
        self.count, self.tensor = count, tensor
        count.note(tensor, 1)

    def __del__(self) -> None:
        self.count.note(self.tensor, -1)


@dataclass
class _Measured:
    kept: KeptBytes
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    padding: int = 0
    positions: int = 0
    peak: int | None = None


def _measure(loop: TrainingLoop) -> _Measured:
    """Take the first updates of a run: one to warm up, some for their time, one for its memory."""
    device = loop.accelerator.device
    found = _Measured(KeptBytes(loop.accelerator.unwrap_model(loop.model)))
    batches = loop.batches.from_where_it_stands(loop.progress)
    loop.model.train()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for number in range(WARM_UP + TIMED):
        started, worked = time.perf_counter(), time.process_time()
        batch = next(batches)
        update = loop.take_update(batch)
        num_tokens = int(update.num_tokens)  # waits for the device
        if number < WARM_UP:
            continue
        found.seconds.append(time.perf_counter() - started)
        found.cpu_seconds.append(time.process_time() - worked)
        found.tokens.append(num_tokens)
        for piece in micro_batches(batch, loop.options.per_device_batch_size):
            real = piece["attention_mask"]
            found.positions += real.numel()
            found.padding += real.numel() - int(real.sum())
    if device.type == "cuda":
        found.peak = torch.cuda.max_memory_allocated(device)
    with found.kept.counted():  # by itself: counting takes time
        loop.take_update(next(batches))
    return found


def _here(tensor: Tensor) -> Tensor:
    """Return what of a tensor lies in this process: all, or its shard."""
    part = held(tensor)
    return part.to_local() if isinstance(part, DTensor) else part


def _existing(path: Path) -> Path:
    """Return a path, or the nearest folder above it that is there."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())


def _size(num_bytes: float) -> str:
    """Write a number of bytes in the unit that leaves a number to think with."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB")):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.3g} {unit}"
    return f"{num_bytes / 1e3:.3g} kB"
