"""Folders of what a program writes batch by batch: the same call goes on, another is refused."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NOTED = "options.json"


def claim_folder(folder: Path, decides: Mapping[str, Any], option: str = "output_dir") -> None:
    """Make a folder, or see that what it holds was written in the same way.

    Args:
        folder: whose `options.json` tells what decided its content.
        decides: options that do, as JSON takes them.
        option: names the folder.

    Raises:
        ValueError: for a folder that other options have filled, naming those that differ.
    """
    noted = folder / NOTED
    if noted.exists():
        before = json.loads(noted.read_text(encoding="utf-8"))
        names = sorted(n for n in {*before, *decides} if before.get(n) != decides.get(n))
        if names:
            was = ", ".join(f"{n}={before.get(n)!r}" for n in names)
            now = ", ".join(f"{n}={decides.get(n)!r}" for n in names)
            raise ValueError(
                f"What the folder {str(folder)!r} holds was written with {was}, and this call has "
                f"{now}. Name another folder with --{option}."
            )
    folder.mkdir(parents=True, exist_ok=True)
    # Several processes may claim it at once, and one that is killed leaves no half of a file.
    aside = noted.with_name(f"{NOTED}.{os.getpid()}")
    aside.write_text(json.dumps(dict(decides), indent=2), encoding="utf-8")
    aside.replace(noted)
