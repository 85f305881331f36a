"""Every kind of file shows every frame, runs nothing that a token says, and asks no network."""

import base64
import builtins
import hashlib
import io
import itertools
import json
import logging
import os
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from PIL import Image, ImageChops

from hf_maskgit.visualization import check_animation_path, page_of, save_animation, svg_of
from hf_maskgit.visualization.animation import FORMATS
from hf_maskgit.visualization.raster import raster_of
from hf_maskgit.visualization.recording import from_steps, letters_of, said_of

SVG = "{http://www.w3.org/2000/svg}"
TITLE = "<b>title</b> & \x1b[31m"
SHOWN_TITLE = "<b>title</b> & \N{SYMBOL FOR ESCAPE}[31m"


@pytest.mark.wide
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_is_what_its_suffix_says_and_needs_nothing_from_elsewhere(short, tmp_path, suffix):
    path = tmp_path / f"picture{suffix.upper()}"
    save_animation(short, path, "title")
    written = path.read_bytes()
    begins = {
        ".html": b"<!doctype html>",
        ".svg": b"<svg",
        ".gif": b"GIF89a",
        ".webp": b"RIFF",
    }
    assert written.startswith(begins[suffix])
    if suffix in (".html", ".svg"):
        links = re.findall(r"(?:src|href)\s*=|url\(|@import|//[a-z]", written.decode())
        assert [link for link in links if link != "//w"] == []  # the name of SVG's namespace


# --- SVG ------------------------------------------------------------------------------------------


def classes_seen(picture, percent):
    """The classes that are seen at a time, from the animations of an SVG picture."""
    seen = set()
    for name, rule in re.findall(r"@keyframes (\w+) \{ (.*) \}", picture):
        marks = re.findall(r"([\d.]+)% \{ visibility: (\w+); \}", rule)
        before = [(float(at), what) for at, what in marks if float(at) <= percent]
        if max(before)[1] == "visible":
            seen.add(name)
    return seen


def shown_at(picture, percent):
    """Letters and count at a time; a mask as dots."""
    seen, letters = classes_seen(picture, percent), []
    for group in ElementTree.fromstring(picture).iter(f"{SVG}g"):
        if group.get("class") not in seen:
            continue
        found = [t.text for t in group.iter(f"{SVG}text")]
        letters.append(found[0] if found else "·")
    count = next(text for text in letters if text.endswith("passes"))
    return count, [text for text in letters if not text.endswith("passes")]


@pytest.mark.parametrize("which", ["short", "hostile"])
def test_an_svg_shows_each_frame_in_its_time(which, request):
    unmasking = request.getfixturevalue(which)
    picture = svg_of(unmasking, seconds_per_pass=0.5, seconds_at_end=2)
    total = 0.5 * unmasking.num_passes + 2
    for number, frame in enumerate(unmasking.frames):
        count, letters = shown_at(picture, 100 * (0.5 * number + 0.25) / total)
        assert count == f"{number} of {unmasking.num_passes} passes"
        assert sorted(letters) == sorted(
            "·" if p.text is None else letters_of(p.text) for p in frame
        )
    count, letters = shown_at(picture, 99)
    assert count.startswith(f"{unmasking.num_passes} of")


def test_an_svg_that_stands_still_shows_the_finished_text(short):
    picture = svg_of(short)
    moving = picture.index("@media (prefers-reduced-motion: no-preference)")
    assert "animation:" not in picture[:moving]
    rules = re.findall(r"\.(f\d+) \{ visibility: (\w+); \}", picture[:moving])
    still = {name for name, what in rules if what == "visible"}
    assert still == classes_seen(picture, 99.9)


def test_an_svg_is_xml_and_text_whatever_tokens_hold(hostile):
    picture = svg_of(hostile, TITLE)
    tree = ElementTree.fromstring(picture)
    assert {e.tag.removeprefix(SVG) for e in tree.iter()} == {
        *("svg", "style", "rect", "text", "g", "title")
    }
    texts = [e.text for e in tree.iter(f"{SVG}text")]
    assert SHOWN_TITLE in texts
    assert all(letters_of(place.text) in texts for place in hostile.frames[-1])
    attributes = {name for e in tree.iter() for name in e.attrib}
    assert not [name for name in attributes if name.startswith("on")]


def test_a_bar_is_as_long_as_a_token_was_likely(short):
    tree, bars = ElementTree.fromstring(svg_of(short)), 0
    for group in tree.iter(f"{SVG}g"):
        rects = {r.get("class")[:1]: float(r.get("width")) for r in group.iter(f"{SVG}rect")}
        if "b" in rects:
            said = group.find(f"{SVG}title").text
            likely = float(re.search(r"probability ([\d.]+)\.", said)[1])
            assert rects["b"] == pytest.approx((rects["p"] - 6) * likely, abs=0.06)
            bars += 1
    assert bars


# --- HTML -----------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a browser would read of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.within, self.text, self.policy = [], [], {}, ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "input"):
            self.within.append((tag, dict(attrs).get("id")))
        if dict(attrs).get("http-equiv") == "Content-Security-Policy":
            self.policy = dict(attrs)["content"]

    def handle_endtag(self, tag):
        self.within.pop()

    def handle_data(self, data):
        self.text[self.within[-1] if self.within else None] = data


@pytest.mark.parametrize("which", ["short", "hostile"])
def test_a_page_holds_every_frame_and_one_script_of_ours(which, request):
    unmasking = request.getfixturevalue(which)
    written = page_of(unmasking, TITLE)
    page, plain = Page(written), Page(page_of(request.getfixturevalue("short")))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]
    told = json.loads(page.text["script", "told"])
    assert len(told["frames"]) == len(unmasking.frames)
    for of_page, frame in zip(told["frames"], unmasking.frames, strict=True):
        for found, place in zip(of_page, frame, strict=True):
            assert found["text"] == (None if place.text is None else letters_of(place.text))
            assert found["probability"] == place.probability
            assert found["said"] == said_of(place, unmasking.num_passes)
    assert page.text["h1", None] == SHOWN_TITLE
    script = page.text["script", None]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page.policy
    assert page.policy.startswith("default-src 'none'")
    assert script == plain.text["script", None]  # nothing of the text is in it
    assert "innerHTML" not in script


# --- GIF and WebP ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_pixels_change_where_a_pass_changed_something(short, kind):
    picture = Image.open(
        io.BytesIO(raster_of(short, kind=kind, width=300, seconds_per_pass=0.3, seconds_at_end=1))
    )
    assert picture.n_frames == len(short.frames)
    assert picture.info["loop"] == 0
    frames, durations = [], []
    for number in range(picture.n_frames):
        picture.seek(number)
        picture.load()
        durations.append(picture.info["duration"])
        frames.append(picture.convert("RGB").crop((0, 92, picture.width, picture.height - 68)))
    assert durations == [300, 300, 300, 1000]
    # `the` is known: left of the first mask nothing ever changes
    changes = [ImageChops.difference(a, b).getbbox() for a, b in itertools.pairwise(frames)]
    assert len({box[0] for box in changes}) > 1
    assert min(box[0] for box in changes) > 36


@pytest.mark.wide
def test_letters_that_a_font_lacks_are_told(short, hostile, caplog, tmp_path):
    with caplog.at_level(logging.WARNING, logger="hf_maskgit"):
        raster_of(short, kind="GIF")
        assert not caplog.records
        raster_of(short, "\U0010fffe", kind="GIF")
    assert re.search(r"The font DejaVu Sans Book lacks U\+10FFFE.*name a font", caplog.text)
    (tmp_path / "font.ttf").write_bytes(b"no font")
    with pytest.raises(ValueError, match=r"font\.ttf' is no font that can be read \(.*\); name"):
        save_animation(short, tmp_path / "a.gif", font=tmp_path / "font.ttf")
    assert not (tmp_path / "a.gif").exists()
    raster_of(hostile, TITLE, kind="WEBP")


@pytest.mark.parametrize(("missing", "works"), [("PIL", False), ("matplotlib", True)])
def test_what_is_not_installed(missing, works, short, monkeypatch, tmp_path):
    real_import = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == missing:
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    if works:  # with Pillow's own font
        save_animation(short, tmp_path / "a.gif")
        return
    with pytest.raises(ImportError, match=r"needs the package Pillow, which .*images"):
        save_animation(short, tmp_path / "a.gif")
    with pytest.raises(ImportError, match="needs the package Pillow"):  # before there is one
        check_animation_path(tmp_path / "a.webp")


def test_a_text_that_is_too_long_for_a_picture_of_pixels_says_so():
    """Before anything is drawn: all frames would lie in memory together."""
    for kind, words, passes in (("WEBP", 2000, 1), ("GIF", 512, 512)):
        unmasking = from_steps(["word and some"] * words, [n % passes for n in range(words)])
        with pytest.raises(
            ValueError, match=rf"{passes + 1} frames of 1600 x \d+ pixels, .*\.html"
        ):
            raster_of(unmasking, kind=kind)


# --- by the suffix --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("text.png", r"one of \.html, \.svg, \.gif, \.webp; got '.*text\.png'"),
        ("text", r"one of \.html, \.svg, \.gif, \.webp; got"),
        ("nowhere/text.gif", r"There is no folder '.*nowhere' to save 'text\.gif' in"),
    ],
)
def test_a_path_that_cannot_be_saved_to_is_refused(short, tmp_path, name, message):
    with pytest.raises(ValueError, match=message):
        check_animation_path(tmp_path / name)
    with pytest.raises(ValueError, match=message):
        save_animation(short, tmp_path / name)


def test_a_place_that_nothing_can_be_written_to_is_refused(tmp_path, monkeypatch):
    (tmp_path / "text.svg").mkdir()
    with pytest.raises(ValueError, match=r"text\.svg' is a folder; name a file in it"):
        check_animation_path(tmp_path / "text.svg")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(ValueError, match=r"other\.svg' cannot be written: permission denied"):
        check_animation_path(tmp_path / "other.svg")
