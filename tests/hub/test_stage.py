"""What is checked before a push, and the card that goes along.

None of this reaches a Hub (the tests run offline); tests/hub/test_push.py pushes to one.
"""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from huggingface_hub import ModelCard
from huggingface_hub.utils import filter_repo_objects
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hf_maskgit.hub import push as hub
from hf_maskgit.hub.card import GeneratorCard, write_model_card
from hf_maskgit.hub.push import HubError, Push, publish, stage
from tests.support.tiny import tiny_model, word_tokenizer

pytestmark = pytest.mark.usefixtures("_nobody_is_logged_in")


@pytest.mark.wide
def test_a_model_that_changes_on_the_way_is_not_pushed(folder, tmp_path, monkeypatch, no_process):
    answers = hub.answers_in_a_fresh_process
    changed = lambda *args, **kwargs: {**answers(*args, **kwargs), "the logits": "others"}  # noqa: E731
    monkeypatch.setattr(hub, "answers_in_a_fresh_process", changed)
    with pytest.raises(HubError, match="Nothing was pushed: .* differs in the logits. It holds"):
        stage(Push(folder=folder, repo_id="me/verses"), tmp_path)


def test_a_process_that_fails_is_told_in_its_last_words(folder, tmp_path, monkeypatch):
    def fails(*args, **kwargs):
        raise RuntimeError("'x' does not load in a fresh process: last words")

    monkeypatch.setattr(hub, "answers_in_a_fresh_process", fails)
    with pytest.raises(HubError, match="Nothing was pushed. 'x' does not load .*: last words"):
        stage(Push(folder=folder, repo_id="me/verses"), tmp_path)


@pytest.mark.wide
def test_options_that_change_what_generate_returns_are_no_obstacle(tmp_path, no_process):
    here, staged = tmp_path / "here", tmp_path / "staged"
    staged.mkdir()
    model = tiny_model()
    model.generation_config.return_dict_in_generate = True
    model.generation_config.num_return_sequences = 3
    model.save_pretrained(here)
    word_tokenizer().save_pretrained(here)
    files = stage(Push(folder=here, repo_id="me/verses"), staged)
    assert staged / "README.md" in files
    kept = json.loads((staged / "generation_config.json").read_text())
    assert kept["num_return_sequences"] == 3


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Error while uploading 'model.safetensors' to the Hub."),
        PermissionError("the upload's own token has run out"),
        TimeoutError("timed out"),
    ],
)
def test_an_upload_that_is_cut_off_says_how_to_push_later(folder, monkeypatch, error):
    """What sends large files has no errors of the Hub's kind: torn connections are any of these."""

    def cut_off(*args, **kwargs):
        raise error from ConnectionResetError("reset by peer")

    monkeypatch.setattr(hub, "check_access", lambda name: name)
    monkeypatch.setattr(hub, "stage", lambda push, folder: [])
    monkeypatch.setattr(hub, "open_repository", lambda name, private: name)
    monkeypatch.setattr(hub.HfApi, "list_repo_files", lambda *args, **kwargs: [])
    monkeypatch.setattr(hub.HfApi, "upload_folder", cut_off)
    said = r"broke off \(.* reset by peer\)\. .* safe in .*hf-maskgit push .* --repo_id me/verses"
    with pytest.raises(HubError, match=said):
        publish(Push(folder=folder, repo_id="me/verses"))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("os")])
def test_a_place_without_room_for_what_is_sent_says_so(folder, tmp_path, monkeypatch, error):
    def full(*args, **kwargs):
        raise error

    monkeypatch.setattr(hub.MaskGitForMaskedLM, "save_pretrained", full)
    with pytest.raises(HubError, match=r"cannot be written to .* \(.*\)\. Make room .* TMPDIR"):
        stage(Push(folder=folder, repo_id="me/verses"), tmp_path)


def test_weights_of_a_former_push_go_and_nothing_else():
    gone = {
        "model.safetensors",
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "a[1].safetensors",
    }
    stays = {"README.md", "config.json", "others/model.safetensors", "adapter/x.json", "a1.bin"}
    patterns = hub.replaced(sorted(gone | stays))
    chosen = filter_repo_objects(sorted(gone | stays), allow_patterns=patterns)
    assert set(chosen) == gone
    assert hub.replaced(["README.md"]) == []


def test_a_push_at_the_end_of_training_says_how_to_push_later(folder, no_process):
    push = Push(folder=folder, repo_id="me/verses")
    with pytest.raises(HubError, match="no token .* safe in .*hf-maskgit push .* --repo_id me/ver"):
        publish(push)


@pytest.mark.wide
def test_a_missing_card_is_made_and_what_it_lacks_is_said(folder, tmp_path, no_process, caplog):
    stage(Push(folder=folder, repo_id="me/verses"), tmp_path)
    said = [record.getMessage() for record in caplog.records]
    assert any("a card was made from the configuration" in line for line in said)
    assert any("The card names no licence" in line for line in said)
    card = ModelCard.load(tmp_path / "README.md")
    assert "an encoder of the type `bert`" in card.text
    assert 'pipeline("infilling", model="me/verses")' in card.text
    assert not (folder / "README.md").exists()


@pytest.mark.wide
def test_the_card_of_the_training_is_sent_with_the_new_address(tmp_path, no_process, caplog):
    here, staged = tmp_path / "here", tmp_path / "staged"
    staged.mkdir()
    tiny_model().save_pretrained(here)
    word_tokenizer().save_pretrained(here)
    card = GeneratorCard(
        model_id="here",
        encoder="some-encoder",
        training_data="Verses of a book.",
        masked_example="w1 [MASK]",
        prompt_example="w1",
        license="mit",
    )
    write_model_card(here, card)
    (here / "README.md").write_text((here / "README.md").read_text() + "\nWritten by hand.\n")
    stage(Push(folder=here, repo_id="me/verses", branch="best"), staged)
    sent = (staged / "README.md").read_text()
    assert 'AutoTokenizer.from_pretrained("me/verses", revision="best")' in sent
    assert sent.endswith("Written by hand.\n")
    assert not caplog.records
    write_model_card(here, replace(card, model_id="me/verses"))
    expected = (here / "README.md").read_text()
    again = sent.replace(', revision="best"', "").replace("\nWritten by hand.\n", "")
    assert again.strip() == expected.strip()


@pytest.mark.wide
def test_the_picture_that_the_card_shows_is_sent_if_it_is_one(tmp_path, no_process):
    here, secret = tmp_path / "here", tmp_path / "secret.png"
    tiny_model().save_pretrained(here)
    word_tokenizer().save_pretrained(here)
    secret.write_bytes(hub._PNG + b"of somebody else")
    card = GeneratorCard(
        model_id="here",
        encoder="some-encoder",
        training_data="Verses.",
        masked_example="w1 [MASK]",
        prompt_example="w1",
        license="mit",
    )

    push = Push(folder=here, repo_id="me/verses")
    picture, staged = here / "curves.png", tmp_path / "staged"
    picture.write_bytes(hub._PNG + b"rest")
    write_model_card(here, replace(card, curves="curves.png"))
    staged.mkdir()
    assert staged / "curves.png" in stage(push, staged)
    assert (staged / "curves.png").read_bytes() == picture.read_bytes()

    def is_sent():
        (staged / "curves.png").unlink(missing_ok=True)
        hub._stage_curves(push, staged)
        return (staged / "curves.png").exists()

    assert is_sent()
    write_model_card(staged, card)
    assert not is_sent(), "the card does not show it"
    write_model_card(staged, replace(card, curves="curves.png"))
    assert is_sent()
    picture.write_bytes(b"no picture")
    assert not is_sent()
    picture.unlink()
    assert not is_sent()
    picture.symlink_to(secret)
    assert not is_sent(), "it lies elsewhere"


@pytest.mark.wide
def test_adapters_beside_a_model_are_sent_or_refused(folder, tmp_path, no_process):
    own = shutil.copytree(folder, tmp_path / "own")
    adapter, push = own / "adapter", Push(folder=own, repo_id="me/verses")
    adapter.mkdir()
    weights = {"base_model.model.a.lora_A.weight": torch.ones(2, 3)}
    save_file(weights, adapter / "adapter_model.safetensors")
    config = adapter / "adapter_config.json"
    config.write_text('{"peft_type": "LORA", "r": 2}')
    (adapter / "own.py").write_text("print()")
    (tmp_path / "staged").mkdir()
    stage(push, tmp_path / "staged")
    sent = tmp_path / "staged" / "adapter"
    assert {path.name for path in sent.iterdir()} == {config.name, "adapter_model.safetensors"}
    assert json.loads((sent / config.name).read_text()) == {"peft_type": "LORA", "r": 2}
    found = load_file(sent / "adapter_model.safetensors")
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) for name in weights)

    def refused(number, cause):
        (tmp_path / number).mkdir()
        with pytest.raises(HubError, match=rf"adapters in '.*adapter' cannot be read \({cause}"):
            stage(push, tmp_path / number)

    config.write_text("{")
    refused("1", "Expecting property name")
    config.write_text("{}")
    (adapter / "adapter_model.safetensors").write_bytes(b"none")
    refused("2", "Error while deserializing header")
    config.unlink()
    refused("3", ".*No such file")
    config.symlink_to(own / "config.json")
    refused("4", "adapter_config.json is a link")
