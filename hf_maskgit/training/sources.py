"""Where texts come from: the Hub, a folder of `save_to_disk`, or local files."""

import glob
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from datasets import (
    DatasetDict,
    get_dataset_split_names,
    load_dataset,
    load_from_disk,
)
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError, DatasetsError

from .files import (
    COMPRESSIONS,
    files_of_folder,
    first_not_utf8,
    guessed_encoding,
    line_of_row,
    local_files,
    malformed_line,
    suffix_of,
)

# What `load_dataset` calls the reader of each kind of local file, and what it has to be told.
_READERS: dict[str, tuple[str, dict[str, Any]]] = {
    # "-sig": the mark that some editors put at the beginning of a file is no part of its first text
    ".txt": ("text", {"encoding": "utf-8-sig"}),
    ".json": ("json", {}),
    ".jsonl": ("json", {}),
    # a text may be "NA" or "None", and one that is empty is no missing number
    ".csv": ("csv", {"keep_default_na": False}),
    ".tsv": ("csv", {"keep_default_na": False, "delimiter": "\t"}),
    ".parquet": ("parquet", {}),
}
_FAILURES = (
    ValueError,
    OSError,
    RuntimeError,
    DatasetsError,
)  # of datasets, where it can do nothing
_SHARDS = 64  # that a data set from `save_to_disk` is streamed in, where it has as many rows


class MissingSplitError(ValueError):
    """A data set that has no split of the name that was asked for."""


def load_texts(
    dataset: str, config: str | None = None, split: str = "train", streaming: bool = False
) -> Any:
    """Load one split of a data set, wherever it lies.

    Args:
        dataset: a name on the Hub, a folder written by `save_to_disk`, a folder of files of one
            kind, or a local text, JSON, JSON Lines, CSV, TSV or Parquet file, compressed or not;
            `*` stands for several files. Such a file may also be an address, "https://..." or
            "hf://...".
        config: configuration of a data set of the Hub.
        split: its split, slices such as "train[:1%]" included; local files are all "train", unless
            those in a folder are called after splits.
        streaming: do not load it, but read it as it is wanted.

    Returns:
        A `Dataset`, or an `IterableDataset` where it streams.

    Raises:
        MissingSplitError: for a split that is not there.
        ValueError: for a data set without rows, and files that cannot be read as what their names
            say.
        FileNotFoundError: for a local file or a data set that is not there.
    """
    suffix = suffix_of(dataset)
    if streaming and "[" in split:
        raise ValueError(
            f"A stream is read from its beginning, so the slice {split!r} cannot be taken; name "
            "the whole split, or load the data set without `streaming`."
        )
    if suffix in _READERS and not os.path.isdir(dataset):
        files: Any = dataset
        if "://" not in dataset:
            files = local_files(dataset)
            if not any(os.path.getsize(file) for file in files):
                raise _empty(dataset, split)
        texts = _load_files(dataset, split, suffix, files, streaming)
    elif _is_saved(dataset):
        splits = _saved_splits(dataset)
        if split not in splits:
            raise _missing_split(dataset, split, f"its splits are {sorted(splits)}")
        texts = splits[split]
        if streaming:
            texts = texts.to_iterable_dataset(min(_SHARDS, max(1, len(texts))))
    elif os.path.isfile(dataset):
        raise ValueError(
            f"The file {dataset!r} is of no known kind; choose from {', '.join(_READERS)}, "
            f"compressed with {', '.join(COMPRESSIONS)} or not."
        )
    elif os.path.isdir(dataset) and (by_split := files_of_folder(dataset, tuple(_READERS))):
        (suffix,) = {suffix_of(file) for files in by_split.values() for file in files}
        texts = _load_files(dataset, split, suffix, by_split, streaming)
    else:
        texts = _load_split(dataset, split, dataset, name=config, streaming=streaming)
    if not streaming and len(texts) == 0:
        raise _empty(dataset, split)
    return texts


def _load_files(dataset: str, split: str, suffix: str, files: Any, streaming: bool) -> Any:
    reader, options = _READERS[suffix]
    if isinstance(files, dict):
        files = {split: _as_named(some) for split, some in files.items()}
    elif isinstance(files, list):
        files = _as_named(files)
    return _load_split(dataset, split, reader, data_files=files, streaming=streaming, **options)


def _as_named(files: Sequence[str]) -> list[str]:
    """Name local files to datasets, which takes every name for a pattern."""
    return [glob.escape(file) for file in files]


def check_columns(texts: Any, dataset: str, names: Collection[str], what: str) -> None:
    """Refuse a data set without some columns.

    Args:
        texts: of `load_texts`, not a stream.
        dataset: its name.
        names: of the columns.
        what: it is to hold, and which program writes that, as the end of a sentence.

    Raises:
        ValueError: naming the first column that is missing, and those that there are.
    """
    missing = sorted(set(names) - set(texts.column_names))
    if missing:
        there = ", ".join(map(repr, texts.column_names))
        raise ValueError(
            f"{dataset!r} has no column {missing[0]!r}, but {there}; it must hold {what}."
        )


def only_split(dataset: str, config: str | None = None) -> str:
    """Return the name of a data set's split where there is just one.

    Args:
        dataset: as for `load_texts`.
        config: configuration of a data set of the Hub.

    Raises:
        ValueError: when there are several; it lists them.
    """
    in_files = suffix_of(dataset) in _READERS and not os.path.isdir(dataset)
    if in_files or os.path.isfile(dataset):
        return "train"
    if _is_saved(dataset):
        names = sorted(map(str, _saved_splits(dataset)))
    elif os.path.isdir(dataset) and (by_split := files_of_folder(dataset, tuple(_READERS))):
        names = list(by_split)
    else:
        try:
            names = get_dataset_split_names(dataset, config)
        except _FAILURES as error:
            raise _failed(dataset, error) from error
    if len(names) != 1:
        raise ValueError(
            f"{dataset!r} has the splits {', '.join(map(repr, names))}; name the one that is meant "
            "with `split`."
        )
    return names[0]


def _is_saved(dataset: str) -> bool:
    return any((Path(dataset) / name).exists() for name in ("state.json", "dataset_dict.json"))


def _saved_splits(dataset: str) -> DatasetDict:
    try:
        saved = load_from_disk(dataset)
    except _FAILURES as error:
        raise ValueError(
            f"{dataset!r} is no whole folder of save_to_disk ({_in_one_line(error)}). Was writing "
            "it cut off? Write it anew."
        ) from error
    return saved if isinstance(saved, DatasetDict) else DatasetDict({"train": saved})


def _load_split(
    dataset: str, split: str, path: str, *, streaming: bool = False, **options: Any
) -> Any:
    if streaming:
        options["streaming"] = True
    try:
        return load_dataset(path, split=split, **options)
    except ValueError as error:
        # datasets has no error classes of its own for these two
        if "Unknown split" in str(error) or "Bad split" in str(error):
            raise _missing_split(dataset, split, str(error)) from error
        if "corresponds to no data" in str(error):
            raise _empty(dataset, split) from error
        if type(error).__module__.startswith("pyarrow"):  # as a Parquet file's end is looked for
            raise _unreadable(dataset, error) from error
        raise _failed(dataset, error) from error
    except DatasetGenerationError as error:
        raise _unreadable(dataset, error) from error
    except _FAILURES as error:
        raise _failed(dataset, error) from error


def _failed(dataset: str, error: Exception) -> Exception:
    """Say why a data set cannot be loaded, of what datasets raises in so many ways."""
    is_missing = isinstance(error, FileNotFoundError) and not os.path.exists(dataset)
    if is_missing or isinstance(error, DatasetNotFoundError | ConnectionError):
        return _not_found(dataset, error)
    return ValueError(
        f"{dataset!r} cannot be loaded ({_in_one_line(error)}). Name files of texts, a folder of "
        "such files or of save_to_disk, or a data set of the Hub, with its configuration "
        "(`dataset_config`) where it has several, and a split such as 'train' or 'train[:10%]'."
    )


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


def _not_found(dataset: str, error: BaseException) -> FileNotFoundError:
    return FileNotFoundError(
        f"There is no data set {dataset!r}: neither a folder or file of that name here nor, as far "
        f"as can be seen, a data set on the Hub ({error})."
    )


def _unreadable(dataset: str, error: BaseException) -> ValueError:
    """Say why files could not be read; datasets itself only says that they could not."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    files = files_within(dataset)
    if isinstance(cause, UnicodeDecodeError):
        file = first_not_utf8(files) or dataset
        return ValueError(
            f"{file!r} is not UTF-8 ({cause.reason}, byte {cause.object[cause.start]:#04x}); texts "
            f"are read as UTF-8. Convert it first, for example with: iconv -f "
            f"{guessed_encoding(file)} -t utf-8"
        )
    where = malformed_line(files)
    return ValueError(
        f"{dataset!r} cannot be read as what its name says ({type(cause).__name__}: {cause}). "
        + (f"{where} Mend it." if where else "Check that it is whole and of that kind.")
    )


def files_within(dataset: str) -> list[str]:
    """List the local files of a data set; none where it lies elsewhere."""
    try:
        if os.path.isdir(dataset):
            found = files_of_folder(dataset, tuple(_READERS))
            return [file for files in found.values() for file in files]
        return local_files(dataset)
    except (OSError, ValueError):
        return []


def place_of_row(dataset: str, row: int) -> str | None:
    """Say in which file and line of a data set of local files a row stands.

    Args:
        dataset: as for `load_texts`; all of its split "train".
        row: its number, counted from 0.

    Returns:
        "line 12 of 'a.txt'", or None where there are no such files.
    """
    return line_of_row(files_within(dataset), row)


def _empty(dataset: str, split: str) -> ValueError:
    return ValueError(f"The split {split!r} of {dataset!r} is empty; name one that holds texts.")


def _missing_split(dataset: str, split: str, detail: str) -> MissingSplitError:
    return MissingSplitError(
        f"{dataset!r} has no split {split!r} ({detail.rstrip('.')}). Name one of its splits."
    )
