"""Many rows: the parts are those of one process, whoever writes them and however often it dies."""

import json

import pyarrow.parquet
import pytest
import torch

from hf_maskgit.core.noise import mix
from hf_maskgit.rows.parts import PartsFolder
from hf_maskgit.rows.reading import ListedRows
from hf_maskgit.rows.writer import RowWriter
from hf_maskgit.rows.writing import PartsWriter, RowOptions, in_batches
from tests.support.tiny import WORDS, tiny_model, word_tokenizer

OPTIONS = {"max_new_tokens": 4, "steps": 2}


class Counting(RowWriter):
    """Counts its batches, and dies before one of them."""

    dies_before = -1

    def __init__(self, *args):
        super().__init__(*args)
        self.batches = []

    def write(self, texts, seeds, lengths=None):
        if len(self.batches) == self.dies_before:
            raise KeyboardInterrupt
        self.batches.append(list(texts))
        return super().write(texts, seeds, lengths)


@pytest.fixture(scope="module")
def model():
    return tiny_model().double()


def rows_of(count=23):
    draws = torch.Generator().manual_seed(1)

    def text(i):
        words = [WORDS[int(w)] for w in torch.randint(35, (i * 7 % 11 + 1,), generator=draws)]
        return " ".join(["[MASK]", *words] if i % 4 == 0 else words)

    return [{"id": f"row {i}", "text": text(i)} for i in range(count)]


def parts(folder, model, rows=None, options=OPTIONS, **how):
    rows = ListedRows(rows or rows_of())
    how = RowOptions(**{"batch_size": 3, **how})
    suffix = {"jsonl": ".jsonl", "text": ".txt", "parquet": ".parquet"}[how.output_format]
    place = PartsFolder(folder, len(rows) * how.num_samples, 7, suffix)
    with place.claimed({}):
        pass
    writer = Counting(model, word_tokenizer(), options, how.num_samples)
    return place, writer, PartsWriter(writer, rows, how, place)


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    _, writer, job = parts(folder, model)
    job.write(0, 1)
    return bytes_of(folder), len(writer.batches)


@pytest.mark.wide
def test_every_row_is_there_once_in_order_with_what_generate_gives_it_alone(model, whole):
    lines = b"".join(content for name, content in sorted(whole[0].items()) if "part" in name)
    found = [json.loads(line) for line in lines.decode().splitlines()]
    tokenizer = word_tokenizer()
    assert len(found) == 23
    for number, (row, line) in enumerate(zip(rows_of(), found, strict=True)):
        seed = mix(0, number, 0)
        inputs = tokenizer(row["text"], return_tensors="pt")
        alone = model.generate(**inputs, **OPTIONS, seed=[seed])
        output = tokenizer.decode(alone[0], skip_special_tokens=True)
        assert line == {**row, "sample": 0, "seed": seed, "output": output}


@pytest.mark.wide
def test_texts_of_a_batch_are_of_one_kind_and_of_like_length(model, tmp_path):
    _, writer, job = parts(tmp_path, model)
    job.write(0, 1)
    for batch in writer.batches:
        assert len({"[MASK]" in text for text in batch}) == 1
        assert len(batch) <= 3
    longest = [max(len(text.split()) for text in batch) for batch in writer.batches]
    padding = sum(
        n - len(text.split())
        for n, batch in zip(longest, writer.batches, strict=True)
        for text in batch
    )
    in_order = in_batches(
        RowOptions().samples(ListedRows(rows_of()), range(23)), 3, lambda text: "[MASK]" in text
    )
    sizes = [[len(sample.text.split()) for sample in batch] for batch in in_order]
    assert padding < sum(max(batch) - n for batch in sizes for n in batch)


@pytest.mark.wide
def test_who_is_killed_before_any_batch_goes_on_where_it_was(model, whole, tmp_path):
    content, count = whole
    for dies_before in range(0, count, 4):
        folder = tmp_path / str(dies_before)
        _, first, job = parts(folder, model)
        first.dies_before = dies_before
        with pytest.raises(KeyboardInterrupt):
            job.write(0, 1)
        _, second, job = parts(folder, model)
        job.write(0, 1)
        assert len(first.batches) + len(second.batches) == count
        assert bytes_of(folder) == content


@pytest.mark.wide
@pytest.mark.parametrize("world", [2, 3, 9])
def test_processes_share_the_parts_and_write_those_of_one(model, whole, tmp_path, world):
    content, count = whole
    place, _, _ = parts(tmp_path, model)
    batches = []
    for rank in range(world):  # each while the others hold what they have begun
        _, writer, job = parts(tmp_path, model)
        held = [place.held(part) for part in range(place.count) if part % world > rank]
        for lock in held:
            lock.__enter__()
        job.write(rank, world)
        for lock in held:
            lock.__exit__(None, None, None)
        batches += writer.batches
    assert len(batches) == count
    assert bytes_of(tmp_path) == content


@pytest.mark.wide
def test_a_process_takes_over_what_nobody_writes(model, whole, tmp_path):
    _, _, job = parts(tmp_path, model)
    job.write(1, 2)
    assert bytes_of(tmp_path) == whole[0]


@pytest.mark.wide
def test_a_process_leaves_parts_that_others_hold(model, tmp_path, caplog):
    caplog.set_level("INFO", "hf_maskgit")
    place, _, job = parts(tmp_path, model)
    with place.held(1):
        job.write(0, 1)
    assert not place.path(1).exists()
    assert "Process 0 of 1 has no part left to write; other processes" in caplog.text
    assert caplog.messages[0].startswith("Writing: 16 of 23 samples")


@pytest.mark.wide
def test_parquet_keeps_columns_and_their_types(model, tmp_path):
    rows = [{**row, "weight": i / 2} for i, row in enumerate(rows_of(8))]
    _, _, job = parts(tmp_path, model, rows, num_samples=2, output_format="parquet")
    job.write(0, 1)
    table = pyarrow.parquet.read_table(sorted(tmp_path.glob("*.parquet")))
    assert table.schema.names == ["id", "text", "weight", "sample", "seed", "output"]
    found = table.to_pylist()
    assert [(row["id"], row["sample"]) for row in found] == [
        (row["id"], sample) for row in rows for sample in range(2)
    ]
    assert [row["weight"] for row in found] == [row["weight"] for row in rows for _ in range(2)]


def test_rows_that_cannot_be_written_are_refused_before_the_first(model, tmp_path):
    def refused(sentence, rows, options=OPTIONS, **how):
        with pytest.raises(ValueError, match=sentence):
            parts(tmp_path, model, rows, options, **how)[2].write(0, 1)
        assert not list(tmp_path.glob("part-*-of-*"))

    good = [{"text": "w1"}] * 3
    long = {"text": " ".join(["w1"] * 59)}
    refused(
        r"text 3 comes to 65 tokens with what is written, and the encoder takes 64", [*good, long]
    )
    refused(
        r"text 3 comes to 66 tokens",
        [*good, {"text": f"[MASK] {long['text']}"}],
        {"steps": 2, "max_new_tokens": 4},
    )
    refused(r"does not know 1 of the 1 words of the text 'zz'", [*good, {"text": "zz"}])
    refused(r"The column 'seed' of text 3 has the name of one", [*good, {"text": "w1", "seed": 1}])
    refused(r"The column 'text' of text 0 has the name", good, output_column="text")
    refused(r"`max_new_tokens` has 2 numbers for 3 texts", good, {"max_new_tokens": [1, 2]})
    refused(r"JSON cannot hold a value", [*good, {"text": "w1", "x": float("nan")}])
