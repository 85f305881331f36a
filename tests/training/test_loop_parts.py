"""Training with a critic and self-conditioning: options, added parts, logs, resuming."""

import json
import logging
from pathlib import Path

import pytest
import torch
from accelerate.utils import set_seed
from transformers import BertForMaskedLM

import hf_maskgit.training.loop as training
from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.evaluation import ONE_PASS, TWO_PASSES, CriticAuroc
from hf_maskgit.training.arguments import ModelArguments, TrainArguments
from hf_maskgit.training.building import load_model, make_accelerator
from hf_maskgit.training.loop import TrainingLoop
from scripts import evaluate
from scripts.train import main
from tests.support.tiny import bert_config, tiny_encoder, tiny_model, word_tokenizer
from tests.support.tiny_training import (
    SMALL,
    examples,
    fresh_encoder_config,
    repeated_symbols,
    write_inputs,
)

pytestmark = pytest.mark.usefixtures("_fresh_accelerate")


@pytest.fixture
def tokenizer():
    return word_tokenizer()


def words(options):
    return [f"--{name}={value}" for name, value in options.items()]


def lines_of(folder):
    return [
        json.loads(line) for line in Path(folder, "training_log.jsonl").read_text().splitlines()
    ]


def loop_of(folder, options=None, eval_examples=None, **training_options):
    """A loop around a new model, with dropout at 0.1."""
    Path(folder).mkdir()
    set_seed(0)
    encoder = BertForMaskedLM(fresh_encoder_config())
    model = MaskGitForMaskedLM.from_encoder(encoder, tokenizer=word_tokenizer(), **(options or {}))
    arguments = TrainArguments(output_dir=str(folder), **{**SMALL, **training_options})
    accelerator = make_accelerator(arguments)
    data = examples(64, 0)
    return TrainingLoop(accelerator, model, word_tokenizer(), data, eval_examples, arguments)


# --- options and the model they make -------------------------------------------------------------


def test_the_options_reach_a_new_model(tmp_path, tokenizer):
    tiny_encoder().save_pretrained(tmp_path / "encoder")
    tiny_encoder(num_hidden_layers=1).save_pretrained(tmp_path / "other")
    options = {"encoder": str(tmp_path / "encoder")}
    model = load_model(
        ModelArguments(
            **options,
            self_cond=True,
            self_cond_train_prob=0.5,
            critic=str(tmp_path / "other"),
            critic_loss_weight=0.25,
        ),
        tokenizer,
    )
    config = model.config
    assert (config.self_cond, config.self_cond_train_prob) == (True, 0.5)
    assert (config.token_critic, config.critic_loss_weight) == ("separate", 0.25)
    assert config.critic_config.num_hidden_layers == 1
    model = load_model(ModelArguments(**options, token_critic="self"), tokenizer)
    assert model.config.token_critic == "self"
    scratch = {"encoder": "bert", "from_scratch": True, "tokenizer": "words"}
    sizes = '{"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}'
    model = load_model(
        ModelArguments(**scratch, encoder_overrides=sizes, token_critic="separate"), tokenizer
    )
    assert model.critic.config.hidden_size == 16


def test_a_critic_that_contradicts_itself():
    with pytest.raises(ValueError, match="`critic` names the encoder of a separate critic, and to"):
        ModelArguments(encoder="bert", critic="other", token_critic="self")


@pytest.mark.parametrize("gains", ["self_cond", "self", "separate", "other", "all"])
def test_a_generator_gains_parts_and_keeps_what_it_has(tmp_path, tokenizer, gains, caplog):
    caplog.set_level(logging.WARNING)
    saved = tiny_model(schedule="cosine", corruption_prob=0.25)
    saved.generation_config.steps = 7
    saved.save_pretrained(tmp_path / "generator")
    tiny_encoder(num_hidden_layers=1).save_pretrained(tmp_path / "other")
    changes = {
        "self_cond": {"self_cond": True},
        "self": {"token_critic": "self"},
        "separate": {"token_critic": "separate"},
        "other": {"critic": str(tmp_path / "other")},
        "all": {"self_cond": True, "token_critic": "separate", "schedule": "linear"},
    }[gains]
    model = load_model(ModelArguments(encoder=str(tmp_path / "generator"), **changes), tokenizer)
    assert model.config.schedule == changes.get("schedule", "cosine")
    assert (model.config.corruption_prob, model.generation_config.steps) == (0.25, 7)
    weights = model.state_dict()
    for name, weight in saved.state_dict().items():
        assert torch.equal(weights[name], weight)
    text = torch.tensor([[2, 7, 4, 3]])
    assert torch.equal(
        model(text, self_condition=model.config.self_cond).logits, saved(text).logits
    )
    (told,) = [r.getMessage() for r in caplog.records if "gains weights" in r.getMessage()]
    assert ("self_conditioning.null" in told) == ("self_cond" in changes)
    assert ("critic_head.weight" in told) == (gains != "self_cond")
    assert ("a copy of its encoder" in told) == (gains in ("separate", "all"))
    if gains in ("separate", "all"):
        body = dict(saved.denoiser.bert.named_parameters())
        assert all(torch.equal(p, body[n]) for n, p in model.critic.named_parameters())
    if gains == "other":
        assert model.critic.config.num_hidden_layers == 1
        assert str(tmp_path / "other") in told


def test_a_generator_with_a_critic_goes_on_with_it(tmp_path, tokenizer):
    saved = tiny_model(token_critic="separate", critic_config=bert_config(num_hidden_layers=1))
    saved.save_pretrained(tmp_path)
    encoder = str(tmp_path)
    for changes in ({}, {"token_critic": "separate"}, {"self_cond": True}):
        model = load_model(ModelArguments(encoder=encoder, **changes), tokenizer)
        weights = model.state_dict()
        assert all(torch.equal(weights[n], w) for n, w in saved.state_dict().items())
        assert model.config.self_cond == bool(changes.get("self_cond"))
    for changes in ({"token_critic": "self"}, {"critic": "another", "self_cond": True}):
        with pytest.raises(ValueError, match="has a token critic already, token_critic='separate'"):
            load_model(ModelArguments(encoder=encoder, **changes), tokenizer)


# --- training ------------------------------------------------------------------------------------


def test_the_log_tells_both_losses(tmp_path):
    loop = loop_of(tmp_path / "run", {"token_critic": "self", "critic_loss_weight": 0.5})
    loop.run()
    for line in lines_of(tmp_path / "run"):
        expected = line["denoiser_loss"] + 0.5 * line["critic_loss"]
        assert line["loss"] == pytest.approx(expected, rel=1e-5)
        assert 0.3 < line["critic_loss"] < 1.2
    plain = loop_of(tmp_path / "plain")
    plain.run()
    assert not {"denoiser_loss", "critic_loss"} & set(lines_of(tmp_path / "plain")[0])


@pytest.mark.parametrize("train", ["denoiser", "critic"])
def test_the_part_left_out_stays_as_it_is(tmp_path, train):
    loop = loop_of(tmp_path / "run", {"token_critic": "separate", "self_cond": True}, train=train)
    before = {name: p.detach().clone() for name, p in loop.model.named_parameters()}
    loop.run()
    after = dict(loop.model.named_parameters())
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(name.startswith("critic") == (train == "critic") for name in moved)
    assert ("critic_loss" in lines_of(tmp_path / "run")[0]) == (train == "critic")


def test_a_critic_to_train_must_be_there(tmp_path):
    with pytest.raises(ValueError, match="train='critic' needs a token critic, and the model has"):
        loop_of(tmp_path / "run", train="critic")


def test_an_evaluation_measures_the_critic_too_and_changes_nothing(tmp_path):
    held_out = examples(24, 1)
    runs = {}
    for name, options in (("quiet", {}), ("busy", {"eval_every": 2, "eval_examples": held_out})):
        loop = loop_of(tmp_path / name, {"token_critic": "self", "self_cond": True}, **options)
        loop.run()
        runs[name] = loop.model.state_dict()
    assert all(torch.equal(weight, runs["busy"][n]) for n, weight in runs["quiet"].items())
    found = [line for line in lines_of(tmp_path / "busy") if "eval_nats_per_token" in line]
    assert [line["step"] for line in found] == [2, 4, 6]
    assert all(0 <= line["eval_critic_auroc"] <= 1 for line in found)


def test_where_the_critic_alone_learns_the_best_is_the_best_critic(tmp_path, monkeypatch):
    aurocs, weights = iter([0.5, 0.9, 0.7]), []

    def evaluate_critic(accelerator, model, *_, **__):
        weights.append(model.critic_head.weight.detach().clone())
        return CriticAuroc(next(aurocs) * 10, 10, 20, 10)

    monkeypatch.setattr(training, "evaluate_critic", evaluate_critic)
    loop = loop_of(
        tmp_path / "run",
        {"token_critic": "self"},
        eval_examples=examples(8, 1),
        eval_every=2,
        train="critic",
    )
    loop.run()
    assert loop.progress.best_auroc == 0.9
    best = MaskGitForMaskedLM.from_pretrained(tmp_path / "run" / "best").critic_head.weight
    assert torch.equal(best, weights[1])
    assert not torch.equal(best, weights[2])


def test_an_interrupted_run_resumes_to_the_same_weights(tmp_path, monkeypatch):
    """Which texts look back and what the critic is shown go on as dropout does."""
    inputs = write_inputs(tmp_path, num_texts=40)
    options = {**SMALL, "token_critic": "self", "self_cond": "true", "checkpoint_every": 2}
    main([*inputs, *words({**options, "output_dir": tmp_path / "whole"})])
    take_update, calls = training.take_update, []

    def fails_at_the_fourth(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return take_update(*arguments)

    monkeypatch.setattr(training, "take_update", fails_at_the_fourth)
    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        main([*inputs, *words({**options, "output_dir": broken})])
    torch.manual_seed(99)
    main([str(broken / "training_options.yaml"), "--resume_from_checkpoint", "latest"])
    whole, again = (
        MaskGitForMaskedLM.from_pretrained(tmp_path / name).state_dict()
        for name in ("whole", "broken")
    )
    assert all(torch.equal(weight, again[name]) for name, weight in whole.items())
    card = (tmp_path / "whole" / "README.md").read_text()
    assert "| token critic | self |" in card
    assert "| share of texts with self-conditioning | 0.75 |" in card
    with pytest.raises(
        ValueError, match="by a run that trained other weights; use the same `train`"
    ):
        main(
            [
                str(broken / "training_options.yaml"),
                "--resume_from_checkpoint=latest",
                "--train=critic",
            ]
        )


# --- measuring -----------------------------------------------------------------------------------


def test_the_script_measures_both_bounds_and_the_critic(tmp_path, tokenizer, capsys):
    model = tiny_model(self_cond=True, token_critic="self")
    torch.nn.init.normal_(model.self_conditioning.weight)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "texts.txt").write_text("\n".join(repeated_symbols(60)))
    arguments = {"model": tmp_path / "model", "dataset": tmp_path / "texts.txt", "split": "train"}
    found = evaluate.main(words({**arguments, "num_samples": 4}))
    assert found["estimator"] == TWO_PASSES
    assert found["one_pass"]["estimator"] == ONE_PASS
    assert found["one_pass"]["nats_per_token"] != found["nats_per_token"]
    critic = found["critic_auroc"]
    assert critic["auroc"] == pytest.approx(critic["wins"] / critic["num_pairs"])
    assert json.loads(capsys.readouterr().out)["critic_auroc"] == critic


def test_a_critic_that_cannot_be_measured_costs_no_other_figure(
    tmp_path, tokenizer, capsys, caplog
):
    """A text of one token is right or wrong, never both."""
    tiny_model(token_critic="self").save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "texts.txt").write_text("w1\nw2\n")
    arguments = {"model": tmp_path / "model", "dataset": tmp_path / "texts.txt", "num_samples": 4}
    found = evaluate.main(words({**arguments, "output_file": tmp_path / "figures.json"}))
    assert found["critic_auroc"] is None
    assert found["nats_per_token"] > 0
    assert json.loads(capsys.readouterr().out) == found
    assert json.loads((tmp_path / "figures.json").read_text()) == found
    assert "no text has both a right and a wrong token" in caplog.text
