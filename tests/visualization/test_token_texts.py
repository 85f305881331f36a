"""A token by itself reads as it does in a text, by every kind of tokenizer."""

import pytest

from hf_maskgit.visualization.token_texts import TokenTexts
from tests.support.tiny_tokenizers import SENTENCES, TOKENIZERS

TEXTS = {"protein": ["MKTAYIAK"], "molecule": ["CC(=O)Oc1ccccc1"]}


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_tokens_side_by_side_are_the_decoded_text(kind):
    tokenizer = TOKENIZERS[kind]()
    texts = TokenTexts(tokenizer)
    for sentence in TEXTS.get(kind, SENTENCES[:3]):
        ids = tokenizer(sentence, add_special_tokens=False)["input_ids"]
        found = [texts.of(i) for i in ids]
        written = "".join(("" if one.joined else " ") + one.text for one in found)
        decoded = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        assert written.strip() == decoded.strip()
        assert all(one.text == one.text.lstrip(" ") or one.joined for one in found)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_where_tokens_are_joined_all_are(kind):
    tokenizer = TOKENIZERS[kind]()
    texts = TokenTexts(tokenizer, joined=True)
    for sentence in TEXTS.get(kind, SENTENCES[:1]):
        ids = tokenizer(sentence, add_special_tokens=False)["input_ids"]
        assert all(texts.of(i).joined for i in ids)


def test_framing_is_left_out_and_an_unknown_word_is_not():
    tokenizer = TOKENIZERS["wordpiece"]()
    texts = TokenTexts(tokenizer)
    assert texts.left_out == set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    assert texts.of(tokenizer.unk_token_id).text == tokenizer.unk_token
