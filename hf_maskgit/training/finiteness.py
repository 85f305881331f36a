"""Numbers that are nan or infinite are noticed before an update or a file takes them over."""

from collections.abc import Iterable

import torch
from torch import Tensor


class NotFiniteError(RuntimeError):
    """A run holds a number that is nan or infinite, and cannot go on from it."""


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
