"""A text that comes about as a picture of pixels that moves: GIF or WebP, drawn by Pillow."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from transformers.utils import logging

from ..core.extras import needs
from .layout import LEGEND, LIGHT, Box, Theme, boxes_of, share_of
from .recording import Frame, Unmasking, letters_of

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

logger = logging.get_logger(__name__)

_SCALE = 2  # pixels per unit, for screens with many
_SIZE, _SMALL = 16, 12
_LINE, _HIGH = 36, 27
_MARGIN, _TOP, _FOOT = 18, 46, 34
_BAR = 3
_LONGEST = {"GIF": 65_535, "WEBP": 16_383}  # pixels of a side that the formats can count
_MOST_PIXELS = 2**29  # of all frames, which lie in memory together
_NOWHERE = "\U0010ffff"  # no font has it: what it looks like is what is drawn for what is missing


def raster_of(
    unmasking: Unmasking,
    title: str = "",
    *,
    kind: str,
    seconds_per_pass: float = 0.7,
    seconds_at_end: float = 3.0,
    width: int = 800,
    font: str | Path | None = None,
    theme: Theme = LIGHT,
) -> bytes:
    """Draw a picture that moves.

    Args:
        unmasking: the text.
        title: stands above it.
        kind: "GIF" or "WEBP".
        seconds_per_pass: how long a frame is seen.
        seconds_at_end: how long the finished text is.
        width: in units of two pixels.
        font: file of a TrueType or OpenType font. None takes DejaVu Sans of matplotlib (extra
            `plots`) where that is installed, else Pillow's own, which has English letters alone.
        theme: colours.

    Returns:
        The file.

    Raises:
        ImportError: when Pillow is not installed.
        ValueError: for a font that cannot be read, and a text of more frames, or larger ones, than
            such a file holds.
    """
    image = _pillow("Image")
    pen = _Pen(font, theme, width, unmasking)
    pen.check_size(kind)
    pen.warn_of_missing(title)
    drawn = (pen.draw(number, title) for number in range(len(unmasking.frames)))
    if kind == "GIF":
        # One palette for all frames, so that nothing flickers; 128 colours hold all tones.
        palette = pen.draw(len(unmasking.frames) - 1, title).quantize(128, kmeans=2)
        drawn = (frame.quantize(palette=palette, dither=image.Dither.NONE) for frame in drawn)
    frames = list(drawn)
    durations = [round(1000 * seconds_per_pass)] * len(frames)
    durations[-1] = round(1000 * seconds_at_end)
    file = io.BytesIO()
    further = {"lossless": True, "method": 6} if kind == "WEBP" else {"optimize": True}
    frames[0].save(
        file,
        kind,
        save_all=True,
        append_images=frames[1:],
        duration=durations,
        loop=0,
        **further,
    )
    return file.getvalue()


class _Fonts(NamedTuple):
    text: "FreeTypeFont"
    small: "FreeTypeFont"


class _Pen:
    """Draws the frames of one text."""

    def __init__(
        self, font: str | Path | None, theme: Theme, width: int, unmasking: Unmasking
    ) -> None:
        self._fonts = _Fonts(_font(font, _SIZE * _SCALE), _font(font, _SMALL * _SCALE))
        self._theme, self._width, self._unmasking = theme, width, unmasking
        self._boxes = boxes_of(unmasking, self._width_of, width - 2 * _MARGIN, 5, 3)
        lines = 1 + max((box.line for box in self._boxes), default=0)
        self._height = _TOP + lines * _LINE + _FOOT

    def draw(self, number: int, title: str) -> "Image":
        """Draw one frame."""
        size = (self._width * _SCALE, self._height * _SCALE)
        picture = _pillow("Image").new("RGB", size, self._theme.paper)
        canvas = _pillow("ImageDraw").Draw(picture)
        self._say(canvas, (_MARGIN, 18), title)
        count = f"{number} of {self._unmasking.num_passes} passes"
        self._say(canvas, (self._width - _MARGIN, 18), count, anchor="ra")
        self._say(canvas, (_MARGIN, self._height - 26), LEGEND)
        frame: Frame = self._unmasking.frames[number]
        for shown, box in zip(frame, self._boxes, strict=True):
            self._box(canvas, shown, box, new=shown.step == number - 1 >= 0)
        return picture

    def check_size(self, kind: str) -> None:
        """Raise a ValueError where a file of this kind does not hold all frames."""
        sides, frames = (self._width * _SCALE, self._height * _SCALE), len(self._unmasking.frames)
        if max(sides) > _LONGEST[kind] or sides[0] * sides[1] * frames > _MOST_PIXELS:
            raise ValueError(
                f"The text takes {frames} frames of {sides[0]} x {sides[1]} pixels, which is more "
                f"than a {kind} picture holds here; save it as .html or .svg, which take texts of "
                "any length, or write it in fewer passes."
            )

    def warn_of_missing(self, title: str) -> None:
        """Warn of letters that the font does not have, which are drawn as an empty box."""
        font, letters = self._fonts.text, set(title)
        for frame in self._unmasking.frames:
            letters.update(*(letters_of(place.text or "") for place in frame))
        nothing = bytes(font.getmask(_NOWHERE))
        missing = sorted(
            c for c in letters if not c.isspace() and bytes(font.getmask(c)) == nothing
        )
        if missing:
            logger.warning(
                "The font %s lacks %s, which the picture shows as empty boxes; name a font that "
                "has them.",
                " ".join(filter(None, font.getname())),
                ", ".join(f"U+{ord(c):04X}" for c in missing[:10]),
            )

    def _width_of(self, text: str) -> float:
        return float(self._fonts.text.getlength(text)) / _SCALE

    def _say(self, canvas: Any, at: tuple[float, float], text: str, anchor: str = "la") -> None:
        place = (at[0] * _SCALE, at[1] * _SCALE)
        faint, small = self._theme.faint, self._fonts.small
        canvas.text(place, letters_of(text), fill=faint, font=small, anchor=anchor)

    def _box(self, canvas: Any, shown: Any, box: Box, new: bool) -> None:
        left, top = _MARGIN + box.left, _TOP + box.line * _LINE
        right, foot = left + box.width, top + _HIGH
        corners = _scaled(left, top, right, foot)
        if shown.text is None:
            canvas.rounded_rectangle(corners, 4 * _SCALE, fill=self._theme.hidden)
            return
        if shown.step >= 0:
            share = share_of(shown.step, self._unmasking.num_passes)
            bar = self._theme.bar_of(share)
            edge = {"outline": bar, "width": _SCALE} if new else {}
            canvas.rounded_rectangle(corners, 4 * _SCALE, fill=self._theme.behind(share), **edge)
            if shown.probability is not None:
                long = (box.width - 6) * shown.probability
                bottom = foot - 1.5
                canvas.rectangle(
                    _scaled(left + 3, bottom - _BAR, left + 3 + long, bottom), fill=bar
                )
        place = ((left + 3) * _SCALE, (top + 18) * _SCALE)
        letters, font = letters_of(shown.text), self._fonts.text
        canvas.text(place, letters, fill=self._theme.ink, font=font, anchor="ls")


def _scaled(*units: float) -> Sequence[float]:
    return [_SCALE * unit for unit in units]


def _font(path: str | Path | None, size: int) -> "FreeTypeFont":
    fonts = _pillow("ImageFont")
    if path is None:
        path = _dejavu()
    if path is None:
        return fonts.load_default(size)
    try:
        return fonts.truetype(str(path), size)
    except OSError as error:
        raise ValueError(
            f"{str(path)!r} is no font that can be read ({error}); name the file of a TrueType or "
            "OpenType font."
        ) from error


def _dejavu() -> Path | None:
    """Return the font that matplotlib brings; None without it."""
    try:
        import matplotlib
    except ImportError:
        return None
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return path if path.is_file() else None


def check_pillow() -> None:
    """Raise an ImportError where Pillow is not installed."""
    _pillow("Image")


def _pillow(module: str) -> Any:
    otherwise = ", or save .svg or .html, which need nothing"
    with needs("A GIF or WebP picture needs the package Pillow", "images", otherwise):
        return __import__(f"PIL.{module}", fromlist=["PIL"])
