"""Designs keep their scaffold, are different, and go on where they were cut off."""

import json
import re
from math import prod

import pytest
import torch

from hf_maskgit.core.blank_lengths import MOST_CANDIDATES
from hf_maskgit.evaluation.scaffolds import core_of, keeps, read_molecule
from scripts import design_molecules
from tests.support.grids import wide
from tests.support.tiny_tokenizers import model_for, molecule_tokenizer

SCAFFOLDS = ("C1CC({x:1-4})C1", "{a:1-3}C=C{b:1-2}")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Save a generator of SMILES with random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    model_for(molecule_tokenizer()).save_pretrained(folder)
    molecule_tokenizer().save_pretrained(folder)
    return str(folder)


def run(model, folder, *more, number=12):
    words = ["--model", model, "--output_dir", str(folder), "--scaffolds", *SCAFFOLDS]
    words += ["--batch_size", "8", "--num_designs", str(number), "--decoding", '{"steps": 2}']
    return design_molecules.main([*words, *more])


@pytest.mark.wide
def test_all_designs_are_valid_different_and_keep_their_scaffold(model, tmp_path, capsys):
    (tmp_path / "known.txt").write_text("CC1CCC1\nNC1CCC1\nOC1CCC1\n")
    figures = run(model, tmp_path / "out", "--known", str(tmp_path / "known.txt"))
    lines = (tmp_path / "out/designs.smi").read_text().splitlines()
    designs = [line.split("\t") for line in lines]
    assert len({smiles for smiles, _ in designs}) == len(designs) == figures["designs"] == 12
    assert {scaffold for _, scaffold in designs} == set(SCAFFOLDS)
    for smiles, scaffold in designs:
        assert keeps(read_molecule(smiles), core_of(scaffold)), smiles
    assert figures["keeps_scaffold"] == 1
    assert 0 < figures["valid"] <= 1
    known = {"CC1CCC1", "NC1CCC1", "OC1CCC1"}
    assert figures["novel"] == sum(smiles not in known for smiles, _ in designs) / 12
    assert json.loads(capsys.readouterr().out) == figures
    assert (tmp_path / "out/designs.png").read_bytes().startswith(b"\x89PNG")


def test_the_picture_shows_as_many_of_every_scaffold():
    designs = {"A": 1, "B": 0, "C": 1, "D": 1, "E": 0}
    assert design_molecules.some_of_each(designs, 4) == [("B", 0), ("E", 0), ("A", 1), ("C", 1)]
    assert design_molecules.some_of_each(designs, 1) == [("B", 0), ("A", 1)]


def test_the_scaffolds_of_the_description_can_be_filled():
    """Its command is what a reader copies: the lengths of each are compared at once."""
    description = str(design_molecules.__doc__)
    scaffolds = [s for s in re.findall(r"'([^']+)'", description) if "{" in s]
    assert len(scaffolds) == 2
    for scaffold in scaffolds:
        ranges = [range(int(a), int(b) + 1) for a, b in re.findall(r":(\d+)-(\d+)", scaffold)]
        assert 1 <= prod(map(len, ranges)) <= MOST_CANDIDATES, scaffold


@pytest.mark.wide
def test_a_call_that_was_cut_off_goes_on_to_the_same_designs(model, tmp_path):
    run(model, tmp_path / "whole")
    run(model, tmp_path / "cut", number=3)
    path = tmp_path / "cut/drawn.jsonl"
    path.write_text(path.read_text() + '[1, ["C=')  # in the middle of a batch
    run(model, tmp_path / "cut")
    for name in ("drawn.jsonl", "designs.smi"):
        assert (tmp_path / "cut" / name).read_text() == (tmp_path / "whole" / name).read_text()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--scaffolds", "c1ccccc1"), "has no open place"),
        (("--scaffolds", "c1cc{x}"), "RDKit cannot read as a molecule"),
        (
            ("--known", "KNOWN"),
            "has no column 'text', but 'smiles'; it must hold the molecules of --known",
        ),
        (("--decoding", '{"num_return_sequences": 2}'), "is what this program decides itself; le"),
        wide(
            ("--scaffolds", "C{x:1}", "--num_designs", "200"), "are valid and different, fewer than"
        ),
    ],
)
def test_what_cannot_work_is_refused(model, tmp_path, monkeypatch, more, words):
    (tmp_path / "known.csv").write_text("smiles\nC\n")
    monkeypatch.setattr(design_molecules, "_MOST_DRAWS", 1)
    more = [str(tmp_path / "known.csv") if word == "KNOWN" else word for word in more]
    with pytest.raises(ValueError, match=words):
        run(model, tmp_path / "out", *more)


@pytest.mark.wide
def test_designs_of_other_options_are_not_mixed(model, tmp_path):
    run(model, tmp_path / "out", number=2)
    with pytest.raises(ValueError, match="Name another folder with --output_dir"):
        run(model, tmp_path / "out", "--seed", "7")
    torch.manual_seed(1)
    model_for(molecule_tokenizer()).save_pretrained(tmp_path / "further")
    molecule_tokenizer().save_pretrained(tmp_path / "further")
    with pytest.raises(ValueError, match="was written with model='sha256:"):
        run(str(tmp_path / "further"), tmp_path / "out", number=2)
