"""A frame as buttons on a page, one per token: what can be clicked, tabbed to and read aloud."""

import html
from collections.abc import Iterator

from ..hub.visible import visible
from .layout import DARK, LIGHT, share_of
from .recording import Frame, Shown, letters_of, said_of

# Of the page around the buttons; `dark` is the class that Gradio sets.
STYLE = f"""
.tokens {{ font-family: ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace;
  line-height: 2.2; overflow-wrap: anywhere; }}
.tokens button {{ font: inherit; line-height: 1.5; color: {LIGHT.ink}; background: transparent;
  border: 2px solid transparent; border-radius: .3rem; padding: .1rem .2rem; min-height: 2rem;
  min-width: 1.5rem; cursor: pointer; max-width: 100%; }}
.tokens button.came {{ background: linear-gradient(var(--bl), var(--bl)) left bottom /
  var(--sure) 3px no-repeat, var(--pl); }}
.tokens button.masked {{ background: {LIGHT.hidden}; }}
.tokens button.new {{ border-color: var(--bl); }}
.tokens button[aria-pressed=true] {{ outline: 3px solid {LIGHT.ink}; }}
.tokens .ten {{ display: inline-block; white-space: nowrap; margin: 0 .75rem .5rem 0; }}
.tokens .ten small {{ display: block; line-height: 1; color: {LIGHT.faint}; }}
.tokens button:focus-visible {{ outline: 3px solid {LIGHT.bar_of(0)}; }}
.drawn svg {{ max-width: 100%; height: auto; }}
.dark .tokens button {{ color: {DARK.ink}; }}
.dark .tokens button.came {{ background: linear-gradient(var(--bd), var(--bd)) left bottom /
  var(--sure) 3px no-repeat, var(--pd); }}
.dark .tokens button.masked {{ background: {DARK.hidden}; }}
.dark .tokens button.new {{ border-color: var(--bd); }}
.dark .tokens button[aria-pressed=true] {{ outline-color: {DARK.ink}; }}
.dark .tokens .ten small {{ color: {DARK.faint}; }}
.dark .tokens button:focus-visible {{ outline-color: {DARK.bar_of(0)}; }}
"""
_TEN = 10  # residues of a group in a ruler
# Signs that the templates of pages give a meaning to, beside those of HTML.
_OF_TEMPLATES = str.maketrans({sign: f"&#{ord(sign)};" for sign in "{}$`\\"})


def safe(text: str) -> str:
    """Make a text that HTML, and a template that it is put into, take for nothing but text."""
    return html.escape(visible(text)).translate(_OF_TEMPLATES)


def words_as_buttons(frame: Frame, num_passes: int, chosen: int | None, number: int) -> str:
    """Write a frame as buttons with spaces between words.

    Args:
        frame: the text.
        num_passes: of the filling, for the colours.
        chosen: place that is chosen, or None.
        number: passes that were made; what came in the last of them has an edge.

    Returns:
        HTML; the n-th button has `data-place` n, from 0.
    """
    buttons = _buttons(frame, num_passes, chosen, number)
    pairs = zip(frame, buttons, strict=True)
    inner = "".join(("" if shown.joined else " ") + button for shown, button in pairs)
    return f'<div class="tokens" role="group" aria-label="The text">{inner}</div>'


def ruler_as_buttons(frame: Frame, num_passes: int, chosen: int | None, number: int) -> str:
    """Write a frame as buttons in groups of ten, each under the number of its first.

    Args, and what is returned: as of `words_as_buttons`.
    """
    buttons = list(_buttons(frame, num_passes, chosen, number))
    tens = {start + 1: buttons[start : start + _TEN] for start in range(0, len(buttons), _TEN)}
    groups = [
        f'<span class="ten"><small>{first}</small>{"".join(ten)}</span>'
        for first, ten in tens.items()
    ]
    return f'<div class="tokens" role="group" aria-label="The sequence">{"".join(groups)}</div>'


def _buttons(frame: Frame, num_passes: int, chosen: int | None, number: int) -> Iterator[str]:
    for place, shown in enumerate(frame):
        name = "mask" if shown.text is None else letters_of(shown.text)
        said = f"{place + 1}, {name}: {said_of(shown, num_passes)}"
        letters = "\N{MIDDLE DOT}" * 2 if shown.text is None else letters_of(shown.text)
        kinds, style = _look(shown, num_passes, number)
        yield (
            f'<button type="button" data-place="{place}" class="{kinds}" style="{style}" '
            f'title="{safe(said)}" aria-label="{safe(said)}" '
            f'aria-pressed="{str(place == chosen).lower()}">{safe(letters)}</button>'
        )


def _look(shown: Shown, num_passes: int, number: int) -> tuple[str, str]:
    if shown.text is None:
        return "masked", ""
    if shown.step < 0:
        return "known", ""
    share = share_of(shown.step, num_passes)
    colours = {
        "--pl": LIGHT.behind(share),
        "--bl": LIGHT.bar_of(share),
        "--pd": DARK.behind(share),
        "--bd": DARK.bar_of(share),
        "--sure": f"{100 * (shown.probability or 0):.1f}%",
    }
    style = ";".join(f"{name}:{value}" for name, value in colours.items())
    return "came new" if shown.step == number - 1 else "came", style
