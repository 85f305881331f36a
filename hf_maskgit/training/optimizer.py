"""The optimizer of a run: what learns, how much of it decays, and how its learning rate goes."""

import logging
from functools import partial
from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

from .arguments import TrainArguments
from .layers import depths_of
from .learning_rates import settings_of, updates_of
from .optimizers import OPTIMIZERS

logger = logging.getLogger(__name__)


def parameter_groups(model: nn.Module, options: TrainArguments) -> list[dict[str, Any]]:
    """Sort what learns by its decay and its learning rate, highest rates first.

    Weight decay is for matrices only: biases and gains of norms are vectors. With `layer_decay` d,
    the k-th last of the n layers learns with d ** k times the rate of the head and of all that is
    no encoder, and the embeddings with d ** (n + 1) times that (ELECTRA, arXiv 2003.10555,
    appendix B).

    Args:
        model: a `MaskGitForMaskedLM` where `layer_decay` is not 1; what is frozen is left out.
        options: the decays and the highest rate.

    Raises:
        ValueError: for `layer_decay` with an encoder whose layers cannot be told apart.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    shares = {} if options.layer_decay == 1 else shares_of_rate(model, options.layer_decay)
    groups = []
    for share in sorted({1.0, *shares.values()}, reverse=True):
        of_rate = [p for p in trained if shares.get(id(p), 1.0) == share]
        matrices, vectors = ([p for p in of_rate if (p.ndim > 1) == is_one] for is_one in (1, 0))
        rate = options.learning_rate * share
        groups += [
            {"params": matrices, "lr": rate, "weight_decay": options.weight_decay},
            {"params": vectors, "lr": rate, "weight_decay": 0.0},
        ]
    return groups


def shares_of_rate(model: Any, layer_decay: float) -> dict[int, float]:
    """Return the share of the learning rate of each weight of a model's encoders by its `id`.

    Args:
        model: a `MaskGitForMaskedLM`.
        layer_decay: in (0, 1].
    """
    shares = {}
    for encoder in filter(None, (model.critic, model.denoiser)):
        depths = depths_of(encoder)
        highest = encoder.config.get_text_config().num_hidden_layers + 1  # the head's
        shares.update({key: layer_decay ** (highest - depth) for key, depth in depths.items()})
    return shares


def make_optimizer(
    model: nn.Module, options: TrainArguments, num_updates: int
) -> tuple[Optimizer, LRScheduler]:
    """Make an optimizer and the schedule of its learning rate over `num_updates` updates.

    Raises:
        ValueError: when the parts of the schedule are longer than the run, or the optimizer has
            nothing to move.
    """
    adam = partial(
        AdamW,
        lr=options.learning_rate,
        betas=(options.adam_beta1, options.adam_beta2),
        eps=options.adam_epsilon,
        fused=True,  # one pass over the weights instead of several
    )
    groups = parameter_groups(model, options)
    optimizer = OPTIMIZERS[options.optim].make(model, groups, adam)
    name, warmup = options.lr_scheduler_type, updates_of(options.warmup_steps, num_updates)
    if warmup >= num_updates:
        logger.warning(
            "The warm-up takes %d updates and the run %d, so that the rate stays below "
            "`learning_rate`; lower `warmup_steps`, or train for longer.",
            warmup,
            num_updates,
        )
    scheduler = get_scheduler(
        name,
        optimizer,
        num_warmup_steps=warmup,
        num_training_steps=num_updates,
        scheduler_specific_kwargs=settings_of(
            name, options.learning_rate_options, warmup, num_updates
        ),
    )
    return optimizer, scheduler


def set_schedule(scheduler: Any, step: int) -> None:
    """Set the schedule of the learning rate to where it stands after `step` updates.

    Args:
        scheduler: from `make_optimizer`, or as Accelerate wraps it.
        step: updates taken.
    """
    inner = getattr(scheduler, "scheduler", scheduler)
    rates = [
        base * factor(step) for base, factor in zip(inner.base_lrs, inner.lr_lambdas, strict=True)
    ]
    place = {"last_epoch": step, "_step_count": step + 1, "_last_lr": rates}
    inner.load_state_dict({**inner.state_dict(), **place})
    for group, rate in zip(inner.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
