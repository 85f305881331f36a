"""Where texts come from: the Hub, a folder of `save_to_disk`, or local files."""

import codecs
import glob
import os
from pathlib import Path
from typing import Any

from datasets import (
    Dataset,
    DatasetDict,
    get_dataset_split_names,
    load_dataset,
    load_from_disk,
)
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

# What `load_dataset` calls the reader of each kind of local file, and what it has to be told.
_READERS: dict[str, tuple[str, dict[str, Any]]] = {
    # "-sig": the mark that some editors put at the beginning of a file is no part of its first text
    ".txt": ("text", {"encoding": "utf-8-sig"}),
    ".json": ("json", {}),
    ".jsonl": ("json", {}),
    ".csv": ("csv", {}),
    ".tsv": ("csv", {"delimiter": "\t"}),
    ".parquet": ("parquet", {}),
}
_COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")


def load_texts(dataset: str, config: str | None = None, split: str = "train") -> Dataset:
    """Load one split of a data set, wherever it lies.

    Args:
        dataset: a name on the Hub, a folder written by `save_to_disk`, or a local text, JSON, JSON
            Lines, CSV, TSV or Parquet file, compressed or not; `*` stands for several files. Such a
            file may also be an address, "https://..." or "hf://...".
        config: configuration of a data set of the Hub.
        split: its split, slices such as "train[:1%]" included; a local file is all "train".

    Raises:
        ValueError: for a split that is not there, a data set without rows, and files that cannot be
            read as what their names say.
        FileNotFoundError: for a local file or a data set that is not there.
    """
    suffix = _suffix(dataset)
    if suffix in _READERS:
        if "://" not in dataset:
            _check_files(dataset)
        reader, options = _READERS[suffix]
        texts = _load_split(dataset, split, reader, data_files=dataset, **options)
    elif _is_saved(dataset):
        splits = _saved_splits(dataset)
        if split not in splits:
            raise _missing_split(dataset, split, f"its splits are {sorted(splits)}")
        texts = splits[split]
    elif os.path.isfile(dataset):
        raise ValueError(
            f"The file {dataset!r} is of no known kind; choose from {', '.join(_READERS)}, "
            f"compressed with {', '.join(_COMPRESSIONS)} or not."
        )
    else:
        texts = _load_split(dataset, split, dataset, name=config)
    if len(texts) == 0:
        raise _empty(dataset, split)
    return texts


def only_split(dataset: str, config: str | None = None) -> str:
    """Return the name of a data set's split where there is just one.

    Args:
        dataset: as for `load_texts`.
        config: configuration of a data set of the Hub.

    Raises:
        ValueError: when there are several; it lists them.
    """
    if _suffix(dataset) in _READERS or os.path.isfile(dataset):
        return "train"
    if _is_saved(dataset):
        names = sorted(map(str, _saved_splits(dataset)))
    else:
        names = get_dataset_split_names(dataset, config)
    if len(names) != 1:
        raise ValueError(
            f"{dataset!r} has the splits {', '.join(map(repr, names))}; name the one that is meant "
            "with `split`."
        )
    return names[0]


def _suffix(dataset: str) -> str:
    """Return the ending that tells the kind of a local file, "" where there is none.

    "verses.txt.gz" is ".txt": what it is compressed with is found out when it is read.
    """
    suffixes = [s for s in Path(dataset).suffixes if s not in _COMPRESSIONS]
    return suffixes[-1] if suffixes else ""


def _is_saved(dataset: str) -> bool:
    return any((Path(dataset) / name).exists() for name in ("state.json", "dataset_dict.json"))


def _saved_splits(dataset: str) -> DatasetDict:
    saved = load_from_disk(dataset)
    return saved if isinstance(saved, DatasetDict) else DatasetDict({"train": saved})


def _check_files(pattern: str) -> None:
    files = glob.glob(pattern)
    if not files:
        raise FileNotFoundError(
            f"There is no file {pattern!r}; check the path and the working directory."
        )
    if not any(os.path.getsize(file) for file in files):
        raise _empty(pattern, "train")


def _load_split(dataset: str, split: str, path: str, **options: Any) -> Dataset:
    try:
        return load_dataset(path, split=split, **options)
    except ValueError as error:
        # datasets has no error classes of its own for these two
        if "Unknown split" in str(error):
            raise _missing_split(dataset, split, str(error)) from error
        if "corresponds to no data" in str(error):
            raise _empty(dataset, split) from error
        if type(error).__module__.startswith("pyarrow"):  # as a Parquet file's end is looked for
            raise _unreadable(dataset, error) from error
        raise
    except DatasetNotFoundError as error:
        raise FileNotFoundError(
            f"There is no data set {dataset!r}: neither a folder or file of that name here nor, as "
            f"far as can be seen, a data set on the Hub ({error})."
        ) from error
    except DatasetGenerationError as error:
        raise _unreadable(dataset, error) from error


def _unreadable(dataset: str, error: BaseException) -> ValueError:
    """Say why files could not be read; datasets itself only says that they could not."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, UnicodeDecodeError):
        file = _first_not_utf8(dataset)
        return ValueError(
            f"{file!r} is not UTF-8 ({cause.reason}, byte {cause.object[cause.start]:#04x}); texts "
            f"are read as UTF-8. Convert it first, for example with: iconv -f {_encoding(file)} "
            "-t utf-8"
        )
    return ValueError(
        f"{dataset!r} cannot be read as what its name says ({type(cause).__name__}: {cause}). "
        "Check that it is whole and of that kind."
    )


def _encoding(file: str) -> str:
    """Guess for an example what a file's encoding is: two of them begin with a mark of theirs."""
    try:
        with open(file, "rb") as content:
            start = content.read(2)
    except OSError:  # it has no name of its own, or has gone
        return "latin1"
    return "utf-16" if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "latin1"


def _first_not_utf8(pattern: str) -> str:
    """Name the file of several whose bytes are no UTF-8; compressed ones cannot be looked into."""
    for file in glob.glob(pattern):
        if Path(file).suffix in _READERS:
            try:
                with open(file, encoding="utf-8") as lines:
                    for _ in lines:
                        pass
            except UnicodeDecodeError:
                return file
    return pattern


def _empty(dataset: str, split: str) -> ValueError:
    return ValueError(
        f"The split {split!r} of {dataset!r} is empty; nothing can be learned from it."
    )


def _missing_split(dataset: str, split: str, detail: str) -> ValueError:
    return ValueError(
        f"{dataset!r} has no split {split!r} ({detail.rstrip('.')}). Name one of its splits, or "
        "leave `eval_split` out and hold out a part of the training texts with "
        "`validation_fraction`, say 0.05."
    )
