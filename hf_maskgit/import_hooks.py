"""What is to be done as soon as a module has been imported, without importing it."""

import sys
import threading
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["after_import"]


class _NotImported(ModuleNotFoundError):
    """A module that a thread asked for only if it is there."""


class _Finder(MetaPathFinder):
    """Finds what the other finders find, and has something done behind a module's own code."""

    def __init__(self) -> None:
        self.actions: dict[str, Callable[[ModuleType], None]] = {}
        self._here = threading.local()  # what this thread looks for at the moment

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        asked = getattr(self._here, "asked", "")
        if asked == fullname or asked.startswith(f"{fullname}."):
            raise _NotImported(f"{fullname} has not been imported.", name=fullname)
        if fullname not in self.actions or getattr(self._here, "searching", False):
            return None
        self._here.searching = True  # a finder may ask all finders, as those of hooks do
        try:
            others = (finder for finder in list(sys.meta_path) if finder is not self)
            found = (finder.find_spec(fullname, path, target) for finder in others)
            spec = next((spec for spec in found if spec is not None), None)
        finally:
            self._here.searching = False
        if spec is not None and spec.loader is not None:
            self._add_action(spec.loader, fullname)
        return spec

    def _add_action(self, loader: object, fullname: str) -> None:
        # The loader stays what it is, since others ask it for sources and data.
        run = loader.exec_module  # type: ignore[attr-defined]

        def exec_module(module: ModuleType) -> None:
            run(module)
            if module.__name__ == fullname:  # some loaders load every module of an archive
                self.actions[fullname](module)

        loader.exec_module = exec_module  # type: ignore[attr-defined]

    def imported(self, fullname: str) -> ModuleType | None:
        """Return a module that is there; where another thread is importing it, wait for it."""
        self._here.asked = fullname
        try:
            return import_module(fullname)
        except _NotImported:
            return None
        finally:
            self._here.asked = ""


_FINDER = _Finder()


def after_import(fullname: str, action: Callable[[ModuleType], None]) -> None:
    """Have something done to a module when its import ends, and each time that it is reloaded.

    The action is part of the import: other threads that import the module wait for it, and what it
    raises the import raises. Where the module has been imported already, it is done at once.

    Args:
        fullname: the module. It has one action: another takes its place.
        action: gets the module. It may be done several times.
    """
    _FINDER.actions[fullname] = action
    # Found first, and looked for second: an import that begins in between is seen by either.
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    module = _FINDER.imported(fullname)
    if module is not None:
        action(module)
