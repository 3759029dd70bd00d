"""Calibration: observers by hand, ranges by step, the report and its threshold, and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from backend_cases import projected
from models import make_bundle
from runners import plain_bundle

from trm_edge.bundle import Bundle, read_bundle, write_bundle
from trm_edge.calib import OBSERVERS, Call, calibrate, command, golden_calls, load_calls
from trm_edge.calib.calls import split_calls
from trm_edge.calib.collect import collect, input_scales
from trm_edge.calib.observers import Histogram, input_scale
from trm_edge.cli import main
from trm_edge.demo import BUNDLE, RECORDED
from trm_edge.errors import TrmInputError
from trm_edge.golden import random_inputs, relative_error, run_reference
from trm_edge.inputs import check_inputs
from trm_edge.quantization import SCHEMES, QuantizedModel, matrix_names
from trm_edge.reference import ReferenceModel

Capture = pytest.CaptureFixture[str]


def histogram_of(*parts: Any) -> Histogram:
    histogram = Histogram()
    for part in parts:
        histogram.add(np.asarray(part, np.float32))
    return histogram


def random_calls(bundle: Bundle, count: int, seed: int = 0) -> list[Call]:
    rng = np.random.default_rng(seed)
    return [Call(check_inputs(bundle.spec, **random_inputs(bundle.spec, rng)), None) for _ in range(count)]


def test_a_histogram_grows_without_losing_a_value() -> None:
    rng = np.random.default_rng(0)
    parts = [scale * rng.standard_normal(1000) for scale in (0.1, 3, 0.01, 40)]
    grown = histogram_of(*parts)
    at_once = histogram_of(np.concatenate(parts))
    assert grown.largest == at_once.largest == np.abs(np.float32(np.concatenate(parts))).max()
    assert grown.limit == at_once.limit
    np.testing.assert_array_equal(grown.counts, at_once.counts)
    joined = Histogram.joined([histogram_of(part) for part in parts] + [histogram_of([0.0])])
    assert joined.counts.sum() == 4001 and joined.largest == grown.largest


def test_observers_by_hand() -> None:
    rng = np.random.default_rng(1)
    normal = rng.standard_normal(100_000).astype(np.float32)
    outlier = histogram_of(normal, [80.0])
    plain = histogram_of(normal)
    most = float(np.abs(normal).max())
    assert OBSERVERS["minmax"](outlier) == 80
    assert OBSERVERS["minmax"](plain) == most
    # the 99.99th percentile of |normal| is 3.89, known to one bin
    assert OBSERVERS["percentile"](outlier) == pytest.approx(3.89, abs=0.2)
    for name in ("mse", "entropy"):
        assert 2.5 < OBSERVERS[name](plain) <= most
    # Clipping the one outlier costs mse about as much as rounding everybody else; entropy does not mind it.
    assert OBSERVERS["mse"](outlier) < 70
    assert OBSERVERS["entropy"](outlier) < 20


def test_mse_finds_the_threshold_that_rounds_best() -> None:
    values = np.abs(np.random.default_rng(2).laplace(size=20_000))
    histogram = histogram_of(values)

    def error(most: float) -> float:
        scale = most / 127
        return float(((np.minimum(np.rint(values / scale), 127) * scale - values) ** 2).mean())

    best = min(error(most) for most in np.linspace(0.05, 1, 200) * histogram.largest)
    assert error(OBSERVERS["mse"](histogram)) <= 1.02 * best


def test_scales_are_positive_whatever_was_seen() -> None:
    for observer in OBSERVERS:
        assert input_scale(histogram_of(np.zeros(10)), observer) == np.float32(1 / 127)
        assert input_scale(histogram_of([1e-45]), observer) > 0
        assert input_scale(histogram_of([127.0]), observer) <= 1
    assert input_scale(histogram_of([3.0, -5.0]), "minmax") == np.float32(5 / 127)


@pytest.mark.parametrize("mixer", ["rope", "mlp_t"])
def test_ranges_are_those_of_each_step(mixer: str) -> None:
    bundle = plain_bundle("tokens", mixer)
    calls = random_calls(bundle, 3)
    ticks: list[int] = []
    ranges = collect(bundle.spec, bundle.tensors, calls, 3, lambda: ticks.append(1))
    assert len(ticks) == 3 and set(ranges) == set(matrix_names(bundle.spec))
    seen: dict[tuple[str, int], float] = {}

    class Noting(ReferenceModel):
        def product(self, name: str, a: Any, k: int) -> Any:
            seen[name, k] = max(seen.get((name, k), 0.0), float(np.abs(a).max()))
            return super().product(name, a, k)

    for call in calls:
        run_reference(Noting(bundle.spec, bundle.tensors), call.inputs, 3)
    per_step = input_scales(ranges, "static-per-step", "minmax")
    for (name, k), most in seen.items():
        assert per_step[name][k - 1] == pytest.approx(most / 127, rel=1e-4)
    static = input_scales(ranges, "static", "minmax")
    for name, scale in static.items():
        assert scale.dtype == np.float32 and scale.tolist() == [per_step[name].max()]
    assert input_scales(ranges, "dynamic", "minmax") == {}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("kind", "mixer"), [("actions", "rope"), ("slots", "learned"), ("tokens", "mlp_t")])
def test_the_report_is_that_of_the_oracle(kind: str, mixer: str, scheme: str) -> None:
    bundle = make_bundle(kind, mixer)
    calls = random_calls(bundle, 6)
    result = calibrate(bundle, calls, scheme=scheme, steps=3, max_error=1.0)
    measured = calls if scheme == "dynamic" else split_calls(calls, scheme)[1]
    assert result.passed and (result.measured, result.steps) == (len(measured), 3)
    assert result.calibrated == (0 if scheme == "dynamic" else 3)
    quantization = result.quantization
    assert quantization.steps == {"dynamic": 0, "static": 1, "static-per-step": 3}[scheme]
    model = QuantizedModel(bundle.spec, bundle.tensors, quantization)
    exact = ReferenceModel(bundle.spec, bundle.tensors)
    mean, std = (exact.w.get(f"normalization.y0.{name}", 1.0) for name in ("mean", "std"))
    for row, call in zip(result.quantized.errors, measured, strict=True):
        for k, (a, b) in enumerate(zip(*(run_reference(m, call.inputs, 3) for m in (model, exact)), strict=True)):
            values = [(one.y - mean) / std if one.logits is None else one.logits for one in (a, b)]
            assert row[k] == relative_error(*values)
    assert not result.exact.errors.any()
    assert set(result.sensitivity) == set(quantization.precision)
    ordered = list(result.sensitivity.values())
    assert ordered == sorted(ordered, reverse=True) and ordered[-1] > 0
    assert all("quantized_error" in case.outputs for case in result.bundle.golden)
    ranged = "" if scheme == "dynamic" else f", minmax of {result.calibrated} calls"
    said = f"measured on {result.measured} calls to step 3"
    assert result.bundle.provenance["calibration"] == f"{scheme}{ranged}, {said}"
    assert result.metric_name is None and result.metric_loss is None


def test_mixed_precision_stops_where_it_passes() -> None:
    bundle = plain_bundle("actions")
    calls = random_calls(bundle, 8)
    plain = calibrate(bundle, calls, scheme="static")
    allowed = 0.6 * plain.quantized.error
    refused = calibrate(bundle, calls, scheme="static", max_error=allowed)
    assert not refused.passed and refused.quantization.matrices("bf16") == []
    mixed = calibrate(bundle, calls, scheme="static", max_error=allowed, mixed=True)
    assert mixed.passed and mixed.quantized.error <= allowed
    kept = mixed.quantization.matrices("bf16")
    assert 0 < len(kept) < 8 and set(kept) == set(list(plain.sensitivity)[: len(kept)])
    assert set(mixed.quantization.input_scale) == set(mixed.quantization.matrices("int8"))


def test_mixed_precision_goes_on_to_fp32() -> None:
    bundle = plain_bundle("actions")
    result = calibrate(bundle, random_calls(bundle, 4), scheme="static", max_error=0.0, mixed=True)
    assert result.passed and result.quantized.error == 0
    assert (result.quantization.scheme, result.quantization.summary) == ("dynamic", "fp32")


def test_the_metric_is_that_of_the_task() -> None:
    spec = read_bundle(BUNDLE).spec
    calls = load_calls(RECORDED, spec, 12)
    assert len(calls) == 12
    result = calibrate(read_bundle(BUNDLE), calls)
    exact = ReferenceModel(spec, read_bundle(BUNDLE).tensors)
    answers = [
        (projected(read_bundle(BUNDLE), run_reference(exact, c.inputs, 4)[-1].y.astype(np.float32)), c.target)
        for c in calls
    ]
    std = exact.w["normalization.y0.std"]
    truth = np.mean([(((answer - target) / std) ** 2).mean() for answer, target in answers])
    assert result.metric_name == "rms error" and result.exact.metric is not None
    assert result.exact.metric[-1] == pytest.approx(np.sqrt(truth))
    assert result.metric_loss == pytest.approx(result.quantized.metric[-1] / result.exact.metric[-1] - 1)  # type: ignore[index]


def test_the_exact_rate_asks_only_where_there_is_a_target() -> None:
    bundle = plain_bundle("tokens", "mlp_t")
    calls = random_calls(bundle, 4)
    answers = [run_reference(ReferenceModel(bundle.spec, bundle.tensors), c.inputs, 2)[-1].y for c in calls]
    targets = [answers[0], np.where(np.arange(9) == 0, -100, answers[1]), (answers[2] + 1) % 7, answers[3]]
    given = [replace(call, target=target) for call, target in zip(calls, targets, strict=True)]
    result = calibrate(bundle, given[:3], steps=2, max_error=9)
    assert result.metric_name == "exact rate" and result.exact.metric is not None
    assert result.exact.metric[-1] == pytest.approx(2 / 3)
    nothing = [replace(call, target=np.full(9, -100)) for call in calls]
    result = calibrate(bundle, [*given[:3], *nothing], steps=2, max_error=9)
    assert result.exact.metric is not None and result.exact.metric[-1] == pytest.approx(2 / 3)
    assert result.measured == 7


@pytest.mark.parametrize("scheme", ["dynamic", "static"])
def test_a_verdict_does_not_depend_on_the_units_of_actions(scheme: str) -> None:
    bundle = plain_bundle("actions")
    calls = [replace(call, target=np.zeros((5, 3))) for call in random_calls(bundle, 8)]
    scale, offset = np.float32([1000, 1, 0.01]), np.float32([500, -3, 0])

    def in_other_units(values: Any) -> Any:
        return (values * scale + offset).astype(np.float32)

    tensors = dict(bundle.tensors)
    for name in ("limits.lower", "limits.upper", "normalization.y0.mean"):
        tensors[name] = in_other_units(tensors[name])
    for name in ("limits.velocity", "normalization.y0.std"):
        tensors[name] = tensors[name] * scale
    others = [
        replace(
            call, inputs=replace(call.inputs, y0=in_other_units(call.inputs.y0)), target=in_other_units(call.target)
        )
        for call in calls
    ]
    one = calibrate(bundle, calls, scheme=scheme)
    other = calibrate(replace(bundle, tensors=tensors), others, scheme=scheme)
    np.testing.assert_allclose(other.quantized.errors, one.quantized.errors, rtol=0.02)
    np.testing.assert_allclose(other.quantized.metric, one.quantized.metric, rtol=1e-3)
    assert one.metric_loss is not None and other.metric_loss == pytest.approx(one.metric_loss, abs=1e-3)


def write_training_data(path: Path, bundle: Bundle, count: int, **changes: Any) -> Path:
    """Write slots calls with padding, as trainers read them."""
    spec, rng = bundle.spec, np.random.default_rng(3)
    drawn = [random_inputs(spec, rng) for _ in range(count)]
    arrays = {name: np.stack([call[name] for call in drawn]) for name in drawn[0]}
    arrays |= {"s_len": np.full(count, 3), "m_len": np.full(count, 5), "x_len": np.full(count, 2)}
    arrays["y0"] = np.full_like(arrays["y0"], -1).astype(np.int64)
    arrays["target"] = np.where(arrays["mask"][:, :, 0], 0, -1)
    arrays |= changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def test_padding_is_cut_off(tmp_path: Path) -> None:
    bundle = plain_bundle("slots")
    calls = load_calls(write_training_data(tmp_path / "d.npz", bundle, 5), bundle.spec, 3)
    assert len(calls) == 3
    inputs = calls[0].inputs
    assert inputs.slots is not None and inputs.candidates is not None and inputs.mask is not None
    shapes = (len(inputs.x), len(inputs.slots), len(inputs.candidates), inputs.mask.shape)
    assert shapes == (2, 3, 5, (3, 5))
    assert calls[0].target is not None and len(calls[0].target) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"candidates": None}, "candidates: missing; a head of slots needs it"),
        ({"x": np.zeros((4, 5, 6), np.float32)}, "expected arrays of one length"),
        ({"x": np.zeros((5, 5, 9), np.float32)}, r"example 0: x: expected shape \[P, 6\], got \[2, 9\]"),
        ({"x": np.full((5, 5, 6), np.nan, np.float32)}, "example 0: expected finite inputs"),
        ({"target": np.zeros((5, 4, 2))}, r"example 0: target: expected shape \[3\], got \[3, 2\]"),
        ({"target": np.zeros((5, 4))}, "example 0: target: expected integers, got float64"),
        ({"target": np.full((5, 4), 5)}, r"example 0: target: expected 0\.\.4, or -1, got 5"),
        ({"target": np.full((5, 4), -2)}, r"example 0: target: expected 0\.\.4, or -1, got -2"),
        (
            {"target": np.full((5, 4), 1), "mask": np.zeros((5, 4, 6), bool)},
            "example 0: target: slot 0: candidate 1 is outside its mask",
        ),
        ({"right": np.zeros((5, 6))}, r"example 0: right: expected a bool for each candidate .*, got float64 \[5\]"),
        ({"y0": np.full((5, 4), 2**32)}, "example 0: y0: expected indices that an int32 holds, got 4294967296"),
        ({"s_len": np.full(5, 9)}, r"example 0: s_len: expected 0\.\.4, the rows of slots, got 9"),
        ({"x_len": np.full(5, -1)}, r"example 0: x_len: expected 0\.\.5, the rows of x, got -1"),
        ({"s_len": np.full(5, 2.7)}, "example 0: s_len: expected one integer"),
    ],
)
def test_data_that_does_not_fit_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    bundle = plain_bundle("slots")
    path = write_training_data(tmp_path / "d.npz", bundle, 5, **changes)
    with pytest.raises(TrmInputError, match=message):
        load_calls(path, bundle.spec, 3)


def packed_data(path: Path, bundle: Bundle, **changes: Any) -> list[dict[str, Any]]:
    """Write slots calls of several sizes, packed, and return them."""
    rng, calls = np.random.default_rng(3), []
    for slots, candidates in ((2, 5), (4, 6), (1, 1)):
        call = random_inputs(bundle.spec, rng, answer_rows=slots, candidates=candidates)
        slot_of = np.arange(candidates) % slots
        chosen = np.arange(slots)  # the first of its own
        calls.append(call | {"mask": slot_of == chosen[:, None], "y0": np.full(slots, -1, np.int32), "target": chosen})
    arrays = {name: np.concatenate([c[name] for c in calls]) for name in ("x", "slots", "candidates", "target")}
    arrays |= {"slot_of": np.concatenate([c["mask"].argmax(0) for c in calls])}
    lengths = {"x_len": "x", "s_len": "slots", "m_len": "candidates"}
    arrays |= {length: np.array([len(c[name]) for c in calls]) for length, name in lengths.items()}
    np.savez(path, **(arrays | changes))
    return calls


def test_packed_slots_are_read_as_they_were(tmp_path: Path) -> None:
    bundle = plain_bundle("slots")
    wanted = packed_data(tmp_path / "d.npz", bundle)
    for call, want in zip(load_calls(tmp_path / "d.npz", bundle.spec, 9), wanted, strict=True):
        assert call.target is not None
        for name in ("x", "y0", "slots", "candidates", "mask"):
            np.testing.assert_array_equal(getattr(call.inputs, name), want[name])
        np.testing.assert_array_equal(call.target, want["target"])


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_of_shards_is_read_as_a_file(packed: bool, tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.numpy").save_file
    bundle = plain_bundle("slots")
    if packed:
        packed_data(tmp_path / "d.npz", bundle)
    else:
        write_training_data(tmp_path / "d.npz", bundle, 3)
    with np.load(tmp_path / "d.npz") as stored:
        arrays = dict(stored)
    (tmp_path / "shards").mkdir()
    lengths = np.array([2, 5]) if packed else np.array([3, 4])  # the first example, and the others
    for number in range(2):
        part = {}
        for name, array in arrays.items():
            rows = {"x": arrays["x_len"][0], "slots": lengths[0], "target": lengths[0]}.get(name, lengths[1])
            cut = (1 if name.endswith("_len") else int(rows)) if packed else 1
            part[name] = np.ascontiguousarray(array[cut:] if number else array[:cut])
        save_file(part, tmp_path / "shards" / f"{number}.safetensors")
    one, many = (load_calls(tmp_path / name, bundle.spec, 9) for name in ("d.npz", "shards"))
    assert len(one) == len(many) == 3
    for a, b in zip(one, many, strict=True):
        for name in ("x", "y0", "slots", "candidates", "mask"):
            np.testing.assert_array_equal(getattr(a.inputs, name), getattr(b.inputs, name))
        np.testing.assert_array_equal(a.target, b.target)
    with pytest.raises(TrmInputError, match=r"empty: expected an \.npz file or a folder of \.safetensors shards"):
        load_calls(tmp_path / "empty", bundle.spec, 9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"s_len": np.array([2, 4, 2])}, "slots: expected 8 rows, as s_len says, got"),
        ({"m_len": np.array([5, 8, -1])}, r"m_len: expected integers from 0 on, \[3\]"),
        ({"slot_of": np.full(12, 9)}, r"example 0: slot_of: expected slots of the example, 0\.\.1, got others"),
    ],
)
def test_packed_slots_that_do_not_fit_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    bundle = plain_bundle("slots")
    packed_data(tmp_path / "d.npz", bundle, **changes)
    with pytest.raises(TrmInputError, match=message):
        load_calls(tmp_path / "d.npz", bundle.spec, 9)


def test_candidates_that_are_as_right_count_as_right(tmp_path: Path) -> None:
    bundle = plain_bundle("slots")
    packed_data(tmp_path / "d.npz", bundle, right=np.ones(12, bool))
    result = calibrate(bundle, load_calls(tmp_path / "d.npz", bundle.spec, 9), steps=1)
    assert result.exact.metric is not None and result.exact.metric[-1] == 1
    packed_data(tmp_path / "d.npz", bundle)
    result = calibrate(bundle, load_calls(tmp_path / "d.npz", bundle.spec, 9), steps=1)
    assert result.exact.metric is not None and result.exact.metric[-1] < 1


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "expected finite values, found NaN or Inf"), ("1.0", "expected real numbers, got <U3")],
)
def test_a_target_that_is_no_action_is_refused(value: Any, message: str, tmp_path: Path) -> None:
    bundle = plain_bundle("actions")
    call = random_inputs(bundle.spec, np.random.default_rng(1))
    arrays = {name: np.stack([array] * 2) for name, array in call.items()}
    np.savez(tmp_path / "d.npz", **arrays, target=np.full(arrays["y0"].shape, value))
    with pytest.raises(TrmInputError, match=f"example 0: target: {message}"):
        load_calls(tmp_path / "d.npz", bundle.spec, 2)


def test_a_puzzle_id_is_not_rounded(tmp_path: Path) -> None:
    bundle = plain_bundle("tokens")
    np.savez(tmp_path / "d.npz", x=np.zeros((1, bundle.spec.answer_rows), np.int32), puzzle_id=np.full(1, 0.7))
    with pytest.raises(TrmInputError, match="example 0: puzzle_id: expected one integer"):
        load_calls(tmp_path / "d.npz", bundle.spec, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scheme": "int4"}, "scheme: expected one of dynamic"),
        ({"observer": "best"}, "observer: expected one of minmax"),
        ({"steps": 0}, "steps: expected 1..1024, got 0"),
    ],
)
def test_wrong_arguments_are_refused(changes: dict[str, Any], message: str) -> None:
    bundle = plain_bundle("actions")
    with pytest.raises(TrmInputError, match=message):
        calibrate(bundle, random_calls(bundle, 1), **changes)
    with pytest.raises(TrmInputError, match="calls: expected at least one"):
        calibrate(bundle, [])
    with pytest.raises(TrmInputError, match="holds no golden vectors"):
        golden_calls(bundle)


# ---- The command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "head.trm"
    write_bundle(path, make_bundle("actions"))
    return path


def run(capsys: Capture, *argv: object) -> tuple[int, str, str]:
    code = main(["calibrate", *map(str, argv)])
    return code, *capsys.readouterr()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_command_writes_a_calibrated_bundle(scheme: str, source: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "int8.trm"
    code, text, _ = run(capsys, source, out, "--scheme", scheme, "--max-error", "0.5")
    assert code == 0 and "passed" in text and f"{out}: written" in text and "blocks.1.mlp.down" in text
    back = read_bundle(out)
    assert back.quantization is not None and back.quantization.scheme == scheme
    np.testing.assert_array_equal(back.tensors["y_init"], read_bundle(source).tensors["y_init"])
    again = tmp_path / "again.trm"
    assert run(capsys, out, again, "--scheme", scheme, "--max-error", "0.5")[0] == 0
    assert again.read_bytes() == out.read_bytes()


def test_the_command_refuses_what_rounds_too_far(source: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "int8.trm"
    code, text, _ = run(capsys, source, out, "--max-error", "1e-6")
    assert code == 1 and "FAILED" in text and "not written; --mixed may help, --force writes it" in text
    assert not out.exists()
    code, text, _ = run(capsys, source, out, "--max-error", "1e-6", "--force", "--json")
    facts = json.loads(text)
    assert (facts["scheme"], facts["observer"]) == ("dynamic", None)
    assert code == 1 and out.exists() and facts["written"] == str(out) and facts["passed"] is False
    assert run(capsys, source, out, "--max-error", "1e-6", "--mixed")[0] == 0


def test_the_command_reports_as_json_and_as_a_picture(tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip("matplotlib")
    out, picture = tmp_path / "int8.trm", tmp_path / "report.png"
    options = ("--data", RECORDED, "--calls", 8, "--scheme", "static-per-step", "--observer", "mse", "--json")
    code, text, err = run(capsys, BUNDLE, out, *options, "--plot", picture, "--max-error", 1, "--max-loss", 1)
    facts = json.loads(text)
    assert code == 0 and err == "" and facts["passed"] is True
    assert facts["observer"] == "mse"
    assert facts["calls"] == {"calibrated": 4, "measured": 4} and facts["metric"] == "rms error"
    assert len(facts["median_error"]) == len(facts["metric_quantized"]) == 4
    assert all(len(scale) == 4 for scale in facts["input_scale"].values())
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("scheme", "calls", "said"),
    [
        ("static", 3, "minmax, measured on 3 calls, those that gave the ranges\n"),
        ("static", 4, "minmax, measured on 2 held-out calls\n"),
        ("dynamic", 3, "dynamic, measured on 3 held-out calls\n"),
    ],
)
def test_the_report_says_what_was_measured(scheme: str, calls: int, said: str, tmp_path: Path, capsys: Capture) -> None:
    options = ("--data", RECORDED, "--calls", calls, "--scheme", scheme)
    assert said in run(capsys, BUNDLE, tmp_path / "int8.trm", *options)[1]


def test_the_report_says_where_nothing_is_left_in_int8(source: Path, capsys: Capture) -> None:
    said = "no matrix is left in int8"
    _, text, _ = run(capsys, source, source.with_name("out.trm"), "--mixed", "--max-error", 0)
    assert said in text and "int8\n" not in text.split("kept in")[1].split(said)[0]
    assert said not in run(capsys, source, source.with_name("out.trm"), "--max-error", 1)[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--max-error", "nan"), "--max-error: expected >= 0, got nan"),
        (("--data", RECORDED, "--calls", 0), "--calls: expected at least 1, got 0"),
        (("--calls", 8), "--calls: of --data, which is not given"),
        (("--steps", 0), "steps: expected 1..1024"),
        (("--max-loss", 0.1), "--max-loss: of the task's metric, which needs calls with a target"),
        (("--observer", "mse"), "--observer: for --scheme static and static-per-step; dynamic finds its scales"),
        (("--data", "none.npz"), "none.npz: not a readable .npz file"),
    ],
)
def test_the_command_refuses_wrong_numbers(options: Any, message: str, source: Path, capsys: Capture) -> None:
    code, out, err = run(capsys, source, source.with_name("out.trm"), *options)
    assert (code, out) == (2, "") and message in err
    assert not source.with_name("out.trm").exists()


def test_a_loss_of_nothing_is_refused(tmp_path: Path, capsys: Capture) -> None:
    bundle = make_bundle("slots")
    write_bundle(tmp_path / "head.trm", bundle)
    data = write_training_data(tmp_path / "d.npz", bundle, 5, target=np.full((5, 4), -1))
    options = (tmp_path / "head.trm", tmp_path / "out.trm", "--data", data)
    code, _, err = run(capsys, *options, "--max-loss", 0.1)
    assert code == 2 and "--max-loss: of the task's metric" in err and "ask nothing" in err
    assert "exact rate" not in run(capsys, *options, "--force")[1]


def test_a_picture_that_cannot_be_written_is_refused_before_the_work(
    source: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(command, "calibrate", lambda *_, **__: pytest.fail("it calibrated"))
    source.with_name("charts").mkdir()
    wrong = {
        "report.xyz": "expected a picture's name",
        "missing/report.png": "there is no folder",
        "charts": "is a folder",
    }
    for picture, message in wrong.items():
        code, out, err = run(capsys, source, source.with_name("out.trm"), "--plot", source.parent / picture)
        assert (code, out) == (2, "") and picture in err and message in err


def test_a_picture_that_fails_does_not_cost_the_calibration(
    source: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    out, picture = source.with_name("out.trm"), source.with_name("report.png")
    golden = command.golden_calls
    monkeypatch.setattr(command, "golden_calls", lambda bundle: picture.mkdir() or golden(bundle))  # meanwhile
    code, text, err = run(capsys, source, out, "--force", "--plot", picture)
    assert code == 2 and "report.png" in err and f"{out}: written" in text
    assert read_bundle(out).quantization is not None


def test_the_report_says_what_its_rms_error_is_of(tmp_path: Path, capsys: Capture) -> None:
    _, text, _ = run(capsys, BUNDLE, tmp_path / "int8.trm", "--data", RECORDED, "--calls", 8, "--force")
    assert "rms error: over all values of all chunks inside the limits, in units of std" in text


def test_the_report_says_where_one_call_decides(capsys: Capture) -> None:
    bundle = make_bundle("slots")
    calls = [replace(call, target=np.zeros(call.inputs.answer_rows, np.int32)) for call in random_calls(bundle, 8)]
    result = calibrate(bundle, calls, steps=2, max_error=1e9)
    assert result.metric_name == "exact rate" and result.measured < 200
    command.print_report(replace(result, metric_loss=1 / result.measured), Path("head.trm"), random=False)
    said = (
        f"one of {result.measured} calls is {1 / result.measured:.2%}: measure more (--data), or allow it (--max-loss)"
    )
    assert said in capsys.readouterr().out
    command.print_report(replace(result, metric_loss=0.0, max_error=0.0), Path("head.trm"), random=False)
    out = capsys.readouterr().out
    assert "FAILED" in out and "one of" not in out


def test_the_command_writes_bundles_alone(source: Path, capsys: Capture) -> None:
    code, _, err = run(capsys, source, source.with_name("out.onnx"))
    assert code == 2 and "expected a name that ends in .trm" in err
