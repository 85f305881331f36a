"""The comparison of ways to learn texts: figures, table, and what it refuses."""

import json
import math

import pytest
from datasets import Dataset, DatasetDict

from scripts import compare_with_causal as script

TEXTS = [f"and {a} begat {b}" for a in "ABCDEFG" for b in "ABCDEFG"]
SMALL = (
    "--vocab_size=270 --length=8 --hidden_size=16 --num_layers=1 --num_heads=2 --batch_size=4 "
    "--eval_blocks=6 --num_samples=4 --warmup_steps=2 --eval_every=2 --max_steps=4"
).split()


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts") / "texts"
    parts = {"train": TEXTS[::2], "validation": TEXTS[1::2]}
    DatasetDict({n: Dataset.from_dict({"text": t}) for n, t in parts.items()}).save_to_disk(folder)
    return str(folder)


@pytest.mark.wide
def test_all_ways_stand_side_by_side_and_further_updates_go_on(texts, tmp_path, capsys):
    pytest.importorskip("x_transformers")
    options = [*SMALL, "--dataset", texts, "--output_dir", str(tmp_path / "runs")]
    found = script.main(options)
    table = capsys.readouterr().out.splitlines()
    assert json.loads((tmp_path / "runs/comparison.json").read_text()) == found
    assert list(found["ways"]) == list(script.LEARNERS)
    for name, entry in found["ways"].items():
        assert entry["updates"] == 4
        assert [point["updates"] for point in entry["curve"]] == [2, 4]
        assert entry["nats_per_token"] == pytest.approx(entry["curve"][-1]["nats_per_token"])
        assert entry["perplexity"] == pytest.approx(math.exp(entry["nats_per_token"]))
        if name != "ours":
            gap = entry["nats_per_token"] - found["ways"]["ours"]["nats_per_token"]
            assert entry["less_ours"]["value"] == pytest.approx(gap)
        (row,) = [line for line in table if line.startswith(f"| {name} |")]
        assert ("≤" in row) == (name != "causal")
        assert f"{entry['nats_per_token']:.3f}" in row
    assert found["ways"]["causal"]["is_exact"]
    assert found["seconds"] == min(entry["seconds"] for entry in found["ways"].values())
    further = script.main([*options, "--max_steps=6", "--ways", "ours", "causal"])
    for name, entry in further["ways"].items():
        assert [point["updates"] for point in entry["curve"]] == [2, 4, 6]
        assert entry["curve"][:2] == found["ways"][name]["curve"]
    with pytest.raises(ValueError, match="was written with seed=0, and this call has seed=1"):
        script.main([*options, "--seed=1"])


def test_a_run_that_ended_early_says_so():
    entry = {
        "num_parameters": 10**6, "updates": 3, "diverged_at": 4, "nats_per_token": 9.5,
        "perplexity": 13360.0, "is_exact": False, "seconds": 2.0, "nats_within_seconds": None,
    }  # fmt: skip
    table = script.table_of({"seconds": 1.0, "unigram": 5.0, "ways": {"weighted wrapper": entry}})
    assert "| 3, then no finite loss | ≤ 9.500 |" in table[2]
    assert table[3].startswith("| counting tokens |")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--num_samples=5"], "`num_samples` must be even"),
        (["--hidden_size=10", "--num_heads=4"], "`hidden_size` must be a multiple of `num_heads`"),
        (
            ["--ways", "ours", "theirs"],
            "`ways` must name some of 'ours', 'unweighted ours', 'causal', 'wrapper', 'weighted",
        ),
        (["--seed=-1"], "`seed` must be at least 0 and below 2**31, got -1."),
        (["--learning_rate=nan"], "`learning_rate` must be finite and greater than 0, got nan."),
        (["--learning_rate=0"], "`learning_rate` must be finite and greater than 0, got 0.0."),
        (["--ways", "ours", "ours"], "each once, got ['ours', 'ours']."),
    ],
)
def test_options_are_checked(words, told, capsys):
    with pytest.raises(SystemExit):
        script.main(["--output_dir", "nowhere", *words])
    assert told in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--dataset", "{nothing}"], "is no folder of save_to_disk"),
        (["--dataset", "{one}"], "must have the splits train and validation"),
        (
            ["--text_column", "verse"],
            "has no column 'verse', but 'text'; it must hold texts in its sp",
        ),
        (["--batch_size", "5000"], "and an update takes 5000; lower `batch_size` or `length`."),
    ],
)
def test_texts_that_do_not_do_are_refused(words, told, texts, tmp_path):
    Dataset.from_dict({"text": TEXTS}).save_to_disk(tmp_path / "one")
    (tmp_path / "nothing").mkdir()
    places = {"{one}": str(tmp_path / "one"), "{nothing}": str(tmp_path / "nothing")}
    words = [places.get(word, word) for word in words]
    options = [*SMALL, "--ways", "ours", "--output_dir", str(tmp_path / "runs")]
    with pytest.raises(ValueError) as error:  # noqa: PT011  # its sentence is looked at below
        script.main([*options, "--dataset", texts, *words])
    assert told in str(error.value)
    assert not (tmp_path / "runs").exists()


def test_without_the_package_a_sentence_says_what_to_do(monkeypatch, tmp_path):
    def nothing():
        raise ImportError("One of the peers is the package x-transformers, which is not installed.")

    monkeypatch.setattr(script, "check_x_transformers", nothing)
    with pytest.raises(ImportError, match="x-transformers"):
        script.main(["--output_dir", str(tmp_path / "runs")])
    assert not (tmp_path / "runs").exists()
