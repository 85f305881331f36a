"""From a pretrained encoder to a generator: what is kept, made anew, warned of and refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    logging,
)

from hf_maskgit import MaskGitForMaskedLM
from tests.support.kind_texts import masked_text
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
def tokenizer(kind):
    return tokenizer_for(kind)


@pytest.fixture(autouse=True)
def _no_progress_bars():
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


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
    with pytest.raises(ValueError, match=f"lacks 1 of the model's tensors: {lost}. "):
        MaskGitForMaskedLM.from_pretrained(tmp_path)
    caplog.clear()
    MaskGitForMaskedLM.from_pretrained(tmp_path, allow_missing_weights=True)
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


def words(count):
    return [f"w{i}" for i in range(count)]


@pytest.mark.parametrize(("num_ids", "num_rows"), [(19, 40), (7, 40), (12, 25), (6, 25), (31, 65)])
def test_a_tokenizer_that_knows_fewer_than_half_of_the_encoders_ids(num_ids, num_rows, caplog):
    encoder, tokenizer = tiny_encoder(vocab_size=num_rows), word_tokenizer(words=words(num_ids - 5))
    with pytest.raises(
        ValueError,
        match=f"knows {num_ids} ids and the encoder has rows for {num_rows}, so it is hardly the "
        "encoder's own.* Pass .* as `tokenizer=`.*check_tokenizer=False",
    ):
        MaskGitForMaskedLM.from_encoder(encoder, tokenizer=tokenizer)
    model = MaskGitForMaskedLM.from_encoder(encoder, tokenizer=tokenizer, check_tokenizer=False)
    assert model.config.num_token_ids == num_ids
    assert "is it the encoder's own" not in caplog.text


@pytest.mark.parametrize(
    ("num_ids", "num_rows", "is_warned_of"),
    [
        (33, 64, False),  # ESM's alphabet, padded
        (30, 128, True),  # padded as well, but three rows of four are nobody's
        (9, 16, False),
        (40, 40, False),
        (38, 40, False),
        (21, 40, True),
        (35, 40, False),  # padded to a multiple of eight
        (35, 41, True),
    ],
)
def test_between_the_two_a_warning_asks(num_ids, num_rows, is_warned_of, caplog):
    encoder, tokenizer = tiny_encoder(vocab_size=num_rows), word_tokenizer(words=words(num_ids - 5))
    MaskGitForMaskedLM.from_encoder(encoder, tokenizer=tokenizer)
    asked = f"tokenizer knows {num_ids} ids and the encoder has rows for {num_rows}; is it the enc"
    assert (asked in caplog.text) == is_warned_of


def test_the_tokenizer_of_an_encoder_with_more_words():
    """Told from one that has grown, for which the encoder is resized."""
    tokenizer = word_tokenizer(words=words(60))
    with pytest.raises(ValueError, match="has 65 tokens, none added later, and the encoder"):
        MaskGitForMaskedLM.from_encoder(tiny_encoder(), tokenizer=tokenizer)


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
