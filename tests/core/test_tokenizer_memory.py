"""What was told of a tokenizer is kept while it stays as it is, and no longer than it lives."""

import gc
import weakref

import pytest

from hf_maskgit.core.tokenizer_memory import decoder_of, per_tokenizer
from tests.support.tiny import word_tokenizer
from tests.support.tiny_tokenizers import byte_level_tokenizer


def test_a_tokenizer_is_asked_once_until_it_changes():
    asked = []

    @per_tokenizer
    def size(tokenizer):
        asked.append(tokenizer)
        return len(tokenizer)

    first, second = word_tokenizer(), word_tokenizer()
    assert [size(first), size(first), size(second), size(first)] == [len(first)] * 4
    assert asked == [first, second]
    first.add_tokens(["more"])
    assert size(first) == len(second) + 1
    first.sep_token = "more"  # another role
    size(first)
    first.backend_tokenizer.decoder = byte_level_tokenizer().backend_tokenizer.decoder
    size(first)
    size(first)
    assert asked == [first, second, first, first, first]


def test_what_was_raised_is_raised_again_and_what_is_no_tokenizer_is_for_the_function():
    @per_tokenizer
    def refuse(tokenizer):
        raise ValueError(f"got {type(tokenizer).__name__}")

    tokenizer = word_tokenizer()
    for given in (tokenizer, tokenizer, "no tokenizer"):
        with pytest.raises(ValueError, match=f"got {type(given).__name__}"):
            refuse(given)


@pytest.mark.wide
def test_a_tokenizer_is_not_kept_alive():
    name = per_tokenizer(lambda tokenizer: "known")
    tokenizer = word_tokenizer()
    name(tokenizer)
    gone = weakref.ref(tokenizer)
    del tokenizer
    gc.collect()
    assert gone() is None


def test_a_decoder_is_told_as_json():
    assert "ByteLevel" in decoder_of(byte_level_tokenizer())
    assert decoder_of(word_tokenizer()) == ""
