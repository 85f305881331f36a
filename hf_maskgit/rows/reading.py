"""Rows of files, read where they are wanted: none is held in memory but those of a part.

A row is an object of named values, one of them its text. A line of a text file is such an object
with a text and nothing else.
"""

import bisect
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any, NamedTuple, Protocol

import pyarrow
import pyarrow.parquet

from ..core.pipeline_infilling import check_no_blank
from ..training.files import line_of_row, local_files, opened, suffix_of
from ..training.plain_files import OTHER_FORMS

Row = Mapping[str, Any]
_BETWEEN_MARKS = 1000  # rows: as many are skipped at most to reach one
_READ = (".jsonl", ".parquet")  # besides plain texts
_READ_TOGETHER = 10_000  # rows that are looked at beforehand
_BLOCK = 1 << 20  # bytes
_HALF = re.compile("[\ud800-\udfff]")  # what JSON can write and no encoding can
_AFTER_CR = re.compile(rb"(?<=\r)(?!\n)")  # behind a carriage return that ends a line alone
_MARK_OF_UTF8 = b"\xef\xbb\xbf"  # that some editors put at the beginning of a file


class Rows(Protocol):
    """What rows come from."""

    digest: str

    def __len__(self) -> int:
        """How many there are."""

    def between(self, start: int, stop: int) -> list[Row]:
        """Read the rows from one number to another, which is left out."""

    def place(self, number: int) -> str:
        """Name a row for a sentence: "line 12 of 'a.jsonl'"."""

    def schema(self) -> pyarrow.Schema:
        """Say of what types all rows are."""


class ListedRows:
    """Rows that are there: of a command line, say.

    Args:
        rows: all of them.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = list(rows)
        told = json.dumps(self._rows, ensure_ascii=False)
        self.digest = hashlib.sha256(told.encode(errors="surrogatepass")).hexdigest()

    def __len__(self) -> int:
        return len(self._rows)

    def between(self, start: int, stop: int) -> list[Row]:
        """See `Rows`."""
        return self._rows[start:stop]

    def place(self, number: int) -> str:
        """See `Rows`."""
        return f"text {number}"

    def schema(self) -> pyarrow.Schema:
        """See `Rows`."""
        return _schema_of_values(self)


class _Mark(NamedTuple):
    """Where a row stands: its number, its file's, and the byte in what that file holds."""

    row: int
    file: int
    byte: int


class LineRows:
    """Rows of files with a line for each, JSON objects or plain texts.

    Args:
        files: read one after the other.
        text_column: what the text of a plain line is called.

    Raises:
        ValueError: for a file that cannot be read.
    """

    def __init__(self, files: Sequence[str], text_column: str) -> None:
        self._files, self._text_column = files, text_column
        self._objects = suffix_of(files[0]) == ".jsonl"
        self._marks, self._count = [_Mark(0, 0, 0)], 0
        read = hashlib.sha256()
        for number, file in enumerate(files):
            with _told(file), opened(file) as content:
                at = 0
                for line in self._lines_in(content):
                    if self._holds_row(line):
                        if self._count % _BETWEEN_MARKS == 0:
                            self._marks.append(_Mark(self._count, number, at))
                        self._count += 1
                    at += len(line)
                    read.update(line)
            read.update(str(at).encode())  # files that are divided otherwise are other files
        self.digest = read.hexdigest()

    def __len__(self) -> int:
        return self._count

    def between(self, start: int, stop: int) -> list[Row]:
        """See `Rows`.

        Raises:
            ValueError: for a line that is no row.
        """
        after = bisect.bisect_right(self._marks, start, key=lambda mark: mark.row)
        mark = self._marks[after - 1]
        number, rows = mark.row, []
        for line in self._lines(mark):
            if number >= stop:
                break
            if number >= start:
                rows.append(self._row(number, line))
            number += 1
        return rows

    def place(self, number: int) -> str:
        """See `Rows`; a line counts as such whatever it holds."""
        left = number
        for file in self._files:
            with _told(file), opened(file) as content:
                for line_number, line in enumerate(self._lines_in(content), 1):
                    left -= self._holds_row(line)
                    if left < 0:
                        return f"line {line_number} of {file!r}"
        return f"row {number}"  # of a file that has changed meanwhile

    def schema(self) -> pyarrow.Schema:
        """See `Rows`."""
        return _schema_of_values(self)

    def _lines(self, mark: _Mark) -> Iterator[bytes]:
        for number in range(mark.file, len(self._files)):
            at = mark.byte if number == mark.file else 0
            with _told(self._files[number]), opened(self._files[number]) as content:
                content.seek(at)
                for line in self._lines_in(content):
                    if self._holds_row(line):
                        yield line if at else line.removeprefix(_MARK_OF_UTF8)
                    at += len(line)

    def _lines_in(self, content: IO[bytes]) -> Iterator[bytes]:
        """Cut a file into lines with their ends: as texts of data sets are, also behind a lone CR.

        JSON Lines end with a line feed alone; a carriage return between two values is a blank.
        """
        for line in content:
            if self._objects or b"\r" not in line:
                yield line
            else:
                yield from filter(None, _AFTER_CR.split(line))

    def _holds_row(self, line: bytes) -> bool:
        return not self._objects or bool(line.strip())

    def _row(self, number: int, line: bytes) -> Row:
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{_begun(self.place(number))} is not in UTF-8 (byte {error.start} of it: "
                f"{error.reason}); save the file in that encoding."
            ) from error
        if not self._objects:
            return {self._text_column: text.removesuffix("\n").removesuffix("\r")}
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{_begun(self.place(number))} is no JSON: {error}.") from error
        if not isinstance(row, dict):
            raise ValueError(
                f"{_begun(self.place(number))} holds {type(row).__name__}; write an object such "
                f"as {json.dumps({self._text_column: 'In the beginning'})}."
            )
        return row


class _Group(NamedTuple):
    """A group of rows of a Parquet file: the number of its first row, its file, its own number."""

    row: int
    file: str
    number: int


class ParquetRows:
    """Rows of Parquet files.

    Args:
        files: read one after the other.

    Raises:
        ValueError: for a file that cannot be read, or files of several schemas.
    """

    def __init__(self, files: Sequence[str]) -> None:
        self._files, self._groups, self._count = files, list[_Group](), 0
        read, schemas = hashlib.sha256(), []
        for file in files:
            with _told(file):
                parquet = pyarrow.parquet.ParquetFile(file)
                schemas.append(parquet.schema_arrow.remove_metadata())
                for number in range(parquet.num_row_groups):
                    self._groups.append(_Group(self._count, file, number))
                    self._count += parquet.metadata.row_group(number).num_rows
                with open(file, "rb") as content:
                    while block := content.read(_BLOCK):
                        read.update(block)
        self.digest = read.hexdigest()
        other = next((i for i, schema in enumerate(schemas) if schema != schemas[0]), None)
        if other is not None:
            raise ValueError(
                f"The files {files[0]!r} and {files[other]!r} have other columns, or columns of "
                "other types; write them to folders of their own."
            )
        self._schema = schemas[0]

    def __len__(self) -> int:
        return self._count

    def between(self, start: int, stop: int) -> list[Row]:
        """See `Rows`."""
        first = bisect.bisect_right(self._groups, start, key=lambda group: group.row) - 1
        rows: list[Row] = []
        for group in self._groups[max(first, 0) :]:
            if group.row >= stop:
                break
            with _told(group.file):
                table = pyarrow.parquet.ParquetFile(group.file).read_row_group(group.number)
            begin = max(start - group.row, 0)
            rows += table.slice(begin, max(stop - group.row - begin, 0)).to_pylist()
        return rows

    def place(self, number: int) -> str:
        """See `Rows`."""
        return line_of_row(self._files, number) or f"row {number}"

    def schema(self) -> pyarrow.Schema:
        """See `Rows`."""
        return self._schema


@contextmanager
def _told(file: str) -> Iterator[None]:
    """Turn what keeps a file from being read into a sentence."""
    try:
        yield
    except (OSError, EOFError, pyarrow.ArrowException) as error:
        cause = getattr(error, "strerror", None) or " ".join(str(error).split()).rstrip(".")
        raise ValueError(f"Cannot read {file!r}: {cause}.") from error


def open_rows(pattern: str, text_column: str) -> Rows:
    """Open files of rows, and look at every row.

    Args:
        pattern: a path, or one with `*` for several files of one kind.
        text_column: where the text of a row stands.

    Raises:
        ValueError: for files of no or of several kinds, that cannot be read or hold no row.
    """
    try:
        files = [pattern] if os.path.isfile(pattern) else local_files(pattern)
    except FileNotFoundError as error:
        if os.path.isdir(pattern):
            raise ValueError(
                f"{pattern!r} is a folder; name the files in it, such as "
                f"{os.path.join(pattern, '*.jsonl')!r}."
            ) from error
        raise ValueError(f"Cannot read {pattern!r}: No such file or directory.") from error
    kinds = sorted({suffix_of(file) for file in files})
    if len(kinds) > 1:
        raise ValueError(
            f"{pattern!r} stands for files of several kinds ({', '.join(kinds)}); name one kind."
        )
    if kinds[0] not in _READ and kinds[0].lower() in OTHER_FORMS:
        raise ValueError(
            f"{pattern!r} is no file of rows; write JSON Lines (.jsonl), Parquet (.parquet), or "
            "plain texts, one per line (.txt)."
        )
    rows: Rows = ParquetRows(files) if kinds[0] == ".parquet" else LineRows(files, text_column)
    if len(rows) == 0:
        raise ValueError(f"The file {pattern!r} is empty; write one text per line.")
    return rows


def look_at_rows(rows: Rows, text_column: str) -> Iterator[tuple[int, list[Row]]]:
    """Read all rows, some at a time, and see that each has a text that can be written from.

    Args:
        rows: any number.
        text_column: where the text of a row stands.

    Yields:
        The number of the first of some rows, and these rows.

    Raises:
        ValueError: naming the first row that has no text, or one with a blank.
    """
    for start in range(0, len(rows), _READ_TOGETHER):
        some = rows.between(start, min(start + _READ_TOGETHER, len(rows)))
        for number, row in enumerate(some, start):
            if text_column not in row:
                raise ValueError(
                    f"{_begun(rows.place(number))} has no column {text_column!r}; name the one "
                    f"that holds the text with --text_column. It has: {', '.join(row) or 'none'}."
                )
            text = row[text_column]
            if not isinstance(text, str):
                raise ValueError(
                    f"{_begun(rows.place(number))} holds {type(text).__name__} in its column "
                    f"{text_column!r}, not a text."
                )
            check_no_blank(text, "this script")
            if _HALF.search(text):
                raise ValueError(
                    f"{_begun(rows.place(number))} holds half of a character in its column "
                    f"{text_column!r} (a surrogate alone, such as \\ud800), which no tokenizer "
                    "reads; mend the text."
                )
        yield start, some


def _begun(place: str) -> str:
    """Begin a sentence with the name of a place."""
    return place[0].upper() + place[1:]


def _schema_of_values(rows: Rows) -> pyarrow.Schema:
    """Find the types of values that are written without any, all rows looked at.

    Raises:
        ValueError: for a column that no type holds all of.
    """
    schema = pyarrow.schema([])
    for start in range(0, len(rows), _READ_TOGETHER):
        stop = min(start + _READ_TOGETHER, len(rows))
        some = rows.between(start, stop)
        try:
            columns = list(dict.fromkeys(name for row in some for name in row))
            arrays = {name: pyarrow.array([row.get(name) for row in some]) for name in columns}
            found = pyarrow.table(arrays).schema
            schema = pyarrow.unify_schemas([schema, found], promote_options="permissive")
        except (pyarrow.ArrowException, OverflowError, UnicodeError) as error:
            raise ValueError(
                f"The rows {start} to {stop - 1} have a column of several types, or a value that "
                f"Parquet cannot hold ({error}); take --output_format jsonl."
            ) from error
    return schema
