"""Prompts for `TableModel` with `tiny_config()`: words, masks and frames, padded to one width."""

import torch
from hypothesis import strategies as st

PAD, UNK, CLS, SEP, MASK = range(5)
WORDS = range(5, 40)


@st.composite
def prompts(draw, min_size=1):
    """A row of words and masks, some of them framed."""
    tokens = st.one_of(st.just(MASK), st.sampled_from(WORDS), st.just(SEP))
    body = draw(st.lists(tokens, min_size=min_size, max_size=7))
    if draw(st.booleans()):
        body = [CLS, *body]
    return [*body, SEP] if draw(st.booleans()) else body


@st.composite
def padded_batches(draw):
    """Rows, and for each how much padding stands left and right of it, all of one width."""
    rows = draw(st.lists(prompts(), min_size=1, max_size=4))
    width = max(map(len, rows)) + draw(st.integers(0, 2))
    lefts = [draw(st.integers(0, width - len(row))) for row in rows]
    return rows, [(left, width - len(row) - left) for row, left in zip(rows, lefts, strict=True)]


def collate(rows, paddings, filler=PAD):
    padded = [[filler] * a + row + [filler] * b for row, (a, b) in zip(rows, paddings, strict=True)]
    real = [[0] * a + [1] * len(row) + [0] * b for row, (a, b) in zip(rows, paddings, strict=True)]
    return torch.tensor(padded), torch.tensor(real)
