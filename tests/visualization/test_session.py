"""What happens in a tab of the app: every event returns a session and says a sentence."""

import re
import threading
from html.parser import HTMLParser

import pytest
from tokenizers import Regex
from tokenizers.pre_tokenizers import Split

from hf_maskgit import InfillingPipeline
from hf_maskgit.visualization import Shown
from hf_maskgit.visualization.buttons import ruler_as_buttons, safe, words_as_buttons
from hf_maskgit.visualization.editing import Editor
from hf_maskgit.visualization.session import (
    KINDS,
    OWN,
    Session,
    Tab,
    draw_molecule,
    failed,
    residues_apart,
    told,
)
from tests.support.tiny import tiny_model, word_tokenizer
from tests.support.tiny_tokenizers import model_for
from tests.visualization.conftest import HOSTILE

WORDS = KINDS[0]


class Buttons(HTMLParser):
    """Buttons of a page: their attributes and letters, and every tag that there is."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.buttons = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "button":
            self.buttons.append([dict(attrs), ""])

    def handle_data(self, data):
        if self.buttons and self.tags[-1] == "button":
            self.buttons[-1][1] += data.strip()


@pytest.fixture(scope="module")
def tab():
    return Tab(WORDS, Editor(InfillingPipeline(model=tiny_model(), tokenizer=word_tokenizer())))


@pytest.fixture(scope="module")
def filled(tab):
    return list(tab.run(Session(), "w1 {blank:3} w2", OWN, 3, 1))


def test_passes_are_watched_as_they_happen(tab, filled):
    masked = [tab.view(session).count('class="masked"') for session in filled]
    assert masked == [3, 2, 1, 0, 0]
    assert [session.number for session in filled] == [0, 1, 2, 3, 3]
    assert filled[-1].said == "3 tokens in 3 passes. Choose a token to change it."
    assert told(filled[-1]) == f'<p class="said" role="status">{filled[-1].said}</p>'


def test_the_animation_is_stepped(tab, filled):
    for number in range(4):
        looked = tab.look(filled[-1], number)
        buttons = Buttons(tab.view(looked)).buttons
        assert sum(b["class"] == "masked" for b, _ in buttons) == 3 - number
        assert sum("new" in b["class"].split() for b, _ in buttons) == (number > 0)
    assert tab.look(filled[-1], 99).number == 3
    assert tab.look(Session(), 1) == Session()


def test_a_token_is_exchanged_masked_and_filled_again(tab, filled):
    chosen, choices = tab.choose(filled[-1], 2)
    assert chosen.chosen == 2
    assert Buttons(tab.view(chosen)).buttons[2][0]["aria-pressed"] == "true"
    label, token = choices[3]
    assert re.fullmatch(r"w\d+ \(\d+\.\d%\)", label)
    taken = tab.edit(chosen, "choose", token)
    assert Buttons(tab.view(taken)).buttons[2][1] == label.split()[0]
    assert taken.said == "Changed."
    longer = tab.edit(tab.edit(taken, "mask"), "lengthen")
    assert longer.said == "Changed; 2 masked, to be filled again."
    assert tab.view(longer).count('class="masked"') == 2
    again = list(tab.fill(longer, "maskgit", 0, 2))[-1]
    kept = Buttons(tab.view(again)).buttons
    assert len(kept) == 6
    assert [letters for _, letters in kept[:2]] == [
        letters for _, letters in Buttons(tab.view(taken)).buttons[:2]
    ]
    shorter = tab.edit(tab.choose(again, 2)[0], "shorten")
    assert len(Buttons(tab.view(shorter)).buttons) == 5


def test_what_cannot_be_done_is_said_and_the_text_stays(tab, filled):
    last = filled[-1]
    for session, sentence in (
        (list(tab.run(Session(), "w1 w2", OWN, 0, 0))[-1], "There is nothing to fill in 'w1 w2'."),
        (list(tab.fill(Session(), OWN, 0, 0))[-1], "There is no text yet; write one"),
        (list(tab.fill(last, OWN, 0, 0))[-1], "Nothing is masked; mask a token again"),
        (list(tab.run(Session(), "w1 [MASK]", OWN, -1, 0))[-1], "`steps` must be"),
        (tab.edit(last, "mask"), "Choose a token of the text first."),
        (tab.edit(tab.choose(last, 1)[0], "choose", None), "Choose a token of the text first."),
        (tab.edit(tab.choose(last, 0)[0], "shorten"), "This token was typed, and only a blank"),
        (tab.choose(last, 9)[0], "The text has 5 tokens, and number 10 was asked for"),
    ):
        assert session.failed
        assert session.said.startswith(sentence), session.said
        assert 'role="alert"' in told(session)
    assert tab.edit(last, "mask").edited == last.edited
    with pytest.raises(ValueError, match="Fill the text first, and then save how it came about"):
        tab.save(Session(), ".svg", "anywhere")


def test_an_animation_is_saved(tab, filled, tmp_path):
    path = tab.save(filled[-1], ".svg", tmp_path)
    assert path == str(tmp_path / "text.svg")
    assert "3 tokens in 3 passes" in (tmp_path / "text.svg").read_text(encoding="utf-8")


@pytest.mark.wide
def test_a_filling_ends_when_its_visitor_leaves():
    """At its next pass: of 40, two are made; with the visitor there, all are."""
    model = tiny_model()
    allowed, passes = threading.Semaphore(1), []

    def one_by_one(*_):
        allowed.acquire()
        passes.append(1)

    model.register_forward_pre_hook(one_by_one)
    tab = Tab(WORDS, Editor(InfillingPipeline(model=model, tokenizer=word_tokenizer())))
    for watched, made in ((2, 2), (42, 40)):
        allowed, before = threading.Semaphore(1), set(threading.enumerate())
        passes.clear()
        sessions = tab.run(Session(), "w1 {blank:40}", OWN, 40, 0)
        for _ in range(watched):  # the first before any pass, the last with the finished text
            next(sessions)
            allowed.release()
        sessions.close()
        allowed.release(50)
        for thread in set(threading.enumerate()) - before:
            thread.join(60)
            assert not thread.is_alive()
        assert len(passes) == made


def test_tokens_and_errors_are_text_and_nothing_else():
    """Nothing of them is HTML, nor means anything to the templates of a page."""
    texts = [*HOSTILE, "{{constructor}}", "${alert(1)}", "`\\"]
    frame = tuple(Shown(text, False, 0, 0.5) for text in texts)
    plain = tuple(Shown("a", False, 0, 0.5) for _ in texts)
    for view in (words_as_buttons, ruler_as_buttons):
        written = view(frame, 1, None, 1)
        assert Buttons(written).tags == Buttons(view(plain, 1, None, 1)).tags
        assert not set("{}$`\\") & set(written)
        allowed = {"type", "data-place", "class", "style", "title", "aria-label", "aria-pressed"}
        assert all(set(attributes) == allowed for attributes, _ in Buttons(written).buttons)
    for text in texts:
        said = told(failed(Session(), ValueError(text)))
        assert Buttons(said).tags == ["p"]
        assert not set("{}$`\\") & set(safe(text))


def test_a_ruler_numbers_every_tenth_residue():
    frame = tuple(Shown(letter) for letter in "ACDEFGHIKLMNPQRSTVWYACD")
    written = ruler_as_buttons(frame, 1, 11, 0)
    assert re.findall(r"<small>(\d+)</small>", written) == ["1", "11", "21"]
    assert [letters for _, letters in Buttons(written).buttons] == list("ACDEFGHIKLMNPQRSTVWYACD")
    assert Buttons(written).buttons[11][0]["aria-label"] == "12, N: Known from the start."


def test_residues_are_pasted_as_they_are_and_read_one_by_one():
    """Of a tokenizer that reads words, and of one that reads letters; elsewhere nothing changes."""
    residues = list("ACDEFGHIKLMNPQRSTVWY")
    words = word_tokenizer(words=residues)
    letters = word_tokenizer(words=residues)
    letters.backend_tokenizer.pre_tokenizer = Split(Regex("."), "isolated")
    text, apart = "MKT{blank:3}GG[MASK]A C", "M K T{blank:3}G G[MASK]A C"
    assert residues_apart(text, words) == apart
    assert residues_apart(text, letters) == text
    assert residues_apart(text, word_tokenizer()) == text
    model = model_for(words)
    sequence = Tab(KINDS[1], Editor(InfillingPipeline(model=model, tokenizer=words), True))
    session = list(sequence.run(Session(), text, OWN, 0, 0))[-1]
    found = [letters for _, letters in Buttons(sequence.view(session)).buttons]
    assert found[:3] + found[6:8] + found[9:] == list("MKTGGAC")
    assert sequence.editor.text(session.edited) == "".join(found)


def test_molecules_are_drawn_where_there_is_one(tab):
    pytest.importorskip("rdkit", reason="molecules are drawn by RDKit, which is not installed")
    drawn = draw_molecule("c1ccccc1O")
    assert drawn.startswith('<div class="drawn" role="img" aria-label="c1ccccc1O">')
    assert "<svg" in drawn
    assert draw_molecule("c1<b>") == "<p>No molecule yet: RDKit cannot read c1&lt;b&gt;.</p>"
    molecule = Tab(
        KINDS[2], Editor(InfillingPipeline(model=tiny_model(), tokenizer=word_tokenizer()))
    )
    assert molecule.picture(Session()) == ""
    session = next(iter(molecule.run(Session(), "w1 [MASK]", OWN, 0, 0)))
    assert molecule.picture(session) == "<p>The molecule is drawn when all is filled.</p>"
