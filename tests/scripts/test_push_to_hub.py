"""What is checked before anything is pushed, and what is said when something is wrong.

None of this reaches a Hub (the tests run offline); tests/hub/test_push.py pushes to one.
"""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from huggingface_hub import ModelCard

from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.hub import push as hub
from hf_maskgit.hub.card import GeneratorCard, write_model_card
from hf_maskgit.hub.push import HubError, Push, publish, stage
from hf_maskgit.hub.reloading import answers_in_a_fresh_process, answers_of, differences
from scripts import push_to_hub, train
from tests.support.project import ROOT
from tests.support.tiny import tiny_encoder, tiny_model, word_tokenizer
from tests.support.tiny_training import write_inputs

pytestmark = pytest.mark.usefixtures("_fresh_accelerate")


@pytest.fixture(autouse=True)
def _nobody_is_logged_in(monkeypatch):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def a_token(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_something")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved generator and its tokenizer, without a card."""
    path = tmp_path_factory.mktemp("generator")
    tiny_model().save_pretrained(path)
    word_tokenizer().save_pretrained(path)
    return path


@pytest.fixture
def no_process(monkeypatch):
    """The answers of a fresh process, without starting one: what this process answers."""

    def answers(staged, *, with_package):
        model = MaskGitForMaskedLM.from_pretrained(staged)
        return answers_of(model, word_tokenizer())

    monkeypatch.setattr(hub, "answers_in_a_fresh_process", answers)


def refusal(*words):
    with pytest.raises(HubError) as refused:
        push_to_hub.main([str(word) for word in words])
    return str(refused.value)


def test_a_dry_run_needs_no_token_and_shows_what_would_go(folder, capsys, no_process):
    push_to_hub.main([str(folder), "--repo_id", "me/verses", "--dry_run"])
    printed = capsys.readouterr().out
    assert "same logits, same seeded sample, bit for bit" in printed
    assert [line.split()[0] for line in printed.splitlines() if line.endswith("bytes")] == [
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert printed.endswith("Nothing was sent. Without --dry_run this goes to me/verses.\n")


# Answers


def test_every_change_of_a_model_shows_in_its_answers():
    tokenizer = word_tokenizer()
    answers = answers_of(tiny_model(), tokenizer)
    assert differences(answers, json.loads(json.dumps(answers_of(tiny_model(), tokenizer)))) == []

    one_bit = tiny_model()
    with torch.no_grad():
        weight = one_bit.get_input_embeddings().weight
        weight[one_bit.config.mask_token_id, 0] += 1e-5
    assert "the logits" in differences(answers, answers_of(one_bit, tokenizer))

    other = tiny_model(seed=1)
    assert differences(answers, answers_of(other, tokenizer))[:2] == [
        "the seeded sample",
        "the logits",
    ]
    options = tiny_model()
    options.generation_config.top_k = 7
    assert "the options of decoding" in differences(answers, answers_of(options, tokenizer))
    frameless = word_tokenizer()
    frameless.add_tokens([f"w{i}, " for i in range(3)])
    frameless.backend_tokenizer.post_processor = word_tokenizer().backend_tokenizer.post_processor
    frameless.model_input_names = ["input_ids"]
    frameless.backend_tokenizer.pre_tokenizer = None
    assert differences(answers, answers_of(tiny_model(), frameless)) == ["the tokens of a text"]


@pytest.mark.slow
def test_what_does_not_load_in_a_fresh_process_is_not_pushed(folder, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(RuntimeError, match="broken' does not load in a fresh process: .*Error"):
        answers_in_a_fresh_process(broken, with_package=True)


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


# Refusals, all before anything is sent


@pytest.mark.parametrize("repo_id", ["a/b/c", "-verses", "me/my verses", "me/a--b", ""])
def test_a_name_the_hub_does_not_allow(folder, repo_id, a_token):
    for dry in ([], ["--dry_run"]):
        assert refusal(folder, f"--repo_id={repo_id}", *dry).startswith(
            f"The Hub allows no repository named {repo_id!r}: give 'owner/name' or 'name'"
        )


def test_without_a_token_it_says_how_to_get_one(folder):
    said = refusal(folder, "--repo_id", "me/verses")
    assert said.startswith("There is no token to push with.")
    assert "`hf auth login`" in said
    assert "HF_TOKEN" in said


def test_without_a_network_it_says_so(folder, a_token):
    said = refusal(folder, "--repo_id", "me/verses")
    assert "cannot be reached" in said
    assert "HF_HUB_OFFLINE is not set" in said


def test_folders_that_hold_no_generator(folder, tmp_path):
    dry = ("--repo_id", "me/verses", "--dry_run")
    said = refusal(tmp_path / "nowhere", *dry)
    assert "nowhere' is no folder with a saved model" in said
    tiny_encoder().save_pretrained(tmp_path / "bert")
    said = refusal(tmp_path / "bert", *dry)
    assert said.startswith("There is no generator of this library to push: ")
    assert "is a checkpoint of type 'bert', not 'maskgit'" in said
    tiny_model().config.save_pretrained(tmp_path / "weightless")
    said = refusal(tmp_path / "weightless", *dry)
    assert said.startswith("There is no generator of this library to push: ")
    assert "no file named model.safetensors" in said
    tiny_model().save_pretrained(tmp_path / "bare")
    assert "bare' holds no tokenizer" in refusal(tmp_path / "bare", *dry)
    shutil.copytree(folder, tmp_path / "faulty")
    (tmp_path / "faulty" / "README.md").write_text("---\nlicense: [\n---\n")
    assert "README.md' cannot be read: " in refusal(tmp_path / "faulty", *dry)


def test_a_command_without_a_folder_is_a_mistake(capsys):
    with pytest.raises(SystemExit) as ended:
        push_to_hub.main(["--repo_id", "me/verses"])
    assert ended.value.code == 2
    assert "Name the folder of the generator to push" in capsys.readouterr().err


def test_a_push_at_the_end_of_training_says_how_to_push_later(folder, no_process):
    push = Push(folder=folder, repo_id="me/verses")
    with pytest.raises(HubError, match="no token .* safe in .*push_to_hub.py .* --repo_id me/ver"):
        publish(push)


def test_training_asks_for_a_token_before_it_begins(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "load_tokenizer", lambda _: pytest.fail("work was started"))
    words = [*write_inputs(tmp_path), "--output_dir", str(tmp_path / "run"), "--use_cpu"]
    with pytest.raises(HubError, match="no token to push with"):
        train.main([*words, "--push_to_hub"])
    assert not (tmp_path / "run").exists()


def test_where_to_push_without_a_push_is_a_mistake(capsys):
    options = ["--encoder", "x", "--dataset", "y", "--output_dir", "z"]
    for words in (["--hub_model_id", "me/verses"], ["--hub_private_repo"]):
        with pytest.raises(SystemExit):
            train.main([*options, *words])
        assert "say where to push; add `push_to_hub`, or leave them" in capsys.readouterr().err


# The card


def test_a_missing_card_is_made_and_what_it_lacks_is_said(folder, tmp_path, no_process, caplog):
    stage(Push(folder=folder, repo_id="me/verses"), tmp_path)
    said = [record.getMessage() for record in caplog.records]
    assert any("a card was made from the configuration" in line for line in said)
    assert any("The card names no licence" in line for line in said)
    card = ModelCard.load(tmp_path / "README.md")
    assert "an encoder of the type `bert`" in card.text
    assert 'pipeline("infilling", model="me/verses")' in card.text
    assert not (folder / "README.md").exists()


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


@pytest.mark.slow
def test_the_script_runs_as_a_program(folder):
    root = ROOT
    done = subprocess.run(
        [sys.executable, root / "scripts/push_to_hub.py", folder, "--repo_id=me/x", "--dry_run"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Loaded in a fresh process: same logits" in done.stdout
    assert "Nothing was sent." in done.stdout
