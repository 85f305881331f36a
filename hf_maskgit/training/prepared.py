"""Files that are of one make: all are written beside their places, and then put there together.

Cut off while it writes, a program leaves what was there before, and never the training texts of one
run beside the held-out texts of another.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from datasets import DatasetDict

from .run_files import UNFINISHED, sync

_LIST_OF_SPLITS = "dataset_dict.json"  # without which a folder is no data set


def save_splits(data: DatasetDict, folder: Path) -> None:
    """Write all splits of a data set as `save_to_disk` does, and put them into a folder together.

    Args:
        data: its splits.
        folder: made where it is missing; what else lies there stays.
    """
    beside = folder.with_name(f"{folder.name}{UNFINISHED}")
    shutil.rmtree(beside, ignore_errors=True)
    data.save_to_disk(beside)
    folder.mkdir(parents=True, exist_ok=True)
    # Cut off from here on, the folder is no data set any more.
    (folder / _LIST_OF_SPLITS).unlink(missing_ok=True)
    for split in map(str, data):
        shutil.rmtree(folder / split, ignore_errors=True)
        (beside / split).rename(folder / split)
    (beside / _LIST_OF_SPLITS).rename(folder / _LIST_OF_SPLITS)
    shutil.rmtree(beside)


def save_texts(texts: Mapping[Path, str]) -> None:
    """Write files of text, and put them into their places together.

    Args:
        texts: what each file holds; their folders are there.
    """
    for path, text in texts.items():
        path.with_name(f"{path.name}{UNFINISHED}").write_text(text, encoding="utf-8")
    for path in texts:
        os.replace(path.with_name(f"{path.name}{UNFINISHED}"), path)
    for folder in {path.parent for path in texts}:
        sync(folder)
