"""Counts what the shape of the library is held to: folders, functions, files, choices, comments.

    python -m tests.support.measures [root]

prints the numbers of any checkout, this one where no other is named; tests/test_project.py holds
the limits. Only text is read and nothing imported, so that two checkouts can be compared.
"""

import ast
import functools
import graphlib
import io
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.support.project import ROOT, imports_of

CHOICES = {"order", "pace", "remask", "p2_planner"}  # the sampler's, whose values are names
COMPARING = {"get", "startswith", "endswith", "index", "count"}  # methods that look at a name
SHOWN = 5  # how many of the longest are listed

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Lines:
    """The lines of a file by what they hold, as numbers from 1; a line may be in two sets.

    Attributes:
        code: lines with a token of code, docstrings excluded.
        comments: lines with a comment, beside code or alone.
        docstrings: lines of docstrings.
        total: how many lines the file has.
    """

    code: frozenset[int]
    comments: frozenset[int]
    docstrings: frozenset[int]
    total: int


@dataclass(frozen=True)
class Function:
    """A function and how many lines of code it has, its signature included."""

    path: Path
    name: str
    code_lines: int


def sources(*folders: Path) -> list[Path]:
    """Every module below the folders, in a fixed order."""
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def lines_of(path: Path) -> Lines:
    """Sort the lines of a file."""
    return _sorted_lines(path.read_text(encoding="utf-8"))


@functools.cache  # every measure of a file asks for them
def _sorted_lines(text: str) -> Lines:
    docstrings = frozenset(
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, Definition | ast.Module) and (doc := docstring_of(node)) is not None
        for line in range(doc.lineno, (doc.end_lineno or doc.lineno) + 1)
    )
    code, comments = set[int](), set[int]()
    layout = {tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            comments.add(token.start[0])
        elif token.type not in layout:
            code.update(range(token.start[0], token.end[0] + 1))
    return Lines(
        frozenset(code) - docstrings, frozenset(comments), docstrings, len(text.splitlines())
    )


def docstring_of(node: Definition | ast.Module) -> ast.expr | None:
    """The expression that is a node's docstring."""
    first = node.body[0] if node.body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        return first.value if isinstance(first.value.value, str) else None
    return None


def functions_of(path: Path) -> list[Function]:
    """Every function of a file by its dotted name; an inner one counts in the outer one too."""
    code = lines_of(path).code

    def visit(node: ast.AST, before: str) -> Iterator[Function]:
        for child in ast.iter_child_nodes(node):
            name = f"{before}{child.name}" if isinstance(child, Definition) else before
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                span = range(child.lineno, (child.end_lineno or child.lineno) + 1)
                yield Function(path, name, len(code.intersection(span)))
            yield from visit(child, f"{name}." if isinstance(child, Definition) else before)

    return list(visit(ast.parse(path.read_text(encoding="utf-8")), ""))


def comment_share(paths: list[Path]) -> float:
    """Lines with a comment by lines of code, over all files."""
    lines = [lines_of(path) for path in paths]
    return sum(len(x.comments) for x in lines) / sum(len(x.code) for x in lines)


def tests_on_names(path: Path) -> list[int]:
    """Lines where the value of a choice is compared with a name, or with a set of names.

    That is `==`, `!=`, `in` and `not in` between one of `CHOICES` (a variable, an attribute or an
    entry of that name) and a string, several, or a constant in capitals; and the methods that look
    at a name, such as `order.startswith("remdm")` and `{"remdm_cap": ...}.get(remask)`. What is
    compared with None, or with another variable, asks for no name. A line counts once for each.
    """
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            pairs = pairwise(sides)
            found += [node.lineno for a, b in pairs if _asks(a, b) or _asks(b, a)]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            method, owner = node.func.attr, node.func.value
            sides = [owner, *node.args]
            if method in COMPARING and any(_asks(a, b) for a in sides for b in sides):
                found.append(node.lineno)
        elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Dict):
            found += [node.lineno] * _asks(node.slice, node.value)
    return sorted(found)


def _asks(choice: ast.expr, names: ast.expr) -> bool:
    return _is_choice(choice) and _is_names(names)


def _is_choice(node: ast.expr) -> bool:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name in CHOICES
        case ast.Subscript(slice=ast.Constant(value=name)):
            return name in CHOICES
    return False


def _is_names(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=value):
            return isinstance(value, str)
        case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
            return any(_is_names(part) for part in parts)
        case ast.Dict(keys=keys):
            return any(key is not None and _is_names(key) for key in keys)
        case ast.Starred(value=value):
            return _is_names(value)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name.isupper()
    return False


def circle_of(package: Path) -> list[str]:
    """The modules of a circle of imports, by dotted name; empty where there is none."""
    names = {path: _dotted(path, package) for path in sources(package)}
    graph: dict[str, set[str]] = {}
    for path, name in names.items():
        inside = name if path.name == "__init__.py" else name.rpartition(".")[0]
        graph[name] = set()
        for imported in imports_of(path):
            target = imported.module
            if imported.dots:
                above = inside.split(".")[: len(inside.split(".")) + 1 - imported.dots]
                target = ".".join([*above, *filter(None, [target])])
            # `from .a import b` means the module a.b where there is one, else the module a
            modules = {f"{target}.{name}" for name in imported.names} & set(names.values())
            graph[name] |= (modules or {target} & set(names.values())) - {name}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def _dotted(path: Path, package: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def report(root: Path) -> list[str]:
    """The numbers of a checkout, one sentence each."""
    package, scripts = root / "hf_maskgit", root / "scripts"
    paths = sources(package)
    core = sources(package / "core")
    functions = sorted(
        (f for path in sources(package, scripts) for f in functions_of(path)),
        key=lambda function: -function.code_lines,
    )
    files = sorted(sources(package, scripts), key=lambda path: -lines_of(path).total)
    on_names = {path: len(found) for path in paths if (found := tests_on_names(path))}
    lines = [lines_of(path) for path in paths]
    code = sum(len(x.code) for x in lines)
    docstrings = sum(len(x.docstrings) for x in lines)

    def place(path: Path) -> str:
        return path.relative_to(root).as_posix()

    return [
        f"modules in the package's own folder: {len(list(package.glob('*.py')))} of {len(paths)}",
        f"tests on names of choices: {sum(on_names.values())}",
        *(f"  {place(path)}: {count}" for path, count in on_names.items()),
        "longest functions, in lines of code:",
        *(f"  {place(f.path)}: {f.name}: {f.code_lines}" for f in functions[:SHOWN]),
        *(
            f"  {f.name}: {f.code_lines}"
            for f in functions
            if f.name in ("MaskGitGenerationMixin.generate", "MaskGitForMaskedLM.forward")
        ),
        "longest files, in lines:",
        *(f"  {place(path)}: {lines_of(path).total}" for path in files[:SHOWN]),
        f"lines: {sum(x.total for x in lines)}, of code: {code}",
        f"comments by code: {comment_share(paths):.1%}"
        + (f", in core: {comment_share(core):.1%}" if core else ""),
        f"docstrings by code: {docstrings / code:.1%}",
        f"circle of imports: {' <- '.join(circle_of(package)) or 'none'}",
    ]


def main() -> None:
    """Print the report on the checkout that is named, or on this one."""
    root = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT
    sys.stdout.writelines(f"{line}\n" for line in report(root))


if __name__ == "__main__":
    main()
