"""Training examples: checked against the spec, measured, and cut into batches.

Arrays by kind, where ``[]`` is optional:

==========  =========================================================================================================
actions     ``x [N, P, Dx]``, ``[x_len [N]]``, ``y0 [N, T, dof]``, ``target [N, T, dof]``, ``features [N, T, Df]``
            where the head has features; ``y0`` may be missing where the spec says that a draft is optional
slots       ``x``, ``[x_len]``, ``slots [N, S, Ds]``, ``candidates [N, M, Dc]``, ``mask [N, S, M]`` bool,
            ``target [N, S]``, ``[y0 [N, S]]``, ``[s_len]``, ``[m_len]``, ``[omit [N, M]]`` bool: candidates that
            leave a slot out, ``[right [N, M]]`` bool: candidates that are as right for their slot as its target,
            ``[required [N, S]]`` bool. Target -1 supervises nothing
tokens      ``x [N, S]``, ``target [N, S]`` (-100 is ignored), ``[puzzle_id [N]]``
==========  =========================================================================================================

Floats are float32, indices int32 or int64. Rows beyond a length are padding, whatever they hold. ``[group [N]]`` says
what belongs together, an episode for instance: a ``validation_share`` holds out whole groups.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trm_edge.errors import TrmInputError
from trm_edge.inputs import Array
from trm_edge.recorded import IGNORED, PACKED, PARTS
from trm_edge.spec import TrmSpec

BUCKET, GROUP = 64, 8  # batches whose examples are sorted together, by one length and by the other
_BLOCK = 1 << 16  # rows that are widened to float64 at once

Arrays = dict[str, Array]

_SHAPES: dict[str, dict[str, tuple[str, str]]] = {  # name -> dtype kind, dimensions
    "actions": {
        **{"x": ("f", "N P context_size"), "x_len": ("i", "N"), "y0": ("f", "N answer_rows dof")},
        **{"target": ("f", "N answer_rows dof"), "features": ("f", "N answer_rows feature_size")},
    },
    "slots": {
        **{"x": ("f", "N P context_size"), "x_len": ("i", "N"), "y0": ("i", "N S"), "target": ("i", "N S")},
        **{"slots": ("f", "N S slot_size"), "candidates": ("f", "N M candidate_size"), "mask": ("b", "N S M")},
        **{"s_len": ("i", "N"), "m_len": ("i", "N"), "required": ("b", "N S")},
        **{"omit": ("b", "N M"), "right": ("b", "N M")},
    },
    "tokens": {"x": ("i", "N answer_rows"), "target": ("i", "N answer_rows"), "puzzle_id": ("i", "N")},
}
for _shapes in _SHAPES.values():
    _shapes["group"] = ("i", "N")
_OPTIONAL = {"x_len", "s_len", "m_len", "omit", "right", "required", "puzzle_id", "group"}
_LENGTHS = {name: f"{part}_len" for name, part in PACKED.items()}


@dataclass(frozen=True)
class Examples:
    """Checked arrays, all with the same first dimension."""

    spec: TrmSpec
    arrays: Arrays

    def __len__(self) -> int:
        return len(self.arrays["x"])

    def take(self, index: Array) -> Arrays:
        """Return examples by number, without the padding that none of them needs."""
        picked = {name: array[index] for name, array in self.arrays.items() if name != "group"}
        if self.spec.mixer == "mlp_t":
            return picked
        for part, axes in PARTS.items():
            if f"{part}_len" in picked:
                most = int(picked[f"{part}_len"].max(initial=0))
                for name, axis in axes.items():
                    if name in picked:
                        picked[name] = picked[name].take(range(most), axis=axis + 1)
        return picked

    @property
    def lengths(self) -> Array | None:
        """Return what batches of like length go by, [N, 2], the one that costs more first; None where none does."""
        return None

    @property
    def asking(self) -> int:
        """How many ask for something: the others' targets are all -1 (slots) or -100 (tokens)."""
        if self.spec.answer == "actions":
            return len(self)
        return int((self.arrays["target"] != IGNORED[self.spec.answer]).any(1).sum())

    def subset(self, index: Array) -> Examples:
        """Return some of the examples, by number."""
        return Examples(self.spec, {name: array[index] for name, array in self.arrays.items()})

    def rows(self, name: str) -> Array:
        """Return the rows ``[rows, width]`` of a float array, of all examples, without padding."""
        values = self.arrays[name]
        length = _LENGTHS.get(name, "")
        if length in self.arrays:
            values = values[np.arange(values.shape[1]) < self.arrays[length][:, None]]
        rows: Array = values.reshape(-1, values.shape[-1])
        return rows

    def digest(self) -> str:
        """SHA-256 of everything, so that a resumed run notices other data."""
        total = hashlib.sha256()
        for name in sorted(self.arrays):
            array = np.ascontiguousarray(self.arrays[name])
            total.update(f"{name} {array.dtype} {array.shape}".encode())
            total.update(array.data)
        return total.hexdigest()


def split(examples: Examples, share: float, seed: int) -> tuple[Examples, Examples]:
    """Hold out ``share`` of the examples, drawn by ``seed``; returns what is left and what was held out.

    Where they are in groups, whole groups are drawn until they are as many.
    """
    rng = np.random.default_rng([seed, 2])
    if "group" in examples.arrays:
        numbers, owner = np.unique(examples.arrays["group"], return_inverse=True)
        rank = rng.permutation(len(numbers))[owner]
        order = np.argsort(rank, kind="stable")
        last = rank[order[max(round(share * len(examples)), 1) - 1]]
        count = int((rank <= last).sum())
    else:
        order = rng.permutation(len(examples))
        count = round(share * len(examples))
    if not 0 < count < len(examples):
        raise TrmInputError(
            f"data.validation_share: {share:g} of {len(examples)} example(s) leaves none to "
            f"{'train on' if count else 'evaluate on'}; give another share, or more examples (or groups)"
        )
    left, held = (examples.subset(np.sort(part)) for part in (order[count:], order[:count]))
    if not held.asking or not left.asking:
        raise TrmInputError(
            f"data.validation_share: {share:g} leaves a part in which nothing is asked; give another share"
        )
    return left, held


def describe_asking(examples: Examples) -> list[str]:
    """Return a line for people where some examples ask for nothing."""
    silent = len(examples) - examples.asking
    if not silent:
        return []
    return [
        f"{silent / len(examples):.1%} of the examples ask for nothing: all their targets are left open, so they teach "
        "no answer and no confidence, and are not counted"
    ]


def batch_index(size: int, batch_size: int, number: int, seed: int, lengths: Array | None = None) -> Array:
    """Return the example numbers of training batch ``number``: every epoch is a fresh order, its odd rest left out.

    With ``lengths [size, 2]`` the examples of every BUCKET batches are sorted by the first length, those of every GROUP
    of these batches by the second, and the batches dealt out in any order, so that they need little padding. A function
    of its arguments alone, so that a run can be resumed anywhere.
    """
    per_epoch = size // batch_size
    epoch, place = divmod(number, per_epoch)
    rng = np.random.default_rng([seed, 0, epoch])
    order = rng.permutation(size)[: per_epoch * batch_size]
    if lengths is not None:
        first = place // BUCKET * BUCKET
        bucket = order[first * batch_size : (first + BUCKET) * batch_size]
        bucket = bucket[np.argsort(lengths[bucket, 0], kind="stable")]
        group = np.arange(len(bucket)) // (GROUP * batch_size)
        bucket = bucket[np.lexsort((lengths[bucket, 1], group))]
        dealt = np.random.default_rng([seed, 3, epoch, first]).permutation(len(bucket) // batch_size)
        place, order = int(dealt[place - first]), bucket
    picked: Array = order[place * batch_size : (place + 1) * batch_size]
    return picked


def batches(examples: Examples, batch_size: int) -> Iterator[Arrays]:
    """Yield all examples in order."""
    for start in range(0, len(examples), batch_size):
        yield examples.take(np.arange(start, min(start + batch_size, len(examples))))


def to_tensors(arrays: Mapping[str, Array], device: str = "cpu") -> dict[str, Tensor]:
    """Return the arrays as tensors; integers become int64, as torch indexes by it."""
    tensors = {}
    for name, array in arrays.items():
        wide = array.astype(np.int64) if array.dtype.kind in "iu" else np.ascontiguousarray(array)
        tensors[name] = torch.from_numpy(wide).to(device)
    return tensors


def statistics(examples: Examples) -> Arrays:
    """Return mean and std of the float inputs over real rows, by the names of the spec.

    Those of ``y0`` are over drafts and targets, as both the draft and the correction are scaled by them. A column
    that never changes keeps std 1.
    """
    spec, found = examples.spec, {}
    for name in ("x", "features", "slots", "candidates", "y0"):
        if f"normalization.{name}.mean" not in spec.tensor_shapes():
            continue
        sources = [n for n in ((name, "target") if name == "y0" else (name,)) if n in examples.arrays]
        mean, std = _moments([examples.rows(source) for source in sources])
        still = std <= 1e-6 * np.maximum(np.abs(mean), 1e-6)
        found[f"normalization.{name}.mean"] = mean.astype(np.float32)
        found[f"normalization.{name}.std"] = np.where(still, 1, std).astype(np.float32)
    return found


def _moments(sources: Sequence[Array]) -> tuple[Array, Array]:
    """Return mean and standard deviation of each column in float64; a part of the rows at a time is widened."""
    count, width = sum(len(rows) for rows in sources), sources[0].shape[1]
    if not count:
        return np.zeros(width), np.ones(width)
    parts = [rows[begin : begin + _BLOCK] for rows in sources for begin in range(0, len(rows), _BLOCK)]
    mean = sum(part.sum(0, dtype=np.float64) for part in parts) / count
    variance = sum(np.square(part - mean).sum(0) for part in parts) / count
    return mean, np.sqrt(variance)


def check_arrays(spec: TrmSpec, arrays: Mapping[str, Array]) -> Arrays:
    """Check names, dtypes, shapes and values, and return what was given. Raises :class:`TrmInputError`."""
    shapes = {n: s for n, s in _SHAPES[spec.answer].items() if n != "features" or spec.feature_size}
    unknown = sorted(set(arrays) - set(shapes))
    if unknown:
        raise TrmInputError(f"{unknown[0]}: unknown for a head of {spec.answer}; known: {', '.join(shapes)}")
    checked = dict(arrays)
    optional = _OPTIONAL | ({"y0"} if spec.answer == "slots" or spec.draft == "optional" else set())
    for name in shapes:
        if name not in checked and name not in optional:
            raise TrmInputError(f"{name}: missing; a head of {spec.answer} needs it")
    sizes: dict[str, int] = {}
    for name, (kind, dims) in shapes.items():
        if name in checked:
            _check_dtype(name, checked[name], kind)
            _check_shape(spec, name, checked[name], dims.split(), sizes)
    _check_sizes(spec, checked, sizes)
    _check_values(spec, checked)
    return checked


def _check_dtype(name: str, array: Array, kind: str) -> None:
    ok = {"f": (np.float32,), "i": (np.int32, np.int64), "b": (np.bool_,)}[kind]
    expected = " or ".join(np.dtype(t).name for t in ok)
    if not isinstance(array, np.ndarray):
        raise TrmInputError(f"{name}: expected a NumPy array of {expected}, got {type(array).__name__}")
    if array.dtype not in ok:
        raise TrmInputError(f"{name}: expected {expected}, got {array.dtype}")


def _check_shape(spec: TrmSpec, name: str, array: Array, dims: list[str], sizes: dict[str, int]) -> None:
    """Compare with spec fields and with the sizes N, P, S and M seen so far."""
    known = spec.to_dict() | sizes
    expected = [known.get(dim, dim) for dim in dims]
    shape = array.shape
    fits = len(shape) == len(dims) and all(isinstance(e, str) or e == g for e, g in zip(expected, shape, strict=True))
    if not fits:
        raise TrmInputError(f"{name}: expected shape [{', '.join(map(str, expected))}], got {list(shape)}")
    sizes.update({dim: size for dim, size in zip(dims, shape, strict=True) if len(dim) == 1})


def _check_sizes(spec: TrmSpec, arrays: Arrays, sizes: dict[str, int]) -> None:
    if sizes["N"] == 0:
        raise TrmInputError("x: holds no example")
    for size, most, name in (("P", "max_context", "x"), ("S", "answer_rows", "slots"), ("M", "max_candidates", "mask")):
        if sizes.get(size, 0) > getattr(spec, most):
            raise TrmInputError(f"{name}: expected at most spec.{most} = {getattr(spec, most)}, got {sizes[size]}")
    for name, size in (("x_len", "P"), ("s_len", "S"), ("m_len", "M")):
        if name in arrays:
            _range(name, arrays[name], 0, sizes[size])
    if spec.mixer == "mlp_t" and "P" in sizes:
        short = "x_len" in arrays and bool((arrays["x_len"] != spec.max_context).any())
        if short or sizes["P"] != spec.max_context:
            raise TrmInputError(f"x: mlp_t weights fix the context at {spec.max_context} rows, in every example")


def _check_values(spec: TrmSpec, arrays: Arrays) -> None:
    for name in ("x", "features", "slots", "candidates", "y0", "target"):
        if name in arrays and arrays[name].dtype == np.float32:
            bad = ~np.isfinite(_masked_padding(arrays, name))
            if bad.any():
                where = int(np.argwhere(bad)[0][0])
                raise TrmInputError(f"{name}: expected finite values, found NaN or Inf in example {where}")
    if spec.answer == "tokens":
        _range("x", arrays["x"], 0, spec.vocab_size - 1)
        _range("target", np.where(arrays["target"] == IGNORED["tokens"], 0, arrays["target"]), 0, spec.vocab_size - 1)
        if "puzzle_id" in arrays:
            _range("puzzle_id", arrays["puzzle_id"], 0, spec.num_puzzles - 1)
    if spec.answer == "slots":
        _check_choices(arrays)


def _masked_padding(arrays: Arrays, name: str) -> Array:
    """Return the values with padded rows as 0."""
    length = _LENGTHS.get(name, "")
    if length not in arrays:
        return arrays[name]
    real = np.arange(arrays[name].shape[1]) < arrays[length][:, None]
    values: Array = np.where(real[..., None], arrays[name], 0)
    return values


def _check_choices(arrays: Arrays) -> None:
    """Drafts and targets of slots are -1 or allowed by the mask, which is False in the padding."""
    mask = arrays["mask"].copy()
    for length, dim in (("s_len", 1), ("m_len", 2)):
        if length in arrays:
            padded = np.arange(mask.shape[dim]) >= arrays[length][:, None]
            outside = mask & np.expand_dims(padded, 3 - dim)
            if outside.any():
                raise TrmInputError(f"mask: example {np.argwhere(outside)[0][0]}: True beyond {length}")
    for name in arrays.keys() & {"y0", "target"}:
        _range(name, arrays[name], -1, mask.shape[2] - 1)
        if not mask.shape[2]:
            continue  # no candidates, so all are -1
        chosen = arrays[name] >= 0
        allowed = np.take_along_axis(mask, np.maximum(arrays[name], 0)[..., None].astype(np.int64), 2)[..., 0]
        wrong = chosen & ~allowed
        if wrong.any():
            example, slot = np.argwhere(wrong)[0]
            raise TrmInputError(
                f"{name}: example {example}, slot {slot}: candidate {arrays[name][example, slot]} is outside its mask"
            )


def _range(name: str, values: Array, least: int, most: int) -> None:
    wrong = (values < least) | (values > most)
    if wrong.any():
        where = np.argwhere(wrong)[0]
        raise TrmInputError(f"{name}: expected {least}..{most}, got {values[tuple(where)]} in example {where[0]}")
