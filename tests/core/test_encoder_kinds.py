"""Laws that hold whatever the encoder: seven real architectures, tiny, each with a tokenizer."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    logging,
)

from hf_maskgit import DataCollatorForMaskGit, MaskGitForMaskedLM
from tests.support.support_matrix import tiny_encoder_config, tokenizer_of
from tests.support.tiny import (
    ENCODERS,
    bert_config,
    encoder_config,
    tiny_encoder,
    tiny_model,
    tokenizer_for,
    word_tokenizer,
)

KINDS = list(ENCODERS)
NEWLY_MADE_HEAD = {
    "bert": "cls.predictions",
    "roberta": "lm_head",
    "distilbert": "vocab_transform",
    "albert": "predictions",
    "electra": "generator_predictions",
    "modernbert": "head.dense",
    "esm": "lm_head",
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def model(kind):
    """Shared by the tests of one kind: never changed."""
    return tiny_model(kind)


@pytest.fixture(scope="module")
def tokenizer(kind):
    return tokenizer_for(kind)


@pytest.fixture(autouse=True)
def _no_progress_bars():
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


def texts_of(kind):
    if kind == "esm":
        return ["LAGVSERT", "MK", "QNFYMHWCLAGV"]
    return ["w1 w2 w3 w4 w5 w6", "w7 w8", "w9 w10 w11 w12 w13 w14 w15 w16 w17 w18"]


def rows_of(kind, tokenizer):
    return [torch.tensor(row) for row in tokenizer(texts_of(kind))["input_ids"]]


def training_batch(kind, tokenizer, side="right", **options):
    collator = DataCollatorForMaskGit(tokenizer, **options)
    collator.tokenizer = copy.deepcopy(tokenizer)
    collator.tokenizer.padding_side = side
    rows = rows_of(kind, tokenizer)
    return collator([{"input_ids": row, "example_id": i} for i, row in enumerate(rows)])


def masked_text(kind, tokenizer):
    """A framed text, some of whose tokens are masks, (1, L)."""
    row = rows_of(kind, tokenizer)[2].clone()
    row[[2, 3, 6]] = tokenizer.mask_token_id
    return row[None]


# --- forward -------------------------------------------------------------------------------------


def test_the_head_at_some_positions_equals_the_whole_head(kind, model, tokenizer):
    text = masked_text(kind, tokenizer).repeat(2, 1)
    text[1, 1] = tokenizer.mask_token_id
    masked = text == tokenizer.mask_token_id
    full = model(input_ids=text).logits
    assert full.shape == (*text.shape, model.config.text_config.vocab_size)
    some = model(input_ids=text, masked_positions=masked).logits
    assert some.shape == (7, full.shape[-1])
    assert torch.allclose(some, full[masked], atol=1e-5)
    assert not torch.allclose(some, full[masked].roll(1, 0), atol=0.1), "any order would pass"


def test_every_weight_learns(kind, tokenizer):
    model = tiny_model(kind).train()
    model(**training_batch(kind, tokenizer)).loss.backward()
    assert [n for n, p in model.named_parameters() if p.grad is None and p.requires_grad] == []
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
    assert sum(float(p.grad.abs().sum()) for p in model.parameters() if p.grad is not None) > 0


def test_one_step_down_the_gradient_lowers_the_loss(kind, tokenizer):
    model, batch = tiny_model(kind), training_batch(kind, tokenizer)
    before = model(**batch).loss
    before.backward()
    size = sum(float((p.grad**2).sum()) for p in model.parameters() if p.grad is not None)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 1e-3 / size * parameter.grad
    fall = (before - model(**batch).loss).item()
    assert fall == pytest.approx(1e-3, rel=0.2)


def test_gradient_checkpointing_changes_nothing(kind, tokenizer):
    model, batch = tiny_model(kind).train(), training_batch(kind, tokenizer)
    if not model.denoiser.supports_gradient_checkpointing:
        with pytest.raises(ValueError, match="does not support activation checkpointing"):
            model.activation_checkpointing_enable()
        return
    gradients = []
    for enabled in (False, True):
        if enabled:
            model.activation_checkpointing_enable({"use_reentrant": False})
            assert model.is_activation_checkpointing
        model.zero_grad()
        model(**batch).loss.backward()
        gradients.append([None if p.grad is None else p.grad.clone() for p in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        assert (plain is None) == (checkpointed is None)
        assert plain is None or torch.allclose(plain, checkpointed, atol=1e-6)


def test_changing_a_hidden_token_changes_no_logit(kind, model, tokenizer):
    collator = DataCollatorForMaskGit(tokenizer, corruption_prob=0.0)
    features = [
        {"input_ids": row, "example_id": i} for i, row in enumerate(rows_of(kind, tokenizer))
    ]
    batch = collator(features)
    row, column = (batch["input_ids"] == tokenizer.mask_token_id).nonzero()[0].tolist()
    features[row]["input_ids"][column] = 25
    other = collator(features)
    assert other["labels"][row, column] == 25 != batch["labels"][row, column]
    assert torch.equal(model(**other).logits, model(**batch).logits)
    assert not torch.equal(model(**other).loss, model(**batch).loss)


# --- padding -------------------------------------------------------------------------------------


def test_padding_changes_no_loss(kind, model, tokenizer):
    for side in ("right", "left"):
        batch = training_batch(kind, tokenizer, side)
        wide = training_batch(kind, tokenizer, side, pad_to_multiple_of=32)
        assert wide["input_ids"].shape[1] == 32 > batch["input_ids"].shape[1]
        alone = sum(
            model(
                **{k: v[i : i + 1, batch["attention_mask"][i].bool()] for k, v in batch.items()},
                num_items_in_batch=(batch["labels"] != -100).sum(),
            ).loss.item()
            for i in range(3)
        )
        assert model(**batch).loss.item() == pytest.approx(alone, rel=1e-5)
        assert model(**wide).loss.item() == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_changes_no_generated_text(kind, tokenizer, side):
    """In float64, so that the last bits of a padded matrix product turn no draw."""
    model, mask = tiny_model(kind).double(), tokenizer.mask_token_id
    pad = tokenizer.pad_token_id
    rows = rows_of(kind, tokenizer)
    for row in rows:
        row[1] = mask
    batch = pad_sequence(rows, True, pad, padding_side=side)
    options = {"max_new_tokens": 4, "steps": 4}
    together = model.generate(batch, (batch != pad).long(), seed=[1, 2, 3], **options)
    for i, row in enumerate(rows):
        alone = model.generate(row[None], seed=[i + 1], **options)[0].tolist()
        filler = [pad] * (batch.shape[1] - len(row))
        assert together[i].tolist() == (filler + alone if side == "left" else alone + filler)


# --- generation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["top_probability", "confidence", "random"])
def test_generation_fills_every_mask_and_changes_nothing_else(kind, model, tokenizer, order):
    text, config = masked_text(kind, tokenizer), model.config
    masked = text == config.mask_token_id
    out = model.generate(text, order=order, anneal_temperature=False, num_return_sequences=4)
    filled = out[:, masked[0]]
    emittable = set(range(config.num_token_ids)) - set(tokenizer.all_special_ids)
    assert set(filled.flatten().tolist()) <= emittable
    assert torch.equal(out[:, ~masked[0]], text[:, ~masked[0]].expand(4, -1))
    assert len(filled.unique(dim=0)) > 1, "four draws of three tokens were all equal"


def test_generation_takes_what_the_tokenizer_gives(kind, model, tokenizer):
    encoded = tokenizer(texts_of(kind), padding=True, return_tensors="pt")
    out = model.generate(**encoded, max_new_tokens=5)
    assert out.shape == (3, encoded["input_ids"].shape[1] + 5)
    assert len(tokenizer.batch_decode(out, skip_special_tokens=True)) == 3


def test_generation_from_nothing(kind, model, tokenizer):
    out = model.generate(max_new_tokens=6, suppress_tokens=[model.config.eos_token_id])
    frame = tokenizer("")["input_ids"]
    assert out[0, [0, -1]].tolist() == frame
    assert out.shape == (1, 8)


def test_greedy_infilling_is_that_of_the_plain_encoder(kind, model, tokenizer):
    """One mask, no drawing: the argmax of the encoder's own logits over what may be emitted."""
    text = rows_of(kind, tokenizer)[2][None]
    text[0, 4] = tokenizer.mask_token_id
    with torch.no_grad():
        logits = model.denoiser(input_ids=text).logits[0, 4]
    logits[tokenizer.all_special_ids] = -torch.inf
    assert int(model.generate(text, do_sample=False)[0, 4]) == int(logits.argmax())


def test_the_longest_text_the_encoder_takes(kind, model, tokenizer):
    limit = model.max_positions
    assert limit == 64
    first, last = tokenizer("")["input_ids"]
    longest = torch.tensor([[first, *[20] * (limit - 3), tokenizer.mask_token_id, last]])
    assert model.generate(longest).shape == (1, limit)
    with pytest.raises(ValueError, match="comes to 65 tokens"):
        model.generate(longest, max_new_tokens=1)


# --- checkpoints ---------------------------------------------------------------------------------


def test_a_saved_model_loads_bit_for_bit(kind, model, tokenizer, tmp_path):
    model.save_pretrained(tmp_path)
    text = masked_text(kind, tokenizer)
    expected = model(input_ids=text).logits
    for auto in (MaskGitForMaskedLM, AutoModelForMaskedLM, AutoModelForCausalLM):
        loaded, info = auto.from_pretrained(tmp_path, output_loading_info=True)
        assert type(loaded) is MaskGitForMaskedLM
        assert not loaded.training
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        assert torch.equal(loaded(input_ids=text).logits, expected)
        assert torch.equal(loaded.generate(text, seed=3), model.generate(text, seed=3))


def test_tied_weights_stay_tied(kind, model, tmp_path):
    model.save_pretrained(tmp_path)
    for tied in (model, MaskGitForMaskedLM.from_pretrained(tmp_path)):
        assert tied.config.tie_word_embeddings
        assert tied.get_output_embeddings().weight is tied.get_input_embeddings().weight


def test_a_resized_model_reloads(kind, tmp_path, tokenizer):
    model, text = tiny_model(kind), masked_text(kind, tokenizer)
    before = model(input_ids=text).logits
    model.resize_token_embeddings(48, mean_resizing=False)
    assert model.config.get_text_config().vocab_size == 48
    after = model(input_ids=text).logits
    assert after.shape[-1] == 48
    assert torch.allclose(after[..., : before.shape[-1]], before, atol=1e-5)
    model.save_pretrained(tmp_path)
    loaded = MaskGitForMaskedLM.from_pretrained(tmp_path)
    assert torch.equal(loaded(input_ids=text).logits, after)
    assert loaded.generate(text, seed=0).shape == text.shape


# --- from a pretrained encoder -------------------------------------------------------------------


@pytest.fixture
def saved_encoder(kind, tokenizer, tmp_path):
    """A folder as one would download it: a plain masked-LM model and its tokenizer."""
    encoder = tiny_encoder(kind)
    encoder.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return encoder, str(tmp_path)


def test_from_encoder_keeps_every_logit(kind, saved_encoder, tokenizer):
    encoder, folder = saved_encoder
    model = MaskGitForMaskedLM.from_encoder(folder)
    assert not model.training
    text = masked_text(kind, tokenizer)
    assert torch.equal(model(input_ids=text).logits, encoder(input_ids=text).logits)
    assert model.config.mask_token_id == tokenizer.mask_token_id
    assert model.config.prefix_ids == tokenizer("")["input_ids"][:1]
    assert model.config.forbidden_token_ids == tiny_model(kind).config.forbidden_token_ids


def test_a_loaded_encoder_is_wrapped_as_it_is(kind, tokenizer):
    encoder, text = tiny_encoder(kind), masked_text(kind, tokenizer)
    expected = encoder(input_ids=text).logits
    model = MaskGitForMaskedLM.from_encoder(encoder, tokenizer=tokenizer, schedule="cosine")
    assert model.denoiser is encoder
    assert model.config.schedule == "cosine"
    assert model.config.text_config is encoder.config
    assert torch.equal(model(input_ids=text).logits, expected)


def test_an_encoder_with_a_layer_of_ones_own_keeps_it():
    """Modules that transformers did not make itself must not be drawn anew."""
    encoder = tiny_encoder()
    encoder.bert.encoder.layer[0].attention.self.query = torch.nn.Linear(32, 32)
    text = torch.tensor([[2, 4, 7, 3]])
    expected = encoder(input_ids=text).logits
    model = MaskGitForMaskedLM.from_encoder(encoder, tokenizer=word_tokenizer())
    assert torch.equal(model(input_ids=text).logits, expected)


def test_a_headless_checkpoint_gets_a_new_head_and_a_warning(kind, tokenizer, tmp_path, caplog):
    body = AutoModel.from_config(encoder_config(kind)).eval()
    body.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = MaskGitForMaskedLM.from_encoder(str(tmp_path))
    (warning,) = [r.getMessage() for r in caplog.records if "LM head" in r.getMessage()]
    assert "Newly initialised" in warning
    assert NEWLY_MADE_HEAD[kind] in warning
    square = [
        parameter
        for name, parameter in model.denoiser.named_parameters()
        if name in warning and parameter.ndim == 2 and len(set(parameter.shape)) == 1
    ]
    assert all(torch.equal(weight, torch.eye(len(weight))) for weight in square)
    own = dict(model.denoiser.base_model.named_parameters())
    assert own
    assert own.keys() <= dict(body.named_parameters()).keys()
    for name, parameter in body.named_parameters():
        if name in own:
            assert torch.equal(own[name], parameter), name
    text = masked_text(kind, tokenizer)
    hidden = model(input_ids=text, output_hidden_states=True).hidden_states[-1]
    assert torch.allclose(hidden, body(input_ids=text)[0], atol=1e-6)


def _saved_by_auto_model(body, folder):
    body.save_pretrained(folder)
    return {}


def _saved_by_sentence_transformers(body, folder):
    """Their layout: the body at the root, and what they do with its output around it."""
    body.save_pretrained(folder)
    parts = ["Transformer", "Pooling", "Normalize"]
    modules = [
        {
            "idx": i,
            "path": f"{i}_{part}" if i else "",
            "type": f"sentence_transformers.models.{part}",
        }
        for i, part in enumerate(parts)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 64}))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32}))
    return {}


def _saved_in_a_subfolder(body, folder):
    """As their first releases did."""
    body.save_pretrained(folder / "0_Transformer")
    word_tokenizer().save_pretrained(folder / "0_Transformer")
    return {"subfolder": "0_Transformer"}


def _saved_by_hand(body, folder):
    """Bare weights, and a configuration that names no class."""
    config = body.config.to_diff_dict()
    config.pop("architectures", None)
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    save_file(body.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    return {}


@pytest.mark.parametrize(
    "save",
    [_saved_by_auto_model, _saved_by_sentence_transformers, _saved_in_a_subfolder, _saved_by_hand],
)
def test_every_form_of_a_headless_checkpoint(save, tmp_path, caplog):
    body = AutoModel.from_config(bert_config())
    assert "pooler.dense.weight" in body.state_dict()
    options = save(body, tmp_path)
    if not options:
        word_tokenizer().save_pretrained(tmp_path)
    model = MaskGitForMaskedLM.from_encoder(str(tmp_path), **options)
    (warning,) = [r.getMessage() for r in caplog.records if "LM head" in r.getMessage()]
    assert "cls.predictions.transform.dense.weight" in warning
    assert "pooler" not in warning
    saved = body.state_dict()
    own = model.denoiser.base_model.state_dict()
    assert len(own) == len(saved) - 2
    assert all(torch.equal(own[name], saved[name]) for name in own)


def _without(folder, *names):
    """Rewrite the checkpoint without some of its weights."""
    weights = load_file(folder / "model.safetensors")
    for name in names:
        del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_missing_pooler_is_nobodys_concern(tmp_path, caplog):
    """BigBird's masked-LM model has one and never asks it."""
    encoder = AutoModelForMaskedLM.from_config(tiny_encoder_config("big_bird"))
    encoder.save_pretrained(tmp_path)
    _without(tmp_path, "bert.pooler.weight", "bert.pooler.bias")
    MaskGitForMaskedLM.from_encoder(str(tmp_path), tokenizer=tokenizer_of("big_bird"))
    assert "Newly initialised" not in caplog.text


def test_a_missing_weight_of_the_body_is_refused(tmp_path):
    tiny_encoder().save_pretrained(tmp_path)
    lost = "bert.encoder.layer.1.output.dense.weight"
    _without(tmp_path, lost)
    with pytest.raises(ValueError, match=f"itself, 1 in all, such as {lost}; it does"):
        MaskGitForMaskedLM.from_encoder(str(tmp_path), tokenizer=word_tokenizer())


def test_a_missing_weight_of_a_generator_is_named(tmp_path, caplog):
    tiny_model().save_pretrained(tmp_path)
    lost = "denoiser.bert.encoder.layer.1.output.dense.weight"
    _without(tmp_path, lost)
    MaskGitForMaskedLM.from_pretrained(tmp_path)
    (report,) = [r for r in caplog.records if lost in r.getMessage()]
    assert report.levelname == "WARNING"
    assert "MISSING" in report.getMessage()


def test_esm_keeps_its_view_of_the_mask(tmp_path):
    """Its scale is 1 where 12 % of the tokens are masks: 3 of 25. There all logits stay the same.

    Only the mask's own column differs: the embedding that becomes zero is also its row in the head.
    """
    encoder, tokenizer = tiny_encoder("esm", token_dropout=True), tokenizer_for("esm")
    text = torch.tensor([tokenizer("LAGVSERTIDPKQNFYMHWCLAG")["input_ids"]])
    text[0, [3, 10, 20]] = tokenizer.mask_token_id
    assert text.shape == (1, 25)
    expected = encoder(input_ids=text).logits.detach()
    encoder.save_pretrained(tmp_path)
    model = MaskGitForMaskedLM.from_encoder(str(tmp_path), tokenizer=tokenizer)
    logits = model(input_ids=text).logits
    others = [i for i in range(33) if i != tokenizer.mask_token_id]
    assert torch.allclose(logits[..., others], expected[..., others], atol=1e-5)
    assert model.config.text_config.token_dropout is False
    fully_masked = torch.full((1, 9), tokenizer.mask_token_id)
    assert bool(model(input_ids=fully_masked).logits.isfinite().all())
    model.save_pretrained(tmp_path / "own")
    reloaded = MaskGitForMaskedLM.from_pretrained(tmp_path / "own")
    assert torch.equal(reloaded(input_ids=text).logits, logits)


def test_options_of_the_config_and_of_loading_part_ways(tmp_path):
    tiny_encoder().save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    model = MaskGitForMaskedLM.from_encoder(
        str(tmp_path),
        schedule="cosine",
        corruption_prob=0.0,
        dtype=torch.bfloat16,
        attn_implementation="eager",
    )
    assert (model.config.schedule, model.config.corruption_prob) == ("cosine", 0.0)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.denoiser.config._attn_implementation == "eager"


def test_a_tokenizer_of_ones_own_goes_before_the_encoders(tmp_path):
    tiny_encoder().save_pretrained(tmp_path)
    tokenizer = word_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    other = AutoTokenizer.from_pretrained(tmp_path)
    other.mask_token = "w30"
    model = MaskGitForMaskedLM.from_encoder(str(tmp_path), tokenizer=other)
    assert model.config.mask_token_id == other.mask_token_id != tokenizer.mask_token_id


# --- from_encoder refuses ------------------------------------------------------------------------


def test_an_unknown_option(tmp_path):
    with pytest.raises(
        TypeError, match="has no option 'foo' for a loaded model; options of MaskGi"
    ):
        MaskGitForMaskedLM.from_encoder(tiny_encoder(), tokenizer=word_tokenizer(), foo=1)
    tiny_encoder().save_pretrained(tmp_path)
    with pytest.raises(TypeError, match="'foo'"):
        MaskGitForMaskedLM.from_encoder(str(tmp_path), tokenizer=word_tokenizer(), foo=1)


def test_a_misspelt_option_of_the_config(tmp_path):
    tiny_encoder().save_pretrained(tmp_path)
    with pytest.raises(TypeError, match="knows an option .*'corruption_probs'.*corruption_prob, "):
        MaskGitForMaskedLM.from_encoder(
            str(tmp_path), tokenizer=word_tokenizer(), corruption_probs=0.0
        )


def test_a_tokenizer_by_its_name(tmp_path):
    word_tokenizer().save_pretrained(tmp_path)
    model = MaskGitForMaskedLM.from_encoder(tiny_encoder(), tokenizer=str(tmp_path))
    assert model.config.mask_token_id == word_tokenizer().mask_token_id


def test_a_tokenizer_that_knows_few_of_the_encoders_ids(caplog):
    tokenizer = word_tokenizer(words=["w0", "w1"])
    MaskGitForMaskedLM.from_encoder(tiny_encoder(), tokenizer=tokenizer)
    assert "The tokenizer knows 7 ids and the encoder has rows for 40; is it the" in caplog.text


def test_whole_numbers_are_probabilities_too():
    model = MaskGitForMaskedLM.from_encoder(
        tiny_encoder(), tokenizer=word_tokenizer(), corruption_prob=0, critic_loss_weight=2
    )
    assert model.config.corruption_prob == 0
    with pytest.raises(ValueError, match=r"`corruption_prob` is a probability and must lie in"):
        MaskGitForMaskedLM.from_encoder(
            tiny_encoder(), tokenizer=word_tokenizer(), corruption_prob=2
        )


def test_another_encoders_configuration():
    with pytest.raises(
        TypeError, match="takes the encoder's own configuration; to change it, load"
    ):
        MaskGitForMaskedLM.from_encoder(
            tiny_encoder(), tokenizer=word_tokenizer(), text_config=bert_config()
        )


def test_a_loaded_model_without_a_tokenizer():
    with pytest.raises(
        ValueError, match="Pass `tokenizer=`: a loaded model does not say which ids"
    ):
        MaskGitForMaskedLM.from_encoder(tiny_encoder())


def test_a_tokenizer_without_a_mask():
    tokenizer = word_tokenizer()
    tokenizer.mask_token = None
    with pytest.raises(ValueError, match="has no mask token"):
        MaskGitForMaskedLM.from_encoder(tiny_encoder(), tokenizer=tokenizer)


def test_a_tokenizer_that_has_outgrown_the_encoder():
    tokenizer = word_tokenizer()
    tokenizer.add_tokens(["new"])
    with pytest.raises(ValueError, match="vocabulary"):
        MaskGitForMaskedLM.from_encoder(tiny_encoder(), tokenizer=tokenizer)
    tokenizer = word_tokenizer()
    tokenizer.add_special_tokens({"mask_token": "<another mask>"})
    with pytest.raises(ValueError, match="vocabulary"):
        MaskGitForMaskedLM.from_encoder(tiny_encoder(), tokenizer=tokenizer)


def test_a_mask_token_that_the_tokenizer_does_not_know():
    """Named but never added, it would be the unknown token: every rare word would be a mask."""
    tokenizer = word_tokenizer()
    tokenizer.mask_token = "<another mask>"
    assert tokenizer.mask_token_id == tokenizer.unk_token_id
    with pytest.raises(ValueError, match="mask token"):
        MaskGitForMaskedLM.from_encoder(tiny_encoder(), tokenizer=tokenizer)


def test_a_checkpoint_of_another_architecture(tmp_path):
    tiny_encoder("bert").save_pretrained(tmp_path)
    encoder_config("roberta").save_pretrained(tmp_path)  # over BERT's weights
    with pytest.raises(
        ValueError,
        match=r"lacks weights of the encoder itself, \d+ in all, such as roberta\.emb.*"
        "it does not hold a RobertaForMaskedLM",
    ):
        MaskGitForMaskedLM.from_encoder(str(tmp_path), tokenizer=tokenizer_for("roberta"))


def test_a_checkpoint_that_is_no_masked_language_model(tmp_path):
    GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=8, n_layer=1, n_head=1)).save_pretrained(
        tmp_path
    )
    with pytest.raises(ValueError, match="is a 'gpt2', which transformers does not load as a mask"):
        MaskGitForMaskedLM.from_encoder(str(tmp_path), tokenizer=word_tokenizer())


@pytest.mark.parametrize("auto", [AutoModel, AutoModelForSequenceClassification])
def test_a_loaded_model_that_predicts_no_tokens(auto):
    encoder = auto.from_config(bert_config())
    with pytest.raises(ValueError, match=type(encoder).__name__):
        MaskGitForMaskedLM.from_encoder(encoder, tokenizer=word_tokenizer())


@pytest.mark.parametrize("loaded", [False, True])
def test_a_generator_is_no_encoder(tmp_path, loaded):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="from_pretrained"):
        MaskGitForMaskedLM.from_encoder(
            model if loaded else str(tmp_path), tokenizer=word_tokenizer()
        )
