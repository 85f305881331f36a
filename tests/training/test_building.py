"""From options to tokenizer, model and examples."""

import dataclasses
import json
import logging
from importlib.util import find_spec

import pytest
import torch
from datasets import Dataset

from hf_maskgit import DataCollatorForMaskGit, MaskGitForMaskedLM
from hf_maskgit.training.arguments import DataArguments, ModelArguments, TrainArguments
from hf_maskgit.training.building import (
    encoder_config,
    load_model,
    load_tokenizer,
    make_accelerator,
    start_from_frequencies,
)
from hf_maskgit.training.data import _held_out, load_data, load_examples
from hf_maskgit.training.examples import prepare_examples
from hf_maskgit.training.framing import framing_of
from hf_maskgit.training.ids import ids_tokenizer
from hf_maskgit.training.sources import load_texts
from hf_maskgit.training.tokenising import Form
from tests.support.drawn_tokenizers import Table
from tests.support.tiny import (
    bert_config,
    protein_tokenizer,
    tiny_encoder,
    tiny_model,
    word_tokenizer,
)
from tests.support.tiny_training import fresh_encoder_config, repeated_symbols


@pytest.fixture
def tokenizer():
    return word_tokenizer()


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(repeated_symbols(40)))
    return str(path)


def test_an_encoder_is_wrapped_in_float32_with_the_options_given(tmp_path, tokenizer):
    encoder = tiny_encoder().bfloat16()  # as many a checkpoint is stored
    encoder.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    options = ModelArguments(encoder=str(tmp_path), schedule="cosine", corruption_prob=0.0)
    found = load_tokenizer(options)
    model = load_model(options, found)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert (model.config.schedule, model.config.corruption_prob) == ("cosine", 0.0)
    assert model.config.no_replace_prob == 0.15
    assert found.get_vocab() == tokenizer.get_vocab()
    weights = encoder.float().state_dict()
    for name, weight in model.denoiser.state_dict().items():
        assert torch.equal(weight, weights[name])


@pytest.mark.wide
def test_a_generator_goes_on_with_its_own_settings_unless_others_are_named(tmp_path, tokenizer):
    saved = tiny_model(schedule="cosine", corruption_prob=0.25)
    saved.save_pretrained(tmp_path)
    model = load_model(ModelArguments(encoder=str(tmp_path)), tokenizer)
    assert (model.config.schedule, model.config.corruption_prob) == ("cosine", 0.25)
    assert all(map(torch.equal, model.state_dict().values(), saved.state_dict().values()))
    model = load_model(ModelArguments(encoder=str(tmp_path), corruption_prob=0.0), tokenizer)
    assert (model.config.schedule, model.config.corruption_prob) == ("cosine", 0.0)


@pytest.mark.parametrize("is_generator", [False, True])
def test_options_of_decoding_are_stored_with_the_model(tmp_path, tokenizer, is_generator):
    saved = tiny_model() if is_generator else tiny_encoder()
    if is_generator:
        saved.generation_config.update(temperature=0.5, choice_temperature=3.0)
    saved.save_pretrained(tmp_path / "from")
    chosen = '{"order": "margin", "choice_temperature": 0.25, "num_tokens": "sampled"}'
    options = ModelArguments(encoder=str(tmp_path / "from"), decoding=chosen)
    load_model(options, tokenizer).save_pretrained(tmp_path / "to")
    stored = MaskGitForMaskedLM.from_pretrained(tmp_path / "to").generation_config
    found = stored.order, stored.choice_temperature, stored.num_tokens
    assert found == ("margin", 0.25, "sampled")
    assert stored.temperature == (0.5 if is_generator else 1.0)


@pytest.mark.parametrize(
    ("decoding", "said"),
    [
        ('{"order": "critic"}', "The model has no token critic"),
        ('{"suppress_tokens": [9999]}', "names the id 9999; the vocabulary has"),
        ('{"eos_token_id": 9999}', "`eos_token_id` names the id 9999; the vocabulary has"),
    ],
)
def test_options_of_decoding_that_the_model_lacks_are_refused_before_it_learns(
    tmp_path, tokenizer, decoding, said
):
    tiny_encoder().save_pretrained(tmp_path)
    options = ModelArguments(encoder=str(tmp_path), decoding=decoding)
    with pytest.raises(ValueError, match=said):
        load_model(options, tokenizer)


def test_a_sampler_that_is_named_takes_nothing_of_a_stored_one(tmp_path, tokenizer):
    saved = tiny_model()
    saved.generation_config.update(remask="remdm_conf", temperature=0.5)
    saved.save_pretrained(tmp_path)
    options = ModelArguments(encoder=str(tmp_path), decoding='{"order": "margin"}')
    stored = load_model(options, tokenizer).generation_config
    assert (stored.order, stored.remask, stored.temperature) == ("margin", None, 0.5)


def test_a_new_encoder_takes_its_shape_from_any_description(tmp_path, tokenizer):
    fresh_encoder_config(vocab_size=99).save_pretrained(tmp_path)
    sizes = '{"hidden_size": 16, "hidden_dropout_prob": 0.0}'
    for source in (str(tmp_path), str(tmp_path / "config.json")):
        config = encoder_config(source, "main", sizes, tokenizer)
        assert (config.hidden_size, config.num_hidden_layers) == (16, 2)
        assert (config.vocab_size, config.pad_token_id) == (len(tokenizer), 0)
        assert config.hidden_dropout_prob == 0.0
    by_type = encoder_config("modernbert", "main", '{"num_hidden_layers": 3}', tokenizer)
    assert (by_type.num_hidden_layers, len(by_type.layer_types)) == (3, 3)
    options = ModelArguments(
        encoder=str(tmp_path), from_scratch=True, tokenizer="words", encoder_overrides=sizes
    )
    torch.manual_seed(0)
    model = load_model(options, tokenizer)
    assert model.config.get_text_config().hidden_size == 16
    torch.manual_seed(1)
    other = load_model(options, tokenizer)
    embedding = [m.get_input_embeddings().weight for m in (model, other)]
    assert not torch.equal(*embedding)
    assert embedding[0].shape == (len(tokenizer), 16)


@pytest.mark.grid(2)
@pytest.mark.parametrize("is_generator", [False, True])
@pytest.mark.parametrize("gains", [{}, {"self_cond": True}, {"resize_embeddings": True}])
def test_a_trained_encoder_takes_another_dropout_and_keeps_its_weights(
    tmp_path, tokenizer, is_generator, gains
):
    """In training no two passes are equal with dropout, and without it all are."""
    saved = tiny_model() if is_generator else tiny_encoder()
    saved.save_pretrained(tmp_path)
    ids = torch.arange(5, 15)[None]
    for chance in (0, 0.4):
        settings = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), chance)
        options = ModelArguments(
            encoder=str(tmp_path), encoder_overrides=json.dumps(settings), **gains
        )
        model = load_model(options, tokenizer)
        encoder = model.denoiser
        weights = (saved.denoiser if is_generator else saved).state_dict()
        assert all(map(torch.equal, encoder.state_dict().values(), weights.values()))
        one, two = (encoder.train()(ids).logits for _ in range(2))
        assert torch.equal(one, two) == (chance == 0)
        assert model.config.get_text_config().hidden_dropout_prob == chance  # and is saved so


def test_a_dropout_that_an_encoder_does_not_have(tmp_path, tokenizer):
    tiny_encoder().save_pretrained(tmp_path)
    options = ModelArguments(encoder=str(tmp_path), encoder_overrides='{"mlp_dropout": 0}')
    with pytest.raises(ValueError, match="names 'mlp_dropout', which a 'bert' encoder does not h"):
        load_model(options, tokenizer)


@pytest.fixture
def grown(tokenizer):
    tokenizer.add_tokens(["w35"])
    tokenizer.add_special_tokens({"extra_special_tokens": ["<user>"]})
    return tokenizer


def written_by(model):
    rows = model.generate(max_new_tokens=30, num_return_sequences=8, order="random", seed=0)
    return set(rows.flatten().tolist())


@pytest.mark.wide
@pytest.mark.parametrize("critic", [None, "separate"])
def test_a_tokenizer_that_has_grown_gets_its_rows_where_that_is_asked_for(tmp_path, grown, critic):
    tiny_encoder().save_pretrained(tmp_path)
    critic = None if critic is None else str(tmp_path)
    options = {"encoder": str(tmp_path), "tokenizer": "grown", "critic": critic}
    with pytest.raises(ValueError, match=r"ids up to 41 and '.*' has rows for 40.* `resize_embedd"):
        load_model(ModelArguments(**options), grown)
    model = load_model(ModelArguments(**options, resize_embeddings=True), grown)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.config.get_text_config().vocab_size == model.config.num_token_ids == 42
    assert model.get_input_embeddings().weight.shape[0] == 42
    if critic is not None:
        assert model.critic.get_input_embeddings().weight.shape[0] == 42
    assert 41 in model.config.forbidden_token_ids
    assert 41 not in written_by(model)
    DataCollatorForMaskGit.from_config(model.config, grown)


@pytest.mark.wide
@pytest.mark.parametrize("more", [{}, {"self_cond": True}])
def test_a_generator_goes_on_with_a_tokenizer_that_has_grown(tmp_path, grown, more):
    tiny_model().save_pretrained(tmp_path)
    options = {"encoder": str(tmp_path), **more}
    with pytest.raises(ValueError, match="`resize_embeddings` to give the new tokens rows of thei"):
        load_model(ModelArguments(**options), grown)
    model = load_model(ModelArguments(**options, resize_embeddings=True), grown)
    assert model.config.num_token_ids == 42
    assert model.config.self_cond is bool(more)
    assert 41 not in written_by(model)
    DataCollatorForMaskGit.from_config(model.config, grown)


@pytest.mark.parametrize("scratch", [False, True])
def test_the_attention_is_as_asked(tmp_path, tokenizer, scratch):
    tiny_encoder().save_pretrained(tmp_path)
    fresh = {"from_scratch": True, "tokenizer": "words"} if scratch else {}
    options = ModelArguments(encoder=str(tmp_path), attn_implementation="eager", **fresh)
    model = load_model(options, tokenizer)
    assert model.denoiser.config._attn_implementation == "eager"
    model = load_model(dataclasses.replace(options, critic=str(tmp_path)), tokenizer)
    assert model.critic.config._attn_implementation == "eager"
    unknown = ModelArguments(encoder=str(tmp_path), attn_implementation="fast", **fresh)
    if find_spec("flash_attn") is None:
        missing = dataclasses.replace(options, attn_implementation="flash_attention_2")
        with pytest.raises(ValueError, match="'flash_attention_2' cannot be used: FlashAttention2"):
            load_model(missing, tokenizer)
    with pytest.raises(ValueError, match="attn_implementation='fast' cannot be used: Specified"):
        load_model(unknown, tokenizer)


def test_a_tokenizer_that_fits_changes_nothing_by_being_asked(tmp_path, tokenizer):
    """A table padded to a multiple stays as it is."""
    saved = tiny_model(text_config=bert_config(vocab_size=48))
    saved.save_pretrained(tmp_path)
    model = load_model(ModelArguments(encoder=str(tmp_path), resize_embeddings=True), tokenizer)
    assert all(map(torch.equal, model.state_dict().values(), saved.state_dict().values()))
    assert model.config.forbidden_token_ids == saved.config.forbidden_token_ids


@pytest.mark.wide
def test_a_bias_beside_the_last_layer_grows_too(tmp_path):
    """ESM keeps one there."""
    tiny_encoder("esm").save_pretrained(tmp_path)
    grown = protein_tokenizer()
    grown.add_special_tokens({"extra_special_tokens": ["<chain>"]})
    model = load_model(ModelArguments(encoder=str(tmp_path), resize_embeddings=True), grown)
    assert model.config.num_token_ids == 34
    assert 33 not in written_by(model)


@pytest.fixture
def gappy():
    """Three words, a mask far behind them, and padding."""
    ids = {"w0": 0, "w1": 1, "w2": 2, "[PAD]": 5, "[MASK]": 11}
    return Table(ids, {"mask": "[MASK]", "pad": "[PAD]"}).build()


def test_a_new_encoder_has_a_row_for_the_greatest_id(tmp_path, gappy):
    fresh_encoder_config(vocab_size=99).save_pretrained(tmp_path)
    assert len(gappy) == 5
    assert encoder_config(str(tmp_path), "main", None, gappy).vocab_size == 12
    options = ModelArguments(encoder=str(tmp_path), from_scratch=True, tokenizer="words")
    model = load_model(options, gappy)
    assert written_by(model) == {0, 1, 2}
    padded = encoder_config(str(tmp_path), "main", '{"vocab_size": 16}', gappy)
    assert padded.vocab_size == 16
    with pytest.raises(
        ValueError, match="sets vocab_size to 11, and the tokenizer knows ids up to"
    ):
        encoder_config(str(tmp_path), "main", '{"vocab_size": 11}', gappy)


@pytest.mark.parametrize("overrides", ["hidden_size=8", "[8]", "8"])
def test_overrides_that_are_no_mapping_are_refused(overrides, tokenizer):
    with pytest.raises(ValueError, match="must be a JSON object such as"):
        encoder_config("bert", "main", overrides, tokenizer)


def test_overrides_of_settings_that_do_not_exist_are_refused(tokenizer):
    overrides = json.dumps({"hidden_sizes": 8})
    with pytest.raises(ValueError, match="names 'hidden_sizes', which a 'bert' encoder does not"):
        encoder_config("bert", "main", overrides, tokenizer)


@pytest.mark.usefixtures("_fresh_accelerate")
def test_the_accelerator_is_set_up_as_the_options_say(tmp_path):
    options = TrainArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        find_unused_parameters=True,
        mixed_precision="bf16",
    )
    accelerator = make_accelerator(options)
    assert accelerator.device.type == "cpu"
    assert accelerator.mixed_precision == "bf16"
    assert accelerator.ddp_handler.find_unused_parameters
    assert not accelerator.step_scheduler_with_optimizer


def test_examples_longer_than_the_encoder_takes_are_refused(texts, tokenizer):
    options = DataArguments(dataset=texts, max_length=65)
    with pytest.raises(ValueError, match="`max_length` is 65 tokens, but the encoder takes 64"):
        load_examples(options, tokenizer, tiny_model().max_positions, seed=0)
    load_examples(options, tokenizer, None, seed=0)


def test_without_held_out_texts_a_warning_says_so(texts, tokenizer, caplog):
    train, held_out = load_examples(DataArguments(dataset=texts, max_length=16), tokenizer, 64, 0)
    assert (len(train), held_out) == (40, None)
    assert "No held-out texts: nothing will be evaluated" in caplog.text


@pytest.mark.wide
def test_held_out_texts_come_from_a_part_a_split_or_another_file(
    tmp_path, texts, tokenizer, caplog
):
    caplog.set_level(logging.INFO)
    part = DataArguments(dataset=texts, max_length=16, validation_fraction=0.25)
    train, held_out = load_examples(part, tokenizer, 64, seed=0)
    assert (len(train), len(held_out)) == (30, 10)
    assert "Training data: 30 texts became 30 examples" in caplog.text
    assert "Held-out data: 10 texts became 10 examples" in caplog.text
    _, fewer = load_examples(
        DataArguments(dataset=texts, max_length=16, validation_fraction=0.25, eval_examples=4),
        tokenizer,
        64,
        seed=0,
    )
    assert len(fewer) == 4
    assert all(row in held_out["input_ids"][:] for row in fewer["input_ids"][:])
    (tmp_path / "other.txt").write_text("w1 w2")
    other = DataArguments(dataset=texts, max_length=16, eval_dataset=str(tmp_path / "other.txt"))
    _, held_out = load_examples(other, tokenizer, 64, seed=0)
    assert held_out["input_ids"][:] == tokenizer(["w1 w2"])["input_ids"]
    split = DataArguments(dataset=texts, max_length=16, eval_split="train[:3]")
    _, held_out = load_examples(split, tokenizer, 64, seed=0)
    assert len(held_out) == 3
    missing = DataArguments(dataset=texts, max_length=16, eval_split="validation")
    with pytest.raises(ValueError, match="no split 'validation'.*validation_fraction"):
        load_examples(missing, tokenizer, 64, seed=0)
    streamed = dataclasses.replace(missing, streaming=True)
    with pytest.raises(ValueError, match=r"no split 'validation'.* Name one of its splits\.$"):
        _held_out(streamed, tokenizer, framing_of(tokenizer, Form(), max_length=16))


def test_a_faulty_text_is_named_by_its_row_before_texts_are_held_out(tmp_path, tokenizer):
    rows = ["w1"] * 20
    rows[13] = ""
    (tmp_path / "texts.txt").write_text("\n".join(rows))
    options = DataArguments(
        dataset=str(tmp_path / "texts.txt"), max_length=16, validation_fraction=0.5
    )
    with pytest.raises(ValueError, match="row 13 has no token"):
        load_examples(options, tokenizer, 64, seed=0)


@pytest.mark.wide
def test_the_options_reach_the_preparation(texts, tokenizer):
    options = DataArguments(dataset=texts, max_length=9, pack=True, num_proc=2)
    train, _ = load_examples(options, tokenizer, 64, seed=0)
    expected, _ = prepare_examples(load_texts(texts), tokenizer, max_length=9, pack=True)
    assert train[:] == expected[:]


def test_a_head_can_start_from_the_frequencies_of_the_tokens(tokenizer):
    """With every weight of the last layer 0, the law is the smoothed frequencies themselves."""
    model = tiny_model()
    rows = [tokenizer("w1 w1 w2")["input_ids"], tokenizer("w1")["input_ids"]]
    start_from_frequencies(model, Dataset.from_dict({"input_ids": rows}))
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()
    law = model(input_ids=torch.tensor([rows[0]])).logits[0, 1].softmax(-1)
    w1, w2, other = tokenizer.convert_tokens_to_ids(["w1", "w2", "w3"])
    size = model.config.text_config.vocab_size
    expected = {w1: 4, w2: 2, other: 1, tokenizer.sep_token_id: 1}
    for token, count in expected.items():
        assert law[token].item() == pytest.approx(count / (size + 4), rel=1e-5)


def test_a_head_without_a_bias_cannot_hold_frequencies():
    model = tiny_model()
    model.get_output_embeddings().bias = None
    with pytest.raises(ValueError, match="head of BertForMaskedLM has no bias to hold the freq"):
        start_from_frequencies(model, Dataset.from_dict({"input_ids": [[5]]}))


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


@pytest.mark.wide
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


def test_a_tokenizer_that_is_plainly_not_the_encoders(tmp_path):
    tiny_encoder().save_pretrained(tmp_path)
    other = word_tokenizer(words=["w0", "w1"])
    with pytest.raises(ValueError, match="knows 7 ids and the encoder has rows for 40, so it is"):
        load_model(ModelArguments(encoder=str(tmp_path)), other)
    options = ModelArguments(encoder=str(tmp_path), check_tokenizer=False)
    model = load_model(options, other)
    assert model.config.num_token_ids == 7
    model.save_pretrained(tmp_path / "generator")
    options = ModelArguments(encoder=str(tmp_path / "generator"), self_cond=True)
    assert load_model(options, other).config.num_token_ids == 7


def test_texts_the_tokenizer_does_not_know_are_reported_for_both_parts(tmp_path, tokenizer):
    (tmp_path / "train.txt").write_text("w1 w2 zz\n" * 4)
    (tmp_path / "test.txt").write_text("w1 zz qq\n" * 2)
    files = {"dataset": str(tmp_path / "train.txt"), "eval_dataset": str(tmp_path / "test.txt")}
    with pytest.raises(ValueError, match="does not know 4 of the 6 words of the texts in column"):
        load_examples(DataArguments(**files, max_length=16), tokenizer, 64, seed=0)
    options = DataArguments(**files, max_length=16, max_unknown_share=0.7)
    data = load_data(options, tokenizer, 64, seed=0)
    assert (data.train_report.words, data.train_report.unknown_words) == (12, 4)
    assert (data.held_out_report.words, data.held_out_report.unknown_words) == (6, 4)
    with pytest.raises(ValueError, match="`max_unknown_share` is a share and must lie in"):
        DataArguments(dataset="texts", max_unknown_share=1.5)


@pytest.mark.parametrize(("kind", "is_told"), [("mpnet", True), ("bert", False)])
def test_an_encoder_that_takes_a_token_of_texts_for_padding_is_told_of(kind, is_told, caplog):
    """MPNet has 1 built in, which of plain ids is one as any other."""
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    overrides = {**sizes, "intermediate_size": 8, "max_position_embeddings": 12}
    options = ModelArguments(
        encoder=kind, from_scratch=True, encoder_overrides=json.dumps(overrides)
    )
    model = load_model(options, ids_tokenizer(5))
    said = "'mpnet' takes the token '1' (id 1) for padding, whatever its configuration says"
    assert (said in caplog.text) == is_told
    row = model.get_input_embeddings().weight[1]
    assert bool((row == 0).all()) == is_told  # what it is told of: nothing is learned of it
