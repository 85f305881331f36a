"""Writes the map of CONTRIBUTING.md: one line per file, the first of its docstring.

    python -m tests.support.house

A test holds the map to the files, so that it is written anew wherever one comes, goes or changes.
"""

import ast
from collections.abc import Sequence
from pathlib import Path

from tests.support.project import PACKAGE, ROOT

PAGE = ROOT / "CONTRIBUTING.md"
START, END = "<!-- map: python -m tests.support.house -->", "<!-- end of map -->"

# In the direction of imports: a folder takes from itself and from those above it. What a folder is
# about, its own docstring says.
FOLDERS = (
    "core",
    "patterns",
    "evaluation",
    "training",
    "hub",
    "rows",
    "integrations",
    "visualization",
    "serving",
)
OWN_MODULES = "What users import; nothing inside goes through it."


def first_line(path: Path) -> str:
    """The first line of a module's docstring.

    Raises:
        ValueError: when it has none, or the line is no sentence that ends on it.
    """
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    line = docstring.partition("\n")[0]
    if not line.endswith("."):
        raise ValueError(
            f"The docstring of {path.name} begins with {line!r}; its first line is the file's line "
            "in the map: one short sentence."
        )
    return line


def section(name: str, sentence: str, paths: Sequence[Path]) -> str:
    """A folder with its sentence, and a line for each of its modules but `__init__`."""
    shown = [path for path in sorted(paths) if path.name != "__init__.py"]
    lines = [f"- `{path.name}`: {first_line(path)}" for path in shown]
    return "\n".join([f"**`{name}`** {sentence}", "", *lines])


def draw(package: Path = PACKAGE, programs: Path = ROOT / "scripts") -> str:
    """The map of a package and its programs."""
    sections = [section("hf_maskgit/", OWN_MODULES, list(package.glob("*.py")))]
    for name in FOLDERS:
        sentence = first_line(package / name / "__init__.py")
        sections.append(section(f"{name}/", sentence, list((package / name).glob("*.py"))))
    sentence = first_line(programs / "__init__.py")
    sections.append(section("scripts/", sentence, list(programs.glob("*.py"))))
    return "\n\n".join(sections)


def map_of_page() -> str:
    """The map as CONTRIBUTING.md shows it."""
    page = PAGE.read_text(encoding="utf-8")
    return page[page.index(START) + len(START) : page.index(END)].strip()


def main() -> None:
    """Write the map into CONTRIBUTING.md."""
    page = PAGE.read_text(encoding="utf-8")
    before, after = page[: page.index(START)], page[page.index(END) :]
    PAGE.write_text(f"{before}{START}\n\n{draw()}\n\n{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
