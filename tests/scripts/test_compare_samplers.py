"""The script that compares samplers: a table, figures and the texts."""

import json

import pytest

from scripts import compare_samplers

TEXTS = ["--text", "w1 [MASK] [MASK] w2", "--num_texts", "2", "--passes", "2"]


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
        ["| the defaults", "1"],
        ["| `order='random'`, `anneal_temperature=False`", "1"],
        ["| the defaults", "2"],  # the mean of the two texts, of which one holds a single mask
        ["| `order='random'`, `anneal_temperature=False`", "2"],
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


def test_the_default_list_has_the_defaults_first(saved, capsys):
    compare_samplers.main(["--model", saved, *TEXTS])
    rows = capsys.readouterr().out.splitlines()[2:]
    assert len(rows) == len(compare_samplers.SAMPLERS)
    assert rows[0].startswith("| the defaults | 2 | ")


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
