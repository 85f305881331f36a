"""The app in a real browser without a window: as somebody at a desk or with a phone uses it."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import pytest

from hf_maskgit import InfillingPipeline
from hf_maskgit.visualization import Shown, Unmasking, save_animation
from hf_maskgit.visualization.editing import Editor
from hf_maskgit.visualization.session import KINDS, Tab
from scripts import app
from tests.support.project import ROOT
from tests.support.tiny import word_tokenizer
from tests.support.tiny_tokenizers import model_for

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
HOSTILE = [
    "<img/src=x/onerror=alert(1)>",
    "<script>alert(2)</script>",
    "{{constructor}}",
    "${alert(3)}",
]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The app with a model whose words are hostile, in a process of its own."""
    pytest.importorskip("gradio", reason="the app needs Gradio (extra app)")
    folder = tmp_path_factory.mktemp("app")
    tokenizer = word_tokenizer(words=["w1", "w2", *HOSTILE])
    model_for(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    models = ["--model", folder, "--sequence_model", folder, "--molecule_model", folder]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "scripts.app", *models, "--port", str(port)],
            cwd=ROOT,
            env={**os.environ, "GRADIO_ANALYTICS_ENABLED": "False", "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            assert process.poll() is None, (folder / "log").read_text()
            try:
                urllib.request.urlopen(url, timeout=1).close()
                break
            except OSError:
                time.sleep(1)
        yield url
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def page(browser, address):
    """A page of the app; nothing may open a dialog or fail in it."""
    faults = []
    page = browser.new_page(viewport={"width": 1000, "height": 1100})
    page.set_default_timeout(90_000)
    page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
    page.on("pageerror", lambda error: faults.append(str(error)))
    opened(page, address)
    yield page
    assert faults == []


@pytest.fixture
def browser():
    api = pytest.importorskip(
        "playwright.sync_api", reason="a browser is driven by playwright (extra browser)"
    )
    if BROWSER is None:
        pytest.skip("no browser is installed; on Debian: apt-get install chromium")
    with api.sync_playwright() as playwright:
        options = {"executable_path": BROWSER, "args": ["--no-sandbox"]}
        browser = playwright.chromium.launch(**options)
        yield browser
        browser.close()


@pytest.fixture
def slow_app(tmp_path, monkeypatch):
    """The app in this process, a third of a second per pass: it, its address, and its passes."""
    pytest.importorskip("gradio", reason="the app needs Gradio (extra app)")
    (tmp_path / "all").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "all"))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "all" / "gradio"))
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    tokenizer = word_tokenizer()
    model, passes = model_for(tokenizer), []

    def slow(*_):
        time.sleep(0.3)
        passes.append(1)

    model.register_forward_pre_hook(slow)
    filler = InfillingPipeline(model=model, tokenizer=tokenizer)
    page = app.page_of([Tab(KINDS[0], Editor(filler))])
    _, url, _ = page.queue().launch(prevent_thread_lock=True, quiet=True)
    yield page, url, passes
    page.close()


def opened(page, address):
    page.goto(address)
    page.wait_for_selector("#model_run")
    page.wait_for_timeout(1500)  # its scripts take hold
    return page


def fill(page, text, name="model"):
    page.fill(f"#{name}_text textarea", text)
    page.click(f"#{name}_run")
    page.wait_for_selector(f"#{name}_said:has-text('Choose a token')")


def letters(page, name="model"):
    return page.locator(f"#{name}_view button").all_inner_texts()


def test_a_blank_is_filled_stepped_through_and_changed(page):
    fill(page, f"w1 {{blank:3}} {' '.join(HOSTILE)}")
    first = letters(page)
    assert first[:1] + first[4:] == ["w1", *HOSTILE]
    # the slider, from the keyboard
    page.locator("#model_number input[type=range]").focus()
    for number in (1, 2, 3):
        page.keyboard.press("ArrowLeft")
        page.wait_for_function(
            f"document.querySelectorAll('#model_view button.masked').length == {number}"
        )
    # a token, from the keyboard
    page.locator("#model_view button").nth(2).focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#model_others label")
    other = page.locator("#model_others label").nth(1)
    wanted = other.inner_text().rpartition(" (")[0]
    other.click()
    page.click("#model_choose")
    page.wait_for_selector("#model_said:has-text('Changed.')")
    assert letters(page)[2] == wanted
    page.click("#model_mask")
    page.wait_for_selector("#model_view button.masked")
    page.click("#model_lengthen")
    page.wait_for_function("document.querySelectorAll('#model_view button.masked').length == 2")
    page.click("#model_shorten")
    page.wait_for_function("document.querySelectorAll('#model_view button.masked').length == 1")
    page.click("#model_again")
    page.wait_for_selector("#model_said:has-text('Choose a token')")
    again = letters(page)
    assert again[:2] + again[3:] == first[:2] + first[3:]
    page.click("#model_save")
    link = page.wait_for_selector("a[download]")
    saved = page.request.get(link.get_attribute("href")).text()
    assert saved.startswith("<!doctype html>")


def test_a_visitor_who_leaves_ends_the_filling(browser, slow_app):
    """Gone after two of 18 passes; the next one is not kept waiting."""
    _, address, passes = slow_app
    page = opened(browser.new_page(), address)
    page.fill("#model_text textarea", "w1 {blank:60}")
    page.click("#model_run")
    while len(passes) < 2:
        page.wait_for_timeout(50)
    page.close()
    made = []
    while not made or len(passes) > made[-1]:
        made.append(len(passes))
        time.sleep(2)
    assert 2 <= made[-1] < 12
    passes.clear()
    fill(opened(browser.new_page(), address), "w1 {blank:2}")
    assert len(passes) == 2


def test_saved_animations_do_not_stay(browser, slow_app, tmp_path):
    """One copy each, which the visitor can still fetch, and none when the app has ended."""
    served, address, _ = slow_app
    page = opened(browser.new_page(), address)
    fill(page, "w1 {blank:2}")
    for suffix in (".html", ".svg"):
        page.click(f"input[type=radio][value='{suffix}']")
        page.click("#model_save")
        page.wait_for_selector(f"a[download='text{suffix}']")
    link = page.get_attribute("a[download='text.svg']", "href")
    assert page.request.get(link).text().startswith("<svg")
    saved = sorted(path.name for path in (tmp_path / "all").rglob("text.*"))
    assert saved == ["text.html", "text.svg"]
    served.close()
    assert list((tmp_path / "all").rglob("text.*")) == []


def test_an_error_is_a_sentence(page):
    page.fill("#model_text textarea", "w1 <b>w2</b>")
    page.click("#model_run")
    page.wait_for_selector("#model_said [role=alert]")
    said = page.inner_text("#model_said")
    assert said.startswith("There is nothing to fill in 'w1 <b>w2</b>'. Write [MASK] for each")
    page.click("#model_mask")
    page.wait_for_selector("#model_said:has-text('Choose a token of the text first.')")


def test_the_page_fits_a_phone_in_light_and_dark(page):
    page.set_viewport_size({"width": 360, "height": 800})
    fill(page, f"w1 {{blank:8}} {' '.join(HOSTILE)}")
    colours = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_timeout(500)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        token = page.locator("#model_view button").first
        colours.append(token.evaluate("e => getComputedStyle(e).color"))
    assert colours == ["rgb(22, 24, 29)", "rgb(240, 242, 245)"]


def test_sequences_have_a_ruler_and_molecules_a_picture(page):
    page.click("button[role=tab]:has-text('Sequence')")
    fill(page, "w1 {blank:11}", "sequence_model")
    assert page.locator("#sequence_model_view small").all_inner_texts() == ["1", "11"]
    page.click("button[role=tab]:has-text('Molecule')")
    fill(page, "w1 {blank:2}", "molecule_model")
    assert len(letters(page, "molecule_model")) == 3
    assert page.locator("text=/Molecules are drawn where|No molecule yet/").count() == 1


def test_a_saved_page_is_stepped_and_asked(page, tmp_path):
    """The HTML that `save_animation` writes, its one script running under its own policy."""
    the, king = Shown("the"), Shown("king", False, 1, 0.25)
    dom, said, mask = Shown("dom", True, 0, 0.5), Shown("said", False, 2, 1.0), Shown(None)
    frames = (the, mask, mask, mask), (the, mask, dom, mask), (the, king, dom, mask)
    unmasking = Unmasking((*frames, (the, king, dom, said)))
    save_animation(unmasking, tmp_path / "text.html", "title")
    page.emulate_media(reduced_motion="reduce")
    page.goto((tmp_path / "text.html").as_uri())
    assert page.inner_text("#count") == "3 of 3 passes"
    page.click("#before")
    assert page.inner_text("#count") == "2 of 3 passes"
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("#count") == "1 of 3 passes"
    assert page.locator("#text span.masked").count() == 2
    page.locator("#text span").nth(2).hover()
    said = "\u201cdom\u201d: Revealed in pass 1 of 3, with probability 0.5."
    assert page.inner_text("#said") == said
    page.emulate_media(reduced_motion="no-preference")
    page.reload()
    page.wait_for_selector("#count:has-text('3 of 3 passes')")
