"""The scripts that make Sudoku grids and let a generator solve boards."""

import json

import pytest
import torch
from datasets import Dataset, load_from_disk

from hf_maskgit.evaluation.sudoku import all_grids, is_valid
from scripts import evaluate_sudoku, prepare_sudoku, train
from tests.support.tiny_ids import save_generator_of_ids


@pytest.fixture
def grids(tmp_path):
    prepare_sudoku.main(["--side", "4", "--output_dir", str(tmp_path)])
    return tmp_path / "grids"


def test_all_small_grids_are_split(grids, capsys):
    data = load_from_disk(grids)
    assert {name: len(split) for name, split in data.items()} == {"train": 216, "validation": 72}
    rows = data["train"]["cells"][:] + data["validation"]["cells"][:]
    assert sorted(rows) == sorted(all_grids().tolist())


@pytest.mark.wide
def test_large_grids_are_drawn(tmp_path, capsys):
    words = ["--output_dir", str(tmp_path), "--num_grids", "50", "--validation_fraction", "0.1"]
    data = prepare_sudoku.main(words)
    told = capsys.readouterr().out
    assert told == f"{tmp_path / 'grids'}: train 45, validation 5 grids of 9 by 9.\n"
    assert bool(is_valid(torch.tensor(data["train"]["cells"][:]), 9).all())
    other = prepare_sudoku.main([*words, "--seed", "1"])
    assert other["train"]["cells"][:] != data["train"]["cells"][:]


def test_both_parts_need_a_grid(tmp_path):
    words = ["--output_dir", str(tmp_path), "--num_grids", "10"]
    with pytest.raises(ValueError, match=r"A share of 0.01 of 10 grids is 0; at least one"):
        prepare_sudoku.main([*words, "--validation_fraction", "0.01"])
    with pytest.raises(ValueError, match="The side of a grid is a square"):
        prepare_sudoku.SudokuOptions("runs", side=5)


@pytest.mark.wide
def test_boards_are_solved_by_every_sampler(grids, tmp_path, capsys):
    model = save_generator_of_ids(tmp_path / "model", 4, 16)
    samplers = [{"order": "random", "steps": 1}, {"order": "margin", "steps": 99}]
    output = tmp_path / "found.json"
    found = evaluate_sudoku.main(
        [
            *("--model", model, "--dataset", str(grids), "--holes", "1", "16"),
            *("--num_boards", "30", "--batch_size", "20", "--samplers", json.dumps(samplers)),
            *("--output_file", str(output)),
        ]
    )
    assert json.loads(output.read_text()) == found
    assert [(row["holes"], row["passes"]) for row in found] == [(1, 1), (1, 1), (16, 1), (16, 16)]
    # No network of chance: a single hole is filled rightly now and then, sixteen never.
    assert 0 < found[0]["valid"] < 1
    assert found[2]["valid"] == found[3]["valid"] == 0
    table = capsys.readouterr().out.splitlines()[-6:]
    assert table[0] == "| holes | sampler | valid | passes |"
    assert table[4] == "| 16 | `order='random'`, `steps=1` | 0.000 ± 0.000 | 1.0 |"


@pytest.mark.wide
def test_the_exact_law_solves_small_boards_and_no_others(grids, tmp_path):
    """One cell per pass it is always right; all at once as often as the law of the cells says."""
    samplers = [
        {"pace": "first_hitting"},
        {"order": "margin", "steps": 16},
        {"order": "random", "steps": 1},
    ]
    words = ["--num_boards", "40", "--holes", "16", "--samplers", json.dumps(samplers)]
    found = evaluate_sudoku.main(["--dataset", str(grids), *words])
    assert [row["valid"] for row in found] == [1, 1, 0]  # 288 of 4^16 boards keep the rules
    for strange in ("top_k", "remask", "use_cache"):
        asked = json.dumps(
            [{}, {strange: {"top_k": 3, "remask": "p2", "use_cache": True}[strange]}]
        )
        with pytest.raises(ValueError, match=f"and `{strange}` is none of these; leave it out"):
            evaluate_sudoku.main(["--dataset", str(grids), "--samplers", asked])
    prepare_sudoku.main(["--output_dir", str(tmp_path / "large"), "--num_grids", "50"])
    with pytest.raises(ValueError, match="of 4 by 4, and these have 9 by 9 cells; name a gen"):
        evaluate_sudoku.main(["--dataset", str(tmp_path / "large" / "grids"), *words])


def test_boards_have_as_many_holes_as_asked_for(grids):
    options = evaluate_sudoku.SolveArguments(str(grids), num_boards=100)
    whole = evaluate_sudoku.load_grids(options)
    boards = evaluate_sudoku.take_out(whole, 5, options, 4)
    assert (boards == 4).sum(1).tolist() == [5] * 100
    kept = boards != 4
    assert torch.equal(boards[kept], whole[torch.arange(100) % 72][kept])
    assert len((boards == 4).unique(dim=0)) > 90
    again = evaluate_sudoku.take_out(whole, 5, options, 4)
    assert torch.equal(boards, again)


@pytest.mark.wide
def test_what_is_no_board_is_refused_before_a_model_is_loaded(grids, tmp_path):
    words = ["--model", "nowhere", "--split", "train"]
    with pytest.raises(ValueError, match=r"`holes` lie in 1..16, .* got \[17\]"):
        evaluate_sudoku.main([*words, "--dataset", str(grids), "--holes", "17"])
    Dataset.from_dict({"cells": [[0, 1], [0, 1]]}).to_json(tmp_path / "no.jsonl")
    with pytest.raises(ValueError, match="Column 'cells' of .* must hold Sudoku grids of one size"):
        evaluate_sudoku.main([*words, "--dataset", str(tmp_path / "no.jsonl")])
    asked = ["--dataset", str(tmp_path / "no.jsonl"), "--ids_column", "grid"]
    with pytest.raises(ValueError, match="has no column 'grid', but 'cells'; it must hold grids"):
        evaluate_sudoku.main([*words, *asked])


@pytest.mark.slow
@pytest.mark.usefixtures("_fresh_accelerate")
def test_the_recipe_goes_from_grids_to_solutions(grids, tmp_path):
    run = tmp_path / "run"
    recipe = ["scripts/recipes/sudoku_4x4.yaml", "--dataset", str(grids), "--output_dir", str(run)]
    train.main([*recipe, "--max_steps", "4", "--eval_every", "4", "--checkpoint_every", "4"])
    words = ["--model", str(run), "--dataset", str(grids), "--num_boards", "100", "--holes", "4"]
    (found,) = evaluate_sudoku.main([*words, "--samplers", '[{"order": "margin", "steps": 4}]'])
    assert found["passes"] == 4
