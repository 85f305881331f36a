"""The scripts that write chorales as grids and let a generator fill some."""

import json
import sys

import pytest
import torch
from datasets import Dataset, load_from_disk

from hf_maskgit.evaluation.chorale_files import read_midi
from hf_maskgit.evaluation.chorales import VOCAB_SIZE, Chorale, grid_of, notes_of
from scripts import evaluate_chorales, prepare_chorales, train
from tests.support.music import save_windows, tune
from tests.support.tiny_ids import save_generator_of_ids


def test_windows_of_few_chorales_are_cut_held_out_and_transposed(monkeypatch, tmp_path):
    pieces = [
        Chorale(f"bwv{n}", tune([60, 62, 60 + n, 64], [48, 50, 48, 50 + n])) for n in (3, 4, 5, 7)
    ]
    monkeypatch.setattr(prepare_chorales, "corpus_paths", list)
    monkeypatch.setattr(prepare_chorales, "read_chorales", lambda paths, told: pieces)
    words = ["--steps", "4", "--stride", "2", "--validation_fraction", "0.25"]
    prepare_chorales.main(["--output_dir", str(tmp_path), *words])
    data = load_from_disk(tmp_path / "grids")
    held_out = {row["chorale"] for row in data["validation"]}
    learned = {row["chorale"] for row in data["train"]}
    assert (len(held_out), len(learned)) == (1, 3)
    assert not held_out & learned
    by_name = {piece.name: piece.grid for piece in pieces}
    assert [row["first_step"] for row in data["validation"]] == [0, 4]
    for split in data.values():
        for row in split:
            window = by_name[row["chorale"]][row["first_step"] :][:4]
            moved = torch.where(window == 0, 0, window + row["semitones"])
            assert row["grid"] == moved.flatten().tolist()
    learned_rows = [(r["chorale"], r["semitones"], r["first_step"]) for r in data["train"]]
    assert len(set(learned_rows)) == len(learned_rows)
    assert {row["first_step"] for row in data["train"]} == {0, 2, 4}
    assert {row["semitones"] for row in data["validation"]} == {0}
    assert len({row["semitones"] for row in data["train"]}) > 1


def test_a_share_that_is_none_is_refused_before_anything_is_read(monkeypatch, capsys):
    monkeypatch.setattr(prepare_chorales, "corpus_paths", lambda: pytest.fail("read"))
    with pytest.raises(SystemExit):
        prepare_chorales.main(["--validation_fraction", "1.5"])
    assert "`validation_fraction` must lie between 0 and 1, got 1.5" in capsys.readouterr().err


def test_windows_longer_than_every_chorale_are_refused(monkeypatch, tmp_path):
    pieces = [Chorale(f"bwv{n}", tune([60, 62 + n] * n, [48, 50] * n)) for n in (2, 3)]
    monkeypatch.setattr(prepare_chorales, "corpus_paths", list)
    monkeypatch.setattr(prepare_chorales, "read_chorales", lambda paths, told: pieces)
    words = ["--output_dir", str(tmp_path / "out"), "--validation_fraction", "0.5", "--steps"]
    shorter = min(len(piece.grid) for piece in pieces)
    with pytest.raises(ValueError, match=rf"`steps` may be {shorter} at most"):
        prepare_chorales.main([*words, str(shorter + 1)])
    assert not (tmp_path / "out").exists()
    prepare_chorales.main([*words, str(shorter)])


@pytest.fixture(scope="module")
def windows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chorales") / "grids"
    save_windows(folder, steps=8, chorales=6)
    return str(folder)


@pytest.mark.wide
def test_files_and_figures_of_a_generator(windows, tmp_path, capsys):
    pytest.importorskip("music21")
    model = save_generator_of_ids(tmp_path / "model", VOCAB_SIZE, 32)
    output = tmp_path / "evaluation"
    samplers = [{"steps": 2}, {"steps": 1, "do_sample": False}]
    figures = evaluate_chorales.main(
        [
            *("--model", model, "--dataset", windows, "--output_dir", str(output)),
            *("--num_samples", "4", "--num_files", "2", "--samplers", json.dumps(samplers)),
        ]
    )
    assert json.loads((output / "figures.json").read_text()) == figures
    bound = {name: one["value"] for name, one in figures["bound"].items()}
    assert bound["bigram"] < bound["unigram"] < bound["this model"]  # scales, and fresh weights
    names = ["most frequent", "counted chains", "`steps=2`", "`steps=1`, `do_sample=False`"]
    assert list(figures["recovered"]) == names
    parts = ["soprano", "alto", "tenor", "bass", "bar"]
    for name in names:
        assert list(figures["recovered"][name]) == parts
        assert list(figures["harmony"][name]) == [*parts, "all"]
    # an octave moves in parallel between each soprano, tenor and bass; the neighbour tells a voice
    real = figures["harmony"]["held-out, real"][""]
    assert real["octaves"] > 0
    assert real["in_range"] == 1
    assert figures["recovered"]["counted chains"]["alto"]["value"] == 1
    assert (output / "rolls.png").exists()
    held_out = torch.tensor(load_from_disk(windows)["validation"]["grid"]).view(-1, 8, 4)
    files = sorted(path.name for path in (output / "midi").iterdir())
    assert files == [f"{n}_{part}.mid" for n in (0, 2) for part in ("all", "alto", "bar", "real")]
    for place in (0, 2):  # the first windows of two chorales
        assert torch.equal(read_midi(output / "midi" / f"{place}_real.mid", 8), held_out[place])
    table = capsys.readouterr().out
    assert "| held-out chorales | nats per id |" in table
    assert "| pitches that come back of | soprano | alto | tenor | bass | bar |" in table
    assert table.count("| counted chains |") == 1 + len(parts) + 1


def test_only_what_is_hidden_is_filled_and_every_part_is_what_its_name_says():
    hidden = evaluate_chorales.hidden_parts(32)
    assert {name: int(one.sum()) for name, one in hidden.items()} == {
        **dict.fromkeys(("soprano", "alto", "tenor", "bass"), 32),
        "bar": 32,
        "all": 128,
    }
    assert hidden["alto"][:, 1].all()
    assert hidden["bar"][12:20].all()
    assert int(evaluate_chorales.hidden_parts(8)["bar"].sum()) == 16


def test_recovered_pitches_by_hand():
    """Two chorales, of two windows and of one; silence has no pitch that could come back."""
    real = torch.ones(3, 2, 4, dtype=torch.long)
    real[0, 0, 0] = 0
    filled = real.clone()
    filled[0, :, 0], filled[2, 1, 0] = 5, 5
    hidden = torch.zeros(2, 4, dtype=torch.bool)
    hidden[:, 0] = True
    held_out = evaluate_chorales.HeldOut(real, torch.tensor([0, 0, 1]))
    found = evaluate_chorales.recovered({"soprano": filled}, held_out, {"soprano": hidden})
    assert found["soprano"]["value"] == 3 / 5  # 2 of 3, and 1 of 2
    assert found["soprano"]["num_texts"] == 2


def test_rows_that_are_no_windows_are_refused(tmp_path):
    Dataset.from_dict({"grid": [[0] * 4]}).save_to_disk(tmp_path / "other")
    with pytest.raises(ValueError, match="has no column 'chorale', but 'grid'; it must hold wind"):
        evaluate_chorales.read_windows(str(tmp_path / "other"), "train")


def test_music21_is_asked_for_before_anything_is_computed(windows, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "music21.stream", None)
    words = ["--model", "nowhere", "--dataset", windows, "--output_dir", str(tmp_path)]
    with pytest.raises(ImportError, match=r"not installed: pip install 'hf_maskgit\[music\]'"):
        evaluate_chorales.main(words)


@pytest.mark.slow
@pytest.mark.usefixtures("_fresh_accelerate")
def test_the_recipe_goes_from_windows_to_midi(tmp_path):
    pytest.importorskip("music21")
    save_windows(tmp_path / "grids", steps=32, chorales=18)
    run, data = str(tmp_path / "run"), str(tmp_path / "grids")
    recipe = ["scripts/recipes/chorales.yaml", "--dataset", data, "--output_dir", run]
    train.main([*recipe, "--max_steps", "4", "--eval_every", "4", "--checkpoint_every", "4"])
    words = ["--model", run, "--dataset", data, "--output_dir", str(tmp_path / "out")]
    figures = evaluate_chorales.main([*words, "--num_samples", "4", "--samplers", '[{"steps": 2}]'])
    assert figures["recovered"]["`steps=2`"]["alto"]["num_texts"] == 9
    grid = read_midi(tmp_path / "out" / "midi" / "0_all.mid", 32)
    assert torch.equal(grid_of(notes_of(grid), 32), grid)
