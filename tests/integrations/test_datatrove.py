"""DataTrove starts the server, waits for it, posts to it, and keeps what it answers."""

import asyncio
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from textwrap import indent
from types import SimpleNamespace

import pytest

from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.core.noise import mix
from hf_maskgit.integrations import datatrove as for_datatrove
from hf_maskgit.integrations.batch_writer import key_of
from tests.support.project import ROOT
from tests.support.tiny import word_tokenizer

TEXTS = [f"w{i} w{i + 1}" for i in range(12)]


def test_a_document_is_asked_for_with_a_seed_of_its_own():
    posted = []

    async def generate(payload):
        posted.append(payload)
        return "written"

    document = SimpleNamespace(text="w1", id="doc-1")
    found = asyncio.run(for_datatrove.continue_document(document, generate, seed=3, max_tokens=4))
    assert found == "written"
    assert posted == [{"prompt": "w1", "seed": mix(3, key_of("doc-1"), 0), "max_tokens": 4}]


def test_the_script_is_there():
    assert for_datatrove.server_script().read_text().startswith('"""Serve a generator')


def test_without_datatrove_a_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datatrove.pipeline.inference.run_inference", None)
    monkeypatch.setitem(sys.modules, "datatrove", None)
    with pytest.raises(ImportError, match=r"DataTrove, which is not installed: .*\[datatrove\]"):
        for_datatrove.inference_config("runs/verses")


def test_what_is_decided_is_not_a_setting():
    pytest.importorskip("datatrove", reason="pip install 'hf_maskgit[datatrove]'")
    with pytest.raises(ValueError, match="`use_chat` is decided by `inference_config`; options of"):
        for_datatrove.inference_config("runs/verses", use_chat=True)


@pytest.mark.slow
def test_documents_are_continued_as_generate_continues_them(saved, tmp_path):
    pytest.importorskip("datatrove", reason="pip install 'hf_maskgit[datatrove]'")
    for name in ("httpx", "uvicorn", "fastapi", "prometheus_client"):
        pytest.importorskip(name, reason="pip install 'hf_maskgit[datatrove]'")
    from datatrove.data import Document
    from datatrove.pipeline.inference.run_inference import InferenceRunner
    from datatrove.pipeline.writers import JsonlWriter

    config = for_datatrove.inference_config(
        saved,
        server={"dtype": "float64"},
        default_generation_params={"max_tokens": 5, "steps": 3},
        max_concurrent_generations=6,
        server_log_folder=str(tmp_path / "logs"),
    )
    writer = JsonlWriter(str(tmp_path / "out"), output_filename="${rank}.jsonl", compression=None)
    runner = InferenceRunner(for_datatrove.continue_document, config, writer)
    documents = [Document(text=text, id=f"d{i}") for i, text in enumerate(TEXTS)]
    runner.run(documents)
    lines = (tmp_path / "out" / "00000.jsonl").read_text().splitlines()
    found = {row["id"]: row for row in map(json.loads, lines)}
    assert len(lines) == len(TEXTS)
    model = MaskGitForMaskedLM.from_pretrained(saved).double()
    tokenizer = word_tokenizer()
    for i, text in enumerate(TEXTS):
        rows = tokenizer(text, return_tensors="pt")
        seed = mix(mix(0, key_of(f"d{i}"), 0), 0)  # of the first text of a request
        alone = model.generate(**rows, max_new_tokens=5, steps=3, seed=[seed])
        (written,) = found[f"d{i}"]["metadata"]["rollout_results"]
        words = tokenizer.decode(alone[0], skip_special_tokens=True).split()
        assert written["text"].split() == words[2:]
        assert found[f"d{i}"]["text"] == text


def unpacked(path):
    return gzip.decompress(path.read_bytes()).decode()


@pytest.mark.slow
def test_the_example_of_the_page_runs_as_it_stands(saved, tmp_path):
    pytest.importorskip("datatrove", reason="pip install 'hf_maskgit[datatrove]'")
    page = (ROOT / "docs/many_rows.md").read_text(encoding="utf-8")
    section = page.split("\n## DataTrove\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"^```py\n(.*?)^```$", section, flags=re.M | re.S)
    shutil.copytree(saved, tmp_path / "runs/demo/model")
    (tmp_path / "prompts").mkdir()
    for name, texts in (("a", TEXTS[:5]), ("b", TEXTS[5:])):
        rows = [json.dumps({"text": text, "id": f"{name}{i}"}) for i, text in enumerate(texts)]
        (tmp_path / "prompts" / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    (tmp_path / "page.py").write_text(f"if __name__ == '__main__':\n{indent(code, '    ')}")
    done = subprocess.run(
        [sys.executable, "page.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    files = sorted((tmp_path / "written").rglob("*.jsonl*"))
    lines = [line for path in files for line in unpacked(path).splitlines()]
    found = {row["text"]: row["metadata"]["rollout_results"] for row in map(json.loads, lines)}
    assert set(found) == set(TEXTS)
    assert all(len(written["text"].split()) == 24 for (written,) in found.values())
