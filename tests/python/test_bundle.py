"""The bundle: what is written is read, what is damaged is refused, and both readers agree on which is which."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import random
import re
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from bundle_mutations import edited, join, mutations, sealed, split
from hypothesis import given, settings
from hypothesis import strategies as st
from models import CASES, calibrated, make_bundle, make_spec, random_weights
from safetensors.numpy import load as load_safetensors

from trm_edge import bundle as bundle_module
from trm_edge.bundle import Bundle, bundle_bytes, read_bundle, write_bundle
from trm_edge.errors import Status, TrmBundleError, TrmError, TrmIOError, TrmVersionError
from trm_edge.golden import record_quantized_error, verify
from trm_edge.quantization import Quantization
from trm_edge.refiner import load
from trm_edge.spec import TrmSpec, identity_statistics

TOP = Path(__file__).parents[2]
GOOD = {path.stem: path.read_bytes() for path in sorted((TOP / "tests/golden/bundles").glob("*.trm"))}
SMALL = GOOD["tokens_mlp_t"]
CALIBRATED = {
    f"{name}_{scheme}": bundle_bytes(calibrated(read_bundle(GOOD[name]), scheme, down="bf16"))
    for name, scheme in (
        ("actions_attention", "static-per-step"),
        ("tokens_mlp_t", "static"),
        ("slots_attention", "dynamic"),
    )
}
PER_STEP = "actions_attention_static-per-step"
READ_BY_CPP = GOOD | CALIBRATED
SHAPE = '"y_init":{"dtype":"F32","shape":[24]'

# What a header must not say, as (bundle, old text, new text, a part of the message).
HOSTILE: list[tuple[str, str, str | bytes, str]] = [
    ("tokens_mlp_t", "{", " {", "expected a JSON object"),
    ("tokens_mlp_t", "}}", "}}\n", "expected a JSON object"),
    ("tokens_mlp_t", "}}", "}},", "expected a JSON object"),
    ("tokens_mlp_t", "}}", "}}{}", "damaged header"),
    *(
        ("tokens_mlp_t", '"shape":[24]', f'"shape":[{n}]', "plain integer")
        for n in ("24.0", "24e0", "-24", "-0", "NaN")
    ),
    *(("tokens_mlp_t", '"shape":[24]', f'"shape":[{n}]', "plain integer") for n in ("Infinity", "1e999", "9" * 16)),
    *(
        ("tokens_mlp_t", '"shape":[24]', f'"shape":{v}', "")
        for v in ("[024]", "[24,]", "[[24]]", "24", '"24"', "[true]")
    ),
    ("tokens_mlp_t", '"shape":[24]', '"shape":[' + "9" * 5000 + "]", "plain integer"),
    ("tokens_mlp_t", '"shape":[24]', '"shape":' + "[" * 100000, "damaged header"),
    ("tokens_mlp_t", '"data_offsets":[', '"data_offsets":[Infinity,', "plain integer"),
    ("tokens_mlp_t", '"dtype":"F32"', '"dtype":null', "expected dtype"),
    ("tokens_mlp_t", '"dtype":"F32"', '"dtype":"F32","x":"y"', "exactly dtype, shape and data_offsets"),
    ("tokens_mlp_t", '"y_init":{"dtype":"F32"', '"y_init":{"dtype":"F16"', "tensor y_init: expected dtype"),
    ("tokens_mlp_t", '"z_init"', '"y_init"', "a key stands twice"),
    ("tokens_mlp_t", '"z_init"', '"y_\\u0069nit"', "a key stands twice"),
    ("tokens_mlp_t", '"spec.dof"', '"spec.draft"', "a key stands twice"),
    ("tokens_mlp_t", '"spec.dof":"0"', '"spec.dof":0', "not a map of strings"),
    *(
        ("tokens_mlp_t", "tests/python", bad, "damaged header")
        for bad in ("\\ud83e", "\\ud83e\\u0041", "\\udd16", "\\x")
    ),
    *(
        ("tokens_mlp_t", "tests/python", bad, "damaged header")
        for bad in (b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\n")
    ),
    ("tokens_mlp_t", '"sha256":', '"sha256" :', "not 64 plain characters"),
    ("tokens_mlp_t", '"sha256":', '"sh\\u0061256":', "not 64 plain characters"),
    ("tokens_mlp_t", '"provenance.source":', '"provenance.\\"sha256":', "not 64 plain characters"),
    ("tokens_mlp_t", "provenance.", "provenience.", "unknown key"),
    ("tokens_mlp_t", "tests/python", "tests\\u0000", "provenance.source': expected text without a null character"),
    ("tokens_mlp_t", "provenance.source", "provenance.\\u0000", "expected text without a null character"),
    ("tokens_mlp_t", '"y_init":', '"y_start":', "tensor y_init: missing"),
    ("tokens_mlp_t", SHAPE, SHAPE.replace("24", "25"), "tensor y_init: 96 bytes"),
    ("tokens_mlp_t", SHAPE, SHAPE.replace("24", "2,12"), "tensor y_init: expected float32 [24]"),
    ("tokens_mlp_t", SHAPE, SHAPE.replace("24", "1,1,1,1,24"), "at most 4 dimensions"),
    ("tokens_mlp_t", SHAPE, SHAPE.replace("24", "140737488355328,140737488355328,0"), "shape is too large"),
    ("tokens_mlp_t", SHAPE, SHAPE.replace("F32", "I32"), "tensor y_init: expected float32"),
    *(
        ("tokens_mlp_t", '"spec.hidden_size":"24"', f'"spec.hidden_size":"{n}"', "hidden_size")
        for n in ("+24", "2_4", "\u0662")
    ),
    *(
        ("tokens_mlp_t", '"spec.norm_eps":"1e-05"', f'"spec.norm_eps":"{n}"', "norm_eps")
        for n in (" 0.1", "1_0e-9", ".5")
    ),
    *(
        ("tokens_mlp_t", '"spec.norm_eps":"1e-05"', f'"spec.norm_eps":"{n}"', "norm_eps")
        for n in ("nan", "1e-400", "\u0660.1")
    ),
    ("tokens_mlp_t", '"spec.dof"', '"spec.dofs"', "lacks field(s) dof"),
    ("tokens_mlp_t", '"spec.dof":', '"spec.dofs":"0","spec.dof":', "unknown field(s) dofs"),
    ("tokens_mlp_t", '"spec.num_layers":"2"', '"spec.num_layers":"3"', "tensor blocks.2."),
    *(
        ("slots_attention", '"golden.cases":"2"', f'"golden.cases":"{n}"', "golden")
        for n in ("1", "3", "02", "", "9" * 5000)
    ),
    *(
        ("slots_attention", "golden.1.in.x", f"golden.{name}", f"tensor golden.{name}")
        for name in ("01.in.x", "2.in.x", "1.of.x", "1.in.", "1.in", "1", "", ".in.x", "9" * 5000 + ".in.x")
    ),
    ("slots_attention", "golden.1.out.fp32_error", "golden.1.out.fp32", "do not say the same"),
]


# The same for calibrated bundles; blocks.0.mlp.down is bf16 in them, blocks.0.mlp.gate_up int8.
HOSTILE_CALIBRATED: list[tuple[str, str, str | bytes, str]] = [
    (PER_STEP, '"quantization.scheme"', '"provenance.scheme"', "metadata lacks quantization.scheme"),
    (PER_STEP, '"quantization.steps"', '"provenance.steps"', "metadata lacks quantization.steps"),
    (PER_STEP, '"quantization.steps"', '"quantization.step"', "metadata lacks quantization.steps"),
    (
        PER_STEP,
        '"quantization.scheme":"static-per-step"',
        '"quantization.scheme":"static"',
        "expected 1..1 for static",
    ),
    (PER_STEP, '"quantization.scheme":"static-per-step"', '"quantization.scheme":"int4"', "expected one of dynamic"),
    *(
        (PER_STEP, '"quantization.steps":"4"', f'"quantization.steps":"{n}"', "quantization.steps")
        for n in ("3", "5", "0", "04", "+4", "4.0", "", " 4", "9" * 5000, "\u0664")
    ),
    (PER_STEP, '"quantization.steps":', '"quantization.extra":"1","quantization.steps":', "unknown key"),
    (PER_STEP, '"quantization.precision.blocks.0.mlp.down":"bf16",', "", "blocks.0.mlp.down: missing"),
    (PER_STEP, "precision.blocks.0.mlp.down", "precision.blocks.9.mlp.down", "blocks.0.mlp.down: missing"),
    (PER_STEP, "precision.blocks.0.mlp.down", "precision.blocks.0.mlp.down.weight", "blocks.0.mlp.down: missing"),
    (PER_STEP, '.mlp.down":"bf16"', '.mlp.down":"fp16"', "expected one of int8, bf16, fp32, got 'fp16'"),
    (PER_STEP, '.mlp.down":"bf16"', '.mlp.down":"int8"', "input_scale.blocks.0.mlp.down: missing"),
    (PER_STEP, '.mlp.gate_up":"int8"', '.mlp.gate_up":"fp32"', "input_scale.blocks.0.mlp.gate_up: unknown"),
    (PER_STEP, "input_scale.blocks.0.mlp.gate_up", "input_scale.blocks.0.mlp.down", "gate_up: missing"),
    (PER_STEP, "input_scale.blocks.0.mlp.gate_up", "output_scale.blocks.0.mlp.gate_up", "gate_up: missing"),
    ("tokens_mlp_t_static", '"quantization.steps":"1"', '"quantization.steps":"0"', "quantization.steps"),
    ("tokens_mlp_t_static", '"quantization.scheme":"static"', '"quantization.scheme":"dynamic"', "unknown (of"),
    ("slots_attention_dynamic", '"quantization.steps":"0"', '"quantization.steps":"1"', "quantization.steps"),
    ("slots_attention_dynamic", '"quantization.scheme":"dynamic"', '"quantization.scheme":"static"', "missing"),
]


def refusal(file: bytes) -> TrmBundleError:
    """Return the error that reading ``file`` raises, which must be one of ours and say something."""
    with pytest.raises(TrmBundleError) as caught:
        read_bundle(file)
    assert str(caught.value)
    return caught.value


def status_of(file: bytes) -> int:
    """Return the status of reading ``file``; any exception that is not ours fails the test."""
    try:
        read_bundle(file)
    except TrmError as error:
        assert str(error)
        return int(error.status)
    return int(Status.OK)


def assert_same(a: Bundle, b: Bundle) -> None:
    """Check that two bundles say the same."""
    assert a.spec == b.spec
    assert list(a.tensors) == list(b.tensors) == list(a.spec.tensor_shapes())
    assert dict(a.provenance) == dict(b.provenance)
    assert_same_quantization(a.quantization, b.quantization)
    assert len(a.golden) == len(b.golden)
    for x, y in [(a.tensors, b.tensors), *((p.inputs, q.inputs) for p, q in zip(a.golden, b.golden, strict=True))]:
        assert set(x) == set(y)
        for name in x:
            np.testing.assert_array_equal(x[name], y[name])
            assert x[name].dtype == y[name].dtype
    for p, q in zip(a.golden, b.golden, strict=True):
        assert all(np.array_equal(p.outputs[n], q.outputs[n], equal_nan=True) for n in set(p.outputs) | set(q.outputs))


def assert_same_quantization(a: Quantization | None, b: Quantization | None) -> None:
    """Check that two bundles are rounded alike."""
    if a is None or b is None:
        assert a is b
        return
    assert (a.scheme, a.steps, dict(a.precision)) == (b.scheme, b.steps, dict(b.precision))
    assert set(a.input_scale) == set(b.input_scale)
    for name, scale in a.input_scale.items():
        np.testing.assert_array_equal(scale, b.input_scale[name])


@pytest.mark.parametrize("name", CALIBRATED)
def test_a_calibrated_bundle_is_read_as_it_was_written(name: str) -> None:
    back = read_bundle(CALIBRATED[name])
    plain, _, scheme = name.rpartition("_")
    assert back.quantization is not None
    assert (back.quantization.scheme, back.quantization.summary) == (scheme, "int8")
    assert_same(back, calibrated(read_bundle(GOOD[plain]), scheme, down="bf16"))
    assert bundle_bytes(back) == CALIBRATED[name]
    names = {n for n in load_safetensors(CALIBRATED[name]) if n.startswith("quantization.")}
    assert names == {f"quantization.input_scale.{n}" for n in back.quantization.input_scale}
    assert all(len(case.outputs["quantized_error"]) == len(case.fp32_error) for case in back.golden)
    assert read_bundle(GOOD[plain]).quantization is None


@pytest.mark.parametrize("case", range(len(HOSTILE_CALIBRATED)))
def test_hostile_headers_of_calibrated_bundles_are_refused(case: int) -> None:
    name, old, new, message = HOSTILE_CALIBRATED[case]
    assert message in str(refusal(edited(CALIBRATED[name], old, new)))


def test_scales_that_no_model_has() -> None:
    header, content = split(CALIBRATED[PER_STEP])
    name = "quantization.input_scale.blocks.0.mlp.gate_up"
    at = json.loads(header)[name]["data_offsets"][0] + 4
    for value in (0.0, -0.0, -1.0, math.nan, math.inf):
        bad = sealed(header, content[:at] + struct.pack("<f", value) + content[at + 4 :])
        assert f"tensor {name}: expected finite values > 0" in str(refusal(bad))


def test_an_invalid_quantization_is_not_written() -> None:
    bundle = calibrated(make_bundle("actions"), "static")
    wrong = dataclasses.replace(bundle, quantization=Quantization("static", {}, {}))
    with pytest.raises(TrmBundleError, match=r"quantization\.precision"):
        bundle_bytes(wrong)


@pytest.mark.parametrize(("kind", "mixer"), CASES)
def test_what_is_written_is_read(tmp_path: Path, kind: str, mixer: str) -> None:
    bundle = make_bundle(kind, mixer)
    path = tmp_path / "model.trm"
    write_bundle(path, bundle)
    back = read_bundle(path)
    assert_same(back, bundle)
    assert len(back.golden) == 2
    assert path.read_bytes() == bundle_bytes(back)  # and written again, bit for bit
    assert not any(array.flags.writeable for array in back.tensors.values())


@pytest.mark.parametrize("name", GOOD)
def test_safetensors_reads_it_too(name: str) -> None:
    ours = read_bundle(GOOD[name])
    theirs = load_safetensors(GOOD[name])
    for tensor, array in ours.tensors.items():
        np.testing.assert_array_equal(theirs[tensor], array)
    assert {n for n in theirs if not n.startswith("golden.")} == set(ours.tensors)


@settings(max_examples=50, deadline=None)
@given(
    theta=st.floats(min_value=1, max_value=1e12),
    eps=st.floats(min_value=1e-12, max_value=1),
    provenance=st.dictionaries(
        st.from_regex(r"[A-Za-z0-9_.-]{1,20}", fullmatch=True),
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
        max_size=4,
    ),
)
def test_any_number_and_text_survives(theta: float, eps: float, provenance: dict[str, str]) -> None:
    spec = make_spec("actions", rope_theta=theta, norm_eps=eps)
    back = read_bundle(bundle_bytes(Bundle(spec, random_weights(spec), (), provenance)))
    assert back.spec == spec
    assert dict(back.provenance) == provenance


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    refusal(noise)
    refusal(join(noise, b""))


@pytest.mark.parametrize("name", ["", 'x","sha256', "with space", "ünï", "new\nline"])
def test_a_provenance_name_that_would_break_the_header_is_refused(name: str) -> None:
    bundle = make_bundle("tokens")
    with pytest.raises(TrmBundleError, match="provenance"):
        bundle_bytes(Bundle(bundle.spec, bundle.tensors, (), {name: "text"}))


def test_half_a_character_in_provenance_is_refused() -> None:
    bundle = make_bundle("tokens")
    with pytest.raises(TrmBundleError, match=r"provenance\.source: expected text that UTF-8 can hold, got 'a\\udcff'"):
        bundle_bytes(Bundle(bundle.spec, bundle.tensors, (), {"source": "a\udcff"}))


def test_a_null_in_provenance_is_refused() -> None:
    bundle = make_bundle("tokens")
    with pytest.raises(TrmBundleError, match=r"provenance\.source: expected text without a null character"):
        bundle_bytes(Bundle(bundle.spec, bundle.tensors, (), {"source": "a\0b"}))


def test_spec_survives_its_metadata() -> None:
    for kind, mixer in CASES:
        spec = make_spec(kind, mixer)
        assert TrmSpec.from_metadata(spec.to_metadata()) == spec


def test_a_golden_array_of_a_dtype_that_bundles_do_not_have_is_named() -> None:
    bundle = make_bundle("actions")
    case = dataclasses.replace(bundle.golden[0], inputs={**bundle.golden[0].inputs, "puzzle_id": np.int64(0)})
    with pytest.raises(TrmBundleError, match=r"golden\.0\.in\.puzzle_id: expected .*int32.*, got int64"):
        bundle_bytes(dataclasses.replace(bundle, golden=[case]))


def test_bool_and_empty_arrays_in_golden_cases_survive() -> None:
    bundle = make_bundle("slots")
    assert any(case.inputs["mask"].dtype == np.bool_ for case in read_bundle(bundle_bytes(bundle)).golden)
    case = dataclasses.replace(bundle.golden[0], inputs={**bundle.golden[0].inputs, "x": np.zeros((0, 6), np.float32)})
    back = read_bundle(bundle_bytes(dataclasses.replace(bundle, golden=[case])))
    assert back.golden[0].inputs["x"].shape == (0, 6)


def test_every_truncation_is_refused() -> None:
    header_end = len(SMALL) - len(split(SMALL)[1])
    for size in [*range(0, header_end, 7), *range(header_end, len(SMALL), 101), len(SMALL) - 1]:
        refusal(SMALL[:size])
    refusal(SMALL + b"\0")
    header, content = split(SMALL)
    assert "trailing bytes" in str(refusal(sealed(header, content + b"\0")))
    assert "truncated: tensor " in str(refusal(sealed(header, content[:-1])))


def test_no_single_bit_may_flip() -> None:
    header_bits = 8 * (len(SMALL) - len(split(SMALL)[1]))
    damaged = bytearray(SMALL)
    for bit in [*range(header_bits), *range(header_bits, 8 * len(SMALL), 401)]:
        damaged[bit // 8] ^= 1 << bit % 8
        assert status_of(bytes(damaged)) < 0, f"bit {bit} went unnoticed"
        damaged[bit // 8] ^= 1 << bit % 8
    assert status_of(bytes(damaged)) == 0


@pytest.mark.parametrize("case", range(len(HOSTILE)))
def test_hostile_headers_are_refused(case: int) -> None:
    name, old, new, message = HOSTILE[case]
    assert message in str(refusal(edited(GOOD[name], old, new)))


@pytest.mark.parametrize("name", GOOD | CALIBRATED)
def test_mutations_are_read_or_refused(name: str) -> None:
    statuses = [status_of(bad) for bad in mutations((GOOD | CALIBRATED)[name], 2000, seed=1)]
    assert set(statuses) <= {Status.OK, Status.INVALID_BUNDLE, Status.UNSUPPORTED_VERSION}
    assert statuses.count(Status.OK) < len(statuses) / 4


def test_values_that_no_model_has() -> None:
    header, content = split(GOOD["actions_attention"])
    entries = json.loads(header)
    for tensor, value, message in (
        ("y_init", math.nan, "finite"),
        ("normalization.x.std", 0.0, "every value > 0"),
        ("normalization.x.std", math.inf, "finite"),
        ("limits.velocity", 0.0, "every value > 0"),
        ("limits.velocity", math.nan, "no NaN"),
        ("limits.lower", 9.0, "lower <= upper"),
        ("limits.lower", math.inf, "limits."),
        ("limits.upper", -math.inf, "limits."),
    ):
        at = entries[tensor]["data_offsets"][0]
        message_given = str(refusal(sealed(header, content[:at] + struct.pack("<f", value) + content[at + 4 :])))
        assert message in message_given
        assert "tensor " in message_given


def test_another_version_says_both_and_what_to_do() -> None:
    error = refusal(edited(SMALL, '"format_version":"1"', '"format_version":"2"'))
    assert isinstance(error, TrmVersionError)
    assert "'2'" in str(error)
    assert "reads 1" in str(error)
    assert "install the release that wrote it" in str(error)


def test_identity_statistics_are_valid() -> None:
    spec = make_spec("actions")
    read_bundle(bundle_bytes(Bundle(spec, random_weights(spec) | identity_statistics(spec))))


@pytest.mark.parametrize("failing", ["open", "fsync", "replace"])
def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    path = tmp_path / "model.trm"
    path.write_bytes(b"the old file")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(TrmIOError, match=r"model\.trm: cannot be written: No space left"):
        write_bundle(path, make_bundle("actions"))
    assert [p.name for p in tmp_path.iterdir()] == ["model.trm"]
    assert path.read_bytes() == b"the old file"


def test_an_invalid_bundle_is_not_written(tmp_path: Path) -> None:
    bundle = make_bundle("actions")
    broken = dataclasses.replace(bundle, tensors={**bundle.tensors, "y_init": np.full(24, np.nan, np.float32)})
    with pytest.raises(TrmBundleError, match="y_init"):
        write_bundle(tmp_path / "model.trm", broken)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TrmIOError, match=r"none\.trm: cannot be read: No such file"):
        read_bundle(tmp_path / "none.trm")
    with pytest.raises(TrmIOError, match="not a regular file"):
        read_bundle(tmp_path)
    os.mkfifo(tmp_path / "pipe")  # nobody writes: reading it would wait for ever
    with pytest.raises(TrmIOError, match="not a regular file"):
        read_bundle(tmp_path / "pipe")


def test_cpp_and_python_name_the_same_statuses() -> None:
    source = (TOP / "csrc/core/status.h").read_text()
    body = re.search(r"enum class Status[^{]*\{(.*?)\};", source, re.DOTALL)
    assert body
    found = re.findall(r"\bk(\w+) = (-?\d+),", body[1])
    names = {re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper(): int(number) for name, number in found}
    assert names == {status.name: status.value for status in Status}


@pytest.fixture(scope="module")
def bundle_check() -> str:
    """Return the path of the C++ program ``bundle_check``."""
    program = os.environ.get("TRM_BUNDLE_CHECK")
    if not program:
        pytest.skip("TRM_BUNDLE_CHECK does not name the program bundle_check (tests/cpp/bundle_check.cc)")
    return program


def cpp_statuses(program: str, folder: Path, files: list[bytes], *options: str) -> list[tuple[int, str]]:
    """Return status and message of the C++ reader for each file."""
    paths = [folder / f"{i}.trm" for i in range(len(files))]
    for path, file in zip(paths, files, strict=True):
        path.write_bytes(file)
    run = subprocess.run([program, *options, *map(str, paths)], capture_output=True, timeout=300, check=False)
    assert run.returncode in (0, 1), run.stderr.decode(errors="replace")
    lines = [line.split(" ", 1) for line in run.stdout.decode().splitlines()]
    assert len(lines) == len(files)
    assert all(len(line) == 2 and line[1] for line in lines)
    return [(int(status), message) for status, message in lines]


def test_both_readers_agree_on_good_and_hostile_files(tmp_path: Path, bundle_check: str) -> None:
    files = [*READ_BY_CPP.values(), *(bundle_bytes(make_bundle(*case)) for case in CASES)]
    hostile = HOSTILE + HOSTILE_CALIBRATED
    files += [edited(READ_BY_CPP[name], old, new) for name, old, new, _ in hostile if name in READ_BY_CPP]
    files += [edited(SMALL, '"format_version":"1"', '"format_version":"2"'), b"", SMALL[:100]]
    files += [
        edited(SMALL, "tests/python", text) for text in ("\\ud83e\\udd16", "\\u0000", "é\x7f", '\\"sha256\\":\\"')
    ]
    for file, (status, message) in zip(files, cpp_statuses(bundle_check, tmp_path, files), strict=True):
        assert status == status_of(file), message


@pytest.mark.parametrize("name", READ_BY_CPP)
def test_both_readers_agree_on_mutations(tmp_path: Path, bundle_check: str, name: str) -> None:
    # A file that is wrong in two ways may be refused for either; accepted or refused is what both must agree on.
    files = list(mutations(READ_BY_CPP[name], 2000, seed=2))
    for i, (status, message) in enumerate(cpp_statuses(bundle_check, tmp_path, files)):
        assert (status == Status.OK) == (status_of(files[i]) == Status.OK), f"{i}.trm: C++ says {message!r}"
        assert status in (Status.OK, Status.INVALID_BUNDLE, Status.UNSUPPORTED_VERSION)


def nearly_verified(bundle: Bundle, rng: np.random.Generator) -> Bundle:
    """Return a bundle whose recorded outputs are off by about as much as is allowed, here and there."""

    def moved(name: str, values: np.ndarray) -> np.ndarray:
        if name not in ("y", "logits", "halt_logits", "projected"):
            return values
        if values.dtype.kind == "i":
            return np.where(rng.random(values.shape) < 0.05, 0, values).astype(values.dtype)
        finite = np.where(np.isfinite(values), values, 0)
        size = np.abs(finite).max(initial=0) * 10.0 ** rng.uniform(-7, -1)
        off = np.where(rng.random(values.shape) < 0.1, size, 0)
        return (values + off).astype(values.dtype)

    golden = [
        dataclasses.replace(case, outputs={name: moved(name, values) for name, values in case.outputs.items()})
        for case in bundle.golden
    ]
    return dataclasses.replace(bundle, golden=golden)


def test_both_verifications_agree(tmp_path: Path, bundle_check: str) -> None:
    rng = np.random.default_rng(4)
    bundles = [read_bundle(file) for file in GOOD.values()]
    for name, file in CALIBRATED.items():
        bundle = read_bundle(file)
        assert bundle.quantization is not None, name
        cases = record_quantized_error(bundle.spec, bundle.tensors, bundle.golden, bundle.quantization)
        bundles.append(dataclasses.replace(bundle, golden=cases))
    bundles += [nearly_verified(bundle, rng) for bundle in bundles for _ in range(20)]
    files = [bundle_bytes(bundle) for bundle in bundles]
    failing = 0
    for file, (status, said) in zip(files, cpp_statuses(bundle_check, tmp_path, files, "--verify"), strict=True):
        bundle = read_bundle(file)
        worst: dict[tuple[int, int], float] = {}
        for check in verify(load(file, backend="fused"), bundle):
            share = math.inf if check.mismatches else check.error / check.tolerance
            worst[check.case, check.step] = max(worst.get((check.case, check.step), 0.0), share)
        failed = sum(share > 1 for share in worst.values())
        failing += failed > 0
        *counts, most = said.split(" ")
        assert (status, [int(n) for n in counts]) == (Status.OK, [len(bundle.golden), len(worst), failed]), said
        assert float(most) == pytest.approx(max(worst.values()), rel=1e-9)
    assert 20 < failing < 150


def unchecked_bundle(fields: dict[str, object]) -> bytes:
    """Return a bundle that is right in all but, perhaps, its spec: tensors and metadata follow from ``fields``."""
    spec = object.__new__(TrmSpec)
    for name, value in fields.items():
        object.__setattr__(spec, name, value)
    tensors = {name: np.ones(shape, np.float32) for name, shape in spec.tensor_shapes().items()}
    metadata = {"format": "trm_edge.bundle", "format_version": "1", "sha256": "0" * 64, "golden.cases": "0"}
    return bundle_module._seal(metadata | spec.to_metadata(), tensors)


def test_both_readers_agree_on_specs(tmp_path: Path, bundle_check: str) -> None:
    rng = random.Random(3)
    choices: dict[str, list[object]] = {
        "answer": ["actions", "slots", "tokens"],
        "mixer": ["attention", "mlp_t"],
        "positions": ["rope", "learned", "none"],
        "draft": ["required", "optional"],
        "rope_theta": [1.0, 0.999, 0.0, -1.0, 1e12, 1e22],
        "norm_eps": [1e-5, 1e-12, 1e-13, 0.0, 1.0, 1.001],
        "num_layers": [0, 1, 64, 65],
        "l_cycles": [0, 1, 31, 256, 257],
        "h_cycles": [0, 1, 2, 256, 257],
        "max_context": [0, 1, 16380, 16384],
        "num_puzzles": [0, 1, 1 << 20],
    }
    files = []
    for _ in range(400):
        fields = make_spec(*rng.choice(CASES)).to_dict()
        for name in rng.sample(sorted(fields), rng.randint(0, 2)):
            fields[name] = rng.choice(choices.get(name, [0, 1, 2, 5, 24, 73]))
        fields |= {"max_context": 6} if fields["mixer"] == "mlp_t" and fields["max_context"] > 100 else {}
        fields |= {"num_puzzles": 9} if fields["num_puzzles"] > 100 and fields["puzzle_size"] > 4 else {}
        files.append(unchecked_bundle(fields))
    expected = [status_of(file) for file in files]
    assert 40 < expected.count(Status.OK) < 360
    for want, (status, message) in zip(expected, cpp_statuses(bundle_check, tmp_path, files), strict=True):
        assert status == want, message
