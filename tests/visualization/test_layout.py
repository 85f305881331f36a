"""Where tokens stand and in which colours: nothing overlaps, moves or is unreadable."""

import itertools
import json
import re

import pytest

from hf_maskgit.visualization import page_of, svg_of
from hf_maskgit.visualization.layout import DARK, LIGHT, boxes_of, columns_of, share_of
from hf_maskgit.visualization.recording import from_steps, letters_of


def luminance(colour):
    """Relative luminance, WCAG 2.2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_letters_can_be_read_at_every_pass_in_both_themes(theme):
    """WCAG 2.2 asks for 4.5 of letters, AA, and for 3 of the bars."""
    assert contrast(theme.ink, theme.paper) >= 7
    assert contrast(theme.faint, theme.paper) >= 4.5
    for step in range(101):
        behind, bar = theme.behind(step / 100), theme.bar_of(step / 100)
        assert contrast(theme.ink, behind) >= 7
        assert contrast(bar, behind) >= 3


def test_passes_run_through_the_whole_ramp():
    assert [share_of(step, 5) for step in range(5)] == [0, 0.25, 0.5, 0.75, 1]
    assert share_of(0, 1) == 0
    assert len({LIGHT.behind(share_of(step, 20)) for step in range(20)}) == 20


@pytest.mark.parametrize("width", [40, 100, 1000])
def test_places_follow_each_other_within_the_lines(width, short, hostile):
    for unmasking in (short, hostile):
        boxes = boxes_of(unmasking, len, width, space=2, padding=1)
        places = list(zip(*unmasking.frames, strict=True))
        assert len(boxes) == len(places)
        for box, shown in zip(boxes, places, strict=True):
            longest = max(
                2 if place.text is None else len(letters_of(place.text)) for place in shown
            )
            assert box.width == longest + 2
            assert box.left + box.width <= width or box.left == 0
        for (box, after), (_, shown) in zip(
            itertools.pairwise(boxes), itertools.pairwise(places), strict=True
        ):
            gap = 0 if shown[-1].joined else 2
            if after.line == box.line:
                assert after.left == box.left + box.width + gap
            else:
                assert (after.line, after.left) == (box.line + 1, 0)


def test_a_word_is_not_torn_where_it_fits_a_line(short):
    boxes = boxes_of(short, len, 17, space=2, padding=1)  # the word of two tokens is 6 + 5
    assert [box.line for box in boxes] == [0, 1, 1, 2]
    torn = boxes_of(short, len, 8, space=2, padding=1)
    assert [box.line for box in torn] == [0, 1, 2, 3]


def test_wide_letters_have_room_and_marks_upon_letters_take_none():
    """East Asian letters and emoji are as wide as two others in a monospaced font."""
    texts = ("", "word", "漢字", "\N{FULLWIDTH LATIN SMALL LETTER W}", "🙂", "かa")
    assert [columns_of(text) for text in texts] == [0, 4, 4, 2, 2, 3]
    assert columns_of("e\u0301\u0323") == columns_of("é") == 1
    assert columns_of("a\u200bb") == 2


def test_an_svg_and_a_page_give_wide_letters_their_room():
    unmasking = from_steps(["漢字文化", "word"], [0, -1])
    rects = re.findall(
        r'<rect class="p0[^"]*" x="([\d.]+)" y="\d+" width="([\d.]+)"', svg_of(unmasking)
    )
    (left, wide), after = (
        map(float, rects[0]),
        re.search(r'x="([\d.]+)"[^>]*>word<', svg_of(unmasking)),
    )
    assert wide >= 4 * 15  # letters as wide as they are high
    assert after is not None
    assert left + wide <= float(after[1])
    told = re.search(r'id="told">(.*)</script>', page_of(unmasking))
    assert told is not None
    assert [place["letters"] for place in json.loads(told[1])["places"]] == [8, 4]
