"""Where files lie: folders inside a checkpoint, and options that go for all that is loaded."""

import json

import pytest
from transformers import AutoConfig, AutoModel, AutoTokenizer

from hf_maskgit import MaskGitForMaskedLM
from tests.support.tiny import tiny_encoder, tiny_model, word_tokenizer


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder")
    tiny_encoder().save_pretrained(path)
    word_tokenizer().save_pretrained(path)
    return str(path)


@pytest.fixture
def old_layout(tmp_path):
    """What sentence-transformers wrote once: the encoder in a folder of its own."""
    inside = tmp_path / "0_Transformer"
    tiny_encoder().save_pretrained(inside)
    word_tokenizer().save_pretrained(inside)
    parts = [
        {"idx": 0, "name": "0", "path": "0_Transformer", "type": "models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "models.Pooling"},
    ]
    (tmp_path / "modules.json").write_text(json.dumps(parts))
    return tmp_path


@pytest.mark.parametrize("tokenizer", [None, word_tokenizer()])
def test_the_root_of_a_sentence_transformer_is_refused_and_its_folder_works(old_layout, tokenizer):
    with pytest.raises(ValueError, match=r"lies in a folder of its own: pass subfolder='0_Transf"):
        MaskGitForMaskedLM.from_encoder(str(old_layout), tokenizer=tokenizer)
    model = MaskGitForMaskedLM.from_encoder(str(old_layout), subfolder="0_Transformer")
    assert model.config.mask_token_id == 4


@pytest.mark.parametrize("parts", ["", "{}", "[1]", '[{"path": ""}]'])
def test_a_list_of_modules_that_says_nothing_is_passed_over(tmp_path, parts):
    (tmp_path / "modules.json").write_text(parts)
    with pytest.raises((OSError, ValueError), match="config.json") as caught:
        MaskGitForMaskedLM.from_encoder(str(tmp_path), tokenizer=word_tokenizer())
    assert "subfolder" not in str(caught.value)


@pytest.fixture
def loads(monkeypatch):
    """Which options everything is loaded with, by the class that loads it."""
    seen = []
    for kind in (AutoConfig, AutoModel, AutoTokenizer):
        original = kind.from_pretrained

        def spy(*args, kind=kind, original=original, **options):
            seen.append((kind.__name__, options))
            return original(*args, **options)

        monkeypatch.setattr(kind, "from_pretrained", spy)
    return seen


def test_a_critic_by_name_is_loaded_with_the_options_of_its_place(encoder, loads, tmp_path):
    tiny_encoder().save_pretrained(tmp_path)
    source = {"revision": "main", "token": "hf_x", "cache_dir": str(tmp_path / "cache")}
    model = MaskGitForMaskedLM.from_encoder(encoder, critic=str(tmp_path), **source)
    assert model.config.token_critic == "separate"
    of_critic = [options for kind, options in loads if kind == "AutoModel"]
    assert any(source.items() <= options.items() for _, options in loads)  # those of the encoder
    assert source.pop("revision") == "main"  # of the encoder, which means nothing elsewhere
    assert of_critic == [source]
    assert all(source.items() <= options.items() for kind, options in loads)


def test_a_tokenizer_of_another_name_has_no_part_in_the_encoders_revision(encoder, loads, tmp_path):
    word_tokenizer().save_pretrained(tmp_path)
    for name, expected in ((encoder, "main"), (str(tmp_path), None)):
        loads.clear()
        MaskGitForMaskedLM.from_encoder(encoder, tokenizer=name, revision="main", token="hf_x")
        options = next(options for kind, options in loads if kind == "AutoTokenizer")
        assert options["token"] == "hf_x"
        assert options.get("revision") == expected


# --- keywords ------------------------------------------------------------------------------------

ADVICE = {
    "use_cache": "it is an option of `generate` and of `generation_config`: leave it out",
    "resume_download": "downloads are always resumed: leave it out",
    "hidden_dropout_prob": r"option of the encoder: set it as config.text_config.hidden_dropout_p",
    "dtpye": "neither MaskGitConfig nor transformers has an option of that name",
}


@pytest.mark.parametrize(("name", "sentence"), ADVICE.items(), ids=list(ADVICE))
def test_a_keyword_that_nobody_takes_is_named_with_what_to_do(folder, name, sentence):
    with pytest.raises(TypeError, match=f"takes no keyword '{name}': .*{sentence}"):
        MaskGitForMaskedLM.from_pretrained(folder, **{name: 0.0})


def test_the_advice_on_an_option_of_the_encoder_works(folder):
    config = tiny_model().config.from_pretrained(folder)
    config.text_config.hidden_dropout_prob = 0.25
    model = MaskGitForMaskedLM.from_pretrained(folder, config=config)
    assert model.denoiser.bert.embeddings.dropout.p == 0.25


def test_keywords_of_old_tutorials_in_from_encoder(encoder):
    with pytest.raises(TypeError, match="from_encoder.*downloads are always resumed"):
        MaskGitForMaskedLM.from_encoder(encoder, resume_download=True)
    with pytest.raises(TypeError, match="leave `output_loading_info` out"):
        MaskGitForMaskedLM.from_encoder(encoder, output_loading_info=True)
