"""The optimizer of a run: what learns, how much of it decays, and how its learning rate goes."""

from typing import Any

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

from ..core.modeling_maskgit import MaskGitForMaskedLM
from .arguments import TrainArguments
from .learning_rates import settings_of, updates_of


def freeze_left_out(model: MaskGitForMaskedLM, train: str) -> None:
    """Switch the gradient off for the part of a model that is not to learn.

    Processes that train together would wait for its gradients.

    Args:
        model: changed in place.
        train: "both", "denoiser" or "critic".

    Raises:
        ValueError: for the critic of a model that has none.
    """
    if train == "critic" and not model.has_token_critic:
        raise ValueError(
            "train='critic' needs a token critic, and the model has none; set `token_critic` to "
            "'self' or 'separate'."
        )
    left_out: dict[str, list[nn.Module | None]] = {
        "both": [],
        "denoiser": [model.critic, model.critic_head],
        "critic": [model.denoiser, model.self_conditioning],
    }
    for part in left_out[train]:
        if part is not None:
            part.requires_grad_(False)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Give weight decay to matrices only: biases and gains of norms are vectors."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def make_optimizer(
    model: nn.Module, options: TrainArguments, num_updates: int
) -> tuple[AdamW, LRScheduler]:
    """Make AdamW and the schedule of its learning rate over `num_updates` updates.

    Raises:
        ValueError: when the parts of the schedule are longer than the run.
    """
    optimizer = AdamW(
        parameter_groups(model, options.weight_decay),
        lr=options.learning_rate,
        betas=(options.adam_beta1, options.adam_beta2),
        eps=options.adam_epsilon,
        fused=True,  # one pass over the weights instead of several
    )
    name, warmup = options.lr_scheduler_type, updates_of(options.warmup_steps, num_updates)
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
