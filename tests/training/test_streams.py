"""Streams: exact at any layout, wherever they are left, and new in every pass."""

import gzip
import json
import os

import pytest
import torch
from datasets import Dataset

from hf_maskgit import DataCollatorForMaskGit
from hf_maskgit.training import streams
from hf_maskgit.training.checkpoints import Progress
from hf_maskgit.training.framing import framing_of
from hf_maskgit.training.sources import load_texts
from hf_maskgit.training.stream_batches import StreamBatches
from hf_maskgit.training.streams import SourceReader, StreamedExamples, StreamSource
from hf_maskgit.training.tokenising import Form, Tokenising
from tests.support.tiny import WORDS, word_tokenizer

CPU = torch.device("cpu")
TEXTS = [" ".join([*WORDS[i % 20 : i % 20 + 2 + i % 7], WORDS[i // 20]]) for i in range(90)]


def write(folder, num_files, texts=TEXTS):
    folder.mkdir(exist_ok=True)
    for number in range(num_files):
        path = folder / f"part-{number}.jsonl"
        lines = [json.dumps({"text": text}) + "\n" for text in texts[number::num_files]]
        path.write_text("".join(lines))
    return str(folder / "*.jsonl")


def stream_of(*patterns, weights=None, lanes=4, block=7, pack="no", max_length=16, **options):
    form, tokenizer = Form(), word_tokenizer()
    sources = [
        StreamSource(*pattern)
        if isinstance(pattern, tuple)
        else StreamSource(pattern, load_texts(pattern, streaming=True))
        for pattern in patterns
    ]
    return StreamedExamples(
        sources,
        weights,
        Tokenising(tokenizer, form, **options),
        framing_of(tokenizer, form, max_length=max_length, pack=pack),
        seed=3,
        num_lanes=lanes,
        block_size=block,
    )


def text_of(example):
    return word_tokenizer().decode(example["input_ids"][1:-1])


@pytest.mark.parametrize("num_files", [1, 6])
def test_the_lanes_of_a_pass_read_each_text_once(tmp_path, num_files):
    """One file is dealt text by text, six files file by file, to four lanes."""
    stream = stream_of(write(tmp_path / "a", num_files))
    seen = []
    for lane in range(4):
        reader = SourceReader(stream.sources[0], lane, 4, None)
        passes = {0: [], 1: []}
        while reader.place["pass"] < 2:
            text = reader.read().example["text"]
            passes.setdefault(reader.place["pass"], []).append(text)
        assert passes[0] == passes[1]
        seen += passes[0]
    assert sorted(seen) == sorted(TEXTS)


def test_a_block_is_shuffled_and_a_later_pass_otherwise(tmp_path):
    stream = stream_of(write(tmp_path / "a", 1), lanes=1, block=90)
    lane = stream.lane(0)
    first, second = lane.take(90), lane.take(90)
    assert sorted(map(text_of, first)) == sorted(map(text_of, second)) == sorted(TEXTS)
    orders = [[text_of(example) for example in part] for part in (first, second)]
    assert len({tuple(order) for order in (*orders, TEXTS)}) == 3
    assert [example["example_id"] for example in first + second] == list(range(180))


@pytest.mark.grid(2)
@pytest.mark.parametrize("kind", ["jsonl", "txt", "csv", "parquet", "txt.gz", "saved"])
@pytest.mark.parametrize(("pack", "at_hand"), [("no", 4), ("joined", 256)])
def test_a_lane_goes_on_wherever_it_was_left(tmp_path, monkeypatch, kind, pack, at_hand):
    monkeypatch.setattr(streams, "_ROWS_AT_HAND", at_hand)
    data = Dataset.from_dict({"text": TEXTS})
    path = tmp_path / f"a.{kind}"
    if kind == "jsonl":
        data.to_json(path)
    elif kind == "csv":
        data.to_csv(path)
    elif kind == "parquet":
        data.to_parquet(path, batch_size=8)
    elif kind == "saved":
        data.save_to_disk(path)
    else:
        with gzip.open(path, "wt") if kind == "txt.gz" else open(path, "w") as file:
            file.write("\n".join(TEXTS))
    texts = load_texts(str(path), streaming=True)
    stream = stream_of((str(path), texts), pack=pack)
    lane = stream.lane(1)
    whole, states = [], [lane.state]
    for _ in range(40):  # 30 texts a pass, blocks of 7
        whole += lane.take(1)
        states.append(json.loads(json.dumps(lane.state)))
    for start in (0, 1, 6, 7, 8, 20, 23, 31, 37):
        again = stream.lane(1, states[start])
        assert again.take(3) == whole[start : start + 3]
        again = stream.lane(1, json.loads(json.dumps(again.state)))  # left once more
        assert again.take(37 - start) == whole[start + 3 :]


def rows_of(batch):
    real = batch["attention_mask"].bool()
    return {
        int(number): [
            tensor[row][real[row]].tolist() for tensor in batch.values() if tensor.ndim > 1
        ]
        for row, number in enumerate(batch["example_id"])
    }


def batches_of(stream, process=0, num_processes=1, num_workers=0, count=5, states=()):
    collator = DataCollatorForMaskGit(word_tokenizer(), seed=3)
    made = StreamBatches(stream, collator, 8, process, num_processes, CPU, num_workers)
    made.states = dict(states)
    batches = made.from_where_it_stands(Progress({}))
    return [rows_of(next(batches)) for _ in range(count)], made.states


@pytest.mark.wide
def test_an_update_is_the_same_for_all_workers_and_processes(tmp_path):
    stream = stream_of(write(tmp_path / "a", 6))
    whole, states = batches_of(stream)
    assert [sorted(update) for update in whole] == [list(range(8 * n, 8 * n + 8)) for n in range(5)]
    for num_workers in (1, 2):
        helped, then = batches_of(stream, num_workers=num_workers)
        assert helped == whole
        assert then == states
    parts = [batches_of(stream, process, 2, num_workers=process) for process in (0, 1)]
    for update, one, other in zip(whole, parts[0][0], parts[1][0], strict=True):
        assert len(one) == len(other) == 4
        assert {**one, **other} == update
    assert {**parts[0][1], **parts[1][1]} == states


def test_an_update_is_that_of_the_collator_on_all_its_examples(tmp_path):
    stream = stream_of(write(tmp_path / "a", 6))
    lanes = [stream.lane(number) for number in range(4)]
    collator = DataCollatorForMaskGit(word_tokenizer(), seed=3)
    for update in batches_of(stream, count=3)[0]:
        features = [example for lane in lanes for example in lane.take(2)]
        plain = collator(features)
        plain["example_id"] = torch.tensor([example["example_id"] for example in features])
        assert rows_of(plain) == update


@pytest.mark.wide
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_run_goes_on_with_another_number_of_processes(tmp_path, num_workers):
    """What was prepared beyond the last update that was taken is not counted as given."""
    stream = stream_of(write(tmp_path / "a", 6))
    whole, _ = batches_of(stream, count=9)
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    collator = DataCollatorForMaskGit(word_tokenizer(), seed=3)
    for process in (0, 1):
        made = StreamBatches(stream, collator, 8, process, 2, CPU, num_workers)
        batches = made.from_where_it_stands(Progress({}))
        for _ in range(4):
            next(batches)
        made.write(folder)
    alone = StreamBatches(stream, collator, 8, 0, 1, CPU, num_workers)
    alone.read(folder)
    assert batches_of(stream, count=5, states=alone.states)[0] == whole[4:]
    os.remove(folder / "stream_states_1.json")
    with pytest.raises(ValueError, match="does not tell where the 4 lanes of the .* has 2"):
        alone.read(folder)


@pytest.mark.wide
def test_a_mixture_has_its_weights_in_every_lane_and_goes_on_exactly(tmp_path):
    """Counts of 1,200 texts: beyond 5 standard deviations once in 1.7 million runs."""
    one = write(tmp_path / "a", 4, ["w1 w2"] * 40)
    other = write(tmp_path / "b", 1, ["w3 w4 w5"] * 900)
    stream = stream_of(one, other, weights=[3, 1])
    for number in range(4):
        lane = stream.lane(number)
        texts = [text_of(example) for example in lane.take(300)]
        assert abs(texts.count("w1 w2") - 225) < 5 * (300 * 0.75 * 0.25) ** 0.5
        state = lane.state
        assert stream.lane(number, state).take(50) == lane.take(50)


@pytest.mark.wide
def test_faults_of_a_stream_are_named(tmp_path, monkeypatch):
    faulty = [*TEXTS[:50], "w1 [MASK]", *TEXTS[51:]]
    stream = stream_of(write(tmp_path / "a", 1, faulty))
    with pytest.raises(ValueError, match=r"row 50 of .* contains the mask .* line 51 of '.*-0.j"):
        stream.lane(2).take(30)
    stream = stream_of(write(tmp_path / "b", 4, faulty))  # text 50 is the 13th of the third file
    with pytest.raises(ValueError, match=r"row 12 of lane 2 of '.*' contains the mask token"):
        stream.lane(2).take(30)
    for num_workers in (0, 2):
        with pytest.raises(ValueError, match=r"^The text in row 12 of lane 2 of .* Remove it from"):
            batches_of(stream, num_workers=num_workers, count=10)
    stream.lane(1).take(30)
    path = write(tmp_path / "c", 1)
    with open(tmp_path / "c" / "part-0.jsonl", "a") as file:
        file.write("{'text': 1}\n")
    with pytest.raises(ValueError, match=r"cannot be read.*Line 91 of '.*part-0.jsonl' is no JSON"):
        stream_of(path).lane(0).take(30)
    with pytest.raises(ValueError, match=r"Lane 3 of 4 gets no text of .*lower `stream_lanes`"):
        stream_of(write(tmp_path / "d", 1, TEXTS[:3])).lane(3).take(1)
    with pytest.raises(ValueError, match="the first texts of lane 0"):
        stream_of(write(tmp_path / "e", 1, ["zz qq"] * 30)).lane(0).take(1)
    monkeypatch.setattr(streams, "_LONGEST_SILENCE", 50)
    silent = stream_of(write(tmp_path / "f", 1, [""] * 300), drop_empty_texts=True)
    with pytest.raises(ValueError, match="met 56 texts after one another that hold nothing"):
        silent.lane(0).take(1)
    lane = stream_of(write(tmp_path / "g", 1)).lane(0)
    lane.take(20)
    shorter = stream_of(write(tmp_path / "g", 1, TEXTS[:20]))
    with pytest.raises(ValueError, match="has fewer rows than when it was left"):
        shorter.lane(0, lane.state)


def test_lanes_that_do_not_fit_are_refused(tmp_path):
    stream = stream_of(write(tmp_path / "a", 1))
    collator = DataCollatorForMaskGit(word_tokenizer())
    for size, processes in ((6, 1), (12, 3)):
        with pytest.raises(ValueError, match="`stream_lanes` is 4, and an update has"):
            StreamBatches(stream, collator, size, 0, processes, CPU)


def test_a_stream_is_known_by_its_contents_wherever_it_lies(tmp_path):
    found = [stream_of(write(tmp_path / name, 3)).checksum() for name in "ab"]
    assert found[0] == found[1]
    others = (
        stream_of(write(tmp_path / "c", 3, TEXTS[:89])),
        stream_of(write(tmp_path / "d", 3, TEXTS[::-1])),
        stream_of(write(tmp_path / "e", 3), max_length=15),
        stream_of(write(tmp_path / "f", 3), block=8),
    )
    assert len({found[0], *(stream.checksum() for stream in others)}) == 5
