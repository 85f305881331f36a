"""Characters and bytes are counted where the tokens are those of the text, and only there."""

import pytest

from hf_maskgit.evaluation import text_units
from tests.support.tiny import protein_tokenizer, word_tokenizer


def _ids(tokenizer, texts):
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


def test_characters_and_bytes_of_texts_that_come_back():
    tokenizer = word_tokenizer(words=["ä", "bc", "日本"])
    texts = ["ä bc", "日本"]
    characters, size = text_units(tokenizer, texts, _ids(tokenizer, texts))
    assert characters.tolist() == [4, 2]
    assert size.tolist() == [5, 6]


def test_residues_come_back_without_the_space_between_them():
    tokenizer, texts = protein_tokenizer(), ["MKV", "A"]
    assert text_units(tokenizer, texts, _ids(tokenizer, texts))[0].tolist() == [3, 1]
    with pytest.raises(ValueError, match="the tokens of 'M K' read 'M K'") as refused:
        text_units(tokenizer, ["MKV", "M K"], _ids(tokenizer, ["MKV", "M K"]))  # two ways, not one
    assert "Judge per token" in str(refused.value)


@pytest.mark.parametrize("text", ["w1  w2", "w1 zz"])
def test_a_text_that_does_not_come_back_is_refused(text):
    tokenizer = word_tokenizer()
    with pytest.raises(ValueError, match="the bound is that of another text"):
        text_units(tokenizer, ["w1", text], _ids(tokenizer, ["w1", text]))
