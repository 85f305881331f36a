"""A folder of results in parts, each written by one process: batch by batch, then in order at once.

What a part becomes follows from the input and the options alone. So any number of processes, of one
launch or of several, on one machine or on many, may write to a folder: each takes parts that nobody
holds, and a killed one is taken up behind its last whole batch.
"""

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet

from ..evaluation.written_folders import NOTED, claim_folder
from ..training.run_files import UNFINISHED, sync, told_if_it_fails
from ..training.run_lock import RunLock
from .crowd_lock import CrowdLock

Record = Mapping[str, Any]
_ADVICE = "Make room, or see to the folder, and run the same command again: it goes on."


class Format(NamedTuple):
    """How results are written.

    Attributes:
        suffix: of a part's file.
        write: writes all results of a part to a new file, given their schema.
        typed: whether a schema is wanted.
    """

    suffix: str
    write: Callable[[Path, Sequence[Record], pyarrow.Schema | None, str], None]
    typed: bool = False


def text_line(record: Record, output_column: str) -> str:
    r"""Write a result as one line of a text: its line breaks as \n, and \r."""
    return str(record[output_column]).replace("\n", "\\n").replace("\r", "\\r")


def json_line(record: Record, output_column: str) -> str:
    """Write a result as one line of JSON.

    Raises:
        ValueError: for a value that JSON does not have.
    """
    try:
        line = json.dumps(record, ensure_ascii=False, allow_nan=False)
        line.encode()
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"JSON cannot hold a value of the row {str(record)[:200]} ({error}); take "
            "--output_format parquet, or leave the column out."
        ) from error
    return line


# Each kind of line, by the name of its format.
LINES: dict[str, Callable[[Record, str], str]] = {"text": text_line, "jsonl": json_line}


def _write_lines(name: str) -> Callable[..., None]:
    def write(
        path: Path, records: Sequence[Record], schema: pyarrow.Schema | None, output_column: str
    ) -> None:
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{LINES[name](record, output_column)}\n" for record in records)

    return write


def _write_parquet(
    path: Path, records: Sequence[Record], schema: pyarrow.Schema | None, output_column: str
) -> None:
    table = pyarrow.Table.from_pylist([dict(record) for record in records], schema=schema)
    pyarrow.parquet.write_table(table, path)


FORMATS: dict[str, Format] = {
    "text": Format(".txt", _write_lines("text")),
    "jsonl": Format(".jsonl", _write_lines("jsonl")),
    "parquet": Format(".parquet", _write_parquet, typed=True),
}


class PartsFolder:
    """The folder, and where in it each part stands.

    Args:
        folder: made where it is missing.
        num_samples: of all parts.
        samples_per_part: of each but the last.
        suffix: of the files.
    """

    def __init__(self, folder: Path, num_samples: int, samples_per_part: int, suffix: str) -> None:
        self.folder, self._suffix = folder, suffix
        self.num_samples, self._each = num_samples, samples_per_part
        self.count = -(-num_samples // samples_per_part)

    @contextlib.contextmanager
    def claimed(self, decides: Mapping[str, Any]) -> Iterator[None]:
        """Make the folder, or see that it was written in the same way; within, it stays so.

        A folder in which nothing was written, and nobody is about to, may have other options.

        Args:
            decides: options that decide what is written, as JSON takes them.

        Raises:
            RuntimeError: when it cannot be made or written.
            ValueError: for a folder of other options, or of files that nobody knows.
        """
        noted = json.loads(json.dumps(dict(decides)))  # as it will be read back
        with contextlib.ExitStack() as held:
            with told_if_it_fails(self.folder, _ADVICE):
                self._claim(noted, held)
            yield

    def _claim(self, decides: Mapping[str, Any], held: contextlib.ExitStack) -> None:
        foreign = self._foreign()
        if foreign and not (self.folder / NOTED).exists():
            raise ValueError(
                f"The folder {str(self.folder)!r} holds other files, such as {foreign[0]!r}; name "
                "an empty or a new one with --output_file."
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = held.enter_context(CrowdLock(self.folder / f"{NOTED}.lock"))
        # All who write hold it together, so that whoever has it alone takes the folder from nobody.
        if lock.is_alone() and not any(name.startswith("part-") for name in self._foreign()):
            (self.folder / NOTED).unlink(missing_ok=True)
        lock.join()
        claim_folder(self.folder, decides, "output_file")

    def _foreign(self) -> list[str]:
        there = list(self.folder.iterdir()) if self.folder.is_dir() else []
        return [path.name for path in there if not path.name.startswith(NOTED)]

    def span(self, part: int) -> range:
        """Return the numbers of a part's samples."""
        return range(part * self._each, min((part + 1) * self._each, self.num_samples))

    def path(self, part: int) -> Path:
        """Return the file of a part, which is there when the part is finished."""
        return self.folder / f"part-{part:05d}-of-{self.count:05d}{self._suffix}"

    def held(self, part: int) -> RunLock:
        """Return a context in which no other process writes a part."""
        return RunLock(self.folder, f"part-{part:05d}.lock")

    def journal(self, part: int) -> "Journal":
        """Return what is written of a part that is not finished."""
        return Journal(self.folder / f"part-{part:05d}.unfinished")

    def finish(self, part: int, write: Callable[[Path], None]) -> None:
        """Put the file of a part in its place at once, and forget its journal.

        Args:
            part: its number.
            write: writes a new file.

        Raises:
            RuntimeError: when it cannot be written.
        """
        path = self.path(part)
        # of this process alone: where a file system has no locks, two may finish the same part
        whose = f"{socket.gethostname()}-{os.getpid()}"
        aside = path.with_name(f"{path.name}.{whose}{UNFINISHED}")
        with told_if_it_fails(path, _ADVICE):
            write(aside)
            sync(aside)
            aside.replace(path)
            self.journal(part).path.unlink(missing_ok=True)

    def order(self, rank: int, world: int) -> Iterator[int]:
        """Yield the parts that a process takes: its own, then what others have not begun.

        Args:
            rank: number of the process.
            world: how many there are.
        """
        yield from range(rank, self.count, world)
        # from the end, where those whose parts they are come last
        yield from (part for part in reversed(range(self.count)) if part % world != rank)

    def num_done(self) -> int:
        """Count the samples that are written, by whomever."""
        return sum(
            len(self.span(part))
            if self.path(part).exists()
            else sum(map(len, self.journal(part).read()))
            for part in range(self.count)
        )

    def tidy(self) -> bool:
        """Tell whether all parts are finished; what killed processes left then goes."""
        if not all(self.path(part).exists() for part in range(self.count)):
            return False
        for pattern in ("part-*.lock", "part-*.unfinished", f"part-*{UNFINISHED}", f"{NOTED}.*"):
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)
        return True


class Journal:
    """What is written of a part so far: a line per batch, which is there whole or does not count.

    Args:
        path: of the file; lines are only ever appended.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[tuple[int, ...], list[str]]:
        """Return the batches that are whole: the numbers of their samples, and what was written."""
        found: dict[tuple[int, ...], list[str]] = {}
        if not self.path.exists():
            return found
        for line in self._bytes().split(b"\n"):
            try:
                batch = json.loads(line)
                samples, outputs = tuple(batch["samples"]), batch["outputs"]
            except (ValueError, TypeError, KeyError):  # cut off as its process was killed
                continue
            if len(samples) == len(outputs):
                found.setdefault(samples, outputs)
        return found

    def append(self, samples: Sequence[int], outputs: Sequence[str]) -> None:
        """Write a batch down to the disk.

        Args:
            samples: their numbers.
            outputs: what was written, one per sample.

        Raises:
            RuntimeError: when it cannot be written.
        """
        line = json.dumps({"samples": list(samples), "outputs": list(outputs)}) + "\n"
        with told_if_it_fails(self.path, _ADVICE), self.path.open("ab") as file:
            # behind a line that was cut off a new one begins
            cut_off = file.tell() > 0 and not self._bytes().endswith(b"\n")
            file.write(b"\n" * cut_off + line.encode())
            file.flush()
            os.fsync(file.fileno())

    def _bytes(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:  # finished meanwhile by its process
            return b""
