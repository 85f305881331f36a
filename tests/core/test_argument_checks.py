"""Arguments of the wrong kind: each is refused in a sentence, before anything is done with it."""

import re

import numpy as np
import pytest
import torch

from hf_maskgit import MaskGitForMaskedLM
from tests.support.tiny import tiny_model, word_tokenizer

TEXT = torch.tensor([[2, 7, 4, 8, 4, 3]])


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"input_ids": [[2, 4, 3]]}, "`input_ids` must be a tensor of token ids, got list"),
        ({"input_ids": torch.tensor(3)}, "`input_ids` must be integers of shape (batch, length)"),
        ({"input_ids": TEXT + 0j}, "got dtype torch.complex64"),
        ({"attention_mask": [1] * 6}, "`attention_mask` must be a tensor, got list [1, 1, 1, 1, 1"),
        ({"token_type_ids": 0}, "`token_type_ids` must be a tensor, got int 0."),
        (
            {"token_type_ids": TEXT},
            "`token_type_ids` run from 2 to 8; the encoder has types 0 to 1",
        ),
        (
            {"token_type_ids": TEXT / 2},
            "`token_type_ids` must be integers, got dtype torch.float32",
        ),
        (
            {"generator": 7},
            "`generator` must be a torch.Generator, got int 7; of a number make one",
        ),
        ({"seed": [0.5]}, "`seed` must hold integers, got 0.5 among them."),
        ({"preset": ["maskgit"]}, "Unknown preset ['maskgit']; choose from"),
        ({"order": torch.ones(2)}, "Unknown order tensor([1., 1.]); choose from"),
        ({"remask": ["p2"]}, "Unknown remask ['p2']; choose from"),
        ({"num_return_sequences": "3"}, "`num_return_sequences` must be an integer of at least 1"),
        ({"choice_temperature": np.ones(2)}, "`choice_temperature` must be a number, got array("),
        ({"temperature": float("inf")}, "`temperature` must be finite, got inf."),
        ({"steps": 10**9}, "`steps` must be an integer of at most 100000, got 1000000000."),
        ({"max_new_tokens": 10**9}, "`max_new_tokens` is 1000000000, and the encoder takes 64 tok"),
        ({"pad_token_id": 999}, "`pad_token_id` names the id 999; the vocabulary has 0 to 39."),
        (
            {"stopping_criteria": ["stop"]},
            "`stopping_criteria` must be functions, or objects to be",
        ),
        (
            {"logits_processor": [3]},
            "`logits_processor` must be functions, or objects to be called",
        ),
        ({"callback_on_step_end": 3}, "`callback_on_step_end` must be functions, or objects to be"),
        ({"streamer": "stdout"}, "`streamer` must have the methods put() and end(), .* got str."),
        (
            {"stop_strings": "w1", "tokenizer": "bert", "max_new_tokens": 3},
            "`tokenizer` must be a tokenizer of transformers, got str 'bert'; load one with",
        ),
    ],
    ids=str,
)
def test_generate_names_what_is_of_the_wrong_kind(model, given, said):
    pattern = re.escape(said).replace(r"\.\*", ".*")
    with pytest.raises((TypeError, ValueError), match=pattern):
        model.generate(**{"input_ids": TEXT} | given)


@pytest.mark.parametrize(
    ("processor", "got"),
    [
        (lambda ids, scores: scores[:, :-1], r"\(2, 40\), got \(2, 39\)"),
        (lambda ids, scores: scores[:1], r"\(2, 40\), got \(1, 40\)"),
        (lambda ids, scores: None, r"\(2, 40\), got NoneType"),
    ],
)
@pytest.mark.parametrize("more", [{}, {"repetition_penalty": 2}])
def test_a_processor_that_returns_another_shape_is_named(model, processor, got, more):
    said = f"`logits_processor` must return the scores it got, changed: .* {got}."
    with pytest.raises(ValueError, match=said):
        model.generate(TEXT, steps=1, logits_processor=[processor], **more)


def test_an_integer_is_a_penalty_as_well(model):
    one, other = (model.generate(TEXT, seed=0, repetition_penalty=p) for p in (2, 2.0))
    assert torch.equal(one, other)


def test_token_types_of_any_integers_are_the_same(model):
    types = torch.tensor([[0, 0, 0, 1, 1, 1]])
    long, short = (model.generate(TEXT, seed=0, token_type_ids=t) for t in (types, types.byte()))
    assert torch.equal(long, short)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"encoder": 999}, "`encoder` must be the name or path of a checkpoint, or a loaded model"),
        ({"encoder": ""}, "`encoder` must be the name or path of a checkpoint, or a loaded model"),
        ({"tokenizer": 3}, "`tokenizer` must be a tokenizer of transformers, got int 3"),
        (
            {"critic": 3},
            "`critic` must be the name or path of a checkpoint, or a loaded model, got",
        ),
        (
            {"critic": np.array([1, 2])},  # which compares with a name number by number
            "`critic` must be the name or path of a checkpoint, or a loaded model, got",
        ),
    ],
    ids=str,
)
def test_from_encoder_names_what_is_of_the_wrong_kind(model, given, said):
    arguments = {"encoder": model.denoiser, "tokenizer": word_tokenizer()} | given
    with pytest.raises(TypeError, match=re.escape(said)):
        MaskGitForMaskedLM.from_encoder(arguments.pop("encoder"), **arguments)


ROW = torch.tensor([[2, 4, 7, 3], [2, 8, 4, 3]])


@pytest.mark.parametrize(
    "marks",
    [(ROW == 4).long(), (ROW == 4)[:1], (ROW == 4)[:, :2], (ROW == 4).float()],
    ids=["integers", "one row", "some columns", "floats"],
)
@pytest.mark.parametrize("labels", [None, ROW.where(ROW == 7, -100)], ids=["plain", "labelled"])
def test_marks_that_torch_would_take_for_indices_are_refused(marks, labels):
    """One row of marks gave the logits of the first row alone, and integers those of whole rows."""
    model = tiny_model(token_critic="self", self_cond=True)
    with pytest.raises(
        ValueError, match="`masked_positions`.* (must be of dtype bool|both must be)"
    ):
        model(ROW, masked_positions=marks, labels=labels)
    with pytest.raises(ValueError, match=r"`positions` must be of dtype bool and shape \(2, 4\)"):
        model.score_tokens(ROW, torch.ones_like(ROW), marks)
    before = {"previous_hidden_states": torch.zeros(2, 4, 32), "has_previous": marks[:, 0].long()}
    with pytest.raises(ValueError, match=r"`has_previous` must be of dtype bool and shape \(2,\)"):
        model(ROW, **before)


def test_marks_that_are_no_tensor_are_refused():
    with pytest.raises(TypeError, match="`masked_positions` must be a tensor, got list"):
        tiny_model()(ROW, masked_positions=[[1]])
