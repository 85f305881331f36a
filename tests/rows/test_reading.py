"""Rows of files: any stretch of them is what a plain reading of the whole file gives there."""

import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest

from hf_maskgit.rows import reading
from hf_maskgit.rows.reading import ListedRows, look_at_rows, open_rows
from hf_maskgit.training.plain_files import read_lines
from hf_maskgit.training.sources import load_texts, place_of_row

ROWS = [{"id": i, "text": f"w{i % 30} \u2028\x0b w1", "note": None} for i in range(25)]


@pytest.fixture(autouse=True)
def _marks_close_together(monkeypatch):
    monkeypatch.setattr(reading, "_BETWEEN_MARKS", 4)
    monkeypatch.setattr(reading, "_READ_TOGETHER", 10)


def json_lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_jsonl(folder):
    (folder / "a.jsonl").write_text("\ufeff" + json_lines(ROWS[:11]) + "\n  \n")
    (folder / "b.jsonl").write_text(json_lines(ROWS[11:]).replace("\n", "\r\n").rstrip())


def write_compressed(folder):
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(json_lines(ROWS).encode()))


def write_parquet(folder):
    schema = pyarrow.schema([("id", "int64"), ("text", "string"), ("note", "string")])
    for name, rows in (("a", ROWS[:9]), ("b", ROWS[9:])):
        table = pyarrow.Table.from_pylist(rows, schema)
        pyarrow.parquet.write_table(table, folder / f"{name}.parquet", row_group_size=4)


@pytest.mark.wide
@pytest.mark.parametrize("write", [write_jsonl, write_compressed, write_parquet])
def test_a_stretch_of_rows_is_that_of_the_whole(tmp_path, write):
    write(tmp_path)
    rows = open_rows(f"{tmp_path}/*", "text")
    assert len(rows) == len(ROWS)
    for start in range(len(ROWS)):
        for stop in (start, start + 1, start + 5, len(ROWS)):
            assert rows.between(start, stop) == ROWS[start:stop]
    assert [row for _, some in look_at_rows(rows, "text") for row in some] == ROWS


def test_a_line_of_a_text_file_is_a_row_empty_ones_too(tmp_path):
    path = tmp_path / "prompts"
    path.write_bytes("\ufeffw1\r\n\nw2 \u2028 w3\n".encode())
    rows = open_rows(str(path), "prompt")
    texts = ["w1", "", "w2 \u2028 w3"]
    assert rows.between(0, 9) == [{"prompt": text} for text in texts]
    assert rows.place(2) == f"line 3 of {str(path)!r}"
    path.write_bytes(b"w1\n")  # it has changed meanwhile
    assert rows.place(2) == "row 2"


def test_the_digest_is_of_what_is_read_and_how_it_is_divided(tmp_path):
    def digest(*texts):
        for path in tmp_path.glob("*.txt"):
            path.unlink()
        for number, text in enumerate(texts):
            (tmp_path / f"{number}.txt").write_text(text)
        return open_rows(f"{tmp_path}/*.txt", "text").digest

    found = [digest("a\nb\n"), digest("a\nc\n"), digest("a\n", "b\n"), digest("a\nb")]
    assert len(set(found)) == 4
    assert digest("a\nb\n") == found[0]
    assert ListedRows([{"text": "a"}]).digest != ListedRows([{"text": "b"}]).digest


def test_types_of_written_values_hold_all_rows(tmp_path):
    rows = (
        [{"text": "a", "x": None}] * 12 + [{"text": "b", "x": 1}] * 12 + [{"text": "c", "x": 2.5}]
    )
    schema = ListedRows(rows).schema()
    assert schema == pyarrow.schema([("text", "string"), ("x", "float64")])
    with pytest.raises(
        ValueError, match=r"The rows 10 to 11 have a column of several types.*jsonl"
    ):
        ListedRows([{"text": "a", "x": 1}] * 10 + [{"text": "a", "x": "b"}] * 2).schema()
    write_parquet(tmp_path)
    assert open_rows(f"{tmp_path}/a.parquet", "text").schema().names == ["id", "text", "note"]


def test_values_that_parquet_cannot_hold_are_refused():
    with pytest.raises(ValueError, match=r"rows 0 to 0 .* a value that Parquet cannot hold \("):
        ListedRows([{"text": "a", "x": 2**70}]).schema()


def test_files_that_hold_no_rows_are_refused(tmp_path):
    def refused(name, content, sentence, pattern=None):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ValueError, match=sentence):
            look_at(tmp_path / (pattern or name))

    def look_at(pattern):
        list(look_at_rows(open_rows(str(pattern), "text"), "text"))

    refused("a.csv", b"text\nw1\n", r"a.csv' is no file of rows; write JSON Lines")
    refused("a.fasta.gz", b">w1\nw2\n", r"a.fasta.gz' is no file of rows; write JSON Lines")
    refused(
        "a.jsonl", b'{"text": "w1"}\n{"text":\n', r"Line 2 of '.*a.jsonl' is no JSON: Expecting"
    )
    refused("b.jsonl", b'\n["w1"]\n', r"Line 2 of '.*b.jsonl' holds list; write an object such as")
    refused(
        "c.jsonl", b'{"txt": "w1"}\n', r"has no column 'text'; name .*--text_column. It has: txt"
    )
    refused("d.jsonl", b'{"text": 3}\n', r"Line 1 of .* holds int in its column 'text', not a text")
    half = r"Line 1 of .* holds half of a character in its column 'text' .*\\ud800.* mend the text"
    refused("l.jsonl", b'{"text": "a \\ud800 b"}\n', half)
    refused("e.jsonl", b'{"text": "{blank}"}\n', r"'{blank}' holds a blank, which this script")
    refused("f.txt", b"w1\n\xff\n", r"Line 2 of '.*f.txt' is not in UTF-8 \(byte 0 of it: invalid")
    refused("g.parquet", b"PAR", r"Cannot read '.*g.parquet': ")
    refused("h.jsonl.gz", b"no gzip", r"Cannot read '.*h.jsonl.gz': Not a gzipped file")
    refused("i.jsonl", b"\n", r"i.jsonl' is empty; write one text per line")
    refused("k.txt", b"w1\n", r"several kinds \(.jsonl, .txt\); name one kind", "[bk].*")
    with pytest.raises(ValueError, match=r"' is a folder; name the files in it, such as .*jsonl'"):
        open_rows(str(tmp_path), "text")
    with pytest.raises(ValueError, match=r"Cannot read '.*gone.txt': No such file or directory"):
        open_rows(str(tmp_path / "gone.txt"), "text")


def test_parquet_files_of_other_columns_are_refused(tmp_path):
    for name, column in (("a", "text"), ("b", "other")):
        table = pyarrow.table({column: ["w1"]})
        pyarrow.parquet.write_table(table, tmp_path / f"{name}.parquet")
    with pytest.raises(ValueError, match=r"a.parquet' and '.*b.parquet' have other columns"):
        open_rows(f"{tmp_path}/*.parquet", "text")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_line_is_the_same_to_all_that_read_texts(end, tmp_path):
    """Rows, lists of texts, data sets, and what tells where one of their rows stands."""
    texts = ["w1", "", "w2 \u2028 \x0c w3", "w4", *(f"w{i}" for i in range(2100))]
    path = tmp_path / "a.txt"
    path.write_bytes(end.join([*texts, ""]).encode())
    rows = open_rows(str(path), "text")
    assert [row["text"] for row in rows.between(0, len(rows))] == texts
    assert [row["text"] for row in rows.between(1999, 2002)] == texts[1999:2002]
    assert read_lines(path) == texts
    assert load_texts(str(path))["text"][:] == texts
    assert rows.place(3) == place_of_row(str(path), 3) == f"line 4 of {str(path)!r}"
    path.write_bytes(b"a\r\r\nb\rc")  # mixed
    rows = open_rows(str(path), "text")
    found = [row["text"] for row in rows.between(0, len(rows))]
    assert found == read_lines(path) == load_texts(str(path))["text"][:] == ["a", "", "b", "c"]


def test_a_carriage_return_within_json_ends_no_row(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a",\r"n": 1}\n{"text": "b", "n": 2}\n')
    rows = open_rows(str(path), "text")
    assert [row["text"] for row in rows.between(0, len(rows))] == ["a", "b"]
