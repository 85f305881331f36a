"""What is compared of training: one update here, and one of a plain masked-LM loop.

The plain step is what a loop over `AutoModelForMaskedLM` does: the LM head at every position, the
model's own loss of the labels that are hidden, the gradient clipped, AdamW. Ours is `take_update`.
Both have the same weights, the same texts with the same tokens hidden, half of them on average, and
the same fused optimizer. With `HALF` the forward pass is under autocast in bfloat16, weights and
optimizer in float32.

Letters: B batch, L length.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from ..core.losses import IGNORED_LABEL
from ..core.modeling_maskgit import MaskGitForMaskedLM
from ..core.packed_weights import PRODUCT
from ..evaluation.benchmark_rounds import (
    Contestant,
    counted_passes,
    header_of,
    measure,
    number_of_works,
)
from ..evaluation.benchmark_shapes import BERT, Sizes, build_model, mask_token_id
from ..evaluation.benchmark_works import HALF
from ..evaluation.progress import ProgressBar
from .updates import take_update

_MAX_GRAD_NORM, _LEARNING_RATE = 1.0, 1e-4


class Cell(NamedTuple):
    """One shape of model and update.

    Attributes:
        name: of the shape.
        sizes: of it; `steps` is 1.
        works: of `WORKS`, perhaps with `HALF` behind, the floor first.
        rounds: timed at most, where one takes long; None is as many as are asked for.
    """

    name: str
    sizes: Sizes
    works: tuple[str, ...]
    rounds: int | None = None


Step = Callable[[MaskGitForMaskedLM, AdamW, dict[str, Tensor]], Tensor]


def plain_step(model: MaskGitForMaskedLM, optimizer: AdamW, batch: Mapping[str, Tensor]) -> Tensor:
    """Take a step of a plain masked-LM loop, and return its loss."""
    labels = batch["labels"].masked_fill(~batch["masked_positions"], IGNORED_LABEL)
    output = model.denoiser(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels
    )
    output.loss.backward()
    clip_grad_norm_(model.parameters(), _MAX_GRAD_NORM)
    optimizer.step()
    optimizer.zero_grad()
    return output.loss.detach()


def our_step(model: MaskGitForMaskedLM, optimizer: AdamW, batch: dict[str, Tensor]) -> Tensor:
    """Take an update of ours on the same batch, and return its loss."""
    accelerator = Accelerator(cpu=batch["input_ids"].device.type == "cpu")
    rows = len(batch["input_ids"])
    return take_update(accelerator, model, optimizer, batch, rows, _MAX_GRAD_NORM).loss


FLOOR, OURS = "plain masked-LM step", "update"
WORKS: dict[str, Step] = {FLOOR: plain_step, OURS: our_step}
ALL = (FLOOR, OURS, FLOOR + HALF, OURS + HALF)
_BASE = replace(BERT, steps=1)
CELLS = (
    Cell("training, 32 x 48", replace(_BASE, batch_size=32, length=48), ALL),
    Cell("training, 16 x 256", replace(_BASE, batch_size=16, length=256), ALL, rounds=3),
)
QUICK_CELLS = (Cell("training, 8 x 48", replace(_BASE, batch_size=8, length=48), ALL),)


def make_batch(sizes: Sizes, device: torch.device) -> dict[str, Tensor]:
    """Make texts of random tokens, a share (i + 1/2) / B of the i-th hidden, as the collator does.

    Returns:
        `input_ids`, `labels`, `masked_positions`, `loss_weights` and `attention_mask`, all (B, L).
    """
    generator = torch.Generator().manual_seed(0)
    rows, length = sizes.batch_size, sizes.length
    mask_id = mask_token_id(sizes)
    labels = torch.randint(sizes.vocab_size - 1, (rows, length), generator=generator)
    labels += labels >= mask_id  # any id but the mask
    share = (torch.arange(rows)[:, None] + 0.5) / rows
    rank = torch.rand(rows, length, generator=generator).argsort(1)
    chosen = rank < (share * length).ceil()
    batch = {
        "input_ids": labels.masked_fill(chosen, mask_id),
        "labels": labels,
        "masked_positions": chosen,
        "loss_weights": chosen / share,
        "attention_mask": torch.ones_like(labels),
    }
    return {name: tensor.to(device) for name, tensor in batch.items()}


def measure_cell(cell: Cell, rounds: int, device: torch.device) -> dict[str, Any]:
    """Measure the updates of a cell in turn.

    Args:
        cell: its shape and works.
        rounds: timed.
        device: where.

    Returns:
        Sizes and timings, as JSON takes them; memory is beyond weights and the optimizer's state.

    Raises:
        RuntimeError: for an update whose loss is no number, or with more than one pass.
    """
    rounds = min(rounds, cell.rounds or rounds)
    contestants = contestants_of(cell, device)
    with ProgressBar(cell.name, number_of_works(contestants, rounds), "update") as told:
        timings = measure(contestants, rounds, device, told=told)
    return {
        **header_of(cell),
        "works": [t.as_dict() for t in timings],
        "profile": profile_cell(cell, device),
    }


# Parts of an update by the operations of torch that they are made of, and what is none of these.
_PARTS = {
    "matrix products": (
        *("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "attention"),
        "linear_pointwise",  # oneDNN's, see `core/linear_maps.py`
    ),
    "loss": ("softmax", "aten::exp", "nll_loss", "aten::scatter", "aten::gather", "index_fill"),
    "dropout": ("bernoulli", "dropout"),
    "copies and zeros": ("aten::copy_", "aten::fill_", "aten::zero_", "aten::clone", "aten::cat"),
    "optimizer and clipping": ("adam", "norm.", "_foreach"),
}
_REST = "all else"


def _of_a_linear_map(states: Sequence[int], weight: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * math.prod(states) * weight[0]


# Operations of products that torch's counter does not know, from their arguments' shapes.
_OPERATIONS = {} if PRODUCT is None else {PRODUCT: _of_a_linear_map}


def profile_cell(cell: Cell, device: torch.device) -> dict[str, dict[str, float]]:
    """Tell where the time of one update goes: shares of the operations' own time, by work and part.

    Args:
        cell: its shape and works.
        device: where; of a GPU, the time of its kernels.
    """
    shares = {}
    for one in contestants_of(cell, device):
        one.work()
        activity = ProfilerActivity.CUDA if device.type == "cuda" else ProfilerActivity.CPU
        with profile(activities=[activity]) as profiled:
            one.work()
        times = dict.fromkeys((*_PARTS, _REST), 0.0)
        for event in profiled.key_averages():
            times[_part_of(event.key)] += (
                event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
            )
        whole = sum(times.values())
        shares[one.name] = {part: time / whole for part, time in times.items()}
    return shares


def _part_of(operation: str) -> str:
    names = (part for part, words in _PARTS.items() if any(w in operation for w in words))
    return next(names, _REST)


def contestants_of(cell: Cell, device: torch.device) -> list[Contestant]:
    """Build the model of a cell, and each work on a copy of it."""
    torch.manual_seed(0)
    model = build_model(cell.sizes, device).train()
    batch = make_batch(cell.sizes, device)
    return [_contestant(name, copy.deepcopy(model), batch) for name in cell.works]


def _contestant(name: str, model: MaskGitForMaskedLM, batch: dict[str, Tensor]) -> Contestant:
    half, step = name.endswith(HALF), WORKS[name.removesuffix(HALF)]
    optimizer = AdamW(model.parameters(), lr=_LEARNING_RATE, fused=True)
    if half:  # as Accelerate does, which has one precision for a whole process
        parts: tuple[Any, ...] = (model, model.denoiser)
        for module in parts:
            # one each: entered twice, one of them would stay on behind both
            autocast = torch.autocast(batch["labels"].device.type, torch.bfloat16)
            module.forward = autocast(module.forward)

    def run() -> Tensor:
        return step(model, optimizer, dict(batch))

    def check() -> dict[str, float]:
        learned = next(model.get_input_embeddings().parameters())
        before = learned.detach().clone()
        counting = FlopCounterMode(display=False, custom_mapping=_OPERATIONS)
        with counted_passes(model.denoiser.base_model) as shapes, counting:
            loss = float(run())
        moved = not torch.equal(learned, before)
        if len(shapes) != 1 or not moved or not loss < float("inf"):
            raise RuntimeError(
                f"{name!r} was to learn in one pass; it made {len(shapes)}, its loss is "
                f"{loss:.3g}, and its weights have{'' if moved else ' not'} moved."
            )
        operations = counting.get_total_flops()
        rows = sum(rows for rows, _ in shapes)
        return {"passes": len(shapes), "rows": rows, "gigaoperations": operations / 1e9}

    return Contestant(name, run, FLOOR, check)
