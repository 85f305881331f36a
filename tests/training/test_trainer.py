"""Training beside our script: `transformers.Trainer` and plain loops see the same losses."""

import functools
import pickle

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from datasets import Dataset
from torch.optim import AdamW
from torch.utils.data import DataLoader, IterableDataset
from transformers import AutoTokenizer, Trainer, TrainingArguments

from hf_maskgit import DataCollatorForMaskGit, MaskGitForMaskedLM
from hf_maskgit.callbacks import SetEpochCallback
from hf_maskgit.training.arguments import TrainArguments
from hf_maskgit.training.building import make_accelerator
from hf_maskgit.training.examples import prepare_examples
from hf_maskgit.training.loop import TrainingLoop
from tests.support.grids import wide
from tests.support.tiny import bert_config, tiny_model, word_tokenizer
from tests.support.tiny_training import examples, fresh_model

pytestmark = pytest.mark.usefixtures("_fresh_accelerate")

STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
# What our arguments are called there, where the two differ.
SETTINGS = {
    "per_device_train_batch_size": 8,
    "per_device_eval_batch_size": 8,
    "learning_rate": 1e-2,
    "adam_beta2": 0.98,
    "weight_decay": 0.01,
    "warmup_steps": 0.05,
    "seed": 0,
    "use_cpu": True,
    "remove_unused_columns": False,
    "dataloader_drop_last": True,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": [],
    "disable_tqdm": True,
}


def make_trainer(
    folder, *, model=None, train_examples=None, collator=None, announced=True, **options
):
    """A Trainer over our collator; its epochs are announced by the callback, unless not wanted."""
    collator = collator or DataCollatorForMaskGit(word_tokenizer())
    more = {name: options.pop(name) for name in list(options) if name in MORE}
    set_seed(0)
    return Trainer(
        model=fresh_model(**STILL) if model is None else model,
        args=TrainingArguments(output_dir=str(folder), **{**SETTINGS, **options}),
        data_collator=collator,
        train_dataset=examples() if train_examples is None else train_examples,
        callbacks=[SetEpochCallback(collator)] if announced else None,
        **more,
    )


MORE = (
    "eval_dataset",
    "processing_class",
    "compute_metrics",
    "preprocess_logits_for_metrics",
)


def losses_of(trainer):
    return {line["step"]: line["loss"] for line in trainer.state.log_history if "loss" in line}


def weights_of(model):
    return {name: weight.detach().clone() for name, weight in model.state_dict().items()}


def assert_close_weights(one, other, **tolerance):
    assert one.keys() == other.keys()
    for name, weight in one.items():
        torch.testing.assert_close(weight, other[name], **tolerance)


def assert_same_weights(one, other):
    assert_close_weights(one, other, atol=0, rtol=0)


# Trainer and our loop


@pytest.mark.wide
def test_trainer_and_our_loop_take_the_same_updates(tmp_path):
    """One and a half epochs: the same order of data, the same masks, the same optimizer."""
    trainer = make_trainer(tmp_path / "trainer", max_steps=12)
    trainer.train()
    (tmp_path / "loop").mkdir()
    set_seed(0)
    options = TrainArguments(
        output_dir=str(tmp_path / "loop"),
        use_cpu=True,
        max_steps=12,
        per_device_batch_size=8,
        learning_rate=1e-2,
        log_every=1,
    )
    loop = TrainingLoop(
        make_accelerator(options),
        fresh_model(**STILL),
        word_tokenizer(),
        examples(),
        None,
        options,
    )
    found = {}
    loop._log = lambda values: found.update({loop.progress.step: values["loss"]})
    loop.run()
    assert sorted(found) == list(range(1, 13))
    assert losses_of(trainer) == pytest.approx(found, abs=1e-5)
    assert found[12] < found[1] - 0.3
    # a key's bias has no gradient but rounding, which Adam blows up to its step
    assert_close_weights(weights_of(trainer.model), weights_of(loop.model), atol=1e-4, rtol=1e-3)


def record_batches(model):
    """Note what the model is called with."""
    calls = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append(kwargs), with_kwargs=True
    )
    return calls


def masks_by_text(calls):
    """The chosen positions of each text, in the order of the calls."""
    masks = {}
    for call in calls:
        for ids, chosen in zip(call["labels"], call["masked_positions"], strict=True):
            text = tuple(ids[ids >= 0].tolist())
            masks.setdefault(text, []).append(chosen[ids >= 0].tolist())
    return masks


@functools.cache
def distinct_examples():
    """Texts that all differ, so that each can be found again."""
    texts = [" ".join(f"w{(i + j) % 35}" for j in range(9)) for i in range(16)]
    return prepare_examples(Dataset.from_dict({"text": texts}), word_tokenizer())[0]


@pytest.mark.wide
@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("announced", [True, False])
def test_an_announced_epoch_masks_anew(tmp_path, announced, num_workers):
    """One example per batch, so that no neighbour has a say in its masks."""
    trainer = make_trainer(
        tmp_path,
        train_examples=distinct_examples(),
        announced=announced,
        num_train_epochs=3,
        per_device_train_batch_size=1,
        dataloader_num_workers=num_workers,
    )
    calls = record_batches(trainer.model)
    trainer.train()
    masks = masks_by_text(calls)
    assert len(masks) == 16
    assert {len(of_text) for of_text in masks.values()} == {3}
    changed = [text for text, of_text in masks.items() if of_text[0] != of_text[1]]
    assert len(changed) > 10 if announced else not changed


@pytest.mark.wide
def test_workers_that_would_miss_an_epoch_are_refused(tmp_path):
    trainer = make_trainer(
        tmp_path, dataloader_num_workers=1, dataloader_persistent_workers=True, max_steps=1
    )
    with pytest.raises(ValueError, match="keeps the collator of the first epoch, so every epoch"):
        trainer.train()


class Stream(IterableDataset):
    """Eight texts of unknown length: it can be gone through, and nothing else."""

    def __iter__(self):
        return iter(list(distinct_examples())[:8])


STREAMED = {"per_device_train_batch_size": 1, "max_steps": 24}


@pytest.mark.wide
def test_every_pass_over_a_stream_masks_anew(tmp_path):
    """Eight updates a pass, which Trainer takes for a third of one epoch."""
    trainer = make_trainer(tmp_path, train_examples=Stream(), **STREAMED)
    calls = record_batches(trainer.model)
    trainer.train()
    masks = masks_by_text(calls)
    assert [len(of_text) for of_text in masks.values()] == [3] * 8
    collator = DataCollatorForMaskGit(word_tokenizer())
    for epoch in range(3):
        collator.set_epoch(epoch)
        for row in list(distinct_examples())[:8]:
            batch = collator([row])
            text = tuple(batch["labels"][batch["labels"] >= 0].tolist())
            chosen = batch["masked_positions"][batch["labels"] >= 0].tolist()
            assert masks[text][epoch] == chosen


@pytest.mark.wide
def test_a_stream_is_resumed_exactly_in_its_first_pass_and_refused_later(tmp_path):
    options = {**STREAMED, "save_strategy": "steps", "save_steps": 6}
    whole = make_trainer(tmp_path, train_examples=Stream(), **options)
    whole.train()
    again = make_trainer(tmp_path, train_examples=Stream(), **options)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    assert_same_weights(weights_of(again.model), weights_of(whole.model))
    again = make_trainer(tmp_path, train_examples=Stream(), **options)
    with pytest.raises(ValueError, match=r"stands in pass 2 over a stream .*skip 12 updates"):
        again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-12"))
    again = make_trainer(tmp_path, train_examples=Stream(), ignore_data_skip=True, **options)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-12"))


@pytest.mark.wide
def test_trainers_defaults_work(tmp_path):
    """Columns that forward does not know are dropped; the masks then come from the global seed."""
    options = {"remove_unused_columns": True, "dataloader_drop_last": False, "max_steps": 8}
    losses = []
    for _ in range(2):
        trainer = make_trainer(tmp_path, announced=False, num_train_epochs=1, **options)
        calls = record_batches(trainer.model)
        trainer.train()
        losses.append(losses_of(trainer))
        assert calls
        assert all("example_id" not in call for call in calls)
    assert losses[0] == losses[1]
    assert all(3 < loss < 4.5 for loss in losses[0].values())


@pytest.mark.wide
@pytest.mark.parametrize("token_critic", ["self", "separate"])
def test_trainer_trains_the_parts_beside_the_encoder(tmp_path, token_critic):
    model = tiny_model(self_cond=True, token_critic=token_critic, **critic_fields(token_critic))
    before = weights_of(model)
    trainer = make_trainer(tmp_path, model=model, max_steps=6)
    trainer.train()
    after = weights_of(model)
    still = [name for name, weight in before.items() if torch.equal(weight, after[name])]
    assert [name for name in still if "position_ids" not in name] == []
    evaluated = trainer.evaluate(examples(8, seed=1))
    assert 0 < evaluated["eval_loss"] < 10


def critic_fields(token_critic):
    return {"critic_config": bert_config()} if token_critic == "separate" else {}


# The denominator


@pytest.mark.wide
def test_the_loss_is_divided_by_the_maskable_tokens_of_the_update(tmp_path):
    trainer = make_trainer(
        tmp_path,
        num_train_epochs=1,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
    )
    calls = record_batches(trainer.model)
    trainer.train()
    assert len(calls) == 32
    for start in range(0, 32, 4):
        update = calls[start : start + 4]
        real = sum(int(call["attention_mask"].sum()) for call in update)
        framing = 2 * 8  # [CLS] and [SEP] around eight texts
        assert {int(call["num_items_in_batch"]) for call in update} == {real - framing}
    total = sum(int(call["num_items_in_batch"]) for call in calls[::4])
    assert total == sum(len(ids) - 2 for ids in examples()["input_ids"])


def masked_once(num_examples=64):
    """Examples masked beforehand, so that their batches cannot change the masks."""
    collator = DataCollatorForMaskGit(word_tokenizer(), pad_to_multiple_of=16)
    batch = collator(list(examples(num_examples)))
    return [{name: rows[i] for name, rows in batch.items()} for i in range(num_examples)]


def stack(features):
    return {name: torch.stack([f[name] for f in features]) for name in features[0]}


@pytest.mark.wide
def test_accumulation_changes_nothing_but_rounding(tmp_path):
    """One batch of eight is four of two and eight of one."""
    rows = masked_once()
    tokens = [int((row["labels"] != -100).sum()) for row in rows]
    assert len(set(tokens)) > 4, "a mean of means would give another loss"
    runs = {}
    for size in (8, 2, 1):
        trainer = make_trainer(
            tmp_path,
            train_examples=rows,
            collator=stack,
            announced=False,
            max_steps=3,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=8 // size,
        )
        trainer.train()
        runs[size] = losses_of(trainer), weights_of(trainer.model)
    for size in (2, 1):
        assert runs[size][0] == pytest.approx(runs[8][0], abs=1e-5)
        assert_close_weights(runs[size][1], runs[8][1], atol=1e-4, rtol=1e-3)


@pytest.mark.wide
@pytest.mark.parametrize("batch_size", [2, 8])
def test_label_smoothing_is_refused(tmp_path, batch_size):
    """Trainer takes the labels away; what it computes from them would be no loss at all."""
    trainer = make_trainer(
        tmp_path,
        label_smoothing_factor=0.1,
        max_steps=1,
        per_device_train_batch_size=batch_size,
    )
    with pytest.raises(ValueError, match=r"`loss_weights` came without `labels`, so .* leave the"):
        trainer.train()


# Evaluation


def evaluation_batches(size=8):
    rows = list(examples(13, seed=1))
    collator = DataCollatorForMaskGit(word_tokenizer())
    return [collator(rows[i : i + size]) for i in range(0, len(rows), size)]


@torch.no_grad()
def test_trainers_evaluation_is_the_mean_loss_of_its_batches(tmp_path):
    trainer = make_trainer(tmp_path, eval_dataset=examples(13, seed=1), dataloader_drop_last=False)
    batches, model = evaluation_batches(), trainer.model.eval()
    expected = sum(float(model(**batch).loss) * len(batch["labels"]) for batch in batches) / 13
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)
    trainer.args.prediction_loss_only = True
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)
    trainer.args.prediction_loss_only = False
    prediction = trainer.predict(examples(13, seed=1))
    assert prediction.metrics["test_loss"] == pytest.approx(expected, rel=1e-5)
    assert prediction.predictions.shape[1] == 40
    assert prediction.label_ids.shape == (13, max(len(i) for i in examples(13, 1)["input_ids"]))


def chosen_ids(logits, labels):
    """Put the likeliest token of each chosen position where it belongs, -100 elsewhere."""
    labels, chosen = labels
    ids = torch.full_like(labels, -100)
    ids[chosen] = logits.argmax(-1)
    return ids


def accuracy(prediction):
    labels = prediction.label_ids[0]
    chosen = prediction.predictions != -100
    return {"accuracy": float(np.mean(prediction.predictions[chosen] == labels[chosen]))}


@pytest.mark.wide
def test_metrics_of_the_chosen_positions(tmp_path):
    """Logits are those of the chosen positions; `label_names` lets Trainer hand these over too."""
    trainer = make_trainer(
        tmp_path,
        eval_dataset=examples(13, seed=1),
        dataloader_drop_last=False,
        label_names=["labels", "masked_positions"],
        preprocess_logits_for_metrics=chosen_ids,
        compute_metrics=accuracy,
    )
    trainer.train()
    model = trainer.model.eval()
    trainer.data_collator.set_epoch(0)
    found = trainer.evaluate()
    right = total = 0
    for batch in evaluation_batches():
        with torch.no_grad():
            ids = model(**batch).logits.argmax(-1)
        right += int((ids == batch["labels"][batch["masked_positions"]]).sum())
        total += len(ids)
    assert found["eval_accuracy"] == pytest.approx(right / total)
    assert 0.1 < right / total < 1


# Saving and resuming


@pytest.mark.wide
def test_a_saved_model_is_the_trained_one(tmp_path):
    trainer = make_trainer(tmp_path, processing_class=word_tokenizer(), max_steps=4)
    trainer.train()
    trainer.save_model()
    model = MaskGitForMaskedLM.from_pretrained(tmp_path)
    assert_same_weights(weights_of(model), weights_of(trainer.model))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    inputs = tokenizer("w1 [MASK] [MASK] w4", return_tensors="pt")
    written = model.generate(**inputs, seed=1)
    assert tokenizer.mask_token_id not in written
    assert torch.equal(trainer.model.eval().generate(**inputs, seed=1), written)


@pytest.mark.parametrize("checkpoint", [wide(8), 10])
def test_a_resumed_run_goes_on_exactly(tmp_path, checkpoint):
    """At the end of the first epoch and in the middle of the second; with BERT's dropout."""
    options = {"max_steps": 12, "save_strategy": "steps", "save_steps": 2}
    whole = make_trainer(tmp_path, model=fresh_model(), **options)
    whole.train()
    again = make_trainer(tmp_path, model=fresh_model(), **options)
    again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{checkpoint}"))
    assert losses_of(again) == losses_of(whole)
    assert_same_weights(weights_of(again.model), weights_of(whole.model))


# Options of Trainer


@pytest.mark.wide
def test_activation_checkpointing_changes_nothing(tmp_path):
    plain = make_trainer(tmp_path, max_steps=4)
    plain.train()
    saving = make_trainer(tmp_path, max_steps=4, activation_checkpointing=True)
    saving.train()
    assert saving.model.is_activation_checkpointing
    assert losses_of(saving) == pytest.approx(losses_of(plain), abs=1e-5)


@pytest.mark.wide
def test_bf16_runs_the_forward_pass_in_half(tmp_path):
    plain = make_trainer(tmp_path, max_steps=4)
    plain.train()
    half = make_trainer(tmp_path, max_steps=4, bf16=True)
    half.train()
    assert {p.dtype for p in half.model.parameters()} == {torch.float32}
    assert losses_of(half) != losses_of(plain)
    assert losses_of(half) == pytest.approx(losses_of(plain), rel=0.05)


@pytest.mark.slow
def test_a_compiled_model_trains_to_the_same_losses(tmp_path):
    plain = make_trainer(tmp_path, max_steps=4)
    plain.train()
    compiled = make_trainer(
        tmp_path, max_steps=4, torch_compile=True, torch_compile_backend="eager"
    )
    compiled.train()
    assert losses_of(compiled) == pytest.approx(losses_of(plain), abs=1e-5)


# Without Trainer


@pytest.mark.wide
@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_collator_in_a_loader(num_workers):
    """Workers get copies of it, and the noise of an example depends on its id alone."""
    rows, collator = list(examples(12)), DataCollatorForMaskGit(word_tokenizer())
    loader = DataLoader(rows, batch_size=4, collate_fn=collator, num_workers=num_workers)
    found = list(loader)
    copy = pickle.loads(pickle.dumps(collator))
    for i, batch in enumerate(found):
        for expected in (collator(rows[4 * i : 4 * i + 4]), copy(rows[4 * i : 4 * i + 4])):
            assert batch.keys() == expected.keys()
            assert all(torch.equal(batch[name], expected[name]) for name in batch)
    assert len(found) == 3


@pytest.mark.wide
def test_a_plain_loop_under_accelerate():
    """The three lines everybody writes give what torch alone gives."""
    rows, collator = list(examples(32)), DataCollatorForMaskGit(word_tokenizer())
    ends = []
    for accelerator in (None, Accelerator(cpu=True)):
        torch.manual_seed(0)
        model = fresh_model(**STILL).train()
        optimizer = AdamW(model.parameters(), lr=1e-2)
        loader = DataLoader(rows, batch_size=8, collate_fn=collator)
        if accelerator is not None:
            model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        for epoch in range(3):
            collator.set_epoch(epoch)
            for batch in loader:
                loss = model(**batch).loss
                loss.backward() if accelerator is None else accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
        ends.append((float(loss.detach()), weights_of(model)))
    assert ends[0][0] == ends[1][0] < 3.4
    assert_same_weights(ends[0][1], ends[1][1])
