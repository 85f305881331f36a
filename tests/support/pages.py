"""Tables on pages of the documentation: what stands between two markers is written by a program."""

from collections.abc import Mapping
from pathlib import Path


def between(page: str, name: str) -> str:
    """Return what stands between the two markers of that name."""
    return page.split(f"<!-- {name}: begin -->\n")[1].split(f"\n<!-- {name}: end -->")[0]


def write(page: str, name: str, content: str) -> str:
    """Return the page with other content between the two markers of that name."""
    return page.replace(
        f"<!-- {name}: begin -->\n{between(page, name)}\n<!-- {name}: end -->",
        f"<!-- {name}: begin -->\n{content}\n<!-- {name}: end -->",
    )


def write_all(path: Path, tables: Mapping[str, str]) -> None:
    """Write content between the markers of each name into a file."""
    text = path.read_text(encoding="utf-8")
    for name, content in tables.items():
        text = write(text, name, content)
    path.write_text(text, encoding="utf-8")
