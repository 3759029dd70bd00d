"""Damage to bundles: take them apart, change something, and put them together, with a right hash or without."""

from __future__ import annotations

import hashlib
import random
import re
import struct
from collections.abc import Callable, Iterator

_HASH_KEY = b'"sha256":"'
_NUMBERS = (
    *("0", "1", "2", "24", "-1", "-0", "1e3", "1.0", "00", "NaN", "65536", "1048576", "2147483648", "4294967296"),
    *("9999999999999999", "281474976710656", "18446744073709551616", "", "null", "[]", "140737488355328", "1e999"),
)
_STRINGS = (
    *(
        "",
        "F32",
        "F64",
        "I32",
        "BOOL",
        "dtype",
        "shape",
        "data_offsets",
        "none",
        "learned",
        "rope",
        "mlp_t",
        "attention",
    ),
    *("tokens", "slots", "actions", "optional", "golden.0.in.x", "golden.", "y_init", "__metadata__", "sha256"),
    *(
        "int8",
        "bf16",
        "fp32",
        "dynamic",
        "static",
        "static-per-step",
        "quantization.steps",
        "quantization.input_scale.",
    ),
    *("spec.dof", "provenance.", "\\ud800", "\\u0000", "1e400", "\\u00e9", "\u00e9", "\\ud83e\\udd16", "1" * 5000),
)
_TOKENS = (
    *("{", "}", "[", "]", ",", ":", '"', "\\", " ", "\n", "\t", "0", "-", ".", "e", '"a":"b",', '"a":{},', '"a":[],'),
    *("true", "\ufeff", "\x01", "[" * 16, '{"a":' * 3, "Infinity", "\xa0"),
)
_FLOATS = (float("nan"), float("inf"), float("-inf"), 0.0, -0.0, 1e-45, -1.0)


def split(file: bytes) -> tuple[bytes, bytes]:
    """Return the header and the tensors' bytes."""
    (length,) = struct.unpack_from("<Q", file)
    return file[8 : 8 + length], file[8 + length :]


def join(header: bytes, content: bytes) -> bytes:
    """Return the file of both parts; the header's length is right, the hash is left alone."""
    return struct.pack("<Q", len(header)) + header + content


def sealed(header: bytes, content: bytes) -> bytes:
    """Return the file of both parts with a right hash, where the header still has a place for one."""
    at = header.find(_HASH_KEY) + len(_HASH_KEY)
    if at < len(_HASH_KEY) or at + 64 > len(header):
        return join(header, content)
    body = header[:at] + b"0" * 64 + header[at + 64 :] + content
    digest = hashlib.sha256(body).hexdigest().encode()
    return join(header[:at] + digest + header[at + 64 :], content)


def edited(file: bytes, old: str, new: str | bytes) -> bytes:
    """Return ``file`` with the first ``old`` of its header replaced, and a right hash."""
    header, content = split(file)
    assert old.encode() in header, old
    return sealed(header.replace(old.encode(), new if isinstance(new, bytes) else new.encode(), 1), content)


def mutations(file: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Yield ``count`` damaged copies of ``file``, a function of ``seed``; seven of eight have a right hash."""
    rng = random.Random(seed)
    for _ in range(count):
        header, content = split(file)
        for _ in range(rng.randint(1, 3)):
            if rng.random() < 0.8:
                header = rng.choice(_HEADER_CHANGES)(rng, header)
            else:
                content = rng.choice(_CONTENT_CHANGES)(rng, content)
        bad = (sealed if rng.random() < 7 / 8 else join)(header, content)
        yield rng.choice(_FILE_CHANGES)(rng, bad) if rng.random() < 1 / 8 else bad


def _replace_number(rng: random.Random, header: bytes) -> bytes:
    runs = list(re.finditer(rb"[0-9]+", header)) or [None]
    run = rng.choice(runs)
    if run is None:
        return header
    number = rng.choice(_NUMBERS)
    if rng.random() < 1 / 3 and len(run[0]) < 10:  # near the truth is where mistakes hide
        number = str(int(run[0]) + rng.randint(-4, 4))
    return header[: run.start()] + number.encode() + header[run.end() :]


def _pick_strings(rng: random.Random, header: bytes, count: int) -> list[re.Match[bytes]]:
    strings = list(re.finditer(rb'"[^"]*"', header))
    return sorted(rng.sample(strings, min(count, len(strings))), key=lambda m: m.start())


def _replace_string(rng: random.Random, header: bytes) -> bytes:
    for string in _pick_strings(rng, header, 1):
        header = header[: string.start() + 1] + rng.choice(_STRINGS).encode() + header[string.end() - 1 :]
    return header


def _swap_strings(rng: random.Random, header: bytes) -> bytes:
    picked = _pick_strings(rng, header, 2)
    if len(picked) < 2:
        return header
    a, b = picked
    return header[: a.start()] + b[0] + header[a.end() : b.start()] + a[0] + header[b.end() :]


def _insert_token(rng: random.Random, header: bytes) -> bytes:
    at = rng.randint(0, len(header))
    return header[:at] + rng.choice(_TOKENS).encode() + header[at:]


def _pick_piece(rng: random.Random, header: bytes) -> tuple[int, int]:
    """Return a range, half of the time that of a whole entry: entries end with ``},``."""
    at = rng.randint(0, len(header))
    first = header.find(b"},", at)
    last = header.find(b"},", first + 2)
    if rng.random() < 0.5 and 0 <= first < last:
        return first + 2, last + 2
    return at, min(len(header), at + rng.randint(0, 64))


def _copy_piece(rng: random.Random, header: bytes) -> bytes:
    begin, end = _pick_piece(rng, header)
    return header[:end] + header[begin:]


def _erase_piece(rng: random.Random, header: bytes) -> bytes:
    begin, end = _pick_piece(rng, header)
    return header[:begin] + header[end:]


def _flip_bits(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4) if data else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _change_value(rng: random.Random, content: bytes) -> bytes:
    at = rng.randrange(max(1, len(content) // 4)) * 4
    return content[:at] + struct.pack("<f", rng.choice(_FLOATS)) + content[at + 4 :]


def _resize(rng: random.Random, content: bytes) -> bytes:
    size = rng.choice((rng.randint(1, 16), rng.randint(0, len(content))))
    return content + bytes(size) if rng.random() < 0.5 else content[: max(0, len(content) - size)]


def _truncate(rng: random.Random, file: bytes) -> bytes:
    return file[: rng.randint(0, len(file))]


def _lie_about_length(rng: random.Random, file: bytes) -> bytes:
    return struct.pack("<Q", rng.getrandbits(64) >> rng.randrange(64)) + file[8:]


_Change = Callable[[random.Random, bytes], bytes]
_HEADER_CHANGES: tuple[_Change, ...] = (
    *(_replace_number, _replace_string, _swap_strings, _insert_token, _copy_piece, _erase_piece, _flip_bits),
)
_CONTENT_CHANGES: tuple[_Change, ...] = (_change_value, _resize)
_FILE_CHANGES: tuple[_Change, ...] = (_truncate, _flip_bits, _lie_about_length)
