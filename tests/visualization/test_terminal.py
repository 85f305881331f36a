"""The terminal shows a text as it stood after each pass, and nothing of its tokens is obeyed."""

import builtins
import io
from xml.dom import minidom

import pytest
from rich.console import Console

from hf_maskgit.visualization import (
    LiveUnmasking,
    lines_of,
    print_unmasking,
    save_unmasking,
    unmasking_lines,
)
from tests.support.tiny import TableModel, tiny_config, word_tokenizer

TOKENS = ["[CLS]", "and", "the", "king", "##dom", "said", "[SEP]"]
STEPS = [-1, 0, 2, 1, 1, 0, -1]


def test_a_text_is_shown_as_it_stood_after_each_pass():
    lines = unmasking_lines(TOKENS, STEPS, skip=["[CLS]", "[SEP]"])
    assert [line.plain.split() for line in lines] == [
        ["0", "···", "···", "···", "···", "···"],
        ["1", "and", "···", "···", "···", "said"],
        ["2", "and", "···", "kingdom", "said"],
        ["3", "and", "the", "kingdom", "said"],
    ]


def test_what_a_pass_revealed_stands_out():
    (_, first, *_) = unmasking_lines(TOKENS, STEPS, skip=["[CLS]", "[SEP]"])
    bold = [first.plain[span.start : span.end] for span in first.spans if "bold" in str(span.style)]
    assert bold == ["and", "said"]


def test_known_tokens_are_shown_from_the_start():
    before, after = unmasking_lines(["a", "b"], [-1, 0])
    assert before.plain.split() == ["0", "a", "···"]
    assert after.plain.split() == ["1", "a", "b"]


def test_the_picture_needs_nothing_from_the_network(tmp_path, capsys):
    lines = unmasking_lines(TOKENS, STEPS)
    print_unmasking(lines)
    assert "kingdom" in capsys.readouterr().out
    save_unmasking(lines, tmp_path / "picture.svg", "title")
    picture = (tmp_path / "picture.svg").read_text(encoding="utf-8")
    assert picture.startswith("<svg")
    assert "said" in picture
    assert "title" in picture
    assert "@font-face" not in picture
    assert "url(http" not in picture


def test_without_rich_the_message_says_what_to_install(monkeypatch):
    real_import = builtins.__import__

    def without_rich(name, *args, **kwargs):
        if name.startswith("rich"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_rich)
    with pytest.raises(ImportError, match=r"needs the package rich, which .*visualization"):
        unmasking_lines(["a"], [0])


def test_tokens_and_titles_are_text_and_nothing_else(tmp_path, capsys):
    lines = unmasking_lines(["<b>&\x1b[31m\x00", "\u202e\x0bz\x9b"], [0, 1])
    print_unmasking(lines)
    assert "\x1b[31m" not in capsys.readouterr().out
    save_unmasking(lines, tmp_path / "picture.svg", "<script>alert(1)</script>&\x01")
    picture = (tmp_path / "picture.svg").read_text(encoding="utf-8")
    assert "<script>" not in picture
    shown = "".join(node.data for node in _texts(minidom.parseString(picture.encode())))
    assert "<script>alert(1)</script>&\N{SYMBOL FOR START OF HEADING}" in shown
    assert "<b>&\N{SYMBOL FOR ESCAPE}[31m\N{SYMBOL FOR NULL}" in shown.replace("\xa0", " ")


def _texts(node):
    if node.nodeType == node.TEXT_NODE:
        yield node
    for child in node.childNodes:
        yield from _texts(child)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_text_is_shown_while_it_comes_about(terminal):
    """In a terminal in one place, which is cleared again and again; elsewhere line by line."""
    tokenizer, written = word_tokenizer(), io.StringIO()
    console = Console(file=written, force_terminal=terminal, width=80, color_system=None)
    seen = []
    with LiveUnmasking(tokenizer, console=console) as live:

        def look(step, state):
            live(step, state)
            seen.append(written.getvalue())

        model = TableModel(tiny_config())
        inputs = tokenizer("w1 [MASK] [MASK] w2", return_tensors="pt")
        model.generate(**inputs, seed=0, steps=2, callback_on_step_end=look)
    words = [line.plain.split() for line in lines_of(live.recorder.unmasking())]
    shown = written.getvalue()
    assert len(seen[0]) < len(seen[1]) <= len(shown)
    assert " ".join(words[0][1:]) in seen[0]
    assert " ".join(words[1][1:]) in seen[0]
    assert " ".join(words[2][1:]) in seen[1]
    assert ("\x1b[2K" in shown) == terminal
    if not terminal:
        assert [line.split() for line in shown.splitlines()] == words
