"""A mutation sweep over core: small faults put in one by one, and whether a test notices.

    python -m tests.support.mutants report.jsonl --count 200 --seed 0
    python -m tests.support.mutants report.jsonl --count 40 --modules decoding_turn finite

Each mutant is one change of one place (a comparison, an operator, a constant, a condition, a
statement left out), chosen with a fixed seed and written into a copy of the checkout, never into
the checkout itself. The tests of its module run until one fails; a mutant that lives is tried on
all of `tests/core` with `--all`. Every result is a line of the report, and a sweep that was stopped
goes on behind the last one.
"""

import argparse
import ast
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.support.project import PACKAGE, ROOT

CORE = PACKAGE / "core"
LONGEST_RUN = 300  # seconds; a mutant that never ends is noticed too
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
_SWAPPED: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        module: name of the file in core, without its ending.
        line, column: where, from 1 and from 0.
        end_line, end_column: where the changed piece ends.
        before, after: the piece as it is, and with the fault.
    """

    module: str
    line: int
    column: int
    end_line: int
    end_column: int
    before: str
    after: str

    def applied(self, source: str) -> str:
        """Return the source with the fault in it."""
        lines = source.encode().splitlines(keepends=True)  # columns of `ast` count bytes
        head = lines[self.line - 1][: self.column]
        tail = lines[self.end_line - 1][self.end_column :]
        changed = [head, self.after.encode(), tail]
        return b"".join(lines[: self.line - 1] + changed + lines[self.end_line :]).decode()


def mutants_of(source: str, module: str) -> list[Mutant]:
    """List every fault that can be put into a source, in its order.

    Messages, docstrings, type hints and what stands outside functions are left alone: what they
    say is held by other tests, or by none.
    """
    found, lines = [], source.encode().splitlines(keepends=True)
    for function in _functions(ast.parse(source)):
        for node in _nodes(function.body):
            for after in _changes(node):
                # `unparse` writes a piece anew: as an operand it needs its brackets.
                text = f"({after})" if isinstance(node, ast.expr) else after
                end = (node.end_lineno or node.lineno, node.end_col_offset or 0)
                place = (node.lineno, node.col_offset, *end)
                found.append(Mutant(module, *place, _piece(lines, *place), text))
    return sorted(found, key=lambda m: (m.line, m.column, m.after))


def _piece(lines: list[bytes], line: int, column: int, end_line: int, end_column: int) -> str:
    piece = [*lines[line - 1 : end_line]]
    piece[-1] = piece[-1][:end_column]
    piece[0] = piece[0][column:]
    return b"".join(piece).decode()


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    """Yield functions and methods; those within others are parts of theirs."""
    holders: list[ast.AST] = [tree]
    while holders:
        for node in ast.iter_child_nodes(holders.pop()):
            if isinstance(node, ast.FunctionDef):
                yield node
            elif isinstance(node, ast.ClassDef):
                holders.append(node)


def _nodes(body: list[ast.stmt]) -> Iterator[ast.stmt | ast.expr]:
    """Yield what may be changed of some statements."""
    waiting: list[ast.AST] = [*body]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Raise | ast.JoinedStr | ast.arguments):
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue  # a docstring
        if isinstance(node, ast.stmt | ast.expr):
            yield node
        for name, value in ast.iter_fields(node):
            if name not in ("annotation", "returns", "decorator_list"):
                children = value if isinstance(value, list) else [value]
                waiting.extend(child for child in children if isinstance(child, ast.AST))


def _changes(node: ast.AST) -> Iterator[str]:
    """Yield the faulty versions of a node."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _SWAPPED:
        swapped = [_SWAPPED[type(node.ops[0])](), *node.ops[1:]]
        yield ast.unparse(ast.Compare(node.left, swapped, node.comparators))
    elif isinstance(node, ast.BinOp) and type(node.op) in _SWAPPED:
        yield ast.unparse(ast.BinOp(node.left, _SWAPPED[type(node.op)](), node.right))
    elif isinstance(node, ast.BoolOp):
        yield ast.unparse(ast.BoolOp(_SWAPPED[type(node.op)](), node.values))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.Invert | ast.USub):
        yield ast.unparse(node.operand)
    elif isinstance(node, ast.IfExp):
        yield ast.unparse(node.body)
        yield ast.unparse(node.orelse)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield str(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield str(node.value + 1)
    elif isinstance(node, ast.If):
        yield ast.unparse(ast.If(ast.Constant(False), node.body, node.orelse)).replace(
            "\n", "\n" + " " * node.col_offset
        )
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "pass"


def files_that_test(module: str) -> list[str]:
    """Name the test files of a module of core, by their paths in the checkout."""
    names = {f"test_{module}", *ELSEWHERE.get(module, [])}
    importing = re.compile(rf"\bcore\.{module}\b|core import .*\b{module}\b")
    found = [
        path
        for path in sorted((ROOT / "tests" / "core").glob("test_*.py"))
        if path.stem in names or importing.search(path.read_text())
    ]
    return [path.relative_to(ROOT).as_posix() for path in found]


def chosen(count: int, seed: int, modules: list[str]) -> list[Mutant]:
    """Choose mutants of these modules, of all of core where none is named."""
    paths = [path for path in sorted(CORE.glob("*.py")) if not modules or path.stem in modules]
    every = [mutant for path in paths for mutant in mutants_of(path.read_text(), path.stem)]
    return random.Random(seed).sample(every, min(count, len(every)))


def verdict(tree: Path, mutant: Mutant, tests: list[str]) -> str:
    """Run tests on a mutant in a copy of the checkout: "killed", "timeout" or "alive"."""
    path = tree / "hf_maskgit" / "core" / f"{mutant.module}.py"
    source = path.read_text()
    path.write_text(mutant.applied(source))
    command = ["-m", "pytest", "-q", "-x", "-m", "not slow", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tree,
            env=environment,
            capture_output=True,
            timeout=LONGEST_RUN,
        )
    except subprocess.TimeoutExpired:
        return "timeout"
    finally:
        path.write_text(source)
    return "alive" if done.returncode == 0 else "killed"


def copy_of_checkout(folder: Path) -> None:
    """Copy what git knows of the checkout, as it lies there."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())


def report_of(lines: list[dict[str, object]]) -> str:
    """Say how many were noticed, and name those that live."""
    living = [line for line in lines if line["verdict"] == "alive"]
    share = 1 - len(living) / len(lines) if lines else 0.0
    rows = [f"{len(lines) - len(living)} of {len(lines)} mutants were noticed ({share:.1%})."]
    for line in living:
        before, after = (" ".join(str(line[name]).split())[:80] for name in ("before", "after"))
        rows.append(f"alive: core/{line['module']}.py, line {line['line']}: {before} -> {after}")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--modules", nargs="*", default=[])
    parser.add_argument("--minutes", type=float, default=float("inf"), help="Stop after these.")
    parser.add_argument("--all", action="store_true", help="Try those that live on all of core.")
    options = parser.parse_args()
    report: Path = options.report
    lines = [json.loads(row) for row in report.read_text().splitlines()] if report.exists() else []
    known = [{key: line[key] for key in Mutant.__annotations__} for line in lines]
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        copy_of_checkout(tree)
        for mutant in chosen(options.count, options.seed, options.modules):
            if asdict(mutant) in known:
                continue
            if time.monotonic() - start > 60 * options.minutes:
                break
            tests = files_that_test(mutant.module) or ["tests/core"]
            found = verdict(tree, mutant, tests)
            if found == "alive" and options.all:
                found = verdict(tree, mutant, ["tests/core"])
            lines.append({**asdict(mutant), "verdict": found})
            with report.open("a") as file:
                file.write(json.dumps(lines[-1]) + "\n")
            sys.stdout.write(f"{found}: core/{mutant.module}.py, line {mutant.line}\n")
            sys.stdout.flush()
    sys.stdout.write(report_of(lines) + "\n")


if __name__ == "__main__":
    main()
