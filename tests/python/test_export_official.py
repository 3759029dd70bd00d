"""Checkpoints of the official trainer: equality with its outputs, and refusal of what cannot be exported."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trm_edge
from trm_edge._native import core
from trm_edge.bundle import Bundle, bundle_bytes, read_bundle
from trm_edge.errors import TrmBundleError, TrmInputError, TrmIOError
from trm_edge.golden import relative_error, run_reference
from trm_edge.inputs import check_inputs
from trm_edge.reference import ReferenceModel

torch = pytest.importorskip("torch")
yaml = pytest.importorskip("yaml")

from trm_edge.export import export_bundle, load_official  # noqa: E402

FIXTURES = Path(__file__).parents[1] / "golden" / "official"
TOLERANCE = {"attn_rope": 1e-5, "mlp_t": 1e-5, "attn_rope_bf16": 3e-2}  # the last ran in bfloat16
MODELS = list(TOLERANCE)


class Folder:
    """A writable copy of a fixture."""

    def __init__(self, path: Path, name: str) -> None:
        shutil.copytree(FIXTURES / name, path)
        self.checkpoint, self.config, self.dataset = path / "step_0", path / "all_config.yaml", path / "dataset.json"

    def load(self) -> Any:
        return load_official(self.checkpoint, self.config, self.dataset)

    def arch(self, **changes: Any) -> None:
        """Change keys of ``arch``; None removes one."""
        config = yaml.safe_load(self.config.read_text())
        config["arch"] = {k: v for k, v in (config["arch"] | changes).items() if v is not None}
        self.config.write_text(yaml.dump(config))

    def sizes(self, **changes: Any) -> None:
        values = json.loads(self.dataset.read_text()) | changes
        self.dataset.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))

    def state(self, edit: Any) -> None:
        state = torch.load(self.checkpoint, weights_only=True)
        torch.save(edit(state), self.checkpoint)


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    return lambda name="attn_rope": Folder(tmp_path / name, name)


def load(name: str) -> Any:
    path = FIXTURES / name
    return load_official(path / "step_0", path / "all_config.yaml", path / "dataset.json")


def golden(name: str) -> tuple[list[dict[str, Any]], np.ndarray, np.ndarray]:
    """Return the calls, and logits ``[K, B, S, V]`` and halt logits ``[K, B]`` of the official code."""
    with np.load(FIXTURES / name / "golden.npz") as file:
        data = dict(file)
    calls = [
        {"x": x, "y0": None, "puzzle_id": int(p)}
        for x, p in zip(data["inputs"], data["puzzle_identifiers"], strict=True)
    ]
    return calls, data["logits"], data["q_halt"]


def assert_equal(name: str, logits: np.ndarray, halt: np.ndarray) -> None:
    """Compare each step: logits per sample, halt logits over the batch, as one of them may lie near 0."""
    _, want_logits, want_halt = golden(name)
    for k in range(len(want_logits)):
        for b in range(want_logits.shape[1]):
            assert relative_error(logits[k, b], want_logits[k, b]) <= TOLERANCE[name]
        assert relative_error(halt[k], want_halt[k]) <= TOLERANCE[name]


@pytest.mark.parametrize("name", MODELS)
def test_oracle_equals_the_official_code(name: str) -> None:
    spec, tensors, provenance = load(name)
    calls, want, _ = golden(name)
    assert provenance["forward_dtype"] == ("bfloat16" if "bf16" in name else "float32")
    assert provenance["trained_steps"] == "16"
    assert provenance["checkpoint_sha256"] == hashlib.sha256((FIXTURES / name / "step_0").read_bytes()).hexdigest()
    model = ReferenceModel(spec, tensors)
    runs = [run_reference(model, check_inputs(spec, **call), len(want)) for call in calls]
    logits = np.stack([[run[k].logits for run in runs] for k in range(len(want))])
    halt = np.asarray([[run[k].halt_logit for run in runs] for k in range(len(want))])
    assert_equal(name, logits, halt)


@pytest.mark.parametrize("loop", ["unrolled", "onnx-loop", "step"])
@pytest.mark.parametrize("name", MODELS)
def test_onnx_equals_the_official_code(name: str, loop: str) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from trm_edge.export import build_onnx

    spec, tensors, _ = load(name)
    calls, want, _ = golden(name)
    graph = build_onnx(Bundle(spec, tensors), loop, len(want)).SerializeToString()
    runner = trm_edge.load(graph, backend="onnxruntime")
    outs = [runner.refine(**call, steps=len(want), trajectory=True) for call in calls]
    assert_equal(name, np.stack([o.logits for o in outs], axis=1), np.stack([o.halt_logits for o in outs], axis=1))


@pytest.mark.parametrize("isa", core.supported_isas().split(","))
@pytest.mark.parametrize("name", MODELS)
def test_the_fused_engine_equals_the_official_code(name: str, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRM_EDGE_ISA", isa)
    spec, tensors, _ = load(name)
    calls, want, _ = golden(name)
    refiner = trm_edge.load(bundle_bytes(Bundle(spec, tensors)), backend="fused")
    assert refiner.isa == isa
    outs = [refiner.refine(**call, steps=len(want), trajectory=True) for call in calls]
    assert_equal(name, np.stack([o.logits for o in outs], axis=1), np.stack([o.halt_logits for o in outs], axis=1))


def test_a_flipped_bit_of_a_weight_is_refused(folder: Any) -> None:
    files = folder()
    data = bytearray(files.checkpoint.read_bytes())
    weight = next(iter(torch.load(files.checkpoint, weights_only=True).values()))
    data[data.index(weight.numpy().tobytes()) + 5] ^= 1
    files.checkpoint.write_bytes(data)
    with pytest.raises(TrmBundleError, match=r"step_0: damaged: the checksum of .*data/\d+ does not fit"):
        files.load()


@pytest.mark.parametrize("name", MODELS)
def test_names_without_the_compiled_prefix(folder: Any, name: str) -> None:
    files = folder(name)
    files.state(lambda state: {k.removeprefix("_orig_mod."): v for k, v in state.items()})
    spec, tensors, _ = files.load()
    want_spec, want, _ = load(name)
    assert spec == want_spec
    for key in want:
        np.testing.assert_array_equal(tensors[key], want[key])


def test_spec_of_both_blocks() -> None:
    spec = load("attn_rope")[0]
    assert (spec.mixer, spec.positions, spec.num_heads, spec.inner_size) == ("attention", "rope", 4, 256)
    assert (spec.h_cycles, spec.l_cycles, spec.registers, spec.answer_rows) == (2, 3, 4, 12)
    spec = load("mlp_t")[0]
    assert (spec.mixer, spec.positions, spec.token_inner_size, spec.num_heads) == ("mlp_t", "none", 256, 0)


def test_export_writes_a_bundle(tmp_path: Path) -> None:
    path = FIXTURES / "mlp_t"
    written = export_bundle(
        path / "step_0", tmp_path / "a.trm", official=path / "all_config.yaml", dataset=path / "dataset.json"
    )
    bundle = read_bundle(tmp_path / "a.trm")
    assert bundle.spec == written.spec
    assert bundle.provenance["forward_dtype"] == "float32"
    assert len(bundle.golden) == 2
    with pytest.raises(TrmBundleError, match=r"all_config\.yaml"):
        export_bundle(path / "step_0", tmp_path / "b.trm")  # without its config it is no checkpoint of ours
    with pytest.raises(TrmInputError, match=r"dataset\.json"):
        export_bundle(path / "step_0", tmp_path / "b.trm", official=path / "all_config.yaml")


# ---- variants of the config ----------------------------------------------------------------------


def test_puzzle_rows_are_counted_where_the_config_says_zero(folder: Any) -> None:
    """``puzzle_emb_len: 0`` means as many rows as the embedding fills: 64 / 64 = 1."""
    files = folder()
    files.arch(puzzle_emb_len=0)
    assert files.load()[0].registers == 1
    files.arch(puzzle_emb_len=0, puzzle_emb_ndim=65)
    files.state(lambda s: {k: torch.zeros(5, 65) if "puzzle_emb" in k else v for k, v in s.items()})
    assert files.load()[0].registers == 2


def test_no_puzzle_embedding(folder: Any) -> None:
    files = folder()
    files.arch(puzzle_emb_len=0, puzzle_emb_ndim=0)
    files.state(lambda s: {k: v for k, v in s.items() if "puzzle_emb" not in k})
    spec, tensors, _ = files.load()
    assert (spec.registers, spec.puzzle_size) == (0, 0)
    call = {"x": np.zeros(12, np.int32), "y0": None}
    (out,) = run_reference(ReferenceModel(spec, tensors), check_inputs(spec, **call), 1)
    assert out.logits is not None
    assert np.isfinite(out.logits).all()


def test_token_mixers_ignore_rope_but_not_learned_positions(folder: Any) -> None:
    files = folder("mlp_t")
    files.arch(pos_encodings="rope")
    assert files.load()[0].positions == "none"
    files.arch(pos_encodings="learned")
    with pytest.raises(TrmBundleError, match="embed_pos"):
        files.load()
    files.state(lambda s: s | {"_orig_mod.model.inner.embed_pos.embedding_weight": torch.ones(16, 64)})
    assert files.load()[0].positions == "learned"


@pytest.mark.parametrize("name", ["attn_rope", "mlp_t"])
def test_learned_positions_are_scaled_as_the_official_code_does(folder: Any, name: str) -> None:
    rng = np.random.default_rng(0)
    files = folder(name)
    files.arch(pos_encodings="learned")
    places = rng.standard_normal((16, 64)).astype(np.float32)
    prefix = "_orig_mod.model.inner."
    files.state(lambda s: s | {prefix + "embed_pos.embedding_weight": torch.from_numpy(places)})
    state = {k.removeprefix(prefix): v.double().numpy() for k, v in torch.load(files.checkpoint).items()}
    spec, tensors, _ = files.load()
    tokens = rng.integers(0, 11, 12).astype(np.int32)
    puzzle = np.concatenate([state["puzzle_emb.weights"][1], np.zeros(3 * 64)]).reshape(4, 64)
    rows = np.concatenate([puzzle, state["embed_tokens.embedding_weight"][tokens]])
    want = math.sqrt(64) * (0.707106781 * (rows + places))
    inputs = check_inputs(spec, tokens, None, puzzle_id=1)
    assert relative_error(ReferenceModel(spec, tensors).begin(inputs).e, want) < 1e-7


def test_optional_constants_are_honoured(folder: Any) -> None:
    files = folder()
    spec = files.load()[0]
    assert (spec.norm_eps, spec.rope_theta) == (1e-5, 10000.0)
    files.arch(rms_norm_eps=1e-6, rope_theta=500.0)
    spec = files.load()[0]
    assert (spec.norm_eps, spec.rope_theta) == (1e-6, 500.0)
    files.config.write_text(files.config.read_text().replace("1.0e-06", "1e-6"))  # a string to YAML 1.1
    assert files.load()[0].norm_eps == 1e-6


def test_defaults_are_the_trainers(folder: Any) -> None:
    files = folder()
    files.arch(mlp_t=None, no_ACT_continue=None, forward_dtype=None, H_layers=None, loss=None)
    assert files.load()[2]["forward_dtype"] == "bfloat16"
    files.arch(puzzle_emb_len=None)
    assert files.load()[0].registers == 16


REFUSED_ARCH = [
    ({"name": "recursive_reasoning.hrm@HierarchicalReasoningModel_ACTV1"}, "arch.name"),
    ({"name": None}, "arch.name"),
    ({"no_ACT_continue": False}, "arch.no_ACT_continue"),
    ({"puzzle_emb_ndim": 4 * 64 + 1}, "arch.puzzle_emb_ndim.*256"),
    ({"puzzle_emb_ndim": 0}, "arch.puzzle_emb_len.*drop"),
    ({"puzzle_emb_ndim": "${.hidden_size}"}, "arch.puzzle_emb_ndim"),
    ({"puzzle_emb_len": -1}, "arch.puzzle_emb_len"),
    ({"dropout": 0.1}, "arch.dropout: unknown key"),
    ({"H_cycles": None}, "arch.H_cycles: missing"),
    ({"L_cycles": None}, "arch.L_cycles: missing"),
    ({"L_layers": None}, "arch.L_layers: missing"),
    ({"hidden_size": None}, "arch.hidden_size: missing"),
    ({"expansion": None}, "arch.expansion: missing"),
    ({"num_heads": None}, "arch.num_heads: missing"),
    ({"pos_encodings": None}, "arch.pos_encodings: missing"),
    ({"pos_encodings": "alibi"}, "arch.pos_encodings"),
    ({"H_cycles": 0}, "arch.H_cycles"),
    ({"L_cycles": 2.5}, "arch.L_cycles"),
    ({"L_layers": True}, "arch.L_layers"),
    ({"mlp_t": "yes"}, "arch.mlp_t"),
    ({"num_heads": 64}, "arch.num_heads"),
    ({"expansion": -4}, "arch.expansion"),
    ({"expansion": float("nan")}, "arch.expansion"),
    ({"rms_norm_eps": "tiny"}, "arch.rms_norm_eps"),
    ({"rms_norm_eps": 2.0}, "spec.norm_eps"),
    ({"forward_dtype": "int8"}, "arch.forward_dtype"),
    # a config that does not fit the weights
    ({"hidden_size": 128}, r"expected shape \["),
    ({"expansion": 8}, r"gate_up_proj.*expansion 8 gives an inner size of 512"),
    ({"L_layers": 1}, "layers.1.*unknown"),
    ({"L_layers": 3}, "layers.2.*missing"),
    ({"mlp_t": True}, "mlp_t.*missing"),
    ({"pos_encodings": "learned"}, "embed_pos.*missing"),
    ({"puzzle_emb_ndim": 32}, r"puzzle_emb.weights: expected shape \[5, 32\], got \[5, 64\]"),
]


@pytest.mark.parametrize(("changes", "match"), REFUSED_ARCH)
def test_configs_are_refused_by_name(folder: Any, changes: dict[str, Any], match: str) -> None:
    files = folder()
    files.arch(**changes)
    with pytest.raises(TrmBundleError, match=match):
        files.load()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"vocab_size": None}, "vocab_size: missing"),
        ({"seq_len": 0}, "seq_len"),
        ({"num_puzzle_identifiers": "5"}, "num_puzzle_identifiers"),
        ({"vocab_size": 12}, r"embed_tokens.*expected shape \[12, 64\], got \[11, 64\]"),
        ({"num_puzzle_identifiers": 6}, r"puzzle_emb.*expected shape \[6, 64\], got \[5, 64\]"),
    ],
)
def test_datasets_are_refused_by_name(folder: Any, changes: dict[str, Any], match: str) -> None:
    files = folder()
    files.sizes(**changes)
    with pytest.raises(TrmBundleError, match=match):
        files.load()


def test_other_keys_of_a_dataset_are_ignored(folder: Any) -> None:
    files = folder()
    files.sizes(pad_id=0, ignore_label_id=0, sets=["all"])
    assert files.load()[0].vocab_size == 11


def test_token_mixers_fix_the_length(folder: Any) -> None:
    files = folder("mlp_t")
    files.sizes(seq_len=13)
    with pytest.raises(TrmBundleError, match=r"mlp_t.*L is 17"):
        files.load()


INNER = "_orig_mod.model.inner."


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (lambda s: {k: v for k, v in s.items() if "lm_head" not in k}, "lm_head.weight: missing"),
        (lambda s: s | {INNER + "extra": torch.zeros(1)}, "extra: unknown"),
        (lambda s: s | {"model.inner.H_init": torch.zeros(64)}, "model.inner.H_init: expected every name to start"),
        (lambda s: {"net." + k: v for k, v in s.items()}, "expected every name to start"),
        (lambda s: s | {INNER + "H_init": torch.zeros(1, 64)}, r"H_init: expected shape \[64\], got \[1, 64\]"),
        (lambda s: s | {INNER + "q_head.weight": torch.zeros(1, 64)}, r"q_head.weight: expected shape \[2, 64\]"),
        (lambda s: s | {INNER + "H_init": torch.full((64,), torch.inf)}, "y_init: expected finite"),
        (lambda s: s | {INNER + "H_init": "zero"}, "H_init: expected a tensor"),
        (lambda s: list(s), "expected a state dict"),
        (lambda s: {}, "expected a state dict"),
        (lambda s: {"model": s}, "expected every name to start"),
    ],
)
def test_state_dicts_are_refused_by_name(folder: Any, edit: Any, match: str) -> None:
    files = folder()
    files.state(edit)
    with pytest.raises(TrmBundleError, match=match):
        files.load()


def test_unreadable_files(folder: Any) -> None:
    files = folder()
    files.config.write_text("arch: [")
    with pytest.raises(TrmBundleError, match="YAML"):
        files.load()
    files.config.write_text("arch: !!python/object/apply:os.system ['true']")
    with pytest.raises(TrmBundleError, match="YAML"):
        files.load()
    files.config.write_text("lr: 1")
    with pytest.raises(TrmBundleError, match="'arch'"):
        files.load()
    shutil.copy(FIXTURES / "attn_rope" / "all_config.yaml", files.config)
    for text in ("{", "[]", "[" * 100000):
        files.dataset.write_text(text)
        with pytest.raises(TrmBundleError, match=r"dataset\.json"):
            files.load()
    shutil.copy(FIXTURES / "attn_rope" / "dataset.json", files.dataset)
    files.checkpoint.write_bytes(files.checkpoint.read_bytes()[:5000])
    with pytest.raises(TrmBundleError, match="step_0"):
        files.load()
    files.checkpoint.unlink()
    with pytest.raises(TrmIOError, match="step_0"):
        files.load()


# ---- a model of the published size ---------------------------------------------------------------


def full_size(folder: Path) -> Folder:
    """A random Sudoku-sized model: 512 wide, 97 rows, token mixing, learned positions, as the trainer names it."""
    files = Folder(folder, "mlp_t")
    files.arch(
        hidden_size=512, num_heads=8, H_cycles=1, L_cycles=2, puzzle_emb_len=16, puzzle_emb_ndim=512,
        pos_encodings="learned", forward_dtype="bfloat16",
    )  # fmt: skip
    files.sizes(vocab_size=11, seq_len=81, num_puzzle_identifiers=1)
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int, scale: float = 1.0) -> Any:
        return torch.randn(*shape, generator=generator) * scale

    state = {"H_init": draw(512).bfloat16(), "L_init": draw(512).bfloat16(), "puzzle_emb.weights": draw(1, 512)}
    state |= {"embed_tokens.embedding_weight": draw(11, 512, scale=512**-0.5)}
    state |= {"embed_pos.embedding_weight": draw(97, 512, scale=512**-0.5), "lm_head.weight": draw(11, 512) / 23}
    state |= {"q_head.weight": torch.zeros(2, 512), "q_head.bias": torch.full((2,), -5.0)}
    for i in range(2):
        for part, width, inner in (("mlp_t", 97, 512), ("mlp", 512, 1536)):
            name = f"L_level.layers.{i}.{part}."
            state[name + "gate_up_proj.weight"] = draw(2 * inner, width, scale=width**-0.5)
            state[name + "down_proj.weight"] = draw(width, inner, scale=0.3 * inner**-0.5)
    torch.save({INNER + name: tensor for name, tensor in state.items()}, files.checkpoint)
    return files


def test_full_size(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from trm_edge.export import export_onnx
    from trm_edge.golden import golden_arguments

    files = full_size(tmp_path / "full")
    bundle = export_bundle(
        files.checkpoint, tmp_path / "full.trm", files.config, files.dataset, golden_cases=1, steps=2
    )
    spec = bundle.spec
    assert (spec.max_rows, spec.hidden_size, spec.inner_size, spec.token_inner_size) == (97, 512, 1536, 512)
    assert 5.0e6 < spec.parameter_count() < 5.2e6  # token mixers are smaller than attention, which makes 7 million
    export_onnx(tmp_path / "full.trm", tmp_path / "full.onnx", "onnx-loop")
    (case,) = read_bundle(tmp_path / "full.trm").golden
    graph, fused = (
        trm_edge.load(tmp_path / name).refine(**golden_arguments(case), steps=2, trajectory=True)
        for name in ("full.onnx", "full.trm")
    )
    for out, k in [(out, k) for out in (graph, fused) for k in range(2)]:
        assert relative_error(out.logits[k], case.outputs["logits"][k]) <= 1e-5
        assert relative_error(out.halt_logits[k], case.outputs["halt_logits"][k]) <= 1e-5
