"""A request in work: its tasks in the engine's thread, told of in the event loop."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, NamedTuple

from .engine import Engine, Job
from .tasks import Task


class Told(NamedTuple):
    """What a task has said.

    Attributes:
        task: its number.
        value: what it emitted, or its result.
        is_last: whether that is its result.
    """

    task: int
    value: Any
    is_last: bool


class Running:
    """The tasks of a request, from here on in the engine's hands.

    Args:
        engine: does them.
        tasks: all of the request's.
        seconds: that they may take.

    Raises:
        Refusal: when the engine does not take them up.
    """

    def __init__(self, engine: Engine, tasks: list[Task], seconds: float | None) -> None:
        self._engine, self._loop = engine, asyncio.get_running_loop()
        self._said: asyncio.Queue[Told | BaseException] = asyncio.Queue()
        self._open = set(range(len(tasks)))
        self._jobs = [
            Job(
                partial(task.work, partial(self._emit, i)),
                task.rows,
                partial(self._end, i),
                seconds,
            )
            for i, task in enumerate(tasks)
        ]
        engine.submit(*self._jobs)

    async def __aiter__(self) -> AsyncIterator[Told]:
        """Yield what is told until the last task is done; whoever leaves before ends them all.

        Raises:
            BaseException: what ended a task.
        """
        try:
            while self._open:
                said = await self._said.get()
                if isinstance(said, BaseException):
                    raise said
                if said.is_last:
                    self._open.remove(said.task)
                yield said
        finally:
            if self._open:
                self.cancel()

    def cancel(self) -> None:
        """End what is not done."""
        self._engine.cancel(*(self._jobs[task] for task in self._open))

    # What follows is called in the engine's thread.

    def _emit(self, task: int, value: Any) -> None:
        self._say(Told(task, value, False))

    def _end(self, task: int, result: Any, error: BaseException | None) -> None:
        self._say(Told(task, result, True) if error is None else error)

    def _say(self, said: Told | BaseException) -> None:
        if not self._loop.is_closed():  # nobody is there any more to listen
            self._loop.call_soon_threadsafe(self._said.put_nowait, said)
