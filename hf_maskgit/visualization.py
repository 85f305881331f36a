"""Show how a text came about, pass by pass, in the terminal or as a picture."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .hub.visible import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text
    from transformers import PreTrainedTokenizerBase

    from .core.modeling_maskgit import MaskGitForMaskedLM

_HIDDEN = "\N{MIDDLE DOT}" * 3
_STYLES = {"known": "cyan", "hidden": "bright_black", "new": "bold green", "old": "default"}


def unmasking_lines(
    tokens: Sequence[str], reveal_steps: Sequence[int], skip: Sequence[str] = ()
) -> "list[Text]":
    """Write a text as it stood before the first pass and after each one.

    Args:
        tokens: the finished text's tokens; a leading "##" joins a piece to the token before.
        reveal_steps: pass in which each was revealed, from 0; -1 for a known token.
        skip: tokens to leave out, for example padding.

    Returns:
        One line per pass: known tokens, masks as dots, what this pass revealed in bold.

    Raises:
        ImportError: when the package rich is not installed.
    """
    text_of = _rich("text").Text
    lines = []
    for step in range(-1, max(reveal_steps, default=-1) + 1):
        line = text_of(f"{step + 1:>3}  ", style="dim")
        for token, revealed in zip(tokens, reveal_steps, strict=True):
            if token in skip:
                continue
            # A piece that is still hidden is shown apart: nobody knows yet that it will be joined.
            joined = token.startswith("##") and revealed <= step
            kind = "hidden" if revealed > step else "known" if revealed < 0 else "old"
            kind = "new" if revealed == step >= 0 else kind
            shown = _HIDDEN if kind == "hidden" else visible(token.removeprefix("##"))
            line.append("" if joined else " ").append(shown, style=_STYLES[kind])
        lines.append(line)
    return lines


def unmasking_of(
    model: "MaskGitForMaskedLM", tokenizer: "PreTrainedTokenizerBase", **options: Any
) -> "list[Text]":
    """Let a generator write a text, and return its `unmasking_lines`.

    Args:
        model: writes.
        tokenizer: its own; its special tokens are left out.
        **options: of `generate`, for one row.

    Raises:
        ImportError: when the package rich is not installed.
    """
    written: Any = model.generate(**options, return_dict_in_generate=True)
    tokens = tokenizer.convert_ids_to_tokens(written.sequences[0].tolist())
    return unmasking_lines(tokens, written.reveal_steps[0].tolist(), tokenizer.all_special_tokens)


def print_unmasking(lines: "Sequence[Text]", console: "Console | None" = None) -> None:
    """Print the lines of `unmasking_lines` with their colours where the terminal has them."""
    console = console or _rich("console").Console()
    for line in lines:
        console.print(line, soft_wrap=True)


def save_unmasking(lines: "Sequence[Text]", path: str | Path, title: str) -> None:
    """Save the lines of `unmasking_lines` as an SVG picture that needs nothing from the network."""
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


def _rich(module: str) -> Any:
    try:
        return __import__(f"rich.{module}", fromlist=["rich"])
    except ImportError as error:
        raise ImportError(
            "Showing how a text came about needs the package rich; install it with "
            "`pip install 'hf_maskgit[visualization]'`."
        ) from error
