"""Which tests may notice a fault of core: those that reach its line, the likeliest first."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import coverage

from tests.support.mutant_server import Job, Server
from tests.support.project import PACKAGE, ROOT

AT_ONCE = 10  # files measured in one run; measuring goes on behind the last whole run
# Tests of a module are those of its name and those that import it; here they have other names.
ELSEWHERE = {
    "decoding_turn": ["test_decoding", "test_finite", "test_sampler_law"],
    "decoding_prompts": ["test_generation_maskgit", "test_generation_config_maskgit"],
    "modeling_checks": ["test_modeling_maskgit"],
    "modeling_maskgit": ["test_token_critic", "test_self_conditioning"],
    "pipeline_maskgit": ["test_pipelines", "test_pipeline_infilling"],
    "pipeline_splicing": ["test_pipelines", "test_pipeline_infilling"],
    "pipeline_text_generation": ["test_pipelines"],
    "sampler": ["test_decoding", "test_generation_config_maskgit"],
}


def test_files() -> list[str]:
    """Name the test files of core, by their paths in the checkout."""
    paths = sorted((ROOT / "tests" / "core").glob("test_*.py"))
    return [path.relative_to(ROOT).as_posix() for path in paths]


def files_that_test(module: str) -> list[str]:
    """Name the test files of a module of core, that of its own name first."""
    names = {f"test_{module}", *ELSEWHERE.get(module, [])}
    importing = re.compile(rf"\bcore\.{module}\b|core import .*\b{module}\b")
    found = [
        name
        for name in test_files()
        if Path(name).stem in names or importing.search((ROOT / name).read_text())
    ]
    return sorted(found, key=lambda name: Path(name).stem != f"test_{module}")


class Reached:
    """Which tests reach which lines of core.

    It is measured once and kept: a changed test file is measured anew, and all of them once core
    has changed.

    Args:
        path: where coverage keeps its measurements; beside it lies what they were taken of.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.record = self.path.with_name(f"{path.name}.json")
        self.data = coverage.CoverageData(str(self.path))
        self.lines: dict[str, dict[int, list[str]]] = {}
        self.reach: Counter[str] = Counter()

    def renew(self, server: Server) -> None:
        """Measure what has changed, and read what is known."""
        core = "".join(path.read_text() for path in sorted((PACKAGE / "core").glob("*.py")))
        now = {name: _digest(core + (ROOT / name).read_text()) for name in test_files()}
        now["core"] = _digest(core)
        known = json.loads(self.record.read_text()) if self.record.exists() else {}
        if known.get("core") != now["core"]:
            self.path.unlink(missing_ok=True)
            known = {"core": now["core"]}
        changed = [name for name in now if known.get(name) != now[name]]
        for start in range(0, len(changed), AT_ONCE):
            files = changed[start : start + AT_ONCE]
            outcome = server.ask(Job(files, coverage=str(self.path), stop=False))
            if outcome.code != 0:
                failed = ", ".join(outcome.failed) or f"pytest, with {outcome.code}"
                raise SystemExit(f"Without any fault in core, these fail: {failed}.")
            known |= {name: now[name] for name in files}
            self.record.write_text(json.dumps(known, indent=0))
        self._read()

    def _read(self) -> None:
        self.data = coverage.CoverageData(str(self.path))
        self.data.read()
        for name in self.data.measured_files():
            lines = self.data.contexts_by_lineno(name)
            self.lines[Path(name).stem] = lines
            self.reach.update(test for tests in lines.values() for test in tests if test)

    def jobs(self, module: str, lines: range, function: range, everything: bool) -> Iterator[Job]:
        """Yield runs of tests, one after another until one fails.

        Args:
            module: name of the file in core, without its ending.
            lines: of the fault.
            function: lines of the function around it, for faults whose line leaves no trace.
            everything: whether tests follow that do not reach the fault, or in a process of theirs.
        """
        near = files_that_test(module)
        found = self._of(module, lines) or self._of(module, function)
        if found - {""}:
            yield self._job(test for test in found if _file_of(test) in near)
            yield self._job(test for test in found if test and _file_of(test) not in near)
        if not found or "" in found:  # what runs on import is reached by whoever imports
            yield Job(near or test_files())
        if everything:
            yield self._job(self.reach.keys() - found)

    def _of(self, module: str, lines: range) -> set[str]:
        of_module = self.lines.get(module, {})
        return {test for line in lines for test in of_module.get(line, ())}

    def _job(self, tests: Iterator[str] | set[str]) -> Job:
        """Put tests in an order: by file, and those that reach little first."""
        names = sorted(tests, key=lambda test: (self.reach[test], test))
        files = list(dict.fromkeys(map(_file_of, names)))
        return Job(files, sorted(names, key=lambda test: files.index(_file_of(test))))


def _file_of(test: str) -> str:
    return test.partition("::")[0]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
