"""Writes the tables of docs/options.md from the declarations of the options.

    python -m tests.support.options_table

A test holds the page to them.
"""

from collections.abc import Mapping
from pathlib import Path

from hf_maskgit import MaskGitConfig
from hf_maskgit.core.decoding_cache import CacheOptions
from hf_maskgit.core.generation_config_maskgit import OPTIONS, Request
from hf_maskgit.core.masking import Masking
from hf_maskgit.core.options import Option, options_of
from hf_maskgit.core.sampler import Sampler
from hf_maskgit.core.sampler_choices import readers_of
from tests.support.pages import write_all
from tests.support.project import ROOT

PAGE = ROOT / "docs" / "options.md"


def default_of(option: Option) -> str:
    """The default as one would write it."""
    return f"`{option.default!r}`".replace("'", '"')


def reader_of(name: str) -> str:
    """Which values of a choice read an option, as the end of its description."""
    choice, readers = readers_of(name) or ("", [])
    return f" Read by {choice} {', '.join(f'`{reader}`' for reader in readers)}." if choice else ""


def table(options: Mapping[str, Option]) -> str:
    """One row per option: name, default, what it is."""
    lines = ["| option | default | what it is |", "|---|---|---|"]
    for name, option in options.items():
        told = (option.description + reader_of(name)).replace("|", "\\|")
        lines.append(f"| `{name}` | {default_of(option)} | {told} |")
    return "\n".join(lines)


def tables() -> dict[str, str]:
    """The tables of the page by the names of their markers."""
    masking = options_of(Masking)
    parts = {k: v for k, v in options_of(MaskGitConfig).items() if k not in masking}
    return {
        "request": table({name: OPTIONS[name] for name in options_of(Request)}),
        "sampler": table({name: OPTIONS[name] for name in options_of(Sampler)}),
        "cache": table({name: OPTIONS[name] for name in options_of(CacheOptions)}),
        "masking": table(masking),
        "parts": table(parts),
    }


def main(page: Path = PAGE) -> None:
    """Write the tables into the page."""
    write_all(page, tables())


if __name__ == "__main__":
    main()
