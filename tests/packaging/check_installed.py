"""Run in the clean environment, outside the checkout: all imports from site-packages, and nothing extra is there."""

import importlib
import pkgutil
import sys
from pathlib import Path

import trm_edge

root = Path(sys.argv[1]).resolve()
assert not Path(trm_edge.__file__).resolve().is_relative_to(root), trm_edge.__file__
names = [m.name for m in pkgutil.walk_packages(trm_edge.__path__, "trm_edge.")]
assert {"trm_edge.export.official", "trm_edge.calib.command"} <= set(names), names
for name in names:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        assert name.startswith("trm_edge.train.") and error.name == "torch", error
    except trm_edge.TrmUnsupportedError as error:  # the export tools need an extra, and name it
        assert name.startswith("trm_edge.export.") and "pip install 'trm-edge[export]'" in str(error), error
try:
    import trm_edge.train

    _ = trm_edge.train.Trainer
    raise AssertionError("there is a Trainer without torch")
except trm_edge.TrmUnsupportedError as error:
    assert "pip install 'trm-edge[train]'" in str(error), error
for foreign in ("torch", "onnx", "onnxruntime", "tests", "export", "calib", "matplotlib", "tqdm"):
    assert foreign not in sys.modules, foreign
assert trm_edge.available_backends() == ["fused", "reference"], trm_edge.available_backends()
files = {p.suffix for p in Path(trm_edge.__file__).parent.rglob("*") if p.is_file()}
assert files <= {".py", ".pyi", ".so", ".trm", ".npz", ".pyc", ".typed", ".txt", ".json"}, files
print(f"{len(names)} modules import, version {trm_edge.__version__}")
