"""Loading for programs: whatever is wrong with a folder is a sentence, and nothing of it runs."""

import json
import logging
import shutil

import pytest
import torch

from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.hub.card import GeneratorCard
from hf_maskgit.hub.loading import (
    identity_of,
    load_generator,
    load_model,
    load_tokenizer,
    short_name,
)
from tests.support.tiny import tiny_encoder, word_tokenizer
from tests.support.tiny_training import assert_same_weights


@pytest.fixture
def copy(folder, tmp_path):
    """A saved generator to be damaged."""
    return shutil.copytree(folder, tmp_path / "copy")


def test_a_generator_comes_with_its_tokenizer(folder):
    model, tokenizer = load_generator(folder)
    assert not model.training
    assert tokenizer.get_vocab() == word_tokenizer().get_vocab()


def test_a_model_is_known_by_its_files_wherever_they_lie(folder, copy):
    model, _ = load_generator(folder)
    assert identity_of(copy, model) == identity_of(str(folder), model)
    for beside in ("README.md", "test.json", "metrics.json", "texts.txt", "curves.png"):
        (copy / beside).write_text("What lies beside a model decides nothing.")
    assert identity_of(copy, model) == identity_of(folder, model)
    for decides in ("pytorch_model.bin", "generation_config.json", "vocab.txt", "tokenizer.json"):
        before = (copy / decides).read_bytes() if (copy / decides).exists() else None
        (copy / decides).write_bytes((before or b"") + b" ")
        assert identity_of(copy, model) != identity_of(folder, model), decides
        (copy / decides).unlink() if before is None else (copy / decides).write_bytes(before)
    with (copy / "model.safetensors").open("ab") as weights:
        weights.write(b"!")
    assert identity_of(copy, model) != identity_of(folder, model)
    model.config._commit_hash = "abc"
    assert identity_of("me/verses", model) == "me/verses@abc"


def test_a_model_has_a_name_wherever_one_stands(tmp_path, monkeypatch):
    inside = tmp_path / "verses" / "best"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    named = ("me/verses", "runs/verses/", "..", tmp_path / "verses", "verses")
    assert {short_name(name) for name in named} == {"verses"}
    assert short_name(".") == "best"
    assert (
        GeneratorCard(
            model_id=".", encoder="e", training_data="d", masked_example="m", prompt_example="p"
        ).name
        == "best"
    )


def test_places_where_there_is_no_generator(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="There is no folder '.*nowhere'; check the path and the "):
        load_generator(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="There is no folder './nowhere'"):
        load_tokenizer("./nowhere")
    with pytest.raises(ValueError, match="config.json' is a file; name the folder that holds"):
        load_model(folder / "config.json")
    with pytest.raises(ValueError, match="'nowhere' cannot be loaded: .*"):
        load_model("nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ValueError,
        match="'empty' cannot be loaded: 'empty' has no config.json that describes a model.",
    ):
        load_model("empty")
    tiny_encoder().save_pretrained("encoder")
    with pytest.raises(ValueError, match="'encoder' is a checkpoint of type 'bert', not 'maskgit'"):
        load_model("encoder")
    with pytest.raises(
        ValueError, match="'encoder' holds no tokenizer, without which nobody .*save"
    ):
        load_tokenizer("encoder")


@pytest.mark.parametrize("name", ["tokenizer_config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff{}", b"\xef\xbb\xbf{}"])
def test_an_unreadable_file_of_the_tokenizer_is_named(copy, name, content):
    (copy / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"copy/{name}' (cannot be read as JSON|must hold)"):
        load_tokenizer(copy)


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("tokenizer.json", {"model": {"type": "nothing"}}, "no tokenizer that can be loaded"),
        ("tokenizer.json", {"added_tokens": 3}, "no tokenizer that can be loaded"),
        ("tokenizer_config.json", {"auto_map": 3}, "no tokenizer that can be loaded"),
        (
            "tokenizer_config.json",
            {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}},
            "wants code of its own to be run .*`auto_map` in 'tokenizer_config.json'.*",
        ),
    ],
)
def test_a_tokenizer_that_cannot_be_made_is_told_in_a_sentence(copy, name, changes, said):
    values = json.loads((copy / name).read_text()) | changes
    (copy / name).write_text(json.dumps(values))
    with pytest.raises(ValueError, match=said):
        load_tokenizer(copy)


@pytest.fixture
def encoder(tmp_path):
    """An ordinary encoder as one would download it."""
    tiny_encoder().save_pretrained(tmp_path / "encoder")
    word_tokenizer().save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


def test_an_encoder_is_taken_where_a_generator_is(encoder, caplog):
    caplog.set_level(logging.INFO, "hf_maskgit")
    model, tokenizer = load_generator(encoder, device_map="cpu")
    assert caplog.messages == [
        f"{str(encoder)!r} is an encoder of type 'bert': it is used as a generator as it is, with "
        "its own tokenizer and without any training as one."
    ]
    wrapped = MaskGitForMaskedLM.from_encoder(str(encoder), tokenizer=tokenizer)
    assert_same_weights(model.state_dict(), wrapped.state_dict())
    assert model.config.to_dict() == wrapped.config.to_dict()
    assert not model.training


def test_an_encoder_without_a_head_gets_the_same_new_one_every_time(encoder, caplog):
    tiny_encoder().bert.save_pretrained(encoder)
    before = torch.get_rng_state()
    one, other = (load_generator(encoder)[0] for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert_same_weights(one.state_dict(), other.state_dict())
    assert "comes without a complete LM head" in caplog.text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "gpt2"}, "is a 'gpt2', which transformers does not load as a masked LM"),
        ({"model_type": "no_such"}, "of type 'no_such' cannot be loaded: "),
        ({"model_type": 3}, "is a checkpoint of type 3, not 'maskgit'"),
        ({"hidden_size": 33}, "of type 'bert' cannot be loaded: .*33"),
        ({"hidden_size": "many"}, "holds no tokenizer that can be loaded"),
    ],
)
def test_an_encoder_that_cannot_be_a_generator_is_refused_in_a_sentence(encoder, changes, said):
    values = json.loads((encoder / "config.json").read_text()) | changes
    (encoder / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=said):
        load_generator(encoder)


def test_an_encoder_runs_no_code_of_its_folder(encoder, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was asked"))
    values = json.loads((encoder / "config.json").read_text())
    own = {"AutoConfig": "own.Config", "AutoModelForMaskedLM": "own.Model"}
    for kind, loads in (("bert", True), ("own", False)):
        changed = {**values, "model_type": kind, "auto_map": own}
        (encoder / "config.json").write_text(json.dumps(changed))
        if loads:  # transformers knows it itself
            assert load_generator(encoder)[0].config.get_text_config().model_type == "bert"
            continue
        with pytest.raises(ValueError, match="'own' cannot be loaded|wants code of its own|holds"):
            load_generator(encoder)
