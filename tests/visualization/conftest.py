"""Texts that came about, by hand and by a denoiser of tables."""

import pytest

from hf_maskgit.visualization import Shown, Unmasking

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "\x1b[31m\x00\u202e",
    "]]>&amp;\"'",
    "<!--",
    "a\nb\tc\u2028",
]


def unmasking_of_texts(texts, passes=None):
    """One token per pass, each known to be one in (place + 2) likely."""
    last = [Shown(t, False, step, 1 / (step + 2)) for step, t in enumerate(texts)]
    frames = [
        tuple(place if place.step <= step else Shown(None) for place in last)
        for step in range(-1, len(texts))
    ]
    return Unmasking(tuple(frames))


@pytest.fixture
def hostile():
    return unmasking_of_texts(HOSTILE)


@pytest.fixture
def short():
    """`and the kingdom said`: two known, a piece joined, and a token that is masked again."""
    the, king = Shown("the"), Shown("king", False, 1, 0.25)
    dom, said = Shown("dom", True, 0, 0.5), Shown("said", False, 2, 1.0)
    wrote, mask = Shown("wrote", False, 0, 0.125), Shown(None)
    return Unmasking(
        (
            (the, mask, mask, mask),
            (the, mask, dom, wrote),
            (the, king, dom, mask),
            (the, king, dom, said),
        )
    )
