"""Which answer a GPU session's memory holds, and who keeps what: the bookkeeping alone, without a GPU."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from models import make_spec

import trm_edge
from trm_edge import dlpack
from trm_edge.backends.fused import CudaBackend, _Latest


class Bookkept:
    """Stands in for a session of the GPU, to look at who holds what, and which answer counts as the last one."""

    def __init__(self) -> None:
        self.memory, self.steps = np.zeros((5, 3), np.float32), -1
        self.meanwhile: Callable[[], None] = lambda: None

    def stream(self) -> int:
        return 77

    def order(self, before: int, after: int) -> None:
        pass

    def refine_async(self, placed: object, steps: int, halt: float, y: int, stream: int) -> int:
        self.steps = steps
        self.meanwhile()
        return y or self.memory.ctypes.data

    def wait(self, most: int, trajectory: bool) -> tuple[Any, ...]:
        return self.memory, self.steps, 0, 0.5, 1.0, np.zeros(most, np.float32), None, None


def bookkept() -> CudaBackend:
    backend = object.__new__(CudaBackend)
    backend._session, backend._latest = Bookkept(), _Latest()
    backend.spec = make_spec("actions", answer_rows=5, dof=3)
    return backend


def asked(backend: CudaBackend, steps: int = 2, y0: object = None, out: object = None, stream: object = None) -> Any:
    arrays = (None, y0, *(None,) * 5)
    return backend.refine_on_device(arrays, steps, None, False, out, stream)


def test_answers_that_are_fed_back_keep_no_session() -> None:
    backend = bookkept()
    gone = weakref.ref(backend._session)
    answer = asked(backend)
    for _ in range(3):
        answer = asked(backend, y0=answer.y)
    del answer, backend
    gc.collect()
    assert gone() is None


def test_the_answer_before_is_written_over() -> None:
    backend = bookkept()
    first = asked(backend)
    second = asked(backend, steps=3, out=first.y)
    assert second.wait().steps_run == 3
    assert dlpack.take(second.y.__dlpack__(stream=-1)).shape == (5, 3)
    for use in (first.wait, lambda: first.y.__dlpack__(stream=-1)):
        with pytest.raises(trm_edge.TrmInputError, match="has been called again since"):
            use()


def test_a_call_that_is_refused_as_another_is_under_way_changes_nothing() -> None:
    backend = bookkept()
    busy = backend._next_call()
    backend._session.meanwhile = busy.__enter__  # of another thread, while this one's call is under way
    first = asked(backend)
    backend._session.meanwhile = lambda: None
    error = trm_edge.TrmBusyError("session: busy")
    assert not busy.__exit__(type(error), error, None)
    assert first.wait().steps_run == 2
    asked(backend, steps=3)
    with pytest.raises(trm_edge.TrmInputError, match="has been called again since"):
        first.y.__dlpack__(stream=-1)


def test_a_stream_lives_as_long_as_its_answer() -> None:
    class Pointer:
        ptr = 99

    stream = Pointer()
    gone = weakref.ref(stream)
    answer = asked(bookkept(), stream=stream)
    y = answer.y
    del stream, answer
    gc.collect()
    assert gone() is not None and y.shape == (5, 3)
    del y
    gc.collect()
    assert gone() is None
