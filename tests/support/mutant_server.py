"""One process that has imported everything but the package, and forks for every run of tests.

Importing torch and transformers takes longer than most runs of tests. A fork finds them imported,
imports the package as it lies in the copy of the checkout, fault included, and runs pytest. The
server reads a job per line, as JSON, and answers with a line.
"""

import contextlib
import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

CPU_SECONDS = 40  # of one test: a fault that never ends is noticed, however busy the machine is
WALL_SECONDS = 900  # of one run: a fault that waits forever is noticed too
MEMORY = 16 * 2**30  # of addresses: a fault that takes ever more does not take the machine
OUT_OF_TIME = -int(signal.SIGXCPU)
# What most tests of core need; what else a run imports, its fork imports for itself.
IMPORTED = """
torch transformers accelerate datasets huggingface_hub hypothesis numpy peft safetensors.torch
scipy.stats x_transformers coverage torch._dynamo torch._decomp.decompositions_for_jvp
_pytest.faulthandler _pytest.junitxml _pytest.pastebin _pytest.setuponly _pytest.setupplan
_pytest.skipping _pytest.threadexception _pytest.tracemalloc _pytest.unittest
_pytest.unraisableexception _pytest.warnings _pytest.helpconfig anyio.pytest_plugin
anyio.abc anyio._backends._asyncio anyio._core._sockets anyio._core._testing pdb readline
transformers.pipelines.fill_mask transformers.pipelines.text_generation
transformers.models.esm.tokenization_esm transformers.models.esm.modeling_esm
transformers.trainer transformers.generation.streamers
transformers.models.auto.modeling_auto transformers.models.bert.modeling_bert
transformers.models.modernbert.modeling_modernbert transformers.models.roberta.modeling_roberta
transformers.models.distilbert.modeling_distilbert transformers.models.electra.modeling_electra
transformers.models.deberta_v2.modeling_deberta_v2 transformers.models.albert.modeling_albert
""".split()


@dataclass(frozen=True)
class Job:
    """A run of tests.

    Attributes:
        files: paths of test files, from the root of the checkout.
        tests: names of the tests to run, in this order; all of these files where None.
        coverage: a file to write the lines of core to that each test reached.
        stop: whether the first failure ends the run.
    """

    files: list[str]
    tests: list[str] | None = None
    coverage: str | None = None
    stop: bool = True


@dataclass
class Outcome:
    """What became of it.

    Attributes:
        code: how pytest ended; negative where a signal ended it.
        failed: names of the tests that failed.
        passed: how many did not.
    """

    code: int = -1
    failed: list[str] = field(default_factory=list)
    passed: int = 0


class _Watch:
    """A plugin of pytest: which tests run in which order, for how long, and what they reach."""

    def __init__(self, job: Job, outcome: Outcome) -> None:
        self.order = None if job.tests is None else {name: i for i, name in enumerate(job.tests)}
        self.outcome, self.measured = outcome, None
        if job.coverage is not None:
            import coverage

            self.measured = coverage.Coverage(
                data_file=job.coverage, config_file=False, source=["hf_maskgit/core"]
            )
            self.measured.set_option("run:relative_files", True)
            self.measured.load()
            self.measured.start()

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        order = self.order
        if order is not None:
            items[:] = [item for item in items if item.nodeid in order]
            items.sort(key=lambda item: order[item.nodeid])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        used = int(time.process_time()) + CPU_SECONDS
        resource.setrlimit(resource.RLIMIT_CPU, (used, resource.RLIM_INFINITY))
        if self.measured is not None:
            self.measured.switch_context(nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.outcome.failed.append(report.nodeid)
        elif report.passed and report.when == "call":
            self.outcome.passed += 1

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.outcome.failed.append(report.nodeid)

    def pytest_unconfigure(self) -> None:
        if self.measured is not None:
            self.measured.stop()
            self.measured.save()


def _run_here(job: Job, answer: Path) -> None:
    """Run tests in this process, which ends with it."""
    import pytest

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.RLIM_INFINITY))
    outcome = Outcome()
    options = ["-q", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:cov", "-p", "no:xdist"]
    options += [f"--basetemp={answer.parent / 'pytest'}", *(["-x"] if job.stop else [])]
    outcome.code = int(pytest.main([*options, *job.files], plugins=[_Watch(job, outcome)]))
    answer.write_text(json.dumps(asdict(outcome)))


def run(job: Job) -> Outcome:
    """Run tests in a fork."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "answer.json")
        child = os.fork()
        if child == 0:
            try:
                os.setsid()
                tempfile.tempdir = os.environ["TMPDIR"] = folder
                nowhere = os.open(os.devnull, os.O_RDWR)
                for standard in range(3):
                    os.dup2(nowhere, standard)
                _run_here(job, answer)
            finally:
                os._exit(0)  # what else the server does at its end is not for the fork to do
        code = _end_of(child)
        with contextlib.suppress(OSError, ValueError):
            return Outcome(**json.loads(answer.read_text()))
        return Outcome(code=code)


def _end_of(child: int) -> int:
    """Wait for a fork, and end it and what it started when its time is over."""
    start = time.monotonic()
    while time.monotonic() - start < WALL_SECONDS:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else -1
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return OUT_OF_TIME


class Copy:
    """A copy of the checkout, as it lies there, until `close`."""

    def __init__(self, root: Path) -> None:
        self.tree, self.num_changes = Path(tempfile.mkdtemp()), 0
        for name in _tracked(root):
            (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, self.tree / name)

    @contextlib.contextmanager
    def changed(self, name: str, text: str) -> Iterator[None]:
        """Give a file of the copy another text for a while."""
        path = self.tree / name
        source, times = path.read_bytes(), path.stat()
        path.write_text(text)
        # Bytecode counts for the time and size of its source: no two texts have the same time.
        self.num_changes += 1
        os.utime(path, (self.num_changes, self.num_changes))
        try:
            yield
        finally:
            path.write_bytes(source)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    def close(self) -> None:
        """Take the copy away."""
        shutil.rmtree(self.tree)


class Server(Copy):
    """A copy with a server in it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        paths = {"PYTHONPATH": str(self.tree), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.mutant_server"],
            cwd=self.tree,
            env={**os.environ, **paths},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, job: Job) -> Outcome:
        """Run tests in the copy as it lies there."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(job)) + "\n")
        self._process.stdin.flush()
        return Outcome(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the server and take the copy away."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        super().close()


def _tracked(root: Path) -> list[str]:
    """Name the files that git knows of, as they lie there."""
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.splitlines() if (root / name).is_file()]


def main() -> None:
    # What the tests' own conftest sets before anything is imported holds here too.
    importlib.import_module("tests.conftest")
    for name in IMPORTED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for line in sys.stdin:
        sys.stdout.write(json.dumps(asdict(run(Job(**json.loads(line))))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
