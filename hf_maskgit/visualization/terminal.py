"""A text that comes about in the terminal: pass under pass, or one line that changes."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..core.extras import needs
from ..hub.visible import visible
from .recording import (
    Frame,
    Unmasking,
    UnmaskingRecorder,
    from_steps,
    letters_of,
    record_unmasking,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text
    from transformers import PreTrainedTokenizerBase

    from ..core.decoding_state import DecodingState
    from ..core.modeling_maskgit import MaskGitForMaskedLM

_HIDDEN = "\N{MIDDLE DOT}" * 3
_STYLES = {"known": "cyan", "hidden": "bright_black", "new": "bold green", "old": "default"}


def lines_of(unmasking: Unmasking) -> "list[Text]":
    """Write a text as it stood before the first pass and after each one.

    Returns:
        One line per pass: known tokens, masks as dots, what this pass revealed in bold.

    Raises:
        ImportError: when the package rich is not installed.
    """
    return [_line(frame, number) for number, frame in enumerate(unmasking.frames)]


def unmasking_lines(
    tokens: Sequence[str], reveal_steps: Sequence[int], skip: Sequence[str] = ()
) -> "list[Text]":
    """Write the `lines_of` a text whose tokens and passes are known.

    Args:
        tokens: the finished text's tokens; a leading "##" joins a piece to the token before.
        reveal_steps: pass in which each was revealed, from 0; -1 for a known token.
        skip: tokens to leave out, for example padding.

    Raises:
        ImportError: when the package rich is not installed.
    """
    return lines_of(from_steps(tokens, reveal_steps, skip))


def unmasking_of(
    model: "MaskGitForMaskedLM", tokenizer: "PreTrainedTokenizerBase", **options: Any
) -> "list[Text]":
    """Let a generator write a text, and return the `lines_of` it.

    Args:
        model: writes.
        tokenizer: its own; its special tokens are left out.
        **options: of `generate`, for one row.

    Raises:
        ImportError: when the package rich is not installed.
    """
    return lines_of(record_unmasking(model, tokenizer, **options))


def print_unmasking(lines: "Sequence[Text]", console: "Console | None" = None) -> None:
    """Print lines with their colours where the terminal has them."""
    console = console or _rich("console").Console()
    for line in lines:
        console.print(line, soft_wrap=True)


def save_unmasking(lines: "Sequence[Text]", path: str | Path, title: str) -> None:
    """Save lines as an SVG picture that stands still and needs nothing from the network."""
    width = max(len(line) for line in lines) + 2
    console = _rich("console").Console(
        record=True, width=width, file=io.StringIO(), force_terminal=True
    )
    print_unmasking(lines, console)
    # rich's own template fetches its font from the network.
    template = _rich("_export_format").CONSOLE_SVG_FORMAT
    template = re.sub(r"@font-face \{\{.*?\}\}", "", template, flags=re.DOTALL)
    picture = console.export_svg(title=visible(title), code_format=template)
    Path(path).write_text(picture, encoding="utf-8")


class LiveUnmasking:
    """Shows a text while it comes about: `callback_on_step_end` of `generate`, inside a `with`.

    In a terminal one line changes in its place; anywhere else each pass has a line of its own.

        with LiveUnmasking(tokenizer) as live:
            model.generate(max_new_tokens=24, callback_on_step_end=live)

    Args:
        tokenizer: the model's.
        row: which of the returned rows.
        joined: write no space between tokens, as in proteins and molecules.
        console: where to; None for the terminal.

    Raises:
        ImportError: when the package rich is not installed.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        row: int = 0,
        joined: bool = False,
        console: "Console | None" = None,
    ) -> None:
        self._console = console or _rich("console").Console()
        self._live: Any = None
        if self._console.is_terminal:
            self._live = _rich("live").Live(console=self._console, auto_refresh=False)
        self.recorder = UnmaskingRecorder(tokenizer, row, joined, on_frame=self.show)
        self._number = 0

    def __enter__(self) -> "LiveUnmasking":
        """Take over the terminal's last line."""
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the finished text in the terminal."""
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def __call__(self, step: int, state: "DecodingState") -> None:
        """Show the row as it stands after a pass."""
        self.recorder(step, state)

    def show(self, frame: Frame) -> None:
        """Show one frame, the next in turn."""
        line = _line(frame, self._number)
        self._number += 1
        if self._live is None:
            print_unmasking([line], self._console)
        else:
            self._live.update(line, refresh=True)


def error_console() -> "Console":
    """Return the console of standard error.

    Raises:
        ImportError: when the package rich is not installed.
    """
    console: Console = _rich("console").Console(stderr=True)
    return console


def _line(frame: Frame, number: int) -> "Text":
    line: Text = _rich("text").Text().append(f"{number:>3}  ", style="dim")
    for shown in frame:
        kind = "hidden" if shown.text is None else "known" if shown.step < 0 else "old"
        kind = "new" if shown.step == number - 1 >= 0 else kind
        letters = _HIDDEN if shown.text is None else letters_of(shown.text)
        # A piece that is still hidden is shown apart: nobody knows yet that it will be joined.
        line.append("" if shown.joined else " ").append(letters, style=_STYLES[kind])
    return line


def check_rich() -> None:
    """Raise an ImportError where rich is not installed."""
    _rich("console")


def _rich(module: str) -> Any:
    with needs("Showing how a text came about needs the package rich", "visualization"):
        return __import__(f"rich.{module}", fromlist=["rich"])
