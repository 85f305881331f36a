"""What a tokenizer did not know: counted by words, warned of and refused with examples."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertTokenizer, PreTrainedTokenizerFast

from hf_maskgit import DataCollatorForMaskGit, MaskGitForMaskedLM
from hf_maskgit.core.special_tokens import tokenizer_fields
from hf_maskgit.core.text_reader import TextReader
from hf_maskgit.core.unknown_tokens import (
    Reading,
    check_read,
    counted_before,
    read_examples,
    read_ids,
    read_ids_of,
    sum_of,
    unknown_id_of,
)
from tests.support.tiny import (
    BERT_SPECIALS,
    protein_tokenizer,
    tiny_config,
    tiny_encoder,
    tiny_model,
    word_tokenizer,
)
from tests.support.tiny_tokenizers import (
    byte_level_tokenizer,
    molecule_tokenizer,
    unigram_tokenizer,
    wordpiece_tokenizer,
)


def bpe_tokenizer(pre_tokenizer=None, unk_token=None, **roles):
    """Knows the letters a and b alone; what is unknown is one token in a row, or none."""
    vocabulary = {"a": 0, "b": 1, "ab": 2, "[MASK]": 3, "?": 4}
    unknown = {} if unk_token is None else {"unk_token": unk_token, "fuse_unk": True}
    backend = Tokenizer(models.BPE(vocabulary, [("a", "b")], **unknown))
    backend.pre_tokenizer = pre_tokenizer
    return PreTrainedTokenizerFast(tokenizer_object=backend, mask_token="[MASK]", **roles)


def spaced_bpe(**options):
    return bpe_tokenizer(pre_tokenizers.WhitespaceSplit(), **options)


def word_tokenizer_that_ends_in_unknown():
    return word_tokenizer({**BERT_SPECIALS, "unk": "[SEP]"})


# --- texts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "text", "words", "unknown", "examples"),
    [
        # one id per word: framing, masks and empty texts are no words
        (word_tokenizer, "w1 zz w2 [MASK] qq,r", 4, 2, ("zz", "qq,r")),
        (word_tokenizer, "w1 w2", 2, 0, ()),
        (word_tokenizer, "", 0, 0, ()),
        (word_tokenizer, "[MASK]", 0, 0, ()),
        # a word in pieces is as many as its pieces; ideographs are words of their own
        (wordpiece_tokenizer, "t ЖЖЖ, 日本", 5, 3, ("ЖЖЖ", "日", "本")),
        (wordpiece_tokenizer, "Qx日 t", 3, 2, ("Qx", "日")),
        (wordpiece_tokenizer, "[UNK] t", 2, 1, ("[UNK]",)),
        # the space before an unknown word is a token, and no word that is known
        (unigram_tokenizer, "ЖЖЖ", 1, 1, ("ЖЖЖ",)),
        (unigram_tokenizer, "T ЖЖЖ c", 3, 1, ("ЖЖЖ",)),
        # residues: seven in lower case are seven, whether or not they are one token
        (protein_tokenizer, "MKTAYiakqrqiMKT", 15, 7, ("iakqrqi",)),
        (protein_tokenizer, "mktayiakqr", 10, 10, ("mktayiakqr",)),
        (protein_tokenizer, "M K T a <mask> y", 5, 2, ("a", "y")),
        (molecule_tokenizer, "CC(=O)C", 7, 0, ()),
        (molecule_tokenizer, "ccxx", 4, 2, ("xx",)),
        # bytes know everything
        (byte_level_tokenizer, "ЖЖ", 4, 0, ()),
        # several words as one unknown token, the end of a word, and a token nobody named
        (lambda: bpe_tokenizer(unk_token="?"), "ab zz qq zz", 4, 3, ("zz qq zz",)),
        (lambda: spaced_bpe(unk_token="?"), "ab zz abz", 4, 2, ("zz", "z")),
        # a tokenizer that leaves out what it does not know
        (spaced_bpe, "ab zz abz", 4, 2, ("zz", "z")),
        (spaced_bpe, "ab!", 1, 0, ()),
        # the unknown token closes a text as well
        (word_tokenizer_that_ends_in_unknown, "w1 zz w2", 3, 1, ("zz",)),
        (word_tokenizer_that_ends_in_unknown, "w1 [SEP] w2", 2, 0, ()),
    ],
)
def test_words_are_counted_as_they_were_typed(make, text, words, unknown, examples):
    tokenizer = make()
    for framed in (True, False):
        encoded = tokenizer([text], add_special_tokens=framed)
        assert TextReader(tokenizer).read([text], encoded) == [Reading(words, unknown, examples)]


def test_a_text_among_others_is_read_as_alone():
    tokenizer = word_tokenizer()
    texts = ["w1 zz", "", "w1 w2 w3", "zz qq"]
    together = TextReader(tokenizer).read(texts, tokenizer(texts, padding=True))
    alone = [TextReader(tokenizer).read([text], tokenizer([text]))[0] for text in texts]
    assert together == alone
    as_tensors = tokenizer(texts[:1], return_tensors="pt")
    assert TextReader(tokenizer).read(texts[:1], as_tensors) == alone[:1]
    slow = protein_tokenizer()
    as_tensors = slow(["MKTay"], return_tensors="pt")
    assert TextReader(slow).read(["MKTay"], as_tensors) == [Reading(5, 2, ("ay",))]


def test_an_unknown_token_that_stands_nowhere_in_the_text_is_one_word():
    unknown, word = 1, 6
    read = TextReader(word_tokenizer()).read(["w1 zz"], {"input_ids": [[word, unknown, unknown]]})
    assert read == [Reading(3, 2, ("zz",))]


def test_a_tokenizer_that_reads_no_unknown_word_at_all_is_no_fault_of_the_text():
    backend = Tokenizer(models.WordLevel({"a": 0, "[MASK]": 1}))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, mask_token="[MASK]")
    assert unknown_id_of(tokenizer) is None
    assert TextReader(tokenizer).read(["a a"], tokenizer(["a a"])) == [Reading(2)]


def test_an_unknown_token_that_nobody_named_is_found():
    assert unknown_id_of(spaced_bpe(unk_token="?")) == 4
    assert unknown_id_of(spaced_bpe()) is None
    assert unknown_id_of(word_tokenizer()) == 1


def test_readings_are_added_and_long_examples_shortened():
    parts = [Reading(3, 1, ("a",)), Reading(5, 3, ("a", "b", "c")), Reading(2, 1, ("d",))]
    assert sum_of(parts) == Reading(10, 5, ("a", "b", "c"))
    assert sum_of([]).share == 0
    tokenizer = word_tokenizer()
    (read,) = TextReader(tokenizer).read(["x" * 99], tokenizer(["x" * 99]))
    assert read.examples == ("x" * 24 + "...",)


# --- ids -----------------------------------------------------------------------------------------


def test_tokens_are_counted_where_only_ids_are_left():
    ids = torch.tensor([[2, 1, 7, 1, 3, 0], [2, 4, 8, 3, 0, 0], [2, 3, 0, 0, 0, 0]])
    real = (ids != 0).long()
    readings = read_ids_of(tiny_config(), ids, real)
    assert [(r.words, r.unknown, r.noun) for r in readings] == [
        (3, 2, "tokens"),
        (1, 0, "tokens"),
        (0, 0, "tokens"),
    ]
    assert readings[0].share == pytest.approx(2 / 3)
    # what no mask calls padding is told from text by its id all the same
    assert read_ids_of(tiny_config(), ids, None) == readings


def test_an_unknown_token_with_another_role_tells_nothing_by_its_id():
    ids = torch.tensor([[2, 7, 1]])
    assert read_ids(ids, None, 1, [0, 1, 2]) == [Reading(noun="tokens")]
    assert read_ids(ids, None, None, [0, 2]) == [Reading(noun="tokens")]
    assert read_ids_of(tiny_config(eos_token_id=1), ids, None)[0].unknown == 0
    assert read_ids_of(tiny_config(special_token_ids=None), ids, None)[0].unknown == 1


def test_ids_whose_texts_were_counted_are_not_counted_again():
    ids = torch.tensor([[2, 1, 3]])
    with counted_before():
        assert read_ids_of(tiny_config(), ids, None)[0].unknown == 0
    assert read_ids_of(tiny_config(), ids, None)[0].unknown == 1


# --- sentences -----------------------------------------------------------------------------------


def test_more_than_half_is_refused_in_a_sentence():
    reading = Reading(1200, 601, ("mkt", "Ж"))
    with pytest.raises(
        ValueError,
        match=r"does not know 601 of the 1,200 words of the prompt \(50.1 %\), such as 'mkt' and "
        r"'Ж', so .* Use the tokenizer that belongs .* `max_unknown_share`, which is 0.5",
    ):
        check_read(reading, "the prompt")
    check_read(Reading(1200, 600), "the prompt")
    check_read(reading, "the prompt", 0.6)
    check_read(Reading(2, 2), "the prompt", 1)
    check_read(Reading(0, 0), "the prompt", 0)
    with pytest.raises(ValueError, match=r"1 of the 99 words .* which is 0.0"):
        check_read(Reading(99, 1), "the prompt", 0.0)
    with pytest.raises(
        ValueError, match=r"`max_unknown_share` is a share and must lie in \[0, 1\]"
    ):
        check_read(Reading(2, 1), "the prompt", 50)


def test_examples_are_listed_in_the_sentence():
    assert Reading(4, 3, ("a", "b", "c")).of("it").endswith("(75 %), such as 'a', 'b' and 'c'")
    assert Reading(4, 3).of("it") == "The tokenizer does not know 3 of the 4 words of it (75 %)"


def test_more_than_one_in_a_hundred_brings_a_warning(caplog):
    check_read(Reading(100, 1, ("zz",)), "the prompt")
    assert not caplog.records
    check_read(Reading(99, 1, ("zz",)), "the prompt")
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "not know 1 of the 99 words of the prompt (1.01 %), such as 'zz': the" in caplog.text


# --- generate ------------------------------------------------------------------------------------


def test_generate_refuses_a_row_that_is_mostly_unknown():
    model = tiny_model()
    ids = torch.tensor([[2, 7, 8, 3], [2, 1, 1, 3]])
    with pytest.raises(
        ValueError, match=r"2 of the 2 tokens of row 1 of `input_ids` \(100 %\), so the model"
    ):
        model.generate(ids, max_new_tokens=2)
    assert model.generate(ids, max_new_tokens=2, max_unknown_share=1.0).shape == (2, 6)
    model.generation_config.max_unknown_share = 1.0
    assert model.generate(ids, max_new_tokens=2).shape == (2, 6)
    with pytest.raises(ValueError, match=r"row 1 of `input_ids`"):
        model.generate(ids, max_new_tokens=2, max_unknown_share=0.9)
    with pytest.raises(ValueError, match=r"`max_unknown_share` is a share and must lie in"):
        model.generate(ids, max_new_tokens=2, max_unknown_share=2)


def test_generate_refuses_a_negative_prompt_that_is_mostly_unknown():
    ids, negative = torch.tensor([[2, 7, 3]]), torch.tensor([[2, 1, 3]])
    guided = {"guidance_scale": 2.0, "negative_prompt_ids": negative, "max_new_tokens": 2}
    with pytest.raises(ValueError, match=r"1 of the 1 tokens of row 0 of `negative_prompt_ids`"):
        tiny_model().generate(ids, **guided)
    tiny_model().generate(ids, **guided, max_unknown_share=1)


@pytest.mark.wide
def test_generate_warns_once_and_writes_what_it_wrote(caplog):
    model = tiny_model()
    written = model.generate(torch.tensor([[2, 7, 1, 3], [2, 7, 1, 3]]), max_new_tokens=3, seed=0)
    (record,) = caplog.records
    assert "not know 2 of the 4 tokens of `input_ids` (50 %): the model sees" in record.getMessage()
    caplog.clear()
    model.generate(torch.tensor([[2, 7, 4, 3]]))
    model.generate()
    with counted_before():
        again = model.generate(torch.tensor([[2, 7, 1, 3]] * 2), max_new_tokens=3, seed=0)
    assert not caplog.records
    assert torch.equal(written, again)


def test_examples_are_counted_in_one_pass():
    examples = [
        {"input_ids": [2, 7, 1, 3, 0]},
        {"input_ids": torch.tensor([2, 1, 3])},
        {"input_ids": (8, 9)},
    ]
    assert read_examples(iter(examples), word_tokenizer()) == Reading(5, 2, noun="tokens")
    assert read_examples(examples, word_tokenizer_that_ends_in_unknown()).words == 0
    with counted_before():
        assert read_examples(examples, word_tokenizer()).unknown == 0


# --- training ------------------------------------------------------------------------------------


def test_a_tokenizer_without_a_word_is_refused_wherever_it_comes_in():
    """`BertTokenizer()` is one: five special tokens. Every text of it is unknown."""
    empty = BertTokenizer()
    assert len(empty) == 5
    sentence = (
        "The BertTokenizer knows 5 tokens, and none of them a word; .* AutoTokenizer.*`vocab=`"
    )
    for use in (
        DataCollatorForMaskGit,
        tokenizer_fields,
        lambda tokenizer: MaskGitForMaskedLM.from_encoder(tiny_encoder(), tokenizer=tokenizer),
    ):
        with pytest.raises(ValueError, match=sentence):
            use(empty)


def batch_of(*rows):
    return [{"input_ids": word_tokenizer()(row)["input_ids"]} for row in rows]


def test_the_collator_refuses_a_first_batch_that_is_mostly_unknown(caplog):
    batch = batch_of("zz w1 qq", "w2 zz")
    with pytest.raises(ValueError, match=r"3 of the 5 tokens of the first batch \(60 %\), so the"):
        DataCollatorForMaskGit(word_tokenizer())(batch)
    config = tiny_config()
    from_config = DataCollatorForMaskGit.from_config
    with pytest.raises(ValueError, match=r"3 of the 5 tokens of the first batch \(60 %\), so the"):
        from_config(config, word_tokenizer())(batch)
    assert not caplog.records
    from_config(config, word_tokenizer(), max_unknown_share=0.6)(batch)
    assert "3 of the 5 tokens of the first batch (60 %): the model sees" in caplog.text
    caplog.clear()
    from_config(config, word_tokenizer(), count_unknown=False)(batch)
    assert not caplog.records
    with pytest.raises(ValueError, match="`max_unknown_share` is a share and must lie in"):
        DataCollatorForMaskGit(word_tokenizer(), max_unknown_share=3)


def test_the_collator_warns_once_of_what_comes_later(caplog):
    collator = DataCollatorForMaskGit(word_tokenizer())
    known, unknown = batch_of(*["w1 w2 w3 w4 w5"] * 20), batch_of("zz", "qq")
    collator(known)
    assert not caplog.records
    collator(unknown)
    (warning,) = caplog.records
    assert "2 of the 102 tokens of the batches so far (1.96 %)" in warning.getMessage()
    for batch in (known, known, unknown, unknown):
        collator(batch)
    assert len(caplog.records) == 1


def test_counting_changes_no_batch():
    batch = [{**example, "example_id": i} for i, example in enumerate(batch_of("w1 w2 zz", "w3"))]
    counted, plain = (
        DataCollatorForMaskGit(word_tokenizer(), count_unknown=counts)(batch)
        for counts in (True, False)
    )
    assert all(torch.equal(counted[name], plain[name]) for name in plain)
