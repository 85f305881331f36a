"""Molecules are written once, go on where they were cut off, and are measured together."""

import json

import pytest
import torch

from hf_maskgit import MaskGitForMaskedLM, Pattern
from hf_maskgit.evaluation.molecules import COLUMNS
from scripts import evaluate_molecules
from tests.support.grids import wide
from tests.support.tiny import tiny_model, word_tokenizer
from tests.support.tiny_tokenizers import model_for, molecule_tokenizer


@pytest.fixture
def model(tmp_path):
    """Save a generator that knows how long its texts are."""
    torch.manual_seed(0)
    model = tiny_model()
    model.config.lengths = {"3": 1, "6": 1}
    model.save_pretrained(tmp_path / "model")
    word_tokenizer().save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


@pytest.fixture(autouse=True)
def measured(monkeypatch):
    """Note what is measured, in place of MOSES, which is not here."""
    seen = []

    def metrics(molecules, **_):
        seen.append(molecules)
        return dict.fromkeys(COLUMNS, 0.5) | {"FCD/Test": float("nan")}

    monkeypatch.setattr(evaluate_molecules, "load_moses", lambda: None)
    monkeypatch.setattr(evaluate_molecules, "moses_metrics", metrics)
    return seen


def run(model, folder, *more):
    words = ["--model", model, "--output_dir", str(folder), "--batch_size", "4", *more]
    return evaluate_molecules.main(words)


@pytest.mark.wide
def test_what_is_written_beyond_the_number_asked_for_is_not_counted(
    model, tmp_path, measured, monkeypatch
):
    told = []
    monkeypatch.setattr(evaluate_molecules.ProgressBar, "update", lambda _, n: told.append(n))
    run(model, tmp_path / "some", "--num_molecules", "18")
    assert told == [16, 2]
    assert len(measured[0]) == 18


@pytest.mark.parametrize("stored", [wide(None), wide("fixed"), "sampled"])
def test_molecules_are_as_long_as_those_of_the_training(model, tmp_path, stored, measured):
    """The first 16 draws of lengths, of which a model may store how it makes its own."""
    generator = MaskGitForMaskedLM.from_pretrained(model)
    generator.generation_config.num_tokens = stored
    generator.generation_config.suppress_tokens = [3]  # so new a model ends its texts anywhere
    generator.save_pretrained(model)
    run(model, tmp_path / "some", "--num_molecules", "16")
    uniforms = torch.rand(16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = [3 if uniform < 0.5 else 6 for uniform in uniforms.tolist()]
    assert [text.count("w") for text in measured[0]] == drawn


@pytest.mark.wide
def test_a_call_that_was_cut_off_goes_on_to_the_same_molecules(model, tmp_path, measured, capsys):
    run(model, tmp_path / "whole", "--num_molecules", "10")
    whole = (tmp_path / "whole/molecules.smi").read_text()
    assert "| 0.500 |" in capsys.readouterr().out
    assert json.loads((tmp_path / "whole/metrics.json").read_text())["FCD/Test"] is None

    run(model, tmp_path / "cut", "--num_molecules", "4")
    path = tmp_path / "cut/molecules.smi"
    path.write_text(path.read_text() + "w1w2\nw3")  # in the middle of a batch, and of a line
    run(model, tmp_path / "cut", "--num_molecules", "10")
    assert path.read_text() == whole
    assert measured[0] == measured[2] == whole.split("\n")[:10]
    assert {len(line.split("w")) - 1 for line in measured[0]} <= {3, 6}


@pytest.mark.wide
def test_molecules_of_other_options_are_not_mixed(model, tmp_path):
    run(model, tmp_path / "out", "--num_molecules", "4")
    with pytest.raises(ValueError, match="Name another folder with --output_dir"):
        run(model, tmp_path / "out", "--num_molecules", "8", "--decoding", '{"steps": 2}')


@pytest.mark.wide
def test_molecules_of_a_model_that_was_trained_further_are_not_mixed(model, tmp_path):
    run(model, tmp_path / "out", "--num_molecules", "4")
    (tmp_path / "model/metrics.json").write_text("{}")  # beside it, which decides nothing
    run(model, tmp_path / "out", "--num_molecules", "8")
    tiny_model(seed=1).save_pretrained(model)
    with pytest.raises(ValueError, match="was written with model='sha256:.* Name another folder"):
        run(model, tmp_path / "out", "--num_molecules", "8")


def test_decoding_that_is_no_object_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match="--decoding"):
        run(model, tmp_path / "out", "--decoding", "[]")
    assert not (tmp_path / "out").exists()


@pytest.mark.wide
@pytest.mark.parametrize(
    ("asked", "held"),
    [("--well_formed", {}), ("--valences", {"rings": (1, 2, 3), "valences": True})],
)
def test_molecules_may_be_well_formed_alone(tmp_path, measured, asked, held):
    torch.manual_seed(0)
    model = model_for(molecule_tokenizer())
    model.config.lengths = {"4": 1, "7": 1}
    model.save_pretrained(tmp_path / "model")
    molecule_tokenizer().save_pretrained(tmp_path / "model")
    more = ("--num_molecules", "8", asked, "--decoding", '{"steps": 2}')
    run(str(tmp_path / "model"), tmp_path / "out", *more)
    pattern = Pattern.from_smiles(molecule_tokenizer(), **held)
    assert len(measured[0]) == 8
    for text in measured[0]:
        ids = molecule_tokenizer()(text, add_special_tokens=False)["input_ids"]
        assert pattern.matches(ids), text


@pytest.mark.parametrize(("precision", "is_half"), [("bf16", True), ("no", False)])
def test_passes_have_the_precision_asked_for(model, tmp_path, monkeypatch, precision, is_half):
    seen, load = set(), evaluate_molecules.load_generator

    def watched(*arguments, **options):
        found, tokenizer = load(*arguments, **options)
        found.denoiser.register_forward_hook(
            lambda *_: seen.add(torch.is_autocast_enabled(found.device.type))
        )
        return found, tokenizer

    monkeypatch.setattr(evaluate_molecules, "load_generator", watched)
    more = ("--num_molecules", "4", "--mixed_precision", precision)
    run(model, tmp_path / "out", *more)
    assert seen == {is_half}
