"""Plain files: lines as data sets read them, and no file of another form."""

import pytest

from hf_maskgit.training.files import COMPRESSIONS
from hf_maskgit.training.plain_files import OTHER_FORMS, is_plain, read_lines
from hf_maskgit.training.sources import _READERS, load_texts


def test_lines_end_where_a_line_ends_alone(tmp_path):
    r"""Form feeds and what Unicode calls separators are parts of a text, as in data sets."""
    file = tmp_path / "texts.txt"
    for written, lines in (
        ("", []),
        ("one", ["one"]),
        ("one\r\n\x0ctwo\u2028\x85\n\nthree\n", ["one", "\x0ctwo\u2028\x85", "", "three"]),
    ):
        file.write_bytes(written.encode())
        assert read_lines(file) == lines
        if lines:
            assert load_texts(str(file))["text"][:] == lines


@pytest.mark.parametrize("form", sorted(OTHER_FORMS))
def test_a_file_whose_name_promises_another_form_is_not_read_as_lines(tmp_path, form):
    file = tmp_path / f"texts{form.upper()}"
    file.write_text(">w1\nw2\n")
    with pytest.raises(ValueError, match="is not what its ending says; write such a file"):
        read_lines(file)


def test_every_form_that_data_sets_read_otherwise_is_another_form():
    assert {*_READERS, *COMPRESSIONS} - OTHER_FORMS == {".txt"}
    assert all(is_plain(name) for name in ("texts.txt", "texts", "molecules.smi", "v1.2", "a.md"))
