"""Mixtures: each source as often as its weight says, and no text on both sides."""

import numpy as np
import pytest
from datasets import Dataset

from hf_maskgit.training.data import load_data
from hf_maskgit.training.data_arguments import DataArguments
from hf_maskgit.training.mixtures import mixed
from tests.support.tiny import WORDS, word_tokenizer


def source(name, count):
    return Dataset.from_dict({"text": [f"{name}{i}" for i in range(count)]})


def test_without_weights_every_text_is_taken_once():
    mixture, counts = mixed([source("a", 3), source("b", 5)], None, seed=0)
    assert counts == [3, 5]
    assert mixture["text"][:] == [*source("a", 3)["text"], *source("b", 5)["text"]]


@pytest.mark.wide
@pytest.mark.parametrize("weights", [[3, 1], [0.75, 0.25], [30.0, 10.0]])
def test_weights_are_relative_and_hold_in_the_long_run(weights):
    """Beyond 5 standard deviations once in 1.7 million runs; the draw is seeded."""
    mixture, counts = mixed([source("a", 4000), source("b", 4000)], weights, seed=1)
    total = len(mixture)
    assert sum(counts) == total
    assert counts[0] == 4000 or counts[1] == 4000
    assert abs(counts[0] / total - 0.75) < 5 * (0.75 * 0.25 / total) ** 0.5
    assert counts[0] == sum(text.startswith("a") for text in mixture["text"])


def test_an_epoch_ends_with_the_first_source_or_with_the_last():
    sources = [source("a", 10), source("b", 100)]
    first, counts = mixed(sources, [1, 1], seed=0)
    assert len(set(first["text"])) == len(first)
    assert counts[0] == 10
    every, counts = mixed(sources, [1, 1], seed=0, stop="all_exhausted")
    assert set(every["text"]) == set(sources[0]["text"]) | set(sources[1]["text"])
    assert counts[0] > 10
    again, _ = mixed(sources, [1, 1], seed=0, stop="all_exhausted")
    assert again["text"][:] == every["text"][:]


def test_a_mixture_of_files_is_reported_and_held_out_texts_are_never_learned(tmp_path):
    random = np.random.default_rng(0)
    for name, count in (("a", 12), ("b", 60)):
        rows = [" ".join(random.choice(WORDS, 6)) for _ in range(count)]
        (tmp_path / f"{name}.txt").write_text("\n".join(rows))
    names = [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]
    options = DataArguments(
        dataset=names,
        dataset_probs=[1, 1],
        dataset_stop="all_exhausted",
        validation_fraction=0.25,
        max_length=16,
    )
    data = load_data(options, word_tokenizer(), None, seed=0)
    assert list(data.train_report.sources) == names
    assert sum(data.train_report.sources.values()) == data.train_report.texts
    assert data.train_report.sources[names[0]] > 9
    assert "Its sources: " in str(data.train_report)
    learned = {tuple(ids) for ids in data.train["input_ids"]}
    held_out = {tuple(ids) for ids in data.held_out["input_ids"]}
    assert len(learned) == 54
    assert len(held_out) == 18
    assert not learned & held_out
    ids = data.train["example_id"][:]
    assert ids == list(range(len(data.train)))  # a text that comes twice has other masks each time


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"dataset_probs": [1]}, "has 1 numbers for 2 data sets"),
        ({"dataset_probs": [1, 0]}, r"must be greater than 0, got \[1, 0\]"),
        ({"dataset_probs": [1, float("nan")]}, "must be greater than 0"),
        ({"dataset": ["a"], "dataset_probs": [1]}, "mixes several data sets, and `dataset` names"),
        ({"dataset_config": ["x"]}, "names 1 configurations for 2 data sets"),
        ({"streaming": True}, "a mixture of streams needs `dataset_probs`"),
    ],
)
def test_mixtures_that_mean_nothing_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        DataArguments(**{"dataset": ["a", "b"], **options})


def test_a_stream_has_no_epoch_that_could_end():
    mixture = {"dataset": ["a", "b"], "dataset_probs": [1, 2], "dataset_stop": "all_exhausted"}
    assert DataArguments(**mixture).dataset_stop == "all_exhausted"
    with pytest.raises(ValueError, match=r"there is none here \(a stream has no epochs\)"):
        DataArguments(**mixture, streaming=True)
