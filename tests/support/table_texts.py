"""Texts of a few letters for denoisers that are tables, as ids and as examples of a data set."""

import torch

from tests.support.oracles import CLS, FIRST_WORD, SEP, TableDenoiser

TEXT = (0, 2, 1, 1)
TEXTS_OF_ALL_LENGTHS = [(0, 1, 2, 0), (1,), (2, 2, 1), (0, 2), (1, 1, 1, 1), (2,), (0, 0)]
UNIFORM = [1 / 3] * 3


def ids(*texts, framed=False):
    """Token ids of texts of equal length."""
    rows = [[FIRST_WORD + token for token in text] for text in texts]
    return torch.tensor([[CLS, *row, SEP] for row in rows] if framed else rows)


def examples(*texts):
    """Framed examples of any lengths."""
    return [{"input_ids": ids(text, framed=True)[0].tolist()} for text in texts]


def keyed(seed=0):
    return torch.Generator().manual_seed(seed)


def framed_denoiser(probabilities=UNIFORM):
    return TableDenoiser.context_free(probabilities, [1, 2, 3, 4], framed=True)
