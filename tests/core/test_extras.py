"""Packages that only some need: the sentence, and that each extra is one of the project's."""

import ast
import tomllib

import pytest

from hf_maskgit.core.extras import needs
from tests.support.project import PACKAGE, ROOT

SOURCES = [*PACKAGE.rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]


def test_a_missing_package_is_named_with_what_brings_it():
    told = "Dots {a} need 'nowhere_at_all', which is not installed: pip install 'hf_maskgit[x]', or"
    with (
        pytest.raises(ImportError) as refused,
        needs("Dots {a} need {package}", "x", ", or draw none"),
    ):
        import nowhere_at_all  # noqa: F401
    assert str(refused.value) == f"{told} draw none."
    assert refused.value.name == "nowhere_at_all"


def test_what_else_goes_wrong_is_left_alone():
    with pytest.raises(ZeroDivisionError), needs("Nothing", "x"):
        _ = 1 / 0


def _extras_asked_for():
    """What the files ask for: the second argument of every `needs` that is written down there."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "needs":
                extra = node.args[1] if len(node.args) > 1 else None
                if isinstance(extra, ast.Constant):
                    yield path.name, extra.value


def test_every_extra_is_one_of_the_project():
    asked = {*_extras_asked_for()}  # a file may ask for several
    assert len(asked) > 12
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {(name, extra) for name, extra in asked if extra not in known} == set()
