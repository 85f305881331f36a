"""What the default tests cost: processor seconds by file, held to a budget as a whole.

    python -m tests.support.durations [files]

measures the default tests, or those of the files named, one after the other in this process and
those that they start, and writes `tests/durations.json`. A busy machine waits and computes no more,
so that it counts as an idle one; another processor counts otherwise. tests/test_project.py adds the
seconds up, and asks for a new measurement where a file is new or has grown.
"""

import json
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.project import ROOT

RECORD = ROOT / "tests" / "durations.json"
DEFAULT = "not slow and not wide"
TESTS = pytest.StashKey[Counter[str]]()  # the default tests of what a run has collected
GROWTH, FEW = 1.2, 5  # a file may grow by so much, and so many tests, before it is measured anew


class Cost(NamedTuple):
    """Of the default tests of a file: processor seconds, and how many tests that were."""

    seconds: float
    tests: int


def recorded(path: Path = RECORD) -> dict[str, Cost]:
    """Read what was measured last, by paths from the root of the checkout."""
    return {file: Cost(*cost) for file, cost in json.loads(path.read_text()).items()}


def write(costs: dict[str, Cost], path: Path = RECORD) -> None:
    """Write a line per file, in the order of their names."""
    rows = [f"{json.dumps(file)}: {json.dumps(cost)}" for file, cost in sorted(costs.items())]
    path.write_text("{\n" + ",\n".join(rows) + "\n}\n")


def default_tests(items: list[pytest.Item]) -> Counter[str]:
    """Count the default tests by file."""
    chosen = (i for i in items if not any(map(i.get_closest_marker, ("slow", "wide"))))
    return Counter(item.nodeid.partition("::")[0] for item in chosen)


def to_measure(costs: dict[str, Cost], files: set[str], tests: Counter[str]) -> list[str]:
    """Name the files that are new, gone, or have grown since they were measured."""
    grown = {f for f, n in tests.items() if f in costs and n > GROWTH * costs[f].tests + FEW}
    return sorted(costs.keys() ^ files | grown)


class _Watch:
    """A plugin of pytest that adds up what each file costs."""

    def __init__(self) -> None:
        self.tests: Counter[str] = Counter()
        self.seconds: dict[str, float] = defaultdict(float)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        before = sum(os.times()[:4])
        try:
            return (yield)
        finally:
            file = item.nodeid.partition("::")[0]
            self.seconds[file] += sum(os.times()[:4]) - before
            self.tests[file] += 1

    def costs(self, files: list[str]) -> dict[str, Cost]:
        return {file: Cost(round(self.seconds[file], 2), self.tests[file]) for file in files}


def test_files() -> list[str]:
    """Name every test file by its path from the root of the checkout."""
    return sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "tests").rglob("test_*.py"))


def main() -> None:
    """Measure, and write what was found; nothing where a test fails."""
    os.chdir(ROOT)
    files = [os.path.relpath(Path(name).resolve(), ROOT) for name in sys.argv[1:]]
    watch = _Watch()
    options = ["-q", "-n", "0", "-m", DEFAULT]
    code = pytest.main([*options, *files], plugins=[watch])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        sys.exit(f"Nothing was written: pytest ended with {code!r}.")
    known = test_files()
    before = {f: c for f, c in recorded().items() if f in known} if files else {}
    write({**before, **watch.costs(files or known)})
    total = sum(cost.seconds for cost in recorded().values())
    sys.stderr.write(f"{total:.0f} s in all: {RECORD}\n")


if __name__ == "__main__":
    main()
