"""A run of one way to learn texts, measured as it goes, which is taken up where it was left.

Every way of a comparison gets the same blocks in the same order, and one optimizer: AdamW, whose
rate rises for a while and then stays, so that every point of the curve could have been the end.
What is drawn in an update is keyed by its number. Time is that of the updates alone; on a CPU it
is the processor's own, which other programs on the machine do not lengthen.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..core.noise import keyed_generator, mix
from ..evaluation.bound import NelboOutput
from ..evaluation.corpus import per_token
from .run_files import replace_text
from .text_baselines import Learner, Measure

PROGRESS_NAME = "progress.json"
_ORDER = 0x6F72646572  # tells this noise from that of other things under the same seed
_SEEDS = 2**32  # that numpy's generator takes
_WEIGHTS, _OPTIMIZER = "weights.", "optimizer."  # names in the file of a state


@dataclass(frozen=True)
class Plan:
    """How long to learn, and how.

    Attributes:
        max_steps: updates.
        eval_every: updates between two measurements; the last update is measured as well.
        batch_size: blocks per update.
        learning_rate: of AdamW once it has risen.
        warmup_steps: updates for which it rises.
        seed: of weights, order and masks.
    """

    max_steps: int
    eval_every: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    seed: int


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        updates: that were made.
        seconds: that they took.
        num_parameters: of the network.
        curve: updates, seconds, nats_per_token and std_error of each measurement.
        diverged_at: the update whose loss was no finite number any more, after which none came.
    """

    updates: int = 0
    seconds: float = 0.0
    num_parameters: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)
    diverged_at: int | None = None

    def nats_within(self, seconds: float) -> float | None:
        """Return the nats per token last measured within so many seconds; None where none was."""
        found = [one["nats_per_token"] for one in self.curve if one["seconds"] <= seconds]
        return found[-1] if found else None


class BaselineRun:
    """Learns, measures, and keeps what it needs to go on.

    Args:
        make: makes the learner; its weights are drawn under the plan's seed.
        plan: of the run. With more updates a finished run goes on.
        folder: of this run alone.
        device: to learn on.
    """

    def __init__(
        self, make: Callable[[], Learner], plan: Plan, folder: Path, device: torch.device
    ) -> None:
        set_seed(plan.seed)
        self.learner, self.plan, self.folder, self.device = make(), plan, folder, device
        network = self.learner.network.to(device)
        self._optimizer = torch.optim.AdamW(network.parameters(), lr=plan.learning_rate)
        self.progress = Progress(num_parameters=sum(p.numel() for p in network.parameters()))
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / PROGRESS_NAME).exists():
            self._take_up()

    def learn(self, blocks: Tensor, held_out: Tensor, measure: Measure) -> None:
        """Make the updates that are left, and measure in between.

        Args:
            blocks: (B, L) long, at least as many as an update takes.
            held_out: (H, L) long.
            measure: how.
        """
        progress, plan = self.progress, self.plan
        while progress.updates < plan.max_steps and progress.diverged_at is None:
            self._update(blocks[batch_of(len(blocks), progress.updates, plan)].to(self.device))
            if progress.diverged_at is not None:
                break
            at_end = progress.updates == plan.max_steps
            if at_end or progress.updates % plan.eval_every == 0:
                self._note(self.nats(held_out, measure))
                self._keep()
        self._keep()

    def nats(self, held_out: Tensor, measure: Measure) -> NelboOutput:
        """Measure held-out blocks with the weights as they are."""
        network = self.learner.network.eval()
        with torch.random.fork_rng():
            found = self.learner.nats(held_out.to(self.device), measure)
        network.train()
        return found

    def _update(self, blocks: Tensor) -> None:
        """Make one update, unless its loss is no number."""
        progress, plan = self.progress, self.plan
        set_seed(mix(plan.seed, progress.updates) % _SEEDS)
        risen = min(1.0, (progress.updates + 1) / max(1, plan.warmup_steps))
        for group in self._optimizer.param_groups:
            group["lr"] = plan.learning_rate * risen
        begun = self._clock()
        network = self.learner.network.train()
        loss = self.learner.loss(blocks)
        if not math.isfinite(loss.item()):
            progress.diverged_at = progress.updates + 1
            return
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()
        progress.updates += 1
        progress.seconds += self._clock() - begun

    def _clock(self) -> float:
        """Return seconds: the processor's on a CPU, those of the clock on what works beside it."""
        if self.device.type == "cpu":
            return time.process_time()
        torch.accelerator.synchronize()
        return time.perf_counter()

    def _note(self, found: NelboOutput) -> None:
        estimate, progress = per_token(found), self.progress
        progress.curve.append(
            {
                "updates": progress.updates,
                "seconds": progress.seconds,
                "nats_per_token": estimate.value,
                "std_error": estimate.std_error or estimate.masking_std_error,
            }
        )

    def _keep(self) -> None:
        """Write the state under a new name, then where it stands, then remove older states."""
        tensors = dict(self.learner.network.named_parameters())
        state = {_WEIGHTS + name: value.detach() for name, value in tensors.items()}
        for name, parameter in tensors.items():
            for key, value in self._optimizer.state[parameter].items():
                state[f"{_OPTIMIZER}{key}:{name}"] = value
        path = self.folder / _state_name(self.progress.updates)
        save_file({name: value.contiguous() for name, value in state.items()}, str(path))
        told = json.dumps(asdict(self.progress), indent=1)
        replace_text(self.folder / PROGRESS_NAME, told + "\n")
        for older in self.folder.glob(_state_name("*")):
            if older != path:
                older.unlink()

    def _take_up(self) -> None:
        """Go on from where the folder says."""
        noted: dict[str, Any] = json.loads((self.folder / PROGRESS_NAME).read_text("utf-8"))
        self.progress = Progress(**noted)
        state = load_file(str(self.folder / _state_name(self.progress.updates)))
        for name, parameter in self.learner.network.named_parameters():
            parameter.data.copy_(state[_WEIGHTS + name])
            marked = {
                stored.split(":")[0].removeprefix(_OPTIMIZER): value
                for stored, value in state.items()
                if stored.startswith(_OPTIMIZER) and stored.partition(":")[2] == name
            }
            self._optimizer.state[parameter] = {
                key: value if key == "step" else value.to(self.device)
                for key, value in marked.items()
            }


def batch_of(num_blocks: int, update: int, plan: Plan) -> Tensor:
    """Return the numbers of the blocks of an update, (batch_size,) long, the same for all ways.

    Each pass over the blocks has an order of its own; the rest that fills no batch is left out.
    """
    per_pass = num_blocks // plan.batch_size
    turn, place = divmod(update, per_pass)
    order = torch.randperm(num_blocks, generator=keyed_generator(_ORDER, plan.seed, turn))
    return order[place * plan.batch_size : (place + 1) * plan.batch_size]


def _state_name(updates: int | str) -> str:
    return f"state-{updates}.safetensors"
