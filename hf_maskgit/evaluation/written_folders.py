"""Folders of what a program writes batch by batch: the same call goes on, another is refused."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def claim_folder(folder: Path, decides: Mapping[str, Any]) -> None:
    """Make a folder, or see that what it holds was written in the same way.

    Args:
        folder: whose `options.json` tells what decided its content.
        decides: options that do, as JSON takes them.

    Raises:
        ValueError: for a folder that other options have filled, naming those that differ.
    """
    noted = folder / "options.json"
    if noted.exists():
        before = json.loads(noted.read_text(encoding="utf-8"))
        names = sorted(n for n in {*before, *decides} if before.get(n) != decides.get(n))
        if names:
            was = ", ".join(f"{n}={before.get(n)!r}" for n in names)
            now = ", ".join(f"{n}={decides.get(n)!r}" for n in names)
            raise ValueError(
                f"What the folder {str(folder)!r} holds was written with {was}, and this call has "
                f"{now}. Name another folder with --output_dir."
            )
    folder.mkdir(parents=True, exist_ok=True)
    noted.write_text(json.dumps(dict(decides), indent=2), encoding="utf-8")
