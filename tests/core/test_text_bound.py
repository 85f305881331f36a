"""The bound that blanks go by: for a denoiser that knows its law, the text's own probability."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from hf_maskgit import MaskGitConfig
from hf_maskgit.core.text_bound import text_bounds
from tests.support.oracles_sampling import CHAIN, number_of
from tests.support.tiny import bert_config

MASK, PAD = 3, 4  # the chain's symbols are 0, 1 and 2


class ChainModel:
    """The exact denoiser of the chain at every length; padding is no part of a text."""

    config = MaskGitConfig(
        text_config=bert_config(vocab_size=5),
        mask_token_id=MASK,
        pad_token_id=PAD,
        special_token_ids=[MASK, PAD],
        num_token_ids=5,
    )

    def __call__(self, input_ids, attention_mask, masked_positions):
        logits = torch.full((*input_ids.shape, 5), -torch.inf, dtype=torch.float64)
        for row, length in enumerate(attention_mask.sum(1).tolist()):
            law = CHAIN.posteriors(input_ids[row : row + 1, :length])[0]
            logits[row, :length, :3] = law.log()
        return SimpleNamespace(logits=logits[masked_positions])


def padded(texts):
    width = max(map(len, texts))
    ids = torch.stack([F.pad(torch.tensor(t), (0, width - len(t)), value=PAD) for t in texts])
    return ids, (ids != PAD).long()


def nats(text):
    law = CHAIN.law(len(text))
    return -math.log(law[number_of(torch.tensor([text]), 3)].item())


TEXTS = [[0, 0, 0, 0, 1], [2, 0, 2], [1], [0, 2, 2, 2, 2, 1]]


@pytest.mark.wide
def test_the_bound_of_an_exact_denoiser_is_the_probability_of_the_text():
    """The mean of 60 estimates lies within 5 of its standard errors: 6 in 10 million by chance."""
    ids, real = padded([text for text in TEXTS for _ in range(60)])
    keys = [(number,) for number in range(len(ids))]
    found = text_bounds(ChainModel(), ids, real, keys, 8).unflatten(0, (len(TEXTS), 60))
    for text, estimates in zip(TEXTS, found, strict=True):
        error = estimates.std() / 60**0.5
        assert abs(float(estimates.mean()) - nats(text)) <= 5 * float(error) + 1e-9


def test_an_estimate_depends_on_its_text_and_key_alone():
    ids, real = padded(TEXTS)
    keys = [(3, 1), (3, 2), (4,), (5, 5, 5)]
    together = text_bounds(ChainModel(), ids, real, keys, 6)
    for row, text in enumerate(TEXTS):
        alone = text_bounds(ChainModel(), *padded([text]), [keys[row]], 6)
        assert float(alone) == pytest.approx(float(together[row]), abs=1e-12)
    other = text_bounds(ChainModel(), ids, real, [(9, *key) for key in keys], 6)
    assert not torch.allclose(other[[0, 3]], together[[0, 3]])


def test_the_likeliest_length_is_the_likeliest_text_of_all_lengths():
    """By enumeration: of the fillings of 2 _ 2 by runs of one symbol, each against all others."""
    texts = [[2, *[symbol] * n, 2] for n in range(1, 5) for symbol in (0, 2)]
    exact = [nats(text) for text in texts]
    ids, real = padded(texts)
    found = text_bounds(ChainModel(), ids, real, [(1, n) for n in range(len(texts))], 64)
    assert int(found.argmin()) == exact.index(min(exact))
    for one in range(len(texts)):
        for other in range(len(texts)):
            if exact[one] + 1 < exact[other]:  # further apart than the estimates are off
                assert found[one] < found[other]


def test_a_text_of_framing_alone_has_no_bound():
    ids = torch.tensor([[PAD, PAD], [0, 1]])
    found = text_bounds(ChainModel(), ids, torch.tensor([[0, 0], [1, 1]]), [(1,), (2,)], 4)
    assert found[0] == 0
    assert found[1] > 0
