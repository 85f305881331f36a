"""Lines of limited length in front of threads."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from .errors import QueueFull


class Line:
    """Work that waits for some threads; who leaves takes his along, unless it has begun.

    Args:
        threads: that work at once.
        most: that may wait.
        name: of the threads.
        what: the work, in words: "requests wait to be ..".
    """

    def __init__(self, threads: int, most: int, name: str, what: str) -> None:
        self._pool = ThreadPoolExecutor(threads, f"hf_maskgit {name}")
        self._threads, self._most, self._what = threads, most, what
        self._count, self._lock = 0, threading.Lock()

    async def do(self, work: Callable[..., Any], *given: Any) -> Any:
        """Do some work in its turn.

        Raises:
            QueueFull: when as many wait as may.
        """
        with self._lock:
            if self._count >= self._threads + self._most:
                raise QueueFull(
                    f"{self._count - self._threads} requests wait to be {self._what} already, and "
                    f"{self._most} may. Try again later."
                )
            self._count += 1
        future = self._pool.submit(work, *given)
        future.add_done_callback(self._leave)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Begin with nothing further."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _leave(self, future: "Future[Any]") -> None:
        with self._lock:
            self._count -= 1
