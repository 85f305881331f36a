"""`transformers serve` with the line of the page: OpenAI's endpoints by transformers itself."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from transformers import AutoTokenizer
from transformers.utils.import_utils import is_serve_available

from hf_maskgit import MaskGitForMaskedLM
from tests.support.project import ROOT

PAGE = (ROOT / "docs/other_runtimes.md").read_text(encoding="utf-8")


def shown_command():
    (command,) = re.findall(r'^python -c ".*?" serve [^\n]*$', PAGE, flags=re.M | re.S)
    return shlex.split(command)


def test_the_page_shows_one_line_for_the_class_that_transformers_looks_up():
    code = shown_command()[2]
    names = {}
    exec(compile(code.partition("\n")[0], "page", "exec"), names)
    try:
        assert sys.modules["transformers"].MaskGitForMaskedLM is MaskGitForMaskedLM
    finally:
        del names["transformers"].MaskGitForMaskedLM


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@pytest.fixture
def server(saved, tmp_path):
    """Its address and the folder that it serves."""
    if not is_serve_available():
        pytest.skip("pip install 'transformers[serving]'")
    folder, port = tmp_path / "model", free_port()
    shutil.copytree(saved, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{{ messages[-1]['content'] }}"
    tokenizer.save_pretrained(folder)
    code = shown_command()[2]
    process = subprocess.Popen(
        [sys.executable, "-c", code, "serve", str(folder), "--port", str(port), "--device", "cpu"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    address, deadline = f"http://localhost:{port}", time.monotonic() + 240
    while True:
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5)
            break
        except (urllib.error.URLError, OSError):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                pytest.fail(process.communicate()[1].decode()[-2000:])
            time.sleep(0.2)
    yield address, folder
    process.terminate()
    process.communicate(timeout=60)


def post(address, path, **body):
    request = urllib.request.Request(
        f"{address}/v1/{path}", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return answer.read().decode()


@pytest.mark.slow
def test_completions_and_chats_are_answered_as_the_page_says(server):
    address, folder = server
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = MaskGitForMaskedLM.from_pretrained(folder)
    greedily = {"max_tokens": 6, "generation_config": json.dumps({"do_sample": False})}
    asked = {"model": str(folder), "prompt": "w1 w2", **greedily}
    answer = json.loads(post(address, "completions", **asked))
    words = answer["choices"][0]["text"].split()
    assert len(words) == 6
    rows = tokenizer("w1 w2", return_tensors="pt")
    greedy = model.generate(**rows, max_new_tokens=6, do_sample=False)
    assert tokenizer.decode(greedy[0, rows["input_ids"].shape[1] :]).split() == words
    streamed = post(address, "completions", **asked, stream=True)
    chunks = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: {")]
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks).split() == words
    messages = [{"role": "user", "content": "w1 w2"}]
    chat = {"model": str(folder), "messages": messages, **greedily}
    answer = json.loads(post(address, "chat/completions", **chat))
    assert len(answer["choices"][0]["message"]["content"].split()) == 6
    drawn = {**asked, "generation_config": None, "temperature": 0.7, "top_p": 0.9, "seed": 3}
    texts = [json.loads(post(address, "completions", **drawn))["choices"][0]["text"] for _ in "ab"]
    assert texts[0] == texts[1] != answer["choices"][0]["message"]["content"]
    with pytest.raises(urllib.error.HTTPError, match="500"):
        post(address, "completions", **{**drawn, "temperature": 0})
