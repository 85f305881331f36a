"""Numbers that are nan or infinite are noticed before an update or a file takes them over."""

import math
from collections.abc import Iterable, Sequence

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from .shards import whole, whole_state

# What to do about numbers that are none, after a sentence about them.
CALMER = """Lower `learning_rate`, lengthen the warm-up, or use bf16 instead of fp16, and go on \
from the last checkpoint."""
_EXAMPLES_NAMED = 8
_LOWEST_SCALE = 1.0  # of a loss in fp16: below it even the plain gradient overflows


class NotFiniteError(RuntimeError):
    """A run holds a number that is nan or infinite, and cannot go on from it.

    Attributes:
        in_weights: whether the weights themselves are none, so that no later update can be better.
    """

    in_weights = False


def not_finite(tensors: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Return the names of tensors that hold nan or an infinity; integers never do."""
    floating = [(name, tensor) for name, tensor in tensors if tensor.is_floating_point()]
    if not floating:
        return []
    # One answer for all, so that a GPU is waited for once.
    flags = torch.stack([tensor.isfinite().all() for _, tensor in floating]).tolist()
    return [name for (name, _), finite in zip(floating, flags, strict=True) if not finite]


def check_finite(what: str, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Refuse numbers that no file of a run may hold.

    Args:
        what: what they are, for the sentence: "weights".
        tensors: by name.

    Raises:
        NotFiniteError: naming the first tensor.
    """
    names = not_finite(tensors)
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise NotFiniteError(
            f"The {what} {names[0]!r}{more} hold nan or infinite numbers; nothing is written, and "
            "what was written before stays. Lower `learning_rate` or lengthen the warm-up, and go "
            "on from the last checkpoint."
        )


def check_update(
    accelerator: Accelerator,
    model: nn.Module,
    loss: Tensor,
    norm: Tensor,
    seen: Sequence[tuple[Tensor | None, Tensor]],
) -> None:
    """Refuse an update before its step where its loss or its gradient is no number.

    Args:
        accelerator: knows the processes, all of which call this, and the scaler of fp16.
        model: whose weights may be the cause.
        loss: this process's part of the loss, a scalar.
        norm: of the gradient over all processes, a scalar.
        seen: ids (B,) of the examples, or None, and loss of each forward pass of this process.

    Raises:
        NotFiniteError: in all processes, naming their examples.
    """
    # A sum is no number where one of its parts is none; so all processes find the same.
    total = accelerator.reduce(loss, "sum")
    scaler = accelerator.scaler
    # In fp16 a gradient overflows now and then: the scaler then leaves the step out.
    overflows = scaler is not None and scaler.get_scale() >= _LOWEST_SCALE
    norm = whole(norm).to(total)
    values = torch.stack([total.float(), norm.float()]).tolist()  # waits for the device once
    if math.isfinite(values[0]) and (overflows or math.isfinite(values[1])):
        return
    what = "norm of the gradient" if math.isfinite(values[0]) else "loss"
    weights = not_finite(whole_state(model).items())
    before = f" The weights {weights[0]!r} were no numbers before it." if weights else ""
    error = NotFiniteError(
        f"the {what} is {values[0] if what == 'loss' else values[1]}, so no step was taken and "
        f"nothing was saved.{before} It held the examples {_named(seen)}."
    )
    error.in_weights = bool(weights)
    raise error


def _named(seen: Sequence[tuple[Tensor | None, Tensor]]) -> str:
    """Name the examples of all processes whose loss is no number; all, where each loss is one."""
    # Every process is here, because all have found the same.
    parts = gather_object(
        [(ids is None or ids.tolist(), bool(loss.isfinite())) for ids, loss in seen]
    )
    bad = [part for part in parts if not part[1]] or parts
    ids = [example for examples, _ in bad if examples is not True for example in examples]
    more = len(ids) - _EXAMPLES_NAMED
    named = ", ".join(map(str, ids[:_EXAMPLES_NAMED])) + (f" and {more} more" if more > 0 else "")
    return named or "without ids"
