"""How a text came about, pass by pass: in the terminal, as a page, as a picture that moves."""

from .animation import check_animation_path, save_animation
from .first_text import FirstText
from .page import page_of
from .raster import raster_of
from .recording import (
    Shown,
    Unmasking,
    UnmaskingRecorder,
    from_output,
    from_steps,
    record_unmasking,
)
from .svg import svg_of
from .terminal import (
    LiveUnmasking,
    lines_of,
    print_unmasking,
    save_unmasking,
    unmasking_lines,
    unmasking_of,
)

__all__ = [
    "FirstText",
    "LiveUnmasking",
    "Shown",
    "Unmasking",
    "UnmaskingRecorder",
    "check_animation_path",
    "from_output",
    "from_steps",
    "lines_of",
    "page_of",
    "print_unmasking",
    "raster_of",
    "record_unmasking",
    "save_animation",
    "save_unmasking",
    "svg_of",
    "unmasking_lines",
    "unmasking_of",
]
