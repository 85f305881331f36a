"""Patterns of requests, compiled some at a time beside everything else."""

import asyncio
import copy
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

from ..patterns.compiling import within
from .reader import Reader
from .tasks import Json


class Compilers:
    """Compiles the patterns of requests, each expression in a process of its own.

    Args:
        tokenizer: of the model.
        at_once: requests whose patterns are compiled at the same time; others wait.
        seconds: that an expression gets.
    """

    def __init__(self, tokenizer: Any, at_once: int, seconds: float) -> None:
        self._pool = ThreadPoolExecutor(at_once, "hf_maskgit compiler")
        self._seconds = seconds
        # A tokenizer is not to be asked by two at once, and those of the model have work.
        self._tokenizers: SimpleQueue[Any] = SimpleQueue()
        for _ in range(at_once):
            self._tokenizers.put(copy.deepcopy(tokenizer))

    async def compile(self, fields: Json) -> Json:
        """Return the fields of a request with their patterns compiled.

        Raises:
            ValueError: for what is no pattern, or takes too long.
        """
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._compile, fields)

    def close(self) -> None:
        """Begin with no further pattern."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _compile(self, fields: Json) -> Json:
        tokenizer = self._tokenizers.get()
        try:
            with within(self._seconds):
                return Reader.compile(fields, tokenizer)
        finally:
            self._tokenizers.put(tokenizer)
