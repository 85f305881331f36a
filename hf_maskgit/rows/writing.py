"""Many rows are written: which samples make which part and batch, and who writes them.

Batches are fixed by the input and the options, never by the number of processes: the same rows pass
through the model side by side however many machines there are, and become the same bytes.
"""

import logging
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow

from ..core.noise import mix
from ..core.unknown_tokens import Reading
from ..evaluation.progress import ProgressBar
from ..training.run_lock import HeldError
from .parts import FORMATS, LINES, PartsFolder
from .reading import Row, Rows, look_at_rows
from .writer import RowWriter

logger = logging.getLogger(__name__)
_BETWEEN_LOOKS = 5.0  # seconds, at what others have written


class Sample(NamedTuple):
    """One sample to write.

    Attributes:
        number: among all samples.
        row: what stands in the file.
        text: of the row.
        row_number: of the row.
        sample: its number among those of its row.
        seed: of its draws.
    """

    number: int
    row: Row
    text: str
    row_number: int
    sample: int
    seed: int


@dataclass(frozen=True)
class RowOptions:
    """How rows become samples, and samples results.

    Attributes:
        text_column: where the text of a row stands.
        output_column: where what was written will stand.
        num_samples: of each row.
        batch_size: samples that are written together.
        seed: of all.
        output_format: one of `FORMATS`.
    """

    text_column: str = "text"
    output_column: str = "output"
    num_samples: int = 1
    batch_size: int = 32
    seed: int = 0
    output_format: str = "jsonl"

    def samples(self, rows: Rows, span: range) -> list[Sample]:
        """Return some of all samples, by their numbers: a row's stand side by side."""
        each = self.num_samples
        first = span.start // each
        read = rows.between(first, -(-span.stop // each))
        return [
            Sample(
                number,
                row := read[number // each - first],
                row[self.text_column],
                number // each,
                number % each,
                mix(self.seed, number // each, number % each),
            )
            for number in span
        ]

    def record(self, sample: Sample, output: str) -> dict[str, Any]:
        """Return what is written of a sample: its row, and beside it what became of its text."""
        own = {"sample": sample.sample, "seed": sample.seed, self.output_column: output}
        return {**sample.row, **own}

    def check(self, rows: Rows) -> None:
        """Look at every row before the first is written.

        Raises:
            ValueError: for a row without a text, one whose columns the result's would replace, or
                one that the format cannot hold.
        """
        line = LINES.get(self.output_format)
        for start, some in look_at_rows(rows, self.text_column):
            for number, row in enumerate(some, start):
                taken = {"sample", "seed", self.output_column} & row.keys()
                if taken:
                    raise ValueError(
                        f"The column {min(taken)!r} of {rows.place(number)} has the name of one of "
                        "the result's (sample, seed and --output_column); call it otherwise."
                    )
                if line is not None:
                    line(self.record(Sample(0, row, "", number, 0, 0), ""), self.output_column)

    def schema(self, rows: Rows) -> pyarrow.Schema | None:
        """Return the types of the results' columns, where the format wants them."""
        if not FORMATS[self.output_format].typed:
            return None
        own = [("sample", pyarrow.int64()), ("seed", pyarrow.int64())]
        schema = rows.schema()
        for name, kind in (*own, (self.output_column, pyarrow.string())):
            schema = schema.append(pyarrow.field(name, kind))
        return schema


def in_batches(samples: Sequence[Sample], batch_size: int, kind: Any) -> list[list[Sample]]:
    """Group samples that are alike.

    Args:
        samples: in the order in which they are to be grouped.
        batch_size: samples of a batch at most.
        kind: tells of a text what others of its batch must share with it.
    """
    batches: list[list[Sample]] = []
    for sample in samples:
        last = batches[-1] if batches else []
        if not last or len(last) == batch_size or kind(sample.text) != kind(last[0].text):
            batches.append([])
        batches[-1].append(sample)
    return batches


class PartsWriter:
    """Writes the parts of a folder.

    Args:
        writer: of rows.
        rows: all of the input.
        options: how they become results.
        folder: of the parts.

    Raises:
        ValueError: for a row that cannot be written from.
    """

    def __init__(
        self, writer: RowWriter, rows: Rows, options: RowOptions, folder: PartsFolder
    ) -> None:
        self._writer, self._rows, self._options, self._folder = writer, rows, options, folder
        self._length_of = writer.lengths(len(rows))
        options.check(rows)
        self._schema = options.schema(rows)
        self._tokens: dict[int, array[int]] = {}  # of each row of a part that is not written yet

    def write(self, rank: int, world: int) -> None:
        """Write this process's parts, and those of others that nobody has begun.

        Args:
            rank: number of the process.
            world: how many there are.

        Raises:
            ValueError: for a text of this process's parts that is mostly unknown to the tokenizer
                or too long for the model, before the first is written.
            RuntimeError: when a part cannot be written.
        """
        folder = self._folder
        own = [p for p in range(rank, folder.count, world) if not folder.path(p).exists()]
        self._check_texts(own)
        done, total = folder.num_done(), folder.num_samples
        how = {"done": done, "shown": rank == 0, "tells_pace": True}
        with ProgressBar("Writing", total, "sample", **how) as told:  # type: ignore[arg-type]
            look = _Look(folder, told, done, shown=rank == 0)
            for part in folder.order(rank, world):
                if folder.path(part).exists():
                    continue
                try:
                    with folder.held(part):
                        if not folder.path(part).exists():  # until it was held
                            self._write_part(part, look)
                except HeldError:
                    logger.debug("Part %d is another's.", part)
            look(0.0)
        if not folder.tidy():
            logger.info(
                "Process %d of %d has no part left to write; other processes are at the last ones.",
                *(rank, world),
            )

    def _check_texts(self, parts: Sequence[int]) -> None:
        """Read the texts of some parts with the tokenizer, and keep how long they are."""
        readings, numbers = list[Reading](), list[int]()
        for part in parts:
            row_numbers, texts, tokens, read = self._measured(part)
            self._tokens[part] = array("l", tokens)
            self._check_room(row_numbers, texts, tokens)
            # what is known all through is counted, and not kept
            strange = [i for i, reading in enumerate(read) if reading.unknown]
            known = sum(reading.words for reading in read if not reading.unknown)
            readings += [read[i] for i in strange] + [Reading(words=known, noun=read[0].noun)]
            numbers += [row_numbers[i] for i in strange] + [row_numbers[0]]
        column = self._options.text_column
        self._writer.check_readings(
            readings, lambda i: self._rows.between(numbers[i], numbers[i] + 1)[0][column]
        )

    def _measured(self, part: int) -> tuple[range, list[str], list[int], list[Reading]]:
        """Return the numbers of a part's rows, their texts, tokens, and what is known of them."""
        span, each = self._folder.span(part), self._options.num_samples
        numbers = range(span.start // each, -(-span.stop // each))
        rows = self._rows.between(numbers.start, numbers.stop)
        texts = [row[self._options.text_column] for row in rows]
        return numbers, texts, *self._writer.measure(texts)

    def _check_room(self, numbers: range, texts: Sequence[str], tokens: Sequence[int]) -> None:
        most = self._writer.model.max_positions
        if most is None:
            return
        for number, text, count in zip(numbers, texts, tokens, strict=True):
            length = None if self._length_of is None else self._length_of(number)
            needed = count + self._writer.room(text, length)
            if needed > most:
                raise ValueError(
                    f"The text of {self._rows.place(number)} comes to {needed} tokens with what is "
                    f"written, and the encoder takes {most}. Shorten it, or ask for fewer "
                    "`max_new_tokens`."
                )

    def _write_part(self, part: int, look: "_Look") -> None:
        samples = self._options.samples(self._rows, self._folder.span(part))
        journal = self._folder.journal(part)
        written, results = journal.read(), dict[int, str]()
        for batch in self._batches(part, samples):
            numbers = tuple(sample.number for sample in batch)
            outputs = written.get(numbers)
            if outputs is None:
                outputs = self._writer.write(
                    [sample.text for sample in batch],
                    [sample.seed for sample in batch],
                    self._lengths(batch),
                )
                journal.append(numbers, outputs)
                look(_BETWEEN_LOOKS)
            results.update(zip(numbers, outputs, strict=True))
        records = [self._options.record(sample, results[sample.number]) for sample in samples]
        form = FORMATS[self._options.output_format]

        def write(path: Path) -> None:
            form.write(path, records, self._schema, self._options.output_column)

        self._folder.finish(part, write)

    def _batches(self, part: int, samples: Sequence[Sample]) -> list[list[Sample]]:
        """Group the samples of a part by their length, those to fill for themselves."""
        if part not in self._tokens:  # another's, whose process has looked at it
            self._tokens[part] = array("l", self._measured(part)[2])
        tokens, first = self._tokens.pop(part), samples[0].row_number
        lengths = self._lengths(samples) or [0] * len(samples)
        size = {
            sample.number: (
                self._writer.is_filled(sample.text),
                tokens[sample.row_number - first] + length,
            )
            for sample, length in zip(samples, lengths, strict=True)
        }
        alike = sorted(samples, key=lambda sample: size[sample.number])
        return in_batches(alike, self._options.batch_size, self._writer.is_filled)

    def _lengths(self, samples: Sequence[Sample]) -> list[int] | None:
        length_of: Callable[[int], int] | None = self._length_of
        return None if length_of is None else [length_of(s.row_number) for s in samples]


class _Look:
    """Tells a bar what all processes have written, now and then."""

    def __init__(self, folder: PartsFolder, told: ProgressBar, done: int, shown: bool) -> None:
        self._folder, self._told, self._done, self._shown = folder, told, done, shown
        self._at = time.monotonic()

    def __call__(self, seconds: float) -> None:
        """Look, where the last look is so many seconds ago."""
        if self._shown and time.monotonic() - self._at >= seconds:
            done = self._folder.num_done()
            self._told.update(done - self._done)
            self._done, self._at = done, time.monotonic()
