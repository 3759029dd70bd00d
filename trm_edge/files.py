"""Files that are whole or absent: written beside their place, flushed, then renamed."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from .errors import TrmInputError, TrmIOError, TrmMemoryError
from .inputs import Array, stored_arguments

StrPath = str | os.PathLike[str]
"""Where a file is: what ``open`` takes, file descriptors apart."""

_UNFINISHED = ".trm-edge."  # what the name of an atomic write's temporary begins with


def read_file(path: StrPath, check_start: Callable[[bytes, int], object] | None = None) -> bytes:
    """Return the content of ``path``, or raise :class:`TrmIOError`; :class:`TrmMemoryError` where it is too large.

    ``check_start`` is given the first 8 bytes and the file's size before more is read, and raises where they are wrong.
    """
    file = _opened(path, "cannot be read")
    try:
        with file as stream:
            if check_start is not None:
                check_start(stream.peek(8)[:8], os.fstat(stream.fileno()).st_size)
            return stream.read()
    except MemoryError:
        raise TrmMemoryError(f"{os.fspath(path)}: does not fit into memory") from None
    except OSError as error:
        raise TrmIOError(f"{os.fspath(path)}: cannot be read: {error.strerror or error}") from None


def read_npz(path: StrPath) -> dict[str, Array]:
    """Return the arrays of an ``.npz`` file, without pickles.

    Raises :class:`TrmIOError` where the file cannot be opened, :class:`TrmInputError` where it is something else.
    """
    what = "not a readable .npz file"
    file = _opened(path, what)
    try:
        with file as stream, np.errstate(all="ignore"), np.lib.npyio.NpzFile(stream, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except Exception as error:  # the readers of zip, of its compressions and of headers raise whatever they meet
        raise TrmInputError(f"{os.fspath(path)}: {what}: {error}") from None
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # a member that is no .npy file comes as its bytes
            raise TrmInputError(f"{os.fspath(path)}: {what}: {name} is not an array")
    return arrays


def _opened(path: StrPath, wrong: str) -> BufferedReader:
    """Open a regular file, or raise :class:`TrmIOError` that says so; opening a pipe would wait for a writer."""
    try:
        if stat.S_ISREG(os.stat(path).st_mode):
            return open(path, "rb")
        reason = "not a regular file"
    except (OSError, ValueError) as error:  # ValueError: a null character
        reason = str(getattr(error, "strerror", None) or error)
    raise TrmIOError(f"{os.fspath(path)}: {wrong}: {reason}")


def read_call(path: StrPath) -> dict[str, Any]:
    """Return the arguments of ``refine`` that an ``.npz`` file holds; raises as :func:`read_npz`."""
    arrays = read_npz(path)
    try:
        return stored_arguments(arrays)
    except TrmInputError as error:
        raise TrmInputError(f"{os.fspath(path)}: {error}") from None


def write_atomically(path: StrPath, data: bytes) -> None:
    """Write ``data`` to ``path`` so that a reader sees the old file or the new one, never a part of either.

    A symbolic link is followed. What is there and is not a regular file, a device say, is refused rather than replaced.
    """
    target = _target(path)
    if os.path.exists(target) and not os.path.isfile(target):
        raise TrmIOError(f"{os.fspath(path)}: cannot be written: not a regular file")
    try:
        # Not tempfile, whose files only their owner may read: what a umask leaves of 0o666 is known to nobody else.
        beside = target.parent / f"{_UNFINISHED}{secrets.token_hex(8)}"
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(beside, target)
        except BaseException:
            os.unlink(beside)
            raise
    except OSError as error:
        raise TrmIOError(f"{target}: cannot be written: {error.strerror or error}") from None


def _target(path: StrPath) -> Path:
    """Return the file that is written where a path is named: behind symbolic links."""
    return Path(os.path.realpath(path))


def refuse_overwriting(output: StrPath, *sources: StrPath | None) -> None:
    """Raise where ``output`` is one of the files that are read: the only copy would be lost."""
    for source in sources:
        try:
            same = source is not None and os.path.samefile(output, source)
        except (OSError, ValueError):  # one of them is not there; a null character
            continue
        if same:
            raise TrmInputError(f"{os.fspath(output)}: is the file that is read; name another one to write")


def check_folder(path: StrPath) -> None:
    """Raise where there is no folder to write ``path`` into, so that it is known before the work."""
    folder = Path(path).parent
    if not folder.is_dir():
        raise TrmIOError(f"{os.fspath(path)}: cannot be written: there is no folder {folder}")
    if Path(path).is_dir():
        raise TrmIOError(f"{os.fspath(path)}: cannot be written: is a folder; name a file in it")
    target = _target(path)
    if (target.is_file() or not target.exists()) and not os.access(target.parent, os.W_OK | os.X_OK):
        raise TrmIOError(f"{os.fspath(path)}: cannot be written: no permission to write into {target.parent}")


def remove_unfinished(folder: Path) -> None:
    """Delete what killed processes left of their atomic writes; only where no other process writes into ``folder``."""
    for path in folder.glob(f"{_UNFINISHED}*"):
        path.unlink(missing_ok=True)
