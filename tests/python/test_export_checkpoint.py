"""The trainer's checkpoint, and the bundle that is made of it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import CASES, make_spec, random_weights

import trm_edge
from trm_edge.bundle import read_bundle
from trm_edge.errors import TrmBundleError, TrmInputError, TrmIOError, TrmUnsupportedError, TrmVersionError
from trm_edge.golden import golden_arguments, relative_error, run_reference
from trm_edge.inputs import check_inputs
from trm_edge.reference import ReferenceModel
from trm_edge.spec import identity_statistics

torch = pytest.importorskip("torch")

from trm_edge.export import export_bundle, load_checkpoint, save_checkpoint  # noqa: E402


def content(kind: str = "actions", mixer: str = "rope") -> dict[str, Any]:
    spec = make_spec(kind, mixer)
    state = {name: torch.from_numpy(values) for name, values in random_weights(spec).items()}
    return {"format": "trm_edge.checkpoint", "version": 1, "spec": spec.to_dict(), "state_dict": state}


@pytest.mark.parametrize(("kind", "mixer"), CASES)
def test_round_trip(tmp_path: Path, kind: str, mixer: str) -> None:
    spec = make_spec(kind, mixer)
    tensors = random_weights(spec)
    save_checkpoint(tmp_path / "a.pt", spec, tensors)
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]
    got_spec, got = load_checkpoint(tmp_path / "a.pt")
    assert got_spec == spec
    assert list(got) == list(spec.tensor_shapes())
    for name, values in tensors.items():
        np.testing.assert_array_equal(got[name], values)
        assert got[name].dtype == np.float32


def test_a_bundle_repeats_what_training_says(tmp_path: Path) -> None:
    spec = make_spec("actions")
    save_checkpoint(tmp_path / "a.pt", spec, random_weights(spec), {"trained_steps": "3", "source": "elsewhere"})
    export_bundle(tmp_path / "a.pt", tmp_path / "a.trm")
    provenance = read_bundle(tmp_path / "a.trm").provenance
    assert (provenance["trained_steps"], provenance["source"]) == ("3", "a.pt")
    torch.save(content(), tmp_path / "old.pt")
    export_bundle(tmp_path / "old.pt", tmp_path / "old.trm")
    assert read_bundle(tmp_path / "old.trm").provenance.keys() == {"source", "checkpoint_sha256", "exporter"}


@pytest.mark.parametrize("provenance", [3, ["a"], {"a": 1}, {1: "a"}], ids=str)
def test_provenance_that_is_no_text_is_refused(provenance: Any, tmp_path: Path) -> None:
    torch.save(content() | {"provenance": provenance}, tmp_path / "a.pt")
    with pytest.raises(TrmBundleError, match=r"a\.pt: provenance: expected a dictionary of texts by name, got "):
        load_checkpoint(tmp_path / "a.pt")


def test_statistics_may_be_left_out(tmp_path: Path) -> None:
    spec = make_spec("actions")
    weights = {n: v for n, v in random_weights(spec).items() if not n.startswith(("normalization.", "limits."))}
    save_checkpoint(tmp_path / "a.pt", spec, {name: torch.from_numpy(v) for name, v in weights.items()})
    assert set(torch.load(tmp_path / "a.pt", weights_only=True)["state_dict"]) == set(weights)
    _, got = load_checkpoint(tmp_path / "a.pt")
    for name, values in identity_statistics(spec).items():
        np.testing.assert_array_equal(got[name], values)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_other_float_types(tmp_path: Path, dtype: str) -> None:
    saved = content()
    saved["state_dict"] = {n: t.to(getattr(torch, dtype)) for n, t in saved["state_dict"].items()}
    torch.save(saved, tmp_path / "a.pt")
    _, got = load_checkpoint(tmp_path / "a.pt")
    for name, tensor in saved["state_dict"].items():
        np.testing.assert_array_equal(got[name], tensor.float().numpy())


def test_a_flipped_bit_of_a_weight_is_refused(tmp_path: Path) -> None:
    saved = content()
    torch.save(saved, tmp_path / "a.pt")
    data = bytearray((tmp_path / "a.pt").read_bytes())
    data[data.index(saved["state_dict"]["registers"].numpy().tobytes()) + 5] ^= 1
    (tmp_path / "a.pt").write_bytes(data)
    for read in (load_checkpoint, lambda path: export_bundle(path, tmp_path / "a.trm")):
        with pytest.raises(TrmBundleError, match=r"a\.pt: damaged: the checksum of a/data/\d+ does not fit"):
            read(tmp_path / "a.pt")
    assert not (tmp_path / "a.trm").exists()
    torch.save(saved, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    load_checkpoint(tmp_path / "old.pt")


def test_a_file_without_checksums_is_refused(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(content(), tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    with pytest.raises(TrmBundleError, match=r"a\.pt: holds no checksums.*save it again without .*set_crc32_options"):
        load_checkpoint(tmp_path / "a.pt")


def test_a_file_whose_name_is_not_utf8(tmp_path: Path) -> None:
    source = tmp_path / os.fsdecode(b"h\xc3\xa9ad\xff.pt")
    save_checkpoint(tmp_path / "head.pt", spec := make_spec("tokens"), random_weights(spec))
    try:
        (tmp_path / "head.pt").rename(source)
    except OSError:
        pytest.skip("a file system that takes UTF-8 alone")
    export_bundle(source, tmp_path / "a.trm")
    assert read_bundle(tmp_path / "a.trm").provenance["source"] == "h\u00e9ad\\xff.pt"
    assert trm_edge.load(tmp_path / "a.trm", backend="fused").provenance("source") == "h\u00e9ad\\xff.pt"


def test_views_and_parameters(tmp_path: Path) -> None:
    saved = content()
    weight = saved["state_dict"]["registers"]
    saved["state_dict"]["registers"] = torch.nn.Parameter(weight.T.contiguous().T)
    torch.save(saved, tmp_path / "a.pt")
    np.testing.assert_array_equal(load_checkpoint(tmp_path / "a.pt")[1]["registers"], weight.numpy())


def change(key: str, value: Any) -> Any:
    def apply(saved: dict[str, Any]) -> None:
        place = saved
        *path, last = key.split("/")
        for part in path:
            place = place[part]
        if value is None:
            del place[last]
        else:
            place[last] = value

    return apply


REFUSED = [
    ("format", "other", TrmBundleError, "not a trm_edge checkpoint.*all_config.yaml"),
    ("version", 2, TrmVersionError, "version 2 .* reads 1"),
    ("version", None, TrmVersionError, "version None"),
    ("spec", None, TrmBundleError, "expected exactly the keys"),
    ("extra", 1, TrmBundleError, "expected exactly the keys"),
    ("spec", [1], TrmBundleError, "spec: expected a dictionary"),
    ("spec", {1: 2}, TrmBundleError, "spec: expected a dictionary with string keys"),
    ("spec/colour", 3, TrmBundleError, "unknown field.*colour"),
    ("spec/hidden_size", "24", TrmBundleError, "spec.hidden_size"),
    ("spec/dof", None, TrmBundleError, "spec.dof"),
    ("spec/answer", None, TrmBundleError, "incomplete"),
    ("state_dict", 7, TrmBundleError, "state_dict: expected a dictionary"),
    ("state_dict/y_init", None, TrmBundleError, "lacks y_init"),
    ("state_dict/stray", torch.zeros(1), TrmBundleError, "unknown tensor.*stray"),
    ("state_dict/y_init", torch.zeros(23), TrmBundleError, r"y_init: expected shape \[24\], got \[23\]"),
    ("state_dict/y_init", torch.zeros(24, dtype=torch.int32), TrmBundleError, "y_init: expected a dense float"),
    ("state_dict/y_init", torch.zeros(24, dtype=torch.complex64), TrmBundleError, "y_init: expected a dense float"),
    ("state_dict/y_init", torch.zeros(24).to_sparse(), TrmBundleError, "y_init: expected a dense float"),
    ("state_dict/y_init", torch.zeros(24, device="meta"), TrmBundleError, "y_init: expected a dense float"),
    ("state_dict/y_init", [0.0] * 24, TrmBundleError, "y_init: expected a tensor, got list"),
    ("state_dict/y_init", torch.full((24,), torch.nan), TrmBundleError, "y_init: expected finite"),
    ("state_dict/y_init", torch.full((24,), 1e300, dtype=torch.float64), TrmBundleError, "y_init: expected finite"),
    ("state_dict/normalization.x.std", torch.zeros(7), TrmBundleError, "normalization.x.std"),
    ("state_dict/limits.lower", torch.full((3,), 9.0), TrmBundleError, "limits.lower"),
]


@pytest.mark.parametrize(("key", "value", "error", "match"), REFUSED)
def test_refusals_say_what_is_wrong(tmp_path: Path, key: str, value: Any, error: type, match: str) -> None:
    saved = content()
    change(key, value)(saved)
    path = tmp_path / "bad.pt"
    torch.save(saved, path)
    with pytest.raises(error, match=match) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)


class Bomb:
    def __reduce__(self) -> Any:
        return os.system, ("true",)


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, make_spec("actions"), random_weights(make_spec("actions")))
    whole = path.read_bytes()
    torch.save({"a": Bomb()}, tmp_path / "bomb.pt")
    bomb = (tmp_path / "bomb.pt").read_bytes()
    cuts = [whole[:n] for n in (0, 1, 100, len(whole) // 2, len(whole) - 1)]
    for data in (
        *cuts,
        b"hello",
        bomb,
        b"\x80\x02K\x01.",
        whole.replace(b"trm_edge.checkpoint", b"trm_edge.chequebook"),
    ):
        path.write_bytes(data)
        with pytest.raises(TrmBundleError, match=r"a\.pt") as caught:
            load_checkpoint(path)
        assert "\x1b" not in str(caught.value) and "two options" not in str(caught.value)
    with pytest.raises(TrmIOError, match=r"none\.pt"):
        load_checkpoint(tmp_path / "none.pt")


def test_saving_checks_too(tmp_path: Path) -> None:
    spec = make_spec("actions")
    with pytest.raises(TrmBundleError, match="lacks"):
        save_checkpoint(tmp_path / "a.pt", spec, {})
    assert not list(tmp_path.iterdir())


# ---- bundles -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "mixer"), CASES)
def test_export_records_golden_cases(tmp_path: Path, kind: str, mixer: str) -> None:
    spec = make_spec(kind, mixer)
    save_checkpoint(tmp_path / "a.pt", spec, random_weights(spec))
    export_bundle(tmp_path / "a.pt", tmp_path / "a.trm", golden_cases=3, steps=2)
    bundle = read_bundle(tmp_path / "a.trm")
    assert bundle.spec == spec
    assert bundle.provenance["source"] == "a.pt"
    assert bundle.provenance["exporter"] == trm_edge.__version__
    assert bundle.provenance["checkpoint_sha256"] == hashlib.sha256((tmp_path / "a.pt").read_bytes()).hexdigest()
    assert len(bundle.golden) == 3
    for case in bundle.golden:
        inputs = check_inputs(spec, **golden_arguments(case))
        steps = run_reference(ReferenceModel(spec, bundle.tensors), inputs, 2)
        for k, step in enumerate(steps):
            assert relative_error(case.outputs["y"][k], step.y) == 0
        assert (case.fp32_error < 1e-5).all()


def test_golden_sizes(tmp_path: Path) -> None:
    spec = make_spec("slots")  # up to 4 slots, 6 candidates, 5 context rows
    save_checkpoint(tmp_path / "a.pt", spec, random_weights(spec))
    largest, smaller = export_bundle(tmp_path / "a.pt", tmp_path / "a.trm").golden
    assert (largest.inputs["mask"].shape, len(largest.inputs["x"])) == ((4, 6), 5)
    assert (smaller.inputs["mask"].shape, len(smaller.inputs["x"])) == ((3, 5), 3)


def test_golden_without_a_draft(tmp_path: Path) -> None:
    spec = make_spec("actions", draft="optional")
    save_checkpoint(tmp_path / "a.pt", spec, random_weights(spec))
    with_draft, without = export_bundle(tmp_path / "a.pt", tmp_path / "a.trm", exporter="9.9").golden
    assert "y0" in with_draft.inputs
    assert "y0" not in without.inputs
    assert without.outputs["y"].shape == (4, 5, 3)
    assert read_bundle(tmp_path / "a.trm").provenance["exporter"] == "9.9"


@pytest.mark.parametrize("sizes", [{"answer_rows": 1, "max_candidates": 1, "max_context": 1}, {"answer_rows": 2}])
def test_golden_of_the_smallest_heads(tmp_path: Path, sizes: dict[str, int]) -> None:
    spec = make_spec("slots", **sizes)
    save_checkpoint(tmp_path / "a.pt", spec, random_weights(spec))
    assert len(export_bundle(tmp_path / "a.pt", tmp_path / "a.trm", steps=1).golden) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        {"official": "c.yaml"},
        {"dataset": "d.json"},
        {"golden_cases": -1},
        {"steps": 0},
        {"steps": 1025},
        {"steps": 2.5},
        {"seed": -1},
    ],
)
def test_wrong_arguments(tmp_path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(TrmInputError):
        export_bundle(tmp_path / "a.pt", tmp_path / "a.trm", **arguments)


def test_missing_torch_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(TrmUnsupportedError, match=r"pip install 'trm-edge\[export\]'"):
        load_checkpoint(tmp_path / "a.pt")
