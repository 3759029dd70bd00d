"""The pass-through in front of a real HTTP application: what it changes, and what it leaves."""

import asyncio
import gzip
import json
import logging
import sys
import threading
import time
from pathlib import Path

import pytest

httpx = pytest.importorskip("httpx", reason="pip install fastapi uvicorn httpx")
fastapi = pytest.importorskip("fastapi", reason="pip install fastapi uvicorn httpx")
uvicorn = pytest.importorskip("uvicorn", reason="pip install fastapi uvicorn httpx")

from test_json_resolver import LIGHT, Told, make_resolver  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "tool_call_service"))

import service  # noqa: E402
from payloads import read_object as read  # noqa: E402
from payloads import streamed_calls, whole_calls, with_arguments, with_streamed_arguments  # noqa: E402
from service import is_all_that_was_said, make_app, own_arguments, user_texts  # noqa: E402

from trm_edge.json_slots import JsonSlots  # noqa: E402

BROKEN = '{"room": "den", "brightness": "40 percent"'
REQUEST = {
    "model": "any",
    "messages": [{"role": "user", "content": "set the den to 40 percent"}],
    "tools": [{"type": "function", "function": LIGHT}],
}


VALID = '{"room": "attic"}'


class Telling(Told):
    """A resolver whose head takes these values, whatever was drafted."""

    def __init__(self):
        super().__init__({"den": 50.0, 40: 50.0})

    def clone(self):
        return self


def stream_of(arguments, name="set_light", content="", **others):
    """Return a stream of events with some text and one tool call in pieces, as upstreams send it."""
    deltas = [{"role": "assistant", "content": content}] if content else []
    deltas += [
        {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": name, "arguments": ""}}]}
    ]
    deltas += [
        {"tool_calls": [{"index": 0, "function": {"arguments": text}}]} for text in (arguments[:9], arguments[9:])
    ]
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices += [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]
    more = "".join(f', "{name}":{text}' for name, text in others.items())
    events = [f'{{"id": "a", "choices": [{json.dumps(choice)}]{more}}}' for choice in choices]
    return "".join(f"data: {event}\n\n" for event in [*events, "[DONE]"])


def upstream(arguments=BROKEN, name="set_light", status=200, body=None, headers=None):
    """Return an application that answers every chat with one tool call, and says what it was asked."""
    app = fastapi.FastAPI()
    app.state.asked = []

    @app.post("/chat/completions")
    async def chat(request: fastapi.Request):
        asked = await request.json()
        app.state.asked.append((dict(request.headers), asked))
        if body is not None:
            return fastapi.Response(body, status, headers)
        if asked.get("stream"):
            return fastapi.Response(stream_of(arguments, name), media_type="text/event-stream")
        call = {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        return {"id": "a", "object": "chat.completion", "choices": [{"index": 0, "message": message}]}

    @app.api_route("/{path:path}", methods=["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "POST"])
    async def rest(request: fastapi.Request):
        body, scope = await request.body(), request.scope
        asked = {"path": scope["raw_path"].decode(), "query": scope["query_string"].decode(), "body": body.hex()}
        response = fastapi.responses.JSONResponse({"method": request.method, **asked, **request.headers})
        response.raw_headers += [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
        return response

    return app


class Client:
    """Asks an application as a client over HTTP would."""

    def __init__(self, app):
        self.app = app

    def _request(self, *what, **options):
        async def ask():
            # it raises what an application raises, as a server would answer 500
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://service") as client:
                return await client.request(*what, **options)

        return asyncio.run(ask())

    def post(self, path, **options):
        return self._request("POST", path, **options)

    def get(self, path, **options):
        return self._request("GET", path, **options)

    def ask(self, method, path, **options):
        return self._request(method, path, **options)


def client_of(app, mode="on", resolver=None, **options):
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app))
    return Client(make_app("http://upstream", resolver or make_resolver(), mode, client, **options))


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


def test_a_streamed_call_is_resolved_where_its_arguments_stand():
    app = upstream()
    came = client_of(app, resolver=Telling()).post("/v1/chat/completions", json=REQUEST | {"stream": True})
    assert came.headers["content-type"].startswith("text/event-stream")
    ((name, made),) = streamed_calls(came.content)[0]
    assert (name, json.loads(made)) == ("set_light", {"room": "den", "brightness": 40})
    assert app.state.asked[0][1] == REQUEST | {"stream": True}


def test_what_is_not_a_chat_goes_through():
    assert client_of(upstream()).get("/v1/models").json()["path"] == "/models"
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


@pytest.mark.parametrize("mode", ["on", "shadow", "off"])
def test_parts_of_an_answer_are_passed_on_as_they_come(mode):
    """The upstream sends its second part only once the client has the first: if one is held back, none comes."""
    app, first_is_there = fastapi.FastAPI(), threading.Event()

    @app.post("/chat/completions")
    def chat():
        def parts():
            yield "data: 1\n\n"
            yield "data: 2\n\n" if first_is_there.wait(30) else "data: held back\n\n"

        return fastapi.responses.StreamingResponse(parts(), media_type="text/event-stream")

    with Served(app) as upstream_url, Served(make_app(upstream_url, make_resolver(), mode)) as url:
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=REQUEST | {"stream": True}, timeout=60) as came:
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


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="mode: expected one of on, shadow, off"):
        make_app("http://upstream", make_resolver(), "maybe")


def answer_of(arguments=BROKEN, content="null", **others):
    """Return the text of an answer; what else is in it is JSON."""
    call = (
        f'{{"id": "c1", "type": "function", "function": {{"name": "set_light", "arguments": {json.dumps(arguments)}}}}}'
    )
    message = f'{{"role": "assistant", "content": {content}, "tool_calls": [{call}]}}'
    more = "".join(f', "{name}":{text}' for name, text in others.items())
    return f'{{ "id": "a",\n "choices": [{{"index": 0, "message": {message}, "finish_reason": "tool_calls"}}]{more}}}'


NUMBERS = {"seed": "12345678901234567890.50", "logprob": "-Infinity", "odd": "NaN", "id": '"another"'}
HEADERS = {"x-request-id": "r7", "x-ratelimit-remaining-tokens": "10", "content-type": "application/json; v=2"}


class TestTheUpstreamsAnswer:
    """Once there is one, the caller gets it: the bytes that came, but for arguments that were changed."""

    @pytest.mark.parametrize("mode", ["on", "shadow", "off"])
    @pytest.mark.parametrize(
        ("arguments", "content"),
        [
            *((text, "null") for text in (VALID, "", "{}}", '{"room": "\\ud83d"}', '{"room": "\ud83d"}', "[" * 5000)),
            (BROKEN, r'"half a smile \ud83d"'),
            (BROKEN, "[" * 1000 + "]" * 1000),
            (BROKEN, "[" * 100_000 + "]" * 100_000),
        ],
    )
    def test_is_never_an_error(self, mode, arguments, content):
        body = answer_of(arguments, content, **NUMBERS).encode()
        for stream in (False, True):
            came = client_of(upstream(body=body), mode).post("/v1/chat/completions", json=REQUEST | {"stream": stream})
            assert came.status_code == 200
            assert came.content == body or mode == "on"

    @pytest.mark.parametrize("mode", ["on", "shadow", "off"])
    def test_keeps_bytes_and_headers_where_nothing_changed(self, mode):
        body = answer_of(VALID, **NUMBERS).encode()
        app = upstream(body=body, headers=HEADERS | {"connection": "x-own", "x-own": "1"})
        came = client_of(app, mode, make_resolver(abstain_below=2)).post("/v1/chat/completions", json=REQUEST)
        assert came.content == body
        assert came.headers.items() >= HEADERS.items()
        assert "x-own" not in came.headers

    def test_keeps_all_other_bytes_where_arguments_changed(self):
        app = upstream(body=answer_of(**NUMBERS).encode(), headers=HEADERS)
        came = client_of(app).post("/v1/chat/completions", json=REQUEST)
        made = arguments_of(came.json())
        assert made != BROKEN
        assert came.text == answer_of(made, **NUMBERS)
        assert came.headers.items() >= HEADERS.items()

    @pytest.mark.parametrize("mode", ["on", "shadow", "off"])
    def test_comes_uncompressed(self, mode):
        app = upstream(body=gzip.compress(answer_of(VALID).encode()), headers=HEADERS | {"content-encoding": "gzip"})
        came = client_of(app, mode, make_resolver(abstain_below=2)).post("/v1/chat/completions", json=REQUEST)
        assert came.text == answer_of(VALID)
        assert "content-encoding" not in came.headers

    def test_keeps_all_other_bytes_of_a_stream_where_arguments_changed(self):
        headers = HEADERS | {"content-type": "text/event-stream"}
        app = upstream(body=stream_of(BROKEN, content="a caf\u00e9", **NUMBERS), headers=headers)
        asked = json.dumps(REQUEST)[:-1] + ', "seed": 123456789012345678901.50, "stream": true, "stream_options": {}}'
        came = client_of(app, resolver=Telling()).post("/v1/chat/completions", content=asked)
        ((_, made),) = streamed_calls(came.content)[0]
        assert made != BROKEN
        expected = stream_of("", content="a caf\u00e9", **NUMBERS)
        assert came.text == expected.replace('"arguments": ""', f'"arguments": {json.dumps(made)}', 1)
        assert came.headers["x-request-id"] == "r7"
        assert came.headers["content-type"] == "text/event-stream"

    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    @pytest.mark.parametrize("size", [1, 7, 10_000])
    def test_is_the_same_however_its_stream_is_cut(self, end, size):
        body = (": ping\n\ndata: \n\n" + stream_of(BROKEN, content="\u00e9\u00e9")).replace("\n", end).encode()
        app = fastapi.FastAPI()

        @app.post("/chat/completions")
        async def chat():
            pieces = (body[at : at + size] for at in range(0, len(body), size))
            return fastapi.responses.StreamingResponse(pieces, media_type="text/event-stream")

        came = client_of(app, resolver=Telling()).post("/v1/chat/completions", json=REQUEST | {"stream": True})
        assert came.content == with_streamed_arguments(body, lambda _: ['{"room": "den", "brightness": 40}'])
        unresolved = client_of(app).post("/v1/chat/completions", json=REQUEST | {"stream": True, "tools": [3]})
        assert unresolved.content == body

    @pytest.mark.parametrize(
        "odd", [b"\xff", b"data: {", b'data: {"choices": 3}', b"data: " + b"[" * 100_000, b'data: {"choices": [3]}']
    )
    def test_comes_whole_beside_what_is_no_event(self, odd):
        body = odd + b"\n\n" + stream_of(BROKEN).encode() + odd
        app = upstream(body=body, headers={"content-type": "text/event-stream"})
        came = client_of(app, resolver=Telling()).post("/v1/chat/completions", json=REQUEST | {"stream": True})
        assert came.content.startswith(odd) and came.content.endswith(odd)
        if odd != b"\xff":
            assert json.loads(streamed_calls(came.content)[0][0][1])["room"] == "den"

    def test_stays_where_resolving_fails(self, caplog):
        class Failing(Telling):
            def choose(self, inputs, drafted=None):
                raise MemoryError("out of memory")

        caplog.set_level("WARNING")
        body = answer_of().encode()
        for mode in ("on", "shadow"):
            came = client_of(upstream(body=body), mode, Failing()).post("/v1/chat/completions", json=REQUEST)
            assert (came.status_code, came.content) == (200, body)
        assert caplog.text.count("out of memory") == 2
        came = client_of(upstream(), "on", Failing()).post("/v1/chat/completions", json=REQUEST | {"stream": True})
        assert came.text == stream_of(BROKEN)

    def test_of_one_call_leaves_the_others_to_be_resolved(self):
        class FailingOnce(Telling):
            def choose(self, inputs, drafted=None):
                if inputs.draft.value == {"room": "attic"}:
                    raise MemoryError("out of memory")
                return super().choose(inputs, drafted)

        body = json.loads(answer_of(VALID))
        body["choices"] += json.loads(answer_of())["choices"]
        app = upstream(body=json.dumps(body).encode())
        came = client_of(app, resolver=FailingOnce()).post("/v1/chat/completions", json=REQUEST)
        made = [json.loads(text) for ((_, text),) in whole_calls(came.content)]
        assert made == [{"room": "attic"}, {"room": "den", "brightness": 40}]

    def test_of_several_calls_of_a_function_has_their_own_values(self):
        body = json.loads(answer_of(VALID))
        calls = body["choices"][0]["message"]["tool_calls"]
        calls += [{"function": {"name": "set_light", "arguments": text}} for text in (VALID[:-1], '{"brightness": 4')]
        app = upstream(body=json.dumps(body).encode())
        came = client_of(app, resolver=Telling()).post("/v1/chat/completions", json=REQUEST)
        assert [text for _, text in whole_calls(came.content)[0]] == [VALID, VALID, '{"brightness": 4']

    @pytest.mark.parametrize("odd", [3, {"type": "function"}, {"type": "web_search"}, {"function": LIGHT}])
    def test_is_resolved_beside_tools_of_other_kinds(self, odd):
        asked = REQUEST | {"tools": [odd, *REQUEST["tools"]]}
        answer = client_of(upstream(), resolver=Telling()).post("/v1/chat/completions", json=asked).json()
        assert json.loads(arguments_of(answer)) == {"room": "den", "brightness": 40}

    @pytest.mark.parametrize("shown", [False, True])
    def test_is_logged_with_its_arguments_only_where_that_is_asked_for(self, shown, caplog):
        caplog.set_level(logging.INFO)
        client_of(upstream(), resolver=Telling(), log_arguments=shown).post("/v1/chat/completions", json=REQUEST)
        assert "set_light resolved" in caplog.text
        assert ('{"room": "den"' in caplog.text) == shown

    def test_stays_where_the_request_has_another_shape(self):
        for odd in ({"tools": 3}, {"tools": [3]}, {"messages": 3}, {"messages": ["hello"]}, {"tools": {"a": 1}}):
            came = client_of(upstream()).post("/v1/chat/completions", json=REQUEST | odd)
            assert arguments_of(came.json()) == BROKEN
            came = client_of(upstream()).post("/v1/chat/completions", json=REQUEST | odd | {"stream": True})
            assert came.text == stream_of(BROKEN)

    @pytest.mark.parametrize("depth", [1000, 100_000])
    def test_stays_where_the_request_is_too_deep_to_be_read(self, depth):
        content = json.dumps(REQUEST)[:-1] + ', "metadata": ' + "[" * depth + "]" * depth + "}"
        app = fastapi.FastAPI()

        @app.post("/chat/completions")
        async def chat(request: fastapi.Request):
            assert (await request.body()).decode() == content
            return fastapi.Response(answer_of())

        assert client_of(app).post("/v1/chat/completions", content=content).text == answer_of()


class TestShadow:
    def test_a_stream_is_passed_on_and_looked_at(self, caplog):
        caplog.set_level(logging.INFO)
        body = stream_of(BROKEN).replace("\n", "\r\n") + ": ping\n\n"
        assert streamed_calls(body.encode()) == [[("set_light", BROKEN)]]
        app = upstream(body=body, headers={"content-type": "text/event-stream"})
        came = client_of(app, "shadow", Telling()).post("/v1/chat/completions", json=REQUEST | {"stream": True})
        assert came.text == body
        assert app.state.asked[0][1] == REQUEST | {"stream": True}
        assert 'set_light resolved, confidence 1.000: {"room": "den", "brightness": 40}' in caplog.text


PAST = [{"role": "user", "content": "dim the den"}, {"role": "assistant", "content": "To 40 percent?"}]
YES = {"role": "user", "content": "Yes please go ahead"}
SHOWN = {"role": "user", "content": [{"type": "text", "text": "set the den"}, {"type": "image_url", "image_url": {}}]}
CALLED = [{"role": "assistant", "content": None, "tool_calls": []}, {"role": "tool", "content": "is at 40"}]


class TestConversations:
    """What was said before may hold the values, so a valid call stays, unless it is all resolved."""

    def made(self, messages, drafted, stream=False, **options):
        asked = client_of(upstream(drafted), resolver=Telling(), **options)
        came = asked.post("/v1/chat/completions", json=REQUEST | {"messages": messages, "stream": stream})
        if not stream:
            return arguments_of(came.json())
        return streamed_calls(came.content)[0][0][1]

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize(
        "messages", [[*PAST, YES], [*REQUEST["messages"], *CALLED], [{"role": "system"}], [], [SHOWN]]
    )
    def test_a_valid_call_stays(self, messages, stream):
        assert self.made(messages, VALID, stream) == VALID

    @pytest.mark.parametrize("stream", [False, True])
    def test_a_broken_call_is_mended_by_what_the_user_said_in_all_of_it(self, stream):
        assert json.loads(self.made([*PAST, YES], BROKEN, stream))["room"] == "den"
        assert json.loads(self.made([*REQUEST["messages"], *CALLED], '{"brightness": 300}', stream)) == {
            "room": "den",
            "brightness": 40,
        }

    @pytest.mark.parametrize("drafted", [VALID[:-1], f"```json\n{VALID}\n```", '{"room": "attic", "none": 1}'])
    def test_a_broken_call_keeps_values_that_are_valid(self, drafted):
        assert json.loads(self.made([*PAST, YES], drafted)) == json.loads(VALID)
        assert json.loads(self.made(REQUEST["messages"], drafted))["room"] == "den"

    @pytest.mark.parametrize("stream", [False, True])
    def test_a_valid_call_is_resolved_where_one_message_is_all_that_was_said(self, stream):
        messages = [{"role": "system", "content": "You are a house."}, *REQUEST["messages"]]
        assert json.loads(self.made(messages, VALID, stream))["room"] == "den"

    @pytest.mark.parametrize("stream", [False, True])
    def test_all_calls_are_resolved_where_that_is_asked_for(self, stream):
        assert json.loads(self.made([*PAST, YES], VALID, stream, conversations="resolve"))["room"] == "den"

    def test_what_cannot_be_read_has_no_values_to_keep(self):
        optional = JsonSlots(
            {"name": "set", "parameters": {"type": "object", "properties": {"room": {"type": "string"}}}}
        )
        assert [own_arguments(optional, text) for text in ("", "no call", "{", "{}")] == [None, None, "{}", "{}"]

    def test_all_that_was_said_is_one_message_of_the_user(self):
        assert is_all_that_was_said([{"role": "developer"}, {"role": "system"}, {"role": "user"}])
        assert not is_all_that_was_said([{"role": "assistant"}])
        assert not is_all_that_was_said([{"role": "user"}, {"role": "user"}])

    def test_the_query_is_what_the_user_said_last(self):
        parts = [{"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"}]
        messages = [{"role": "user", "content": one} for one in ("x", None, " ", parts)]
        messages.append({"role": "tool", "content": "y"})
        assert user_texts(messages) == "x\na b"
        assert user_texts(messages, 5) == "x\na b"
        assert user_texts(messages, 4) == user_texts(messages, 1) == "a b"
        assert user_texts([]) == ""

    def test_an_unknown_way_is_refused(self):
        with pytest.raises(ValueError, match="conversations: expected one of valid-stays, resolve, got"):
            make_app("http://upstream", make_resolver(), conversations="maybe")


class TestForwarding:
    def test_a_compressed_request_stays_one(self):
        body = gzip.compress(json.dumps(REQUEST).encode())
        headers = {"content-encoding": "gzip", "te": "trailers", "connection": "x-own", "x-own": "1", "x-key": "k"}
        came = client_of(upstream()).post("/v1/embeddings", content=body, headers=headers).json()
        assert (came["content-encoding"], came["body"], came["x-key"]) == ("gzip", body.hex(), "k")
        assert not {"te", "x-own"} & came.keys()

    def test_a_path_keeps_its_letters(self):
        came = client_of(upstream()).get("/v1/models/org%2Fname%20x?q=a%2Fb&q=c+d&empty=").json()
        assert (came["path"], came["query"]) == ("/models/org%2Fname%20x", "q=a%2Fb&q=c+d&empty=")

    @pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"])
    def test_every_method_goes_through(self, method):
        for path in ("/v1/files/1", "/v1/chat/completions"):
            assert client_of(upstream()).ask(method, path).json()["method"] == method

    def test_a_head_goes_through(self):
        with Served(upstream()) as upstream_url, Served(make_app(upstream_url, make_resolver())) as url:
            came = httpx.head(f"{url}/v1/files/1")
            assert (came.status_code, came.content) == (200, b"")
            assert int(came.headers["content-length"]) > 0

    def test_headers_may_come_twice(self):
        assert client_of(upstream()).get("/v1/models").headers.get_list("set-cookie") == ["a=1", "b=2"]

    def test_cookies_of_one_caller_do_not_go_to_another(self):
        with Served(upstream()) as upstream_url, Served(make_app(upstream_url, make_resolver())) as url:
            assert not any("cookie" in httpx.get(f"{url}/v1/models").json() for _ in range(2))

    def test_an_answer_that_breaks_off_breaks_off_for_the_caller(self, caplog):
        caplog.set_level("WARNING")
        app = fastapi.FastAPI()

        @app.post("/chat/completions")
        async def chat():
            async def parts():
                yield "data: 1\n\n"
                raise RuntimeError("this upstream dies")

            return fastapi.responses.StreamingResponse(parts(), media_type="text/event-stream")

        plain = {name: REQUEST[name] for name in ("model", "messages")} | {"stream": True}
        with Served(app) as upstream_url, Served(make_app(upstream_url, make_resolver())) as url:
            with (
                pytest.raises(httpx.RemoteProtocolError),
                httpx.stream("POST", f"{url}/v1/chat/completions", json=plain) as came,
            ):
                came.read()
            assert httpx.post(f"{url}/v1/chat/completions", json=REQUEST).status_code == 502
        assert "the upstream broke off" in caplog.text

    def test_a_call_that_breaks_off_is_passed_on_as_far_as_it_came(self, caplog):
        caplog.set_level("WARNING")
        app, begun = fastapi.FastAPI(), stream_of(BROKEN)[:-60]

        @app.post("/chat/completions")
        async def chat():
            async def parts():
                yield begun
                await asyncio.sleep(0.2)
                raise RuntimeError("this upstream dies")

            return fastapi.responses.StreamingResponse(parts(), media_type="text/event-stream")

        got = b""
        with (
            Served(app) as upstream_url,
            Served(make_app(upstream_url, Telling())) as url,
            pytest.raises(httpx.RemoteProtocolError),
            httpx.stream("POST", f"{url}/v1/chat/completions", json=REQUEST | {"stream": True}) as came,
        ):
            for part in came.iter_bytes():
                got += part
        assert got.decode() == begun
        assert "the upstream broke off" in caplog.text

    def test_a_caller_who_goes_away_stops_the_upstream(self):
        app, stopped = fastapi.FastAPI(), threading.Event()

        @app.post("/chat/completions")
        async def chat(request: fastapi.Request):
            await request.body()
            if (await asyncio.wait_for(request.receive(), 5))["type"] == "http.disconnect":
                stopped.set()

        with Served(app) as upstream_url, Served(make_app(upstream_url, make_resolver())) as url:
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{url}/v1/chat/completions", json=REQUEST, timeout=0.5)
            assert stopped.wait(10)


class TestStart:
    @pytest.mark.parametrize(
        ("options", "told"),
        [
            (["--upstream", "foo"], "expected an address as http://localhost:8080/v1, got 'foo'"),
            (["--upstream", "http://"], "expected an address"),
            (["--upstream", "ftp://host/v1"], "expected an address"),
            (["--upstream", "http://host:port/v1"], "--upstream: 'http://host:port/v1': "),
            (["--upstream", "http://host/v1?key=1"], "expected an address"),
            (["--head", "/nonexistent"], "/nonexistent"),
            (["--head", __file__], "error: "),
            (["--steps", "0"], "steps: expected an int in 1..64, got 0"),
            (["--port", "70000"], "expected 0..65535"),
        ],
    )
    def test_what_cannot_work_is_refused(self, options, told, monkeypatch, capsys):
        monkeypatch.setattr(sys, "argv", ["service.py", "--upstream", "http://127.0.0.1:9/v1", *options])
        monkeypatch.setattr(service.uvicorn, "run", lambda *_, **__: pytest.fail("it starts"))
        with pytest.raises(SystemExit) as left:
            service.main()
        assert left.value.code == 2
        assert told in capsys.readouterr().err


class TestPayloads:
    def test_of_members_that_share_a_name_the_last_counts(self):
        part = read(b' {"a" : 1 , "b":{}, "a":[ {"c": "\\u0041"} , 2.50,[] ]} ')
        assert [one.text for one in part["a"].elements()] == ['{"c": "\\u0041"}', "2.50", "[]"]
        assert part["a"].elements()[0]["c"].value == "A"
        assert part["b"]["none"].value is None and not part["b"].elements()

    @pytest.mark.parametrize("body", [b"", b"{", b"{} {}", b"[]", b"3", b'{"a": 1}}', b"\xff{}", b'{"a":' * 5000])
    def test_what_is_no_object_is_none(self, body):
        assert read(body) is None

    def test_several_calls_are_exchanged_where_they_stand(self):
        calls = [{"function": {"name": name, "arguments": "{}"}} for name in "abc"]
        body = json.dumps({"choices": [{"message": {"tool_calls": calls[:2]}}, {"message": {"tool_calls": calls[2:]}}]})
        made = with_arguments(body.encode(), lambda found: ["1" if name != "b" else text for name, text in found])
        assert whole_calls(made) == [[("a", "1"), ("b", "{}")], [("c", "1")]]
        assert json.loads(made)["choices"][0]["message"]["tool_calls"][1] == calls[1]
        assert with_arguments(body.encode(), lambda found: [text for _, text in found]) == body.encode()

    def test_calls_of_several_choices_are_exchanged_where_they_stand_in_a_stream(self):
        def event(choice, *calls):
            parts = [{"index": i, "function": {"name": n, "arguments": a}} for i, n, a in calls]
            return f"data: {json.dumps({'choices': [{'index': choice, 'delta': {'tool_calls': parts}}]})}\n"

        body = (
            event(0, (0, "a", "{"), (1, "b", None)) + event(1, (0, "c", "")) + event(0, (0, None, "}"), (1, "b", "{"))
        )
        assert streamed_calls(body.encode()) == [[("a", "{}"), ("bb", "{")], [("c", "")]]
        asked = []

        def resolved(found):
            asked.append(found)
            return [text if name == "c" else name for name, text in found]

        made = with_streamed_arguments(body.encode(), resolved)
        assert streamed_calls(made) == [[("a", "a"), ("bb", "bb")], [("c", "")]]
        assert asked == streamed_calls(body.encode())
        assert made.count(b'"arguments": ""') == 2
        assert with_streamed_arguments(body.encode(), lambda found: [text for _, text in found]) == body.encode()
