"""Figures as JSON that every reader takes, in every program."""

import ast
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_maskgit.evaluation.figures import figures_text
from tests.support.project import ROOT

FIGURES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def refuse(word):
    raise AssertionError(f"{word} is no JSON")


def same(read, figures):
    if isinstance(figures, dict):
        return read.keys() == figures.keys() and all(same(read[k], figures[k]) for k in figures)
    if isinstance(figures, list):
        return len(read) == len(figures) and all(map(same, read, figures))
    if isinstance(figures, float) and not math.isfinite(figures):
        return read is None
    return read == figures and type(read) is type(figures)


@pytest.mark.wide
@given(FIGURES)
def test_what_is_written_is_json_and_reads_back_with_null_for_what_is_no_number(figures):
    read = json.loads(figures_text(figures), parse_constant=refuse)
    assert same(read, figures)


def test_tuples_are_lists_at_any_depth():
    assert json.loads(figures_text({"a": (1.0, (math.nan,))})) == {"a": [1.0, [None]]}


def test_every_program_writes_its_figures_so():
    """Files that are laid out for people; lines that a program reads again itself are its own."""
    left = []
    for path in sorted((ROOT / "scripts").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "json.dumps":
                names = {word.arg for word in node.keywords}
                if "indent" in names:
                    left.append(f"{path.name}, line {node.lineno}")
    # the configuration of an encoder, which is read as such
    assert [one for one in left if not one.startswith("prepare_molecules.py")] == []
