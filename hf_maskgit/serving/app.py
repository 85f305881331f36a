"""The addresses of the server, and what is said there."""

import asyncio
import contextlib
import json
import logging
import time
import traceback
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ..core.checkpoint_files import raised_in
from .body_limit import read_json
from .compilers import Compilers
from .completions import Completions
from .engine import Engine
from .errors import BadRequest, Failure, NoSuchModel, NoSuchPlace, Refusal
from .fields import Limits
from .infilling import Infilling
from .lines import Line
from .metrics import Metrics
from .reader import Reader
from .running import Running, Told
from .tasks import Json, Reading

logger = logging.getLogger(__name__)
_READ = ["GET", "HEAD"]  # what asks for the head alone is answered by it, wherever GET is
_PACKAGE = Path(__file__).resolve().parents[1]


class Server:
    """What the addresses share.

    Args:
        engine: with the model.
        tokenizer: of the model.
        name: under which the model is served.
        limits: of one request.
        max_bytes: longest body of a request.
        max_seconds: that a request may take; None for any.
        log_texts: whether texts are logged.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Any,
        name: str,
        limits: Limits,
        max_bytes: int,
        max_seconds: float | None,
        log_texts: bool = False,
    ) -> None:
        self.engine, self.name, self.metrics = engine, name, Metrics(engine)
        self.readers: dict[str, Reader] = {
            "/v1/completions": Completions(engine.model, tokenizer, name, limits),
            "/v1/infill": Infilling(engine.model, tokenizer, name, limits),
        }
        self._max_bytes, self._max_seconds, self._log_texts = max_bytes, max_seconds, log_texts
        self._began = int(time.time())
        # One thread: a tokenizer is not to be asked by two at once.
        self._reading = Line(1, limits.max_unread, "reader", "read")
        at_once = limits.max_compiling, limits.max_uncompiled
        self._compilers = Compilers(tokenizer, *at_once, limits.max_pattern_seconds)

    def close(self) -> None:
        """End what is in work."""
        self.engine.close()
        self._reading.close()
        self._compilers.close()

    def card(self) -> Json:
        """Return the served model, in OpenAI's words."""
        return {"id": self.name, "object": "model", "created": self._began, "owned_by": "local"}

    async def serve(self, request: Request) -> Response:
        """Answer a request for texts."""
        path, began = request.url.path, time.monotonic()
        try:
            response = await self._answer(request, path, began)
        except ClientDisconnect:
            self.metrics.left.inc()
            response = Response(status_code=499)
        except BaseException as error:
            refusal = refusal_of(error)
            if refusal is None:
                raise
            response = refused(refusal)
        if not isinstance(response, StreamingResponse):
            self._count(path, response.status_code, began)
        return response

    async def _answer(self, request: Request, path: str, began: float) -> Response:
        body = await read_json(request, self._max_bytes)
        reader = self.readers[path]
        fields = await self._reading.do(reader.begin, body)
        if reader.must_compile(fields):  # meanwhile others are read
            fields = await _unless_left(request, self._compilers.compile(fields))
        reading: Reading = await self._reading.do(reader.read, fields)
        if self._log_texts:
            logger.info("%s %s", path, json.dumps(list(reading.log), ensure_ascii=False))
        running = Running(self.engine, list(reading.tasks), self._max_seconds)
        if reading.stream:
            told = aiter(running)
            first = await _unless_left(request, anext(told), running)  # a refusal has its status
            stream = self._stream(reading, told, first, path, began)
            return StreamingResponse(stream, media_type="text/event-stream")
        results = await _unless_left(request, _results(running, len(reading.tasks)), running)
        self.metrics.texts.inc(sum(task.rows for task in reading.tasks))
        answer = reading.answer(results)
        if self._log_texts:
            logger.info("%s %s", path, json.dumps(answer, ensure_ascii=False))
        return JSONResponse(answer)

    async def _stream(
        self, reading: Reading, told: AsyncIterator[Told], first: Told, path: str, began: float
    ) -> AsyncIterator[str]:
        results: list[Any] = [None] * len(reading.tasks)
        ended = False
        try:
            async for one in _chained(first, told):
                if one.is_last:
                    results[one.task] = one.value
                word = reading.close if one.is_last else reading.tell
                for event in word(one.task, one.value):
                    yield _event(event)
            for event in reading.finish(results):
                yield _event(event)
            yield "data: [DONE]\n\n"
            ended = True
            self.metrics.texts.inc(sum(task.rows for task in reading.tasks))
            self._count(path, 200, began)
        except Exception as error:  # the status is sent already, so that it is told as an event
            refusal = refusal_of(error)
            if refusal is None:
                raise
            yield _event(refusal.body)
            ended = True
            self._count(path, refusal.status, began)
        finally:
            if not ended:
                self.metrics.left.inc()
                self._count(path, 499, began)
                await told.aclose()  # type: ignore[attr-defined]  # an asynchronous generator

    def _count(self, path: str, status: int, began: float) -> None:
        self.metrics.requests.labels(path, str(status)).inc()
        self.metrics.seconds.labels(path).observe(time.monotonic() - began)


def make_app(server: Server) -> FastAPI:
    """Return the application of ASGI around a server, which it closes when it ends."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        server.close()

    # Its pages of documentation would load programs from elsewhere.
    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    for path in server.readers:
        app.add_api_route(path, server.serve, methods=["POST"], response_model=None)

    @app.api_route("/v1/models", methods=_READ)
    async def models() -> Json:
        return {"object": "list", "data": [server.card()]}

    @app.api_route("/v1/models/{name:path}", methods=_READ)
    async def model(name: str) -> Response:
        if name != server.name:
            return refused(
                NoSuchModel(f"The model {name!r} is not served here; {server.name!r} is.")
            )
        return JSONResponse(server.card())

    @app.api_route("/health", methods=_READ)
    async def health() -> Response:
        alive = server.engine.is_alive
        return JSONResponse({"status": "ok" if alive else "stopped"}, 200 if alive else 503)

    @app.api_route("/metrics", methods=_READ)
    async def metrics() -> Response:
        return Response(server.metrics.page(), media_type="text/plain; version=0.0.4")

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        places = ", ".join((*server.readers, "/v1/models", "/health", "/metrics"))
        told = f"There is no {request.method} {request.url.path} here; there are {places}."
        return refused(NoSuchPlace(told))

    return app


def refused(refusal: Refusal) -> Response:
    """Word a refusal as OpenAI does."""
    # Their client would try again what has run into the limit of time.
    headers = {"x-should-retry": "false"} if refusal.status == 408 else None
    return JSONResponse(refusal.body, refusal.status, headers)


def refusal_of(error: BaseException) -> Refusal | None:
    """Tell what a client is told of an error; None for what is no concern of its.

    A sentence of this library's is the caller's to read; any other error is the server's fault, and
    the log has the places that it came through, but no text of the request.
    """
    if isinstance(error, Refusal):
        return error
    if not isinstance(error, Exception):
        return None
    if isinstance(error, ValueError | TypeError | ImportError) and raised_in(error, _PACKAGE):
        return BadRequest(str(error))
    places = "".join(traceback.format_tb(error.__traceback__))
    logger.error("A request failed by %s:\n%s", type(error).__name__, places)
    return Failure()


async def _results(running: Running, count: int) -> Sequence[Any]:
    results: list[Any] = [None] * count
    async for told in running:
        if told.is_last:
            results[told.task] = told.value
    return results


async def _unless_left(request: Request, work: Any, running: Running | None = None) -> Any:
    """Wait for something, unless the client leaves before; then it is ended, and what runs for it.

    Raises:
        ClientDisconnect: when it has left.
    """
    doing, leaving = asyncio.ensure_future(work), asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            if running is not None:
                running.cancel()
            raise ClientDisconnect
        return await doing
    finally:
        leaving.cancel()
        doing.cancel()


async def _chained(first: Told, rest: AsyncIterator[Told]) -> AsyncIterator[Told]:
    yield first
    async for one in rest:
        yield one


def _event(told: Json) -> str:
    return f"data: {json.dumps(told, ensure_ascii=False)}\n\n"
