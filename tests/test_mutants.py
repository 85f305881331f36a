"""The mutation sweep: which faults it makes, and what it leaves alone."""

import ast

from tests.support.mutants import CORE, chosen, files_that_test, mutants_of, report_of

SOURCE = '''
LIMIT = 3

def f(a: int = 2) -> int:
    """Docstring."""
    if a < LIMIT and not a:
        log("1")
        raise ValueError(f"{a + 1}")
    return a * 2 if a else -a
'''


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


def test_faults_of_core_parse():
    for mutant in chosen(100, 0, ["decoding", "losses", "noise", "pipeline_splicing"]):
        ast.parse(mutant.applied((CORE / f"{mutant.module}.py").read_text()))


def test_a_seed_chooses_the_same_ones():
    assert chosen(20, 1, ["noise"]) == chosen(20, 1, ["noise"])
    assert chosen(20, 1, ["noise"]) != chosen(20, 2, ["noise"])
    assert {mutant.module for mutant in chosen(9, 0, ["noise"])} == {"noise"}


def test_a_module_has_its_tests():
    assert files_that_test("noise")[:1] == ["tests/core/test_noise.py"]
    assert "tests/core/test_decoding.py" in files_that_test("decoding_turn")


def test_the_report_names_what_lives():
    line = {"module": "noise", "line": 3, "before": "a <\n b", "after": "(a <= b)"}
    lines = [{**line, "verdict": "alive"}, {**line, "verdict": "killed"}]
    assert report_of(lines).splitlines() == [
        "1 of 2 mutants were noticed (50.0%).",
        "alive: core/noise.py, line 3: a < b -> (a <= b)",
    ]
