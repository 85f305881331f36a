"""A text that comes about as a file, of the kind that its suffix names."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .page import page_of
from .raster import check_pillow, raster_of
from .recording import Unmasking
from .svg import svg_of


def _gif(unmasking: Unmasking, title: str, **options: Any) -> bytes:
    return raster_of(unmasking, title, kind="GIF", **options)


def _webp(unmasking: Unmasking, title: str, **options: Any) -> bytes:
    return raster_of(unmasking, title, kind="WEBP", **options)


def _html(unmasking: Unmasking, title: str, **options: Any) -> bytes:
    return page_of(unmasking, title, **options).encode()


def _svg(unmasking: Unmasking, title: str, **options: Any) -> bytes:
    return svg_of(unmasking, title, **options).encode()


# What draws a file, by its suffix.
FORMATS: dict[str, Callable[..., bytes]] = {
    ".html": _html,
    ".svg": _svg,
    ".gif": _gif,
    ".webp": _webp,
}


def check_animation_path(path: str | Path) -> None:
    """Refuse a path that no animation can be saved to, before there is one.

    Raises:
        ImportError: for .gif and .webp without Pillow.
        ValueError: for another suffix, a folder that does not exist, or what cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(
            f"An animation is saved by the suffix of its file, one of {', '.join(FORMATS)}; got "
            f"{str(path)!r}."
        )
    if not Path(path).parent.is_dir():
        raise ValueError(
            f"There is no folder {str(Path(path).parent)!r} to save {Path(path).name!r} in; make "
            "it, or name another."
        )
    if Path(path).is_dir():
        raise ValueError(f"{str(path)!r} is a folder; name a file in it.")
    if not os.access(path if Path(path).exists() else Path(path).parent, os.W_OK):
        raise ValueError(f"{str(path)!r} cannot be written: permission denied.")
    if FORMATS[suffix] in (_gif, _webp):
        check_pillow()


def save_animation(unmasking: Unmasking, path: str | Path, title: str = "", **options: Any) -> None:
    """Save how a text came about.

    Args:
        unmasking: the text.
        path: ends in .html, .svg, .gif or .webp.
        title: stands above it.
        **options: of `page_of`, `svg_of` or `raster_of`, such as `seconds_per_pass`.

    Raises:
        ImportError: for .gif and .webp without Pillow.
        ValueError: as `check_animation_path` does.
    """
    check_animation_path(path)
    Path(path).write_bytes(FORMATS[Path(path).suffix.lower()](unmasking, title, **options))
