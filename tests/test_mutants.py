"""The mutation sweep: which faults it makes, what it leaves alone, and which tests it tries."""

import ast
import contextlib
import json
from collections import Counter

import pytest

from tests.support import mutant_server
from tests.support.mutant_server import OUT_OF_TIME, Copy, Job, Outcome, run
from tests.support.mutant_tests import Reached, files_that_test
from tests.support.mutants import CORE, Mutant, chosen, lines_of, mutants_of, report_of, tried
from tests.support.mutants_explained import EXPLAINED
from tests.support.project import ROOT

SOURCE = '''
LIMIT = 3

def f(a: int = 2) -> int:
    """Docstring."""
    if a < LIMIT and not a:
        log("1")
        raise ValueError(f"{a + 1}")
    return a * 2 if a else -a
'''
FAULT = Mutant("noise", 30, 0, 30, 1, "a", "b")
NEAR, FAR, ELSE = "tests/core/test_noise.py", "tests/core/test_losses.py", "tests/core/test_peft.py"


# --- faults --------------------------------------------------------------------------------------


def test_every_fault_is_one_change_that_still_parses():
    found = mutants_of(SOURCE, "m")
    changed = [mutant.applied(SOURCE) for mutant in found]
    assert len({ast.dump(ast.parse(text)) for text in [SOURCE, *changed]}) == 1 + len(found)
    assert {(mutant.line, mutant.after) for mutant in found if mutant.line != 6} == {
        (7, "pass"),
        (9, "(a * 2)"),
        (9, "(-a)"),
        (9, "(a / 2)"),
        (9, "(3)"),
        (9, "(a)"),
    }
    conditions = {m.after.splitlines()[0] for m in found if m.line == 6}
    assert conditions == {"if False:", "(a < LIMIT or not a)", "(a <= LIMIT)", "(a)"}


@pytest.mark.wide
def test_faults_of_core_parse():
    for mutant in chosen(100, 0, ["decoding", "losses", "noise", "pipeline_splicing"]):
        ast.parse(mutant.applied((CORE / f"{mutant.module}.py").read_text()))


def test_a_seed_chooses_the_same_ones():
    assert chosen(20, 1, ["noise"]) == chosen(20, 1, ["noise"])
    assert chosen(20, 1, ["noise"]) != chosen(20, 2, ["noise"])
    assert {mutant.module for mutant in chosen(9, 0, ["noise"])} == {"noise"}


# --- which tests ---------------------------------------------------------------------------------


def test_a_module_has_its_tests():
    assert files_that_test("noise")[:1] == [NEAR]
    assert "tests/core/test_decoding.py" in files_that_test("decoding_turn")


@pytest.fixture
def reached(tmp_path):
    """Line 30 of noise is reached by two tests, line 40 by imports, and elsewhere by one more."""
    made = Reached(tmp_path / "report.coverage")
    made.lines = {"noise": {30: [f"{FAR}::b", f"{NEAR}::b", f"{NEAR}::a"], 40: [""]}}
    made.reach = Counter({f"{NEAR}::b": 5, f"{NEAR}::a": 9, f"{FAR}::b": 1, f"{ELSE}::c": 1})
    return made


def test_tests_of_the_module_come_first_and_those_that_reach_little(reached):
    jobs = list(reached.jobs("noise", range(30, 31), range(0), everything=False))
    assert jobs == [Job([NEAR], [f"{NEAR}::b", f"{NEAR}::a"]), Job([FAR], [f"{FAR}::b"])]


def test_all_means_those_that_do_not_reach_it_too(reached):
    jobs = list(reached.jobs("noise", range(30, 31), range(0), everything=True))
    assert jobs[2:] == [Job([ELSE], [f"{ELSE}::c"])]


def test_a_line_without_a_trace_is_reached_by_what_reaches_its_function(reached):
    (near, far) = reached.jobs("noise", range(31, 32), range(28, 35), everything=False)
    assert (near.files, far.files) == ([NEAR], [FAR])


@pytest.mark.parametrize("line", [40, 50])
def test_a_line_that_imports_reach_or_nothing_is_tried_on_the_tests_of_the_module(reached, line):
    (job,) = reached.jobs("noise", range(line, line + 1), range(0), everything=False)
    assert job == Job(files_that_test("noise"))


# --- trying them ---------------------------------------------------------------------------------


class Played:
    """A server that answers what it was told to, and notes what it was asked."""

    def __init__(self, *answers):
        self.tree, self.answers, self.asked = ROOT, list(answers), []

    @contextlib.contextmanager
    def changed(self, name, text):
        assert name == "hf_maskgit/core/noise.py"
        assert text == FAULT.applied((ROOT / name).read_text())
        yield

    def ask(self, job):
        self.asked.append(job.files)
        return self.answers.pop(0)


@pytest.mark.parametrize(
    ("answers", "verdict", "by"),
    [
        ([Outcome(1, ["x"])], "killed", "x"),
        ([Outcome(0), Outcome(1, ["y"])], "killed", "y"),
        ([Outcome(-11)], "killed", "exit -11"),
        ([Outcome(0), Outcome(OUT_OF_TIME)], "timeout", f"exit {OUT_OF_TIME}"),
        ([Outcome(0), Outcome(0)], "alive", ""),
    ],
)
def test_tests_run_until_one_notices(reached, answers, verdict, by):
    server = Played(*answers)
    line = tried(server, reached, FAULT, everything=False)
    assert (line["verdict"], line["by"], line["module"]) == (verdict, by, "noise")
    assert server.asked == [[NEAR], [FAR]][: len(answers)]
    assert server.answers == []


def test_a_copy_has_another_text_for_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(mutant_server, "_tracked", lambda root: ["a/b.py"])
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.py").write_text("1")
    with contextlib.closing(Copy(tmp_path)) as copy:
        path, times = copy.tree / "a" / "b.py", set()
        before = path.stat().st_mtime_ns
        for text in ("2", "3"):
            with copy.changed("a/b.py", text):
                assert path.read_text() == text
                times.add(path.stat().st_mtime_ns)
            assert (path.read_text(), path.stat().st_mtime_ns) == ("1", before)
        assert len(times | {before}) == 3  # else Python would take one text's bytecode for another
    assert not copy.tree.exists()
    assert (tmp_path / "a" / "b.py").read_text() == "1"


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A file of tests."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "test_of_ours.py"
    path.write_text(
        "def test_a():\n    assert True\n\n\ndef test_b():\n    assert False\n\n\n"
        "def test_c():\n    while True:\n        pass\n"
    )
    return path.name


@pytest.mark.wide
def test_a_fork_tells_what_failed(written):
    names = [f"{written}::test_b", f"{written}::test_a"]
    assert run(Job([written], names, stop=False)) == Outcome(1, names[:1], 1)


@pytest.mark.slow
def test_a_test_that_never_ends_is_ended(written, monkeypatch):
    monkeypatch.setattr(mutant_server, "CPU_SECONDS", 1)
    assert run(Job([written], [f"{written}::test_c"])) == Outcome(OUT_OF_TIME)


# --- the report ----------------------------------------------------------------------------------


def test_a_fault_is_shown_by_the_lines_it_changes():
    shown = {mutant.shown(SOURCE) for mutant in mutants_of(SOURCE, "m")}
    assert ('log("1")', "pass") in shown
    assert ("if a < LIMIT and not a:", "if (a <= LIMIT) and not a:") in shown
    assert (
        'if a < LIMIT and not a: log("1") raise ValueError(f"{a + 1}")',
        "if False: log('1') raise ValueError(f'{a + 1}')",
    ) in shown


def test_the_report_names_what_lives(monkeypatch):
    line = {"module": "noise", "line": 3, "was": "if a < b:", "becomes": "if (a <= b):"}
    lines = [{**line, "verdict": "alive"}, {**line, "verdict": "killed"}]
    rows = [
        "1 of 2 mutants were noticed (50.0%).",
        "alive: core/noise.py, line 3",
        "    - if a < b:",
        "    + if (a <= b):",
    ]
    assert report_of(lines).splitlines() == rows
    reason = {("noise", "if a < b:", "if (a <= b):"): "They are never equal."}
    monkeypatch.setattr("tests.support.mutants.EXPLAINED", reason)
    rows = [row.replace("alive", "explained") for row in rows] + ["    They are never equal."]
    assert report_of(lines).splitlines() == rows


def test_what_was_said_last_of_a_mutant_counts(tmp_path):
    report = tmp_path / "report.jsonl"
    assert lines_of(report) == {}
    said = [{**vars(FAULT), "verdict": verdict} for verdict in ("alive", "killed")]
    report.write_text("".join(json.dumps(line) + "\n" for line in said))
    assert lines_of(report) == {FAULT: said[1]}


@pytest.mark.parametrize("module", sorted({row[0] for row in EXPLAINED}))
def test_an_explained_fault_is_one_of_core_as_it_is(module):
    """A reason that outlives its lines of core would explain another fault."""
    source = (CORE / f"{module}.py").read_text()
    possible = {(module, *mutant.shown(source)) for mutant in mutants_of(source, module)}
    gone = {row for row in EXPLAINED if row[0] == module} - possible
    assert not gone, "Take these rows out of mutants_explained.py: their lines have changed."
