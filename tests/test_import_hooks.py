"""What is done behind an import, on small modules of the test's own."""

import importlib
import importlib.machinery
import importlib.util
import itertools
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.abc import MetaPathFinder

import pytest

from hf_maskgit.import_hooks import after_import

NUMBERS = itertools.count()


@pytest.fixture
def module_of(tmp_path, monkeypatch):
    """Write a module that no test had before; after the test it is forgotten."""
    monkeypatch.syspath_prepend(tmp_path)
    names = []

    def write(source="value = 1", package=""):
        name = f"hooked_{next(NUMBERS)}"
        folder = tmp_path / package
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.py").write_text(source)
        importlib.invalidate_caches()
        full = f"{package}.{name}" if package else name
        names.extend([full, package])
        return full

    yield write
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def done():
    return []


def noting(done):
    return lambda module: done.append((module.__name__, module.value))


def test_it_is_done_behind_the_module_s_own_code_and_not_before(module_of, done):
    name = module_of("value = 1\nvalue = 2")
    after_import(name, noting(done))
    assert (done, name in sys.modules) == ([], False)
    module = importlib.import_module(name)
    assert done == [(name, 2)]
    assert module.value == 2


def test_it_is_done_at_once_to_a_module_that_is_there(module_of, done):
    name = module_of()
    importlib.import_module(name)
    after_import(name, noting(done))
    assert done == [(name, 1)]


def test_neither_the_module_nor_its_package_is_imported_for_it(module_of, done):
    name = module_of(package=f"package_{next(NUMBERS)}")
    after_import(name, noting(done))
    assert not {name, name.split(".")[0]} & set(sys.modules)
    importlib.import_module(name)
    assert done == [(name, 1)]


def test_it_is_done_again_when_the_module_is_reloaded(module_of, done):
    name = module_of()
    after_import(name, noting(done))
    importlib.reload(importlib.import_module(name))
    assert done == [(name, 1)] * 2


def test_what_is_said_last_counts(module_of, done):
    name = module_of()
    after_import(name, lambda module: done.append("first"))
    after_import(name, noting(done))
    importlib.import_module(name)
    assert done == [(name, 1)]


def test_it_is_not_done_to_a_module_that_fails(module_of, done, tmp_path):
    name = module_of("raise RuntimeError('broken')")
    after_import(name, noting(done))
    with pytest.raises(RuntimeError, match="broken"):
        importlib.import_module(name)
    assert done == []
    (tmp_path / f"{name}.py").write_text("value = 3  # mended")
    importlib.invalidate_caches()
    importlib.import_module(name)
    assert done == [(name, 3)]


def test_what_it_raises_the_import_raises(module_of):
    def fail(module):
        raise RuntimeError("no such table")

    name = module_of()
    after_import(name, fail)
    with pytest.raises(RuntimeError, match="no such table"):
        importlib.import_module(name)
    assert name not in sys.modules


def test_looking_for_a_module_does_nothing_and_finds_what_is_found_without(module_of, done):
    name = module_of()
    before = importlib.util.find_spec(name)
    after_import(name, noting(done))
    spec = importlib.util.find_spec(name)
    assert done == []
    assert type(spec.loader) is importlib.machinery.SourceFileLoader
    assert (spec.origin, spec.loader.get_source(name)) == (before.origin, "value = 1")


def test_a_module_that_does_not_exist_is_missed_as_ever(done):
    after_import("hooked_nowhere", noting(done))
    assert importlib.util.find_spec("hooked_nowhere") is None
    with pytest.raises(ModuleNotFoundError, match="No module named 'hooked_nowhere'"):
        importlib.import_module("hooked_nowhere")
    assert done == []


@pytest.mark.parametrize("first", [True, False])
def test_others_may_have_something_done_behind_the_same_import(module_of, done, monkeypatch, first):
    """Their finders ask all finders, ours among them, for what they then wrap."""

    class Theirs(MetaPathFinder):
        asking = False

        def find_spec(self, fullname, path, target=None):
            if fullname != name or self.asking:
                return None
            self.asking = True
            spec = importlib.util.find_spec(fullname)
            self.asking = False
            run = spec.loader.exec_module
            spec.loader.exec_module = lambda module: (run(module), done.append("theirs"))
            return spec

    name = module_of()
    after_import(name, noting(done))
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    sys.meta_path.insert(0 if first else 1, Theirs())
    importlib.import_module(name)
    assert "theirs" in done
    assert (name, 1) in done


def test_of_many_threads_none_sees_the_module_before_it_is_done(module_of, done):
    name = module_of("import time\ntime.sleep(0.05)\nvalue = 1")
    after_import(name, noting(done))
    start = threading.Barrier(8)

    def seen(_):
        start.wait()
        importlib.import_module(name)
        return list(done)

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(seen, range(8))) == [[(name, 1)]] * 8


@pytest.mark.parametrize("held_in", ["its code", "the search for it"])
def test_an_import_that_another_thread_has_begun_is_waited_for(
    module_of, done, monkeypatch, held_in
):
    held, go_on = threading.Event(), threading.Event()

    class Slow(MetaPathFinder):
        def find_spec(self, fullname, path, target=None):
            if fullname == name and held_in == "the search for it":
                held.set()
                go_on.wait(30)

    monkeypatch.setattr(sys, "held", (held, go_on), raising=False)
    name = module_of(
        "import sys\nheld, go_on = sys.held\nheld.set()\ngo_on.wait(30)\nvalue = 1"
        if held_in == "its code"
        else "value = 1"
    )
    after_import("hooked_nowhere", noting(done))  # so that the finder is there, and before Slow
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    sys.meta_path.insert(1, Slow())
    with ThreadPoolExecutor(2) as threads:
        importing = threads.submit(importlib.import_module, name)
        assert held.wait(30)
        told = threads.submit(after_import, name, noting(done))
        assert done == []
        go_on.set()
        told.result()
        importing.result()
    assert done == [(name, 1)]
