"""A request that was read: what the engine is to do for it, and how its answer is worded."""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

# Called by a task in work with what is to be told of it at once.
Emit = Callable[[Any], None]
Json = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """What the engine does for a request, in one piece.

    Attributes:
        work: does it.
        rows: that it decodes side by side.
    """

    work: Callable[[Emit], Any]
    rows: int


@dataclass(frozen=True)
class Reading:
    """A request as it was understood.

    Attributes:
        tasks: what is to be done.
        answer: words the results of all tasks.
        stream: whether it is told as it comes about.
        tell: words what a task, by its number, has emitted.
        close: words the end of one task, by its number, in a stream.
        finish: words the end of the stream.
        log: the texts that went in, for a server that is asked to log them.
    """

    tasks: Sequence[Task]
    answer: Callable[[Sequence[Any]], Json]
    stream: bool
    tell: Callable[[int, Any], list[Json]]
    close: Callable[[int, Any], list[Json]]
    finish: Callable[[Sequence[Any]], list[Json]]
    log: Sequence[str] = field(default=())


def head(prefix: str, kind: str, model: str) -> Json:
    """Return what every answer begins with."""
    name = f"{prefix}-{uuid.uuid4().hex}"
    return {"id": name, "object": kind, "created": int(time.time()), "model": model}
