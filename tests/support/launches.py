"""Programs in processes of their own, alone or two of them that train together."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.project import ROOT

CONFIGURATIONS = "scripts/accelerate_configs"  # from the root of the checkout
_TWO = ("-m", "accelerate.commands.launch", "--num_processes=2", "--mixed_precision=no")
_ANY_PORT = "--main_process_port=0"  # a free one: tests run side by side
# How the weights of two processes lie: whole in each, or a shard in each.
WHOLE, SHARDED = f"{CONFIGURATIONS}/cpu.yaml", f"{CONFIGURATIONS}/fsdp2.yaml"
# By DeepSpeed: gradients and optimizer in shards, or weights as well.
ZERO = {stage: f"{CONFIGURATIONS}/zero{stage}.yaml" for stage in (2, 3)}


def run(*command: Any) -> tuple[int, str]:
    """Run Python with these words; return its exit code and what it wrote to stderr."""
    done = completed(*command)
    return done.returncode, done.stderr


def completed(*command: Any) -> subprocess.CompletedProcess[str]:
    """Run Python with these words, and return what it did when it has ended."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def launched(*arguments: Any, weights: str = WHOLE, program: str = "scripts/train.py") -> str:
    """Train with two processes under Accelerate's launcher, which talk through gloo."""
    code, errors = run(*_TWO, _ANY_PORT, f"--config_file={weights}", program, *arguments)
    assert code == 0, errors
    return errors


def processes_of(checkpoint: Path) -> int:
    """How many wrote it: each its random states."""
    return len(list(checkpoint.glob("random_states_*.safetensors")))
