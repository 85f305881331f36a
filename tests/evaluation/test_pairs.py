"""Contexts and continuations: nothing lost, nothing added, nothing of the frame judged."""

import pytest
from tokenizers import processors

from hf_maskgit.core.special_tokens import tokenizer_fields
from hf_maskgit.evaluation.pairs import framed_example, split_pair
from tests.support.tiny_tokenizers import TOKENIZERS, byte_level_tokenizer, wordpiece_tokenizer


def without_frame():
    """As GPT-2's: nothing stands around a text, and it begins with no special token."""
    tokenizer = byte_level_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    assert tokenizer_fields(tokenizer)["prefix_ids"] == []
    return tokenizer


KINDS = {**TOKENIZERS, "without-frame": without_frame}
PAIRS = [
    ("And God said,", " Let there be light"),
    ("The cat sat on the mat:", " ball"),
    ("The cat sat ", "on the mat"),
    ("The cat sat\n", "on the mat"),
    ("The play", "ground was closed"),
    ("", "light"),
    ("cat", "!"),
    ("Überraschung: na", "ïve"),
]
OF_SYMBOLS = {
    "protein": [("EVQ", "LL"), ("", "EVQ"), ("E", "V")],
    "molecule": [("CC", "O"), ("", "CCN"), ("C", "Br")],
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_pair_holds_the_tokens_of_the_whole_text(kind):
    tokenizer = KINDS[kind]()
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    for context, continuation in OF_SYMBOLS.get(kind, PAIRS):
        pair = split_pair(tokenizer, context, continuation)
        whole = tokenizer(context + continuation, add_special_tokens=False)["input_ids"]
        assert pair.context_ids + pair.continuation_ids == whole
        assert pair.continuation_ids
        assert not special & {*pair.context_ids, *pair.continuation_ids}
        fields = tokenizer_fields(tokenizer)
        example = framed_example(*pair[:2], fields["prefix_ids"], fields["suffix_ids"])
        assert example["input_ids"] == tokenizer(context + continuation)["input_ids"]
        judged = [i for i, m in zip(example["input_ids"], example["maskable"], strict=True) if m]
        assert judged == pair.continuation_ids


@pytest.mark.parametrize("kind", ["wordpiece", "byte-level", "unigram", "without-frame"])
def test_single_tokens_behind_one_context_are_judged_as_they_are(kind):
    """The fault of others: with the frame's tokens, each of these is [SEP]."""
    tokenizer = KINDS[kind]()
    options = [" light", " cat", " ball"]
    found = [split_pair(tokenizer, "And God said:", option) for option in options]
    assert len({tuple(pair.continuation_ids) for pair in found}) == 3
    assert len({tuple(pair.context_ids) for pair in found}) == 1
    for pair, option in zip(found, options, strict=True):
        assert tokenizer.decode(pair.continuation_ids).strip() == option.strip()
        assert not pair.merged


def test_a_space_at_the_end_of_a_context_goes_to_the_word_behind_it():
    tokenizer = byte_level_tokenizer()
    assert split_pair(tokenizer, "And God ", "said") == split_pair(tokenizer, "And God", " said")


def test_letters_that_make_one_token_with_the_context_are_told():
    tokenizer = wordpiece_tokenizer()
    (whole,) = tokenizer("light", add_special_tokens=False)["input_ids"]
    pair = split_pair(tokenizer, "there was li", "ght")
    assert pair.merged
    assert pair.continuation_ids == [whole]
    assert split_pair(tokenizer, "there was", " light") == (*pair[:2], False)


@pytest.mark.parametrize(("context", "continuation"), [("And God", " "), ("cat", ""), ("", "")])
def test_a_continuation_without_tokens_is_refused(context, continuation):
    with pytest.raises(ValueError, match="has no token of its own .* Give it letters."):
        split_pair(wordpiece_tokenizer(), context, continuation)


@pytest.mark.parametrize(("context", "continuation"), [("a [MASK]", " cat"), ("the", " [MASK]")])
def test_a_text_with_a_mask_is_refused_before_any_is_judged(context, continuation):
    with pytest.raises(ValueError, match=r"holds the mask token '\[MASK\]', and only whole texts"):
        split_pair(wordpiece_tokenizer(), context, continuation)
