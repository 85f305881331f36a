"""Signals that ask a run to stop: it writes a checkpoint, says how to go on, and ends.

Slurm and Kubernetes send SIGTERM and allow some seconds, a closed terminal sends SIGHUP, Ctrl-C
SIGINT. A signal is noted and acted on between two updates, where a run can be resumed.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
# A launcher passes on the Ctrl-C that its processes got from the terminal as well. Only one that
# comes later than this is a second one of the user's.
_ECHO_SECONDS = 2.0


class RunStopped(KeyboardInterrupt):
    """A run that was asked to stop and did; its text says how to go on.

    Args:
        sentence: how to go on.
        signum: number of the signal.
    """

    def __init__(self, sentence: str, signum: int) -> None:
        super().__init__(sentence)
        self.exit_code = 128 + signum  # as a shell reports a program that a signal has ended


class _Abandoned(BaseException):
    """Leaves a piece of work that can be done again later."""


class StopSignals:
    """Notes signals while it is entered: `with StopSignals() as stop: ...`.

    A signal that the process ignores (`nohup`) stays ignored. Outside of the main thread nothing is
    noted. A second Ctrl-C is a plain KeyboardInterrupt.

    Args:
        speaks: whether to say that a signal was noted.

    Attributes:
        received: number of the first signal; None where there was none.
    """

    def __init__(self, speaks: bool = True) -> None:
        self.received: int | None = None
        self._speaks = speaks
        self._since = 0.0
        self._process = os.getpid()
        self._former: dict[int, Any] = {}
        self._may_abandon = False

    def __enter__(self) -> "StopSignals":
        """Begin to note signals."""
        if threading.current_thread() is threading.main_thread():
            for signum in _SIGNALS:
                if signal.getsignal(signum) is not signal.SIG_IGN:
                    self._former[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Put back what was done with signals before."""
        for signum, former in self._former.items():
            signal.signal(signum, former)
        self._former.clear()

    def finished(self, work: Callable[[], None], *, may_abandon: bool) -> bool:
        """Do a piece of work, unless a signal comes before its end.

        Args:
            work: can be done again later, and leaves nothing behind when an exception ends it.
            may_abandon: whether to leave it at once; processes that wait for each other must not.

        Returns:
            Whether it was done.
        """
        try:
            self._may_abandon = may_abandon
            if may_abandon and self.received is not None:
                return False
            work()
        except _Abandoned:
            return False
        finally:
            self._may_abandon = False
        return True

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a worker process that was forked meanwhile
            return
        if self.received is None:
            self.received, self._since = signum, time.monotonic()
            if self._speaks:
                # not by `print`, which must not be entered twice
                os.write(2, b"\nStopping: a checkpoint is written after this update.\n")
            if self._may_abandon:
                raise _Abandoned
        elif signum == signal.SIGINT and time.monotonic() - self._since > _ECHO_SECONDS:
            raise KeyboardInterrupt
