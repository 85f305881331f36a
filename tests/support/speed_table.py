"""Writes the tables of docs/speed.md and of the README, and docs/speed.png, from docs/speed.json.

    python scripts/benchmark.py --output_file docs/speed.json
    python -m tests.support.speed_table

A test holds the pages to that file.
"""

import json
from pathlib import Path

from hf_maskgit.evaluation.benchmark_report import draw_report, page_tables, short_table
from tests.support.pages import write_all
from tests.support.project import ROOT

FOUND = ROOT / "docs" / "speed.json"
PAGE, README = ROOT / "docs" / "speed.md", ROOT / "README.md"


def tables(found: dict) -> dict[Path, dict[str, str]]:
    """The tables of each page by the names of their markers."""
    return {PAGE: page_tables(found), README: {"speed": short_table(found)}}


def main() -> None:
    """Write the tables into the pages, and draw the picture."""
    found = json.loads(FOUND.read_text(encoding="utf-8"))
    for page, content in tables(found).items():
        write_all(page, content)
    draw_report(found, FOUND.with_suffix(".png"))


if __name__ == "__main__":
    main()
