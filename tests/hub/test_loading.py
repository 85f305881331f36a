"""Loading for programs: whatever is wrong with a folder is a sentence, and nothing of it runs."""

import json
import shutil

import pytest

from hf_maskgit.hub.loading import load_generator, load_model, load_tokenizer
from tests.support.tiny import tiny_encoder, word_tokenizer


@pytest.fixture
def copy(folder, tmp_path):
    """A saved generator to be damaged."""
    return shutil.copytree(folder, tmp_path / "copy")


def test_a_generator_comes_with_its_tokenizer(folder):
    model, tokenizer = load_generator(folder)
    assert not model.training
    assert tokenizer.get_vocab() == word_tokenizer().get_vocab()


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
