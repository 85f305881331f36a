"""Serve a generator over HTTP: OpenAI's completions, and infilling.

    python -m hf_maskgit.serving --model runs/verses --port 8000
    hf-maskgit serve --model runs/verses --port 8000          # the same, where it is installed

Rows of different requests, whatever their options, share the passes of the model. What a row
becomes depends on its text, options and seed, not on its neighbours (up to rounding in float32).
"""

import logging
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch

from ..core.extras import needs
from ..hub.loading import load_generator, short_name
from ..training.recipes import check_least, option, parse_options, required

_PORTS = 65_536


@dataclass
class ServeArguments:
    """What is served, where, and how much of it."""

    model: str = required("Generator, or an encoder as it is: a folder or a name on the Hub.")
    host: str = option("127.0.0.1", "Address to listen at; 0.0.0.0 is open to every machine.")
    port: int = option(8000, "Port to listen at; 0 takes a free one.")
    served_name: str | None = option(
        None, "Name under which clients ask for the model; default: the last part of `model`."
    )
    dtype: str = option(
        "auto",
        "Of the weights; in float64 a text does not even depend on its neighbours by rounding.",
        choices=["auto", "float32", "float64", "bfloat16", "float16"],
    )
    max_rows: int = option(64, "Texts decoded side by side; further ones wait.")
    max_queue: int = option(256, "Texts that may wait; beyond, a request is told to come later.")
    max_places: int = option(16_384, "Tokens of one pass, padding included.")
    max_positions: int | None = option(
        None, "Longest text in tokens, prompt and all; default: what the model takes."
    )
    max_texts: int = option(128, "Texts that one request may ask for.")
    max_pattern_chars: int = option(2000, "Longest pattern that is compiled for a request.")
    max_pattern_seconds: float = option(30.0, "Longest time to compile a regular expression.")
    max_compiling: int = option(2, "Requests whose patterns are compiled at once; others wait.")
    max_uncompiled: int = option(
        64, "Requests that may wait for it; beyond, one is told to come later."
    )
    max_unread: int = option(
        1024, "Requests that may wait to be read; beyond, one is told to come later."
    )
    max_body: int = option(1_000_000, "Longest body of a request, in bytes.")
    max_seconds: float = option(120.0, "Longest time of one request, waiting included.")
    drain_seconds: int = option(30, "Time that requests in work get after SIGTERM.")
    log_texts: bool = option(False, "Log prompts and answers; else nothing of them is logged.")
    allow_missing_weights: bool = option(
        False, "Load a checkpoint that lacks weights; what is missing is drawn at random."
    )

    def __post_init__(self) -> None:
        """Check ranges."""
        counts = ("max_rows", "max_places", "max_positions", "max_texts", "max_pattern_chars")
        check_least(self, **dict.fromkeys((*counts, "max_compiling", "max_body"), 1))
        check_least(self, port=0, max_queue=0, max_uncompiled=0, max_unread=0, drain_seconds=0)
        for name in ("max_seconds", "max_pattern_seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be greater than 0, got {getattr(self, name)}.")


def main(argv: Sequence[str] | None = None) -> None:
    """Serve what the command line asks for, until SIGTERM or Ctrl-C."""
    (options,) = parse_options((ServeArguments,), argv, "Serve a generator over HTTP.")
    with needs("The server needs {package}", "serve"):
        import uvicorn

        from .app import Server, make_app
        from .engine import Engine
        from .fields import Limits
    listening = listen(options.host, options.port)
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    model, tokenizer = load_generator(
        options.model,
        device_map=device,
        dtype=options.dtype,
        allow_missing_weights=options.allow_missing_weights,
    )
    name = options.served_name or short_name(options.model)
    if not options.log_texts:  # warnings of texts quote them
        logging.getLogger("hf_maskgit.core").setLevel(logging.ERROR)
    engine = Engine(
        model, options.max_rows, options.max_queue, options.max_places, options.max_positions
    )
    limits = Limits(**{each.name: getattr(options, each.name) for each in fields(Limits)})
    of_requests = limits, options.max_body, options.max_seconds, options.log_texts
    app = make_app(Server(engine, tokenizer, name, *of_requests))
    host, port = listening.getsockname()[:2]
    at = f"[{host}]" if ":" in host else host  # of IPv6
    sys.stdout.write(f"Serving {name!r} at http://{at}:{port}\n")
    sys.stdout.flush()
    config = uvicorn.Config(
        app, log_level="warning", timeout_graceful_shutdown=options.drain_seconds
    )
    uvicorn.Server(config).run([listening])


def listen(host: str, port: int) -> socket.socket:
    """Take the port before the model is loaded, which may take minutes.

    Raises:
        ValueError: when it cannot be had.
    """
    if not 0 <= port < _PORTS:
        raise ValueError(f"Cannot listen at {host}:{port}: a port is from 0 to {_PORTS - 1}.")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        made = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ValueError(f"Cannot listen at {host}:{port}: {error}.") from error
    # By its protocol asyncio knows a connection on which nothing is to be held back; else what is
    # sent behind the head of an answer waits until the client has acknowledged that, 40 ms.
    return socket.socket(family, made.type, socket.IPPROTO_TCP, fileno=made.detach())
