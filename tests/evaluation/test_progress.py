"""Progress: a bar in a terminal, and lines that a log can hold where there is none."""

import io
import logging
import sys
from types import SimpleNamespace

import pytest

from hf_maskgit.evaluation import evaluate_nelbo, progress
from hf_maskgit.evaluation.progress import ProgressBar
from tests.support.table_texts import TEXTS_OF_ALL_LENGTHS, examples, framed_denoiser


class Screen(io.StringIO):
    def __init__(self, is_terminal):
        super().__init__()
        self.isatty = lambda: is_terminal


@pytest.fixture(params=[True, False], ids=["terminal", "log"])
def screen(request, monkeypatch, caplog):
    """What stderr is: a terminal or a file; the library's own lines are heard in both."""
    caplog.set_level(logging.INFO, "hf_maskgit")

    def begin():  # within the test: between fixtures and it pytest puts its own stderr there
        screen = Screen(request.param)
        monkeypatch.setattr("sys.stderr", screen)
        return screen

    return begin


def test_a_bar_is_drawn_in_a_terminal_and_a_line_written_in_a_log(screen, caplog):
    screen = screen()
    with ProgressBar("Reading", 3, "page", done=1) as told:
        told.update()
        told.tell({"loss": 1.23456})
        told.update()
    if screen.isatty():
        assert "Reading: 100%" in screen.getvalue()
        assert "loss=1.23" in screen.getvalue()
        assert caplog.messages == []
    else:
        assert screen.getvalue() == ""
        assert caplog.messages == [
            "Reading: 2 of 3 pages, 0 s left, loss 1.235",
            "Reading: 3 of 3 pages",
        ]


def test_a_log_gets_one_line_a_minute(screen, caplog, monkeypatch):
    screen = screen()
    now = iter(range(0, 1000, 25))  # a look at the clock every 25 seconds
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with ProgressBar("Reading", 1000, "page") as told:
        for _ in range(7):
            told.update()
    # 997 at 100/3 seconds each; then 994 at 200/6, and how it ended: 993 at 250/7
    left = {3: "9.2 h", 6: "9.2 h", 7: "9.9 h"}
    lines = [f"Reading: {done} of 1000 pages, {rest} left" for done, rest in left.items()]
    assert caplog.messages == ([] if screen.isatty() else lines)


def test_what_is_left_counts_from_where_a_run_went_on(screen, caplog, monkeypatch):
    screen = screen()
    now = iter([0.0, *[10.0] * 9])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with ProgressBar("Training", 104, "update", done=100) as told:
        told.update()
        told.tell({})
        told.update(3)
    if not screen.isatty():
        assert caplog.messages[0] == "Training: 101 of 104 updates, 30 s left"


def test_a_log_tells_the_pace_where_it_is_asked_to(screen, caplog, monkeypatch):
    screen = screen()
    now = iter([0.0, *[10.0] * 9])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with ProgressBar("Writing", 1000, "row", done=100, tells_pace=True) as told:
        told.update(300)
        told.tell({})
    if not screen.isatty():
        assert caplog.messages == ["Writing: 400 of 1000 rows, 30 a second, 20 s left"]


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        *((0, "0 s"), (89.4, "89 s"), (90, "1.5 min"), (3600, "60 min"), (5400, "1.5 h")),
        *((36_000, "10 h"), (172_799, "48 h"), (172_800, "2.0 days"), (8_640_000, "100 days")),
    ],
)
def test_a_time_is_written_in_its_unit(seconds, written):
    assert progress.duration(seconds) == written


def test_who_is_told_to_be_silent_is(screen, caplog):
    screen = screen()
    with ProgressBar("Reading", 1, "page", shown=False) as told:
        told.update()
        told.tell({"loss": 1.0})
    assert (screen.getvalue(), caplog.messages) == ("", [])


@pytest.mark.parametrize("shown", [True, False])
def test_an_evaluation_says_in_a_log_that_it_is_done(screen, caplog, tokenizer, shown):
    screen = screen()
    texts = examples(*TEXTS_OF_ALL_LENGTHS)
    evaluate_nelbo(framed_denoiser(), texts, tokenizer, batch_size=1, progress=shown)
    lines = [f"evaluate: {len(texts)} of {len(texts)} texts"]
    assert caplog.messages == (lines if shown and not screen.isatty() else [])
    assert bool(screen.getvalue()) == (shown and screen.isatty())


def test_bars_of_other_libraries_do_not_flood_a_log(screen, monkeypatch):
    screen, silenced = screen(), []
    for name in ("disable_progress_bar", "disable_progress_bars"):
        monkeypatch.setattr(progress, name, lambda name=name: silenced.append(name))
    datasets = SimpleNamespace(disable_progress_bars=lambda: silenced.append("datasets"))
    monkeypatch.setitem(sys.modules, "datasets", datasets)
    progress.no_bars_of_others_in_logs()
    names = ["disable_progress_bar", "disable_progress_bars", "datasets"]
    assert silenced == ([] if screen.isatty() else names)
