"""Texts that the tokenizer mostly does not know: their bound would be perfect and mean nothing."""

import pytest
import torch

from hf_maskgit import nelbo
from hf_maskgit.evaluation import critic_auroc, evaluate_nelbo, masked_accuracy, score
from tests.support.tiny import tiny_model, word_tokenizer

MEASURES = [evaluate_nelbo, masked_accuracy, critic_auroc]


def texts(*rows):
    return [{"input_ids": word_tokenizer()(row)["input_ids"]} for row in rows]


def measured(measure, rows, **options):
    model = tiny_model(token_critic="self")
    return measure(model, texts(*rows), word_tokenizer(), progress=False, **options)


@pytest.mark.parametrize("measure", MEASURES)
def test_texts_that_are_mostly_unknown_are_refused_before_any_pass(measure):
    with pytest.raises(
        ValueError,
        match=r"not know 3 of the 5 tokens of the texts to evaluate \(60 %\), so the model would",
    ):
        measured(measure, ["w1 zz", "qq zz", "w2"])
    assert measured(measure, ["w1 zz", "qq zz", "w2"], max_unknown_share=0.6)
    with pytest.raises(ValueError, match="`max_unknown_share` is a share and must lie in"):
        measured(measure, ["w1"], max_unknown_share=60)


@pytest.mark.parametrize("measure", MEASURES)
def test_one_text_of_many_may_be_unknown(measure, caplog):
    """Texts are measured in batches of similar length; the share is that of all."""
    measured(measure, ["zz"] + ["w1 w2 w3"] * 3, batch_size=1)
    (warning,) = caplog.records
    assert "not know 1 of the 10 tokens of the texts to evaluate (10 %)" in warning.getMessage()
    caplog.clear()
    measured(measure, ["w1 w2 w3"])
    assert not caplog.records


def test_the_bound_of_rows_that_are_mostly_unknown_is_refused(caplog):
    model, tokenizer = tiny_model(), word_tokenizer()
    batch = tokenizer(["zz zz", "w1"], padding=True, return_tensors="pt")
    with pytest.raises(ValueError, match=r"2 of the 3 tokens of `input_ids` \(66.7 %\)"):
        nelbo(model, **batch)
    allowed = nelbo(model, **batch, max_unknown_share=1, generator=torch.Generator())
    assert allowed.num_tokens.tolist() == [2, 1]
    batch = tokenizer(["zz w2", "w1"], padding=True, return_tensors="pt")
    caplog.clear()
    nelbo(model, **batch)
    assert "not know 1 of the 3 tokens of `input_ids` (33.3 %)" in caplog.text


def test_unknown_words_of_scored_texts_are_told_once(caplog):
    """By words, of all texts together, and not once more for each text."""
    texts = ["w1 w2 w3 zz"] * 2 + ["w1 w2"] * 2
    score(tiny_model(), texts, word_tokenizer(), std_error=99.0)
    (warning,) = [record for record in caplog.records if "not know" in record.getMessage()]
    assert "not know 2 of the 12 words of the texts (16.7 %)" in warning.getMessage()
