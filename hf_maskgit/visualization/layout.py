"""Where the tokens of a text stand on a picture and in which colours: the same for every format."""

import colorsys
import unicodedata
from collections.abc import Callable
from typing import NamedTuple

from .recording import Unmasking, letters_of

_EARLY, _LATE = 215, 25  # hues in degrees, blue and orange: told apart by the colour-blind as well
LEGEND = "colour: the pass, from blue to orange; bar: how sure"
_LEAST_LETTERS = "\N{MIDDLE DOT}" * 2  # a mask is no narrower
_UPON_OTHERS = ("Mn", "Me", "Cf")  # categories of letters without a place of their own
_WIDE = ("W", "F")


class Theme(NamedTuple):
    """Colours of a picture, "#rrggbb" each.

    Attributes:
        paper: behind all.
        ink: of letters.
        faint: of what is said beside the text.
        hidden: of a mask.
        tint: (lightness, saturation) of what is behind a revealed token, in [0, 1].
        bar: the same of the bar that shows its probability.
    """

    paper: str
    ink: str
    faint: str
    hidden: str
    tint: tuple[float, float]
    bar: tuple[float, float]

    def behind(self, share: float) -> str:
        """Return the colour behind a token that came at a share of the passes, in [0, 1]."""
        return _colour(share, self.tint)

    def bar_of(self, share: float) -> str:
        """Return the colour of the bar of such a token."""
        return _colour(share, self.bar)


LIGHT = Theme("#ffffff", "#16181d", "#5b6270", "#d3d7de", (0.88, 0.85), (0.42, 0.75))
DARK = Theme("#16181d", "#f0f2f5", "#a3abb8", "#3d4450", (0.20, 0.60), (0.66, 0.80))


class Box(NamedTuple):
    """Where a place stands, in units of the picture: its left end, its line from 0, its width."""

    left: float
    line: int
    width: float


def columns_of(text: str) -> int:
    """Count the columns of a monospaced font: two for a wide letter, none for a mark upon one."""
    return sum(
        0
        if unicodedata.category(letter) in _UPON_OTHERS
        else 1 + (unicodedata.east_asian_width(letter) in _WIDE)
        for letter in text
    )


def share_of(step: int, num_passes: int) -> float:
    """Return how late a pass is: 0 is the first, 1 the last."""
    return step / (num_passes - 1) if num_passes > 1 else 0.0


def boxes_of(
    unmasking: Unmasking,
    width_of: Callable[[str], float],
    line_width: float,
    space: float,
    padding: float,
) -> list[Box]:
    """Set the places of a text in lines, so that none moves from frame to frame.

    A place is as wide as the widest text that it ever holds. Lines break between words, and within
    a word that is longer than a line.

    Args:
        unmasking: the text.
        width_of: how wide letters are.
        line_width: of a line.
        space: between words; joined tokens touch.
        padding: on both sides of the letters of a place.
    """
    boxes: list[Box] = []
    left, line = 0.0, 0
    for places in _words(unmasking):
        widths = [_width(unmasking, place, width_of) + 2 * padding for place in places]
        if left and left + sum(widths) > line_width:
            left, line = 0.0, line + 1
        for width in widths:
            if left and left + width > line_width:
                left, line = 0.0, line + 1
            boxes.append(Box(left, line, width))
            left += width
        left += space
    return boxes


def _words(unmasking: Unmasking) -> list[list[int]]:
    """Group places that are joined when the text is finished."""
    words: list[list[int]] = []
    for place, shown in enumerate(unmasking.frames[-1]):
        if shown.joined and words:
            words[-1].append(place)
        else:
            words.append([place])
    return words


def _width(unmasking: Unmasking, place: int, width_of: Callable[[str], float]) -> float:
    texts = {frame[place].text for frame in unmasking.frames}
    return max(width_of(_LEAST_LETTERS if text is None else letters_of(text)) for text in texts)


def _colour(share: float, tone: tuple[float, float]) -> str:
    lightness, saturation = tone
    # Through violet and red, not through green: the way round the circle that stays even in tone.
    hue = (_EARLY + share * ((_LATE - _EARLY) % 360)) % 360 / 360
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, saturation)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"
