"""Data: what becomes of a text, and what every faulty data set is told."""

import gzip
import json

import datasets
import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict, IterableDataset
from datasets.exceptions import DatasetNotFoundError

from hf_maskgit.training import sources
from hf_maskgit.training.examples import (
    evenly_spaced,
    hold_out,
    hold_out_groups,
    prepare_examples,
)
from hf_maskgit.training.framing import pack_bodies
from hf_maskgit.training.orders import batches_of_one_length
from hf_maskgit.training.sources import load_texts, only_split
from tests.support.oracles import word_piece_tokenizer
from tests.support.tiny import WORDS, protein_tokenizer, word_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return word_tokenizer()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def texts(*rows, column="text"):
    return Dataset.from_dict({column: list(rows)})


def test_framed_examples_are_what_the_tokenizer_itself_makes(tokenizer):
    rows = ["w1 w2", "w3", "w4 unheard w5 w6"]
    examples, report = prepare_examples(texts(*rows), tokenizer, max_length=16)
    assert examples["input_ids"][:] == tokenizer(rows)["input_ids"]
    assert examples["example_id"][:] == [0, 1, 2]
    assert examples.column_names == ["input_ids", "example_id"]
    assert (report.texts, report.examples, report.tokens) == (3, 3, 4 + 3 + 6)
    assert (report.empty_texts, report.cut_texts, report.cut_tokens) == (0, 0, 0)


def test_what_is_cut_off_is_counted_and_the_closing_token_stays(tokenizer):
    examples, report = prepare_examples(
        texts("w1 w2 w3 w4", "w1", "w1 w2 w3"), tokenizer, max_length=4
    )
    expected = tokenizer(["w1 w2", "w1", "w1 w2"])["input_ids"]
    assert examples["input_ids"][:] == expected
    assert (report.cut_texts, report.cut_tokens) == (2, 3)
    assert "3 texts became 3 examples of 11 tokens" in str(report)
    assert "2 texts were too long and lost 3 tokens" in str(report)


@pytest.mark.parametrize("max_length", [3, 4, 7, 50])
def test_packing_loses_and_reorders_nothing(tokenizer, max_length):
    random = np.random.default_rng(0)
    rows = [" ".join(random.choice(WORDS, size=random.integers(1, 9))) for _ in range(40)]
    examples, report = prepare_examples(texts(*rows), tokenizer, max_length=max_length, pack=True)
    blocks = examples["input_ids"][:]
    assert all(block[0] == 2 and block[-1] == 3 for block in blocks)
    assert all(len(block) == max_length for block in blocks[:-1])
    assert 3 <= len(blocks[-1]) <= max_length
    stream = [token for block in blocks for token in block[1:-1]]
    bodies = tokenizer(rows, add_special_tokens=False)["input_ids"]
    assert stream == [token for body in bodies for token in [*body, tokenizer.sep_token_id]]
    assert report.tokens == sum(map(len, blocks))
    assert report.cut_tokens == 0


def test_packing_keeps_the_rest_as_a_shorter_block():
    assert pack_bodies([[7, 8], [9]], capacity=2, end_of_text=3) == [[7, 8], [3, 9], [3]]


def test_packing_several_streams_keeps_every_token(tokenizer):
    rows = ["w1 w2"] * 2500  # three streams of up to 1,000 texts
    examples, report = prepare_examples(texts(*rows), tokenizer, max_length=66, pack=True)
    assert report.tokens - 2 * len(examples) == 3 * 2500
    assert sum(len(block) < 66 for block in examples["input_ids"][:]) <= 3
    assert examples["example_id"][:] == list(range(len(examples)))


@pytest.mark.wide
def test_more_processes_tokenise_the_same(tokenizer):
    rows = [f"w{i % 20} w{i % 7}" for i in range(50)]
    alone, _ = prepare_examples(texts(*rows), tokenizer, max_length=8)
    together, _ = prepare_examples(texts(*rows), tokenizer, max_length=8, num_proc=2)
    assert alone[:] == together[:]


def test_empty_texts_are_refused_by_row_or_dropped_and_counted(tokenizer):
    rows = texts("w1", "", "w2", "   ")
    with pytest.raises(
        ValueError, match="row 1 has no token that could be masked.*drop_empty_texts"
    ):
        prepare_examples(rows, tokenizer, max_length=8)
    examples, report = prepare_examples(rows, tokenizer, max_length=8, drop_empty_texts=True)
    assert examples["input_ids"][:] == tokenizer(["w1", "w2"])["input_ids"]
    assert (report.texts, report.empty_texts) == (2, 2)
    assert examples["example_id"][:] == [0, 1]


def test_a_text_of_framing_tokens_alone_counts_as_empty(tokenizer):
    with pytest.raises(ValueError, match="row 0 has no token that could be masked"):
        prepare_examples(texts("[CLS] [PAD]"), tokenizer, max_length=8)


def test_faulty_texts_are_named(tokenizer):
    with pytest.raises(ValueError, match=r"row 1 contains the padding token '\[PAD\]' itself"):
        prepare_examples(texts("w1", "w2 [PAD] w3"), tokenizer, max_length=8)
    with pytest.raises(ValueError, match=r"row 1 contains the mask token '\[MASK\]' itself"):
        prepare_examples(texts("w1", "w2 [MASK] w3"), tokenizer, max_length=8)
    with pytest.raises(ValueError, match="Row 1 of column 'text' holds NoneType, not a text"):
        prepare_examples(texts("w1", None), tokenizer, max_length=8)
    with pytest.raises(ValueError, match="Row 0 of column 'text' holds int"):
        prepare_examples(texts(3), tokenizer, max_length=8)
    with pytest.raises(ValueError, match="All 2 texts of column 'text' are empty"):
        prepare_examples(texts("", ""), tokenizer, max_length=8, drop_empty_texts=True)


@pytest.mark.wide
def test_a_fault_behind_the_first_batch_is_named_by_its_row(tokenizer):
    rows = ["w1"] * 1500 + [""]
    with pytest.raises(ValueError, match="row 1500 "):
        prepare_examples(texts(*rows), tokenizer, max_length=8)
    with pytest.raises(ValueError, match="row 1500 "):
        prepare_examples(texts(*rows), tokenizer, max_length=8, num_proc=2)


def test_a_missing_column_is_answered_with_those_there_are(tokenizer):
    data = Dataset.from_dict({"verse": ["w1"], "book": ["w2"]})
    with pytest.raises(ValueError, match=r"no column 'text'; its columns are \['verse', 'book'\]"):
        prepare_examples(data, tokenizer)
    examples, _ = prepare_examples(data, tokenizer, text_column="verse")
    assert examples["input_ids"][:] == [[2, 6, 3]]


def test_a_block_without_room_for_a_text_is_refused(tokenizer):
    for max_length in (0, 2):
        with pytest.raises(ValueError, match=f"at least 3 tokens.*got {max_length}"):
            prepare_examples(texts("w1"), tokenizer, max_length=max_length)
    examples, _ = prepare_examples(texts("w1 w2"), tokenizer, max_length=3, pack=True)
    assert examples["input_ids"][:] == [[2, 6, 3], [2, 7, 3], [2, 3, 3]]


def test_a_tokenizer_without_the_tokens_needed_is_refused():
    with pytest.raises(ValueError, match="has no mask token"):
        prepare_examples(texts("w1"), word_piece_tokenizer(WORDS, mask_token=None))
    endless = word_piece_tokenizer(WORDS, sep_token=None)
    prepare_examples(texts("w1"), endless)
    with pytest.raises(ValueError, match="neither an end-of-text nor a separator token"):
        prepare_examples(texts("w1"), endless, pack=True)


@pytest.mark.wide
def test_local_files_of_every_kind_hold_the_same_texts(tmp_path):
    rows = ["one text", 'with "quotes"']
    (tmp_path / "a.txt").write_text("\n".join(rows))
    with gzip.open(tmp_path / "a.txt.gz", "wt") as file:
        file.write("\n".join(rows))
    lines = [json.dumps({"text": row}) for row in rows]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    (tmp_path / "a.json").write_text("[" + ",".join(lines) + "]")
    data = texts(*rows)
    data.to_csv(tmp_path / "a.csv")
    data.to_csv(tmp_path / "a.tsv", sep="\t")
    data.to_parquet(tmp_path / "a.parquet")
    data.save_to_disk(tmp_path / "saved")
    DatasetDict({"train": data, "test": data.select([1])}).save_to_disk(tmp_path / "splits")
    for name in "a.txt a.txt.gz a.jsonl a.json a.csv a.tsv a.parquet saved splits".split():
        assert load_texts(str(tmp_path / name))["text"][:] == rows, name
    assert load_texts(str(tmp_path / "splits"), split="test")["text"][:] == rows[1:]
    assert load_texts(str(tmp_path / "a.txt"), split="train[:50%]")["text"][:] == rows[:1]


def test_a_star_stands_for_several_files(tmp_path):
    for name in "ab":
        (tmp_path / f"part-{name}.txt").write_text(f"from {name}")
    assert load_texts(str(tmp_path / "part-*.txt"))["text"][:] == ["from a", "from b"]


def test_a_missing_split_is_answered_with_a_way_out(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    texts("one").save_to_disk(tmp_path / "saved")
    for name in ("a.txt", "saved"):
        with pytest.raises(
            ValueError, match=r"no split 'validation' .*train.* Name one of its splits\.$"
        ):
            load_texts(str(tmp_path / name), split="validation")


def test_the_only_split_needs_no_name(tmp_path):
    texts("one").save_to_disk(tmp_path / "saved")
    DatasetDict({"test": texts("one")}).save_to_disk(tmp_path / "test")
    DatasetDict({"test": texts("one"), "dev": texts("two")}).save_to_disk(tmp_path / "splits")
    (tmp_path / "folder").mkdir()
    for name in ("train", "test"):
        (tmp_path / "folder" / f"{name}.txt").write_text(name)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "validation.txt").write_text("one")
    names = ("a.txt.gz", "saved", "test", "one")
    found = [only_split(str(tmp_path / name)) for name in names]
    assert found == ["train", "train", "test", "validation"]
    assert load_texts(str(tmp_path / "one"), split="validation")["text"][:] == ["one"]
    for name, splits in (("splits", "'dev', 'test'"), ("folder", "'train', 'test'")):
        with pytest.raises(ValueError, match=f"has the splits {splits}; name the one that is mean"):
            only_split(str(tmp_path / name))


@pytest.mark.parametrize("read", [lambda name: load_texts(name, None, "train"), only_split])
@pytest.mark.parametrize("error", [DatasetNotFoundError("none"), ConnectionError("offline")])
def test_a_data_set_that_cannot_be_found_is_named(monkeypatch, read, error):
    def refuses(*arguments, **options):
        raise error

    for name in ("load_dataset", "get_dataset_split_names"):
        monkeypatch.setattr(sources, name, refuses)
    with pytest.raises(FileNotFoundError, match=f"There is no data set 'runs/no': .*{error}"):
        read("runs/no")


def test_data_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file '.*b.txt'"):
        load_texts(str(tmp_path / "b.txt"))
    (tmp_path / "b.txt").write_text("")
    with pytest.raises(ValueError, match="b.txt' is empty; name one that holds texts"):
        load_texts(str(tmp_path / "b.txt"))
    (tmp_path / "b.csv").write_text("text\n")
    with pytest.raises(ValueError, match="split 'train' of '.*b.csv' is empty"):
        load_texts(str(tmp_path / "b.csv"))
    (tmp_path / "b.doc").write_text("text\n")
    with pytest.raises(ValueError, match="no known kind; choose from .txt, .json"):
        load_texts(str(tmp_path / "b.doc"))


def test_held_out_texts_are_not_learned_from():
    data = texts(*WORDS)
    train, held_out = hold_out(data, 0.25, seed=3)
    assert len(held_out) == 9
    assert sorted(train["text"][:] + held_out["text"][:]) == sorted(WORDS)
    assert hold_out(data, 0.25, seed=3)[1]["text"][:] == held_out["text"][:]
    assert hold_out(data, 0.25, seed=4)[1]["text"][:] != held_out["text"][:]
    assert len(hold_out(data, 0.001, seed=3)[1]) == 1
    for few, fraction in ((texts("one"), 0.5), (data, 1.0), (data, 0.0), (data, 0.99)):
        with pytest.raises(ValueError, match=f"got {fraction} of {len(few)} texts"):
            hold_out(few, fraction, seed=0)


def test_the_evaluated_rows_are_spread_and_always_the_same():
    data = texts(*WORDS)
    assert evenly_spaced(data, 5)["text"][:] == WORDS[::7]
    assert len(evenly_spaced(data, 7)) == 7
    assert evenly_spaced(data, None) is data
    assert evenly_spaced(data, 99) is data


def test_a_hub_data_set_goes_through_load_dataset(monkeypatch):
    calls = []

    def record(path, **options):
        calls.append((path, options))
        return texts("one")

    monkeypatch.setattr("hf_maskgit.training.sources.load_dataset", record)
    load_texts("org/name.v2", "plain", "train[:1%]")
    address = "hf://datasets/org/name/a.csv.gz"
    load_texts(address)
    assert calls == [
        ("org/name.v2", {"name": "plain", "split": "train[:1%]"}),
        ("csv", {"data_files": address, "split": "train", "keep_default_na": False}),
    ]


def test_batches_hold_each_example_once_and_little_padding():
    lengths = torch.randint(3, 112, (1003,)).tolist()
    train = Dataset.from_dict({"input_ids": [[0] * length for length in lengths]})
    batches = batches_of_one_length(train, 16, seed=0)
    assert [len(batch) for batch in batches] == [16] * (1003 // 16)
    used = [i for batch in batches for i in batch]
    assert len(set(used)) == len(used)
    width = sum(16 * max(lengths[i] for i in batch) for batch in batches)
    assert sum(lengths[i] for i in used) / width > 0.95
    middles = [lengths[batch[0]] for batch in batches]
    assert middles not in (sorted(middles), sorted(middles, reverse=True))


def test_no_group_is_on_both_sides_and_no_text_is_lost():
    data = Dataset.from_dict({"text": WORDS[:30], "group": [i // 3 for i in range(30)]})
    train, held_out = hold_out_groups(data, "group", 0.2, seed=0)
    assert sorted([*train["text"], *held_out["text"]]) == sorted(WORDS[:30])
    assert len(set(held_out["group"])) == 2
    assert not set(train["group"]) & set(held_out["group"])
    assert hold_out_groups(data, "group", 0.2, seed=0)[1]["text"][:] == held_out["text"][:]
    others = [hold_out_groups(data, "group", 0.2, seed=i)[1]["text"][:] for i in range(1, 5)]
    assert any(other != held_out["text"][:] for other in others)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("latin.txt", "\xe9 b\n".encode("latin1"), r"in.txt' is not UTF-8 .*0xe9.*-f latin1 -"),
        ("wide.txt", "a b\n".encode("utf-16"), r"wide.txt' is not UTF-8.*iconv -f utf-16 -t"),
        ("lat*.csv", b"text\n\xe9\n", "is not UTF-8"),
        ("cut.json", b'{"text": "a', "cannot be read as what its name says"),
        ("cut.parquet", b"PAR1", "cannot be read as what its name says"),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path, name, content, sentence):
    (tmp_path / name.replace("*", "in")).write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        load_texts(str(tmp_path / name))


def test_a_mark_of_the_encoding_is_no_part_of_a_text(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffa b\nc\n".encode())
    assert load_texts(str(tmp_path / "a.txt"))["text"][:] == ["a b", "c"]


def test_what_is_no_data_set_is_refused(tmp_path):
    stream = IterableDataset.from_generator(lambda: iter([{"text": "w1"}]))
    for texts, sentence in (
        (stream, r"are a stream, an IterableDataset.*Dataset.from_list"),
        (DatasetDict({"train": Dataset.from_dict({"text": ["w1"]})}), r"name one of its splits"),
        (["w1"], "must be a `datasets.Dataset`, got list"),
    ):
        with pytest.raises(ValueError, match=sentence):
            prepare_examples(texts, word_tokenizer())


# --- what the tokenizer does not know -------------------------------------------------------------


@pytest.mark.wide
def test_words_the_tokenizer_does_not_know_are_reported(tokenizer, caplog):
    caplog.set_level("WARNING")
    rows = ["w1 w2 zz", "w3", "w1 qq zz w2"] + ["w1 w2 w3 w4"] * 10
    _, report = prepare_examples(texts(*rows), tokenizer, max_length=16)
    assert (report.words, report.unknown_words) == (48, 3)
    assert report.reading.share == 3 / 48
    assert "6.25 % of the words are unknown to the tokenizer." in str(report)
    (warning,) = caplog.records
    assert (
        "does not know 3 of the 48 words of the texts in column 'text' (6.25 %), such as 'zz' and "
        "'qq': the model sees" in warning.getMessage()
    )
    packed = prepare_examples(texts(*rows), tokenizer, max_length=7, pack=True, num_proc=2)[1]
    assert (packed.words, packed.unknown_words) == (48, 3)
    caplog.clear()
    assert prepare_examples(texts(*rows[3:]), tokenizer)[1].unknown_words == 0
    assert not caplog.records


def test_texts_that_are_mostly_unknown_are_refused(tokenizer):
    rows = ["zz", "w1", "qq"]
    with pytest.raises(
        ValueError,
        match=r"not know 2 of the 3 words of the texts in column 'verse' \(66.7 %\), such as 'zz'",
    ):
        prepare_examples(texts(*rows, column="verse"), tokenizer, text_column="verse")
    _, report = prepare_examples(texts(*rows), tokenizer, max_unknown_share=0.7)
    assert report.reading.share == pytest.approx(2 / 3)
    prepare_examples(texts("zz", "w1"), tokenizer)  # half of it is known
    with pytest.raises(ValueError, match="`max_unknown_share` is a share and must lie in"):
        prepare_examples(texts("w1"), tokenizer, max_unknown_share=-1)


def test_residues_in_lower_case_are_as_many_as_their_letters():
    """One unknown token each: counted by tokens, 30 lines of 100 would be one word in 50."""
    rows = ["MKTAYIAKQRQISFVKSHFS"] * 70 + ["mktayiakqrqisfvkshfs"] * 30
    _, report = prepare_examples(texts(*rows), protein_tokenizer(), max_length=32)
    assert (report.words, report.unknown_words) == (2000, 600)
    with pytest.raises(
        ValueError, match="1,400 of the 2,000 words .* such as 'mktayiakqrqisfvkshfs'"
    ):
        prepare_examples(texts(*map(str.swapcase, rows)), protein_tokenizer(), max_length=32)
