"""What a run came to, in one file that needs no account: `metrics.json`."""

import json
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .loop import TrainingLoop
from .run_files import replace_text, told_if_it_fails
from .run_log import LOG_NAME, METRICS_NAME, read_lines
from .shards import size_of
from .versions import commit_of, installed_versions

_PACKAGES = ("torch", "transformers", "accelerate", "datasets", "numpy", "safetensors")


def write_metrics(loop: TrainingLoop, folder: Path) -> dict[str, Any]:
    """Write what a finished run came to.

    Args:
        loop: after its run.
        folder: of the run, with its log.

    Returns:
        What the file holds: updates, passes over the data, tokens and seconds of all updates, the
        last and the best bound, the size of the model, and what it ran on and by.

    Raises:
        RuntimeError: when it cannot be written.
    """
    accelerator = loop.accelerator
    parameters = list(accelerator.unwrap_model(loop.model).parameters())
    found = {
        "updates": loop.progress.step,
        "epochs": loop.progress.step / loop.epoch_updates if loop.epoch_updates else None,
        "examples": loop.progress.step * loop.progress.setting["examples_per_update"],
        **totals(list(read_lines(folder / LOG_NAME))),
        "parameters": sum(size_of(p) for p in parameters),
        "trained_parameters": sum(size_of(p) for p in parameters if p.requires_grad),
        "processes": accelerator.num_processes,
        "device": accelerator.device.type,
        "mixed_precision": accelerator.mixed_precision,
        "versions": installed_versions(_PACKAGES),
        "platform": platform.platform(),
        "command": shlex.join(sys.argv),
        "commit": commit_of(Path.cwd()),
    }
    path = folder / METRICS_NAME
    with told_if_it_fails(path, "Make room, and resume from 'latest'."):
        replace_text(path, json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    return found


def totals(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sum up the log of a run, resumed or not.

    Args:
        lines: of the log.

    Returns:
        `tokens` that were learned from (those that may be masked, again in every pass), `seconds`
        that the updates took (not the evaluations), `tokens_per_second`, the last `loss`, and the
        `last` and the `best` bound on held-out texts, each None where there is none.
    """
    told = [line for line in lines if "tokens" in line]
    tokens, seconds = (sum(line[name] for line in told) for name in ("tokens", "seconds"))
    measured = [line for line in lines if "eval_nats_per_token" in line]
    last = measured[-1] if measured else None
    best = min(measured, key=lambda line: line["eval_nats_per_token"], default=None)
    return {
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds if seconds else None,
        "loss": told[-1]["loss"] if told else None,
        "last": None if last is None else dict(last),
        "best": None if best is None else dict(best),
    }
