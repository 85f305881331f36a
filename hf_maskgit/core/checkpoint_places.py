"""Where the files of a checkpoint lie: in which state and folder of it, and for whom."""

import json
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import cached_file

# What says where the files of a checkpoint lie: in which state and folder of it, and for whom.
_PLACE_OPTIONS = frozenset("revision subfolder".split())
_SOURCE_OPTIONS = _PLACE_OPTIONS | frozenset(
    "cache_dir force_download local_files_only token trust_remote_code".split()
)


def source_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return those options of `from_pretrained` that say where the files of a checkpoint lie."""
    return {name: value for name, value in options.items() if name in _SOURCE_OPTIONS}


def source_beside(name: object, encoder: object, options: dict[str, Any]) -> dict[str, Any]:
    """Return them for what lies beside an encoder, whose revision means nothing elsewhere.

    Args:
        name: of what is loaded beside it.
        encoder: whose options they are.
        options: of `from_pretrained`.
    """
    source = source_options(options)
    if name != encoder:
        source = {key: value for key, value in source.items() if key not in _PLACE_OPTIONS}
    return source


def load_tokenizer(
    name: str, encoder: str | PreTrainedModel, options: dict[str, Any]
) -> PreTrainedTokenizerBase:
    """Load a tokenizer by name; a revision or folder of the encoder means nothing elsewhere."""
    source = source_beside(name, encoder, options)
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name, **source)
    return tokenizer


def check_place(name: str, options: dict[str, Any]) -> None:
    """Refuse the root of a sentence-transformers checkpoint whose encoder lies in a folder of it.

    Raises:
        ValueError: naming the folder.
    """
    if options.get("subfolder"):
        return

    def found(file: str) -> str | None:
        where = source_options(options)
        where.pop("trust_remote_code", None)
        missing = {
            "_raise_exceptions_for_missing_entries": False,
            "_raise_exceptions_for_gated_repo": False,
            "_raise_exceptions_for_connection_errors": False,
        }
        try:
            path: str | None = cached_file(name, file, **where, **missing)
        except OSError:  # no such place at all; transformers says it better
            return None
        return path

    # Only in a place without a configuration of its own is anything else looked at.
    parts = None if found("config.json") else found("modules.json")
    if parts is None:
        return
    folders = [part.get("path") for part in _list_in(parts) if isinstance(part, dict)]
    inside = next((folder for folder in folders if folder), None)
    if inside is not None:
        raise ValueError(
            f"{name!r} is a checkpoint of sentence-transformers, whose encoder lies in a folder of "
            f"its own: pass subfolder={inside!r}."
        )


def _list_in(path: str) -> list[Any]:
    """Read a list from a JSON file; what is none says nothing of where an encoder lies."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError:
        return []
    return values if isinstance(values, list) else []
