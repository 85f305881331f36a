"""A server on a port of loopback, in threads of this process."""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import httpx
import uvicorn

from hf_maskgit.serving.app import Server, make_app
from hf_maskgit.serving.engine import Engine
from hf_maskgit.serving.fields import Limits
from hf_maskgit.serving.program import listen


@contextlib.contextmanager
def served(model: Any, tokenizer: Any, **changes: Any) -> Iterator[SimpleNamespace]:
    """Serve a model as "tiny": its `url`, the `engine`, and a `client` that asks there.

    Args:
        model: the generator.
        tokenizer: of it.
        **changes: of the engine, the limits and the server, by name.
    """
    own = {n: changes.pop(n) for n in ("max_rows", "max_queue", "max_positions") if n in changes}
    limits = {f.name: changes.pop(f.name) for f in fields(Limits) if f.name in changes}
    engine = Engine(model, **own)
    of_server = {"max_bytes": 10_000, "max_seconds": 60.0, **changes}
    server = Server(engine, tokenizer, "tiny", Limits(**limits), **of_server)
    listening = listen("127.0.0.1", 0)
    config = uvicorn.Config(make_app(server), log_level="warning", timeout_graceful_shutdown=5)
    runner = uvicorn.Server(config)
    thread = threading.Thread(target=runner.run, args=([listening],), daemon=True)
    thread.start()
    until(lambda: runner.started)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
            yield SimpleNamespace(url=url, engine=engine, client=client, server=server)
    finally:
        runner.should_exit = True
        thread.join(20)
        listening.close()
    assert not thread.is_alive()


def until(condition: Any, seconds: float = 30.0) -> None:
    """Wait for something to come true.

    Raises:
        TimeoutError: when it does not.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"Not true after {seconds} seconds.")
        time.sleep(0.01)
