"""A caller that takes a generator for a causal language model is told so."""

import logging

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.core import causal_lm
from tests.support.tiny import tiny_model

PAD, UNK, CLS, SEP, MASK = range(5)
TEXT = torch.tensor([[CLS, 7, 8, 9, SEP]])
MASKED = torch.tensor([[CLS, 7, MASK, 9, SEP]])


@pytest.fixture(scope="module")
def causal(folder):
    return AutoModelForCausalLM.from_pretrained(folder)


def test_logits_of_a_text_without_masks_are_refused(causal):
    """What tools ask that score a text from left to right: `model(inps).logits`."""
    with pytest.raises(ValueError, match=r"each position the model sees the token its.*nelbo\(\)"):
        causal(TEXT)
    with pytest.raises(ValueError, match=r"MaskGitForMaskedLM.from_pretrained\(\) instead of Auto"):
        causal(input_ids=TEXT, attention_mask=torch.ones_like(TEXT))


def test_all_else_is_as_in_any_generator(causal, folder):
    plain = MaskGitForMaskedLM.from_pretrained(folder)
    assert type(causal) is MaskGitForMaskedLM
    assert torch.equal(causal(MASKED).logits, plain(MASKED).logits)
    places = torch.ones_like(TEXT, dtype=torch.bool)
    one, other = (m(TEXT, masked_positions=places).logits for m in (causal, plain))
    assert torch.equal(one, other)
    assert torch.equal(causal.generate(MASKED, seed=0), plain.generate(MASKED, seed=0))
    assert causal(TEXT, output_hidden_states=True).hidden_states is not None
    options = {"output_loading_info": True}
    loaded, info = AutoModelForCausalLM.from_pretrained(folder, **options)
    assert loaded.taken_for_causal_lm
    assert not info["missing_keys"]
    made = AutoModelForCausalLM.from_config(plain.config)
    assert type(made) is MaskGitForMaskedLM
    assert made.taken_for_causal_lm


def test_how_it_was_loaded_is_not_saved(causal, tmp_path):
    causal.save_pretrained(tmp_path)
    again = AutoModelForMaskedLM.from_pretrained(tmp_path)
    assert again.config.architectures == ["MaskGitForMaskedLM"]
    assert again(TEXT).logits.shape == (1, 5, 40)


def test_a_masked_lm_warns_once(caplog):
    causal_lm.logger.warning_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        tiny_model()(TEXT)
        tiny_model()(TEXT)
    assert caplog.text.count("No token of the text is masked") == 1
