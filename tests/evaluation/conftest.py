"""The tokenizer whose letters the tables speak of."""

import pytest

from tests.support.oracles import word_piece_tokenizer


@pytest.fixture
def tokenizer():
    return word_piece_tokenizer("abc")
