"""Low-rank adapters: PEFT's, and transformers' own way to them."""

import json

import pytest
import torch
from peft import (
    AutoPeftModel,
    AutoPeftModelForCausalLM,
    LoraConfig,
    PeftModel,
    get_peft_model,
)
from safetensors.torch import load_file
from torch.optim import AdamW
from transformers import Trainer, TrainingArguments

from hf_maskgit import DataCollatorForMaskGit, MaskGitForMaskedLM
from tests.support.tiny import tiny_model, word_tokenizer
from tests.support.tiny_training import repeated_symbols

pytestmark = pytest.mark.usefixtures("_fresh_accelerate")

PAD, UNK, CLS, SEP, MASK = range(5)
TEXT = torch.tensor([[CLS, MASK, 7, MASK, MASK, SEP], [CLS, 8, MASK, SEP, PAD, PAD]])
INPUTS = {"input_ids": TEXT, "attention_mask": (TEXT != PAD).long()}
ATTENTION = ["query", "value"]


@pytest.fixture
def base(tmp_path):
    """Where a generator lies that adapters are trained for."""
    tiny_model().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def load(folder):
    return MaskGitForMaskedLM.from_pretrained(folder)


def rows():
    ids = word_tokenizer()(repeated_symbols(8))["input_ids"]
    return [{"input_ids": row, "example_id": i} for i, row in enumerate(ids)]


def train(model, steps=8):
    """Train by hand on one batch, masked once; return the losses."""
    batch = DataCollatorForMaskGit(word_tokenizer())(rows())
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer, losses = AdamW(trained, lr=1e-2), []
    model.train()
    for _ in range(steps):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    model.eval()
    return losses


def weights_of(model):
    return {name: weight.detach().clone() for name, weight in model.state_dict().items()}


@torch.no_grad()
def logits_of(model):
    return model(**INPUTS).logits


@pytest.mark.grid(2)
@pytest.mark.parametrize("task_type", [None, "CAUSAL_LM", "FEATURE_EXTRACTION"])
@pytest.mark.parametrize("target_modules", ["all-linear", ATTENTION])
def test_an_adapter_is_trained_saved_loaded_merged_and_writes(
    tmp_path, base, task_type, target_modules
):
    config = LoraConfig(task_type=task_type, target_modules=target_modules, r=4, lora_alpha=16)
    model = get_peft_model(load(base), config)
    before = weights_of(model)
    losses = train(model)
    assert losses[-1] < losses[0] - 0.5
    changed = [n for n, w in weights_of(model).items() if not torch.equal(w, before[n])]
    num_modules = 2 * 2 if target_modules is ATTENTION else 2 * 6 + 1  # all but the output layer
    assert len(changed) == 2 * num_modules
    assert all("lora_" in name for name in changed)

    model.save_pretrained(tmp_path / "adapter")
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert len(stored) == len(changed)
    again = PeftModel.from_pretrained(load(base), tmp_path / "adapter")
    assert torch.equal(logits_of(again), logits_of(model))
    assert not torch.allclose(logits_of(again), logits_of(load(base)), atol=0.1)

    written = model.generate(**INPUTS, seed=3)
    merged = again.merge_and_unload()
    assert type(merged) is MaskGitForMaskedLM
    torch.testing.assert_close(logits_of(merged), logits_of(model), atol=1e-4, rtol=1e-4)
    assert torch.equal(merged.generate(**INPUTS, seed=3), written)
    merged.save_pretrained(tmp_path / "merged")
    assert torch.equal(load(tmp_path / "merged").generate(**INPUTS, seed=3), written)

    with model.disable_adapter():
        plain = model.generate(**INPUTS, seed=3)
    assert torch.equal(plain, load(base).generate(**INPUTS, seed=3))
    assert not torch.equal(plain, written)


@pytest.mark.wide
def test_trainer_trains_an_adapter(tmp_path, base):
    """Trainer counts labels and divides losses as it does for the model itself."""
    losses = {}
    for accumulation in (1, 4):
        torch.manual_seed(0)
        config = LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", r=4)
        model = get_peft_model(load(base), config)
        trainer = Trainer(
            model,
            TrainingArguments(
                output_dir=str(tmp_path / "run"),
                use_cpu=True,
                max_steps=6,
                learning_rate=1e-2,
                per_device_train_batch_size=8 // accumulation,
                gradient_accumulation_steps=accumulation,
                logging_steps=1,
                report_to=[],
                disable_tqdm=True,
            ),
            # the fully masked state alone: it does not depend on how examples share a batch
            DataCollatorForMaskGit(
                word_tokenizer(),
                schedule=steep,
                corruption_prob=0.0,
                use_simple_mdlm_loss_weight=False,
            ),
            rows(),
        )
        trainer.train()
        lines = trainer.state.log_history
        losses[accumulation] = [line["loss"] for line in lines if "loss" in line]
    assert losses[4] == pytest.approx(losses[1], abs=1e-4)
    assert losses[1][-1] < losses[1][0] - 0.5
    trainer.save_model(tmp_path / "adapter")
    again = PeftModel.from_pretrained(load(base), tmp_path / "adapter")
    assert torch.equal(logits_of(again), logits_of(model.eval()))


def steep(t):
    """Everything is masked almost at once."""
    return t**0.001


@pytest.mark.wide
def test_an_adapter_is_found_by_its_folder_alone(tmp_path, base):
    config = LoraConfig(task_type="CAUSAL_LM", target_modules=ATTENTION)
    model = get_peft_model(load(base), config)
    train(model, steps=2)
    model.save_pretrained(tmp_path / "adapter")
    again = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    assert torch.equal(logits_of(again), logits_of(model))
    assert torch.equal(again.generate(**INPUTS, seed=3), model.generate(**INPUTS, seed=3))


def test_an_adapter_without_a_task_names_the_class_to_import(tmp_path, base):
    model = get_peft_model(load(base), LoraConfig(target_modules=ATTENTION))
    model.save_pretrained(tmp_path / "adapter")
    with pytest.raises(ValueError, match=r"import_allowlist=\['hf_maskgit.core.mod"):
        AutoPeftModel.from_pretrained(tmp_path / "adapter")
    for allowed in ("hf_maskgit", "hf_maskgit.core.modeling_maskgit"):
        again = AutoPeftModel.from_pretrained(tmp_path / "adapter", import_allowlist=[allowed])
        assert torch.equal(logits_of(again), logits_of(model))


@pytest.mark.wide
def test_an_adapter_from_before_the_folders_is_found(tmp_path, base):
    """It names a module that is no file any more."""
    model = get_peft_model(load(base), LoraConfig(target_modules=ATTENTION))
    train(model, steps=2)
    model.save_pretrained(tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_config.json"
    stored = json.loads(file.read_text())
    assert stored["auto_mapping"]["parent_library"] == "hf_maskgit.core.modeling_maskgit"
    stored["auto_mapping"]["parent_library"] = "hf_maskgit.modeling_maskgit"
    file.write_text(json.dumps(stored))
    for allowed in ("hf_maskgit", "hf_maskgit.modeling_maskgit"):
        again = AutoPeftModel.from_pretrained(tmp_path / "adapter", import_allowlist=[allowed])
        assert type(again.get_base_model()) is MaskGitForMaskedLM
        assert torch.equal(logits_of(again), logits_of(model))


@pytest.mark.parametrize(
    "options",
    [{}, {"modules_to_save": ["word_embeddings", "decoder"]}],
    ids=["the adapter alone", "trained embeddings"],
)
def test_peft_saves_embeddings_that_were_resized(tmp_path, base, options):
    """It asks `config.vocab_size` whether they were; the rows are new at every resizing."""
    model = load(base)
    model.resize_token_embeddings(48, mean_resizing=False)
    adapted = get_peft_model(model, LoraConfig(**{"target_modules": ATTENTION, **options}))
    train(adapted, steps=2)
    with pytest.warns(UserWarning, match="the embedding layer has been resized"):
        adapted.save_pretrained(tmp_path / "adapter")
    torch.manual_seed(1)
    other = load(base)
    other.resize_token_embeddings(48, mean_resizing=False)
    again = PeftModel.from_pretrained(other, tmp_path / "adapter").eval()
    assert torch.equal(logits_of(again), logits_of(adapted))
    assert torch.equal(again.generate(**INPUTS, seed=3), adapted.generate(**INPUTS, seed=3))


def test_modules_to_adapt_must_be_named(base):
    """They are the encoder's, so none can be the default; PEFT says what is missing."""
    with pytest.raises(ValueError, match="Please specify `target_modules`"):
        get_peft_model(load(base), LoraConfig())


@pytest.mark.wide
def test_adapters_by_transformers_own_methods(tmp_path, base):
    model = load(base)
    model.add_adapter(LoraConfig(target_modules=ATTENTION), adapter_name="verses")
    before = weights_of(model)
    train(model)
    changed = [n for n, w in weights_of(model).items() if not torch.equal(w, before[n])]
    assert len(changed) == 8
    assert all("lora_" in name for name in changed)
    written = model.generate(**INPUTS, seed=3)
    model.save_pretrained(tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    found, given = load(tmp_path / "adapter"), load(base)
    given.load_adapter(tmp_path / "adapter")
    for again in (found, given):
        assert torch.equal(logits_of(again), logits_of(model))
        assert torch.equal(again.generate(**INPUTS, seed=3), written)
    model.disable_adapters()
    assert torch.equal(logits_of(model), logits_of(load(base)))
    model.enable_adapters()
    assert not torch.equal(logits_of(model), logits_of(load(base)))
    model.delete_adapter("verses")
    assert torch.equal(logits_of(model), logits_of(load(base)))


@pytest.mark.parametrize(
    "options",
    [
        {"modules_to_save": ["word_embeddings"]},
        {"target_modules": [*ATTENTION, "word_embeddings"]},
        {"trainable_token_indices": [5, 6]},
    ],
    ids=" ".join,
)
def test_self_conditioning_reaches_embeddings_that_are_adapted(options):
    """An adapter wraps the embeddings that were hooked when the model was built."""
    model = tiny_model(self_cond=True)
    with torch.no_grad():
        for parameter in model.self_conditioning.parameters():
            parameter.fill_(0.1)
    expected = model(**INPUTS, self_condition=True).logits
    adapted = get_peft_model(model, LoraConfig(**{"target_modules": ATTENTION, **options})).eval()
    assert torch.equal(adapted(**INPUTS, self_condition=True).logits, expected)
    assert torch.equal(adapted.unload()(**INPUTS, self_condition=True).logits, expected)
