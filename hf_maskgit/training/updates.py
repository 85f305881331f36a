"""One optimizer update, the same in however many pieces it is taken.

One batch of the loader is one process's share of one whole update, with the times that it has
within the whole. It is collated once, so that its maskable tokens are known, and then cut into
micro-batches. The loss of the update is

    sum of the weighted losses / number of maskable tokens, both over micro-batches and processes

so that neither the number of micro-batches nor the number of processes changes the gradient. Only
what is drawn within a forward pass depends on the pieces: dropout, which texts are conditioned on a
pass before, and what a critic is shown. A last batch that would be short is left out; shuffling
leaves out other examples in every epoch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from ..core.linear_maps import quick_products
from ..core.losses import IGNORED_LABEL
from .engines import engine_of
from .finiteness import NotFiniteError, check_update
from .packed_documents import document_arguments
from .weighting import BY_THE_BOUND, Weigher


def examples_per_update(
    num_processes: int, gradient_accumulation_steps: int, per_device_batch_size: int
) -> int:
    """Count the examples of one update over all processes and micro-batches."""
    return num_processes * gradient_accumulation_steps * per_device_batch_size


def updates_per_epoch(num_examples: int | None, update_size: int) -> int | None:
    """Count the whole updates in one pass over the examples; None where nobody knows their number.

    Raises:
        ValueError: when the examples do not fill one update.
    """
    if num_examples is None:
        return None
    if num_examples < update_size:
        raise ValueError(
            f"There are {num_examples} training examples, too few for one update of "
            f"{update_size}; lower `per_device_batch_size` or `gradient_accumulation_steps`, or "
            "train on more texts."
        )
    return num_examples // update_size


def total_updates(num_train_epochs: float, epoch_updates: int | None, max_steps: int | None) -> int:
    """Count the updates of a run: `max_steps` where given, else those of the epochs, at least 1.

    Raises:
        ValueError: when there are neither `max_steps` nor epochs.
    """
    if max_steps is not None:
        return max_steps
    if epoch_updates is None:
        raise ValueError(
            "A stream has no epochs that could be counted, so `streaming` needs `max_steps`, the "
            "number of updates."
        )
    return max(1, round(num_train_epochs * epoch_updates))


def backward_factor(num_processes: int, gradient_accumulation_steps: int) -> int:
    """Undo what Accelerate does to a loss that is already divided by the whole update's count.

    `accelerator.backward` divides by its accumulation steps, and processes average their gradients;
    ours are parts of a sum.
    """
    return num_processes * gradient_accumulation_steps


def tokens_in_update(labels: Tensor) -> Tensor:
    """Count the maskable tokens, chosen or not: labels (B, L) long, result a long scalar."""
    return (labels != IGNORED_LABEL).sum()


def micro_batches(batch: dict[str, Tensor], size: int) -> Iterator[dict[str, Tensor]]:
    """Cut a batch into pieces of at most `size` rows, longest rows first.

    Rows of about one length stand together, and a piece has no column of mere padding; so most of
    the padding of an update costs nothing.

    Args:
        batch: tensors (B, L), among them `attention_mask`, or (B,).
        size: rows per piece, at least 1.
    """
    lengths = batch["attention_mask"].sum(1)
    for rows in lengths.argsort(descending=True, stable=True).split(size):
        piece = {name: tensor[rows] for name, tensor in batch.items()}
        real = piece["attention_mask"].any(0).nonzero().squeeze(-1)  # (columns,)
        columns = slice(int(real[0]), int(real[-1]) + 1)
        yield {name: part[:, columns] if part.ndim > 1 else part for name, part in piece.items()}


class WithExampleIds:
    """A collator whose batches keep the ids of their examples, for errors that name them.

    Args:
        collate: the collator.
    """

    def __init__(self, collate: Callable[[Sequence[dict[str, Any]]], dict[str, Tensor]]) -> None:
        self.collate = collate

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Collate, and add `example_id` (B,) long where the examples have one."""
        batch = self.collate(features)
        if all("example_id" in feature for feature in features):
            ids = [int(feature["example_id"]) for feature in features]
            batch["example_id"] = torch.tensor(ids)
        return batch


# Of a micro-batch and the cross-entropies (N,) at its chosen positions.
Measure = Callable[[Mapping[str, Tensor], Tensor], Tensor]


class Update(NamedTuple):
    """What one update did.

    Attributes:
        loss: this process's part of the loss in nats per maskable token, a float32 scalar; the
            parts of all processes add up to the loss of the update.
        num_tokens: maskable tokens of all processes, a long scalar.
        denoiser_loss, critic_loss: the parts of the loss likewise, the critic's before its weight;
            None where no critic learns.
        measured: sum of what was measured in this process; None where nothing was to be.
        skipped: whether it was left out, because it held numbers that are none.
    """

    loss: Tensor
    num_tokens: Tensor
    denoiser_loss: Tensor | None = None
    critic_loss: Tensor | None = None
    measured: Tensor | None = None
    skipped: bool = False

    @classmethod
    def left_out(cls) -> "Update":
        """Return what an update did that was left out: nothing."""
        return cls(torch.zeros(()), torch.zeros((), dtype=torch.long), skipped=True)


def take_update(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: Optimizer,
    batch: dict[str, Tensor],
    micro_batch_size: int,
    max_grad_norm: float,
    train: str = "both",
    measure: Measure | None = None,
    weigher: Weigher = BY_THE_BOUND,
) -> Update:
    """Take one optimizer step on one whole update.

    1. Count the maskable tokens of all processes. 2. Run each micro-batch forward and backward;
    only at the last one do processes exchange gradients. 3. Clip, see that loss and gradient are
    numbers, step, and forget the gradients.

    Args:
        accelerator: prepared `model` and `optimizer`.
        model: takes `num_items_in_batch` and returns the loss divided by it.
        optimizer: of the model's parameters.
        batch: this process's share, as `DataCollatorForMaskGit` makes it; its examples are named in
            errors where it has an `example_id` (B,).
        micro_batch_size: rows per forward pass.
        max_grad_norm: norm of the gradient over all parameters that is clipped to; 0 does not clip.
        train: "both", "denoiser" or "critic", whose loss is taken.
        measure: something about each micro-batch and the cross-entropies (N,) at its chosen
            positions, to be summed.
        weigher: how the losses of its tokens are weighed.

    Raises:
        ValueError: when the update has no maskable token.
        NotFiniteError: in all processes, before the step, when the loss or the norm of the gradient
            is nan or infinite; gradients are forgotten then too, so that the next one can be taken.
    """
    # 1.
    count = accelerator.reduce(tokens_in_update(batch["labels"]), "sum")
    if not count:
        raise ValueError(
            "No token of this update may be masked, so there is nothing to learn from it."
        )
    engine = engine_of(accelerator)
    factor = backward_factor(accelerator.num_processes, accelerator.gradient_accumulation_steps)
    # 2.
    pieces = list(micro_batches(batch, micro_batch_size))
    losses: dict[str, Any] = {}
    measured: Tensor | None = None
    seen: list[tuple[Tensor | None, Tensor]] = []  # ids and loss of each piece
    for i, piece in enumerate(pieces):
        is_last = i == len(pieces) - 1
        weigher.weigh(piece)
        given = _model_inputs(accelerator, model, piece)
        with quick_products(model), engine.passing(accelerator, model, is_last):
            output = model(
                **given,
                num_items_in_batch=count,
                train=train,
                output_nll=measure is not None,
                output_logits=weigher.weighting.follows_confidence,
            )
            parts = weigher.losses(piece, output, count)
            engine.backward(accelerator, model, parts["loss"] * factor)
        seen.append((piece.get("example_id"), parts["loss"].detach()))
        if measure is not None:
            found = measure(piece, output.nll)
            measured = found if measured is None else measured + found
        for name, part in parts.items():
            losses[name] = losses.get(name, 0) + part.detach()
    if "critic_loss" not in losses:
        del losses["denoiser_loss"]  # it is the loss
    # 3.
    norm = engine.clip(accelerator, model, max_grad_norm)
    try:
        check_update(accelerator, model, losses["loss"], norm, seen)
    except NotFiniteError:
        engine.forget(accelerator, optimizer, was_clipped=bool(max_grad_norm))
        raise
    optimizer.step()
    optimizer.zero_grad()
    return Update(num_tokens=count, measured=measured, **losses)


def _model_inputs(
    accelerator: Accelerator, model: nn.Module, piece: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Leave out what a model does not take, and tell it of documents what it does."""
    apart = ("example_id", "document_ids")
    given: dict[str, Any] = {name: part for name, part in piece.items() if name not in apart}
    if "document_ids" in piece:
        # only here: Accelerate looks for installed packages each time that it unwraps a model
        plain: Any = accelerator.unwrap_model(model)
        given.update(document_arguments(plain.denoiser, piece["document_ids"]))
    return given
