"""A generator as a function of batches: by an engine or alone, a row becomes what it becomes."""

import json
import pickle
import sys

import datasets
import numpy as np
import pytest

from hf_maskgit.integrations import ray as for_ray
from hf_maskgit.integrations.batch_writer import BatchWriter, key_of
from scripts import generate

OPTIONS = {"max_new_tokens": 4, "steps": 2}
TEXTS = ["w1 w2", "w3 [MASK] w4", "w5", "[MASK]", "w1 w2", "w6 w7 w8 w9"]


@pytest.fixture(scope="module")
def by_script(saved, tmp_path_factory):
    """What scripts/generate.py writes, row by row."""
    folder = tmp_path_factory.mktemp("script")
    (folder / "rows.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in TEXTS))
    words = ["--model", saved, "--input_file", str(folder / "rows.jsonl"), "--batch_size", "1"]
    words += ["--max_new_tokens", "4", "--steps", "2", "--output_format", "jsonl"]
    generate.main([*words, "--output_file", str(folder / "out.jsonl")])
    return [json.loads(line)["output"] for line in (folder / "out.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_datasets_map_writes_what_the_script_writes(saved, by_script, batch_size):
    rows = datasets.Dataset.from_dict({"text": TEXTS, "id": list("abcdef")})
    writer = BatchWriter(saved, batch_size=4, **OPTIONS)
    told = {"with_indices": True, "with_rank": True}
    written = rows.map(writer, batched=True, batch_size=batch_size, **told)
    assert written["output"] == by_script
    assert written["id"] == rows["id"]
    assert written.column_names == ["text", "id", "output"]


@pytest.mark.wide
def test_by_rank_alone_or_not_even_that_equal_texts_become_equal(saved, by_script):
    rows = datasets.Dataset.from_dict({"text": TEXTS})
    writer = BatchWriter(saved, **OPTIONS)
    by_rank = rows.map(writer, batched=True, with_rank=True, batch_size=4)["output"]
    assert by_rank == rows.map(writer, batched=True, batch_size=3)["output"]
    assert by_rank[0] == by_rank[4]
    assert by_script[0] != by_script[4]
    assert by_rank == [writer({"text": [text]})["output"][0] for text in TEXTS]


def test_columns_of_arrays_keep_their_kind_and_keys_are_the_rows_numbers(saved, by_script):
    writer = BatchWriter(saved, key_column="id", output_column="made", **OPTIONS)
    order = [3, 0, 5, 2, 4, 1]
    batch = {"text": np.array(TEXTS)[order], "id": np.array(order), "x": np.ones((6, 2))}
    found = writer(batch)
    assert found["made"] == [by_script[i] for i in order]
    assert found["x"] is batch["x"]


def test_what_is_sent_to_a_process_is_the_name_of_the_model(saved):
    writer = BatchWriter(saved, **OPTIONS)
    before = pickle.dumps(writer)
    writer({"text": ["w1"]})
    assert pickle.dumps(writer) == before
    assert pickle.loads(before)({"text": ["w1"]}) == writer({"text": ["w1"]})


def test_keys():
    assert key_of(7) == 7
    assert 0 <= key_of("a") < 2**63
    assert len({key_of(text) for text in ("", "a", "b", "\ud800")}) == 4
    for value in (1.5, True, None):
        with pytest.raises(ValueError, match="A key of a row must be an integer or a text, got"):
            key_of(value)


def test_mistakes_about_batches_are_named(saved):
    writer = BatchWriter(saved, **OPTIONS)

    def refused(sentence, batch, writer=writer):
        with pytest.raises(ValueError, match=sentence):
            writer(batch)

    refused("The rows have no column 'text'; name .* They have: txt", {"txt": ["w1"]})
    refused("The rows have a column 'output' already", {"text": ["w1"], "output": [1]})
    refused("A batch reads a text .* got 3 of type int", {"text": [3]})
    refused("holds a blank, which a batch does not fill", {"text": ["{blank}"]})
    refused("does not know 1 of the 1 words of the text 'zz'", {"text": ["zz"]})
    refused("no column 'id'", {"text": ["w1"]}, BatchWriter(saved, key_column="id"))
    lists = BatchWriter(saved, max_new_tokens=[1, 2])
    refused("`max_new_tokens` has 2 numbers for 1 texts", {"text": ["w1", "w2"]}, lists)
    with pytest.raises(ValueError, match="`batch_size` must be an integer of at least 1, got 0"):
        BatchWriter(saved, batch_size=0)
    with pytest.raises(ValueError, match="`seed` must be an integer, got '7'"):
        BatchWriter(saved, seed="7")
    # before it is sent anywhere, and a model loaded
    with pytest.raises(ValueError, match="has no option 'step'; .* Did you mean `steps`"):
        BatchWriter(saved, step=3)
    with pytest.raises(ValueError, match="`num_return_sequences` is not asked of rows, each of wh"):
        BatchWriter(saved, num_return_sequences=2)


def test_without_ray_a_sentence_says_how_to_get_it(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(ImportError, match=r"Ray Data, which is not installed: .*hf_maskgit\[ray\]"):
        for_ray.write_rows(None, saved)


@pytest.mark.slow
def test_two_processes_of_datasets_map(saved, by_script):
    rows = datasets.Dataset.from_dict({"text": TEXTS})
    writer = BatchWriter(saved, **OPTIONS)
    told = {"with_indices": True, "with_rank": True, "num_proc": 2}
    assert rows.map(writer, batched=True, batch_size=2, **told)["output"] == by_script


@pytest.mark.slow
def test_ray_data_writes_what_the_script_writes(saved, by_script):
    """On a local Ray, two actors."""
    ray = pytest.importorskip("ray", reason="pip install 'hf_maskgit[ray]'")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        rows = ray.data.from_items([{"text": t, "id": i, "x": None} for i, t in enumerate(TEXTS)])
        arguments = {"actors": 2, "num_cpus": 1, "rows_per_call": 2, "key_column": "id"}
        written = for_ray.write_rows(rows, saved, **arguments, **OPTIONS).take_all()
    finally:
        ray.shutdown()
    assert {row["id"]: row["output"] for row in written} == dict(enumerate(by_script))
    assert {row["text"] for row in written} == set(TEXTS)


@pytest.mark.parametrize("text", ["w1 w2", "[MASK]", None, np.str_("w1"), 3])
def test_a_row_that_is_no_batch_is_refused(saved, text):
    """`datasets.map` without `batched=True`: the letters of a text would be taken for texts."""
    with pytest.raises(ValueError, match="'text' holds one value, .*; with `datasets`, call"):
        BatchWriter(saved, **OPTIONS)({"text": text})
