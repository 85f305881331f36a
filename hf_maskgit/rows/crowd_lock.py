"""A lock that many processes hold together, or one of them alone."""

import os
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # pragma: no cover  # Windows
    fcntl = None  # type: ignore[assignment]

NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # Windows has none


class CrowdLock:
    """Hold a file together with others: `with CrowdLock(path) as lock: lock.join()`.

    The operating system gives the lock back when the process ends, killed or not. Where there are
    no locks, everyone is alone.

    Args:
        path: of the file; made where it is missing, and left behind.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> "CrowdLock":
        """Open the file, not locked yet."""
        # A link would lead elsewhere.
        self._opened = os.open(self._path, os.O_RDWR | os.O_CREAT | NO_LINK, 0o644)
        return self

    def __exit__(self, *error: object) -> None:
        """Give it back."""
        os.close(self._opened)

    def is_alone(self) -> bool:
        """Take the file alone, if nobody holds it; tells whether."""
        if fcntl is None:  # pragma: no cover
            return True
        try:
            fcntl.flock(self._opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        except OSError:  # a file system without locks
            return True
        return True

    def join(self) -> None:
        """Hold the file together with others, once nobody has it alone."""
        if fcntl is None:  # pragma: no cover
            return
        with suppress(OSError):
            fcntl.flock(self._opened, fcntl.LOCK_SH)
