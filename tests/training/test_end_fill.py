"""Examples filled with ends of text: what is filled, with what, and what a model learns from it."""

import logging
from collections import Counter

import pytest
import torch
from datasets import Dataset, IterableDataset
from hypothesis import given
from hypothesis import strategies as st

from hf_maskgit import DataCollatorForMaskGit
from hf_maskgit.training.arguments import DataArguments
from hf_maskgit.training.end_fill import fill_and_tell, fill_ends, filled_example
from hf_maskgit.training.lengths import text_lengths
from tests.support.tiny import tiny_config, word_tokenizer
from tests.support.tiny_training import trained_on

CLS, SEP = 2, 3
ROWS = [{"input_ids": [CLS, *[7] * n, SEP], "example_id": n} for n in (1, 2, 4, 5, 9)]


@given(st.lists(st.integers(5, 9), max_size=8), st.integers(4, 12), st.booleans())
def test_ends_stand_between_the_text_and_its_framing(body, window, framed):
    ids = [CLS, *body, SEP] if framed else [7, *body]
    filled = filled_example({"input_ids": ids, "maskable": [0] * len(ids)}, window, SEP, [SEP])
    missing = max(0, window - len(ids))
    closing = int(framed)
    text = ids[: len(ids) - closing]
    assert filled["input_ids"] == [*text, *[SEP] * missing, *[SEP] * closing]
    assert filled["maskable"] == [*[0] * len(text), *[1] * missing, *[0] * closing]


def test_a_data_set_and_a_stream_are_filled_alike():
    tokenizer = word_tokenizer()
    rows = [
        {**row, "token_type_ids": [0, *[1] * (len(row["input_ids"]) - 1)], "note": "kept"}
        for row in ROWS
    ]
    filled = fill_ends(Dataset.from_list(rows), tokenizer, 7)
    assert [len(row["input_ids"]) for row in filled] == [7, 7, 7, 7, 11]
    assert filled[1]["input_ids"] == [CLS, 7, 7, SEP, SEP, SEP, SEP]
    assert filled[1]["token_type_ids"] == [0, 1, 1, 1, 1, 1, 1]
    assert filled["example_id"][:] == [1, 2, 4, 5, 9]
    assert filled["note"][:] == ["kept"] * 5
    assert filled[4] == rows[4]
    stream = fill_ends(IterableDataset.from_generator(lambda: iter(rows)), tokenizer, 7)
    assert list(stream) == list(filled)
    counted = text_lengths(tiny_config("bert"), filled)
    assert counted == Counter([1, 2, 4, 5, 9])


def test_ends_are_masked_and_counted_and_the_prompt_is_not():
    tokenizer = word_tokenizer()
    rows = [{"input_ids": [CLS, 7, 8, SEP], "maskable": [0, 0, 1, 0]}]
    filled = fill_ends(Dataset.from_list(rows), tokenizer, 7)
    batch = DataCollatorForMaskGit(tokenizer)([filled[0]])
    assert batch["labels"].tolist() == [[-100, -100, 8, SEP, SEP, SEP, -100]]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"end_fill": 3}, "`end_fill` must be at least 4 tokens: the tokenizer puts 2 around"),
        ({"end_fill": 4}, "No example is shorter than end_fill=4 tokens, so that none shows"),
    ],
)
def test_a_window_without_room_is_refused(given, sentence):
    rows = Dataset.from_list(ROWS[2:])
    with pytest.raises(ValueError, match=sentence):
        fill_and_tell("Training", rows, word_tokenizer(), given["end_fill"])


def test_a_tokenizer_that_ends_no_text_is_refused():
    tokenizer = word_tokenizer()
    tokenizer.sep_token = tokenizer.eos_token = None
    with pytest.raises(ValueError, match="neither an end-of-text nor a separator .* to fill"):
        fill_ends(Dataset.from_list(ROWS), tokenizer, 9)


@pytest.mark.parametrize("given", [{"pack": True}, {"max_length": 8}])
def test_what_excludes_it_is_refused(given):
    with pytest.raises(ValueError, match="`end_fill` fills examples of one text each, .* got end_"):
        DataArguments(dataset="texts.txt", end_fill=9, **given)


def test_the_log_says_how_many_were_filled(caplog):
    with caplog.at_level(logging.INFO, "hf_maskgit"):
        fill_and_tell("Training", Dataset.from_list(ROWS), word_tokenizer(), 7)
    assert "3 of 5 examples were shorter than the window of 7 tokens and got 8 ends" in caplog.text
    assert fill_and_tell("Training", Dataset.from_list(ROWS), word_tokenizer(), None)[0] == ROWS[0]


# Texts of one word: 1, 3 or 6 of it. The law of their length is all that there is to learn.
SHARES = {1: 0.5, 3: 0.3, 6: 0.2}


@pytest.mark.slow
def test_a_model_trained_with_it_ends_its_texts_where_the_data_do(tmp_path):
    """The network learns the law but for a per cent or two, so the bound is on the distance.

    0.05 of total variation, which 2,000 texts of the right law exceed once in a million times.
    """
    texts = [" ".join(["w1"] * n) for n, share in SHARES.items() for _ in range(round(100 * share))]
    model = trained_on(tmp_path, texts, max_length=10, end_fill=10, max_steps=250)
    assert model.config.end_fill == 10
    assert model.config.lengths == {"1": 50, "3": 30, "6": 20}
    assert model.config.trained_length == 10
    options = {"pace": "first_hitting", "anneal_temperature": False, "num_return_sequences": 2000}
    rows = model.generate(num_tokens="window", seed=0, **options)
    assert rows.shape[1] == 10
    lengths = Counter((rows == 6).sum(1).tolist())
    distance = sum(abs(lengths[n] / 2000 - share) for n, share in SHARES.items()) / 2
    assert distance < 0.05
    # asked for as many, it is the same
    again = model.generate(max_new_tokens=8, seed=0, **options)
    assert torch.equal(again, rows)
    # behind a prompt of one word it is the law of those that are longer
    prompt = torch.tensor([[CLS, 6, 6, SEP]])
    rows = model.generate(prompt, num_tokens="window", seed=1, **options)
    longer = Counter((rows == 6).sum(1).tolist())
    assert abs(longer[3] / 2000 - 0.6) < 0.1
