"""Folders of what a program writes batch by batch: the same call goes on, another is refused."""

import contextlib
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NOTED = "options.json"


def check_folder(folder: Path, decides: Mapping[str, Any], option: str = "output_dir") -> bool:
    """See that what a folder holds was written in the same way.

    Args:
        folder: whose `options.json` tells what decided its content.
        decides: options that do, as JSON takes them.
        option: names the folder.

    Returns:
        Whether there is such a file.

    Raises:
        ValueError: for a folder that other options have filled, naming those that differ.
    """
    noted = folder / NOTED
    if not noted.exists():
        return False
    before = json.loads(noted.read_text(encoding="utf-8"))
    names = sorted(n for n in {*before, *decides} if before.get(n) != decides.get(n))
    if names:
        was = ", ".join(f"{n}={before.get(n)!r}" for n in names)
        now = ", ".join(f"{n}={decides.get(n)!r}" for n in names)
        # A call that was refused behind its claim has written nothing; one that works may yet.
        is_empty = all(path.name.startswith(NOTED) for path in folder.iterdir())
        advice = f" It holds nothing yet: if no call is at work there, delete {NOTED!r} in it."
        raise ValueError(
            f"What the folder {str(folder)!r} holds was written with {was}, and this call has "
            f"{now}. Name another folder with --{option}.{advice if is_empty else ''}"
        )
    return True


def claim_folder(folder: Path, decides: Mapping[str, Any], option: str = "output_dir") -> None:
    """Make a folder, or see that what it holds was written in the same way.

    Of several calls that come at once the first has it, and those of other options are refused.

    Args:
        folder: see `check_folder`, as the others.
        decides: options.
        option: names the folder.

    Raises:
        ValueError: for a folder that other options have filled, naming those that differ.
    """
    if check_folder(folder, decides, option):
        return
    folder.mkdir(parents=True, exist_ok=True)
    # A call that is killed leaves no half of a file.
    aside = folder / f"{NOTED}.{uuid.uuid4().hex}"
    aside.write_text(json.dumps(dict(decides), indent=2), encoding="utf-8")
    try:
        _put(aside, folder / NOTED)
    finally:
        aside.unlink(missing_ok=True)
    check_folder(folder, decides, option)  # the one who was first


def _put(aside: Path, noted: Path) -> None:
    """Give a file its name, unless there is another of that name."""
    try:
        noted.hardlink_to(aside)
    except FileExistsError:
        return
    except OSError:  # a file system without links
        with contextlib.suppress(FileExistsError), noted.open("xb") as file:
            file.write(aside.read_bytes())
