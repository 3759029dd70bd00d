"""The trainer's checkpoint: what ``trm_edge.train`` writes and this folder reads.

A ``torch.save`` of ``{"format": "trm_edge.checkpoint", "version": 1, "spec": {...}, "state_dict": {name: tensor}}``,
and optionally ``"provenance": {name: text}``, what training says of the head, which a bundle repeats.
The names are those of :meth:`trm_edge.spec.TrmSpec.tensor_shapes`; ``normalization.*`` and ``limits.*`` may be left
out and are then the identity. Files are read with ``weights_only=True``: a pickle that would run code is refused.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from trm_edge.errors import TrmBundleError, TrmVersionError
from trm_edge.extras import import_extra
from trm_edge.files import StrPath, read_file, write_atomically
from trm_edge.inputs import Array
from trm_edge.spec import TrmSpec, check_statistics, identity_statistics

FORMAT = "trm_edge.checkpoint"
VERSION = 1

_ADVICE = re.compile(r" (?:Re-running|This file can still be loaded)")  # how torch begins it, for whoever trusts a file
_KEYS = {"format", "version", "spec", "state_dict"}


def load_checkpoint(path: StrPath) -> tuple[TrmSpec, dict[str, Array]]:
    """Read a checkpoint of the trainer.

    Parameters
    ----------
    path
        File written by :func:`save_checkpoint` or by ``trm_edge.train``.

    Returns
    -------
    spec, tensors
        The model and its float32 tensors, as :class:`trm_edge.bundle.Bundle` takes them. Any float dtype is converted.

    Raises
    ------
    TrmIOError
        The file cannot be read.
    TrmBundleError
        Not a checkpoint, truncated, names or shapes that do not fit the spec, values that are not finite.
    """
    content, _ = read_torch(path)
    spec, tensors, _ = parse_checkpoint(content, os.fspath(path))
    return spec, tensors


def save_checkpoint(
    path: StrPath, spec: TrmSpec, tensors: Mapping[str, Any], provenance: Mapping[str, str] | None = None
) -> None:
    """Write a checkpoint atomically.

    Parameters
    ----------
    path
        Where to write; an older file is replaced as a whole.
    spec
        The model.
    tensors
        Float torch tensors or NumPy arrays by the names of ``spec.tensor_shapes()``; ``normalization.*`` and
        ``limits.*`` may be left out. They are stored as float32.
    provenance
        What training says of the head, texts by name; the trainer's are ``trained_steps`` and ``features_fn``.
    """
    torch = import_extra("torch", "writing a checkpoint", "export")
    given = {name: value if torch.is_tensor(value) else torch.from_numpy(value) for name, value in tensors.items()}
    arrays = _checked(spec, given)
    state = {name: torch.from_numpy(arrays[name].copy()) for name in given}
    stream = io.BytesIO()
    content = {"format": FORMAT, "version": VERSION, "spec": spec.to_dict(), "state_dict": state}
    torch.save(content | {"provenance": _texts(provenance or {})}, stream)
    write_atomically(path, stream.getvalue())


def read_torch(path: StrPath) -> tuple[Any, str]:
    """Return what ``torch.save`` wrote to ``path`` and the file's SHA-256; only tensors and plain containers."""
    torch = import_extra("torch", "reading a checkpoint", "export")
    data = read_file(path)
    if b'"trm_edge.bundle"' in data[:256]:  # the format stands first in a bundle's header
        raise TrmBundleError(f"{os.fspath(path)}: already a bundle (.trm); a checkpoint (.pt) is expected here")
    try:
        content = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises whatever its zip reader and unpickler meet in a damaged file
        reason = _ADVICE.split(str(error).strip().split("\n")[0])[0]
        raise TrmBundleError(
            f"{os.fspath(path)}: not a readable checkpoint (a torch.save of tensors): {type(error).__name__}: {reason}"
        ) from None
    if zipfile.is_zipfile(io.BytesIO(data)):  # else torch's older format, which has no checksums
        _check_sums(os.fspath(path), data)
    return content, hashlib.sha256(data).hexdigest()


def _check_sums(path: str, data: bytes) -> None:
    """Compare the checksums, which torch stores and does not look at."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            damaged = archive.testzip()
            unsummed = not any(member.CRC for member in archive.infolist())
    except Exception as error:  # zipfile raises whatever it meets in damaged headers
        raise TrmBundleError(f"{path}: damaged: {error}; take another copy") from None
    if damaged is not None and unsummed:
        raise TrmBundleError(
            f"{path}: holds no checksums, so that damage would not be seen; "
            "save it again without torch.serialization.set_crc32_options(False)"
        )
    if damaged is not None:
        raise TrmBundleError(f"{path}: damaged: the checksum of {damaged} does not fit its content; take another copy")


def source_name(path: StrPath) -> str:
    """Return the name of the file ``path`` as text for provenance; bytes that are not UTF-8 are escaped."""
    return os.fsencode(os.path.basename(path)).decode("utf-8", "backslashreplace")


def is_checkpoint(content: Any) -> bool:
    """Whether ``content`` claims to be a checkpoint of this package."""
    return isinstance(content, dict) and content.get("format") == FORMAT


def parse_checkpoint(content: Any, name: str) -> tuple[TrmSpec, dict[str, Array], dict[str, str]]:
    """Return spec, tensors and provenance of what :func:`read_torch` returned; ``name`` is the file's, for messages."""
    try:
        return _parse(content)
    except TrmBundleError as error:
        raise type(error)(f"{name}: {error}") from None


def to_float32(name: str, tensor: Any, shape: tuple[int, ...]) -> Array:
    """Return ``tensor`` as a float32 array of ``shape``, converted in torch, as NumPy knows no bfloat16."""
    torch = import_extra("torch", "reading a checkpoint", "export")
    if not torch.is_tensor(tensor):
        raise TrmBundleError(f"tensor {name}: expected a tensor, got {type(tensor).__name__}")
    if tuple(tensor.shape) != shape:
        raise TrmBundleError(f"tensor {name}: expected shape {list(shape)}, got {list(tensor.shape)}")
    if not tensor.is_floating_point() or tensor.layout != torch.strided or tensor.is_meta:
        raise TrmBundleError(f"tensor {name}: expected a dense float tensor, got {tensor.dtype}, {tensor.layout}")
    array: Array = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
    return array


def _parse(content: Any) -> tuple[TrmSpec, dict[str, Array], dict[str, str]]:
    if not is_checkpoint(content):
        raise TrmBundleError(
            f"not a trm_edge checkpoint: expected a dictionary with format {FORMAT!r}; for a checkpoint of the "
            "official trainer give its all_config.yaml and dataset.json as well"
        )
    if content.get("version") != VERSION:
        raise TrmVersionError(
            f"checkpoint version {content.get('version')!r} cannot be read by this release, which reads {VERSION}; "
            "install the release that wrote it"
        )
    if set(content) - {"provenance"} != _KEYS:
        raise TrmBundleError(f"expected exactly the keys {sorted(_KEYS)}, got {sorted(map(str, content))}")
    for key in ("spec", "state_dict"):
        if not isinstance(content[key], dict) or not all(isinstance(name, str) for name in content[key]):
            raise TrmBundleError(f"{key}: expected a dictionary with string keys")
    spec = TrmSpec.from_dict(content["spec"])
    return spec, _checked(spec, content["state_dict"]), _texts(content.get("provenance", {}))


def _texts(provenance: Any) -> dict[str, str]:
    """Return a copy of a dictionary of texts, or raise."""
    if not isinstance(provenance, Mapping) or not all(
        isinstance(part, str) for item in provenance.items() for part in item
    ):
        raise TrmBundleError(f"provenance: expected a dictionary of texts by name, got {provenance!r}")
    return dict(provenance)


def _checked(spec: TrmSpec, state: Mapping[str, Any]) -> dict[str, Array]:
    """Return every tensor of ``spec`` in file order, statistics filled in where ``state`` has none."""
    shapes, defaults = spec.tensor_shapes(), identity_statistics(spec)
    missing = sorted(set(shapes) - set(defaults) - set(state))
    unknown = sorted(set(state) - set(shapes))
    if missing:
        raise TrmBundleError(f"state_dict lacks {', '.join(missing)}; the spec asks for it")
    if unknown:
        raise TrmBundleError(f"state_dict has unknown tensor(s) {', '.join(unknown)}; the spec has no place for them")
    tensors: dict[str, Array] = {
        name: to_float32(name, state[name], shape) if name in state else np.asarray(defaults[name])
        for name, shape in shapes.items()
    }
    check_statistics(tensors)
    return tensors
