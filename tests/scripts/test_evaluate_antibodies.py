"""Loops and domains are written by every sampler and measured beside counting."""

import importlib.util
import json
from types import SimpleNamespace

import pytest
import torch

from hf_maskgit.evaluation.antibodies import LOOPS
from scripts import evaluate_antibodies
from tests.support.antibodies import (
    Annotator,
    coded,
    domain,
    residue_generator,
    residue_tokenizer,
)

SETS = ("heavy", "light, HIV")
SAMPLERS = [{"steps": 1, "do_sample": False}, {"steps": 3}]


@pytest.fixture
def packages(monkeypatch):
    """Hand-made domains, and a generator of random weights that has never seen one."""
    reads = [coded(domain(seed).residues) for seed in range(6)]
    written = residue_generator(), residue_tokenizer()
    monkeypatch.setattr(evaluate_antibodies, "read_reads", lambda name: reads)
    monkeypatch.setattr(evaluate_antibodies, "load_annotator", Annotator)
    monkeypatch.setattr(evaluate_antibodies, "load_antiberty", lambda **_: written)
    monkeypatch.setattr(evaluate_antibodies, "SETS", dict.fromkeys(SETS, ""))
    monkeypatch.setattr(evaluate_antibodies, "WRITERS", [{"steps": 2}])
    monkeypatch.setattr(evaluate_antibodies, "MASK_RATES", (0.5,))


def run(folder, *more):
    words = ["--output_dir", str(folder), "--num_domains", "4", "--samplers", json.dumps(SAMPLERS)]
    return evaluate_antibodies.main([*words, *more])


@pytest.mark.wide
@pytest.mark.usefixtures("packages")
def test_everything_is_measured_kept_and_printed(tmp_path, capsys):
    figures = run(tmp_path)
    kept = json.loads((tmp_path / "figures.json").read_text())
    assert kept == json.loads(json.dumps(figures))
    assert kept["domains"] == {name: {"whole": 6, "measured": 4} for name in SETS}
    assert [row["by"] for row in kept["loops"]] == len(SETS) * [
        *("any residue", "by frequency", "most frequent of the loop"),
        *("most frequent of the place", "`steps=1`, `do_sample=False`", "`steps=3`"),
    ]
    greedy, drawn = kept["loops"][4:6]
    assert (greedy["passes"], drawn["passes"]) == (1, 3)
    assert {n: c["predictions"] for n, c in greedy["calibration"].items()} == {
        "CDR1": 48,
        "CDR2": 40,
        "CDR3": 52,
    }
    assert set(drawn["different"]) == set(LOOPS)
    # Residues by chance from an encoder by chance: far from recovered.
    assert all(mean < 0.3 for mean, _ in greedy["recovered"].values())
    assert drawn["different"]["CDR3"][0] > 0
    # The paired difference is that of the means; its error is not that of either.
    counted = kept["loops"][3]["recovered"]["CDR1"][0]
    gain = greedy["beyond counting"]["CDR1"][0]
    assert gain == pytest.approx(greedy["recovered"]["CDR1"][0] - counted)
    assert len(kept["calibration"]) == len(SETS)
    for row in kept["whole domains"]:
        assert (row["count"], row["numbered"][0]) == (4, 1)
        assert row["whole"][0] <= min(row[mark][0] for mark in ("cysteines", "j_motif"))
    lines = (tmp_path / "domains.jsonl").read_text().splitlines()
    assert {len(json.loads(line)["residues"]) for line in lines} == {126}
    assert len(lines) == 4
    printed = capsys.readouterr().out
    assert printed.count("| any residue |  | 0.050 ± 0.000 |") == len(SETS)
    assert "| real, heavy | 1.000 ± 0.000 | 1.000 ± 0.000 |" in printed


@pytest.mark.wide
@pytest.mark.usefixtures("packages")
def test_what_is_written_does_not_depend_on_the_batch_size_and_follows_the_seed(tmp_path):
    few, many = (run(tmp_path / size, "--batch_size", size) for size in ("3", "32"))
    assert few["loops"] == many["loops"]
    other = run(tmp_path / "seed", "--seed", "1")
    assert other["loops"][5] != many["loops"][5]


def test_who_writes_the_real_loops_recovers_all_of_them():
    options = evaluate_antibodies.AntibodyArguments()
    domains = [domain(seed) for seed in range(3)]
    tokenizer = residue_tokenizer()

    class Knowing:
        device, config = torch.device("cpu"), residue_generator().config

        def generate(self, input_ids, **_):
            known = [tokenizer(" ".join(d.residues))["input_ids"] for d in domains]
            zeros, passes = torch.zeros(input_ids.shape), torch.ones(len(input_ids))
            return SimpleNamespace(
                sequences=torch.tensor(known),
                reveal_log_probabilities=zeros,
                denoiser_passes=passes,
            )

    generator = evaluate_antibodies.Generator(Knowing(), tokenizer, options)
    shares, facts = evaluate_antibodies.measure_sampler(generator, domains, SAMPLERS[0])
    assert shares == {loop: [1.0] * 3 for loop in LOOPS}
    assert facts["calibration"]["CDR3"]["expected_error"] == 0


def test_samplers_that_are_no_list_of_objects_are_refused(tmp_path):
    with pytest.raises(ValueError, match="--samplers must be a JSON list of objects"):
        evaluate_antibodies.main(["--output_dir", str(tmp_path), "--samplers", "{}"])
    with pytest.raises(ValueError, match="num_domains"):
        evaluate_antibodies.AntibodyArguments(num_domains=1)


@pytest.mark.slow
def test_the_pretrained_encoder_beats_counting(tmp_path):
    """And what it writes from nothing can be numbered, on five domains of each set."""
    for package in ("antiberty", "immunum", "abstar"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"the package {package} is not installed")
    words = ["--num_domains", "5", "--samplers", '[{"steps": 1, "do_sample": false}]']
    figures = evaluate_antibodies.main(["--output_dir", str(tmp_path), *words])
    argmax = [row for row in figures["loops"] if row["domains"] == "heavy"][-1]
    assert argmax["recovered"]["CDR1"].mean > 0.5
    assert argmax["recovered"]["CDR2"].mean > argmax["recovered"]["CDR3"].mean > 0.1
    for row in figures["whole domains"]:
        assert row["numbered"].mean == 1
        assert row["cysteines"].mean > 0.5
