"""How long examples are, however they are kept; every way of training stores it."""

from collections import Counter

import pytest
from datasets import Dataset, IterableDataset
from transformers import Trainer, TrainingArguments

from hf_maskgit import DataCollatorForMaskGit, MaskGitForMaskedLM, MaskGitGenerationConfig
from hf_maskgit.callbacks import SetEpochCallback
from hf_maskgit.core.length_law import histogram
from hf_maskgit.training import lengths
from hf_maskgit.training.lengths import (
    longest_example,
    note_length_of,
    text_lengths,
    warn_of_unknown_lengths,
)
from tests.support.tiny import tiny_config, tiny_model, word_tokenizer

ROWS = [{"input_ids": [2, *[7] * n, 3], "example_id": n} for n in (1, 9, 4, 6)]


@pytest.mark.parametrize("read_at_a_time", [2, 10_000])
def test_the_longest_is_found_without_making_examples(monkeypatch, read_at_a_time):
    monkeypatch.setattr(lengths, "_ROWS", read_at_a_time)
    data = Dataset.from_list(ROWS)
    assert longest_example(data) == longest_example(ROWS) == longest_example(tuple(ROWS)) == 11
    assert longest_example(data.with_format("numpy")) == 11
    assert longest_example(data.select([3, 0, 2])) == 8  # those that are chosen


def test_what_cannot_be_looked_up_is_not_guessed():
    data = Dataset.from_list(ROWS)
    assert longest_example(data.with_transform(lambda rows: pytest.fail("was made"))) is None
    assert longest_example(data.remove_columns("input_ids")) is None
    assert longest_example(IterableDataset.from_generator(lambda: iter(ROWS))) is None
    assert longest_example([{"text": "a"}]) is None
    assert longest_example([]) is longest_example(data.select([])) is longest_example(None) is None


@pytest.mark.wide
@pytest.mark.parametrize("kept_as", [list, Dataset.from_list])
def test_trainer_stores_it(tmp_path, kept_as):
    model = tiny_model("bert")
    collator = DataCollatorForMaskGit.from_config(model.config, word_tokenizer())
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(tmp_path),
            max_steps=1,
            remove_unused_columns=False,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        ),
        data_collator=collator,
        train_dataset=kept_as(ROWS),
        callbacks=[SetEpochCallback(collator)],
    )
    trainer.train()
    trainer.save_model(str(tmp_path / "model"))
    config = MaskGitForMaskedLM.from_pretrained(tmp_path / "model").config
    assert config.trained_length == 11
    assert config.lengths == {"1": 1, "4": 1, "6": 1, "9": 1}


def test_texts_are_measured_without_what_frames_and_fills_them():
    """The oracle makes the example: framing, a body, ends of text."""
    config = tiny_config("bert")
    bodies, fills, framed = (1, 9, 4, 6, 4, 70), (0, 3, 0, 1, 2, 0), (1, 1, 0, 1, 1, 1)
    rows = [
        {"input_ids": [*[2] * frame, *[7] * body, *[3] * (fill + frame)]}
        for body, fill, frame in zip(bodies, fills, framed, strict=True)
    ]
    for kept in (
        rows,
        tuple(rows),
        Dataset.from_list(rows),
        Dataset.from_list(rows).select([5, 1]),
    ):
        expected = Counter(bodies) if len(kept) == 6 else Counter([70, 9])
        assert text_lengths(config, kept) == expected
        note_length_of(config, kept)
        assert config.lengths == histogram(expected.items())
    for unknown in (
        [{"input_ids": [2, 7, 3, 7, 3]}, rows[0]],  # a packed block
        IterableDataset.from_generator(lambda: iter(rows)),
        Dataset.from_list(rows).with_transform(lambda rows: pytest.fail("was made")),
        [],
        [{"input_ids": [2, 3]}],
    ):
        assert text_lengths(config, unknown) is None
        note_length_of(config, unknown)  # of this training nothing is known
        assert config.lengths is None


def test_where_a_critic_alone_learns_lengths_that_are_known_stay():
    config = tiny_config("bert")
    rows = [[{"input_ids": [2, *[7] * length, 3]}] for length in (5, 9)]
    note_length_of(config, rows[0], denoiser_learns=False)
    assert config.lengths == {"5": 1}
    note_length_of(config, rows[1], denoiser_learns=False)
    assert (config.lengths, config.trained_length) == ({"5": 1}, 11)
    note_length_of(config, [{"input_ids": [2, 7, 3, 7, 3]}], denoiser_learns=False)
    assert config.lengths == {"5": 1}


@pytest.mark.parametrize(("way", "field"), [("sampled", "lengths"), ("window", "end_fill")])
def test_a_way_to_find_lengths_that_the_training_does_not_tell_is_warned_of(caplog, way, field):
    config, stored = tiny_config("bert"), MaskGitGenerationConfig(num_tokens=way)
    warn_of_unknown_lengths(config, stored)
    assert f"num_tokens='{way}', which goes by `{field}` of its configuration" in caplog.text
    caplog.clear()
    setattr(config, field, {"lengths": {"3": 1}, "end_fill": 8}[field])
    for fine in (stored, MaskGitGenerationConfig(), MaskGitGenerationConfig(num_tokens="fixed")):
        warn_of_unknown_lengths(config, fine)
    assert not caplog.text
