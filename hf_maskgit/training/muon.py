"""Muon (Jordan et al. 2024): torch's own, whose updates are made orthogonal many at a time.

torch's makes them one by one, and in bf16 wherever it runs. A processor that cannot multiply in
bf16 takes longer for that than for the gradients of a small encoder; there it is done in float32.
"""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor
from torch.optim import Muon
from torch.optim.optimizer import ParamsT

from .mixed_precision import multiplies_bf16

_AT_ONCE = 2**24  # numbers of a stack, so that it is small beside a large model


class StackedMuon(Muon):
    """`torch.optim.Muon` with updates as large as AdamW's, so that rate and decay may be.

    That is its `match_rms_adamw` (arXiv 2502.16982, section 2.2). Options, groups and state are
    torch's.

    Args:
        params: matrices, or groups of them.
        options: as torch has them, but for `adjust_lr_fn`.
    """

    def __init__(self, params: ParamsT, **options: Any) -> None:
        super().__init__(params, adjust_lr_fn="match_rms_adamw", **options)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move all weights that have a gradient."""
        for group in self.param_groups:
            alike: dict[Any, list[Tensor]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    alike[weight.shape, weight.device, weight.dtype].append(weight)
            for weights in alike.values():
                most = max(1, _AT_ONCE // weights[0].numel())
                for begin in range(0, len(weights), most):
                    self._move(weights[begin : begin + most], group)

    def _move(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        updates = []
        for weight in weights:
            gradient, state = weight.grad, self.state[weight]
            assert gradient is not None
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(gradient)
            average = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
            nesterov = group["nesterov"]
            updates.append(gradient.lerp(average, group["momentum"]) if nesterov else average)
        dtype = torch.bfloat16 if multiplies_bf16(weights[0].device) else torch.float32
        settings = group["ns_coefficients"], group["ns_steps"], group["eps"]
        moves = orthogonal(torch.stack(updates).to(dtype), *settings)
        rate = float(group["lr"])
        size = 0.2 * max(weights[0].shape) ** 0.5
        for weight, move in zip(weights, moves, strict=True):
            weight.mul_(1 - rate * group["weight_decay"])
            weight.add_(move.to(weight.dtype), alpha=-rate * size)


def orthogonal(
    matrices: Tensor, coefficients: tuple[float, float, float], rounds: int, eps: float
) -> Tensor:
    """Bring the singular values of matrices near 1 (Jordan et al. 2024, Newton-Schulz).

    Args:
        matrices: (B, M, N), in the number format to compute in.
        coefficients: a, b and c of the polynomial a s + b s^3 + c s^5 that a singular value s goes
            through.
        rounds: how often.
        eps: a matrix's least norm.

    Returns:
        (B, M, N), likewise.
    """
    a, b, c = coefficients
    wide = matrices.shape[1] <= matrices.shape[2]
    found = matrices if wide else matrices.mT
    found = found / found.norm(dim=(1, 2), keepdim=True).clamp_min(eps)
    for _ in range(rounds):
        square = found @ found.mT
        found = torch.baddbmm(
            found, torch.baddbmm(square, square, square, beta=b, alpha=c), found, beta=a
        )
    return found if wide else found.mT
