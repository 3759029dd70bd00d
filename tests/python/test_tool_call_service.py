"""The pass-through in front of a real HTTP application: what it changes, and what it leaves."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

httpx = pytest.importorskip("httpx", reason="pip install fastapi uvicorn httpx")
fastapi = pytest.importorskip("fastapi", reason="pip install fastapi uvicorn httpx")
pytest.importorskip("uvicorn", reason="pip install fastapi uvicorn httpx")

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
