"""What `import hf_maskgit` shows, and what it does not load for it."""

import ast
import importlib
import json
import subprocess
import sys

import pytest

import hf_maskgit
from tests.support.project import PACKAGE

OURS = {"hf_maskgit", "hf_maskgit.import_hooks", "hf_maskgit.registration"}
FOLDERS = ("core", "evaluation", "patterns", "training")  # those that were always there

WHAT_IS_ADDED = """
import json, sys
import transformers

before = set(sys.modules)
import hf_maskgit

print(json.dumps(sorted(set(sys.modules) - before)))
"""


@pytest.mark.wide
def test_the_import_loads_itself_alone_and_of_transformers_what_that_does_itself():
    """No model, no pipeline, no torch: `-X importtime` would tell of seconds, this of modules."""
    command = [sys.executable, "-c", WHAT_IS_ADDED]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    added = set(json.loads(done.stdout))
    others = {name for name in added if name.split(".")[0] not in sys.stdlib_module_names}
    assert others == OURS


def homes_told_to_type_checkers():
    (block,) = (
        node
        for node in ast.parse((PACKAGE / "__init__.py").read_text()).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    return {
        alias.name: node.module
        for node in block.body
        for alias in node.names
        if node.module is not None
    }


def test_each_name_has_one_home_for_python_and_for_type_checkers():
    assert homes_told_to_type_checkers() == hf_maskgit._HOMES
    assert sorted(hf_maskgit._HOMES) == hf_maskgit.__all__


@pytest.mark.parametrize("name", hf_maskgit.__all__)
def test_a_name_is_what_its_home_defines(name):
    home = importlib.import_module(f"hf_maskgit.{hf_maskgit._HOMES[name]}")
    found = getattr(hf_maskgit, name)
    assert found is getattr(home, name)
    assert found.__module__ == home.__name__


def test_a_name_is_looked_up_once(monkeypatch):
    monkeypatch.delattr(hf_maskgit, "nelbo", raising=False)
    found = hf_maskgit.nelbo
    assert vars(hf_maskgit)["nelbo"] is found


def test_all_names_are_imported_by_a_star():
    names = {}
    exec("from hf_maskgit import *", names)
    assert set(hf_maskgit.__all__) <= set(names)


def test_what_there_is_is_listed_before_it_is_loaded():
    modules = {path.stem for path in PACKAGE.iterdir() if path.suffix in ("", ".py")}
    shown = {name for name in modules if not name.startswith("__")}
    assert shown | set(hf_maskgit.__all__) | {"__version__", "__all__"} <= set(dir(hf_maskgit))


@pytest.mark.parametrize("folder", FOLDERS)
def test_modules_are_attributes_of_their_folders_without_an_import(monkeypatch, folder):
    package = importlib.import_module(f"hf_maskgit.{folder}")
    for path in sorted((PACKAGE / folder).glob("[a-z]*.py"))[::12]:
        module = importlib.import_module(f"hf_maskgit.{folder}.{path.stem}")
        if vars(package).get(path.stem) is module:  # and no function of that name
            monkeypatch.delattr(package, path.stem)
            assert getattr(getattr(hf_maskgit, folder), path.stem) is module


@pytest.mark.parametrize("where", ["hf_maskgit", *(f"hf_maskgit.{name}" for name in FOLDERS)])
@pytest.mark.parametrize("name", ["nothing", "_private", "__wrapped__"])
def test_what_there_is_not_is_missed_as_in_any_module(where, name):
    package = importlib.import_module(where)
    assert not hasattr(package, name)
    with pytest.raises(AttributeError, match=f"module '{where}' has no attribute '{name}'"):
        getattr(package, name)
    with pytest.raises(ImportError, match=f"cannot import name '{name}' from '{where}'"):
        exec(f"from {where} import {name}")


def test_the_module_of_the_model_has_its_old_name_too(monkeypatch):
    core = importlib.import_module("hf_maskgit.core.modeling_maskgit")
    assert importlib.import_module("hf_maskgit.modeling_maskgit") is core
    monkeypatch.delattr(hf_maskgit, "modeling_maskgit")
    assert hf_maskgit.modeling_maskgit is core
