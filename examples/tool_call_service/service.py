"""An OpenAI-compatible pass-through that resolves the tool calls of any upstream.

    pip install fastapi uvicorn httpx
    python service.py --upstream http://localhost:8080/v1 --mode shadow --port 8001

The head is the one that ships for tools of anybody's (``tool_calls.trm``), or ``--head``; a larger ``--draft-bonus``
keeps more of what the upstream wrote, and so does ``--abstain-below 0.5`` where messages are long. Look at what
``--mode shadow`` logs before the answers are used.

Point a client at port 8001 instead of the upstream. Every request goes upstream as it came; of the answer, only the
``arguments`` of tool calls are changed, where the head prefers other values by more than the draft's bonus. Then they
are valid for the schema that the request gave; all else keeps its bytes, and the upstream's headers come with it.
Whatever goes wrong in resolving leaves the upstream's answer as it was. ``--mode off`` passes everything through
untouched; ``--mode shadow`` does too, and then resolves and logs the arguments (which ``on`` logs with
``--log-arguments`` only). An upstream that cannot be reached is status 502.

A head reads what the user says, and in a conversation values may come from anywhere: a tool's result, or what the
assistant proposed. So a call that is valid is only touched where the user's message, of text alone, is all that was
said. In longer conversations only one that is not valid is mended: by its own values where they are all valid (a brace
is missing), or by what the user said in all of it. ``--conversations resolve`` resolves there too. Of several calls of
one function each keeps its own values, or stays as it is: what the user said does not tell which are whose.

A streamed answer is passed on as it comes, up to its first tool call: what follows is held until the last token, as a
call cannot be resolved before. The legacy ``functions`` are passed on unresolved.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import logging
import math
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache, partial
from http.cookiejar import DefaultCookiePolicy
from typing import Any, TypeVar

import httpx
import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response, StreamingResponse
from payloads import (
    Call,
    read_object,
    streamed_calls,
    until_a_call,
    whole_calls,
    with_arguments,
    with_streamed_arguments,
)
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from trm_edge import example
from trm_edge.errors import TrmError
from trm_edge.json_slots import JsonSlots
from trm_edge.json_slots.operators import MAX_TEXT
from trm_edge.json_slots.resolver import KEPT_TOOLS, STEPS, Resolver
from trm_edge.json_slots.schema import MISSING

MODES = ("on", "shadow", "off")
CONVERSATIONS = ("valid-stays", "resolve")
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
TIMEOUT_S = 600.0
STOP_S = 5  # that answers under way have to end, once the service is stopped
_LEFT = 499  # as servers log a caller that went away; nobody gets it
_OF_CONNECTIONS = {
    *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection"),
    *("te", "trailer", "transfer-encoding", "upgrade"),
}
_OF_REQUESTS = {"host", "content-length", "accept-encoding", "expect"}
_OF_ANSWERS = {"content-length", "content-encoding"}  # which httpx has decoded

Made = TypeVar("Made")
RawHeaders = list[tuple[bytes, bytes]]

log = logging.getLogger("tool_call_service")


class Worker:
    """What resolves the calls of one thread, with the last tools compiled; ``tells`` whether it logs arguments."""

    def __init__(self, resolver: Resolver, tells: bool) -> None:
        self.resolver, self.tells = resolver, tells
        self._compiled = lru_cache(maxsize=KEPT_TOOLS)(lambda text: resolver.compile(json.loads(text)))

    def arguments(self, request: Mapping[str, Any], calls: Sequence[Call], now: dt.datetime, stays: bool) -> list[str]:
        """Return the arguments of the calls of one answer to a request as they should be.

        Calls of functions that the request did not offer, and of functions whose schema is not supported, stay; in a
        longer conversation values that are valid stay, too, if ``stays``. Of several calls of a function, each has its
        own values or stays.
        """
        tools = {name: tool for tool in request["tools"] if (name := function_name(tool)) is not None}
        messages = request.get("messages") or ()
        query, stays = user_texts(messages), stays and not is_all_that_was_said(messages)
        counts = Counter(name for name, _ in calls)
        return [
            self._arguments(tools[name], query, drafted, now, stays, counts[name] > 1) if name in tools else drafted
            for name, drafted in calls
        ]

    def _arguments(
        self, tool: Mapping[str, Any], query: str, drafted: str, now: dt.datetime, stays: bool, one_of_several: bool
    ) -> str:
        name = tool["function"]["name"]
        try:
            slots = self._compiled(json.dumps(tool))
            own = own_arguments(slots, drafted) if stays or one_of_several else None
            if own is not None or one_of_several:
                why = "it is one of several calls" if one_of_several else "more was said than one message"
                log.info("%s keeps its own values, as %s%s", name, why, self._told(own))
                return own or drafted
            made = self.resolver.resolve(slots, query, drafted, now=now)
        except Exception as error:  # one call's, whatever it is: others may still be resolved
            log.warning("%s left as it is: %r", name, error)
            return drafted
        log.info("%s %s, confidence %.3f%s", name, made.status, made.confidence, self._told(made.json))
        return drafted if made.json is None else made.json

    def _told(self, arguments: str | None) -> str:
        return f": {arguments}" if self.tells else ""


class Workers:
    """One worker per thread, on the same weights."""

    def __init__(self, resolver: Resolver, tells: bool) -> None:
        self._first, self._tells = resolver, tells
        self._lock = threading.Lock()
        self._own = threading.local()

    def get(self) -> Worker:
        """Return this thread's worker."""
        if not hasattr(self._own, "worker"):
            with self._lock:
                self._own.worker = Worker(self._first.clone(), self._tells)
        worker: Worker = self._own.worker
        return worker


def own_arguments(slots: JsonSlots, drafted: str) -> str | None:
    """Return a draft's text where it is valid, or what is valid with all its values; None where one has to change."""
    inputs = slots.bind("", drafted)
    if inputs.draft.value is MISSING or (inputs.y0 < 0).any():
        return None
    return inputs.decode(inputs.y0).json


def is_all_that_was_said(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether there is one message beside instructions, and it is the user's, of text only."""
    said = [one for one in messages if one.get("role") not in ("system", "developer")]
    return [one.get("role") for one in said] == ["user"] and _is_text(said[0].get("content"))


def function_name(tool: Any) -> str | None:
    """Return the name of a function that a request offers; None for tools of another kind, or none."""
    inner = tool.get("function") if isinstance(tool, Mapping) and tool.get("type") == "function" else None
    name = inner.get("name") if isinstance(inner, Mapping) else None
    return name if isinstance(name, str) else None


def user_texts(messages: Sequence[Mapping[str, Any]], most: int = MAX_TEXT) -> str:
    """Return what the user said: the last messages that ``most`` characters hold, at least one, in their order."""
    texts: list[str] = []
    for message in reversed(messages):
        text = _text(message.get("content")) if message.get("role") == "user" else ""
        if texts and sum(map(len, texts)) + len(texts) + len(text) > most:
            break
        texts += [text] if text.strip() else []
    return "\n".join(reversed(texts))


def _text(content: Any) -> str:
    """Return the text of a message; parts that are not text are left out."""
    if isinstance(content, str):
        return content
    return " ".join(part.get("text", "") for part in content or () if part.get("type") == "text")


def _is_text(content: Any) -> bool:
    return isinstance(content, str) or all(part.get("type") == "text" for part in content or ())


class Passed(StreamingResponse):
    """An upstream's answer, each part as it comes; then ``look`` is called with all of it, in another thread."""

    def __init__(self, came: httpx.Response, look: Callable[[bytes], object] | None = None) -> None:
        super().__init__(self._parts(), came.status_code)
        self.raw_headers = _passed_on(came.headers.raw, _OF_ANSWERS if self._is_other(came) else ())
        self._came, self._look = came, look
        self._whole: bytes | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        except httpx.RequestError as error:
            log.error("the upstream broke off: %r", error)  # the server then closes the connection, as it has no end
        finally:
            await self._came.aclose()
        if self._look is not None and self._whole is not None:
            await run_in_threadpool(self._look, self._whole)

    def _is_other(self, came: httpx.Response) -> bool:
        """Whether the bytes that are sent are others than those that came."""
        return "content-encoding" in came.headers

    async def _parts(self) -> AsyncIterator[bytes]:
        parts = []
        async for part in self._came.aiter_bytes():
            if self._look is not None:
                parts.append(part)
            yield part
        self._whole = b"".join(parts)


class Resolved(Passed):
    """A stream of events, each as it comes up to the first that is a part of a call; the rest once it is whole."""

    def __init__(self, came: httpx.Response, resolve: Callable[[Sequence[Call]], list[str]]) -> None:
        super().__init__(came)
        self._resolve = resolve

    def _is_other(self, came: httpx.Response) -> bool:
        return True

    async def _parts(self) -> AsyncIterator[bytes]:
        held, calls = bytearray(), False
        try:
            async for part in self._came.aiter_bytes():
                held += part
                if not calls:
                    ready, held, calls = until_a_call(held)
                    yield bytes(ready)
        except httpx.RequestError:
            yield bytes(held)
            raise
        whole = bytes(held)
        made = await run_in_threadpool(safely, with_streamed_arguments, whole, self._resolve) if calls else None
        yield whole if made is None else made


def make_app(
    upstream: str,
    resolver: Resolver,
    mode: str = "on",
    client: httpx.AsyncClient | None = None,
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now().astimezone(),
    conversations: str = CONVERSATIONS[0],
    timeout: float = TIMEOUT_S,
    log_arguments: bool = False,
) -> FastAPI:
    """Return the service; ``client`` and ``now`` are for tests."""
    for name, value, known in (("mode", mode, MODES), ("conversations", conversations, CONVERSATIONS)):
        if value not in known:
            raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
    http = client or httpx.AsyncClient(timeout=timeout, limits=httpx.Limits(max_connections=None))
    http.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # which are a caller's own
    workers = Workers(resolver, tells=mode == "shadow" or log_arguments)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await http.aclose()

    app = FastAPI(title="trm_edge tool calls", lifespan=lifespan)

    async def forward(request: Request, body: bytes, stream: bool = False) -> httpx.Response:
        asked = http.build_request(
            request.method,
            _address(upstream, request.scope),
            headers=_passed_on(request.headers.raw, _OF_REQUESTS),
            content=body,
        )
        return await _unless_left(request, asyncio.ensure_future(http.send(asked, stream=stream)))

    @app.exception_handler(httpx.RequestError)
    async def unreachable(request: Request, error: httpx.RequestError) -> Response:
        log.error("%s: %r", upstream, error)
        return JSONResponse({"error": {"message": f"upstream: {error!r}", "type": "upstream_error"}}, 502)

    @app.exception_handler(ClientDisconnect)
    async def left(request: Request, error: ClientDisconnect) -> Response:
        log.info("the caller went away")
        return Response(status_code=_LEFT)

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        raw = await request.body()
        asked = read_object(raw)
        if mode == "off" or asked is None or not asked.value.get("tools"):
            return Passed(await forward(request, raw, stream=True))
        streamed = bool(asked.value.get("stream"))

        def calls_resolved(calls: Sequence[Call]) -> list[str]:
            return workers.get().arguments(asked.value, calls, now(), conversations == "valid-stays")

        if mode == "shadow":
            read = streamed_calls if streamed else whole_calls
            look = partial(safely, lambda content: list(map(calls_resolved, read(content))))
            return Passed(await forward(request, raw, stream=True), look)
        came = await forward(request, raw, stream=streamed)
        if streamed and came.headers.get("content-type", "").startswith("text/event-stream"):
            return Resolved(came, calls_resolved)
        content = await _unless_left(request, asyncio.ensure_future(_whole(came)))
        if came.status_code == 200:
            content = await run_in_threadpool(safely, with_arguments, content, calls_resolved) or content
        response = Response(content, came.status_code)
        response.raw_headers += _passed_on(came.headers.raw, _OF_ANSWERS)
        return response

    @app.api_route("/v1/{path:path}", methods=METHODS)
    async def rest(request: Request, path: str) -> Response:
        return Passed(await forward(request, await request.body(), stream=True))

    return app


def safely(work: Callable[..., Made], *given: Any) -> Made | None:
    """Return what is made of an upstream's answer; None where that fails, as the answer is there whatever happens."""
    try:
        return work(*given)
    except Exception as error:
        log.warning("the upstream's answer is passed on as it came: %r", error)
        return None


async def _whole(came: httpx.Response) -> bytes:
    """Return all of an answer, however it was asked for."""
    try:
        return await came.aread()
    finally:
        await came.aclose()


async def _unless_left(request: Request, work: asyncio.Future[Made]) -> Made:
    """Return what work returns, and stop it when the caller goes away: a language model's time is dear."""

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    gone = asyncio.ensure_future(left())
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientDisconnect
        return work.result()
    finally:
        gone.cancel()
        work.cancel()


def _address(upstream: str, scope: Scope) -> httpx.URL:
    """Return where a request goes: to the same path, letter by letter, behind the upstream's base."""
    base = httpx.URL(upstream.rstrip("/"))
    path: bytes = base.raw_path.rstrip(b"/") + scope["raw_path"].removeprefix(b"/v1")
    return base.copy_with(raw_path=path + (b"?" + scope["query_string"] if scope["query_string"] else b""))


def _passed_on(headers: Iterable[tuple[bytes, bytes]], dropped: Iterable[str] = ()) -> RawHeaders:
    """Return headers without those that are of one connection only, and without others that are ``dropped``."""
    pairs = [(name.lower(), value) for name, value in headers]
    named = b",".join(value for name, value in pairs if name == b"connection").lower().split(b",")
    without = {*(name.encode() for name in (*_OF_CONNECTIONS, *dropped)), *(name.strip() for name in named)}
    return [(name, value) for name, value in pairs if name not in without]


def _upstream(text: str) -> str:
    """Return an upstream's base address, as an option's value."""
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
        raise argparse.ArgumentTypeError(f"expected an address as http://localhost:8080/v1, got {text!r}")
    return text


def _port(text: str) -> int:
    if not text.isdecimal() or not int(text) < 65536:
        raise argparse.ArgumentTypeError(f"expected 0..65535, got {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"expected more than 0, got {text!r}")
    return seconds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--upstream", required=True, type=_upstream, help="its base address, as http://localhost:8080/v1"
    )
    parser.add_argument("--head", default=example("tool_calls.trm"), help="a .trm bundle of a head that answers slots")
    parser.add_argument("--mode", choices=MODES, default=MODES[0])
    parser.add_argument(
        "--conversations",
        choices=CONVERSATIONS,
        default=CONVERSATIONS[0],
        help="whether a valid call stays where more was said than one message of the user, or is resolved there too",
    )
    parser.add_argument("--steps", type=int, default=STEPS, help="of the head (default: %(default)s)")
    parser.add_argument(
        "--abstain-below",
        type=float,
        default=0.0,
        help="confidence below which a call stays; try 0.5 where messages are long (default: %(default)s)",
    )
    parser.add_argument(
        "--draft-bonus",
        type=float,
        default=4.0,
        help="how much better (in logits) another value than the upstream's has to be (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout", type=_seconds, default=TIMEOUT_S, help="seconds that the upstream has (default: %(default)g)"
    )
    parser.add_argument("--log-arguments", action="store_true", help="log what the user's calls hold in mode on, too")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=_port, default=8001)
    return parser


def main() -> None:
    """Serve."""
    parser = _parser()
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    try:
        resolver = Resolver(
            given.head, steps=given.steps, abstain_below=given.abstain_below, draft_bonus=given.draft_bonus
        )
    except (TrmError, OSError) as error:
        parser.error(str(error))
    app = make_app(
        given.upstream,
        resolver,
        given.mode,
        conversations=given.conversations,
        timeout=given.timeout,
        log_arguments=given.log_arguments,
    )
    uvicorn.run(
        app,
        host=given.host,
        port=given.port,
        server_header=False,  # as the upstream's headers come with its answers
        date_header=False,
        timeout_graceful_shutdown=STOP_S,
    )


if __name__ == "__main__":
    main()
