"""A mutation sweep over core: small faults put in one by one, and whether a test notices.

    python -m tests.support.mutants report.jsonl --count 200 --seed 0
    python -m tests.support.mutants report.jsonl --count 40 --modules decoding_turn finite

Each mutant is one change of one place (a comparison, an operator, a constant, a condition, a
statement left out), chosen with a fixed seed and written into a copy of the checkout, never into
the checkout itself. Which tests reach which line is measured first and kept beside the report. The
tests that reach a mutant run until one fails, those of its module first; with `--all` the rest of
`tests/core` follows. Every result is a line of the report, and a sweep that was stopped goes on
behind the last one. `--again` tries those that live once more, after a test was added.

Faults that change nothing are listed in `mutants_explained.py`, with the reason.
"""

import argparse
import ast
import contextlib
import json
import random
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.support.mutant_server import OUT_OF_TIME, Outcome, Server
from tests.support.mutant_tests import Reached
from tests.support.mutants_explained import EXPLAINED
from tests.support.project import PACKAGE, ROOT

CORE = PACKAGE / "core"
NO_TESTS = 5  # what pytest says where it ran none
Line = dict[str, Any]
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

    def shown(self, source: str) -> tuple[str, str]:
        """Return the lines it changes, as they are and with the fault, each in one line."""
        behind = len(source.splitlines()) - self.end_line
        whole = source, self.applied(source)
        lines = [text.splitlines() for text in whole]
        pieces = [part[self.line - 1 : len(part) - behind] for part in lines]
        was, becomes = (" ".join(" ".join(piece).split()) for piece in pieces)
        return was, becomes


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


def chosen(count: int, seed: int, modules: list[str]) -> list[Mutant]:
    """Choose mutants of these modules, of all of core where none is named."""
    paths = [path for path in sorted(CORE.glob("*.py")) if not modules or path.stem in modules]
    every = [mutant for path in paths for mutant in mutants_of(path.read_text(), path.stem)]
    return random.Random(seed).sample(every, min(count, len(every)))


def tried(server: Server, reached: Reached, mutant: Mutant, everything: bool) -> Line:
    """Run tests on a mutant until one notices it; return a line of the report."""
    name = f"hf_maskgit/core/{mutant.module}.py"
    source = (server.tree / name).read_text()
    lines, function = range(mutant.line, mutant.line + 1), _function_around(source, mutant.line)
    was, becomes = mutant.shown(source)
    line: Line = {**asdict(mutant), "was": was, "becomes": becomes, "all": everything}
    line |= {"verdict": "alive", "by": ""}
    with server.changed(name, mutant.applied(source)):
        for job in reached.jobs(mutant.module, lines, function, everything):
            outcome = server.ask(job) if job.files else Outcome(0)
            if outcome.code not in (0, NO_TESTS):
                late = outcome.code == OUT_OF_TIME
                return line | {
                    "verdict": "timeout" if late else "killed",
                    "by": (outcome.failed or [f"exit {outcome.code}"])[0],
                }
    return line


def _function_around(source: str, line: int) -> range:
    """Return the lines of the function that holds a line."""
    for function in _functions(ast.parse(source)):
        end = function.end_lineno or function.lineno
        if function.lineno <= line <= end:
            return range(function.body[0].lineno, end + 1)
    return range(0)


def report_of(lines: list[Line]) -> str:
    """Say how many were noticed, and name those that live, with the reason where there is one."""
    living = [line for line in lines if line["verdict"] == "alive"]
    share = 1 - len(living) / len(lines) if lines else 0.0
    rows = [f"{len(lines) - len(living)} of {len(lines)} mutants were noticed ({share:.1%})."]
    for line in living:
        reason = EXPLAINED.get((line["module"], line["was"], line["becomes"]))
        rows.append(
            f"{'explained' if reason else 'alive'}: core/{line['module']}.py, line {line['line']}"
        )
        rows += [f"    - {line['was']}", f"    + {line['becomes']}"]
        rows += [f"    {reason}"] if reason else []
    return "\n".join(rows)


def lines_of(report: Path) -> dict[Mutant, Line]:
    """Read a report; what was said last of a mutant counts."""
    rows = report.read_text().splitlines() if report.exists() else []
    lines: list[Line] = [json.loads(row) for row in rows]
    return {Mutant(**{key: line[key] for key in Mutant.__annotations__}): line for line in lines}


def sweep(report: Path, waiting: list[Mutant], options: argparse.Namespace) -> None:
    """Try mutants, each on the first server that is free, and write what became of them."""
    start, lock = time.monotonic(), threading.Lock()
    reached = Reached(report.with_suffix(".coverage"))

    def work(server: Server) -> None:
        while time.monotonic() - start < 60 * options.minutes:
            with lock:
                if not waiting:
                    return
                mutant = waiting.pop(0)
            line = tried(server, reached, mutant, options.all)
            with lock, report.open("a") as file:
                file.write(json.dumps(line) + "\n")
                sys.stdout.write(
                    f"{line['verdict']}: core/{mutant.module}.py, line {mutant.line} {line['by']}\n"
                )
                sys.stdout.flush()

    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(contextlib.closing(Server(ROOT))) for _ in range(options.workers)
        ]
        reached.renew(servers[0])
        with ThreadPoolExecutor(options.workers) as pool:
            list(pool.map(work, servers))


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--modules", nargs="*", default=[])
    parser.add_argument("--minutes", type=float, default=float("inf"), help="Stop after these.")
    parser.add_argument("--workers", type=int, default=2, help="How many are tried at a time.")
    parser.add_argument("--all", action="store_true", help="Try those that live on all of core.")
    parser.add_argument("--again", action="store_true", help="Try those that live once more.")
    options = parser.parse_args()
    known = lines_of(options.report)
    mutants = chosen(options.count, options.seed, options.modules)
    waiting = [
        mutant
        for mutant in mutants
        if mutant not in known or (options.again and known[mutant]["verdict"] == "alive")
    ]
    if waiting:
        sweep(options.report, waiting, options)
    known = lines_of(options.report)
    sys.stdout.write(report_of([known[mutant] for mutant in mutants if mutant in known]) + "\n")


if __name__ == "__main__":
    main()
