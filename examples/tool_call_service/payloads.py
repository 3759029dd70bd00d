"""Chat requests and answers as JSON texts, in which some values are exchanged.

Reading and writing JSON anew changes more than was meant: long numbers are rounded, names that come twice are dropped,
and not every text can be written. So a value is found where it stands, and everything around it keeps its letters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

Call = tuple[str, str]  # a function's name, and the text of its arguments

_READER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")
_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n)")
_DATA = re.compile(r"(?:^|(?<=[\r\n]))data:[ \t]*")
_ENCODING = ("utf-8", "surrogatepass")  # as json.loads reads bytes


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
    made = _streamed(stream.decode(*_ENCODING))
    return [[(call.name, call.arguments) for call in calls] for calls in made]


def with_streamed_arguments(stream: bytes, resolved: Callable[[list[Call]], list[str]]) -> bytes:
    """Return a stream of events with the arguments that ``resolved`` gives for a choice's calls.

    They stand where the call's arguments began; where these went on is nothing.
    """
    text = stream.decode(*_ENCODING)
    edits: list[tuple[int, int, str]] = []
    for calls in _streamed(text):
        for call, new in zip(calls, resolved([(call.name, call.arguments) for call in calls]), strict=True):
            if new != call.arguments and call.parts:
                first, *others = call.parts
                edits.append((first.begin, first.end, json.dumps(new)))
                edits += [(part.begin, part.end, '""') for part in others]
    pieces, at = [], 0
    for begin, end, piece in sorted(edits):
        pieces += [text[at:begin], piece]
        at = end
    return "".join([*pieces, text[at:]]).encode(*_ENCODING)


def until_a_call(stream: bytearray) -> tuple[bytearray, bytearray, bool]:
    """Return what of a stream may be passed on, what may not, and whether the latter begins with a part of a call.

    Else it is the line that has not ended yet.
    """
    at = 0
    for line in _LINE.finditer(stream):
        event = _event(line[0].decode(errors="replace"))  # to look at it
        if event is not None and any(True for _ in _parts_of_calls(event)):
            return stream[:at], stream[at:], True
        at = line.end()
    return stream[:at], stream[at:], False


@dataclass
class _Streamed:
    """A call of a stream, put together, and where its arguments stand."""

    name: str = ""
    arguments: str = ""
    parts: list[Part] = field(default_factory=list)


def _streamed(text: str) -> list[list[_Streamed]]:
    """Return the calls of each choice."""
    choices: dict[str, dict[str, _Streamed]] = {}
    for start in _DATA.finditer(text):
        event = _event(text, start.start())
        for choice, call in _parts_of_calls(event) if event else ():
            made = choices.setdefault(choice, {}).setdefault(call["index"].text, _Streamed())
            made.name += call["function"]["name"].value or ""
            arguments = call["function"]["arguments"]
            if isinstance(arguments.value, str):
                made.arguments += arguments.value
                made.parts.append(arguments)
    return [list(calls.values()) for calls in choices.values()]


def _event(text: str, at: int = 0) -> Part | None:
    """Return the object that a line of a stream holds, from ``data:`` on; None where it holds something else."""
    start = _DATA.match(text, at)
    try:
        event = None if start is None else Part(text, start.end())
    except (ValueError, RecursionError):
        return None
    return event if event is not None and isinstance(event.value, dict) else None


def _parts_of_calls(event: Part) -> Iterator[tuple[str, Part]]:
    """Yield the number of the choice, and the part, of every call of an event."""
    for choice in event["choices"].elements():
        for call in choice["delta"]["tool_calls"].elements():
            yield choice["index"].text, call


def _end_of_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None  # as it may be empty
    return found.end()
