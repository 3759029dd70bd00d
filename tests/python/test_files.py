"""Files: whole or absent, only regular ones, and output that nobody reads."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import trm_edge
from trm_edge import cli, files, load
from trm_edge.bundle import read_bundle
from trm_edge.cli import EXAMPLE, main
from trm_edge.errors import TrmBundleError, TrmInputError, TrmIOError, TrmMemoryError
from trm_edge.files import check_folder, read_file, read_npz, write_atomically


def test_arrays_of_a_missing_or_truncated_file_are_one_clear_error(tmp_path: Path) -> None:
    np.savez(tmp_path / "whole.npz", x=np.arange(1000))
    assert read_npz(tmp_path / "whole.npz")["x"].sum() == 499500
    whole = (tmp_path / "whole.npz").read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.npz").write_bytes(whole[:size])
        with pytest.raises(TrmInputError, match=r"cut\.npz: not a readable \.npz file"):
            read_npz(tmp_path / "cut.npz")
    for absent in ("missing.npz", ""):
        with pytest.raises(TrmIOError, match=r"not a readable \.npz file"):
            read_npz(tmp_path / absent)


@pytest.mark.parametrize("shape", ["(1000000000000,)", f"({10**30},)", "(True,)", "(1,", "(-1, -1)"])
def test_a_shape_that_is_none_is_one_clear_error(shape: str, tmp_path: Path) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    with zipfile.ZipFile(tmp_path / "odd.npz", "w") as members:
        members.writestr("x.npy", b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + bytes(4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(TrmInputError, match=r"odd\.npz: not a readable \.npz file"):
            read_npz(tmp_path / "odd.npz")


def test_a_member_that_is_no_array_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as members:
        members.writestr("x.npy", b"text")
    with pytest.raises(TrmInputError, match=r"text\.npz: not a readable \.npz file: x is not an array"):
        read_npz(tmp_path / "text.npz")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_flipped_bits_of_an_npz_file_are_one_clear_error(compression: int, tmp_path: Path) -> None:
    stream, path = io.BytesIO(), tmp_path / "flipped.npz"
    np.save(stream, np.ones((20, 4), np.float32))
    with zipfile.ZipFile(path, "w", compression) as members:
        members.writestr("x.npy", stream.getvalue())
    whole, refused = path.read_bytes(), 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            read_npz(path)
        except TrmInputError:
            refused += 1
    assert refused > len(whole) / 4


def test_a_file_is_named_once_and_one_beyond_memory_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise MemoryError

        peek = read

    with pytest.raises(TrmIOError, match=r"^none\.trm: cannot be read: No such file"):
        read_bundle("none.trm")
    monkeypatch.setattr(files, "_opened", lambda *_: Endless())
    with pytest.raises(TrmMemoryError, match=r"large\.trm: does not fit into memory"):
        read_bundle("large.trm")


@pytest.mark.parametrize(("name", "reason"), [("missing.pt", "No such file or directory"), (".", "not a regular file")])
def test_a_file_that_cannot_be_opened_is_named_once(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(TrmIOError) as raised:
        read_file(tmp_path / name)
    assert str(raised.value) == f"{tmp_path / name}: cannot be read: {reason}"


@pytest.mark.parametrize("read", [read_bundle, load], ids=["read_bundle", "load"])
@pytest.mark.parametrize("start", [b"plain text", b"PK\x03\x04 and more"], ids=["text", "zip"])
def test_a_large_file_of_another_kind_is_not_read(start: bytes, read: Callable[[Path], object], tmp_path: Path) -> None:
    with open(tmp_path / "large", "wb") as file:
        file.write(start)
        file.truncate(1 << 38)  # of no blocks; no machine would read it
    with pytest.raises(TrmBundleError, match="large: not a"):
        read(tmp_path / "large")


def test_a_device_or_pipe_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(TrmIOError, match="not a regular file"):
        write_atomically(pipe, b"x")
    with pytest.raises(TrmIOError, match="not a regular file"):
        read_npz(pipe)  # rather than wait for a writer
    assert pipe.is_fifo()
    assert [p.name for p in tmp_path.iterdir()] == ["pipe"]


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """Yield a folder that everybody may look into, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


def test_a_folder_that_may_not_be_written_is_named_before_the_work(shared_folder: Path) -> None:
    folder = shared_folder / "locked"
    folder.mkdir(mode=0o555)
    (shared_folder / "link").symlink_to(folder / "made.trm")
    child = os.fork()
    if child == 0:
        wrong = 1
        with contextlib.suppress(BaseException):
            if os.geteuid() == 0:  # who may write everywhere
                os.setuid(65534)
            for path in (folder / "made.trm", shared_folder / "link"):
                with pytest.raises(
                    TrmIOError, match=f"{path}: cannot be written: no permission to write into {folder}"
                ):
                    check_folder(path)
            check_folder("/dev/null")
            wrong = 0
        os._exit(wrong)
    assert os.waitpid(child, 0)[1] == 0


def test_a_symlink_to_itself_is_no_crash_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    check_folder(tmp_path / "loop")
    write_atomically(tmp_path / "loop", b"x")
    assert (tmp_path / "loop").read_bytes() == b"x"


def test_a_symlink_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real.trm").write_bytes(b"old")
    (tmp_path / "link.trm").symlink_to("real.trm")
    write_atomically(tmp_path / "link.trm", b"new")
    assert (tmp_path / "link.trm").is_symlink()
    assert (tmp_path / "real.trm").read_bytes() == b"new"


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    write_atomically(path, b"content")
    assert read_file(path) == b"content"


def test_permissions_follow_the_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patch:
            patch.delattr(os, "umask")  # it is the process's: another thread's new file would get what is set here
            write_atomically(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("name", [b"caf\xe9.trm", b"\xff" * 40, "ü".encode() * 120])
def test_a_path_of_any_bytes_gives_a_plain_error(name: bytes, tmp_path: Path) -> None:
    with pytest.raises(TrmIOError, match="No such file"):
        trm_edge.load(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))


def test_a_bundle_at_a_path_that_is_not_utf8_loads(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/h\xe9ad.trm"
    with open(path, "wb") as stream:
        stream.write(EXAMPLE.read_bytes())
    assert trm_edge.load(os.fsdecode(path)).spec.answer == "actions"


@pytest.mark.parametrize(("target", "code", "message"), [("/dev/full", 2, b"No space left"), ("closed pipe", 141, b"")])
def test_output_that_cannot_be_written_is_an_exit_code(target: str, code: int, message: bytes) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    if target == "closed pipe":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open(target, os.O_WRONLY)
    command = [sys.executable, "-m", "trm_edge.cli", "inspect"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, env=environment, timeout=60)
    os.close(writer)
    assert done.returncode == code
    assert message in done.stderr and b"Traceback" not in done.stderr and b"Exception ignored" not in done.stderr


def test_a_file_that_goes_away_is_no_error_of_the_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "head.trm"
    path.write_bytes(EXAMPLE.read_bytes())
    bundle = read_bundle(path)
    monkeypatch.setattr(cli, "read_bundle", lambda path: (path.unlink(), bundle)[1])
    assert main(["inspect", str(path)]) == 2
    assert capsys.readouterr() == ("", f"trm-edge inspect: {path}: No such file or directory\n")


def test_refine_takes_a_bundle_of_any_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "head.bin").write_bytes(EXAMPLE.read_bytes())
    assert main(["refine", str(tmp_path / "head.bin"), "--repeat", "1"]) == 0
    assert "step 4" in capsys.readouterr().out
