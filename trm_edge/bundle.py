"""The ``.trm`` bundle: a safetensors file that holds spec, weights, statistics, limits and golden vectors.

Layout (https://github.com/huggingface/safetensors, "Format"): 8 bytes little-endian header length, a JSON header,
then tensor data without gaps. ``__metadata__`` maps strings to strings:

=====================  ==========================================================================================
``format``             ``trm_edge.bundle``
``format_version``     ``1``
``sha256``             SHA-256 of the file from byte 8 on, taken with these 64 characters as ``0``
``spec.<field>``       every field of :class:`~trm_edge.spec.TrmSpec`
``golden.cases``       number of golden cases
``provenance.<name>``  where the weights came from (free text). ``trained_steps`` is the number of steps that
                       training supervised; ``features_fn`` the function that made features anew from every
                       answer in training, where one did; a head for tool calls says with ``features`` and
                       ``declines`` (``yes``, ``no``) what it was trained for
=====================  ==========================================================================================

A calibrated bundle says how the block matrices are rounded (:mod:`trm_edge.quantization`), in all of these entries:

===================================  ============================================================================
``quantization.scheme``              ``dynamic``, ``static`` or ``static-per-step``
``quantization.steps``               0 for ``dynamic``, 1 for ``static``, else the number of calibrated steps
``quantization.precision.<matrix>``  ``int8``, ``bf16`` or ``fp32``, for every block matrix
===================================  ============================================================================

and, unless the scheme is ``dynamic``, holds a tensor ``quantization.input_scale.<matrix>`` F32 ``[steps]`` for every
int8 matrix.

Nothing in a file is trusted. The same rules are checked by the C++ reader, ``csrc/core/bundle.cc``.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import TrmBundleError, TrmVersionError
from .files import StrPath, read_file, write_atomically
from .inputs import Array
from .quantization import Quantization
from .spec import MAX_STEPS, TrmSpec, check_statistics

FORMAT = "trm_edge.bundle"
FORMAT_VERSION = 1
MAX_HEADER = 16 << 20  # bytes
ZIP = b"PK\x03\x04"  # how a file begins that torch.save or numpy.savez wrote
DTYPES = {"F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "I32": np.dtype("<i4"), "BOOL": np.dtype("bool")}

_CODES = {dtype: code for code, dtype in DTYPES.items()}
_HASH_KEY = b'"sha256":"'
_PRECISION = "quantization.precision."
_INPUT_SCALE = "quantization.input_scale."


@dataclass(frozen=True)
class GoldenCase:
    """One recorded call: ``inputs`` by argument name, ``outputs`` of the float64 oracle, and ``fp32_error [K]``.

    Outputs: ``y [K, ...]`` (actions: float64 before projection), ``projected [K, T, dof]`` float32 (actions),
    ``logits [K, S, M or V]`` float64 (slots, tokens), ``halt_logits [K]`` float64, and ``quantized_error [K]`` float64
    in a calibrated bundle: the error of the fake-quantised oracle.
    """

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]

    @property
    def fp32_error(self) -> Array:
        """Largest error of a NumPy float32 run, per step, relative to the largest output."""
        return self.outputs["fp32_error"]


@dataclass(frozen=True)
class Bundle:
    """A checked bundle. ``tensors`` are those of ``spec.tensor_shapes()``, read-only float32."""

    spec: TrmSpec
    tensors: Mapping[str, Array]
    golden: Sequence[GoldenCase] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
    sha256: str = ""
    quantization: Quantization | None = None


def write_bundle(path: StrPath, bundle: Bundle) -> None:
    """Write ``bundle`` to ``path`` atomically."""
    write_atomically(path, bundle_bytes(bundle))


def bundle_bytes(bundle: Bundle) -> bytes:
    """Return the bytes of the file that holds ``bundle``."""
    tensors = _checked_weights(bundle.spec, bundle.tensors)
    for name, text in bundle.provenance.items():
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            raise TrmBundleError(f"provenance: expected names of letters, digits, '_', '.' and '-', got {name!r}")
        if re.search("[\ud800-\udfff]", text):
            raise TrmBundleError(f"provenance.{name}: expected text that UTF-8 can hold, got {text!r}")
        if "\0" in text:
            raise TrmBundleError(f"provenance.{name}: expected text without a null character, got {text!r}")
    quantization: dict[str, str] = {}
    if bundle.quantization is not None:
        bundle.quantization.check(bundle.spec)
        quantization = _quantization_metadata(bundle.quantization)
        tensors |= {_INPUT_SCALE + name: scale for name, scale in bundle.quantization.input_scale.items()}
    for i, case in enumerate(bundle.golden):
        tensors |= {f"golden.{i}.in.{name}": np.asarray(value) for name, value in case.inputs.items()}
        tensors |= {f"golden.{i}.out.{name}": np.asarray(value) for name, value in case.outputs.items()}
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "sha256": "0" * 64,
        "golden.cases": str(len(bundle.golden)),
        **bundle.spec.to_metadata(),
        **quantization,
        **{f"provenance.{name}": text for name, text in bundle.provenance.items()},
    }
    return _seal(metadata, tensors)


def read_bundle(source: StrPath | bytes) -> Bundle:
    """Read and check a bundle from a path or from bytes."""
    name = "bundle" if isinstance(source, bytes) else os.fspath(source)
    try:
        return _parse_bundle(source if isinstance(source, bytes) else read_file(source, _check_start))
    except TrmBundleError as error:
        raise type(error)(f"{name}: {error}") from None


def _seal(metadata: dict[str, str], tensors: dict[str, Array]) -> bytes:
    """Lay out the tensors (widest type first, so that all are aligned), add the header, and fill in the hash."""
    entries: dict[str, Any] = {"__metadata__": metadata}
    chunks: list[bytes] = []
    offset = 0
    for name, array in sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize):
        chunk = np.ascontiguousarray(array).tobytes()
        code = _CODES.get(array.dtype.newbyteorder("<"))
        if code is None:
            known = ", ".join(map(str, _CODES))
            raise TrmBundleError(f"{name}: expected one of the dtypes {known}, got {array.dtype}")
        entries[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": [offset, offset + len(chunk)]}
        offset += len(chunk)
        chunks.append(chunk)
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    body = b"".join([header, *chunks])
    digest = hashlib.sha256(body).hexdigest().encode()
    at = header.index(_HASH_KEY) + len(_HASH_KEY)
    return struct.pack("<Q", len(header)) + body[:at] + digest + body[at + 64 :]


def _parse_bundle(data: bytes) -> Bundle:
    header, content = _split(data)
    entries = _parse_header(header)
    metadata = _check_metadata(entries.pop("__metadata__", None))
    _check_hash(data, header, metadata["sha256"])
    arrays = _read_tensors(entries, content)
    spec = TrmSpec.from_metadata(metadata)
    quantization = _read_quantization(spec, metadata, arrays)
    scales = () if quantization is None else {_INPUT_SCALE + name for name in quantization.input_scale}
    weights = {name: a for name, a in arrays.items() if not name.startswith("golden.") and name not in scales}
    golden = _read_golden(arrays, metadata["golden.cases"])
    provenance = {k.removeprefix("provenance."): v for k, v in metadata.items() if k.startswith("provenance.")}
    return Bundle(spec, _checked_weights(spec, weights), golden, provenance, metadata["sha256"], quantization)


def _split(data: bytes) -> tuple[bytes, memoryview]:
    length = _check_start(data[:8], len(data))
    return data[8 : 8 + length], memoryview(data)[8 + length :]


def _check_start(start: bytes, size: int) -> int:
    """Return the length of the header, from the first 8 bytes of a file."""
    if size < 8:
        raise TrmBundleError(f"truncated: expected at least 8 bytes, got {size}")
    if start.startswith(ZIP):
        raise TrmBundleError(
            "not a bundle but a zip file, as a checkpoint (.pt) or recorded data (.npz): "
            "export a checkpoint to .trm first (trm-edge export)"
        )
    length = int.from_bytes(start, "little")
    if length > MAX_HEADER:
        raise TrmBundleError(
            f"not a .trm bundle: its first 8 bytes, the length of a header, say {length}, more than {MAX_HEADER}"
        )
    if 8 + length > size:
        raise TrmBundleError(f"truncated: the header needs {length} bytes, {size - 8} are there")
    return length


def _parse_header(header: bytes) -> dict[str, Any]:
    if not (header.startswith(b"{") and header.rstrip(b" ").endswith(b"}")):
        raise TrmBundleError("damaged header: expected a JSON object, padded with spaces")
    try:
        entries: dict[str, Any] = json.loads(
            header.decode(), object_pairs_hook=unique_keys, parse_int=_size, parse_float=_size, parse_constant=_size
        )
    except (ValueError, RecursionError) as error:
        raise TrmBundleError(f"damaged header: {error}") from None
    return entries


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object's pairs, for ``json.loads``; a key that stands twice or is no UTF-8 is a ``ValueError``."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice")
    "".join(text for pair in pairs for text in pair if isinstance(text, str)).encode()  # refuses lone surrogates
    return result


def _size(text: str) -> int:
    if not text.isdigit() or len(text) > 15:
        raise ValueError(f"expected a size, a plain integer, got {text[:40]}")
    return int(text)


def _check_metadata(metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise TrmBundleError("not a trm_edge bundle: __metadata__ is missing or is not a map of strings")
    if metadata.get("format") != FORMAT:
        raise TrmBundleError(f"not a trm_edge bundle: expected format {FORMAT!r}, got {metadata.get('format')!r}")
    version = metadata.get("format_version")
    if version != str(FORMAT_VERSION):
        raise TrmVersionError(
            f"format version {version!r} cannot be read by this release, which reads {FORMAT_VERSION}; "
            "install the release that wrote it, or export the checkpoint again"
        )
    for key in ("sha256", "golden.cases"):
        if key not in metadata:
            raise TrmBundleError(f"metadata lacks {key}")
    for key, text in metadata.items():
        known = key in ("format", "format_version", "sha256", "golden.cases")
        if not known and not key.startswith(("spec.", "provenance.", "quantization.")):
            raise TrmBundleError(f"metadata has an unknown key {key!r}")
        if "\0" in key or "\0" in text:  # where C would read half of it
            raise TrmBundleError(f"metadata {key!r}: expected text without a null character")
    return metadata


def _check_hash(data: bytes, header: bytes, stated: str) -> None:
    at = 8 + header.find(_HASH_KEY) + len(_HASH_KEY)
    if header.count(_HASH_KEY) != 1 or data[at : at + 64] != stated.encode() or data[at + 64 : at + 65] != b'"':
        raise TrmBundleError("damaged header: the sha256 entry is not 64 plain characters")
    digest = hashlib.sha256(data[8:at])
    digest.update(b"0" * 64)
    digest.update(memoryview(data)[at + 64 :])
    if digest.hexdigest() != stated:
        raise TrmBundleError(f"damaged: SHA-256 is {digest.hexdigest()}, the file states {stated}; copy it again")


def _read_tensors(entries: dict[str, Any], content: memoryview) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    expected = 0
    for name, entry in sorted(entries.items(), key=_begin):
        dtype, shape, begin, end = _check_entry(name, entry)
        if begin != expected:
            raise TrmBundleError(f"tensor {name}: starts at byte {begin}, expected {expected}: a gap or an overlap")
        size = math.prod(shape) * dtype.itemsize
        if end - begin != size:
            raise TrmBundleError(f"tensor {name}: {end - begin} bytes, but its shape and dtype need {size}")
        if end > len(content):
            raise TrmBundleError(f"truncated: tensor {name} ends at byte {end}, the data has {len(content)}")
        arrays[name] = _as_array(name, content[begin:end], dtype, shape)
        expected = end
    if expected != len(content):
        raise TrmBundleError(f"{len(content) - expected} trailing bytes after the last tensor")
    return arrays


def _begin(item: tuple[str, Any]) -> tuple[int, int]:
    """Sort key: offsets; entries that are not well formed come first and are refused by name."""
    try:
        begin, end = item[1]["data_offsets"]
        return int(begin), int(end)
    except (TypeError, KeyError, ValueError):
        return -1, -1


def _check_entry(name: str, entry: Any) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise TrmBundleError(f"tensor {name}: expected exactly dtype, shape and data_offsets")
    dtype = DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        raise TrmBundleError(f"tensor {name}: expected dtype {', '.join(DTYPES)}, got {entry['dtype']!r}")
    for key in ("shape", "data_offsets"):
        numbers = entry[key]
        if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < 2**48 for n in numbers):
            raise TrmBundleError(f"tensor {name}: {key} is not a list of sizes")
    if len(entry["shape"]) > 4 or len(entry["data_offsets"]) != 2:
        raise TrmBundleError(f"tensor {name}: expected at most 4 dimensions and 2 offsets")
    if math.prod(n or 1 for n in entry["shape"]) > 2**48:  # a 0 hides no overflow
        raise TrmBundleError(f"tensor {name}: shape is too large")
    return dtype, tuple(entry["shape"]), *entry["data_offsets"]


def _as_array(name: str, raw: memoryview, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    boolean = dtype.kind == "b"
    array = np.frombuffer(raw, np.uint8 if boolean else dtype).reshape(shape)
    if boolean:
        if array.size and array.max() > 1:
            raise TrmBundleError(f"tensor {name}: a boolean that is neither 0 nor 1")
        array = array.view(bool)
    array.flags.writeable = False
    return array


def _checked_weights(spec: TrmSpec, tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Return the tensors in file order, after checking names, dtypes, shapes and values against ``spec``."""
    shapes = spec.tensor_shapes()
    missing, unknown = sorted(set(shapes) - set(tensors)), sorted(set(tensors) - set(shapes))
    if missing:
        raise TrmBundleError(f"tensor {missing[0]}: missing (of {len(missing)}); the spec asks for it")
    if unknown:
        raise TrmBundleError(f"tensor {unknown[0]}: unknown (of {len(unknown)}); the spec has no place for it")
    for name, shape in shapes.items():
        if tensors[name].dtype != np.float32 or tensors[name].shape != shape:
            raise TrmBundleError(
                f"tensor {name}: expected float32 {list(shape)}, got {tensors[name].dtype} {list(tensors[name].shape)}"
            )
    ordered = {name: tensors[name] for name in shapes}
    check_statistics(ordered)
    return ordered


def _quantization_metadata(quantization: Quantization) -> dict[str, str]:
    return {
        "quantization.scheme": quantization.scheme,
        "quantization.steps": str(quantization.steps),
        **{_PRECISION + name: precision for name, precision in quantization.precision.items()},
    }


def _read_quantization(spec: TrmSpec, metadata: Mapping[str, str], arrays: Mapping[str, Array]) -> Quantization | None:
    """Return what a calibrated bundle says of its matrices, or None where it says nothing at all."""
    given = {key: text for key, text in metadata.items() if key.startswith("quantization.")}
    if not given:
        return None
    for key in ("quantization.scheme", "quantization.steps"):
        if key not in given:
            raise TrmBundleError(f"metadata lacks {key}, but has {next(iter(given))}; a calibrated bundle has both")
    scheme, steps = given.pop("quantization.scheme"), given.pop("quantization.steps")
    for key in given:
        if not key.startswith(_PRECISION):
            raise TrmBundleError(f"metadata has an unknown key {key!r}")
    precision = {key.removeprefix(_PRECISION): text for key, text in given.items()}
    scales = {n.removeprefix(_INPUT_SCALE): a for n, a in arrays.items() if n.startswith(_INPUT_SCALE)}
    quantization = Quantization(scheme, precision, scales)
    quantization.check(spec)
    number, free = _case_number(steps), scheme == "static-per-step" and not scales  # then nothing says how many
    if not (1 <= number <= MAX_STEPS if free else number == quantization.steps):
        expected = f"1..{MAX_STEPS}" if free else quantization.steps
        raise TrmBundleError(f"quantization.steps: expected {expected}, as the scales have, got {steps[:40]!r}")
    return quantization


def _read_golden(arrays: Mapping[str, Array], stated: str) -> list[GoldenCase]:
    """Collect the golden cases; their arrays are checked when they are used, as any caller's."""
    count = _case_number(stated)
    cases: list[tuple[dict[str, Array], dict[str, Array]]] = [({}, {}) for _ in range(max(count, 0))]
    for name, array in arrays.items():
        if not name.startswith("golden."):
            continue
        _, index, way, *rest = (*name.split(".", 3), "", "")
        number = _case_number(index)
        if not (0 <= number < count and way in ("in", "out") and rest[0]):
            raise TrmBundleError(f"tensor {name}: not one of the {stated} golden cases")
        cases[number][way == "out"][rest[0]] = array
    if count < 0 or any("fp32_error" not in outputs for _, outputs in cases):
        raise TrmBundleError(f"golden.cases is {stated!r}, but the golden tensors do not say the same")
    return [GoldenCase(*case) for case in cases]


def _case_number(text: str) -> int:
    """Return a plain decimal number of at most five digits, else -1; one spelling a number, so no case twice."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 and str(int(text)) == text else -1
