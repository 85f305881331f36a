"""Texts that a model wrote or a user named, made safe to be shown: no control, no markup."""

import html
import re

# Control characters but for tab and line feed, halves of pairs, and marks that turn the direction
# of writing around: a terminal or a browser obeys them, and XML allows none of the first two.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufffe\uffff]"
)
_SIGNS = 0x2400  # where Unicode begins its signs for control characters


def visible(text: str) -> str:
    """Put a sign in the place of every control character: an escape shows as U+241B."""
    return _CONTROL.sub(_sign, text)


def plain(text: str) -> str:
    """Return a text of one line that HTML, and Markdown, take for nothing but text."""
    return html.escape(visible(" ".join(text.splitlines())), quote=False)


def _sign(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(_SIGNS + code)
    return "\N{SYMBOL FOR DELETE}" if code == 0x7F else "\N{REPLACEMENT CHARACTER}"
