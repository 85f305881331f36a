"""Adapters: they alone learn, are saved merged and beside the model, and go on to the bit."""

import sys

import pytest
import torch
from accelerate.utils import set_seed
from peft import PeftModel
from safetensors.torch import load_file
from transformers import BertForMaskedLM, BertModel

from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.training.adapters import add_adapters, merged, num_parameters, targets_of
from hf_maskgit.training.arguments import DataArguments, ModelArguments, TrainArguments
from hf_maskgit.training.building import load_model
from hf_maskgit.training.data import check_together
from hf_maskgit.training.evaluations import Evaluations
from tests.support.support_matrix import tiny_generator
from tests.support.tiny import tiny_model, word_tokenizer
from tests.support.tiny_training import (
    assert_same_weights,
    examples,
    fresh_encoder_config,
    loop_of,
)

pytestmark = pytest.mark.usefixtures("_fresh_accelerate")
LORA = {"lora_r": 4, "learning_rate": 0.1}
TEXT = torch.tensor([[2, 4, 7, 4, 4, 3], [2, 8, 4, 3, 0, 0]])
INPUTS = {"input_ids": TEXT, "attention_mask": (TEXT != 0).long()}


def logits_of(model):
    with torch.no_grad():
        return model.eval()(**INPUTS).logits


def base_of_loop_of(**parts):
    """The model that `loop_of` trains, before it does."""
    set_seed(0)
    encoder = BertForMaskedLM(fresh_encoder_config())
    return MaskGitForMaskedLM.from_encoder(encoder, tokenizer=word_tokenizer(), **parts)


@pytest.mark.wide
def test_adapters_learn_and_what_is_saved_is_an_ordinary_model_with_them(tmp_path):
    loop = loop_of(tmp_path / "run", eval_examples=examples(8, 1), **LORA)
    torch.testing.assert_close(logits_of(loop.model), logits_of(base_of_loop_of()))
    before = {name: p.detach().clone() for name, p in loop.model.named_parameters()}
    loop.run()
    for name, parameter in loop.model.named_parameters():
        assert before[name].equal(parameter.detach()) != (".lora_" in name), name
    loop.save_model(tmp_path / "model")
    expected = logits_of(loop.model)
    plain = MaskGitForMaskedLM.from_pretrained(tmp_path / "model")
    assert plain.state_dict().keys() == base_of_loop_of().state_dict().keys()
    torch.testing.assert_close(logits_of(plain), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(expected, logits_of(base_of_loop_of()), atol=1e-2)
    adapted = PeftModel.from_pretrained(base_of_loop_of(), tmp_path / "model" / "adapter")
    assert torch.equal(logits_of(adapted), expected)
    best = MaskGitForMaskedLM.from_pretrained(tmp_path / "run" / "best")
    torch.testing.assert_close(logits_of(best), expected, atol=1e-5, rtol=1e-5)
    assert (tmp_path / "run" / "best" / "adapter" / "adapter_config.json").exists()
    loop.save_model(tmp_path / "model")  # over what is there
    assert num_parameters(loop.model) == plain.num_parameters()
    stored = load_file(tmp_path / "model" / "adapter" / "adapter_model.safetensors")
    assert len(stored) == 2 * 2 * 6  # A and B of six layers in each of two


@pytest.mark.wide
def test_new_parts_and_what_is_named_learn_fully(tmp_path):
    parts = {"token_critic": "self", "self_cond": True}
    options = {**LORA, "lora_modules_to_save": ["head"], "lora_target_modules": ["query"]}
    loop = loop_of(tmp_path / "run", parts, **options)
    learns = {name for name, p in loop.model.named_parameters() if p.requires_grad}
    others = {name for name in learns if ".lora_" not in name}
    assert others == {
        name
        for name, _ in base_of_loop_of(**parts).named_parameters()
        if not name.startswith("denoiser.bert.")
    }
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in learns - others} == {"query"}
    loop.run()
    loop.save_model(tmp_path / "model")
    plain = MaskGitForMaskedLM.from_pretrained(tmp_path / "model")
    trained = loop.model.state_dict()
    for name in others:
        assert torch.equal(plain.state_dict()[name], trained[name]), name


@pytest.mark.parametrize("grown", [False, True])
def test_what_an_encoder_came_without_learns_fully(tmp_path, grown):
    """A head of a checkpoint that has none, and the tables of a tokenizer that has grown."""
    tokenizer, config = word_tokenizer(), fresh_encoder_config()
    encoder = BertForMaskedLM(config) if grown else BertModel(config, add_pooling_layer=False)
    encoder.save_pretrained(tmp_path)
    if grown:
        tokenizer.add_tokens(["new"])
    options = ModelArguments(encoder=str(tmp_path), resize_embeddings=grown)
    model = load_model(options, tokenizer)
    add_adapters(model, TrainArguments(output_dir="run", lora_r=2), seed=0)
    learns = {name for name, p in model.named_parameters() if p.requires_grad}
    head = {name for name, _ in model.named_parameters() if name.startswith("denoiser.cls.")}
    table = "denoiser.bert.embeddings.word_embeddings.weight"
    expected = {table, "denoiser.cls.predictions.bias"} if grown else head
    assert {name for name in learns if ".lora_" not in name} == expected
    assert head


def test_adapters_of_random_weights_are_refused_before_anything_is_loaded():
    made = ModelArguments("bert", from_scratch=True, tokenizer="t")
    with pytest.raises(ValueError, match="`from_scratch` begins with random weights, and `lora_r`"):
        check_together(made, DataArguments("a"), TrainArguments("b", lora_r=2))


@pytest.mark.wide
def test_averages_of_adapters_are_merged_and_a_run_goes_on_to_the_bit(tmp_path):
    options = {**LORA, "ema_decay": 0.5, "lora_dropout": 0.1, "checkpoint_every": 3}
    whole = loop_of(tmp_path / "run", **options)
    whole.run()
    assert whole.averages.values
    assert all(".lora_" in name for name in whole.averages.values)
    torch.manual_seed(99)
    again = loop_of(tmp_path / "again", **options)
    again.resume(tmp_path / "run" / "checkpoint-3")
    again.run()
    assert_same_weights(again.model.state_dict(), whole.model.state_dict())
    assert_same_weights(again.averages.values, whole.averages.values)
    whole.save_model(tmp_path / "model")
    plain = MaskGitForMaskedLM.from_pretrained(tmp_path / "model")
    with whole.published_weights():
        expected = logits_of(whole.model)
    torch.testing.assert_close(logits_of(plain), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(logits_of(whole.model), expected, atol=1e-4)


@pytest.mark.wide
def test_the_merged_weight_is_that_of_the_formula(tmp_path):
    loop = loop_of(tmp_path / "run", **LORA, lora_alpha=6)
    loop.run()
    weights = loop.model.state_dict()
    found, path = merged(loop.model, weights), "denoiser.bert.encoder.layer.1.output.dense"
    down, up = (weights[f"{path}.lora_{one}.default.weight"].double() for one in "AB")
    expected = weights[f"{path}.base_layer.weight"].double() + 6 / 4 * up @ down
    torch.testing.assert_close(found[f"{path}.weight"].double(), expected, atol=1e-6, rtol=1e-6)
    plain = tiny_model()
    assert merged(plain, plain.state_dict()) is not None


@pytest.mark.parametrize("kind", ["bert", "modernbert", "xlm", "esm", "distilbert", "albert"])
def test_every_linear_layer_of_an_encoder_is_a_target_but_no_head_and_no_pooler(kind):
    model = tiny_generator(kind)
    targets = targets_of(model, None)
    assert targets
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    linear = {
        name
        for name, module in model.denoiser.base_model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    prefix = next(n for n, m in model.named_modules() if m is model.denoiser.base_model)
    expected = {f"{prefix}.{name}" for name in linear if f"{prefix}.{name}.weight" in trained}
    assert set(targets) == expected


def test_names_that_no_layer_has_and_encoders_without_one_are_refused():
    model = tiny_model()
    with pytest.raises(ValueError, match="names 'q_proj', which no linear layer of the denoiser"):
        targets_of(model, ["q_proj"])
    with pytest.raises(ValueError, match="names 'decoder', which no linear layer"):
        targets_of(model, ["decoder"])  # it is the embeddings
    with pytest.raises(ValueError, match="has no linear layers, so there is nothing"):
        targets_of(without_linear_layers(), None)


def without_linear_layers():
    model = tiny_model()
    for path, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and ".encoder." in path:
            owner, _, name = path.rpartition(".")
            setattr(model.get_submodule(owner), name, torch.nn.Identity())
    return model


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lora_alpha": 8}, "`lora_alpha` shapes adapters; set `lora_r`, or leave it out"),
        ({"lora_target_modules": ["query"]}, "`lora_target_modules` shapes adapters"),
        ({"lora_r": -1}, "`lora_r` must be at least 0, got -1"),
        ({"lora_r": 4, "lora_alpha": 0}, "`lora_alpha` must be greater than 0, got 0"),
        ({"lora_r": 4, "lora_dropout": 1.0}, r"`lora_dropout` must lie in \[0, 1\), got 1.0"),
        ({"lora_r": 4, "train": "critic"}, "`lora_r` adapts the denoiser, which stays as it is"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        TrainArguments(output_dir="run", **options)


def test_without_peft_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(
        ImportError,
        match=r"`lora_r` needs the package peft, which .*\[peft\]",
    ):
        loop_of(tmp_path / "run", lora_r=4)


def test_a_module_that_is_to_learn_fully_must_be_there(tmp_path):
    with pytest.raises(ValueError, match="`lora_modules_to_save` names 'tail', which nothing in"):
        loop_of(tmp_path / "run", lora_r=4, lora_modules_to_save=["tail"])


@pytest.mark.wide
@pytest.mark.parametrize("named", [["*.bias"], ["denoiser.bert.encoder.layer.0", "head"]])
@pytest.mark.parametrize("ema_decay", [0.0, 0.5])
def test_the_best_model_is_taken_back_whole_whatever_learned(
    tmp_path, monkeypatch, named, ema_decay
):
    """Weights below adapters that learn as well, up to rounding; the last ones are others."""
    monkeypatch.setattr(Evaluations, "_is_best", lambda self: self.progress.step == 2)
    options = {**LORA, "lora_modules_to_save": named, "eval_every": 2, "ema_decay": ema_decay}
    loop = loop_of(
        tmp_path / "run", eval_examples=examples(8, 1), load_best_model_at_end=True, **options
    )
    loop.run()
    loop.save_model(tmp_path / "model")
    best, taken = (
        MaskGitForMaskedLM.from_pretrained(folder).state_dict()
        for folder in (tmp_path / "run" / "best", tmp_path / "model")
    )
    for name in best:
        torch.testing.assert_close(taken[name], best[name], atol=1e-6, rtol=0, msg=name)
