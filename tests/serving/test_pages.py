"""What README and docs/serving.md show of the server is answered by one."""

import json
import re
import subprocess

import pytest

from tests.support.project import ROOT
from tests.support.served import served
from tests.support.shown_commands import commands_of
from tests.support.tiny import word_tokenizer
from tests.support.tiny_tokenizers import model_for

SHOWN = "http://127.0.0.1:8000"
README = (ROOT / "README.md").read_text(encoding="utf-8")
SECTION = README[README.index("## Serve and spread") : README.index("## What works")]
PAGE = (ROOT / "docs/serving.md").read_text(encoding="utf-8")


def blocks(text: str) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```$", text, flags=re.M | re.S)


def requests(text: str) -> list[list[str]]:
    """The commands of a page that ask a server."""
    codes = [code for code in blocks(text) if "<<'END'" not in code]
    return [words for code in codes for words in commands_of(code) if words[0] == "curl"]


@pytest.fixture(scope="module")
def server():
    """One whose tokenizer knows the words of the examples."""
    told = " ".join(" ".join(words) for words in requests(SECTION) + requests(PAGE))
    words = set(re.findall(r"[A-Za-z]+", told)) | {"In", "the", "beginning"}
    tokenizer = word_tokenizer(words=sorted(words))
    with served(model_for(tokenizer), tokenizer) as running:
        yield running


@pytest.mark.parametrize(
    "words", requests(SECTION) + requests(PAGE), ids=lambda words: words[1][21:]
)
def test_the_requests_that_are_shown_are_answered(server, words):
    """As curl sends them: --json is a body and a header."""
    program, address, option, body = words
    assert (program, option, address.startswith(SHOWN)) == ("curl", "--json", True)
    answer = server.client.post(
        address.removeprefix(SHOWN), content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["object"] in ("text_completion", "infill")
    if "num_return_sequences" in body:
        copies = json.loads(body)["num_return_sequences"]
        assert len(answer.json()["data"][0]["results"]) == copies


@pytest.mark.wide
def test_the_example_of_openais_client_runs(server, capsys):
    (code,) = re.findall(r"<<'END'\n(.*?)^END$", PAGE, flags=re.M | re.S)
    assert SHOWN in code
    code = code.replace(SHOWN, server.url).replace('"verses"', '"tiny"')
    exec(compile(code, "serving.md", "exec"), {"__name__": "__main__"})
    assert len(capsys.readouterr().out.split()) > 24


def test_the_limits_that_are_shown_are_the_programs():
    """By default, and under their names."""
    from hf_maskgit.serving.program import ServeArguments

    shown = re.findall(r"`--(\w+)`(?: ([\d,]+))?", PAGE[PAGE.index("## Limits") :])
    defaults = ServeArguments(model="m")
    assert len(shown) > 6
    for name, number in shown:
        assert hasattr(defaults, name)
        assert not number or float(number.replace(",", "")) == getattr(defaults, name)


def test_curl_sends_what_we_send(server):
    """Where it is installed and knows --json."""
    words = [word.replace(SHOWN, server.url) for word in requests(SECTION)[0]]
    try:
        done = subprocess.run([*words, "--noproxy", "*", "-s"], capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("curl is not installed")
    if b"unknown" in done.stderr:
        pytest.skip("this curl knows no --json")
    assert json.loads(done.stdout)["object"] == "text_completion"
