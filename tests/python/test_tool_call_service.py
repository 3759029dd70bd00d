"""The pass-through in front of a real HTTP application: what it changes, and what it leaves."""

import asyncio
import json
import sys
import threading
import time
from pathlib import Path

import pytest

httpx = pytest.importorskip("httpx", reason="pip install fastapi uvicorn httpx")
fastapi = pytest.importorskip("fastapi", reason="pip install fastapi uvicorn httpx")
uvicorn = pytest.importorskip("uvicorn", reason="pip install fastapi uvicorn httpx")

from test_json_resolver import LIGHT, make_resolver  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "tool_call_service"))

from service import as_event, last_user_text, make_app  # noqa: E402

BROKEN = '{"room": "den", "brightness": "40 percent"'
REQUEST = {
    "model": "any",
    "messages": [{"role": "user", "content": "set the den to 40 percent"}],
    "tools": [{"type": "function", "function": LIGHT}],
}


def upstream(arguments=BROKEN, name="set_light", status=200, body=None):
    """Return an application that answers every chat with one tool call, and says what it was asked."""
    app = fastapi.FastAPI()
    app.state.asked = []

    @app.post("/chat/completions")
    async def chat(request: fastapi.Request):
        app.state.asked.append((dict(request.headers), await request.json()))
        if body is not None:
            return fastapi.Response(body, status)
        call = {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        return {"id": "a", "object": "chat.completion", "choices": [{"index": 0, "message": message}]}

    @app.get("/models")
    async def models():
        return {"data": ["any"]}

    return app


class Client:
    """Asks an application as a client over HTTP would."""

    def __init__(self, app):
        self.app = app

    def _request(self, *what, **options):
        async def ask():
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://service") as client:
                return await client.request(*what, **options)

        return asyncio.run(ask())

    def post(self, path, **options):
        return self._request("POST", path, **options)

    def get(self, path):
        return self._request("GET", path)


def client_of(app, mode="on"):
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app))
    return Client(make_app("http://upstream", make_resolver(), mode, client))


def arguments_of(answer):
    return answer["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]


def test_arguments_come_back_valid():
    app = upstream()
    answer = client_of(app).post("/v1/chat/completions", json=REQUEST, headers={"authorization": "Bearer k"}).json()
    value = json.loads(arguments_of(answer))
    assert isinstance(value["room"], str)
    assert set(value) <= {"room", "brightness", "color"}
    headers, asked = app.state.asked[0]
    assert headers["authorization"] == "Bearer k"
    assert asked == REQUEST


@pytest.mark.parametrize("mode", ["off", "shadow"])
def test_the_switch_leaves_the_upstreams_answer(mode):
    answer = client_of(upstream(), mode).post("/v1/chat/completions", json=REQUEST).json()
    assert arguments_of(answer) == BROKEN


def test_a_function_that_was_not_offered_is_left():
    answer = client_of(upstream(name="other")).post("/v1/chat/completions", json=REQUEST).json()
    assert arguments_of(answer) == BROKEN


def test_a_schema_that_is_not_supported_is_left():
    tool = {"type": "function", "function": {"name": "set_light", "parameters": {"type": "object", "if": {}}}}
    answer = client_of(upstream()).post("/v1/chat/completions", json=REQUEST | {"tools": [tool]}).json()
    assert arguments_of(answer) == BROKEN


@pytest.mark.parametrize("body", [b"no json", b"[]", b'{"choices": 3}', b'{"choices": [null]}', b"{}"])
def test_an_answer_of_another_shape_is_passed_on(body):
    came = client_of(upstream(body=body)).post("/v1/chat/completions", json=REQUEST)
    assert came.status_code == 200
    assert came.content == body or came.json() == json.loads(body)


def test_an_error_of_the_upstream_is_passed_on():
    came = client_of(upstream(body=b'{"error": "busy"}', status=503)).post("/v1/chat/completions", json=REQUEST)
    assert (came.status_code, came.json()) == (503, {"error": "busy"})


def test_a_streamed_call_comes_as_one_event():
    app = upstream()
    came = client_of(app).post("/v1/chat/completions", json=REQUEST | {"stream": True})
    assert came.headers["content-type"].startswith("text/event-stream")
    event, end, rest = came.text.split("\n\n")
    assert (end, rest) == ("data: [DONE]", "")
    call = json.loads(event.removeprefix("data: "))["choices"][0]["delta"]["tool_calls"][0]
    assert call["index"] == 0
    json.loads(call["function"]["arguments"])
    assert "stream" not in app.state.asked[0][1]


def test_what_is_not_a_chat_goes_through():
    assert client_of(upstream()).get("/v1/models").json() == {"data": ["any"]}
    plain = {name: REQUEST[name] for name in ("model", "messages")}
    assert arguments_of(client_of(upstream()).post("/v1/chat/completions", json=plain).json()) == BROKEN


class Served:
    """An application on a port of its own, as long as a ``with`` lasts."""

    def __init__(self, app):
        self.server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
        self.thread = threading.Thread(target=self.server.run)

    def __enter__(self):
        self.thread.start()
        while not self.server.started:
            assert self.thread.is_alive()
            time.sleep(0.01)
        return f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}"

    def __exit__(self, *_):
        self.server.should_exit = True
        self.thread.join()


@pytest.mark.parametrize("mode", ["on", "off"])
def test_parts_of_an_answer_are_passed_on_as_they_come(mode):
    """The upstream sends its second part only once the client has the first: if one is held back, none comes."""
    app, first_is_there = fastapi.FastAPI(), threading.Event()

    @app.post("/chat/completions")
    def chat():
        def parts():
            yield "data: 1\n\n"
            yield "data: 2\n\n" if first_is_there.wait(30) else "data: held back\n\n"

        return fastapi.responses.StreamingResponse(parts(), media_type="text/event-stream")

    asked = {name: REQUEST[name] for name in ("model", "messages")} if mode == "on" else REQUEST
    with Served(app) as upstream_url, Served(make_app(upstream_url, make_resolver(), mode)) as url:
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=asked | {"stream": True}, timeout=60) as came:
            lines = came.iter_lines()
            assert next(lines) == "data: 1"
            first_is_there.set()
            assert [line for line in lines if line] == ["data: 2"]
        assert came.headers["content-type"].startswith("text/event-stream")


def test_an_upstream_that_cannot_be_reached_is_a_bad_gateway():
    with Served(make_app("http://127.0.0.1:9", make_resolver())) as url:
        for came in (httpx.get(f"{url}/v1/models"), httpx.post(f"{url}/v1/chat/completions", json=REQUEST)):
            assert came.status_code == 502
            assert came.json()["error"]["type"] == "upstream_error"


def test_the_last_user_message_is_the_query():
    parts = [{"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"}]
    messages = [{"role": "user", "content": "x"}, {"role": "user", "content": parts}, {"role": "tool", "content": "y"}]
    assert last_user_text(messages) == "a b"
    assert last_user_text([]) == ""


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="mode: expected one of on, shadow, off"):
        make_app("http://upstream", make_resolver(), "maybe")


def test_an_answer_without_calls_is_an_event_too():
    event = as_event({"choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}]})
    assert '"delta": {"content": "hello"}' in event
