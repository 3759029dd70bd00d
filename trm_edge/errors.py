"""Errors and statuses: the same numbers in C, Python and every backend.

The numbers are frozen. ``csrc/include/trm_edge/trm_edge.h`` is their other home; a test holds the two together.
"""

from __future__ import annotations

import os
from enum import IntEnum


class Status(IntEnum):
    """Outcome of a call: 0 ok, positive: an answer was written, with a reason, negative: nothing was written.

    A number that is printed by its name. Of the positive ones:

    HALTED
        The confidence reached ``halt`` before the last step.
    NONFINITE
        NaN or Inf in the context or inside the recursion; the answer is the draft, inside the limits or, where
        ``last_action`` is outside, as in OUTSIDE_LIMITS.
    OUTSIDE_LIMITS
        ``last_action`` is farther outside the bounds than one velocity step; the answer approaches them at that limit.
    """

    OK = 0
    HALTED = 1
    NONFINITE = 2
    OUTSIDE_LIMITS = 3
    INVALID_ARGUMENT = -1
    INVALID_BUNDLE = -2
    UNSUPPORTED_VERSION = -3
    IO_ERROR = -4
    OUT_OF_MEMORY = -5
    UNSUPPORTED = -6
    BUSY = -7
    NOT_BEGUN = -8
    INTERNAL = -9
    DEVICE_ERROR = -10

    def __str__(self) -> str:
        return self.name

    def __format__(self, spec: str) -> str:
        return format(self.name, spec)


class TrmError(Exception):
    """Base of every error that this package raises. ``status`` is the negative status code."""

    status: Status = Status.INTERNAL


class TrmInputError(TrmError, ValueError):
    """An argument is wrong: its name, what was expected and what was given are in the message."""

    status = Status.INVALID_ARGUMENT


class TrmBundleError(TrmError, ValueError):
    """A bundle, graph or checkpoint cannot be used: truncated, damaged, hostile, or not of this model."""

    status = Status.INVALID_BUNDLE


class TrmVersionError(TrmBundleError):
    """A bundle was written for another format version."""

    status = Status.UNSUPPORTED_VERSION


class TrmIOError(TrmError, OSError):
    """A file could not be read or written."""

    status = Status.IO_ERROR


class TrmUnsupportedError(TrmError, RuntimeError):
    """The build or machine cannot do what was asked: a missing extra, backend, precision or instruction set."""

    status = Status.UNSUPPORTED


class TrmBusyError(TrmError, RuntimeError):
    """Another thread is inside this refiner. Give each thread its own ``refiner.clone()``."""

    status = Status.BUSY


class TrmNotBegunError(TrmError, RuntimeError):
    """``step`` was called before ``begin``."""

    status = Status.NOT_BEGUN


class TrmMemoryError(TrmError, MemoryError):
    """The model or session does not fit into memory."""

    status = Status.OUT_OF_MEMORY


class TrmDeviceError(TrmError, RuntimeError):
    """A GPU or its driver failed. The refiner is of no more use; a process whose GPU failed once has to start anew."""

    status = Status.DEVICE_ERROR


_BY_STATUS: dict[int, type[TrmError]] = {
    int(cls.status): cls
    for cls in (
        TrmInputError,
        TrmBundleError,
        TrmVersionError,
        TrmIOError,
        TrmMemoryError,
        TrmUnsupportedError,
        TrmBusyError,
        TrmNotBegunError,
        TrmDeviceError,
    )
}


def error_from_status(status: int, message: str | bytes) -> TrmError:
    """Return the exception that stands for a negative status; a path in its message may be any bytes."""
    return _BY_STATUS.get(status, TrmError)(os.fsdecode(message))
