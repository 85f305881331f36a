"""The harness's own command line on local tasks, whose right answers are known by enumeration."""

import json
import sys
from types import ModuleType

import pytest
import torch

from scripts import harness
from tests.support.launches import completed
from tests.support.oracles import mean_over_orders
from tests.support.tiny import tiny_model, word_tokenizer

TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: {kind}
doc_to_text: "{{{{question}}}}"
"""
CHOICE = """doc_to_choice: options
doc_to_target: {gold}
metric_list: [{{metric: acc}}, {{metric: exact_match}}]
"""
ROLLING = """doc_to_target: "{{question}}"
metric_list: [{metric: byte_perplexity}, {metric: word_perplexity}]
"""
WRITING = """doc_to_target: written
generation_kwargs: {until: ["w99"], max_gen_toks: 3, steps: 3}
metric_list: [{metric: exact_match}]
"""


def by_enumeration(model, question, option):
    """-log p of an option behind a question: the mean over all orders, written out."""
    tokenizer = word_tokenizer()
    ids = tokenizer(f"{question} {option}", return_tensors="pt")["input_ids"]
    places = range(1 + len(question.split()), ids.shape[1] - 1)
    return -mean_over_orders(model, ids, places)


def written_behind(model, question):
    """What greedy decoding writes in three passes."""
    ids = word_tokenizer()(question, return_tensors="pt")["input_ids"]
    whole = model.generate(ids, max_new_tokens=3, steps=3, do_sample=False)
    return word_tokenizer().decode(whole[0, ids.shape[1] :], skip_special_tokens=True)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Three tasks on one file; the right answer of each question is what enumeration prefers."""
    folder, model, rows = tmp_path_factory.mktemp("tasks"), tiny_model(), []
    with torch.no_grad():
        for i in range(6):
            question = f"w{i} w{i + 1}"
            options = [f"w{i + 2} w8", f"w{i + 3} w{i + 4}", f"w{i} w{i + 9}", f"w{i} w{i + 2} w3"]
            nats = [by_enumeration(model, question, option) for option in options]
            row = {"question": question, "options": options, "nats": nats}
            row["best"] = min(range(4), key=nats.__getitem__)
            row["worst"] = max(range(4), key=nats.__getitem__)
            rows.append({**row, "written": " " + written_behind(model, question).strip()})
    data = folder / "questions.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    kinds = {
        "right": ("multiple_choice", CHOICE.format(gold="best")),
        "wrong": ("multiple_choice", CHOICE.format(gold="worst")),
        "rolling": ("loglikelihood_rolling", ROLLING),
        "writing": ("generate_until", WRITING),
    }
    for name, (kind, rest) in kinds.items():
        head = TASK.format(name=f"by_hand_{name}", data=data, kind=kind)
        (folder / f"{name}.yaml").write_text(head + rest)
    return folder, rows


def numbers(figures):
    return {name: value for name, value in figures.items() if isinstance(value, int | float)}


@pytest.mark.slow
def test_the_harness_finds_what_enumeration_does(tasks, saved, tmp_path):
    """Its own command line, in a process of its own, with two batch sizes."""
    pytest.importorskip("lm_eval", reason="the lm-evaluation-harness is not installed")
    folder, rows = tasks
    results, samples = [], []
    for batch_size in (3, 64):
        out = tmp_path / str(batch_size)
        done = completed(
            "scripts/harness.py",
            *("--model", "hf_maskgit", "--model_args", f"pretrained={saved},likelihood=exact"),
            *("--tasks", "by_hand_right,by_hand_wrong,by_hand_rolling,by_hand_writing"),
            *("--include_path", folder, "--batch_size", batch_size, "--device", "cpu"),
            *("--output_path", out, "--log_samples"),
        )
        assert done.returncode == 0, done.stderr
        (path,) = out.rglob("results_*.json")
        results.append({n: numbers(r) for n, r in json.loads(path.read_text())["results"].items()})
        (path,) = out.rglob("samples_by_hand_right_*.jsonl")
        samples.append([json.loads(line) for line in path.read_text().splitlines()])
    found = results[0]
    assert found["by_hand_right"]["acc,none"] == 1
    assert found["by_hand_wrong"]["acc,none"] == 0
    assert found["by_hand_writing"]["exact_match,none"] == 1
    for name, figures in found.items():
        assert results[1][name] == pytest.approx(figures, rel=1e-5)
    for row, sample in zip(rows, sorted(samples[0], key=lambda one: one["doc_id"]), strict=True):
        log_ps = [-float(answer[0][0]) for answer in sample["resps"]]
        assert log_ps == pytest.approx(row["nats"], abs=1e-4)


def test_without_the_harness_a_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    with pytest.raises(ImportError, match=r"pip install 'hf_maskgit\[lm_eval\]'"):
        harness.main()


def test_the_command_line_is_the_harness_own(monkeypatch):
    """With our type known there, whose name is looked up by its registry."""
    registry = pytest.importorskip("lm_eval.api.registry", reason="no lm-evaluation-harness")
    seen, module = [], ModuleType("lm_eval.__main__")
    module.cli_evaluate = lambda: seen.append(list(sys.argv))
    monkeypatch.setitem(sys.modules, "lm_eval.__main__", module)
    monkeypatch.setattr(sys, "argv", ["hf-maskgit lm_eval", "ls", "tasks"])
    for _ in range(2):  # a second registration changes nothing
        harness.main()
    assert seen[0] == ["lm-eval", "ls", "tasks"]
    assert registry.get_model("hf_maskgit").__name__ == "MaskGitLM"
