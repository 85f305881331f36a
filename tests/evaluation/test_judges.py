"""A causal judge against its own probabilities, and MAUVE where it is known."""

import math
import sys

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

from hf_maskgit.evaluation.judges import CausalJudge, Featuriser, mauve
from tests.support.tiny import ROBERTA_SPECIALS, word_tokenizer


def saved_judge(folder, tokenizer, scale=1.0):
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=8,
        n_embd=16,
        n_layer=1,
        n_head=2,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(scale)  # the head's, too
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def judge(tmp_path):
    """A judge with a token that begins a text."""
    return saved_judge(tmp_path, word_tokenizer(specials=ROBERTA_SPECIALS))


TEXTS = ["w1 w2 w3 w2", "w5", "w7 w7"]


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_perplexity_is_that_of_the_tokens_one_by_one(judge, batch_size):
    asked = CausalJudge(judge, batch_size=batch_size)
    nats = []
    for text in TEXTS:
        ids = [asked.tokenizer.bos_token_id]
        total = 0.0
        for word in text.split():
            with torch.no_grad():
                shares = asked.model(torch.tensor([ids])).logits[0, -1].double().softmax(-1)
            ids.append(asked.tokenizer.convert_tokens_to_ids(word))
            total -= math.log(shares[ids[-1]])
        nats.append(total)
    found = asked.judge([*TEXTS, ""])
    assert found.perplexity == pytest.approx(math.exp(sum(nats) / 7), rel=1e-5)
    assert (found.num_tokens, found.num_texts) == (7, 3)
    assert found.nats_per_character == pytest.approx(sum(nats) / (11 + 2 + 5), rel=1e-5)
    of_first = math.log(4) - 0.5 * math.log(2)  # w2 twice of four
    assert found.token_entropy == pytest.approx(of_first / 3)
    mean = sum(nats) / 7
    rest = [n - mean * k for n, k in zip(nats, (4, 1, 2), strict=True)]
    assert found.std_error == pytest.approx(np.std(rest, ddof=1) * 3**0.5 / 7, rel=1e-4)


def test_a_judge_that_knows_nothing_has_its_vocabulary_as_perplexity(tmp_path):
    name = saved_judge(tmp_path, word_tokenizer(), scale=0.0)
    found = CausalJudge(name).judge(["w1 w2 w3", "w4"])
    assert found.perplexity == pytest.approx(len(word_tokenizer()), rel=1e-6)
    assert (found.num_tokens, found.num_texts) == (2, 1)  # nothing begins a text: w1 and w4 are it
    assert math.isnan(found.std_error)


def test_texts_that_cannot_be_judged_are_refused(judge):
    with pytest.raises(ValueError, match="No text has a token"):
        CausalJudge(judge).judge(["", ""])
    with pytest.raises(ValueError, match="has 10 of the judge's tokens, and it takes 8"):
        CausalJudge(judge).judge(["w1 " * 9])


def test_features_are_means_over_the_real_tokens(tmp_path):
    torch.manual_seed(0)
    tokenizer = word_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
    )
    BertModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    featuriser = Featuriser(str(tmp_path), batch_size=2)
    texts = ["w1 w2 w3", "w4", "w5 w6"]
    for text, found in zip(texts, featuriser.features(texts), strict=True):
        alone = featuriser.model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        assert found == pytest.approx(alone.mean(0).detach().numpy(), abs=1e-5)


@pytest.mark.wide
def test_mauve_knows_its_two_ends():
    pytest.importorskip("mauve")
    draw = np.random.default_rng(0)
    # Two clusters far apart: the histograms over them are what was drawn, whatever the clustering.
    points = np.eye(2, dtype=np.float32).repeat(30, axis=0)
    points = points + draw.normal(0, 1e-3, points.shape).astype(np.float32)
    assert mauve(points, points)["mauve"] == pytest.approx(1, abs=1e-3)
    apart = mauve(np.hstack([points, 0 * points]), np.hstack([0 * points, points]))
    assert apart["mauve"] < 0.01
    assert apart["clusters"] == 6


def test_mauve_says_what_it_needs(monkeypatch):
    few, many = np.zeros((49, 2), np.float32), np.zeros((60, 2), np.float32)
    with pytest.raises(ValueError, match=r"needs 50 on either side, got 60 written and 49 real"):
        mauve(many, few)
    monkeypatch.setitem(sys.modules, "mauve", None)
    with pytest.raises(ImportError, match=r"pip install 'hf_maskgit\[mauve\]'"):
        mauve(many, many)
