"""Local files of texts: which ones are meant, and where in them a row or a fault stands."""

import bz2
import codecs
import csv
import glob
import gzip
import io
import json
import lzma
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow.parquet
from datasets.data_files import DataFilesDict, EmptyDatasetError, get_data_patterns

# How what is compressed is opened; zstandard is read by datasets, and by nothing that is always
# there.
_OPENERS: dict[str, Callable[[str], Any] | None] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": None,
}
COMPRESSIONS = tuple(_OPENERS)


def suffix_of(file: str) -> str:
    """Return the ending that tells the kind of a local file, "" where there is none.

    "verses.txt.gz" is ".txt": what it is compressed with is found out when it is read.
    """
    suffixes = [s for s in Path(file).suffixes if s not in COMPRESSIONS]
    return suffixes[-1] if suffixes else ""


def local_files(pattern: str) -> list[str]:
    """List the files that a path or a pattern with `*` stands for, sorted.

    A file of that very name is meant itself, whatever signs of patterns its name holds.

    Raises:
        FileNotFoundError: when there is none.
    """
    if os.path.isfile(pattern):
        return [pattern]
    files = sorted(file for file in glob.glob(pattern, recursive=True) if os.path.isfile(file))
    if not files:
        raise FileNotFoundError(
            f"There is no file {pattern!r}; check the path and the working directory."
        )
    return files


def short_names(files: Sequence[str]) -> list[str]:
    """Name files by what stands before their endings; where two share that, all by their paths."""
    names = [Path(file).stem for file in files]
    return names if len(set(names)) == len(names) else list(files)


def files_of_folder(folder: str, suffixes: Sequence[str]) -> dict[str, list[str]]:
    """List the files of texts in a folder and all folders in it, by split.

    Files called after splits ("train", "test-0001", ...) belong to these; where none is, all are
    "train". Hidden files and those of other kinds are passed over.

    Args:
        folder: its path.
        suffixes: kinds of files that hold texts.

    Returns:
        Sorted paths by split; empty where the folder holds no file of texts.

    Raises:
        ValueError: for files of more than one kind, and for files that belong to no split where
            others do.
    """
    inside = Path(folder)
    found = sorted(
        str(path)
        for path in inside.rglob("*")
        if path.is_file()
        and suffix_of(str(path)) in suffixes
        and not any(part.startswith((".", "_")) for part in path.relative_to(inside).parts)
    )
    kinds = sorted({suffix_of(file) for file in found})
    if len(kinds) > 1:
        counted = ", ".join(
            f"{sum(suffix_of(file) == kind for file in found)} {kind}" for kind in kinds
        )
        raise ValueError(
            f"The folder {folder!r} holds files of several kinds ({counted}), which may have other "
            f"columns. Name those that are meant, such as '{folder}/**/*{kinds[0]}', or one kind "
            "after the other as data sets of a mixture."
        )
    if not found:
        return {}
    whole = glob.escape(os.path.abspath(folder))  # whose own name is no pattern
    try:
        patterns = get_data_patterns(whole)
    except EmptyDatasetError:
        return {}
    resolved = DataFilesDict.from_patterns(patterns, base_path=whole)
    present = {os.path.abspath(file): file for file in found}
    by_split = {
        str(split): sorted(present[str(file)] for file in files if str(file) in present)
        for split, files in resolved.items()
    }
    by_split = {split: files for split, files in by_split.items() if files}
    taken = {file for files in by_split.values() for file in files}
    left = [file for file in found if file not in taken]
    if left:
        raise ValueError(
            f"The folder {folder!r} has files called after splits ({', '.join(sorted(by_split))}) "
            f"and others that belong to none, such as {left[0]!r}. Move or rename them, or name "
            "the files that are meant with a pattern."
        )
    return by_split


def first_not_utf8(files: Sequence[str]) -> str | None:
    """Name the first of several files whose bytes are no UTF-8, also inside compressed ones."""
    for file in files:
        if suffix_of(file) == ".parquet":
            continue
        try:
            for _ in _lines(file):
                pass
        except UnicodeDecodeError:
            return file
        except (OSError, EOFError):
            continue
    return None


def guessed_encoding(file: str) -> str:
    """Guess for an example what a file's encoding is: two of them begin with a mark of theirs."""
    try:
        with opened(file) as content:
            start = content.read(2)
    except (OSError, EOFError):  # it has no name of its own, or has gone
        return "latin1"
    return "utf-16" if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "latin1"


def malformed_line(files: Sequence[str]) -> str | None:
    """Say in a sentence where the first of several files is not what its name says.

    Returns:
        None where that is not found out.
    """
    for file in files:
        check = _CHECKS.get(suffix_of(file))
        try:
            fault = None if check is None else check(file)
        except (OSError, EOFError, UnicodeDecodeError):
            fault = None
        if fault is not None:
            return f"Line {fault[0]} of {file!r} {fault[1]}."
    return None


def line_of_row(files: Sequence[str], row: int) -> str | None:
    """Say where a row of several files, read one after the other, stands.

    Args:
        files: in the order in which they were read.
        row: counted from 0.

    Returns:
        "line 12 of 'a.txt'", or "row 3 of 'a.parquet'", whose rows have no lines; None where it
        cannot be found.
    """
    left = row
    for file in files:
        suffix = suffix_of(file)
        try:
            if suffix == ".parquet":
                count = pyarrow.parquet.read_metadata(file).num_rows
                if left < count:
                    return f"row {left} of {file!r}"
                left -= count
                continue
            if suffix not in _RECORDS:
                return None
            for number in _RECORDS[suffix](file):
                if left == 0:
                    return f"line {number} of {file!r}"
                left -= 1
        except (OSError, EOFError, UnicodeDecodeError, csv.Error, ValueError):
            return None
    return None


def opened(file: str) -> IO[bytes]:
    """Open a local file, compressed or not, for its bytes.

    Raises:
        OSError: where it cannot be, or is compressed with zstandard.
    """
    suffix = Path(file).suffix
    if suffix not in _OPENERS:
        return open(file, "rb")
    opener = _OPENERS[suffix]
    if opener is None:
        raise OSError(f"{file!r} is compressed with zstandard")
    opened: IO[bytes] = opener(file)
    return opened


def _lines(file: str) -> Iterator[str]:
    with opened(file) as content, io.TextIOWrapper(content, encoding="utf-8-sig") as lines:
        yield from lines


def _line_records(file: str) -> Iterator[int]:
    for number, _ in enumerate(_lines(file), 1):
        yield number


def _json_records(file: str) -> Iterator[int]:
    """Number the lines that hold something; a JSON file that is one list has no such lines."""
    for number, line in enumerate(_lines(file), 1):
        if number == 1 and line.lstrip().startswith("["):
            raise ValueError("one list")
        if line.strip():
            yield number


def _csv_records(file: str) -> Iterator[int]:
    delimiter = "\t" if suffix_of(file) == ".tsv" else ","
    reader = csv.reader(_lines(file), delimiter=delimiter)
    first, before = True, 0
    for record in reader:
        if record and not first:
            yield before + 1  # where it begins; a quoted field may go on over lines
        first = first and not record
        before = reader.line_num


# The line at which each record of a file begins.
_RECORDS: Mapping[str, Callable[[str], Iterator[int]]] = {
    ".txt": _line_records,
    ".json": _json_records,
    ".jsonl": _json_records,
    ".csv": _csv_records,
    ".tsv": _csv_records,
}


def _json_fault(file: str) -> tuple[int, str] | None:
    """Find the first line that is no JSON."""
    for number, line in enumerate(_lines(file), 1):
        if number == 1 and line.lstrip().startswith("["):
            return None
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            return number, f"is no JSON object ({error})"
        if not isinstance(value, dict):
            return number, f"holds {type(value).__name__}, not an object such as {{'text': '...'}}"
    return None


def _csv_fault(file: str) -> tuple[int, str] | None:
    """Find the first record with more fields than the header."""
    delimiter = "\t" if suffix_of(file) == ".tsv" else ","
    reader = csv.reader(_lines(file), delimiter=delimiter)
    header: list[str] | None = None
    for record in reader:
        if not record:
            continue
        if header is None:
            header = record
        elif len(record) > len(header):
            return reader.line_num, f"has {len(record)} fields, and the header {len(header)}"
    return None


_CHECKS: Mapping[str, Callable[[str], tuple[int, str] | None]] = {
    ".json": _json_fault,
    ".jsonl": _json_fault,
    ".csv": _csv_fault,
    ".tsv": _csv_fault,
}
