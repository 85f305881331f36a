"""Pipelines say which words of a text their tokenizer does not know."""

import pytest
from transformers import TextGenerationPipeline
from transformers import pipeline as any_pipeline

import hf_maskgit  # noqa: F401  (registers the pipelines)
from tests.support.tiny import protein_tokenizer, word_tokenizer
from tests.support.tiny_tokenizers import model_for, unigram_tokenizer

INFILLING = {"task": "infilling", "blank": "[MASK] "}
WRITING = {"task": "text-generation", "blank": ""}


def pipeline(task, tokenizer=None, **options):
    tokenizer = tokenizer or word_tokenizer()
    return any_pipeline(
        task, model=model_for(tokenizer), tokenizer=tokenizer, device="cpu", **options
    )


@pytest.fixture(params=[INFILLING, WRITING], ids=lambda way: way["task"])
def way(request):
    return request.param


def told(caplog):
    return [r.getMessage() for r in caplog.records if "does not know" in r.getMessage()]


def test_a_text_that_is_mostly_unknown_is_refused(way):
    pipe, blank = pipeline(way["task"]), way["blank"]
    with pytest.raises(
        ValueError,
        match=r"does not know 2 of the 3 words of the text '.*w1 zz qq' \(66.7 %\), such as 'zz' "
        r"and 'qq', so .* `max_unknown_share`, which is 0.5",
    ):
        pipe(["w1 w2 " + blank, blank + "w1 zz qq"], batch_size=2)
    assert pipe(blank + "w1 zz qq", max_unknown_share=0.7)
    assert pipeline(way["task"], max_unknown_share=1.0)(blank + "zz")
    pipe.model.generation_config.max_unknown_share = 1.0
    assert pipe(blank + "zz")
    with pytest.raises(ValueError, match="`max_unknown_share` is a share and must lie in"):
        pipe(blank + "w1 zz", max_unknown_share=2)


def test_a_warning_shows_the_words_once(way, caplog):
    pipe, blank = pipeline(way["task"]), way["blank"]
    plain = pipe(blank + "w1 w2 w3", seed=0)
    assert not told(caplog)
    pipe(blank + "w1 zz w3", seed=0)
    (warning,) = told(caplog)
    assert "does not know 1 of the 3 words of the text '" in warning
    assert "w1 zz w3' (33.3 %), such as 'zz': the model sees the unknown token" in warning
    assert pipe(blank + "w1 w2 w3", seed=0) == plain


@pytest.mark.wide
def test_an_empty_text_and_one_of_masks_are_known():
    assert pipeline("infilling")("[MASK] {blank:2}")
    assert pipeline("text-generation")("")


def test_one_unknown_token_for_a_whole_text(way):
    """Nothing of it reaches the model, though it is one token beside those of a space."""
    pipe = pipeline(way["task"], protein_tokenizer())
    blank = "<mask>" if way["blank"] else ""
    with pytest.raises(
        ValueError, match=r"does not know 12 of the 15 words .*such as 'iakqrqisfvks'"
    ):
        pipe("MKT" + blank + "iakqrqisfvks")
    pipe = pipeline(way["task"], unigram_tokenizer())
    with pytest.raises(
        ValueError, match=r"does not know 2 of the 2 words .* \(100 %\), such as 'ЖЖЖ'"
    ):
        pipe(blank + "ЖЖЖ ЖЖ")


def test_a_chat_is_counted_by_what_was_said(caplog):
    pipe = pipeline("text-generation")
    pipe.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} w1 w2 w3 {% endfor %}"
    with pytest.raises(ValueError, match="does not know 1 of the 1 words of the text 'zz'"):
        pipe([{"role": "user", "content": "zz"}])
    pipe([{"role": "user", "content": "w1 zz"}], max_new_tokens=2)
    (warning,) = told(caplog)
    assert "1 of the 2 words of the text 'w1 zz' (50 %)" in warning


def test_a_prefix_is_part_of_the_text():
    pipe = pipeline("text-generation")
    assert isinstance(pipe, TextGenerationPipeline)
    with pytest.raises(ValueError, match="does not know 2 of the 3 words of the text 'zz zz w1'"):
        pipe("w1", prefix="zz zz ")


def test_a_long_text_is_shown_in_part():
    with pytest.raises(ValueError, match=r"of the text '(zz ){13}z\.\.\.' \("):
        pipeline("text-generation")("zz " * 30)


def test_fill_mask_counts_too(caplog):
    pipe = pipeline("fill-mask")
    with pytest.raises(
        ValueError, match=r"not know 2 of the 3 words of the text 'zz \[MASK\] qq w1'"
    ):
        pipe(["w1 [MASK]", "zz [MASK] qq w1"])
    assert pipe("zz [MASK] qq w1", max_unknown_share=0.7, top_k=1)
    with pytest.raises(ValueError, match="`max_unknown_share` is a share and must lie in"):
        pipe("w1 [MASK]", max_unknown_share=-1)
    caplog.clear()
    pipe("w1 [MASK] zz")
    (warning,) = told(caplog)
    assert "1 of the 2 words of the text 'w1 [MASK] zz' (50 %), such as 'zz'" in warning
