"""Kill a short run at random moments, start the same command again, and compare the weights.

    python -m tests.support.fault_injection --moments 30 --processes 1
    python -m tests.support.fault_injection --moments 10 --processes 2

The run has all that could be lost: a stream read by loader workers, dropout, self-conditioning, a
token critic, averages of the weights, times that follow what was measured, evaluations with texts,
and a checkpoint every other update. Two of three moments are spread over all its time, one at
random in each of as many equal parts; every third comes while a checkpoint drawn at random is being
written. Of two processes one is killed, and the other is ended as a launcher would.
Runs are forked where torch is imported already.
"""

import argparse
import json
import os
import random  # moments only
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file

from hf_maskgit.training.run_files import UNFINISHED
from scripts.train import main as train
from tests.support.tiny_training import log_lines, words, write_inputs

OPTIONS = {
    "use_cpu": "true",
    "streaming": "true",
    "stream_lanes": 4,
    "shuffle_buffer": 20,
    "num_workers": 2,
    "max_steps": 10,
    "per_device_batch_size": 2,
    "learning_rate": 1e-2,
    "self_cond": "true",
    "token_critic": "self",
    "ema_decay": 0.9,
    "time_sampler": "importance",
    "log_every": 1,
    "eval_every": 4,
    "eval_samples": 4,
    "eval_texts": 1,
    "checkpoint_every": 2,
}
_CHECKPOINTS = (2, 4, 6, 8, 10)
_WRITING = 0.006  # seconds: about as long as it takes to write one
_UPDATE = 8  # examples, on however many processes
_TIMES = ("seconds", "tokens_per_second")  # of a line of the log; all else repeats
_GRACE = 3.0  # seconds between a launcher's SIGTERM and its SIGKILL


class Killed(NamedTuple):
    """A run that was killed once.

    Attributes:
        where: what stood in its folder then.
        same: whether it came to the same weights, averages and losses after all.
        said: the end of what it wrote, where it did not.
    """

    where: str
    same: bool
    said: str = ""


def _say(sentence: str) -> None:
    sys.stdout.write(sentence + "\n")
    sys.stdout.flush()


def killed_runs(
    folder: Path, moments: int, processes: int, seed: int = 0, tell: Callable[[str], object] = _say
) -> list[Killed]:
    """Run once whole, then once for every moment, killed at it.

    Args:
        folder: where all of it goes; empty.
        moments: how many.
        processes: that train together, 1 or 2.
        seed: of the moments, and of the process that is killed.
        tell: is told of each.
    """
    command = _command(folder, processes)
    started = time.monotonic()
    whole = folder / "whole"
    if not _wait(_start([*command, "--output_dir", str(whole)], processes, folder / "whole.log")):
        raise RuntimeError(f"The run fails by itself: {_end_of(folder / 'whole.log')}")
    seconds = time.monotonic() - started
    dice = random.Random(seed)
    found = []
    for number in range(moments):
        moment = (number + dice.random()) / moments * seconds
        in_writing = number % 3 == 2
        checkpoint = dice.choice(_CHECKPOINTS) if in_writing else None
        run = folder / f"run-{number}"
        own = [*command, "--output_dir", str(run)]
        latest = 3 * seconds if in_writing else moment
        killed = _killed(own, processes, run, whole, latest, checkpoint, dice)
        tell(f"{number + 1:3d}: {killed.where}: {'same' if killed.same else 'NOT'}")
        found.append(killed)
        shutil.rmtree(run, ignore_errors=True)
    return found


def _killed(
    command: list[str],
    processes: int,
    run: Path,
    whole: Path,
    moment: float,
    checkpoint: int | None,
    dice: random.Random,
) -> Killed:
    log = run.with_suffix(".log")
    pids = _start(command, processes, log)
    if checkpoint is None:
        time.sleep(moment)
    else:
        _wait_for(run / f"checkpoint-{checkpoint}{UNFINISHED}", moment)
        time.sleep(dice.random() * _WRITING)
    _kill(pids, dice.randrange(processes))
    where = _where(run)
    # a run that had come to its end is refused, as it should be
    if where != "finished" and not _wait(_start(command, processes, log)):
        return Killed(where, same=False, said=_end_of(log))
    try:
        return Killed(where, _is_same(run, whole), _end_of(log))
    except (OSError, KeyError) as error:
        return Killed(where, same=False, said=f"{error} {_end_of(log)}")


def _wait_for(path: Path, seconds: float) -> None:
    """Wait until something is there, or some time has gone by."""
    until = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.0005)


def _command(folder: Path, processes: int) -> list[str]:
    inputs = write_inputs(folder, num_texts=120)
    texts = (folder / "texts.txt").read_text().splitlines()
    for part in range(4):
        lines = [json.dumps({"text": text}) for text in texts[part:100:4]]
        (folder / f"train-{part}.jsonl").write_text("\n".join(lines))
    (folder / "held_out.txt").write_text("\n".join(texts[100:]))
    inputs[inputs.index("--dataset") + 1] = str(folder / "train-*.jsonl")
    update = _UPDATE // processes // int(str(OPTIONS["per_device_batch_size"]))
    options = {**OPTIONS, "gradient_accumulation_steps": update}
    return [*inputs, *words(options), "--eval_dataset", str(folder / "held_out.txt")]


def _start(command: Sequence[str], processes: int, log: Path) -> list[int]:
    """Fork the processes of a run; they write into `log`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pids = []
    for rank in range(processes):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                _become(rank, processes, port, log)
                train(command)
                code = 0
            except BaseException as error:  # said, and then it ends
                sys.stderr.write(f"{type(error).__name__}: {error}\n")
            finally:
                sys.stderr.flush()
                os._exit(code)
        pids.append(pid)
    return pids


def _become(rank: int, processes: int, port: int, log: Path) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if processes > 1:
        own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in own.items()})
        os.environ.update({"MASTER_ADDR": "127.0.0.1", "LOCAL_WORLD_SIZE": str(processes)})


def _kill(pids: list[int], victim: int) -> None:
    """Kill one process without warning; end the others as a launcher does."""
    _signal(pids[victim], signal.SIGKILL)
    others = [pid for number, pid in enumerate(pids) if number != victim]
    for pid in others:
        _signal(pid, signal.SIGTERM)
    until = time.monotonic() + _GRACE
    os.waitpid(pids[victim], 0)
    for pid in others:
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > until:
                _signal(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                break
            time.sleep(0.05)


def _signal(pid: int, number: int) -> None:
    os.kill(pid, number)  # a child that has ended is there until it is waited for


def _wait(pids: list[int]) -> bool:
    """Wait for all processes; tell whether they ended well."""
    statuses = [os.waitpid(pid, 0)[1] for pid in pids]
    return not any(statuses)


def _where(run: Path) -> str:
    names = sorted(path.name for path in run.iterdir()) if run.is_dir() else []
    if "README.md" in names:
        return "finished"
    if any(name.startswith("checkpoint-") and name.endswith(UNFINISHED) for name in names):
        return "while a checkpoint was written"
    if any(UNFINISHED in name for name in names):
        return "while a model was written"
    whole = [name for name in names if name.startswith("checkpoint-")]
    if whole:
        return "after a checkpoint"
    return "before the first checkpoint" if "training_options.yaml" in names else "before the run"


def _is_same(run: Path, whole: Path) -> bool:
    last = f"checkpoint-{OPTIONS['max_steps']}"
    for file in ("model.safetensors", f"{last}/model.safetensors", f"{last}/averages.safetensors"):
        one, other = load_file(run / file), load_file(whole / file)
        if one.keys() != other.keys() or not all(torch.equal(one[n], other[n]) for n in one):
            return False
    timeless = [
        [{name: v for name, v in line.items() if name not in _TIMES} for line in log_lines(f)]
        for f in (run, whole)
    ]
    return timeless[0] == timeless[1]


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:] if log.exists() else ""


def main() -> None:
    """Read the command line, and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=30, help="How often a run is killed.")
    parser.add_argument("--processes", type=int, default=1, choices=(1, 2))
    parser.add_argument("--seed", type=int, default=0, help="Of the moments.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = killed_runs(Path(folder), options.moments, options.processes, options.seed)
    for where, count in sorted(Counter(killed.where for killed in found).items()):
        _say(f"{count:4d} killed {where}")
    failed = [killed for killed in found if not killed.same]
    _say(f"{len(found) - len(failed)} of {len(found)} came to the same weights, to the bit.")
    if failed:
        sys.exit("\n\n".join(f"{killed.where}:\n{killed.said}" for killed in failed))


if __name__ == "__main__":
    main()
