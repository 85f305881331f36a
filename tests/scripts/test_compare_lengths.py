"""The script that compares lengths: a table with a row for every way and sampler."""

import pytest
from transformers import AutoTokenizer

from hf_maskgit import MaskGitForMaskedLM
from scripts import compare_lengths


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(["w1 w2 w3", "w1", "w4 w5 w6 w7 w8 w9", "w1 w2 w3"]))
    return str(path)


@pytest.mark.wide
def test_a_row_for_every_way_and_sampler(saved, texts, tmp_path, capsys):
    model = MaskGitForMaskedLM.from_pretrained(saved)
    model.config.lengths, model.config.end_fill = {"3": 2, "5": 2}, 8
    model.save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(saved).save_pretrained(tmp_path / "model")
    asked = ["--num_texts", "30", "--batch_size", "20", "--samplers", '[{"suppress_tokens": [3]}]']
    found = compare_lengths.main(["--model", str(tmp_path / "model"), "--dataset", texts, *asked])
    table = capsys.readouterr().out.splitlines()
    assert table[2] == "| real texts | | 3.2 | | |"
    assert [line.split(" | ")[:2] for line in table[3:]] == [
        [f'| `"{way}"`', "`suppress_tokens=[3]`"] for way in ("sampled", "window")
    ]
    sampled, window = found
    assert len(sampled["lengths"]) == len(window["lengths"]) == 30
    assert set(sampled["lengths"]) == {3, 5}
    assert set(window["lengths"]) == {6}  # of 8, with the framing: no end may be written
    assert window["distance"] == 0.75  # a quarter of the real texts is as long


def test_no_sampler_says_how_lengths_are_found_as_every_row_does(saved, texts):
    asked = ["--samplers", '[{"num_tokens": "window"}]']
    with pytest.raises(ValueError, match="`num_tokens` is what this program decides itself; leave"):
        compare_lengths.main(["--model", saved, "--dataset", texts, *asked])


def test_a_model_that_knows_nothing_of_lengths_is_refused(saved, texts):
    with pytest.raises(ValueError, match="knows nothing of lengths: .* Train it with this release"):
        compare_lengths.main(["--model", saved, "--dataset", texts])


@pytest.mark.wide
def test_unknown_words_are_refused_and_let_pass_where_that_is_asked_for(saved, tmp_path, capsys):
    model = MaskGitForMaskedLM.from_pretrained(saved)
    model.config.lengths = {"3": 2}
    model.save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(saved).save_pretrained(tmp_path / "model")
    (tmp_path / "texts.txt").write_text("zz qq w1\n")
    words = ["--model", str(tmp_path / "model"), "--dataset", str(tmp_path / "texts.txt")]
    words += ["--num_texts", "1", "--samplers", "[{}]"]
    with pytest.raises(ValueError, match="raise `max_unknown_share`, which is 0.5"):
        compare_lengths.main(words)
    assert compare_lengths.main([*words, "--max_unknown_share", "1"])[0]["lengths"] == [3]
    with pytest.raises(SystemExit):
        compare_lengths.main([*words, "--max_unknown_share", "7"])
    assert "`max_unknown_share` is a share" in " ".join(capsys.readouterr().err.split())


def test_a_length_of_nothing_is_refused(capsys):
    with pytest.raises(SystemExit):
        compare_lengths.main(["--model", "any", "--dataset", "any", "--max_length", "0"])
    assert "`max_length` must be at least 1, got 0." in capsys.readouterr().err
