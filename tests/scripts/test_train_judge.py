"""A causal judge is trained on the spot, and judges as the measure of its own training does."""

import json
import math
import shutil

import pytest
import torch
from datasets import Dataset, DatasetDict, load_from_disk
from transformers import BertTokenizer

from hf_maskgit.evaluation.judges import CausalJudge
from hf_maskgit.evaluation.text_quality import read_back
from scripts import train_judge
from tests.support.tiny_training import repeated_symbols

SMALL = {
    "vocab_size": 262,
    "length": 24,
    "hidden_size": 16,
    "num_layers": 1,
    "num_heads": 2,
    "batch_size": 2,
    "eval_blocks": 4,
    "eval_every": 3,
}


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    parts = {"train": repeated_symbols(64, 0), "validation": repeated_symbols(16, 1)}
    made = {name: Dataset.from_dict({"text": part}) for name, part in parts.items()}
    DatasetDict(made).save_to_disk(folder)
    return str(folder)


def run(texts, folder, *more):
    words = [f"--{name}={value}" for name, value in SMALL.items()]
    return train_judge.main(["--dataset", texts, "--output_dir", str(folder), *words, *more])


def test_what_it_says_of_a_text_is_what_it_learned_by(texts, tmp_path, capsys):
    """A block behind the end of a text is the text: the judge finds as many nats of it."""
    found = run(texts, tmp_path / "judge", "--max_steps", "6")
    assert json.loads(capsys.readouterr().out) == found
    assert found["perplexity"] == pytest.approx(math.exp(found["nats_per_token"]))
    assert found["tokens_read"] == 6 * 2 * 24
    judge = CausalJudge(str(tmp_path / "judge"))
    learner = train_judge.Causal(train_judge.Shape(24, 16, 1, 2), judge.tokenizer)
    learner.network.load_state_dict(judge.model.state_dict())
    text = "w1 w1 w1 w2"
    ids = torch.tensor([judge.tokenizer(text)["input_ids"]])
    nats = learner.nats(ids, train_judge.Measure(4, 1, 0)).nats_per_token
    assert math.log(judge.judge([text]).perplexity) == pytest.approx(nats, abs=1e-5)


@pytest.mark.wide
def test_it_goes_on_where_it_was_left(texts, tmp_path):
    whole = run(texts, tmp_path / "whole", "--max_steps", "6")
    run(texts, tmp_path / "parts", "--max_steps", "3")
    parts = run(texts, tmp_path / "parts", "--max_steps", "6")
    assert parts["nats_per_token"] == whole["nats_per_token"]
    with pytest.raises(ValueError, match="Name another folder with --output_dir"):
        run(texts, tmp_path / "parts", "--max_steps", "6", "--seed", "1")


@pytest.mark.wide
def test_it_does_not_go_on_with_other_texts_of_the_same_name(texts, tmp_path):
    data = str(shutil.copytree(texts, tmp_path / "texts"))
    run(data, tmp_path / "judge", "--max_steps", "2")
    parts = load_from_disk(texts)
    shutil.rmtree(data)
    fewer = parts["train"].select(range(len(parts["train"]) // 2))
    DatasetDict({**parts, "train": fewer}).save_to_disk(data)
    with pytest.raises(ValueError, match="was written with blocks='sha256:"):
        run(data, tmp_path / "judge", "--max_steps", "4")


def test_it_learns_what_a_generator_gives_back(tmp_path):
    """Texts as printed, read by way of its tokenizer, teach as much as those it gives back."""
    words = {f"w{i}": i + 4 for i in range(4)}
    theirs = BertTokenizer(vocab={"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, **words})
    theirs.save_pretrained(tmp_path / "generator")
    printed = [f"W{i % 4}  W{i % 4}" for i in range(64)]
    given_back = [f"w{i % 4} w{i % 4}" for i in range(64)]
    assert read_back(printed, theirs) == given_back
    found = {}
    for name, texts in (("printed", printed), ("given_back", given_back)):
        parts = {split: Dataset.from_dict({"text": texts}) for split in ("train", "validation")}
        DatasetDict(parts).save_to_disk(tmp_path / name)
        more = ["--written_by", str(tmp_path / "generator")] if name == "printed" else []
        out = tmp_path / f"judge_{name}"
        learned = run(str(tmp_path / name), out, "--max_steps", "3", *more)
        found[name] = learned["nats_per_token"]
    assert found["printed"] == found["given_back"]


def test_what_is_missing_is_named_before_the_folder_is_taken(texts, tmp_path):
    for words, sentence in (
        ([texts, "--written_by", str(tmp_path)], "holds no tokenizer"),
        ([str(tmp_path / "nowhere")], "is no folder of save_to_disk"),
        ([texts, "--batch_size", "99"], r"fill \d+ blocks of 24 tokens, and an update takes 99"),
    ):
        with pytest.raises(ValueError, match=sentence):
            run(words[0], tmp_path / "judge", "--max_steps", "3", *words[1:])
        assert not (tmp_path / "judge").exists()


def test_bad_sizes_are_refused_before_anything_is_read(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run("nowhere", tmp_path / "judge", "--num_heads", "3")
    assert "`hidden_size` must be a multiple of `num_heads`" in capsys.readouterr().err
    assert not (tmp_path / "judge").exists()
