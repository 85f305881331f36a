"""What a folder may carry to others: this library's own code, byte for byte, and nobody else's."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..core import remote_code

_CORE = Path(remote_code.__file__).parent
_CONFIG = "config.json"
# Entries of a JSON file by which transformers finds code to run.
_POINTS_TO_CODE = ("auto_map", "custom_pipelines")
# What runs, or may run, where it is loaded: none of it is ever staged.
_RUNS = (".py", ".pyc", ".so", ".pyd", ".pkl", ".pickle", ".bin", ".pt", ".pth", ".ckpt", ".joblib")


def disarm(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Let a tokenizer forget the code that its files named, which did not run; True if any did."""
    named = [name for name in _POINTS_TO_CODE if tokenizer.init_kwargs.pop(name, None) is not None]
    return bool(named)


def foreign_code(folder: Path, with_code: bool) -> list[str]:
    """Find what would run elsewhere, in a folder that is about to be sent, and is not ours.

    Args:
        folder: holds a saved generator.
        with_code: whether it is to carry this library's code.

    Returns:
        One sentence per finding.
    """
    ours = {path.name: path.read_bytes() for path in _CORE.glob("*.py")} if with_code else {}
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.suffix in _RUNS and ours.get(name) != path.read_bytes():
            found.append(f"{name} is no file of this library.")
        if path.suffix == ".json":
            found += [
                f"{name} names code to run ({entry})."
                for entry, value in _entries(json.loads(path.read_text(encoding="utf-8")))
                if not (with_code and name == _CONFIG and _names_ours(value, set(ours)))
            ]
    return found


def _entries(values: Any) -> Iterator[tuple[str, Any]]:
    """Walk through JSON and yield every entry that points to code."""
    children = values.items() if isinstance(values, dict) else []
    for name, value in children:
        if name in _POINTS_TO_CODE:
            yield name, value
        else:
            yield from _entries(value)
    for value in values if isinstance(values, list) else []:
        yield from _entries(value)


def _names_ours(value: Any, files: set[str]) -> bool:
    """Tell whether all that an entry points to lies in files of this library beside it."""
    if isinstance(value, dict):
        parts = [part for name, part in value.items() if name not in ("pt", "type")]
        return all(_names_ours(part, files) for part in parts)
    # "module.Class"; one of another repository would be "owner/name--module.Class".
    return isinstance(value, str) and f"{value.partition('.')[0]}.py" in files
