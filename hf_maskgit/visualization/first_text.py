"""The first text that a program writes: shown while it comes about, saved when it is finished."""

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from transformers.utils import logging

from .animation import check_animation_path, save_animation
from .recording import UnmaskingRecorder
from .terminal import LiveUnmasking, error_console

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.get_logger(__name__)


class FirstText:
    """Looks on while the first text of the first batch comes about.

    Args:
        tokenizer: the model's.
        show: show it on standard error.
        path: save it there, see `save_animation`; None saves nothing.

    Raises:
        ImportError: to show it, when the package rich is not installed.
        ValueError: for a path that nothing can be saved to.
    """

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", show: bool, path: str | Path | None
    ) -> None:
        if path is not None:
            check_animation_path(path)
        self.shows, self._path, self._stack = show, path, ExitStack()
        self._live = LiveUnmasking(tokenizer, console=error_console()) if show else None
        self._recorder = self._live.recorder if self._live else UnmaskingRecorder(tokenizer)
        self._waits = show or path is not None

    def __enter__(self) -> "FirstText":
        """Begin to look on."""
        if self._live is not None:
            self._stack.enter_context(self._live)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the terminal to others, however it ended."""
        self._stack.close()

    def options(self) -> dict[str, Any]:
        """Return what `generate` is to be called with besides; nothing when the text is there."""
        if not self._waits:
            return {}
        return {"callback_on_step_end": self._recorder, "return_dict_in_generate": True}

    def finish(self, written: Any) -> None:
        """Take what `generate` returned: the text is finished, shown and saved.

        A picture that cannot be saved is warned of: the text is not to be lost with it.

        Raises:
            ValueError: when no pass was made.
        """
        if not self._waits:
            return
        self._waits = False
        self._stack.close()
        unmasking = self._recorder.unmasking(written.sequences[0])
        if self._path is not None:
            try:
                save_animation(unmasking, self._path, unmasking.summary)
            except (ValueError, OSError) as error:
                logger.warning("The animation was not saved. %s", error)
