"""An OpenAI-compatible pass-through that resolves the tool calls of any upstream.

    pip install fastapi uvicorn httpx
    python service.py --upstream http://localhost:8080/v1 --mode shadow --port 8001

The head is the one that ships for tools of anybody's (``tool_calls.trm``), or ``--head``; a larger ``--draft-bonus``
keeps more of what the upstream wrote. Look at what ``--mode shadow`` logs before the answers are used.

Point a client at port 8001 instead of the upstream. Every request goes upstream as it came; of the answer, only the
``arguments`` of tool calls are changed, and only where the head is sure enough. Then they are valid for the schema
that the request gave. Whatever goes wrong in resolving leaves the upstream's call as it was. ``--mode off`` passes
everything through untouched; ``--mode shadow`` resolves and logs, and passes the upstream's answer on. An upstream that
cannot be reached is status 502.

Of a request with tools a streamed answer is asked for whole, resolved, and sent as one event: a call cannot be resolved
before its last token. Any other answer is passed on as it comes.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.background import BackgroundTask

from trm_edge import example
from trm_edge.errors import TrmError
from trm_edge.json_slots.resolver import STEPS, ResolvedCall, Resolver

MODES = ("on", "shadow", "off")
TIMEOUT_S = 600.0
_NOT_PASSED_ON = {"host", "content-length", "connection", "accept-encoding", "transfer-encoding", "content-encoding"}

log = logging.getLogger("tool_call_service")


class Resolvers:
    """One resolver per worker thread, on the same weights."""

    def __init__(self, resolver: Resolver) -> None:
        self._first = resolver
        self._lock = threading.Lock()
        self._own = threading.local()

    def get(self) -> Resolver:
        """Return this thread's resolver."""
        if not hasattr(self._own, "resolver"):
            with self._lock:
                self._own.resolver = self._first.clone()
        resolver: Resolver = self._own.resolver
        return resolver


def resolve_answer(resolver: Resolver, request: Mapping[str, Any], answer: Any, now: dt.datetime) -> list[ResolvedCall]:
    """Replace the arguments of the tool calls in an upstream's answer, and return what was resolved.

    Calls of functions that the request did not offer, and of functions whose schema is not supported, stay.
    """
    tools = {tool["function"]["name"]: tool for tool in request.get("tools") or () if tool.get("type") == "function"}
    query = last_user_text(request.get("messages") or ())
    resolved = []
    for choice in answer.get("choices") or ():
        for call in (choice.get("message") or {}).get("tool_calls") or ():
            function = call.get("function") or {}
            tool = tools.get(function.get("name"))
            if tool is None or not isinstance(function.get("arguments"), str):
                continue
            try:
                made = resolver.resolve(tool, query, function["arguments"], now=now)
            except TrmError as error:
                log.warning("%s left as it is: %s", function["name"], error)
                continue
            log.info("%s %s, confidence %.3f: %s", made.name, made.status, made.confidence, made.json)
            resolved.append(made)
            if made.json is not None:
                function["arguments"] = made.json
    return resolved


def last_user_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of the last message of the user; parts that are not text are left out."""
    for message in reversed(messages):
        if message.get("role") == "user":
            content = message.get("content") or ""
            if isinstance(content, str):
                return content
            return " ".join(part.get("text", "") for part in content if part.get("type") == "text")
    return ""


def as_event(answer: Mapping[str, Any]) -> str:
    """Return a whole answer as the one event of a stream, and the stream's end."""
    choices = []
    for choice in answer.get("choices") or ():
        delta = dict(choice.get("message") or {})
        calls = delta.get("tool_calls") or ()
        if calls:
            delta["tool_calls"] = [{"index": i, **call} for i, call in enumerate(calls)]
        choices.append({"index": choice.get("index", 0), "delta": delta, "finish_reason": choice.get("finish_reason")})
    event = {**answer, "object": "chat.completion.chunk", "choices": choices}
    return f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n"


def make_app(
    upstream: str,
    resolver: Resolver,
    mode: str = "on",
    client: httpx.AsyncClient | None = None,
    now: Callable[[], dt.datetime] = dt.datetime.now,
) -> FastAPI:
    """Return the service; ``client`` and ``now`` are for tests."""
    if mode not in MODES:
        raise ValueError(f"mode: expected one of {', '.join(MODES)}, got {mode!r}")
    http = client or httpx.AsyncClient(timeout=TIMEOUT_S)
    resolvers = Resolvers(resolver)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await http.aclose()

    app = FastAPI(title="trm_edge tool calls", lifespan=lifespan)

    async def forward(request: Request, body: bytes, stream: bool = False) -> httpx.Response:
        url = upstream.rstrip("/") + request.url.path.removeprefix("/v1")
        asked = http.build_request(
            request.method, url, params=request.query_params, headers=_headers(request), content=body
        )
        return await http.send(asked, stream=stream)

    async def passed(request: Request, body: bytes) -> Response:
        """Pass everything on, each part of an answer as it comes."""
        came = await forward(request, body, stream=True)
        return StreamingResponse(
            came.aiter_bytes(), came.status_code, _headers(came), background=BackgroundTask(came.aclose)
        )

    @app.exception_handler(httpx.RequestError)
    async def unreachable(request: Request, error: httpx.RequestError) -> Response:
        log.error("%s: %r", upstream, error)
        return JSONResponse({"error": {"message": f"upstream: {error!r}", "type": "upstream_error"}}, 502)

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        raw = await request.body()
        asked = _object(raw)
        if mode == "off" or asked is None or not asked.get("tools"):
            return await passed(request, raw)
        streamed = bool(asked.pop("stream", False))
        asked.pop("stream_options", None)
        came = await forward(request, json.dumps(asked).encode() if streamed else raw)
        answer = _object(came.content)
        if came.status_code != 200 or answer is None:
            return Response(came.content, came.status_code, _headers(came))
        untouched = json.loads(came.content)
        try:
            await run_in_threadpool(lambda: resolve_answer(resolvers.get(), asked, answer, now()))
        except (AttributeError, KeyError, TypeError) as error:  # an answer or a request of another shape
            log.warning("not resolved: %r", error)
            answer = untouched
        answer = untouched if mode == "shadow" else answer
        if streamed:
            return StreamingResponse(iter([as_event(answer)]), media_type="text/event-stream")
        return JSONResponse(answer)

    @app.api_route("/v1/{path:path}", methods=["GET", "POST", "DELETE"])
    async def rest(request: Request, path: str) -> Response:
        return await passed(request, await request.body())

    return app


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(body)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _headers(came: Request | httpx.Response) -> dict[str, str]:
    return {k: v for k, v in came.headers.items() if k.lower() not in _NOT_PASSED_ON}


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", required=True, help="its base address, as http://localhost:8080/v1")
    parser.add_argument("--head", default=example("tool_calls.trm"), help="a .trm bundle of a head that answers slots")
    parser.add_argument("--mode", choices=MODES, default="on")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--abstain-below", type=float, default=0.0, help="confidence below which a call stays")
    parser.add_argument(
        "--draft-bonus", type=float, default=3.0, help="how much better another value has to be (logits)"
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8001)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    resolver = Resolver(
        arguments.head,
        steps=arguments.steps,
        abstain_below=arguments.abstain_below,
        draft_bonus=arguments.draft_bonus,
    )
    uvicorn.run(make_app(arguments.upstream, resolver, arguments.mode), host=arguments.host, port=arguments.port)


if __name__ == "__main__":
    main()
