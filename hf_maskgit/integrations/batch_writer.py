"""A generator as a function of batches of columns, as `datasets.map` and Ray Data call one.

A row's seed follows from a key of its own: its number, a column, or its text. So its result depends
neither on its neighbours nor on the process that an engine gives it to.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from ..core.argument_checks import check_whole
from ..core.noise import check_seed, mix
from ..core.options import shown
from ..core.pipeline_infilling import check_no_blank
from ..evaluation.processes import own_device
from ..hub.loading import load_generator
from ..rows.writer import RowWriter, checked_options
from ..rows.writing import Sample, in_batches


class BatchWriter:
    """Writes what becomes of the texts of a batch, into a column beside them.

    It holds no model until it is called, so that an engine may send it to its processes.

    Args:
        model: a folder or a name on the Hub.
        text_column: holds the texts, to fill or to continue.
        output_column: will hold what was written.
        key_column: holds what tells a row's draws from those of others, integers or texts; the
            numbers of the rows in the input give what `scripts/generate.py` gives. None takes the
            number where the engine tells it, else the text, so that equal texts become equal.
        seed: of all draws.
        batch_size: rows that pass through the model together.
        device: where the model lies; None is the process's own accelerator, else the CPU.
        **options: of `MaskGitGenerationConfig`, such as `max_new_tokens`.

    Raises:
        ValueError: for a `batch_size` below 1, a seed that is no integer, or options that do not go
            together.
    """

    def __init__(
        self,
        model: str,
        *,
        text_column: str = "text",
        output_column: str = "output",
        key_column: str | None = None,
        seed: int = 0,
        batch_size: int = 32,
        device: str | None = None,
        **options: Any,
    ) -> None:
        check_whole("batch_size", batch_size, least=1)
        check_seed(seed)
        checked_options(options)
        self.model, self.options, self.device = str(model), options, device
        self.text_column, self.output_column = text_column, output_column
        self.key_column, self.seed, self.batch_size = key_column, seed, batch_size
        self._writer: RowWriter | None = None

    def __call__(self, batch: Mapping[str, Any], *told: Any) -> dict[str, Any]:
        """Write what becomes of each row.

        Args:
            batch: a list or an array per column, all of B rows.
            *told: what `datasets.map` tells: the numbers of the rows (`with_indices=True`), the
                number of the process (`with_rank=True`), or both.

        Returns:
            The columns, with that of the results.

        Raises:
            ValueError: for a column that is missing or holds what it cannot.
        """
        rank = next((word for word in told if isinstance(word, int)), None)
        numbers = next((word for word in told if not isinstance(word, int | None)), None)
        texts = self._texts(batch)
        keys = self._keys(batch, texts, numbers)
        writer = self._loaded(rank)
        outputs = self._written(writer, texts, [mix(self.seed, key, 0) for key in keys])
        return {**batch, self.output_column: outputs}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the model: what is sent to a process, or hashed for a cache, is its name."""
        return {**self.__dict__, "_writer": None}

    def _texts(self, batch: Mapping[str, Any]) -> list[str]:
        texts = self._column(batch, self.text_column)
        for text in texts:
            check_no_blank(text, "a batch")
        if self.output_column in batch:
            raise ValueError(
                f"The rows have a column {self.output_column!r} already; name another "
                "`output_column`."
            )
        return texts

    def _column(self, batch: Mapping[str, Any], name: str) -> list[Any]:
        if name not in batch:
            raise ValueError(
                f"The rows have no column {name!r}; name the right one with `text_column` or "
                f"`key_column`. They have: {', '.join(batch) or 'none'}."
            )
        column = batch[name]
        values = column.tolist() if hasattr(column, "tolist") else column
        if isinstance(values, str | bytes) or not isinstance(values, Iterable):
            raise ValueError(
                f"A batch holds a list or an array per column, and its column {name!r} holds one "
                f"value, {shown(values)}; with `datasets`, call map(..., batched=True)."
            )
        return list(values)

    def _keys(
        self, batch: Mapping[str, Any], texts: Sequence[str], numbers: Sequence[int] | None
    ) -> list[int]:
        if self.key_column is not None:
            return [key_of(value) for value in self._column(batch, self.key_column)]
        return list(numbers) if numbers is not None else [key_of(text) for text in texts]

    def _loaded(self, rank: int | None) -> RowWriter:
        if self._writer is None:
            device = own_device() if self.device is None else torch.device(self.device)
            if self.device is None and rank is not None and device.type != "cpu":
                count = torch.accelerator.device_count()
                device = torch.device(device.type, rank % count)
            model, tokenizer = load_generator(self.model, device_map=device)
            self._writer = RowWriter(model, tokenizer, self.options)
            self._writer.lengths(1)  # refuses a list, of which no row has its own
        return self._writer

    def _written(self, writer: RowWriter, texts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        tokens, readings = writer.measure(texts)
        writer.check_readings(readings, texts.__getitem__)
        samples = [
            Sample(number, {}, text, number, 0, seed)
            for number, (text, seed) in enumerate(zip(texts, seeds, strict=True))
        ]
        samples.sort(key=lambda s: (writer.is_filled(s.text), tokens[s.number]))
        length_of = writer.lengths(1)
        outputs = [""] * len(texts)
        for some in in_batches(samples, self.batch_size, writer.is_filled):
            lengths = None if length_of is None else [length_of(0) for _ in some]
            made = writer.write([s.text for s in some], [s.seed for s in some], lengths)
            for sample, output in zip(some, made, strict=True):
                outputs[sample.number] = output
        return outputs


def key_of(value: Any) -> int:
    """Return the integer that tells a row's draws from those of others.

    Args:
        value: an integer, which it is, or a text.

    Raises:
        ValueError: for anything else.
    """
    if isinstance(value, str):
        digest = hashlib.sha256(value.encode(errors="surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") >> 1
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError(
        f"A key of a row must be an integer or a text, got {shown(value)} of type "
        f"{type(value).__name__}; name another `key_column`."
    )
