"""Streams: examples that are made as they are wanted, the same at any layout, resumable exactly.

A stream is cut into *lanes*, whose number has nothing to do with that of processes or workers. A
lane has a part of the texts: of the files, where there are enough of them, else every so manieth
text. It reads them block by block, shuffles a block by a key of (seed, lane, block), and makes
examples of it by the very functions that make those of a data set. Behind its last text it begins
again, and its blocks and examples are counted on, so that a later pass shuffles and masks anew.

Where a lane stands is a few numbers: which block it is in, where each source stood as the block
began, and how many of the block's examples are given. To go on is to read that block again.
"""

import copy
import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from datasets import IterableDataset

from ..core.noise import keyed_generator
from ..core.unknown_tokens import check_read
from .files import malformed_line
from .framing import Framing
from .mixtures import shares_of
from .sources import files_within, place_of_row
from .tokenising import FaultyRowError, Tokenising, check_columns, reading_of_batch

LaneState = dict[str, Any]

_ROWS_AT_HAND = 256  # read from a source at once
_LONGEST_SILENCE = 100_000  # texts after one another without anything to learn
_DRAWING, _SHUFFLING = 0, 1  # what a lane draws for a block


@dataclass(frozen=True)
class StreamSource:
    """One source of a stream.

    Attributes:
        name: what the user called it.
        texts: its rows.
    """

    name: str
    texts: IterableDataset


class StreamedExamples:
    """The lanes of a stream, or of a mixture of several.

    Args:
        sources: at least one; all have the columns that are read.
        weights: how likely a text comes from each source, relative to the others; None for one.
        tokenise: makes bodies of rows.
        framing: makes examples of bodies.
        seed: of the shuffling, and of the draws from the sources.
        num_lanes: into how many lanes the texts are dealt.
        block_size: texts of a lane that are shuffled together.
        max_unknown_share: see `Tolerance`; each lane's first block is held to it.
        fill: what fills an example with ends of text; None fills none.

    Attributes:
        num_rows: None, as nobody knows how many examples there are.

    Raises:
        ValueError: for a missing column.
    """

    num_rows = None

    def __init__(
        self,
        sources: Sequence[StreamSource],
        weights: Sequence[float] | None,
        tokenise: Tokenising,
        framing: Framing,
        *,
        seed: int,
        num_lanes: int,
        block_size: int,
        max_unknown_share: float | None = None,
        fill: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        self.sources, self.tokenise, self.framing = list(sources), tokenise, framing
        self.shares = shares_of(weights or [1.0] * len(sources))
        self.seed, self.num_lanes, self.block_size = seed, num_lanes, block_size
        self.max_unknown_share, self.fill = max_unknown_share, fill
        for source in self.sources:
            if source.texts.column_names is not None:
                check_columns(source.texts.column_names, tokenise.form)

    def lane(self, number: int, state: LaneState | None = None) -> "Lane":
        """Open a lane at its beginning, or where `Lane.state` says that it stood."""
        return Lane(self, number, state)

    def checksum(self) -> str:
        """Tell this stream from another, without reading it: its sources, and its first block.

        A source is told by its name, where it is no local file; else by the names and sizes of its
        files, wherever they lie.
        """
        told: list[Any] = []
        for source in self.sources:
            files = files_within(source.name)
            sizes = [(os.path.basename(file), os.path.getsize(file)) for file in files]
            told.append(sizes or source.name)
        first = self.lane(0).next_block()
        content = [told, self.shares, asdict(self.framing), first]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Lane:
    """One lane of a stream: a run of examples without end.

    Args:
        stream: whose lane it is.
        number: which one, counted from 0.
        state: where it stood; None is the beginning.
    """

    def __init__(self, stream: StreamedExamples, number: int, state: LaneState | None) -> None:
        self.stream, self.number = stream, number
        state = state or {"examples": 0, "block": 0, "taken": 0, "places": None}
        self.examples = int(state["examples"])  # given so far, over all passes
        self._block, self._taken = int(state["block"]), int(state["taken"])
        self._places = state["places"] or [None] * len(stream.sources)
        self._readers = [
            SourceReader(source, number, stream.num_lanes, place)
            for source, place in zip(stream.sources, self._places, strict=True)
        ]
        self._made: list[dict[str, Any]] | None = None  # of the present block

    @property
    def state(self) -> LaneState:
        """Where it stands, as JSON can hold it."""
        return {
            "lane": self.number,
            "examples": self.examples,
            "block": self._block,
            "taken": self._taken,
            "places": copy.deepcopy(self._places),
        }

    def take(self, count: int) -> list[dict[str, Any]]:
        """Return the next examples, each with its `example_id`.

        Of all lanes together the n-th examples have the ids n x lanes, n x lanes + 1, ...

        Raises:
            ValueError: for a row that nothing can be learned from, or a source that cannot be read.
            RuntimeError: for a source that cannot be reached.
        """
        found: list[dict[str, Any]] = []
        silent = 0
        while len(found) < count:
            if self._made is None:
                self._made = self.next_block()
            if self._taken == len(self._made):
                silent = 0 if self._made else silent + self.stream.block_size
                if silent >= _LONGEST_SILENCE:
                    raise ValueError(
                        f"Lane {self.number} of the stream met {silent:,} texts after one another "
                        "that hold nothing to learn; see to the data."
                    )
                self._places = [reader.place for reader in self._readers]
                self._block, self._taken, self._made = self._block + 1, 0, None
                continue
            example = self._made[self._taken]
            number = self.examples * self.stream.num_lanes + self.number
            found.append({**example, "example_id": number})
            self._taken += 1
            self.examples += 1
        return found

    def next_block(self) -> list[dict[str, Any]]:
        """Read, shuffle and prepare the next texts; the examples they make, in order."""
        stream, key = self.stream, (self.stream.seed, self.number, self._block)
        shares = torch.tensor(stream.shares, dtype=torch.float64)
        draw = keyed_generator(*key, _DRAWING)
        drawn = torch.multinomial(shares, stream.block_size, replacement=True, generator=draw)
        read = [self._readers[number].read() for number in drawn.tolist()]
        order = torch.randperm(len(read), generator=keyed_generator(*key, _SHUFFLING)).tolist()
        form = stream.tokenise.form
        columns = [[read[i].example[name] for i in order] for name in form.columns]
        try:
            bodies = stream.tokenise(*columns, [read[i].name for i in order])
            made = stream.framing(bodies)
        except FaultyRowError as error:
            row = next(text for text in read if text.name == error.row)
            place = None if row.row is None else place_of_row(row.source, row.row)
            raise ValueError(f"{error}" + (f" It is {place}." if place else "")) from error
        if self._block == 0:
            what = f"the first texts of lane {self.number}"
            check_read(reading_of_batch(bodies), what, stream.max_unknown_share)
        del made["num_tokens"]
        rows = (dict(zip(made, row, strict=True)) for row in zip(*made.values(), strict=True))
        return [example if stream.fill is None else stream.fill(example) for example in rows]


@dataclass(frozen=True)
class ReadText:
    """One row of a source.

    Attributes:
        example: its columns.
        source: the source's name.
        name: of the row, in an error.
        row: its number in the whole source, where that is known.
    """

    example: dict[str, Any]
    source: str
    name: str
    row: int | None


class SourceReader:
    """Reads one lane's texts of one source, file by file and pass after pass.

    Args:
        source: to read.
        lane: whose texts.
        num_lanes: of how many.
        place: from `place` of another reader, to go on there; None begins.

    Attributes:
        whole: whether the lane has files of its own. If not, it reads all and takes every
            `num_lanes`-th text.
    """

    def __init__(
        self, source: StreamSource, lane: int, num_lanes: int, place: dict[str, int] | None
    ) -> None:
        self.source, self.lane, self.num_lanes = source, lane, num_lanes
        self.num_files = source.texts.num_shards
        self.whole = self.num_files >= num_lanes
        self._files = range(self.num_files)
        if self.whole:
            self._files = self._files[lane::num_lanes]
        place = place or {"pass": 0, "file": 0, "row": 0, "rows_before": 0}
        self._pass, self._file = place["pass"], place["file"]  # the n-th of the lane's files
        self._row, self._rows_before = place["row"], place["rows_before"]  # of that file, and the
        # rows of the files before it in this pass
        self._open(skip=self._row)

    @property
    def place(self) -> dict[str, int]:
        """Where it stands, as JSON can hold it."""
        return {
            "pass": self._pass,
            "file": self._file,
            "row": self._row,
            "rows_before": self._rows_before,
        }

    def read(self) -> ReadText:
        """Return the next text; behind the last one the first."""
        begun_here = self._rows_before + self._row == 0
        while True:
            example = self._next()
            if example is None:
                self._next_file()
                if self._file == 0:
                    self._check_not_empty(begun_here)
                    begun_here = True
                continue
            number = self._rows_before + self._row
            self._row += 1
            if self.whole or number % self.num_lanes == self.lane:
                of = f"lane {self.lane} of {self.source.name!r}"
                name = f"{number} of {of if self.whole else repr(self.source.name)}"
                return ReadText(example, self.source.name, name, None if self.whole else number)

    def _check_not_empty(self, begun_here: bool) -> None:
        """Refuse a lane that a whole pass had no text for."""
        if begun_here:
            raise ValueError(
                f"Lane {self.lane} of {self.num_lanes} gets no text of {self.source.name!r}, "
                "which has too few; lower `stream_lanes`, or train without `streaming`."
            )

    def _next_file(self) -> None:
        self._rows_before, self._row, self._file = self._rows_before + self._row, 0, self._file + 1
        if self._file == len(self._files):
            self._pass, self._file, self._rows_before = self._pass + 1, 0, 0
        self._open()

    def _open(self, skip: int = 0) -> None:
        """Open the present file behind its first rows.

        A data set can tell its own place too, but what it says is not exact where it is left twice
        (datasets 5.2), and a file and a row in it say all.
        """
        own = self.source.texts.shard(num_shards=self.num_files, index=self._files[self._file])
        # In batches, as a loader's worker that asks for rows one by one is given a part of them.
        self._tables = own.with_format("arrow").iter(batch_size=_ROWS_AT_HAND)
        self._at_hand: deque[dict[str, Any]] = deque()
        while skip:
            table = self._fetched()
            if table is None:
                raise ValueError(
                    f"The stream {self.source.name!r} has fewer rows than when it was left; resume "
                    "with the same data."
                )
            left = table.slice(min(skip, len(table)))
            skip -= len(table) - len(left)
            self._at_hand.extend(left.to_pylist())

    def _next(self) -> dict[str, Any] | None:
        if not self._at_hand:
            table = self._fetched()
            if table is None:
                return None
            self._at_hand.extend(table.to_pylist())
        return self._at_hand.popleft()

    def _fetched(self) -> Any:
        """Read the next rows of the file; None at its end."""
        try:
            return next(self._tables, None)
        except Exception as error:  # whatever a reader of files raises
            read = self._rows_before + self._row
            behind = f"behind row {read - 1} " if read else ""
            where = malformed_line(files_within(self.source.name)) or ""
            is_local = isinstance(error, ValueError) or not isinstance(error, OSError)
            raise (ValueError if is_local else RuntimeError)(
                f"The stream {self.source.name!r} cannot be read {behind}in lane {self.lane} "
                f"({type(error).__name__}: {error}). {where}".rstrip()
            ) from error
