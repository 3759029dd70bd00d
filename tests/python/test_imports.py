"""What importing costs and brings, public names, and the numbers of statuses."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import trm_edge
from trm_edge import (
    Status,
    TrmError,
)
from trm_edge._native import core

pytestmark = pytest.mark.usefixtures("no_overrides")


def run_python(code: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment,
        check=False,
    )


def test_a_missing_library_leaves_the_rest_and_names_the_extra(path: Path) -> None:
    done = run_python(f"""
        import sys
        sys.modules["onnxruntime"] = None
        import trm_edge
        assert trm_edge.available_backends() == ["fused", "reference"], trm_edge.available_backends()
        assert trm_edge.load({str(path)!r}).backend == "fused"
        for source in ({str(path.with_suffix(".onnx"))!r}, b"graph"):
            try:
                if source != b"graph":
                    open(source, "wb").write(b"graph")
                trm_edge.load(source, backend="onnxruntime")
            except trm_edge.TrmUnsupportedError as error:
                assert "pip install 'trm-edge[onnxruntime]'" in str(error), error
            else:
                raise SystemExit("loaded")
        """)
    assert (done.returncode, done.stderr) == (0, "")


def test_installed_backends_are_available() -> None:
    pytest.importorskip("onnxruntime")
    assert trm_edge.available_backends() == ["fused", "onnxruntime", "reference"]


def test_import_pulls_in_numpy_alone() -> None:
    done = run_python("""
        import sys
        import trm_edge
        heavy = ("torch", "onnx", "onnxruntime", "yaml", "safetensors", "hypothesis", "tensorrt", "pycuda", "argparse")
        print([name for name in heavy if name in sys.modules])
        """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def test_a_command_imports_what_it_uses() -> None:
    done = run_python("""
        import sys
        import trm_edge.cli
        print([name for name in ("trm_edge.json_slots", "torch", "onnx", "matplotlib") if name in sys.modules])
        """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def _best_seconds(code: str) -> float:
    return min(float(run_python(code).stdout) for _ in range(5))


@pytest.mark.slow
def test_import_costs_less_than_150_ms_over_numpy() -> None:
    seconds = _best_seconds("""
        import time, numpy
        start = time.perf_counter()
        import trm_edge
        print(time.perf_counter() - start)
        """)
    assert seconds < 0.150


@pytest.mark.slow
def test_import_costs_less_than_150_ms_with_numpy() -> None:
    seconds = _best_seconds("""
        import time
        start = time.perf_counter()
        import trm_edge
        print(time.perf_counter() - start)
        """)
    assert seconds < 0.150


def test_a_missing_engine_names_the_command_that_builds_it(top: Path, tmp_path: Path) -> None:
    shutil.copytree(top / "trm_edge", tmp_path / "trm_edge", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    shutil.copy(top / "CMakeLists.txt", tmp_path)
    packages = Path(np.__file__).parents[1]
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(packages)!r}]; import trm_edge"
    done = run_python(code, "-S")  # without site, so that no installed copy is found
    assert done.returncode == 1
    assert "ImportError: trm_edge's compiled engine" in done.stderr
    assert "pip install -e ." in done.stderr


def test_statuses_are_those_of_the_c_header(top: Path) -> None:
    header = (top / "csrc/include/trm_edge/trm_edge.h").read_text()
    block = re.search(r"typedef int32_t trm_status;\s*enum \{(.*?)\};", header, re.S)
    assert block is not None
    entries = {name: int(value) for name, value in re.findall(r"TRM_(\w+) = (-?\d+)", block[1])}
    assert entries == {status.name: int(status) for status in Status}
    for status in Status:
        assert core.status_name(int(status)) == f"TRM_{status.name}"
    for unknown in (4, -11, 2**31 - 1):
        assert core.status_name(unknown) == "TRM_?"


def test_every_negative_status_has_an_error_of_its_own() -> None:
    from trm_edge.errors import error_from_status

    own = [type(error_from_status(status, "text")) for status in Status if status < 0]
    assert len(set(own)) == len(own)
    for status in Status:
        if status < 0:
            error = error_from_status(status, "text")
            assert isinstance(error, TrmError) and error.status == status and str(error) == "text"
    assert type(error_from_status(-99, "text")) is TrmError


def test_every_name_of_training_is_what_it_says_in_any_order() -> None:
    pytest.importorskip("torch")
    from trm_edge import train

    assert train.Trainer is not None  # whose module imports the others
    assert all(callable(getattr(train, name)) for name in train.__all__)
    with pytest.raises(TrmError, match="config: expected a RunConfig, as load_config reads one, got str"):
        train.Trainer("push.toml", "runs/push")


def test_every_public_name_exists_and_is_documented() -> None:
    for name in trm_edge.__all__:
        value = getattr(trm_edge, name)
        if name == "__version__":
            assert re.fullmatch(r"\d+\.\d+\.\d+", value)
            continue
        assert value.__doc__ and not value.__doc__.startswith(f"{name}("), name
        if isinstance(value, type):
            for key, member in vars(value).items():
                if not key.startswith("_") and (callable(member) or isinstance(member, property)):
                    assert member.__doc__, f"{name}.{key}"
