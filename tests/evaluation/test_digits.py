"""Images of digits: read, drawn, told apart; and what is said without the packages for it."""

import sys

import pytest
import torch

from hf_maskgit.evaluation.digits import (
    DigitClassifier,
    load_digits,
    nearest_distance,
    picture,
    write_animation,
)

PIL = pytest.importorskip("PIL.Image")
pytest.importorskip("sklearn")


def test_digits_are_rows_of_64_shades():
    pixels, digits = load_digits()
    assert pixels.shape == (1797, 64)
    assert (int(pixels.min()), int(pixels.max())) == (0, 16)
    assert set(digits.tolist()) == set(range(10))
    # a nought is empty in the middle and a one is full there
    middle = pixels.view(-1, 8, 8)[:, 3:5, 3:5].double().mean((1, 2))
    assert middle[digits == 0].mean() < 4 < 12 < middle[digits == 1].mean()


@pytest.mark.wide
def test_the_classifier_reads_real_digits_it_has_not_seen():
    pixels, digits = load_digits()
    read = DigitClassifier(pixels[:1400], digits[:1400])(pixels[1400:])
    assert (read == digits[1400:]).double().mean() > 0.94


def test_the_nearest_image_is_the_one_that_differs_least():
    others = torch.zeros(3, 64, dtype=torch.long)
    others[1], others[2, :32] = 16, 8
    pixels = others.clone()
    pixels[0, 0], pixels[2, 40] = 16, 3
    assert nearest_distance(pixels, others).tolist() == [16 / 64, 0, 3 / 64]


def test_a_picture_has_ink_where_the_image_has_and_a_colour_where_it_is_hidden():
    pixels = torch.zeros(4, 64, dtype=torch.long)
    pixels[0, 0], pixels[1, 63], pixels[2, 8] = 16, 8, 17
    drawn = picture(pixels, 2)
    assert drawn.size == (
        6 * 19,
        6 * 19,
    )  # two images of 8 pixels, three gaps of one, six dots each
    dot = lambda line, column: drawn.getpixel((6 * column + 3, 6 * line + 3))  # noqa: E731
    assert dot(1, 1) == (0, 0, 0)
    assert dot(8, 17) == (128, 128, 128)
    assert dot(11, 1) == (70, 90, 140)
    assert dot(5, 5) == dot(0, 0) == (255, 255, 255)


def test_an_animation_shows_every_pass(tmp_path):
    passes = [torch.full((2, 64), shade) for shade in (17, 9, 0)]
    write_animation(passes, 2, tmp_path / "passes.gif")
    with PIL.open(tmp_path / "passes.gif") as shown:
        assert (shown.n_frames, shown.info["loop"]) == (3, 0)
        lengths = []
        for frame in range(3):
            shown.seek(frame)
            lengths.append(shown.info["duration"])
    assert lengths == [120, 120, 1500]


@pytest.mark.parametrize(
    ("package", "act"),
    [
        ("sklearn.datasets", load_digits),
        ("PIL", lambda: picture(torch.zeros(1, 64, dtype=torch.long), 1)),
    ],
)
def test_what_is_missing_is_named_with_how_to_install_it(monkeypatch, package, act):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"not installed: pip install 'hf_maskgit\[images\]'"):
        act()
