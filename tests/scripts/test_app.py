"""The app's options, what it says without Gradio, and the files of a Space."""

import builtins
import tomllib

import pytest
import yaml

from hf_maskgit.serving.program import listen
from scripts import app
from tests.support.project import ROOT


@pytest.fixture
def no_models(monkeypatch):
    for name in ("MODEL", "SEQUENCE_MODEL", "MOLECULE_MODEL"):
        monkeypatch.delenv(name, raising=False)


def test_an_app_without_a_model_is_refused(no_models, capsys):
    with pytest.raises(SystemExit):
        app.main([])
    assert "Name a model with --model, --sequence_model or --molecule_model" in (
        capsys.readouterr().err
    )


def test_a_space_names_its_models_by_variables(no_models, monkeypatch):
    monkeypatch.setenv("MOLECULE_MODEL", "me/molecules")
    assert app.AppArguments().molecule_model == "me/molecules"
    assert app.AppArguments(molecule_model="mine").molecule_model == "mine"


def test_without_gradio_it_says_what_to_install(monkeypatch):
    real_import = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == "gradio":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"needs the package Gradio, .*hf_maskgit\[app\]"):
        app.main(["--model", "nowhere"])


@pytest.mark.parametrize("port", [None, 70_000, -1])
def test_a_port_that_cannot_be_had_is_told_before_a_model_is_loaded(port, monkeypatch):
    monkeypatch.setattr(app, "_gradio", lambda: None)
    monkeypatch.setattr(app, "tab_of", lambda *_: pytest.fail("A model was loaded."))
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1] if port is None else port
        with pytest.raises(ValueError, match=f"Cannot listen at 127.0.0.1:{port}"):
            app.main(["--model", "nowhere", "--port", str(port)])


def test_the_files_of_a_space_name_what_there_is():
    _, head, _ = (ROOT / "docs/space/README.md").read_text(encoding="utf-8").split("---\n")
    metadata = yaml.safe_load(head)
    assert metadata["sdk"] == "gradio"
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    assert f"gradio=={metadata['sdk_version']}" in pins
    assert (ROOT / "scripts" / metadata["app_file"]).exists()
    assert metadata["license"] == "apache-2.0"
    assert len(metadata["short_description"]) <= 60  # the Hub's limit
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    # the Hub's own default is older, and nothing would install
    assert project["requires-python"] == f">={metadata['python_version']}"
    (line,) = (ROOT / "docs/space/requirements.txt").read_text().split()
    asked = set(line.removeprefix("hf_maskgit[").removesuffix("]").split(","))
    assert "app" in asked
    assert asked <= set(project["optional-dependencies"])
