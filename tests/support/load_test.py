"""Measures the server: throughput beside single texts, waiting times, memory, wrong texts.

    python -m tests.support.load_test --num_requests 200
    python -m tests.support.load_test --options equal --num_requests 64
    python -m tests.support.load_test --size tiny --num_requests 1000 --rounds 10 --concurrent 16

The server runs in a process of its own, and is asked by as many clients at once as the line says,
for texts of other prompts, seeds and lengths; with other options too, or with the same. Every text
is compared with what the pipeline writes of the same prompt, options and seed alone: a text that
differs is counted as wrong, and ends the program with exit code 1. What is called sequential is
that pipeline, in this process, without any server. Rounds, its own among them, are interleaved and
told by their median, since a machine is seldom idle.
"""

import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import torch
from transformers import BertConfig, pipeline

from hf_maskgit import MaskGitConfig, MaskGitForMaskedLM
from hf_maskgit.core.special_tokens import tokenizer_fields
from hf_maskgit.hub.loading import load_generator
from hf_maskgit.training.recipes import check_least, option, parse_options
from tests.support.project import ROOT
from tests.support.tiny_tokenizers import wordpiece_tokenizer

PROMPTS = ("the cat", "And God said", "is it the ball", "the cat sat on the mat, playing")
# Options of the requests, one after the other. Those of llada's have an attention cache.
MIXTURES: dict[str, tuple[dict[str, Any], ...]] = {
    "mixed": (
        {"steps": 8},
        {"preset": "llada", "steps": 16},
        {"order": "random", "top_p": 0.9, "steps": 12},
        {"preset": "remdm", "steps": 16},
        {"do_sample": False, "steps": 8},
    ),
    "equal": ({"steps": 8},),
}
# Width, layers and heads of the generator that is made where none is named.
SIZES = {"small": (384, 6, 6), "tiny": (32, 2, 2)}


@dataclass
class LoadArguments:
    """What is served, and how hard it is asked."""

    model: str | None = option(
        None, "Generator; default: a new one with the weights of seed 0 and 120 tokens."
    )
    size: str = option("small", "Of the new one: 6 layers of 384, or 2 of 32.", choices=list(SIZES))
    options: str = option(
        "mixed", "Of the requests: of five sorts, or all the same.", choices=list(MIXTURES)
    )
    num_requests: int = option(200, "Requests of each round, of a text each.")
    concurrent: list[int] | None = option(None, "Clients at once; default: 1, 4 and 16.")
    rounds: int = option(3, "Rounds of all of them.")
    num_tokens: int = option(16, "New tokens of a text.")
    num_checked: int = option(40, "Different requests, whose texts are all known; the rest repeat.")
    dtype: str = option("float64", "Of the weights; in float32 rounding may change a text.")
    num_threads: int = option(1, "Threads of torch, of the server and of this process.")

    def __post_init__(self) -> None:
        """Check ranges."""
        names = ("num_requests", "rounds", "num_tokens", "num_checked", "num_threads")
        check_least(self, **dict.fromkeys(names, 1))


@dataclass(frozen=True)
class Round:
    """One round: seconds in all, seconds of each request, and how many texts were wrong."""

    seconds: float
    waits: list[float]
    wrong: int


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print a table, and end with exit code 1 where a text was wrong."""
    (options,) = parse_options((LoadArguments,), argv, "Measure the server.")
    torch.set_num_threads(options.num_threads)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.model or new_model(Path(scratch), options.size)
        requests = [request(i, options) for i in range(options.num_checked)]
        print(f"{options.num_checked} texts are written one by one ...", flush=True)
        write = writer(folder, options)
        expected, _ = alone(write, requests)
        with serving(folder, options) as (url, process):
            memory = [resident(process)]
            found, alone_seconds = {}, []
            for counted in measure(url, requests, expected, options):
                found = counted
                alone_seconds.append(alone(write, requests)[1] / len(requests))
                memory.append(resident(process))
    report(found, statistics.median(alone_seconds), options)
    each = options.num_requests * len(found)
    told = ", ".join(f"{size} after {each * i}" for i, size in enumerate(memory))
    print(f"resident memory of the server, by requests: {told}")
    wrong = sum(one.wrong for rounds in found.values() for one in rounds)
    print(f"wrong texts: {wrong} of {sum(len(one.waits) for r in found.values() for one in r)}")
    sys.exit(1 if wrong else 0)


def request(number: int, options: LoadArguments) -> dict[str, Any]:
    """One of the different requests, in OpenAI's words."""
    mixture = MIXTURES[options.options]
    own = mixture[number % len(mixture)]
    prompt = PROMPTS[number % len(PROMPTS)]
    return {"prompt": prompt, "max_tokens": options.num_tokens, "seed": number, **own}


def writer(folder: str, options: LoadArguments) -> Any:
    """Return the pipeline that writes a text alone."""
    model, tokenizer = load_generator(folder, dtype=options.dtype)
    return pipeline("text-generation", model=model, tokenizer=tokenizer)


def alone(write: Any, requests: Sequence[dict[str, Any]]) -> tuple[list[str], float]:
    """Write the text of each request by the pipeline, and take the time."""
    texts: list[str] = []
    began = 0.0
    for asked in (requests[0], *requests):  # the first time nothing is warm
        own = dict(asked)
        prompt, own["max_new_tokens"] = own.pop("prompt"), own.pop("max_tokens")
        (record,) = write(prompt, return_full_text=False, **own)
        texts.append(record["generated_text"])
        began = began or time.perf_counter()
    return texts[1:], time.perf_counter() - began


def new_model(folder: Path, size: str) -> str:
    """Save the generator that is measured where none is named."""
    width, layers, heads = SIZES[size]
    tokenizer = wordpiece_tokenizer()
    torch.manual_seed(0)
    encoder = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=128,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = MaskGitConfig(text_config=encoder, **tokenizer_fields(tokenizer))
    MaskGitForMaskedLM(config).save_pretrained(folder / "load")
    tokenizer.save_pretrained(folder / "load")
    return str(folder / "load")


@contextlib.contextmanager
def serving(folder: str, options: LoadArguments) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Run the server in a process of its own: its address, and the process."""
    words = ["--model", folder, "--port", "0", "--dtype", options.dtype, "--max_queue", "4096"]
    threads = {"OMP_NUM_THREADS": str(options.num_threads)}
    process = subprocess.Popen(
        [sys.executable, "-m", "hf_maskgit.serving", *words],
        cwd=ROOT,
        env={**os.environ, **threads},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    address = re.search(r"http://\S+", process.stdout.readline())
    try:
        if address is None:
            raise RuntimeError("The server has not started; what it says stands above.")
        yield address[0], process
    finally:
        process.terminate()
        process.wait(60)


def measure(
    url: str, requests: Sequence[dict[str, Any]], expected: Sequence[str], options: LoadArguments
) -> Iterator[dict[int, list[Round]]]:
    """Make all rounds, those of one number of clients between those of the others.

    Yields:
        All that were made, behind each round of all numbers.
    """
    found: dict[int, list[Round]] = {count: [] for count in options.concurrent or (1, 4, 16)}
    with httpx.Client(base_url=url, timeout=600, trust_env=False) as client:
        client.post("/v1/completions", json=requests[0])
        for _ in range(options.rounds):
            for count, rounds in found.items():
                rounds.append(one_round(client, count, requests, expected, options.num_requests))
                print(f"{count} at once: {rounds[-1].seconds:.2f} s", flush=True)
            yield found


def one_round(
    client: httpx.Client,
    count: int,
    requests: Sequence[dict[str, Any]],
    expected: Sequence[str],
    num_requests: int,
) -> Round:
    """Send all requests of a round by `count` clients."""

    def send(number: int) -> tuple[float, bool]:
        which, began = number % len(requests), time.perf_counter()
        answer = client.post("/v1/completions", json=requests[which])
        took = time.perf_counter() - began
        right = answer.status_code == 200
        return took, right and answer.json()["choices"][0]["text"] == expected[which]

    began = time.perf_counter()
    with ThreadPoolExecutor(count) as pool:
        found = list(pool.map(send, range(num_requests)))
    seconds = time.perf_counter() - began
    return Round(seconds, [took for took, _ in found], sum(not right for _, right in found))


def report(found: dict[int, list[Round]], alone: float, options: LoadArguments) -> None:
    """Print a line per number of clients: texts per second, beside sequential, p50 and p99."""
    print(f"options of the requests: {options.options}")
    print(f"sequential, without a server: {1 / alone:.2f} texts per second")
    for count, rounds in found.items():
        rate = options.num_requests / statistics.median(one.seconds for one in rounds)
        waits = sorted(wait for one in rounds for wait in one.waits)
        told = {
            "at once": count,
            "texts per second": round(rate, 2),
            "beside sequential": round(rate * alone, 2),
            "p50 in s": round(waits[len(waits) // 2], 3),
            "p99 in s": round(waits[min(int(len(waits) * 0.99), len(waits) - 1)], 3),
        }
        print(json.dumps(told))


def resident(process: "subprocess.Popen[str]") -> str:
    """How much memory a process has, where the system tells."""
    status = Path(f"/proc/{process.pid}/status")
    if not status.is_file():
        return "unknown"
    lines = status.read_text().splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith("VmRSS"))


if __name__ == "__main__":
    main()
