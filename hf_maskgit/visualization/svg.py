"""A text that comes about as an SVG picture that moves by itself, without scripts or fonts."""

import html
from collections.abc import Iterator

from .layout import DARK, LEGEND, LIGHT, Box, Theme, boxes_of, columns_of, share_of
from .recording import Shown, Unmasking, letters_of, said_of

_LETTER, _SIZE = 9.0, 15  # how far a letter of a monospaced font goes on, and how high it is
_LINE, _HIGH = 34, 25  # from line to line, and of a box
_MARGIN, _TOP, _FOOT = 18, 46, 34
_BAR = 3


def svg_of(
    unmasking: Unmasking,
    title: str = "",
    *,
    seconds_per_pass: float = 0.7,
    seconds_at_end: float = 3.0,
    width: int = 800,
) -> str:
    """Draw an SVG picture that moves by CSS, light or dark as its reader's system is.

    Where nothing moves, in an older program or because the reader asked for that, it shows the
    finished text. Over a token it says when that came and how likely it was.

    Args:
        unmasking: the text.
        title: stands above it.
        seconds_per_pass: how long a frame is seen.
        seconds_at_end: how long the finished text is.
        width: in pixels.

    Returns:
        The picture, which is well-formed XML whatever the tokens hold.
    """
    boxes = boxes_of(unmasking, lambda text: _LETTER * columns_of(text), width - 2 * _MARGIN, 4, 3)
    height = _TOP + (1 + max((box.line for box in boxes), default=0)) * _LINE + _FOOT
    spans: dict[tuple[int, int], str] = {}  # of frames, from the first to before the last, by class
    body = [_text("said", _MARGIN, 28, title), _text("said", _MARGIN, height - 14, LEGEND)]
    for number in range(len(unmasking.frames)):
        name = spans.setdefault((number, number + 1), f"f{len(spans)}")
        counted = _text(
            "said", width - _MARGIN, 28, _count(number, unmasking), ' text-anchor="end"'
        )
        body.append(f'<g class="{name}">{counted}</g>')
    for place, box in enumerate(boxes):
        for first, last, shown, new in _stretches(unmasking, place):
            name = spans.setdefault((first, last), f"f{len(spans)}")
            body.append(f'<g class="{name}">{_drawn(shown, new, box, unmasking)}</g>')
    style = "\n".join(_style(unmasking, spans, seconds_per_pass, seconds_at_end))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="{_safe(unmasking.text)}">\n'
        f'<style>\n{style}\n</style>\n<rect class="paper" width="{width}" height="{height}" '
        'rx="10"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _count(number: int, unmasking: Unmasking) -> str:
    return f"{number} of {unmasking.num_passes} passes"


def _stretches(unmasking: Unmasking, place: int) -> Iterator[tuple[int, int, Shown, bool]]:
    """Yield what a place shows: from frame, to before frame, what, and whether that is new."""
    states = [
        (frame[place], frame[place].step >= 0 and frame[place].step == number - 1)
        for number, frame in enumerate(unmasking.frames)
    ]
    first = 0
    for number in range(1, len(states) + 1):
        if number == len(states) or states[number] != states[first]:
            yield first, number, *states[first]
            first = number


def _drawn(shown: Shown, new: bool, box: Box, unmasking: Unmasking) -> str:
    x, y = _MARGIN + box.left, _TOP + box.line * _LINE
    said = f"<title>{_safe(said_of(shown, unmasking.num_passes))}</title>"
    size = f'x="{x:g}" y="{y}" width="{box.width:g}" height="{_HIGH}" rx="4"'
    if shown.text is None:
        return f'{said}<rect class="hidden" {size}/>'
    letters = _text("ink", x + 3, y + 17, shown.text)
    if shown.step < 0:
        return said + letters
    kind = f"p{shown.step}" + (" new" if new else "")
    behind = f'<rect class="{kind}" {size}/>'
    if shown.probability is None:
        return said + behind + letters
    sure = f'<rect class="b{shown.step}" x="{x + 3:g}" y="{y + _HIGH - _BAR - 1}" height="{_BAR}"'
    wide = (box.width - 6) * shown.probability
    return f'{said}{behind}{letters}{sure} width="{wide:.1f}"/>'


def _style(
    unmasking: Unmasking,
    spans: dict[tuple[int, int], str],
    seconds_per_pass: float,
    seconds_at_end: float,
) -> Iterator[str]:
    """Yield the rules: letters, colours of both themes, and when each class is seen."""
    yield (
        f"text {{ font: {_SIZE}px ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; "
        "white-space: pre; }\n"
        ".said { font-family: system-ui, sans-serif; font-size: 13px; }\n"
        "rect { stroke-width: 0; } .new { stroke-width: 1.5; }"
    )
    yield from _colours(LIGHT, unmasking)
    yield "@media (prefers-color-scheme: dark) {"
    yield from _colours(DARK, unmasking)
    yield "}"
    count = len(unmasking.frames)
    total = seconds_per_pass * (count - 1) + seconds_at_end
    at = [100 * seconds_per_pass * number / total for number in range(count)] + [100.0]
    moving = []
    for (first, last), name in spans.items():
        yield f".{name} {{ visibility: {'visible' if last == count else 'hidden'}; }}"
        moving.append(f"@keyframes {name} {{ {_keyframes(at[first], at[last])} }}")
        moving.append(f".{name} {{ animation: {name} {total:g}s step-end infinite; }}")
    yield from ["@media (prefers-reduced-motion: no-preference) {", *moving, "}"]


def _keyframes(first: float, last: float) -> str:
    seen, unseen = "visibility: visible", "visibility: hidden"
    marks = {0.0: unseen, first: seen, last: unseen, 100.0: seen if last == 100 else unseen}
    return " ".join(f"{mark:.3f}% {{ {what}; }}" for mark, what in marks.items())


def _colours(theme: Theme, unmasking: Unmasking) -> Iterator[str]:
    yield (
        f".paper {{ fill: {theme.paper}; }} .ink {{ fill: {theme.ink}; }} "
        f".said {{ fill: {theme.faint}; }} .hidden {{ fill: {theme.hidden}; }}"
    )
    steps = sorted({place.step for frame in unmasking.frames for place in frame} - {-1})
    for step in steps:
        share = share_of(step, unmasking.num_passes)
        behind, bar = theme.behind(share), theme.bar_of(share)
        yield f".p{step} {{ fill: {behind}; stroke: {bar}; }} .b{step} {{ fill: {bar}; }}"


def _text(kind: str, x: float, y: float, text: str, more: str = "") -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}"{more}>{_safe(text)}</text>'


def _safe(text: str) -> str:
    """Make a text that XML takes for nothing but text, on one line."""
    return html.escape(letters_of(text))
