"""The script that measures speed: its tables, its files, what it refuses."""

import json
import sys
from dataclasses import replace

import pytest

from hf_maskgit.evaluation import benchmark_generation as generation
from hf_maskgit.evaluation.benchmark_generation import Cell, Growth
from hf_maskgit.evaluation.benchmark_shapes import Sizes
from hf_maskgit.evaluation.benchmark_works import FEW
from hf_maskgit.training import benchmark_loops as loops
from hf_maskgit.training import benchmark_updates as training
from scripts import benchmark

pytestmark = pytest.mark.usefixtures("_fresh_accelerate")
TINY = Sizes("bert", 1, 16, 2, 16, 40, batch_size=2, length=8, steps=2)


@pytest.fixture(autouse=True)
def tiny_cells(monkeypatch):
    monkeypatch.setattr(generation, "QUICK_CELLS", (Cell("small", TINY, FEW),))
    monkeypatch.setattr(generation, "QUICK_GROWTHS", (Growth("length", (4, 8), TINY, FEW),))
    monkeypatch.setattr(training, "QUICK_CELLS", (training.Cell("learns", TINY, training.ALL),))
    monkeypatch.setattr(loops, "QUICK_CELLS", (loops.Cell("runs", TINY, loops.ALL[:2]),))


@pytest.mark.wide
def test_it_measures_prints_and_writes(tmp_path, capsys):
    output, picture = tmp_path / "speed.json", tmp_path / "speed.png"
    words = ["--quick", "--output_file", str(output), "--plot_file", str(picture)]
    found = benchmark.main(words)
    assert json.loads(output.read_text()) == found
    assert picture.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    for name in ("small", "learns", "length 4 to 8", *FEW, *training.ALL):
        assert name in printed
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["processor"]
    assert set(found["packages"]) == {"hf_maskgit", "torch", "transformers", "Python"}
    assert found["quick"]
    assert found["rounds"] == 2


@pytest.mark.wide
def test_a_run_that_was_ended_goes_on(tmp_path, monkeypatch):
    """What is there is kept to the letter, and what is missing is measured."""
    output = tmp_path / "speed.json"
    words = ["--quick", "--no_peers", "--rounds", "1", "--output_file", str(output)]
    measured = []

    def measure(cell, *_, measure=generation.measure_growth):
        measured.append(cell.over)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(generation, "measure_growth", measure)
        with pytest.raises(KeyboardInterrupt):
            benchmark.main(words)
    before = json.loads(output.read_text())
    assert [len(before[kind]) for kind in ("generation", "training", "growth")] == [1, 2, 0]
    assert measured == ["length"]
    after = benchmark.main([*words, "--resume"])
    assert json.loads(output.read_text()) == after
    assert {**after, "growth": []} == before
    assert [one["over"] for one in after["growth"]] == ["length"]
    assert list(tmp_path.iterdir()) == [output]
    assert benchmark.main([*words, "--resume"]) == after
    grown = (Cell("small", replace(TINY, steps=3), FEW),)
    monkeypatch.setattr(generation, "QUICK_CELLS", grown)
    again = benchmark.main([*words, "--resume"])["generation"]
    assert [one["sizes"]["steps"] for one in again] == [2, 3]


def test_figures_that_do_not_stand_beside_each_other_are_not_mixed(tmp_path):
    output = tmp_path / "speed.json"
    words = ["--quick", "--no_peers", "--cells", "growth", "--output_file", str(output)]
    benchmark.main([*words, "--rounds", "1", "--resume"])  # a file that is to come
    with pytest.raises(ValueError, match="was measured with rounds 1, and this run has 2; their"):
        benchmark.main([*words, "--resume"])
    output.write_text(json.dumps({**json.loads(output.read_text()), "commit": "another"}))
    with pytest.raises(ValueError, match="was measured with commit another, and this run has"):
        benchmark.main([*words, "--rounds", "1", "--resume"])
    output.write_text("[]")
    with pytest.raises(ValueError, match="holds no figures of this script to go on with"):
        benchmark.main([*words, "--resume"])


@pytest.mark.wide
def test_a_cell_is_measured_anew_beside_older_ones(tmp_path, monkeypatch):
    """Its place stays, and it tells what commit it is of; the others stay to the letter."""
    output = tmp_path / "speed.json"
    words = ["--quick", "--no_peers", "--rounds", "1", "--output_file", str(output)]
    benchmark.main([*words, "--cells", "learns", "runs", "growth"])
    old = {**json.loads(output.read_text()), "commit": "of before", "date": "2026-01-02"}
    output.write_text(json.dumps(old))
    monkeypatch.setattr(benchmark, "commit_of", lambda *_, **__: "of now")
    found = benchmark.main([*words, "--replace", "--cells", "learns", "small", "growth"])
    assert json.loads(output.read_text()) == found
    assert {**found, "training": 0, "generation": 0, "growth": 0} == {
        **old,
        "training": 0,
        "generation": 0,
        "growth": 0,
    }
    assert [one["name"] for one in found["training"]] == ["learns", "runs"]
    assert found["training"][1] == old["training"][1]
    for one in (found["training"][0], *found["generation"], *found["growth"]):
        assert one["measured"]["commit"] == "of now"
    assert len(found["generation"]) == len(found["growth"]) == 1
    again = benchmark.main([*words, "--replace", "--cells", "small"])
    assert again["training"] == found["training"]
    assert len(again["generation"]) == 1
    with pytest.raises(ValueError, match="was measured with rounds 1, and this run has 2; their"):
        benchmark.main([*words, "--rounds", "2", "--replace", "--cells", "small"])


def test_one_cell_without_peers(monkeypatch):
    monkeypatch.setitem(sys.modules, "x_transformers", None)
    words = ["--quick", "--cells", "small", "--no_peers", "--rounds", "1"]
    found = benchmark.main(words)
    assert [one["name"] for one in found["generation"][0]["works"]] == list(FEW[:2])
    assert (found["growth"], found["training"]) == ([], [])
    with pytest.raises(ImportError, match=r"x-transformers.*--no_peers"):
        benchmark.main(["--quick"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["--cells", "big"],
            "There is no cell 'big'; `cells` may name small, learns, runs, growth.",
        ),
        (["--resume"], "`resume` goes on with an `output_file`, and none is named."),
        (["--replace"], "`replace` measures anew what `cells` names in an `output_file`: name"),
        (
            ["--replace", "--resume", "--cells", "small", "--output_file", "a.json"],
            "name both, and leave `resume` out.",
        ),
        (["--rounds", "0"], "`rounds` must be at least 1, got 0."),
        (["--device", "tpu"], "`device` must be cpu or cuda, got 'tpu'."),
        (["--output_file", "nowhere/a.json"], "There is no folder 'nowhere'"),
        (["--plot_file", "nowhere/a.png"], "There is no folder 'nowhere'"),
    ],
)
def test_mistakes_are_sentences(words, sentence, capsys):
    with pytest.raises((SystemExit, ValueError)) as refused:
        benchmark.main(["--quick", *words])
    assert sentence in str(refused.value) + capsys.readouterr().err


def test_a_gpu_that_is_not_there_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(benchmark.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        benchmark.main(["--quick", "--device", "cuda"])
    assert "`device` is cuda, and torch finds no GPU" in capsys.readouterr().err
