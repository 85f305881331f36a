"""What is read off a tokenizer, and what of it is never emitted."""

import pytest

from hf_maskgit.core.special_tokens import framing, never_emitted, tokenizer_fields
from hf_maskgit.core.token_pattern import fingerprint
from tests.support.tiny import protein_tokenizer, roberta_tokenizer, word_tokenizer


def test_fields_of_a_bert_tokenizer():
    assert tokenizer_fields(word_tokenizer()) == {
        "mask_token_id": 4,
        "pad_token_id": 0,
        "bos_token_id": 2,  # [CLS] and [SEP] play these parts
        "eos_token_id": 3,
        "unk_token_id": 1,
        "special_token_ids": [0, 1, 2, 3, 4],
        "prefix_ids": [2],
        "suffix_ids": [3],
        "num_token_ids": 40,
        "unassigned_token_ids": [],
        "tokenizer_fingerprint": fingerprint(word_tokenizer()),
    }


def test_fields_of_a_roberta_tokenizer():
    fields = tokenizer_fields(roberta_tokenizer())
    assert (fields["bos_token_id"], fields["pad_token_id"], fields["eos_token_id"]) == (0, 1, 2)
    assert (fields["prefix_ids"], fields["suffix_ids"]) == ([0], [2])


def test_fields_of_a_protein_tokenizer():
    tokenizer = protein_tokenizer()
    fields = tokenizer_fields(tokenizer)
    assert (fields["prefix_ids"], fields["suffix_ids"]) == ([0], [2])
    assert fields["mask_token_id"] == 32
    assert fields["num_token_ids"] == 33
    assert set(fields["special_token_ids"]) == {0, 1, 2, 3, 32}


def test_bos_and_eos_are_the_tokenizers_own_where_it_has_them():
    tokenizer = word_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "w1", "eos_token": "w2"})
    fields = tokenizer_fields(tokenizer)
    assert (fields["bos_token_id"], fields["eos_token_id"]) == (6, 7)


def test_a_tokenizer_without_a_template_frames_nothing():
    tokenizer = word_tokenizer()
    tokenizer.backend_tokenizer.post_processor = None
    assert framing(tokenizer) == ([], [])


def test_ids_that_were_added_last_are_counted():
    tokenizer = word_tokenizer()
    tokenizer.add_tokens(["new"])
    assert tokenizer_fields(tokenizer)["num_token_ids"] == 41


def test_no_mask_token():
    tokenizer = word_tokenizer()
    tokenizer.mask_token = None
    with pytest.raises(ValueError, match="has no mask token, without which nothing can be masked"):
        tokenizer_fields(tokenizer)


def test_the_end_of_text_and_the_unknown_token_can_be_emitted_and_no_other_special():
    fields = tokenizer_fields(word_tokenizer())
    assert never_emitted(fields) == {0, 2, 4}  # not [UNK] = 1, not [SEP] = 3
    bare = dict.fromkeys(fields)
    assert never_emitted(bare) == set()
    # The mask is never emitted, whatever else it were; a config refuses that.
    assert never_emitted({**bare, "mask_token_id": 4, "eos_token_id": 4}) == {4}
