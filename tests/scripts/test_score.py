"""The scoring script: its figures are those of the library."""

import json

import pytest

from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.evaluation import score
from scripts import score as script
from tests.support.tiny import word_tokenizer

TEXTS = ["w1 w2 w3", "w4 w5"]


@pytest.mark.wide
def test_sequences_are_scored_as_by_the_library(saved, tmp_path, capsys):
    options = ["--model", saved, "--std_error=2", "--output_file", str(tmp_path / "scores.json")]
    found = script.main([*options, "--text", *TEXTS])
    assert json.loads(capsys.readouterr().out) == found
    assert json.loads((tmp_path / "scores.json").read_text()) == found
    expected = score(
        MaskGitForMaskedLM.from_pretrained(saved), TEXTS, word_tokenizer(), std_error=2.0
    )
    assert [one["bound"] for one in found["scores"]] == pytest.approx([o.bound for o in expected])
    assert found["scores"][0]["tokens"] == ["w1", "w2", "w3"]
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    again = script.main([*options, "--input_file", str(tmp_path / "texts.txt")])
    assert again["scores"] == found["scores"]


def test_mutants_are_named_by_their_tokens(saved):
    options = ["--model", saved, "--std_error=2", "--wild_type=w1 w2 w3"]
    (found,) = script.main([*options, "--text", "w1 w7 w3"])["scores"]
    assert found["mutations"] == [{"place": 2, "from": "w2", "to": "w7"}]
    assert found["std_error"] <= 2


def test_unknown_words_are_refused_and_let_pass_where_that_is_asked_for(saved, capsys):
    words = ["--model", saved, "--text", "zz qq w1", "--std_error", "2", "--max_maskings", "64"]
    with pytest.raises(ValueError, match="raise `max_unknown_share`, which is 0.5"):
        script.main(words)
    assert script.main([*words, "--max_unknown_share", "1"])["scores"][0]["num_maskings"] == 64


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "Give the sequences with `text` or with `input_file`, one of the two."),
        (["--text=w1", "--std_error=0"], "`std_error` must be greater than 0"),
        (["--text=w1", "--max_maskings=70"], "`max_maskings` must be a multiple of 64, got 70"),
        (["--text=w1", "--max_unknown_share=7"], "`max_unknown_share` is a share and must lie in"),
    ],
)
def test_options_are_checked_before_anything_is_loaded(words, told, capsys):
    with pytest.raises(SystemExit):
        script.main(["--model", "nowhere", *words])
    assert told in " ".join(capsys.readouterr().err.split())
