"""Samplers write molecules once, go on where they were cut off, and stand in one table."""

import json

import pytest
import torch

from hf_maskgit.evaluation.molecule_samples import molecule_figures
from hf_maskgit.evaluation.samplers import resolved_sampler
from scripts import compare_molecule_samplers
from tests.support.tiny_tokenizers import model_for, molecule_tokenizer

SAMPLERS = '[{"order": "random"}, {"pace": "first_hitting"}]'


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Save a generator of SMILES with random weights, which knows how long its texts are."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    model = model_for(molecule_tokenizer())
    model.config.lengths = {"1": 1, "4": 1}
    model.save_pretrained(folder)
    molecule_tokenizer().save_pretrained(folder)
    return str(folder)


def run(model, folder, *more):
    words = ["--models", model, "--output_dir", str(folder), "--num_molecules", "24"]
    return compare_molecule_samplers.main([*words, "--batch_size", "16", *more])


@pytest.mark.wide
def test_every_sampler_writes_and_is_measured_by_rdkit(model, tmp_path, capsys):
    folder = tmp_path / "out"
    found = run(model, folder, "--samplers", SAMPLERS, "--passes", "1", "2")
    asked = [{"order": "random", "steps": 1}, {"order": "random", "steps": 2}]
    assert [one["options"] for one in found] == [*asked, {"pace": "first_hitting"}]
    assert found[0]["passes"] == 1
    assert 1 < found[1]["passes"] < 2  # a lone token takes one
    assert 1 < found[2]["passes"] < 4  # one per token
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| `")]
    assert rows == [compare_molecule_samplers.row_of(one) for one in found]
    for one in found:
        assert len(one["texts"]) == 24
        assert molecule_figures(one["texts"]) == tuple(
            one[k] for k in ("valid", "unique", "diversity", "atoms")
        )
    assert any(one["valid"].value > 0 for one in found)
    stored = json.loads((folder / "samplers.json").read_text())
    assert [one["passes"] for one in stored] == [one["passes"] for one in found]


@pytest.mark.wide
def test_a_call_that_was_cut_off_goes_on_and_more_samplers_may_be_asked_for(model, tmp_path):
    whole = run(model, tmp_path / "whole", "--samplers", SAMPLERS, "--passes", "2")
    run(model, tmp_path / "cut", "--samplers", '[{"order": "random"}]', "--passes", "2")
    path = tmp_path / "cut/written.jsonl"
    first = path.read_text()
    path.write_text(first + '{"model": "')  # in the middle of a line
    assert run(model, tmp_path / "cut", "--samplers", SAMPLERS, "--passes", "2") == whole
    assert path.read_text().startswith(first)
    assert path.read_text() == (tmp_path / "whole/written.jsonl").read_text()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--samplers", "{}"], "--samplers must be a JSON list of objects"),
        (["--samplers", '[{"steps": 2}]'], "`steps` of the samplers is what --passes says"),
        (["--samplers", '[{}, {"order": "best"}]'], "Unknown order .best.; choose from"),
        (["--samplers", '[{"num_tokens": "fixed"}]'], "`num_tokens` is what this program decides"),
    ],
)
def test_bad_samplers_are_refused_before_anything_is_written(model, tmp_path, more, words):
    with pytest.raises(ValueError, match=words):
        run(model, tmp_path / "out", *more)
    assert not (tmp_path / "out/written.jsonl").exists()


def test_the_samplers_known_by_themselves_are_options_of_generate(model):
    loaded = model_for(molecule_tokenizer())
    asked = compare_molecule_samplers.with_passes(loaded, compare_molecule_samplers.SAMPLERS, [8])
    for one in asked:
        resolved_sampler(loaded, one)
    assert [one for one in asked if "steps" not in one]  # those whose pace takes what it needs


@pytest.mark.wide
def test_a_model_that_was_trained_further_writes_anew(tmp_path):
    model = tmp_path / "model"
    molecule_tokenizer().save_pretrained(model)
    asked = ("--samplers", '[{"order": "random"}]', "--passes", "2")
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        generator = model_for(molecule_tokenizer())
        generator.config.lengths = {"4": 1}
        generator.save_pretrained(model)
        found.append(run(str(model), tmp_path / "out", *asked)[0]["texts"])
    assert found[0] == found[1] != found[2]
    assert len((tmp_path / "out/written.jsonl").read_text().splitlines()) == 2
