"""Patterns of requests, compiled some at a time beside everything else."""

import copy
from queue import SimpleQueue
from typing import Any

from ..patterns.compiling import within
from .lines import Line
from .reader import Reader
from .tasks import Json


class Compilers:
    """Compiles the patterns of requests, each expression in a process of its own.

    Args:
        tokenizer: of the model.
        at_once: requests whose patterns are compiled at the same time.
        most: requests that may wait for it.
        seconds: that an expression gets.
    """

    def __init__(self, tokenizer: Any, at_once: int, most: int, seconds: float) -> None:
        self._line = Line(at_once, most, "compiler", "compiled")
        self._seconds = seconds
        # A tokenizer is not to be asked by two at once, and those of the model have work.
        self._tokenizers: SimpleQueue[Any] = SimpleQueue()
        for _ in range(at_once):
            self._tokenizers.put(copy.deepcopy(tokenizer))

    async def compile(self, fields: Json) -> Json:
        """Return the fields of a request with their patterns compiled.

        Raises:
            ValueError: for what is no pattern, or takes too long.
            QueueFull: when too many wait.
        """
        compiled: Json = await self._line.do(self._compile, fields)
        return compiled

    def close(self) -> None:
        """Begin with no further pattern."""
        self._line.close()

    def _compile(self, fields: Json) -> Json:
        tokenizer = self._tokenizers.get()
        try:
            with within(self._seconds):
                return Reader.compile(fields, tokenizer)
        finally:
            self._tokenizers.put(tokenizer)
