"""The LM head in chunks of positions: logits (N, V) are never whole.

The logits are the largest tensor of a pass, and with their gradient they are there twice. In
training a chunk of positions goes through the head, gives its losses and its gradients, and is
forgotten before the next one: what grows with the vocabulary is one chunk, however many positions
there are. Gradients are taken in the forward pass, so that nothing is computed twice; the backward
pass scales them. The sums are those of the whole pass, added in another order. A decoding reads
logits chunk by chunk too (`late_logits`).

The head is that of any encoder: its own `forward`, with the body replaced by one that returns the
hidden states it is given.

Letters: N chosen positions, H width of the hidden states, V vocabulary.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from .linear_maps import LinearMaps, Sums, is_quick
from .losses import (
    at_least_float32,
    cross_entropy,
    cross_entropy_and_slopes,
    weighted_sum,
)
from .modeling_checks import Targets
from .packed_weights import PackedWeights
from .position_logits import LateLogits

# Float32 numbers a little under 32 MiB: memory of that size the C library uses again, where more is
# given back to the system, whose fresh pages cost as much as half of the head's product.
_USED_AGAIN = 2**23 - 2**12
# Logits of a chunk, by whether they lie on a CPU: a chunk reads all of the head's weights, so it is
# worth more rows than a block of the cross-entropy, and never few.
_CHUNK_ELEMENTS = {True: _USED_AGAIN, False: 2**25}
_LEAST_ROWS = 256
# Likewise of a decoding, which reads them in place.
_READ_ELEMENTS = {True: _USED_AGAIN, False: 2**28}
_LEAST_READ = 64
# A decoding that may find out that it needs fewer computes them late long before they are as many.
_LATE_SHARE = {True: 8, False: 1}


class _States(BaseModelOutput):
    """Hidden states, and nothing of what else a kind of encoder may return with them."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


class _Given(nn.Module):
    """Stands for the body of an encoder: returns hidden states, and has its attributes."""

    def __init__(self, body: nn.Module, states: Tensor) -> None:
        super().__init__()
        # not as modules of its own: the head's parameters are what is left of the denoiser's
        self.__dict__["body"], self.__dict__["states"] = body, states

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["body"], name)

    def forward(self, *arguments: Any, **keywords: Any) -> BaseModelOutput:
        return _States(last_hidden_state=self.__dict__["states"])


def can_chunk(denoiser: PreTrainedModel) -> bool:
    """Tell whether the head of a denoiser can be run by itself, now.

    Not under a compiler, which makes chunks of its own; not in float16, whose gradients need the
    loss's scale from the beginning; not where an engine holds the weights only while a module works
    (DeepSpeed's third stage).
    """
    device = denoiser.device.type
    autocast = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
    return not (
        torch.compiler.is_compiling()
        or torch.float16 in (denoiser.dtype, autocast)
        or _is_partitioned(denoiser)
    )


def can_hold_back(model: PreTrainedModel, denoiser: Any) -> bool:
    """Tell whether the logits of a pass may be computed behind it, with the same result.

    Not where somebody else has a hand in the pass as a whole: a compiler, a wrapped `forward`
    (Accelerate's mixed precision, a model on several devices), a hook on what comes out, or an
    engine that holds the weights only while a module works.

    Args:
        model: the generator.
        denoiser: its encoder.
    """
    passes = (model, denoiser)
    return (
        isinstance(denoiser, PreTrainedModel)
        and denoiser.base_model is not denoiser
        and not torch.compiler.is_compiling()
        and not any("forward" in vars(module) for module in passes)
        and not any(module._compiled_call_impl for module in passes)
        and not any(module._forward_hooks or module._forward_pre_hooks for module in passes)
        and not _is_partitioned(denoiser)
    )


def _is_partitioned(denoiser: PreTrainedModel) -> bool:
    """Tell whether an engine holds the weights while a module works alone; it marks all or none."""
    return hasattr(next(denoiser.parameters(), None), "ds_id")


def late_logits(
    denoiser: PreTrainedModel, states: Tensor, packs: PackedWeights | None = None
) -> LateLogits:
    """Return the logits of hidden states (N, H), to be computed where they are read.

    Args:
        denoiser: whose head is run.
        states: what it is run on.
        packs: the weights of the decoding.
    """
    return LateLogits(_Head(denoiser, packs), states, rows_at_a_time(denoiser))


@dataclass(frozen=True)
class _Head:
    """The head of a denoiser, of which two are equal if it is the same denoiser's."""

    denoiser: PreTrainedModel
    packs: PackedWeights | None

    def __call__(self, states: Tensor) -> Tensor:
        return run_head(self.denoiser, states, packs=self.packs)


def rows_at_a_time(denoiser: PreTrainedModel) -> int:
    """Return for how many positions a decoding had best run the head at a time."""
    elements = _READ_ELEMENTS[denoiser.device.type == "cpu"]
    return max(_LEAST_READ, elements // denoiser.config.get_text_config().vocab_size)


def is_worth_holding_back(denoiser: PreTrainedModel, count: int) -> bool:
    """Tell whether the logits of so many positions had best be computed behind the pass."""
    return count * _LATE_SHARE[denoiser.device.type == "cpu"] > rows_at_a_time(denoiser)


def head_parameters(denoiser: PreTrainedModel) -> list[nn.Parameter]:
    """Return what of a denoiser its head may learn: all outside the body, and the embeddings."""
    head = _head(denoiser, torch.empty(0))
    parameters = [*head.parameters(), *denoiser.get_input_embeddings().parameters()]
    return [parameter for parameter in dict.fromkeys(parameters) if parameter.requires_grad]


def run_head(
    denoiser: PreTrainedModel,
    states: Tensor,
    sums: Sums | None = None,
    packs: PackedWeights | None = None,
) -> Tensor:
    """Return the logits (n, V) of hidden states (n, H), by the denoiser's own `forward`.

    Args:
        denoiser: whose head is run.
        states: what it is run on.
        sums: where a backward pass may add gradients of weights instead of returning them.
        packs: the weights of a decoding.
    """
    head = _head(denoiser, states.unsqueeze(0))
    # The class's: what wraps the instance's wraps a whole pass.
    nothing = torch.zeros((1, len(states)), dtype=torch.long, device=states.device)
    with LinearMaps(sums, packs):
        output = type(head).forward(head, input_ids=nothing, return_dict=True)
    logits: Tensor = output.logits
    return logits.squeeze(0)


def _head(denoiser: PreTrainedModel, states: Tensor) -> PreTrainedModel:
    """Return a denoiser of the same modules, but for the body."""
    head = copy.copy(denoiser)
    body = _Given(denoiser.base_model, states)
    head.__dict__["_modules"] = {**denoiser._modules, denoiser.base_model_prefix: body}
    return head


def chunked_losses(
    denoiser: PreTrainedModel, states: Tensor, targets: Targets, output_nll: bool
) -> dict[str, Tensor]:
    """Return the denoiser's losses of `MaskGitOutput` by name, as `take_losses` does.

    Args:
        denoiser: whose head is run.
        states: (N, H), hidden states at the chosen positions.
        targets: what they should have been.
        output_nll: whether `nll` is among them.
    """
    labels = targets.labels[targets.chosen]
    # Divided before and not behind: then there is seldom anything to scale in the backward pass.
    weights = torch.ones_like(labels) if targets.weights is None else targets.weights
    of_loss = (weights.to(_exact(states)) / targets.count, targets.forbidden)
    loss, nll = _ChunkedLoss.apply(denoiser, states, labels, *of_loss, *head_parameters(denoiser))
    return {"loss": loss, "denoiser_loss": loss, **({"nll": nll} if output_nll else {})}


def _exact(states: Tensor) -> torch.dtype:
    return torch.float64 if states.dtype == torch.float64 else torch.float32


def _chunks(count: int, rows: int) -> Iterator[slice]:
    """Cut positions into as few chunks of at most so many rows as can be, of about one size."""
    if count:
        size = -(-count // -(-count // rows))
        yield from (slice(start, start + size) for start in range(0, count, size))


def _add(sums: list[Tensor | None], found: Sequence[Tensor | None]) -> None:
    """Add gradients of a chunk to those of the chunks before it; the first are taken as they are.

    But for those that autograd gives twice, or that are no memory of their own.
    """
    taken: set[int] = set()
    for i, more in enumerate(found):
        if more is None:
            continue
        so_far = sums[i]
        if so_far is not None:
            so_far += more
            continue
        own = at_least_float32(more)
        shared = own.data_ptr() in taken or not own.is_contiguous()
        sums[i] = own.clone(memory_format=torch.contiguous_format) if shared else own
        taken.add(own.data_ptr())


def _begun(parameters: Sequence[Tensor]) -> list[Tensor | None]:
    """Return zeros for the gradients that linear maps may add to by themselves, None for others."""
    return [
        torch.zeros_like(each) if is_quick(each) and each.ndim == 2 else None for each in parameters
    ]


class _ChunkedLoss(torch.autograd.Function):
    """The weighted sum of the cross-entropies, and each (N,) without a gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        denoiser: PreTrainedModel,
        states: Tensor,
        labels: Tensor,
        weights: Tensor,
        forbidden: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        needs = ctx.needs_input_grad[1], *ctx.needs_input_grad[5:]
        wanted = [parameter for parameter, need in zip(parameters, needs[1:], strict=True) if need]
        sums = _begun(wanted)
        in_place = {
            id(parameter): so_far
            for parameter, so_far in zip(wanted, sums, strict=True)
            if so_far is not None
        }
        slope = torch.zeros_like(states) if needs[0] else None
        nll = torch.zeros(len(labels), dtype=_exact(states), device=states.device)
        elements = _CHUNK_ELEMENTS[states.device.type == "cpu"]
        rows = max(_LEAST_ROWS, elements // denoiser.config.get_text_config().vocab_size)
        for chunk in _chunks(len(labels), rows):
            with torch.set_grad_enabled(any(needs)):
                part = states[chunk].detach().requires_grad_(needs[0])
                logits = run_head(denoiser, part, in_place)
            of_chunk = (labels[chunk], forbidden)
            if not any(needs):
                nll[chunk] = cross_entropy(logits, *of_chunk)
                continue
            nll[chunk], slopes = cross_entropy_and_slopes(logits, *of_chunk, weights[chunk])
            asked = [*([part] if needs[0] else []), *wanted]
            found = list(torch.autograd.grad(logits, asked, slopes, allow_unused=True))
            if slope is not None:
                slope[chunk] = found.pop(0)
            _add(sums, found)
        full = [
            torch.zeros_like(at_least_float32(parameter)) if so_far is None else so_far
            for so_far, parameter in zip(sums, wanted, strict=True)
        ]
        gradients = iter([*([] if slope is None else [slope]), *full])
        ctx.save_for_backward(*(next(gradients) if need else None for need in needs))
        ctx.dtypes = [tensor.dtype for tensor in (states, *parameters)]
        ctx.mark_non_differentiable(nll)
        return weighted_sum(nll, weights), nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, total_gradient: Tensor, nll_gradient: Tensor) -> tuple[Any, ...]:
        # Not asked of a GPU, which would have to be waited for.
        as_is = total_gradient.device.type == "cpu" and total_gradient.item() == 1
        of_states, *of_parameters = (
            None
            if saved is None
            else (saved if as_is else saved * total_gradient.to(saved.dtype)).to(dtype)
            for saved, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        )
        return (None, of_states, None, None, None, *of_parameters)
