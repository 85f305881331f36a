"""Chorales as files: MIDI there and back, the picture, and what is said without the packages."""

import sys

import pytest
import torch

from hf_maskgit.evaluation.chorale_files import draw_rolls, read_midi, write_midi
from hf_maskgit.evaluation.chorales import VOICES
from tests.support.music import grid_from

C, D, E, G = 60, 62, 64, 67
SONG = grid_from(
    [72, 72, 74, None, 76, 76, 72, 72],
    [G, G, G, G, None, None, G, E],
    [None, C, C, D, D, C, C, C],
    [48, 48, 50, 50, 48, 48, 48, None],
)


@pytest.mark.wide
def test_a_grid_comes_back_from_midi(tmp_path):
    pytest.importorskip("music21")
    write_midi(SONG, tmp_path / "song.mid")
    assert torch.equal(read_midi(tmp_path / "song.mid", len(SONG)), SONG)
    longer = read_midi(tmp_path / "song.mid", len(SONG) + 2)
    assert torch.equal(longer, torch.cat([SONG, torch.zeros(2, 4, dtype=torch.long)]))


@pytest.mark.wide
def test_a_file_of_other_tracks_is_refused(tmp_path):
    music21 = pytest.importorskip("music21")
    score = music21.stream.Score([music21.stream.Part([music21.note.Note(C)]) for _ in range(2)])
    score.write("midi", fp=tmp_path / "duet.mid")
    with pytest.raises(ValueError, match="duet.mid' has 2 tracks; a chorale has 4"):
        read_midi(tmp_path / "duet.mid", 4)


def test_a_picture_has_a_roll_for_each_window_and_grey_where_it_was_hidden(tmp_path, monkeypatch):
    figure = pytest.importorskip("matplotlib.figure")
    drawn = []
    monkeypatch.setattr(figure.Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    hidden = torch.zeros(8, 4, dtype=torch.bool)
    hidden[2:4, 1] = True
    windows = torch.stack([SONG, SONG])
    lines = {"real": (windows, torch.zeros_like(hidden)), "filled": (windows, hidden)}
    draw_rolls(lines, ("one", "other"), tmp_path / "rolls.png")
    (picture,) = drawn
    notes = 4 + 3 + 3 + 3
    assert [len(axis.collections) for axis in picture.axes] == [notes, notes, notes + 2, notes + 2]
    assert [axis.get_title() for axis in picture.axes] == ["one", "other", "", ""]
    assert [axis.get_ylabel() for axis in picture.axes] == ["real", "", "filled", ""]
    assert [text.get_text() for text in picture.legends[0].get_texts()] == list(VOICES)


def test_without_music21_writing_midi_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "music21.stream", None)
    with pytest.raises(ImportError, match=r"not installed: pip install 'hf_maskgit\[music\]'"):
        write_midi(SONG, tmp_path / "song.mid")
