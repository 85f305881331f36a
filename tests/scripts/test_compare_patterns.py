"""The script that compares texts with and without patterns: three rows of figures."""

import sys

import pytest
from transformers import AutoTokenizer

from hf_maskgit import Pattern
from scripts import compare_patterns

TEXT = "w1 {x:1-2} w2 {blank:1} {y:1}"


def run(saved, patterns, *asked, text=TEXT):
    options = ["--num_texts", "12", "--batch_size", "5", "--num_samples", "4", *asked]
    return compare_patterns.main(
        ["--model", saved, "--text", text, "--patterns", patterns, *options]
    )


@pytest.mark.wide
def test_three_rows_of_texts_of_the_same_lengths(saved, tmp_path, capsys):
    Pattern.from_choices(["w6", "w7"], AutoTokenizer.from_pretrained(saved)).save(tmp_path / "y")
    patterns = f'{{"x": "w[345]( w[345])?", "y": "@{tmp_path / "y"}"}}'
    without, kept, bound = run(saved, patterns)
    assert (without.texts, bound.texts, bound.match) == (12, 12, 1.0)
    assert without.match == kept.texts / 12 < 1
    assert without.read is None
    assert bound.nats > 0
    table = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in table[2:]] == [
        "| without",
        "| those of them that match",
        "| with",
    ]
    assert len({line.count("|") for line in table}) == 1


@pytest.mark.parametrize("suffix", [".json", ".safetensors", ""])
def test_a_pattern_is_read_from_its_file_in_every_format(tmp_path, suffix):
    pattern = Pattern.from_token_classes([[5], [6, 7]], 9)
    pattern.save(tmp_path / f"y{suffix}")
    read = compare_patterns.loaded(f"@{tmp_path / 'y'}{suffix}")
    assert read.matches([5, 7])
    assert compare_patterns.loaded("w1|w2") == "w1|w2"


@pytest.mark.wide
def test_readers_read(saved, monkeypatch):
    with_json = run(saved, '{"x": "w[345]"}', "--reader", "json", text="w1 {x:1}")
    assert with_json[2].read == 0  # words are no JSON
    smiles = compare_patterns.READERS["smiles"]()
    assert smiles("C C O", {})
    assert not smiles("C1 C C", {})
    assert not smiles("", {})
    # Words are no molecules either: here one is.
    monkeypatch.setattr(
        compare_patterns, "read_molecule", lambda text: True if text == "w1w3" else None
    )
    read = run(saved, '{"x": ["w3", "w4"]}', "--reader", "smiles", text="w1 {x}")[2].read
    assert 0 < read < 1
    assert compare_patterns.READERS["json"]()("", {"x": '{"a": 1}'})


@pytest.mark.parametrize(
    ("patterns", "asked", "error", "sentence"),
    [
        ("[1]", [], ValueError, "--patterns"),
        ('{"z": "w1"}', [], ValueError, "names 'z', and the text has no such blank"),
        ('{"x": "w1"}', ["--reader", "xml"], ValueError, "one of json, smiles, got 'xml'"),
        ('{"x": "@nowhere.json"}', [], FileNotFoundError, "nowhere.json"),
        ("{}", ["--decoding", '{"seed": 1}'], ValueError, "`seed` is what this program decides it"),
    ],
)
def test_what_cannot_be_compared_is_refused(saved, patterns, asked, error, sentence):
    with pytest.raises(error, match=sentence):
        run(saved, patterns, *asked)


def test_without_rdkit_a_sentence_says_what_to_install(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "rdkit.Chem", None)
    with pytest.raises(ImportError, match=r"left to RDKit, .* 'hf_maskgit\[molecules\]'"):
        run(saved, '{"x": "w1"}', "--reader", "smiles")
