"""How a run is going: bound and critic measured by all processes, losses summed for the log."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from ..core.unknown_tokens import counted_before
from ..evaluation.bound import NelboOutput, evaluate_nelbo
from ..evaluation.critic import CriticAuroc, critic_auroc
from .updates import Update


def evaluate_bound(
    accelerator: Accelerator,
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    examples: Dataset,
    *,
    batch_size: int,
    num_samples: int,
    seed: int,
) -> NelboOutput:
    """Estimate the bound of every example; each process takes a share and gets the whole result.

    The masks are the same every time, and torch's global generator is left as it was.

    Args:
        accelerator: knows the processes.
        model: as `accelerator` prepared it.
        tokenizer: its padding.
        examples: column `input_ids`, framed; at least one example.
        batch_size: examples per device and pass.
        num_samples: passes per example, see `nelbo`.
        seed: of the masks.

    Returns:
        One bound per example, on the CPU; ordered by process. On any number of processes each
        example gets the same masks, in the same batch.
    """
    measure = partial(evaluate_nelbo, num_samples=num_samples, seed=seed)
    common = accelerator, model, tokenizer, examples
    return NelboOutput.concatenate(_in_shares(*common, batch_size, measure))


def evaluate_critic(
    accelerator: Accelerator,
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    examples: Dataset,
    *,
    batch_size: int,
    seed: int,
) -> CriticAuroc:
    """Measure the token critic on every example, shared among processes as in `evaluate_bound`.

    Args:
        accelerator: as for `evaluate_bound`, and so are the others.
        model: has a critic.
        tokenizer: its padding.
        examples: column `input_ids`, framed.
        batch_size: examples per device and pass.
        seed: of masks and draws.
    """
    measure = partial(critic_auroc, seed=seed)
    common = accelerator, model, tokenizer, examples
    return CriticAuroc.add(_in_shares(*common, batch_size, measure))


def _in_shares(
    accelerator: Accelerator,
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    examples: Dataset,
    batch_size: int,
    measure: Callable[..., Any],
) -> list[Any]:
    """Measure every process's share of the batches; return the results of all that had one."""
    # Process 1 of 3 takes batches 1, 4, 7, ... of texts in the order of their lengths: so all have
    # long and short ones, and with fewer batches than processes some have none.
    share, parts = (accelerator.process_index, accelerator.num_processes), []
    if share[0] < math.ceil(len(examples) / batch_size):
        plain, shown = accelerator.unwrap_model(model), accelerator.is_main_process
        how = {"batch_size": batch_size, "progress": shown, "share": share}
        with counted_before():  # when the examples were made
            parts = [measure(plain, examples, tokenizer, **how)]
    return list(gather_object(parts))


class Window:
    """Sums over the updates between two log lines.

    Attributes:
        num_updates: how many were taken.
        num_skipped: how many were left out; nothing else counts them.
        seconds: the time they took together.
        losses: sums of this process's parts of the losses by name, float32 scalars.
        num_tokens: maskable tokens of all processes, a long scalar once there was an update.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self.num_updates, self.num_skipped, self.seconds = 0, 0, 0.0
        self.losses: dict[str, Tensor] = {}
        self.num_tokens: Tensor | int = 0  # an integer until the device of the first is known

    def add(self, update: Update, seconds: float) -> None:
        """Add one update; sums stay on the device, so that nothing waits for it."""
        if update.skipped:
            self.num_skipped += 1
            return
        self.num_updates += 1
        self.seconds += seconds
        for name in ("loss", "denoiser_loss", "critic_loss"):
            loss = getattr(update, name)
            if loss is not None:
                self.losses[name] = self.losses.get(name, 0) + loss
        self.num_tokens = self.num_tokens + update.num_tokens

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers, exactly: a resumed run goes on adding to them."""
        return {
            "num_updates": self.num_updates,
            "num_skipped": self.num_skipped,
            "seconds": self.seconds,
            "losses": {name: float(total) for name, total in self.losses.items()},
            "num_tokens": int(self.num_tokens),
        }

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Take over the numbers of `state_dict`; sums then lie on `device`."""
        self.num_updates, self.num_skipped = int(state["num_updates"]), int(state["num_skipped"])
        self.seconds = float(state["seconds"])
        self.losses = {
            name: torch.tensor(float(total), device=device)
            for name, total in state["losses"].items()
        }
        self.num_tokens = torch.tensor(int(state["num_tokens"]), device=device)
