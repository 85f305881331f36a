"""Texts written while a model learns: the same requests every time, and nothing else is touched."""

import pytest
import torch

from hf_maskgit.core.trained_length import note_length
from hf_maskgit.evaluation.texts import TextWriter
from tests.support.tiny import WORDS, tiny_model, word_tokenizer


@pytest.fixture(scope="module")
def model():
    model = tiny_model()
    note_length(model.config, 12)  # framing included
    return model


def test_texts_come_in_the_order_of_their_prompts_and_keep_them(model):
    prompts = ["w1 [MASK] w2", "w3", "", "[MASK] w4"]
    texts = TextWriter(model, word_tokenizer(), prompts, num_texts=2).write(model)
    assert [text.prompt for text in texts] == [p for prompt in prompts for p in (prompt, prompt)]
    assert len({text.seed for text in texts}) == len(texts)
    for text in texts:
        words = text.text.split()
        assert set(words) <= set(WORDS)
        if "[MASK]" in text.prompt:
            given = text.prompt.split()
            assert len(words) == len(given)
            assert [w for w, g in zip(words, given, strict=True) if g != "[MASK]"] == [
                g for g in given if g != "[MASK]"
            ]
        else:
            assert words[: len(text.prompt.split())] == text.prompt.split()
            assert len(words) <= 10, "as long as what was learned from"


def test_the_same_model_writes_the_same_and_nothing_else_changes(model):
    writer = TextWriter(model, word_tokenizer(), num_texts=3, seed=5)
    model.train()
    before = torch.get_rng_state()
    one, other = writer.write(model), writer.write(model)
    assert one == other
    assert len({text.text for text in one}) > 1
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    model.eval()
    assert TextWriter(model, word_tokenizer(), num_texts=3, seed=6).write(model) != one


def test_nats_are_those_of_the_written_tokens_when_they_were_revealed(model):
    """One mask is one pass: -log p by hand."""
    (text,) = TextWriter(model, word_tokenizer(), ["w1 [MASK] w2"]).write(model)
    ids = word_tokenizer()(text.prompt, return_tensors="pt")
    with torch.no_grad():
        logits = model(**ids).logits[0, 2].double()
    # No special token is written, and no text ends before a word that is known.
    logits[word_tokenizer().all_special_ids] = -torch.inf
    written = word_tokenizer().convert_tokens_to_ids(text.text.split()[1])
    nats = -float(logits.log_softmax(-1)[written])
    assert text.nats_per_token == pytest.approx(nats, rel=1e-5)


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("w1 {blank:2}", "holds a blank"),
        (3, "reads a text"),
        ("zz yy w1", "does not know 2 of the 3 words"),
        (" ".join(["w1"] * 62), "has 64 tokens, framing included, and the encoder takes 64 with"),
    ],
)
def test_a_prompt_that_nothing_can_be_written_to_is_refused_at_once(model, prompt, said):
    with pytest.raises(ValueError, match=said):
        TextWriter(model, word_tokenizer(), ["w1", prompt])


def test_a_prompt_that_is_mostly_unknown_passes_where_that_is_asked_for(model):
    (text,) = TextWriter(model, word_tokenizer(), ["zz yy w1"], max_unknown_share=1).write(model)
    assert text.prompt == "zz yy w1"


@pytest.mark.parametrize("way", ["fixed", "sampled", "window"])
def test_prompts_have_the_same_room_however_the_model_finds_lengths(model, way):
    """Nor does a prompt that is longer than what it would find end a training."""
    model.config.lengths, model.config.end_fill = {"2": 1}, 8
    model.generation_config.num_tokens = way
    model.generation_config.suppress_tokens = [3]
    model.generation_config.max_new_tokens = 5
    prompts = ["", "w1 w2 w3 w4 w5 w6 w7 w8", "w1 [MASK]"]
    written = TextWriter(model, word_tokenizer(), prompts).write(model)
    lengths = [len(text.text.split()) for text in written]
    assert lengths == [
        {"fixed": 5, "sampled": 2, "window": 6}[way],
        10,
        2,
    ]  # of 12 that it has seen, framed
