"""The script that measures samplers on list operations."""

import json

import pytest

from scripts import evaluate_list_tasks


def test_samplers_that_choose_the_place_first_share_a_line(tmp_path, capsys):
    samplers = [
        {"order": "random", "steps": 2},
        {"order": "entropy", "steps": 2},
        {"order": "confidence", "steps": 2},
        {"pace": "first_hitting"},
    ]
    output = tmp_path / "found.json"
    words = ["--items", "4", "--num_lists", "200", "--samplers", json.dumps(samplers)]
    found = evaluate_list_tasks.main([*words, "--output_file", str(output)])
    assert json.loads(output.read_text()) == found
    assert [row["options"]["order"] for row in found] == [
        *("random", "entropy", "confidence", "random")
    ]
    *table, last = capsys.readouterr().out.splitlines()
    assert table[0] == "| sampler | order | copy | tokens | replace | tokens | shuffle | tokens |"
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]
    assert [row[:2] for row in cells] == [
        ["`pace='schedule'`, `steps=2`", "`random`, `entropy`"],
        ["`pace='schedule'`, `steps=2`", "`confidence`"],
        ["`pace='first_hitting'`", "`random`"],
    ]
    assert [row[2] for row in cells] == ["1.0000 (1.0000)"] * 3
    assert cells[2][3:] == ["1.00", "1.0000 (1.0000)", "1.00", "1.0000 (1.0000)", "1.00"]
    for row in cells[:2]:
        assert row[3] == row[5] == row[7] == "2.00"
        assert row[6].endswith("(0.3750)")  # 4 * 3 / 4^2 times 2 * 1 / 2^2
    mean = (found[0]["shuffle"]["accuracy"] + found[1]["shuffle"]["accuracy"]) / 2
    assert cells[0][6].startswith(f"{mean:.4f}")
    assert last.startswith("6 accuracies are certain, and 0 differ. Of 6 others the furthest lies ")


def test_certain_accuracies_alone_have_no_furthest(capsys):
    words = ["--items", "3", "--num_lists", "20", "--samplers", '[{"pace": "speculative"}]']
    evaluate_list_tasks.main(words)
    assert capsys.readouterr().out.endswith("3 accuracies are certain, and 0 differ.\n")


def test_mistakes_are_told_before_anything_is_measured():
    with pytest.raises(ValueError, match="knows order, pace, steps"):
        evaluate_list_tasks.main(["--samplers", '[{"order": "random"}, {"top_k": 3}]'])
