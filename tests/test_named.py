"""What sources and pages name is there: files, folders, and modules that a command runs."""

import ast
import io
import re
import tokenize

import pytest

from tests.support.house import FOLDERS
from tests.support.project import PACKAGE, ROOT

TOPS = ("hf_maskgit", "scripts", "tests", "docs", "model_cards", *FOLDERS)
NAMED = re.compile(
    rf"(?<![\w/.\\-])(?:{'|'.join(TOPS)})/(?:[\w/]*\w(?:\.(?:py|yaml|md|json|png|svg|gif)\b)?)?"
    r"(?![\w*{<])"  # no pattern, and no part of a longer name
)
RUN = re.compile(r"-m ((?:tests|scripts|hf_maskgit)(?:\.\w+)+)")

# The changelog also names what is gone.
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "Makefile", "pyproject.toml")),
    *(ROOT / name for name in (".ci/run", "tests/fixtures/README.md")),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "model_cards").glob("*.md"),
    *(ROOT / "scripts").rglob("*.yaml"),
]
PROGRAMS = [*PACKAGE.rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]
TESTS = [*(ROOT / "tests").rglob("*.py")]


def explained(source: str) -> str:
    """Docstrings and comments of a module: what tests name besides is often made up."""
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [
        ast.get_docstring(n) or "" for n in ast.walk(ast.parse(source)) if isinstance(n, holders)
    ]
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return "\n".join([*found, *(t.string for t in tokens if t.type == tokenize.COMMENT)])


def missing(text: str) -> list[str]:
    """What a text names and nothing is: paths from the top, the package or the tests; modules."""
    paths = (name for name in NAMED.findall(text))
    lost = [
        p for p in paths if not any((top / p).exists() for top in (ROOT, PACKAGE, ROOT / "tests"))
    ]
    for name in RUN.findall(text):
        # an installed package has its programs inside
        place = ROOT / name.replace("hf_maskgit.scripts", "scripts").replace(".", "/")
        if not (place.with_suffix(".py").exists() or (place / "__main__.py").exists()):
            lost.append(name)
    return lost


@pytest.mark.parametrize("kind", ["pages", "programs", "tests"])
def test_what_is_named_is_there(kind):
    paths = {"pages": PAGES, "programs": PROGRAMS, "tests": TESTS}[kind]
    texts = {str(p.relative_to(ROOT)): p.read_text(encoding="utf-8") for p in paths}
    assert sum(len(NAMED.findall(text)) for text in texts.values()) > 9
    texts = {path: text for path, text in texts.items() if missing(text)}
    if kind == "tests":
        texts = {path: explained(text) for path, text in texts.items()}
    assert {path: lost for path, text in texts.items() if (lost := missing(text))} == {}


@pytest.mark.parametrize(
    "wrong",
    [
        *("scripts/chat.py", "see docs/chat.md", "`core/loss.py`", "tests/core/test_loss.py says"),
        *(
            "`chats/..` of `rows/chats`",
            "python -m tests.support.chat",
            "-m hf_maskgit.scripts.chat",
        ),
    ],
)
def test_what_is_not_there_is_found(wrong):
    assert len(missing(wrong)) == 1


@pytest.mark.parametrize(
    "right",
    [
        *("scripts/train.py", "the folder `core/`", "tests/core/test_losses.py", "docs/*.md"),
        *("core/losses.py", "runs/rows/chats", "python -m hf_maskgit.serving", "scripts/{name}.py"),
    ],
)
def test_what_is_there_is_let_pass(right):
    assert missing(right) == []
