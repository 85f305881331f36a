"""A generator in a fresh process: every change shows."""

import json
import shutil

import pytest
import torch

from hf_maskgit.hub.reloading import answers_in_a_fresh_process, answers_of, differences
from tests.support.grids import wide
from tests.support.tiny import tiny_model, word_tokenizer


@pytest.mark.parametrize("way", [wide("sampled"), "window"])
def test_a_model_that_stores_how_it_finds_lengths_is_asked_like_any_other(way):
    """Also one that was trained on no lengths, and could not find any by itself."""
    model = tiny_model()
    sample = answers_of(model, word_tokenizer())
    model.generation_config.num_tokens = way
    assert differences(sample, answers_of(model, word_tokenizer())) == ["the options of decoding"]


@pytest.mark.wide
def test_every_change_of_a_model_shows_in_its_answers():
    tokenizer = word_tokenizer()
    answers = answers_of(tiny_model(), tokenizer)
    assert differences(answers, json.loads(json.dumps(answers_of(tiny_model(), tokenizer)))) == []

    one_bit = tiny_model()
    with torch.no_grad():
        weight = one_bit.get_input_embeddings().weight
        weight[one_bit.config.mask_token_id, 0] += 1e-5
    assert "the logits" in differences(answers, answers_of(one_bit, tokenizer))

    other = tiny_model(seed=1)
    assert differences(answers, answers_of(other, tokenizer))[:2] == [
        "the seeded sample",
        "the logits",
    ]
    options = tiny_model()
    options.generation_config.top_k = 7
    assert "the options of decoding" in differences(answers, answers_of(options, tokenizer))
    frameless = word_tokenizer()
    frameless.add_tokens([f"w{i}, " for i in range(3)])
    frameless.backend_tokenizer.post_processor = word_tokenizer().backend_tokenizer.post_processor
    frameless.model_input_names = ["input_ids"]
    frameless.backend_tokenizer.pre_tokenizer = None
    assert differences(answers, answers_of(tiny_model(), frameless)) == ["the tokens of a text"]


@pytest.mark.slow
def test_what_does_not_load_in_a_fresh_process_is_not_pushed(folder, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(RuntimeError, match="broken' does not load in a fresh process: .*Error"):
        answers_in_a_fresh_process(broken, with_package=True)


def test_a_sample_that_ends_before_its_length_is_asked_as_well():
    """Behind its end stands padding, which a pass without a mask would take for text."""
    model = tiny_model()
    bias = model.get_output_embeddings().bias
    with torch.no_grad():
        bias[model.config.eos_token_id] += 30
    tokenizer = word_tokenizer()
    answers = answers_of(model, tokenizer)
    assert model.config.pad_token_id in answers["the seeded sample"][0]
    assert differences(answers, answers_of(model, tokenizer)) == []
