"""Local files: folders, and where in a file a row or a fault stands."""

import bz2
import gzip
import json
import lzma

import datasets
import pytest
from datasets import Dataset

from hf_maskgit.core.checkpoint_files import raised_in
from hf_maskgit.training import sources
from hf_maskgit.training.data import load_examples
from hf_maskgit.training.data_arguments import DataArguments
from hf_maskgit.training.files import line_of_row, local_files, short_names
from hf_maskgit.training.sources import load_texts, only_split
from tests.support.grids import wide
from tests.support.project import ROOT
from tests.support.tiny import word_tokenizer

OPENERS = {"": open, ".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def write(path, rows):
    """Rows of one column `text` as the file's name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    compressed = path.suffix if path.suffix in OPENERS else ""
    kind = path.suffixes[-2] if compressed else path.suffix
    if kind == ".parquet":
        Dataset.from_dict({"text": rows}).to_parquet(path)
        return
    with OPENERS[compressed](path, "wt") as file:
        if kind == ".txt":
            file.write("\n".join(rows))
        elif kind == ".jsonl":
            file.write("\n\n".join(json.dumps({"text": row}) for row in rows))
        else:
            quoted = '"' + '"\n"'.join(rows) + '"'
            file.write(f"text\n{quoted}\n")


def faults_of(dataset):
    options = DataArguments(dataset=str(dataset), max_length=16)
    with pytest.raises(ValueError, match="contains the mask token") as told:
        load_examples(options, word_tokenizer(), None, seed=0)
    return str(told.value)


@pytest.mark.wide
@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("a.txt", "line 3"),
        ("a.txt.gz", "line 3"),
        ("a.txt.bz2", "line 3"),
        ("a.jsonl", "line 5"),  # an empty line between two rows
        ("a.jsonl.xz", "line 5"),
        ("a.csv", "line 5"),  # behind the header and a text of two lines
        ("a.tsv", "line 5"),
        ("a.parquet", "row 2"),
    ],
)
def test_a_faulty_row_is_named_by_its_file_and_line(tmp_path, name, line):
    """It is row 4 of all; two rows stand in the file before."""
    rows = ["w1", "w2\nw3" if line == "line 5" and "json" not in name else "w2", "w4 [MASK]"]
    write(tmp_path / name, rows)
    before = tmp_path / ("0" + name)
    write(before, ["w1", "w2"])
    said = faults_of(tmp_path / f"*{name}")
    assert said.endswith(f"It is {line} of '{tmp_path / name}'.")
    assert "row 4 contains the mask token" in said


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jsonl", '{"text": "a"}\n\n{"text": b}\n', "Line 3 of '.*a.jsonl' is no JSON object"),
        ("a.jsonl", '{"text": "a"}\n["a"]\n', r"Line 2 of '.*' holds list, not an object"),
        ("a.csv", "text\na\nb,c\n", "Line 3 of '.*a.csv' has 2 fields, and the header 1"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, name, content, sentence):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=sentence):
        load_texts(str(tmp_path / name))


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_an_encoding_inside_a_compressed_file_is_named_by_the_file(tmp_path, suffix):
    with OPENERS[suffix](tmp_path / f"b.txt{suffix}", "wb") as file:
        file.write("\xe9 b\n".encode("latin1"))
    with OPENERS[suffix](tmp_path / f"a.txt{suffix}", "wb") as file:
        file.write(b"a b\n")
    with pytest.raises(ValueError, match=rf"b.txt\{suffix}' is not UTF-8 .*0xe9.*-f latin1"):
        load_texts(str(tmp_path / f"*.txt{suffix}"))


def test_a_folder_is_read_with_all_folders_in_it(tmp_path):
    write(tmp_path / "texts" / "b.txt.gz", ["from b"])
    write(tmp_path / "texts" / "sub" / "a.txt", ["from a"])
    write(tmp_path / "texts" / ".hidden.txt", ["hidden"])
    (tmp_path / "texts" / "notes.md").write_text("no text")
    assert sorted(load_texts(str(tmp_path / "texts"))["text"]) == ["from a", "from b"]
    stream = load_texts(str(tmp_path / "texts"), streaming=True)
    assert stream.num_shards == 2
    assert sorted(row["text"] for row in stream) == ["from a", "from b"]
    assert only_split(str(tmp_path / "texts")) == "train"
    write(tmp_path / "texts" / "c.csv", ["from c"])
    with pytest.raises(ValueError, match=r"several kinds \(1 .csv, 2 .txt\).*texts/\*\*/\*.csv'"):
        load_texts(str(tmp_path / "texts"))
    assert load_texts(str(tmp_path / "texts/**/*.csv"))["text"][:] == ["from c"]


def test_files_of_a_folder_that_belong_to_no_split_are_not_left_out_silently(tmp_path):
    write(tmp_path / "train.txt", ["a"])
    write(tmp_path / "other.txt", ["b"])
    with pytest.raises(ValueError, match=r"\(train\) and others that belong to none, .*other.txt"):
        load_texts(str(tmp_path))


def test_what_has_no_lines_has_no_place(tmp_path):
    (tmp_path / "a.json").write_text('[{"text": "a"}]')
    assert line_of_row([str(tmp_path / "a.json")], 0) is None
    write(tmp_path / "a.txt", ["a"])
    assert line_of_row([str(tmp_path / "a.txt")], 5) is None
    (tmp_path / "b.txt.zst").write_bytes(b"")
    assert line_of_row([str(tmp_path / "b.txt.zst")], 0) is None


def test_a_slice_cannot_be_streamed(tmp_path):
    write(tmp_path / "a.txt", ["a"])
    with pytest.raises(ValueError, match=r"the slice 'train\[:1\]' cannot be taken"):
        load_texts(str(tmp_path / "a.txt"), split="train[:1]", streaming=True)


SIGNS = ("data[1]", "a?b", "a*b", "{a,b}", "plain")


def test_a_file_whose_name_is_a_pattern_is_found_by_its_name(tmp_path):
    for name in ("a?b.txt", "axb.txt"):
        (tmp_path / name).write_text(f"{name}\n")
    assert load_texts(str(tmp_path / "a?b.txt"))["text"][:] == ["a?b.txt"]


@pytest.mark.wide
@pytest.mark.parametrize("streaming", [False, True])
def test_signs_of_patterns_in_the_name_of_a_file_are_letters(tmp_path, streaming):
    """Each file is itself, and not what its name would stand for as a pattern; folders too."""
    for name in (*SIGNS, "axb"):
        inside = tmp_path / name / "inner[0]"
        inside.mkdir(parents=True)
        for file in (tmp_path / f"{name}.txt", tmp_path / name / "train.txt", inside / "test.txt"):
            file.write_text(f"{file.relative_to(tmp_path)}\n")
    for name in SIGNS:
        for place, split, told in (
            (f"{name}.txt", "train", f"{name}.txt"),
            (name, "train", f"{name}/train.txt"),
            (name, "test", f"{name}/inner[0]/test.txt"),
            (f"{name}/inner[0]/test.txt", "train", f"{name}/inner[0]/test.txt"),
        ):
            texts = load_texts(str(tmp_path / place), None, split, streaming)
            assert [row["text"] for row in texts] == [told], place
    assert local_files(str(tmp_path / "a*.txt")) == sorted(
        str(tmp_path / f"{name}.txt") for name in ("a?b", "a*b", "axb")
    )


@pytest.mark.parametrize(("suffix", "between"), [(".csv", ","), wide(".tsv", "\t")])
def test_words_that_other_tables_take_for_missing_numbers_are_texts(tmp_path, suffix, between):
    words = ["NA", "None", "null", "nan", "N/A", ""]
    file = tmp_path / f"table{suffix}"
    rows = [f"text{between}n", *(f"{word}{between}1" for word in words)]
    file.write_text("".join(f"{row}\n" for row in rows))
    assert load_texts(str(file))["text"][:] == words


def test_files_are_named_as_shortly_as_tells_them_apart():
    assert short_names(["a/one.json", "b/two.json"]) == ["one", "two"]
    assert short_names(["a/one.json", "b/one.json"]) == ["a/one.json", "b/one.json"]


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (
            {},
            r"cannot be loaded \(The directory at .* doesn't contain any data files\)\. Name files",
        ),
        ({"a.md": "x"}, r"(cannot be loaded|cannot be read as what its name says)"),
        ({"dataset_dict.json": '{"splits": ["train"]}'}, "no whole folder of save_to_disk .* anew"),
        ({"state.json": "{}"}, "no whole folder of save_to_disk .* Write it anew"),
    ],
)
def test_a_folder_that_is_no_data_set_is_refused_in_a_sentence(tmp_path, files, sentence):
    """What datasets raises, of many kinds, would end a program with its traceback."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_text(content)
    for ask in (load_texts, only_split):
        with pytest.raises(ValueError, match=sentence) as raised:
            ask(str(folder))
        assert raised_in(raised.value, ROOT / "hf_maskgit")


@pytest.mark.parametrize("error", [ValueError("Config name is missing.\nPick one"), RuntimeError()])
def test_what_datasets_says_of_a_data_set_of_the_hub_is_a_sentence(monkeypatch, error):
    def fails(*args, **kwargs):
        raise error

    monkeypatch.setattr(sources, "load_dataset", fails)
    with pytest.raises(ValueError, match=r"'owner/texts' cannot be loaded \(.*`dataset_config`"):
        load_texts("owner/texts")


def test_a_path_that_leads_nowhere_and_a_slice_that_is_none_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no data set 'no/such/folder': neither"):
        load_texts("no/such/folder")
    (tmp_path / "a.txt").write_text("one\n")
    with pytest.raises(ValueError, match=r"cannot be loaded \(.*\).* such as 'train' or 'train\["):
        load_texts(str(tmp_path / "a.txt"), split="train[:10%")
