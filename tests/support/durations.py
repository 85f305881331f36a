"""What the default tests cost: processor seconds by file.

    python -m tests.support.durations [files]

measures the default tests, or those of the files named, one after the other in this process and
those that they start, and prints the dearest files first. A busy machine waits and computes no
more, so that it counts as an idle one; another processor counts otherwise.
"""

import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.project import ROOT

DEFAULT = "not slow and not wide"
TESTS = pytest.StashKey[Counter[str]]()  # the default tests of what a run has collected


def default_tests(items: list[pytest.Item]) -> Counter[str]:
    """Count the default tests by file."""
    chosen = (i for i in items if not any(map(i.get_closest_marker, ("slow", "wide"))))
    return Counter(item.nodeid.partition("::")[0] for item in chosen)


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


def test_files() -> list[str]:
    """Name every test file by its path from the root of the checkout."""
    return sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "tests").rglob("test_*.py"))


def main() -> None:
    """Measure, and print what was found."""
    os.chdir(ROOT)
    files = [os.path.relpath(Path(name).resolve(), ROOT) for name in sys.argv[1:]]
    watch = _Watch()
    code = pytest.main(["-q", "-n", "0", "-m", DEFAULT, *files], plugins=[watch])
    for file, seconds in sorted(watch.seconds.items(), key=lambda item: -item[1]):
        sys.stdout.write(f"{seconds:8.2f} s  {watch.tests[file]:5} tests  {file}\n")
    sys.stdout.write(f"{sum(watch.seconds.values()):8.2f} s in all\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
