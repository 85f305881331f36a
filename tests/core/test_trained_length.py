"""Texts that are longer than all that a model was trained on bring a warning, once."""

import pytest
import torch
from transformers.utils import logging

from hf_maskgit import MaskGitConfig, MaskGitForMaskedLM, nelbo
from hf_maskgit.core.trained_length import note_length
from tests.support.tiny import tiny_config, tiny_model

SENTENCE = (
    "A text has more than the 8 tokens, framing included, of the longest one that this model was "
    "trained on; {} may be poor there. Shorten it, or train on longer texts."
)


@pytest.fixture
def said(caplog, monkeypatch):
    """What is said; each sentence comes once in the life of a process, and once in a test."""
    logging.get_logger("transformers").warning_once.cache_clear()
    monkeypatch.setattr(logging.get_logger("hf_maskgit"), "propagate", True)

    def sentences():
        return [r.message for r in caplog.records if r.name.endswith("trained_length")]

    return sentences


def text(length):
    return torch.tensor([[2, *[4] * (length - 2), 3]])


@pytest.mark.wide
def test_generate_warns_once_of_a_text_beyond_the_longest_trained_one(said):
    model = tiny_model("bert", trained_length=8)
    model.generate(text(8), seed=0)
    model.generate(max_new_tokens=6, seed=0)  # and two of framing
    assert said() == []
    for longer in ({"input_ids": text(9)}, {"max_new_tokens": 20}):
        model.generate(**longer, seed=0)
    assert said() == [SENTENCE.format("what it writes")]


def test_padding_is_no_part_of_a_text(said):
    model, ids = tiny_model("bert", trained_length=8), text(8)
    padded = torch.nn.functional.pad(ids, (0, 5))
    model.generate(padded, attention_mask=(padded != 0).long(), seed=0)
    known = torch.where(padded == 4, 7, padded)
    nelbo(model, known, (padded != 0).long(), num_samples=4, seed=0)
    assert said() == []


def test_the_bound_warns_too(said):
    model, ids = tiny_model("bert", trained_length=8), text(9)
    nelbo(model, torch.where(ids == 4, 7, ids), num_samples=4, seed=0)
    assert said() == [SENTENCE.format("its bound")]


def test_a_model_of_which_nobody_knows_warns_of_nothing_and_is_stored_as_before(said):
    model = tiny_model("bert")
    model.generate(text(40), seed=0)
    assert said() == []
    assert "trained_length" not in model.config.to_dict()


def test_a_checkpoint_remembers(tmp_path):
    tiny_model("bert", trained_length=12).save_pretrained(tmp_path)
    config = MaskGitForMaskedLM.from_pretrained(tmp_path).config
    assert config.trained_length == MaskGitConfig.from_pretrained(tmp_path).trained_length == 12
    note_length(config, 9)
    note_length(config, None)
    assert config.trained_length == 12
    note_length(config, 13)
    assert config.trained_length == 13


def test_a_length_that_is_none_is_refused():
    with pytest.raises(ValueError, match="`trained_length` must be at least 1 token, got 0"):
        tiny_config("bert", trained_length=0)
