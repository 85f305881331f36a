"""One run per folder: a lock that goes with the process that holds it, however that ends."""

import logging
import os
import socket
from contextlib import suppress
from pathlib import Path
from types import TracebackType

try:
    import fcntl
except ImportError:  # pragma: no cover  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)
LOCK_NAME = "run.lock"
NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # Windows has none
# A process may lock a file as often as it likes, so runs of this one are told apart here.
_held: set[Path] = set()


class HeldError(ValueError):
    """Another run holds what a run wants for itself."""


class RunLock:
    """Hold a folder for one run: `with RunLock(output_dir): ...`.

    The operating system gives the lock back when the process ends, killed or not; the file that it
    leaves behind then says nothing. Worker processes do not inherit it.

    Args:
        folder: of the run; made where it is missing.
        name: of the file that is locked, where it is a part of the folder that is held.

    Raises:
        HeldError: when another run holds it, a ValueError.
        RuntimeError: when nothing can be written there.
    """

    def __init__(self, folder: str | Path, name: str = LOCK_NAME) -> None:
        self.path = Path(folder).resolve() / name
        self._opened: int | None = None

    def __enter__(self) -> "RunLock":
        """Take the lock."""
        if self.path in _held:
            raise self._refusal("this process")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._opened = self._locked_file()
        except BlockingIOError as error:
            raise self._refusal(self._holder()) from error
        except OSError as error:
            raise RuntimeError(
                f"Nothing can be written to `output_dir` {str(self.path.parent)!r}: "
                f"{error.strerror}. Name a folder that can be written to."
            ) from error
        _held.add(self.path)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give it back."""
        _held.discard(self.path)
        if self._opened is not None:
            # removed while it is still locked: a file of that name is then another run's
            with suppress(OSError):
                self.path.unlink()
            os.close(self._opened)
            self._opened = None

    def _locked_file(self) -> int:
        """Open and lock the file; one that its former holder removed meanwhile is opened anew."""
        while True:
            # A link would lead the lines below to a file outside of the folder.
            opened = os.open(self.path, os.O_RDWR | os.O_CREAT | NO_LINK, 0o644)
            try:
                self._lock(opened)
                with suppress(FileNotFoundError):
                    if os.fstat(opened).st_ino == os.stat(self.path).st_ino:
                        os.ftruncate(opened, 0)
                        os.write(
                            opened, f"process {os.getpid()} on {socket.gethostname()}".encode()
                        )
                        return opened
            except BaseException:
                os.close(opened)
                raise
            os.close(opened)

    def _lock(self, opened: int) -> None:
        if fcntl is None:  # pragma: no cover
            return
        try:
            fcntl.lockf(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except PermissionError as error:  # what some systems say of a lock that another holds
            raise BlockingIOError(*error.args) from error
        except OSError as error:
            logger.warning(
                "The file system of %s has no locks (%s): see that no other run writes there.",
                self.path.parent,
                error.strerror,
            )

    def _holder(self) -> str:
        try:
            return self.path.read_text(encoding="utf-8")[:200] or "another process"
        except (OSError, UnicodeDecodeError):
            return "another process"

    def _refusal(self, holder: str) -> HeldError:
        return HeldError(
            f"Another run writes to `output_dir` {str(self.path.parent)!r} ({holder}). Wait for "
            "its end, or name another folder."
        )
