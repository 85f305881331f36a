"""The pushing script: a dry run shows what would go, and mistakes are refused before that.

None of this reaches a Hub (the tests run offline); tests/hub/test_push.py pushes to one.
"""

import shutil
import subprocess
import sys

import pytest

from hf_maskgit.hub.push import HubError
from scripts import push_to_hub
from tests.support.project import ROOT
from tests.support.tiny import tiny_encoder, tiny_model

pytestmark = pytest.mark.usefixtures("_nobody_is_logged_in")


def refusal(*words):
    with pytest.raises(HubError) as refused:
        push_to_hub.main([str(word) for word in words])
    return str(refused.value)


@pytest.mark.wide
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


def test_a_generator_is_named_once(folder):
    words = [str(folder), "--model=other", "--repo_id", "me/verses", "--dry_run"]
    with pytest.raises(ValueError, match="named twice, first and with '--model'; name it once"):
        push_to_hub.main(words)


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
