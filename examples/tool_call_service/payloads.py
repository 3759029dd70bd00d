"""Chat requests and answers as JSON texts, in which some values are exchanged.

Reading and writing JSON anew changes more than was meant: long numbers are rounded, names that come twice are dropped,
and not every text can be written. So a value is found where it stands, and everything around it keeps its letters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Call = tuple[str, str]  # a function's name, and the text of its arguments

_READER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")
_LINE_END = re.compile(r"\r\n|\r|\n")
_ENCODING = ("utf-8", "surrogatepass")  # as json.loads reads bytes
_OF_STREAMS = ("stream", "stream_options")


class Part:
    """A value that begins somewhere in a JSON text.

    Parameters
    ----------
    whole
        The text.
    begin
        Where the value begins.

    Attributes
    ----------
    value
        What ``json.loads`` makes of it.
    end
        Where it ends.
    """

    def __init__(self, whole: str, begin: int = 0) -> None:
        self.whole, self.begin = whole, begin
        self.value: Any
        self.value, self.end = _READER.raw_decode(whole, begin)

    @property
    def text(self) -> str:
        """Return the value's own letters."""
        return self.whole[self.begin : self.end]

    def __getitem__(self, name: str) -> Part:
        """Return a member of an object; null where it has none of this name, or is no object."""
        return self.members().get(name, NULL)

    def members(self) -> dict[str, Part]:
        """Return the members of an object, of those that share a name the last; none of anything else."""
        found = {}
        at = self._inside(dict)
        while at < self.end - 1:
            name, colon = _READER.raw_decode(self.whole, at)
            found[name] = Part(self.whole, self._skipped(self._skipped(colon) + 1))
            at = self._next(found[name])
        return found

    def elements(self) -> list[Part]:
        """Return the elements of an array; none of anything else."""
        found = []
        at = self._inside(list)
        while at < self.end - 1:
            found.append(Part(self.whole, at))
            at = self._next(found[-1])
        return found

    def _inside(self, kind: type) -> int:
        return self._skipped(self.begin + 1) if isinstance(self.value, kind) else self.end

    def _next(self, part: Part) -> int:
        """Return where what follows a part of this one begins: behind a comma, or this one's last letter."""
        at = self._skipped(part.end)
        return self._skipped(at + 1) if self.whole[at] == "," else at

    def _skipped(self, at: int) -> int:
        return _end_of_space(self.whole, at)


NULL = Part("null")


def read_object(body: bytes) -> Part | None:
    """Return the object that a body is; None where it is something else, or is nested too deep to be read."""
    try:
        return _read(body)
    except (ValueError, RecursionError):
        return None


def _read(body: bytes) -> Part:
    text = body.decode(*_ENCODING)
    part = Part(text, _end_of_space(text, 0))
    if _end_of_space(text, part.end) != len(text) or not isinstance(part.value, dict):
        raise ValueError("it is no JSON object")
    return part


def whole_calls(body: bytes) -> list[list[Call]]:
    """Return the function calls in an answer, of each of its choices."""
    return [[(name, part.value) for name, part in drafted] for drafted in _drafted(_read(body))]


def with_arguments(body: bytes, resolved: Callable[[list[Call]], list[str]]) -> bytes:
    """Return an answer with the arguments that ``resolved`` gives for a choice's calls; the body if none is new."""
    answer = _read(body)
    pieces, at = [], 0
    for drafted in _drafted(answer):
        for (_, part), text in zip(drafted, resolved([(name, part.value) for name, part in drafted]), strict=True):
            if text != part.value:
                pieces += [answer.whole[at : part.begin], json.dumps(text)]
                at = part.end
    return "".join([*pieces, answer.whole[at:]]).encode(*_ENCODING) if pieces else body


def _drafted(answer: Part) -> list[list[tuple[str, Part]]]:
    """Return names and arguments of the function calls in each choice of an answer, as they stand there."""
    found = []
    for choice in answer["choices"].elements():
        calls = [call["function"] for call in choice["message"]["tool_calls"].elements()]
        named = [(call["name"].value, call["arguments"]) for call in calls]
        found.append([(n, part) for n, part in named if isinstance(n, str) and isinstance(part.value, str)])
    return found


def streamed_calls(stream: bytes) -> list[list[Call]]:
    """Return the function calls in a stream of events, put together, of each choice."""
    choices: dict[Any, dict[Any, list[str]]] = {}
    for line in _LINE_END.split(stream.decode(*_ENCODING)):
        event = read_object(line.removeprefix("data:").encode(*_ENCODING)) if line.startswith("data:") else None
        for choice in event["choices"].elements() if event else ():
            for call in choice["delta"]["tool_calls"].elements():
                calls = choices.setdefault(choice["index"].text, {})
                made = calls.setdefault(call["index"].text, ["", ""])
                for i, name in enumerate(("name", "arguments")):
                    made[i] += call["function"][name].value or ""
    return [[(name, arguments) for name, arguments in calls.values()] for calls in choices.values()]


def unstreamed(request: Part) -> bytes:
    """Return a request that asks for an answer as a whole."""
    members = {name: part.text for name, part in request.members().items() if name not in _OF_STREAMS}
    return _object(members).encode(*_ENCODING)


def as_event(body: bytes) -> bytes:
    """Return a whole answer as the one event of a stream, and the stream's end."""
    answer = _read(body)
    members = {name: part.text for name, part in answer.members().items()}
    choices = answer["choices"]
    if choices.value is None or isinstance(choices.value, list):
        members["choices"] = _array(map(_as_delta, choices.elements()))
    event = _object(members | {"object": '"chat.completion.chunk"'})
    return f"data: {_LINE_END.sub(' ', event)}\n\ndata: [DONE]\n\n".encode(*_ENCODING)


def _as_delta(choice: Part) -> str:
    """Return a choice of a whole answer as one of a stream has it; what is no choice stays."""
    if not isinstance(choice.value, dict):
        return choice.text
    members = {"index": "0", "finish_reason": "null"} | {name: part.text for name, part in choice.members().items()}
    message = choice["message"].members()
    delta = {name: part.text for name, part in message.items()}
    calls = choice["message"]["tool_calls"].elements()
    if calls:
        delta["tool_calls"] = _array(_numbered(i, call) for i, call in enumerate(calls))
    members.pop("message", None)
    return _object(members | {"delta": _object(delta)})


def _numbered(index: int, call: Part) -> str:
    return _object({"index": str(index)} | {name: part.text for name, part in call.members().items()})


def _object(members: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{json.dumps(name)}: {text}" for name, text in members.items()) + "}"


def _array(elements: Iterable[str]) -> str:
    return "[" + ", ".join(elements) + "]"


def _end_of_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None  # as it may be empty
    return found.end()
