"""The server on a port of loopback, asked by OpenAI's client and as any program asks."""

import asyncio
import concurrent.futures
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading

import httpx
import openai
import pytest
import torch
from transformers import pipeline

from hf_maskgit.core.noise import mix
from hf_maskgit.serving.app import make_app
from hf_maskgit.serving.program import ServeArguments, listen
from hf_maskgit.serving.reader import Reader
from tests.support.project import ROOT
from tests.support.served import served, until
from tests.support.tiny_tokenizers import model_for, wordpiece_tokenizer

PROMPTS = ["the cat", "And God said", "is it the ball", "the cat sat on the mat, playing"]
MIXTURE = [
    {"steps": 3},
    {"preset": "llada", "steps": 6},
    {"order": "random", "temperature": 0.7, "top_p": 0.9},
    {"temperature": 0, "steps": 4},
    {"preset": "remdm", "steps": 5},
    {"guidance_scale": 1.5, "steps": 2},
]
INFILLED = ["the {blank:2} sat on the [MASK].", "a [MASK] [MASK] of wool", "the {blank} was closed"]


@pytest.fixture(scope="module")
def parts():
    """A generator in float64, its tokenizer, and its own pipelines."""
    torch.manual_seed(0)
    tokenizer = wordpiece_tokenizer()
    return model_for(tokenizer).double(), tokenizer


@pytest.fixture(scope="module")
def server(parts):
    with served(*parts) as running:
        yield running


@pytest.fixture
def client(server):
    with openai.OpenAI(
        base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60
    ) as found:
        yield found


def ask(server, path: str, **fields) -> httpx.Response:
    return server.client.post(f"/v1/{path}", json=fields)


def refusal(answer: httpx.Response) -> tuple[int, str]:
    """Status and sentence, in OpenAI's form."""
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return answer.status_code, error["message"]


def as_generated(parts, prompt: str, seed: int, options: dict) -> str:
    """What the text-generation pipeline writes behind a prompt of its own."""
    options = dict(options)
    if options.get("temperature") == 0:
        options = {**options, "temperature": None, "do_sample": False}
    write = pipeline("text-generation", model=parts[0], tokenizer=parts[1])
    (record,) = write(prompt, seed=seed, return_full_text=False, **options)
    return record["generated_text"]


def test_the_client_finds_the_model(client):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").object == "model"
    with pytest.raises(openai.NotFoundError, match="'big' is not served here; 'tiny' is"):
        client.models.retrieve("big")
    with pytest.raises(openai.NotFoundError, match="'big' is not served here; 'tiny' is"):
        client.completions.create(model="big", prompt="the cat")


@pytest.mark.wide
def test_completions_are_those_of_the_pipeline(client, parts):
    """Of every prompt the n texts that it has alone, with tokens and their probabilities."""
    found = client.completions.create(
        model="tiny", prompt=PROMPTS[:2], n=2, seed=5, max_tokens=6, logprobs=1, echo=True
    )
    write = pipeline("text-generation", model=parts[0], tokenizer=parts[1])
    alone = [
        record["generated_text"]
        for prompt in PROMPTS[:2]
        for record in write(prompt, seed=5, num_return_sequences=2, max_new_tokens=6)
    ]
    assert [choice.text for choice in found.choices] == alone
    assert [choice.index for choice in found.choices] == [0, 1, 2, 3]
    tokenizer = parts[1]
    ids = [tokenizer(prompt, return_tensors="pt").input_ids for prompt in PROMPTS[:2]]
    for i, choice in enumerate(found.choices):
        output = parts[0].generate(
            ids[i // 2], seed=[mix(5, i % 2)], max_new_tokens=6, return_dict_in_generate=True
        )
        written = output.reveal_log_probabilities[0][output.reveal_steps[0] >= 0].tolist()
        told = choice.logprobs
        assert all(any(abs(a - b) < 1e-5 for b in written) for a in told.token_logprobs)
        assert choice.finish_reason in ("length", "stop")
        assert len(told.tokens) == len(told.text_offset) <= 6
        assert told.text_offset[0] == len(PROMPTS[i // 2])
    assert found.usage.prompt_tokens == sum(one.shape[1] for one in ids)
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens


@pytest.mark.wide
def test_the_likeliest_tokens_of_each_place_are_told(client, parts):
    """As many as are asked for, and the one that stands there where it is none of them."""
    asked = {"model": "tiny", "prompt": "the cat", "seed": 5, "max_tokens": 8}
    told = {
        n: client.completions.create(**asked, logprobs=n).choices[0].logprobs for n in (0, 1, 5)
    }
    assert told[0].top_logprobs is None
    assert told[0].token_logprobs == told[1].token_logprobs == told[5].token_logprobs
    output = parts[0].generate(
        parts[1]("the cat", return_tensors="pt").input_ids, seed=[mix(5, 0)], max_new_tokens=8,
        return_dict_in_generate=True, output_alternatives=5,
    )  # fmt: skip
    for count in (1, 5):
        assert len(told[count].top_logprobs) == len(told[count].tokens) > 0
        for token, log, top in zip(
            told[count].tokens, told[count].token_logprobs, told[count].top_logprobs, strict=True
        ):
            assert count <= len(top) <= count + 1
            assert top[token] == log
            (place,) = {
                i
                for i, one in enumerate(output.reveal_log_probabilities[0].tolist())
                if abs(one - log) < 1e-6 and parts[1].decode([int(output.sequences[0, i])]) == token
            }
            best = [parts[1].decode([i]) for i in output.alternatives[0, place, :count].tolist()]
            assert list(top)[:count] == best
            logs = output.alternative_log_probabilities[0, place, :count].tolist()
            assert list(top.values())[:count] == pytest.approx(logs, rel=1e-5)


def test_a_prompt_may_be_token_ids(client, parts):
    ids = parts[1](PROMPTS[0]).input_ids
    texts = [
        client.completions.create(model="tiny", prompt=prompt, seed=1, max_tokens=5).choices[0].text
        for prompt in (ids, [ids], PROMPTS[0])
    ]
    assert len(set(texts)) == 1


@pytest.mark.wide
@pytest.mark.wide
@pytest.mark.parametrize("way", ["sampled", "window"])
def test_a_client_names_the_most_where_the_model_finds_lengths(way):
    tokenizer = wordpiece_tokenizer()
    model = model_for(tokenizer)
    model.config.lengths, model.config.end_fill = {"7": 1, "9": 1}, 12
    model.generation_config.update(num_tokens=way, stop_strings=["never"])
    model.generation_config.suppress_tokens = [tokenizer.sep_token_id]
    known, longest = len(tokenizer("the cat", add_special_tokens=False).input_ids), 12 - 2
    with served(model, tokenizer) as server:
        for most in (5, 7, 100, None):
            fields = {"prompt": "the cat", "seed": 1, "max_tokens": most}
            answer = ask(server, "completions", **fields)
            assert answer.status_code == 200, answer.text
            written = answer.json()["usage"]["completion_tokens"]
            if way == "window":
                assert written == min(longest - known, most or 100)
            else:
                assert known + written in (7, 9)
                assert written <= (most or 100)
        answer = ask(server, "infill", text="the {blank:2} sat", seed=1)
        assert answer.status_code == 200, answer.text


@pytest.mark.wide
def test_a_stop_string_ends_the_text_and_is_no_part_of_it(client):
    whole = client.completions.create(model="tiny", prompt="the cat", seed=3, max_tokens=12)
    text = whole.choices[0].text
    stop = text.split()[2]
    stopped = client.completions.create(
        model="tiny", prompt="the cat", seed=3, max_tokens=12, stop=[stop, "never written"]
    )
    assert stopped.choices[0].finish_reason == "stop"
    assert stopped.choices[0].text == text[: text.index(stop)]


@pytest.mark.wide
def test_a_text_without_a_seed_tells_the_one_it_was_drawn_with(server):
    drawn = ask(server, "completions", prompt="the cat", max_tokens=8).json()
    again = ask(server, "completions", prompt="the cat", max_tokens=8, seed=drawn["seed"]).json()
    assert drawn["choices"] == again["choices"]
    assert drawn["seed"] != ask(server, "completions", prompt="the cat").json()["seed"]


@pytest.mark.wide
@pytest.mark.parametrize("stop", [None, " w", "ba"])
def test_a_stream_comes_to_the_text_that_comes_without(client, stop):
    asked = {"model": "tiny", "prompt": PROMPTS[:2], "n": 2, "max_tokens": 24, "seed": 11}
    asked |= {"extra_body": {"order": "left_to_right", "steps": 24}, "stop": stop}
    whole = client.completions.create(**asked)
    texts, reasons, pieces, usage = [""] * 4, [None] * 4, 0, None
    for chunk in client.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    ):
        usage = chunk.usage
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            reasons[choice.index] = choice.finish_reason
            pieces += bool(choice.text)
    assert texts == [choice.text for choice in whole.choices]
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert usage == whole.usage
    assert stop or pieces > 8  # they came one after the other


def events(server, path: str, **fields) -> list:
    """What a stream says, each event read as JSON."""
    with server.client.stream("POST", f"/v1/{path}", json={**fields, "stream": True}) as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines.pop() == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines]


@pytest.mark.wide
def test_infilling_is_that_of_the_pipeline(server, parts):
    fill = pipeline("infilling", model=parts[0], tokenizer=parts[1])
    options = {"num_return_sequences": 2, "steps": 3, "order": "margin"}
    found = ask(server, "infill", text=INFILLED, seed=4, **options).json()
    alone = fill(INFILLED, seed=4, return_probabilities=True, **options)
    assert [one["results"] for one in found["data"]] == alone
    (one,) = ask(server, "infill", text=INFILLED[0], seed=4).json()["data"]
    assert one["results"] == [fill(INFILLED[0], seed=4, return_probabilities=True)]


def test_infilling_tells_drafts_after_each_pass(server, parts):
    *drafts, last = events(server, "infill", text=INFILLED[0], seed=4, steps=3)
    assert [draft["step"] for draft in drafts] == [0, 1, 2]
    masks = [draft["texts"][0].count("[MASK]") for draft in drafts]
    assert masks == [2, 1, 0]
    (result,) = last["data"][0]["results"]
    fill = pipeline("infilling", model=parts[0], tokenizer=parts[1])
    assert result == fill(INFILLED[0], seed=4, steps=3, return_probabilities=True)
    assert drafts[-1]["texts"] == [result["infilled_text"]]


@pytest.mark.wide
def test_patterns_choices_and_allowed_tokens_come_as_json(server, parts):
    regex = "(cat|ball)"
    (one,) = ask(server, "infill", text="the {who:1-2} sat", patterns={"who": regex}).json()["data"]
    assert re.fullmatch(regex, one["results"][0]["fields"]["who"]["value"])
    asked = {"text": "the {blank} sat", "choices": ["cat", "ball"], "seed": 0}
    (one,) = ask(server, "infill", **asked).json()["data"]
    fill = pipeline("infilling", model=parts[0], tokenizer=parts[1])
    assert one["results"] == fill(asked["text"], choices=asked["choices"], seed=0)
    the, sat = parts[1].convert_tokens_to_ids(["the", "sat"])
    asked = {"prompt": "the", "max_tokens": 2}
    # behind the three columns of the framed prompt
    found = ask(server, "completions", **asked, allowed_token_ids={"4": [the], "3": [sat]}).json()
    assert found["choices"][0]["text"] == " sat the"
    found = ask(server, "completions", **asked, pattern="sat (sat|the)").json()
    assert found["choices"][0]["text"] in (" sat sat", " sat the")
    negative = {"guidance_scale": 1.5, "negative_prompt_ids": parts[1]("the").input_ids}
    assert ask(server, "completions", **asked, **negative).status_code == 200


def mixed_requests(count: int):
    """Requests of both kinds with options of every sort, each with the text it must come to."""
    for i in range(count):
        options = {**MIXTURE[i % len(MIXTURE)], "seed": 100 + i}
        if i % 3 == 2:
            if options.get("temperature") == 0:
                options |= {"temperature": None, "do_sample": False}
            yield "infill", {"text": INFILLED[i % len(INFILLED)], **options}
        else:
            tokens = {"max_new_tokens": 1 + i % 11}
            yield "completions", {"prompt": PROMPTS[i % len(PROMPTS)], **tokens, **options}


def expected(parts, path: str, fields: dict) -> str:
    fields = {name: value for name, value in fields.items() if value is not None}
    seed = fields.pop("seed")
    if path == "completions":
        return as_generated(parts, fields.pop("prompt"), seed, fields)
    fill = pipeline("infilling", model=parts[0], tokenizer=parts[1])
    return fill(fields.pop("text"), seed=seed, **fields)["infilled_text"]


def told(path: str, answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    found = answer.json()
    if path == "completions":
        return found["choices"][0]["text"]
    return found["data"][0]["results"][0]["infilled_text"]


@pytest.mark.parametrize("count", [12, pytest.param(64, marks=pytest.mark.slow)])
def test_mixed_requests_at_once_have_the_texts_of_each_alone(server, parts, count):
    asked = list(mixed_requests(count))
    passes, rows = server.engine.counts.passes, server.engine.counts.rows
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(lambda one: ask(server, one[0], **one[1]), asked))
    texts = [told(path, answer) for (path, _), answer in zip(asked, answers, strict=True)]
    shared = (server.engine.counts.rows - rows) / (server.engine.counts.passes - passes)
    assert texts == [expected(parts, *one) for one in asked]
    assert shared > 1  # they did meet


@pytest.mark.grid(2)
@pytest.mark.parametrize(
    ("path", "fields", "sentence"),
    [
        ("completions", {"temprature": 1}, r"no option 'temprature'.*Did you mean `temperature`\?"),
        ("completions", {"prompt": 3}, "`prompt` must be a text, a list of token ids.*, got 3"),
        ("completions", {"prompt": []}, "`prompt` must be a text"),
        ("completions", {"prompt": [[1, "a"]]}, "`prompt` must be a text"),
        ("completions", {"prompt": [99999]}, "holds the token id 99999; the vocabulary has 0 to 1"),
        (
            "completions",
            {"prompt": [[7, -1]]},
            "the token id -1; the vocabulary has 0 to 119",
        ),
        ("completions", {"prompt": "the [MASK]"}, "holds masks.*to /v1/infill"),
        ("completions", {"prompt": "the {blank}"}, "holds a blank.*to /v1/infill"),
        ("completions", {"prompt": "a", "max_tokens": 200}, "the encoder takes 128 tokens"),
        ("completions", {"prompt": "a", "temperature": -1}, "`temperature` must"),
        ("completions", {"prompt": "a", "n": 0}, "^`n` must be an integer of at least 1, got 0"),
        ("completions", {"prompt": "a", "n": 129}, "asks for 129 texts, and one gets 128 at most"),
        ("completions", {"prompt": "a", "n": 2, "num_return_sequences": 2}, "two words for one"),
        ("completions", {"prompt": "a", "logprobs": 6}, "`logprobs` must be .* 0 to 5: .*got 6"),
        ("completions", {"prompt": "a", "logprobs": True}, "`logprobs` must be .*got True"),
        ("completions", {"prompt": "a", "stream": 1}, "`stream` must be true or false, got 1"),
        ("completions", {"prompt": "a", "stream_options": {}}, "goes with stream=true"),
        ("completions", {"prompt": "a", "seed": "x"}, "`seed` must be one integer, got 'x'"),
        ("completions", {"prompt": "a", "suffix": "b"}, "`suffix` means nothing.*/v1/infill"),
        ("completions", {"prompt": "a", "best_of": 3}, "`best_of` means nothing"),
        (
            "completions",
            {"prompt": "a", "output_history": True},
            "`output_history` is what the server decides itself; leave it",
        ),
        ("completions", {"prompt": "a", "preset": "none"}, "Unknown preset 'none'"),
        ("completions", {"prompt": "a", "num_return_sequences": 0}, "^`num_return_sequences` must"),
        ("completions", {"prompt": "a", "max_tokens": -1}, "^`max_tokens` must be an integer"),
        ("completions", {"prompt": "a", "pattern": "("}, "^The `pattern` is none: The regular"),
        ("completions", {"prompt": "a", "pattern": 5}, "^The `pattern` must be a Pattern, .* int"),
        ("infill", {"text": "{x}", "patterns": {"x": 5}}, r"^The pattern of \{x\} must be"),
        ("completions", {"prompt": "a", "pattern": "a" * 2001}, "have 2001 characters.*2000"),
        ("completions", {"prompt": "a", "allowed_token_ids": {"x": [1]}}, "from columns of the"),
        ("completions", {"prompt": "a", "allowed_token_ids": {"--1": [1]}}, "from columns of the"),
        ("completions", {"prompt": "a", "allowed_token_ids": {"01": [1]}}, "from columns of the"),
        ("completions", {"prompt": "a", "allowed_token_ids": {"9" * 5000: [1]}}, "from columns"),
        ("completions", {"prompt": "a", "negative_prompt_ids": "x"}, "must be a list of token ids"),
        ("completions", {"prompt": "a", "negative_prompt_ids": [2**70]}, "beyond 64 bits"),
        ("infill", {}, "`text` must be a text or a list of texts, got None"),
        ("infill", {"text": "the {blank:x}"}, "blank"),
        ("infill", {"text": "the [MASK]", "max_new_tokens": 3}, "appends nothing"),
        ("infill", {"text": ["a [MASK]"] * 129}, "asks for 129 texts"),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else None,
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_done_is_said_in_the_librarys_sentence(
    server, path, fields, sentence, stream
):
    """With status 400 also where a stream was asked for: it has not begun."""
    asked = {"stream": True, **fields} if stream and "stream_options" not in fields else fields
    status, message = refusal(ask(server, path, **asked))
    assert status == 400
    assert re.search(sentence, message), message


def test_bodies_that_are_none_and_places_that_are_none(server):
    post = server.client.post
    assert refusal(post("/v1/infill", content=b"{")) == (
        400,
        "The body is no JSON in UTF-8, got b'{'.",
    )
    assert refusal(post("/v1/infill", content=b"[1]"))[1] == "A request is a JSON object, got [1]."
    assert refusal(post("/v1/infill", content=b"[" * 9000))[0] == 400
    sentence = "The body is longer than 10000 bytes, the most that this server reads."
    assert refusal(post("/v1/infill", content=b" " * 10_001)) == (413, sentence)
    half = refusal(post("/v1/completions", content=b'{"prompt": "\\uD83d"}'))
    assert half[0] == 400
    assert half[1].startswith(
        "The body holds half of a surrogate pair, such as \\ud83d, which is no"
    )
    whole = b'{"prompt": "the \\ud83d\\ude00", "max_tokens": 1}'
    assert post("/v1/completions", content=whole).status_code == 200
    pieces = (b" " * 4000 for _ in range(4))  # no length is declared
    assert refusal(post("/v1/infill", content=pieces)) == (413, sentence)
    status, message = refusal(server.client.get("/v1/chat/completions"))
    assert (status, "There is no GET /v1/chat/completions here" in message) == (404, True)
    assert refusal(server.client.get("/v1/completions"))[0] == 404


def hold_up(running, monkeypatch) -> threading.Event:
    """Let no pass end before the event is set."""
    hold, network = threading.Event(), type(running.engine._model)
    forward = network.forward

    def waiting(self, *args, **kwargs):
        hold.wait(30)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(network, "forward", waiting)
    return hold


@pytest.mark.wide
def test_a_client_that_leaves_frees_its_rows(server, monkeypatch):
    hold = hold_up(server, monkeypatch)
    for stream in (False, True):
        asked = {"prompt": "the cat", "n": 3, "steps": 20, "max_tokens": 20, "stream": stream}
        with pytest.raises(httpx.ReadTimeout):
            server.client.post("/v1/completions", json=asked, timeout=0.2)
    hold.set()
    until(lambda: server.engine.counts.decoding == server.engine.counts.waiting == 0)
    until(lambda: b"maskgit_clients_left_total 2.0" in server.client.get("/metrics").content)


@pytest.mark.wide
def test_patterns_are_compiled_some_at_a_time_and_hold_up_no_others(parts, monkeypatch):
    plain, inside, at_once, go_on = Reader.compile, [], [], threading.Event()

    def slow(fields, tokenizer):
        inside.append(tokenizer)
        at_once.append(len(inside))
        assert go_on.wait(30)
        inside.remove(tokenizer)
        return plain(fields, tokenizer)

    monkeypatch.setattr(Reader, "compile", staticmethod(slow))
    asked = {"prompt": "the", "max_tokens": 2, "pattern": "sat (sat|the)"}
    pool = concurrent.futures.ThreadPoolExecutor(3)
    with served(*parts, max_compiling=2) as running, pool:
        three = [pool.submit(ask, running, "completions", **asked) for _ in range(3)]
        until(lambda: len(inside) == 2)
        assert inside[0] is not inside[1]  # no tokenizer is asked by two
        assert ask(running, "completions", prompt="the", max_tokens=2).status_code == 200
        go_on.set()
        texts = [one.result().json()["choices"][0]["text"] for one in three]
    assert set(texts) <= {" sat sat", " sat the"}
    assert max(at_once) == 2


@pytest.mark.wide
def test_patterns_that_wait_are_so_many_and_a_client_that_leaves_takes_its_own_along(
    parts, monkeypatch
):
    plain, inside, go_on = Reader.compile, [], threading.Event()

    def slow(fields, tokenizer):
        inside.append(fields["prompt"])
        assert go_on.wait(30)
        return plain(fields, tokenizer)

    monkeypatch.setattr(Reader, "compile", staticmethod(slow))
    asked = {"prompt": "the", "max_tokens": 2, "pattern": "sat (sat|the)"}
    pool = concurrent.futures.ThreadPoolExecutor(3)
    with served(*parts, max_compiling=1, max_uncompiled=1) as running, pool:
        first = pool.submit(ask, running, "completions", **asked)
        until(lambda: inside)
        with pytest.raises(httpx.ReadTimeout):  # waits, and leaves
            running.client.post("/v1/completions", json={**asked, "prompt": "cat"}, timeout=0.2)
        until(lambda: b"clients_left_total 1.0" in running.client.get("/metrics").content)
        line = running.server._compilers._line
        until(lambda: line._count == 1)
        second = pool.submit(ask, running, "completions", **asked)  # has its place
        until(lambda: line._count == 2)
        status, message = refusal(ask(running, "completions", **asked))
        assert status == 429
        assert message == "1 requests wait to be compiled already, and 1 may. Try again later."
        assert ask(running, "completions", prompt="the", max_tokens=2).status_code == 200
        go_on.set()
        assert [one.result().status_code for one in (first, second)] == [200, 200]
        assert line._count == 0
    assert inside == ["the", "the"]  # the client that left had nothing compiled


@pytest.mark.wide
def test_requests_that_wait_to_be_read_are_so_many(parts, monkeypatch):
    plain, inside, go_on = Reader.begin, [], threading.Event()

    def slow(self, body):
        inside.append(body)
        assert go_on.wait(30)
        return plain(self, body)

    monkeypatch.setattr(Reader, "begin", slow)
    pool = concurrent.futures.ThreadPoolExecutor(1)
    with served(*parts, max_unread=0) as running, pool:
        first = pool.submit(ask, running, "completions", prompt="the", max_tokens=2)
        until(lambda: inside)
        status, message = refusal(ask(running, "completions", prompt="the"))
        assert status == 429
        assert message == "0 requests wait to be read already, and 0 may. Try again later."
        go_on.set()
        assert first.result().status_code == 200


@pytest.mark.wide
def test_a_server_has_its_own_time_for_an_expression(parts):
    with served(*parts, max_pattern_seconds=0.2) as running:
        status, message = refusal(
            ask(running, "completions", prompt="the", pattern="(a|b)*a(a|b){30}")
        )
        assert (status, "was not compiled within 0.2 seconds" in message) == (400, True)


@pytest.mark.wide
def test_limits_of_queue_and_time(parts, monkeypatch):
    with served(*parts, max_rows=1, max_queue=1, max_seconds=0.5) as running:
        hold = hold_up(running, monkeypatch)
        asked = {"prompt": "the cat", "max_tokens": 6, "steps": 6}
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            first = pool.submit(ask, running, "completions", **asked)
            until(lambda: running.engine.counts.decoding)
            second = pool.submit(ask, running, "completions", **asked)
            until(lambda: running.engine.counts.waiting)
            status, message = refusal(ask(running, "completions", **asked))
            assert (status, "1 rows wait already" in message) == (429, True)
            late = threading.Timer(0.6, hold.set)
            late.start()
            for answer in (first.result(), second.result()):
                status, message = refusal(answer)
                assert (status, "longer than 0.5 seconds" in message) == (408, True)
                assert answer.headers["x-should-retry"] == "false"
        running.server._max_seconds = 60.0  # for a busy machine
        assert ask(running, "completions", **asked).status_code == 200


@pytest.mark.wide
def test_a_stream_that_runs_out_of_time_says_so_as_an_event(parts, monkeypatch):
    """Its status is sent by then; OpenAI's client raises on it, with the sentence."""
    with served(*parts, max_seconds=0.3) as running:
        hold = hold_up(running, monkeypatch)
        threading.Timer(0.5, hold.set).start()
        with (
            openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client,
            pytest.raises(openai.APIError, match="longer than 0.3 seconds"),
        ):
            list(client.completions.create(model="tiny", prompt="the cat", stream=True))
        assert running.engine.counts.decoding == 0


@pytest.mark.parametrize("path", ["/health", "/metrics", "/v1/models", "/v1/models/tiny"])
def test_the_head_of_what_can_be_read_is_that_of_get_without_its_body(server, path):
    whole, head = server.client.get(path), server.client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]
    assert server.client.head("/v1/completions").status_code == 404


def test_every_address_that_is_read_answers_for_its_head(server):
    routes = [route for route in make_app(server.server).routes if "GET" in route.methods]
    assert {route.path for route in routes} >= {"/health", "/metrics", "/v1/models"}
    assert all("HEAD" in route.methods for route in routes)


@pytest.mark.wide
def test_health_metrics_and_a_log_without_texts(server, parts, caplog):
    assert server.client.get("/health").json() == {"status": "ok"}
    with caplog.at_level("INFO"):
        ask(server, "completions", prompt="the cat sat", max_tokens=2)
        ask(server, "completions", prompt="the cat sat", max_tokens=2000)
    assert "cat" not in caplog.text
    page = server.client.get("/metrics").text
    assert re.search(r'maskgit_requests_total\{path="/v1/completions",status="200"\} [1-9]', page)
    assert re.search(r"maskgit_rows_per_pass_count [1-9]", page)
    assert "maskgit_rows_waiting 0.0" in page
    with served(*parts, log_texts=True) as running, caplog.at_level("INFO"):
        ask(running, "completions", prompt="the cat sat", max_tokens=2)
    assert "the cat sat" in caplog.text


def test_a_fault_of_ours_is_told_without_the_text(server, monkeypatch, caplog):
    def broken(self, *args, **kwargs):
        raise RuntimeError("the secret text")

    monkeypatch.setattr(type(server.engine._model), "forward", broken)
    assert refusal(ask(server, "completions", prompt="the cat"))[0] == 500
    assert "secret" not in caplog.text
    assert "A request failed by RuntimeError" in caplog.text


def test_no_answer_is_held_back_until_its_head_is_acknowledged():
    """Which takes 40 ms of each request, where one follows the other on a connection."""

    async def is_sent_at_once(listening) -> bool:
        asked = asyncio.get_running_loop().create_future()

        async def connected(reader, writer):
            connection = writer.get_extra_info("socket")
            asked.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()
            await writer.wait_closed()

        async with await asyncio.start_server(connected, sock=listening):
            _, writer = await asyncio.open_connection(*listening.getsockname())
            found = bool(await asyncio.wait_for(asked, 10))
            writer.close()
            await writer.wait_closed()
            return found

    with listen("127.0.0.1", 0) as listening:
        assert asyncio.run(is_sent_at_once(listening))


def test_options_of_the_program_are_checked():
    with pytest.raises(ValueError, match="`max_rows` must be at least 1, got 0"):
        ServeArguments(model="m", max_rows=0)
    with pytest.raises(ValueError, match="`max_seconds` must be greater than 0, got 0"):
        ServeArguments(model="m", max_seconds=0)
    with pytest.raises(ValueError, match="`max_pattern_seconds` must be greater than 0, got 0"):
        ServeArguments(model="m", max_pattern_seconds=0)
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"Cannot listen at 127.0.0.1:{port}: "):
            listen("127.0.0.1", port)


@pytest.fixture
def program(parts, tmp_path):
    """The program in a process of its own, and its address."""
    folder = tmp_path / "tiny"
    parts[0].save_pretrained(folder)
    parts[1].save_pretrained(folder)
    command = [sys.executable, "-m", "hf_maskgit.serving", "--model", str(folder), "--port", "0"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    line = process.stdout.readline()
    address = re.search(r"Serving 'tiny' at (http://127\.0\.0\.1:\d+)", line)
    assert address, line
    yield process, address[1]
    process.kill()
    process.wait()


def slow_request(url: str, pool) -> concurrent.futures.Future:
    """A request that takes some time, and is in work when this returns."""
    asked = {"prompt": "the cat", "max_tokens": 100, "n": 16, "steps": 100, "seed": 0}
    sent = pool.submit(httpx.post, f"{url}/v1/completions", json=asked, timeout=60, trust_env=False)
    until(lambda: "maskgit_rows_decoding 16.0" in httpx.get(f"{url}/metrics", trust_env=False).text)
    return sent


@pytest.mark.slow
def test_sigterm_lets_what_is_in_work_end(program):
    process, url = program
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        sent = slow_request(url, pool)
        process.send_signal(signal.SIGTERM)
        assert sent.result().status_code == 200
    assert process.wait(30) in (0, -signal.SIGTERM)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health", trust_env=False)


@pytest.mark.slow
def test_kill_loses_what_was_in_flight_and_nothing_else(program, tmp_path):
    process, url = program
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        sent = slow_request(url, pool)
        process.kill()
        with pytest.raises(httpx.HTTPError):
            sent.result()
    # nothing was written anywhere, so that there is nothing to repair
    assert {path.name for path in (tmp_path / "tiny").iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
