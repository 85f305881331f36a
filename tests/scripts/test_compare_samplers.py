"""The script that compares samplers: a table, figures and the texts."""

import json
import sys

import pytest

from scripts import compare_samplers

TEXTS = ["--text", "w1 [MASK] [MASK] w2", "--num_texts", "2", "--passes", "2"]


@pytest.mark.wide
def test_a_row_for_every_sampler_and_number_of_passes(saved, tmp_path, capsys):
    (tmp_path / "texts.txt").write_text("w1 [MASK] w3\n\n[MASK] [MASK] [MASK]\n")
    output = tmp_path / "found.json"
    found = compare_samplers.main(
        [
            *("--model", saved, "--input_file", str(tmp_path / "texts.txt")),
            *("--num_texts", "3", "--passes", "1", "3", "--output_file", str(output)),
            *("--samplers", '[{}, {"order": "random", "anneal_temperature": false}]'),
        ]
    )
    table = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[:2] for line in table[2:]] == [
        ["| the defaults", "1.0 (0.0)"],
        ["| `order='random'`, `anneal_temperature=False`", "1.0 (0.0)"],
        [
            "| the defaults",
            "2.0 (0.0)",
        ],  # the mean of the two texts, of which one holds a single mask
        ["| `order='random'`, `anneal_temperature=False`", "2.0 (0.0)"],
    ]
    assert json.loads(output.read_text()) == found
    assert [row["options"]["steps"] for row in found] == [1, 1, 3, 3]
    for row in found:
        assert 1 <= row["distinct"] <= 3
        assert 0 <= row["difference"] <= 1
        assert row["nats_per_token"] > 0
        first, second = row["texts"]
        assert len(first) == len(second) == 3
        assert all(text.startswith("w1 ") and text.endswith(" w3") for text in first)


@pytest.mark.wide
def test_unknown_words_are_refused_and_let_pass_where_that_is_asked_for(saved, capsys):
    words = ["--model", saved, "--text", "zz qq w1 [MASK]", *TEXTS[2:], "--samplers", "[{}]"]
    with pytest.raises(ValueError, match="raise `max_unknown_share`, which is 0.5"):
        compare_samplers.main(words)
    assert len(compare_samplers.main([*words, "--max_unknown_share", "1"])) == 1
    with pytest.raises(SystemExit):
        compare_samplers.main([*words, "--max_unknown_share", "7"])
    assert "`max_unknown_share` is a share" in " ".join(capsys.readouterr().err.split())


@pytest.mark.wide
def test_the_default_list_has_the_defaults_first(saved, capsys):
    compare_samplers.main(["--model", saved, *TEXTS])
    rows = capsys.readouterr().out.splitlines()[2:]
    assert len(rows) == len(compare_samplers.SAMPLERS)
    assert rows[0].startswith("| the defaults | 2.0 (0.0) | ")


@pytest.mark.wide
def test_a_pace_that_takes_what_it_needs_is_asked_once_and_all_is_drawn(saved, tmp_path):
    pytest.importorskip("matplotlib")
    words = ["--model", saved, *TEXTS[:2], "--num_texts", "3", "--passes", "1", "2"]
    samplers = [{"preset": "eb"}, {}, {"pace": "threshold", "confidence_threshold": 0.0}]
    words += ["--samplers", json.dumps(samplers)]
    first, second = (tmp_path / f"{name}.json" for name in ("first", "second"))
    found = compare_samplers.main([*words, "--output_file", str(first)])
    assert [row["options"] for row in found] == [
        {"steps": 1},
        {"steps": 2},
        {"preset": "eb"},
        samplers[2],
    ]
    assert found[-1]["passes"] == 1
    picture = tmp_path / "curves.png"
    words += ["--output_file", str(second), "--plot_file", str(picture), "--beside", str(first)]
    compare_samplers.main(words)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_figures_beside_that_are_none(saved, tmp_path):
    pytest.importorskip("matplotlib")
    words = ["--model", saved, *TEXTS, "--plot_file", str(tmp_path / "a.png"), "--beside"]
    for text in ("[]", "no JSON", '[{"passes": 1}]', "3"):
        (tmp_path / "b.json").write_text(text)
        with pytest.raises(ValueError, match=r"b.json' holds no figures to draw; --beside wants"):
            compare_samplers.main([*words, str(tmp_path / "b.json")])


def test_a_picture_without_matplotlib_is_refused_before_work(saved, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'hf_maskgit\[plots\]'"):
        compare_samplers.main(["--model", saved, *TEXTS, "--plot_file", str(tmp_path / "a.png")])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (TEXTS[2:], "There is no text to fill; give some with --text or --input_file."),
        ([*TEXTS, "--samplers", "random"], "--samplers is no JSON: "),
        (
            [*TEXTS, "--samplers", '{"order": "random"}'],
            "--samplers must be a JSON list of objects",
        ),
        ([*TEXTS, "--samplers", '[{"steps": 2}]'], "`steps` of the samplers is what --passes says"),
        ([*TEXTS, "--samplers", '[{}, {"order": "best"}]'], "Unknown order 'best'; choose from"),
        ([*TEXTS, "--samplers", "[]"], "--samplers must be a JSON list of objects"),
    ],
)
def test_what_cannot_be_compared(saved, options, sentence, capsys):
    """Said before the first sampler works, and before the head of a table."""
    with pytest.raises(ValueError, match=sentence):
        compare_samplers.main(["--model", saved, *options])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--plot_file", "nowhere/a.png"], "There is no folder 'nowhere'"),
        (["--beside", "a.json"], "--beside is for the picture; name one with --plot_file."),
    ],
)
def test_what_cannot_be_drawn(saved, options, sentence, capsys):
    with pytest.raises(SystemExit):
        compare_samplers.main(["--model", saved, *TEXTS, *options])
    assert sentence in capsys.readouterr().err
