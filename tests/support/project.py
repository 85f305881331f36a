"""Where the project lies, and what its modules import."""

import ast
import functools
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "hf_maskgit"
CARRIED = {path.stem for path in (PACKAGE / "core").glob("*.py")} - {"__init__"}


class Import(NamedTuple):
    """One imported module as written: `from ..a.b import c` is (2, "a.b", ("c",), line)."""

    dots: int
    module: str
    names: tuple[str, ...]
    line: int


def imports_of(path: Path) -> list[Import]:
    """Every import in the file, those inside functions, `try` and `if TYPE_CHECKING` included."""
    return list(_imports_in(path.read_text()))


@functools.cache  # checkpoints with code hold the same files again and again
def _imports_in(source: str) -> tuple[Import, ...]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [Import(0, alias.name, (), node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = tuple(alias.name for alias in node.names)
            found.append(Import(node.level, node.module or "", names, node.lineno))
    return tuple(found)
