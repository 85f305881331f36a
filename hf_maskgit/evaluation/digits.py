"""Images of digits as token ids: read, drawn as pictures, and judged by a classifier.

Letters: M images of 8 by 8 pixels, a row of 64 ids 0..16 each, from the top left.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.extras import needs

SIDE, LEVELS, CLASSES = 8, 17, 10
_ZOOM, _GAP = 6, 1  # dots of the screen per pixel, and pixels between two images
_HIDDEN = (70, 90, 140)  # the colour of a masked pixel, which is no shade of grey
_PASS_SECONDS, _LAST_SECONDS = 0.12, 1.5  # how long a pass is shown, and the last one


def load_digits() -> tuple[Tensor, Tensor]:
    """Read the images of scikit-learn: pixels (1797, 64) long and digits (1797,) long.

    Raises:
        ImportError: when it is not installed.
    """
    datasets = _scikit_learn("sklearn.datasets")
    found = datasets.load_digits()
    return torch.from_numpy(found.data).long(), torch.from_numpy(found.target).long()


class DigitClassifier:
    """Knows digits by their images alone: support vectors of scikit-learn, no part of a generator.

    Args:
        pixels: (M, 64) long, images to learn from.
        digits: (M,) long, theirs.

    Raises:
        ImportError: when scikit-learn is not installed.
    """

    def __init__(self, pixels: Tensor, digits: Tensor) -> None:
        self._classifier = _scikit_learn("sklearn.svm").SVC(gamma="scale")
        self._classifier.fit(pixels.numpy(), digits.numpy())

    def __call__(self, pixels: Tensor) -> Tensor:
        """Tell the digits (M,) long of images (M, 64) long."""
        return torch.from_numpy(self._classifier.predict(pixels.numpy()))


def nearest_distance(pixels: Tensor, others: Tensor) -> Tensor:
    """Return the mean difference, in shades per pixel, to the nearest of others, (M,) float.

    Args:
        pixels: (M, 64) long.
        others: (N, 64) long.
    """
    return torch.cdist(pixels.double(), others.double(), p=1).amin(1) / pixels.shape[1]


def picture(pixels: Tensor, columns: int) -> Any:
    """Draw images as a grid, ink dark on white; what is no shade is drawn as hidden.

    Args:
        pixels: (M, 64) long, M a multiple of `columns`.
        columns: images per line.

    Returns:
        A `PIL.Image.Image`.

    Raises:
        ImportError: when Pillow is not installed.
    """
    image = pillow()
    lines, size = len(pixels) // columns, SIDE + _GAP
    canvas = torch.full((lines * size + _GAP, columns * size + _GAP, 3), 255, dtype=torch.uint8)
    grey = (255 - pixels * 255 // (LEVELS - 1))[..., None].expand(-1, -1, 3)
    hidden = (pixels < 0) | (pixels >= LEVELS)
    colours = torch.where(hidden[..., None], torch.tensor(_HIDDEN), grey).to(torch.uint8)
    for place, one in enumerate(colours.view(-1, SIDE, SIDE, 3)):
        top, left = (_GAP + n * size for n in divmod(place, columns))
        canvas[top : top + SIDE, left : left + SIDE] = one
    drawn = image.fromarray(canvas.numpy())
    return drawn.resize((drawn.width * _ZOOM, drawn.height * _ZOOM), image.Resampling.NEAREST)


def write_animation(passes: Sequence[Tensor], columns: int, path: Path) -> None:
    """Write a GIF of images (M, 64) long after each pass; the last one stays longer.

    Raises:
        ImportError: when Pillow is not installed.
    """
    first, *rest = [picture(pixels, columns) for pixels in passes]
    seconds = [_PASS_SECONDS] * len(rest) + [_LAST_SECONDS]
    first.save(
        path,
        save_all=True,
        append_images=rest,
        duration=[round(1000 * second) for second in seconds],
        loop=0,
    )


def _scikit_learn(module: str) -> Any:
    from importlib import import_module

    what = "The images of digits, and what judges them, come from the package scikit-learn"
    with needs(what, "images"):
        return import_module(module)


def pillow() -> Any:
    """Return the package's module of pictures.

    Raises:
        ImportError: when pillow is not installed.
    """
    with needs("Pictures are written by the package pillow", "images"):
        from PIL import Image
    return Image
