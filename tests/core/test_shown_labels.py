"""Labels without masks, and batches without labels: what collators of transformers make."""

import logging

import pytest
import torch
from datasets import Dataset
from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments

from hf_maskgit.core import shown_labels
from tests.support.tiny import tiny_model, word_tokenizer

PAD, UNK, CLS, SEP, MASK = range(5)


@pytest.fixture(autouse=True)
def _every_warning_is_new():
    shown_labels.logger.warning_once.cache_clear()


def copying(rows=4):
    """A batch as a collator for causal models makes it, where no special token is put in."""
    text = torch.arange(5, 5 + 2 * rows).view(rows, 2)
    return {"input_ids": text, "attention_mask": torch.ones_like(text), "labels": text}


def test_training_on_labels_that_the_text_shows_is_refused():
    """In whatever batches they come; one hidden token begins the count anew."""
    model = tiny_model().train()
    for _ in range(3):
        model(**copying())
    hidden = copying(1)
    hidden["input_ids"] = torch.tensor([[MASK, 6]])
    model(**hidden)
    for _ in range(3):
        model(**copying())
    with pytest.raises(ValueError, match="last 32 labels name tokens that the text shows"):
        model(**copying())


def test_named_positions_may_show_more():
    """A collator of ours may keep many tokens; a thousand in a row it does not."""
    model, batch = tiny_model().train(), copying(16)
    batch["masked_positions"] = torch.ones_like(batch["labels"], dtype=torch.bool)
    for _ in range(31):
        model(**batch)
    with pytest.raises(ValueError, match="last 1024 labels"):
        model(**batch)


def test_labels_that_cannot_be_read_or_are_none_count_for_nothing():
    seen = shown_labels.ShownLabels()
    seen.in_a_row = 31
    for where in ({"size": (9,), "device": "meta"}, {"size": (0,)}):
        ids = torch.empty(dtype=torch.long, **where)
        seen.look(ids, ids, are_named=False, training=True)
    assert seen.in_a_row == 31


def test_evaluating_them_warns(caplog):
    model = tiny_model()
    with caplog.at_level(logging.WARNING):
        for _ in range(9):
            model(**copying())
    assert "nothing is masked, so there is nothing to predict" in caplog.text


def test_a_batch_without_a_label_teaches_nothing_and_measures_nothing(caplog):
    model, text = tiny_model(), torch.tensor([[CLS, 7, SEP]])
    labels = torch.full_like(text, -100)
    for count in (None, 0, torch.tensor(0), 5):
        with caplog.at_level(logging.WARNING):
            loss = model.train()(input_ids=text, labels=labels, num_items_in_batch=count).loss
        loss.backward()
        assert loss.item() == 0
        assert all(not p.grad.any() for p in model.parameters() if p.grad is not None)
    assert "A batch holds no label" in caplog.text
    model.eval()
    assert model(input_ids=text, labels=labels).loss.isnan()


@pytest.mark.parametrize("count", [0, torch.tensor(0), -1])
def test_labels_divided_by_nothing_are_refused(count):
    text = torch.tensor([[CLS, MASK, SEP]])
    with pytest.raises(ValueError, match=r"`num_items_in_batch` must be greater than 0 where th"):
        tiny_model()(
            input_ids=text, labels=torch.tensor([[-100, 7, -100]]), num_items_in_batch=count
        )


def test_labels_of_padding_are_refused():
    """Where padding is an ordinary token, nothing else would notice."""
    text, mask = torch.tensor([[CLS, MASK, SEP, 9]]), torch.tensor([[1, 1, 1, 0]])
    labels = torch.tensor([[-100, 7, -100, 9]])
    with pytest.raises(ValueError, match="hold the id 9 at padding, where `attention_mask` is 0"):
        tiny_model()(input_ids=text, attention_mask=mask, labels=labels)


@pytest.mark.wide
def test_the_masking_collator_of_transformers_trains_and_evaluates_on_short_texts(tmp_path):
    """Half of its batches of two words have no label; the others are what is measured."""
    tokenizer = word_tokenizer()
    short = Dataset.from_list([dict(tokenizer(f"w{i} w{i + 1}")) for i in range(24)])
    options = {"per_device_train_batch_size": 2, "per_device_eval_batch_size": 2, "seed": 1}
    quiet = {"report_to": "none", "disable_tqdm": True, "use_cpu": True, "save_strategy": "no"}
    trainer = Trainer(
        model=tiny_model(),
        args=TrainingArguments(str(tmp_path), **options, **quiet, gradient_accumulation_steps=2),
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15),
        train_dataset=short,
        eval_dataset=short,
    )
    assert 0 < trainer.train().training_loss < 20
    assert all(bool(p.isfinite().all()) for p in trainer.model.parameters())
    assert 1 < trainer.evaluate()["eval_loss"] < 20, "a mean over the batches that have labels"
