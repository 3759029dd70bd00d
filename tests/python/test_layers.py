"""Who may import whom. Every rule is a function of a source tree, and is shown to find a planted violation."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import trm_edge

Rule = Callable[[Path], list[str]]

FOLDERS = ("export", "calib", "train", "benchmarks")  # beside trm_edge/, which may use it; never the other way
# Files of the runtime, backends apart, that may use one more package.
FEATURES = {"picture.py": "matplotlib", "recorded.py": "safetensors", "json_slots/llama.py": "llama_cpp"}
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.M)
SOURCES = (".h", ".hpp", ".inc", ".c", ".cc", ".cpp", ".cu", ".cuh")


# ---- Python ----------------------------------------------------------------------------------------------------------


def imports(file: Path) -> Iterator[tuple[str, bool, int]]:
    """Yield (module as written, whether at module level, line) of every import; ``.x`` for a relative one."""
    tree = ast.parse(file.read_text())
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            dot = "" if base.endswith(".") else "."
            names = [base, *(base + dot + alias.name for alias in node.names)]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "__import__",
            "importlib.import_module",
            "import_extra",
        ):
            names = [a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        for name in names:
            yield name, id(node) not in inside, getattr(node, "lineno", 0)


def _python_files(root: Path, folder: str) -> list[Path]:
    return sorted((root / folder).rglob("*.py"))


def _enters(name: str, folder: str) -> bool:
    """Whether an imported name lies in ``folder``, by the name it is installed under, its own, or a relative one."""
    return re.match(rf"(trm_edge\.|\.+)?{folder}(\.|$)", name) is not None


def runtime_imports_no_tool(root: Path) -> list[str]:
    return [
        f"{file.relative_to(root)}:{line} imports {name}"
        for file in _python_files(root, "trm_edge")
        for name, _, line in imports(file)
        if any(_enters(name, folder) for folder in FOLDERS)
    ]


def runtime_imports_numpy_alone(root: Path) -> list[str]:
    """At module level; other packages inside functions of a backend or feature, that is when one is used."""
    found = []
    for file in _python_files(root, "trm_edge"):
        for name, top_level, line in imports(file):
            package = name.split(".")[0]
            if not package or package in ("numpy", "trm_edge") or package in sys.stdlib_module_names:
                continue
            feature = FEATURES.get(file.relative_to(root / "trm_edge").as_posix())
            if top_level or not (file.parent.name == "backends" or package == feature):
                found.append(f"{file.relative_to(root)}:{line} imports {name}")
    return found


def export_and_calib_are_strangers(root: Path) -> list[str]:
    return [
        f"{file.relative_to(root)}:{line} imports {name}"
        for folder, others in (("export", ("calib", "train")), ("calib", ("export", "train")))
        for file in _python_files(root, folder)
        for name, _, line in imports(file)
        if any(_enters(name, other) for other in others)
    ]


def folders_import_themselves_relatively(root: Path) -> list[str]:
    """The folders are installed under another name than they have here, so only relative imports find them."""
    return [
        f"{file.relative_to(root)}:{line} imports {name}"
        for folder in ("trm_edge", *FOLDERS[:3])
        for file in _python_files(root, folder)
        for name, _, line in imports(file)
        if name.split(".")[0] == folder or name.startswith(f"trm_edge.{folder}")
    ]


# ---- C++ -------------------------------------------------------------------------------------------------------------


def includes(root: Path, folder: str) -> Iterator[tuple[Path, str]]:
    for file in sorted((root / folder).rglob("*")):
        if file.suffix in SOURCES:
            for name in INCLUDE.findall(file.read_text()):
                yield file.relative_to(root), name


def _including(root: Path, folder: str, pattern: str) -> list[str]:
    return [f"{file} includes {name}" for file, name in includes(root, folder) if re.search(pattern, name)]


def core_knows_no_backend(root: Path) -> list[str]:
    return _including(root, "csrc/core", r"^(\.\./)*(api|cpu|cuda|python)/|cuda|immintrin|arm_neon|Python\.h|pybind11")


def core_names_no_instruction_set(root: Path) -> list[str]:
    files = [file for file in sorted((root / "csrc/core").rglob("*")) if file.suffix in SOURCES]
    return [
        f"{file.relative_to(root)} says {word}"
        for file in files
        for word in re.findall(r"_mm\d*_\w+|__AVX\w*|__ARM\w*|\bv(?:ld|st)1q?_\w+", file.read_text())
    ]


def cpu_stands_alone(root: Path) -> list[str]:
    return _including(root, "csrc/cpu", r"^(\.\./)*(api|cuda|python)/|cuda|Python\.h|pybind11")


def cuda_stands_on_core(root: Path) -> list[str]:
    return _including(root, "csrc/cuda", r"^(\.\./)*(api|cpu|python)/|Python\.h|pybind11")


def python_stays_in_its_folder(root: Path) -> list[str]:
    found = _including(root, "csrc", r"(^|/)Python\.h|pybind11|numpy/")
    return [entry for entry in found if not entry.startswith("csrc/python/")]


def bindings_see_the_public_header_alone(root: Path) -> list[str]:
    return [
        f"{file} includes {name}"
        for file, name in includes(root, "csrc/python")
        if "/" in name and not name.startswith("pybind11/") and name != "trm_edge/trm_edge.h"
    ]


def public_header_stands_alone(root: Path) -> list[str]:
    allowed = ("stddef.h", "stdint.h")
    return [f"{file} includes {name}" for file, name in includes(root, "csrc/include") if name not in allowed]


# ---- Sizes, version --------------------------------------------------------------------------------------------------


def _lines(files: list[Path]) -> int:
    return sum(len(file.read_text().splitlines()) for file in files)


def bindings_are_short(root: Path) -> list[str]:
    files = [file for file in sorted((root / "csrc/python").iterdir()) if file.suffix in SOURCES]
    long = [f"{file.relative_to(root)} has {_lines([file])} lines" for file in files if _lines([file]) >= 200]
    return long if files else ["csrc/python has no sources"]


def build_file_is_short(root: Path) -> list[str]:
    lines = _lines([root / "CMakeLists.txt"])
    return [] if 0 < lines < 250 else [f"CMakeLists.txt has {lines} lines"]


def version_has_one_home(root: Path) -> list[str]:
    """Prose apart: a changelog speaks of versions."""
    kinds = (*SOURCES, ".py", ".pyi", ".toml", ".txt", ".cmake", ".json", ".cfg", ".yaml", ".yml", ".in")
    folders = ("trm_edge", "csrc", *FOLDERS, "cmake", "tests", "examples")
    files = [f for f in root.iterdir() if f.is_file()] + [f for name in folders for f in (root / name).rglob("*")]
    written = re.compile(rf"(?i)version\w*\W{{0,4}}{re.escape(trm_edge.__version__)}\b")
    homes = [str(f.relative_to(root)) for f in sorted(files) if f.suffix in kinds and written.search(f.read_text())]
    return [] if homes == ["CMakeLists.txt"] else [f"the version stands in {homes}"]


# A rule, and what breaks it: a file and its text.
RULES: list[tuple[Rule, list[tuple[str, str]]]] = [
    (
        runtime_imports_no_tool,
        [
            ("trm_edge/a.py", "import trm_edge.export"),
            ("trm_edge/a.py", "from trm_edge import calib"),
            ("trm_edge/a.py", "from trm_edge.train import loop"),
            ("trm_edge/a.py", "def f():\n    from .export import build_onnx"),
            ("trm_edge/a.py", "from . import export"),
            ("trm_edge/backends/a.py", "def f():\n    from ..export import build_onnx"),
            ("trm_edge/backends/a.py", "from .. import calib"),
            ("trm_edge/a.py", "import export"),
            ("trm_edge/a.py", "import benchmarks.latency"),
            ("trm_edge/a.py", "import importlib\nimportlib.import_module('trm_edge.export')"),
        ],
    ),
    (
        runtime_imports_numpy_alone,
        [
            ("trm_edge/a.py", "import torch"),
            ("trm_edge/a.py", "if True:\n    from onnx import helper"),
            ("trm_edge/a.py", "def f():\n    import torch"),
            ("trm_edge/a.py", "def f():\n    import matplotlib"),
            ("trm_edge/picture.py", "import matplotlib"),
            ("trm_edge/picture.py", "def f():\n    import torch"),
            ("trm_edge/demo_plot.py", "import matplotlib"),
            ("trm_edge/demo_plot.py", "def f():\n    import torch"),
            ("trm_edge/demo_plot.py", "def f():\n    import matplotlib"),
            ("trm_edge/demo.py", "def f():\n    import matplotlib"),
            ("trm_edge/profiling/plot.py", "import matplotlib"),
            ("trm_edge/plot.py", "def f():\n    import matplotlib"),
            ("trm_edge/profiling/report.py", "def f():\n    import matplotlib"),
            ("trm_edge/backends/a.py", "import onnxruntime"),
            ("trm_edge/backends/a.py", "class A:\n    import tensorrt"),
        ],
    ),
    (
        export_and_calib_are_strangers,
        [
            ("export/a.py", "from trm_edge.calib import scales"),
            ("export/a.py", "def f():\n    from ..calib import scales"),
            ("calib/a.py", "from trm_edge import export"),
            ("calib/a.py", "import train"),
        ],
    ),
    (
        folders_import_themselves_relatively,
        [
            ("trm_edge/a.py", "from trm_edge.spec import TrmSpec"),
            ("export/a.py", "from trm_edge.export.official import load"),
            ("export/a.py", "import export.extras"),
        ],
    ),
    (
        core_knows_no_backend,
        [
            ("csrc/core/a.cc", '#include "cpu/dispatch.h"'),
            ("csrc/core/a.h", '#include "../api/handles.h"'),
            ("csrc/core/a.h", "#  include <cuda_runtime.h>"),
            ("csrc/core/a.inc", "#include <Python.h>"),
            ("csrc/core/a.cc", "#include <immintrin.h>"),
        ],
    ),
    (core_names_no_instruction_set, [("csrc/core/a.cc", "_mm256_add_ps(a, b);"), ("csrc/core/a.h", "#ifdef __AVX2__")]),
    (cpu_stands_alone, [("csrc/cpu/a.inc", '#include "api/message.h"'), ("csrc/cpu/a.cc", "#include <cuda.h>")]),
    (
        cuda_stands_on_core,
        [("csrc/cuda/a.cu", '#include "cpu/dispatch.h"'), ("csrc/cuda/a.cuh", "#include <Python.h>")],
    ),
    (
        python_stays_in_its_folder,
        [("csrc/api/a.cc", "#include <Python.h>"), ("csrc/cpu/a.cc", "#include <pybind11/numpy.h>")],
    ),
    (bindings_see_the_public_header_alone, [("csrc/python/a.cc", '#include "core/session.h"')]),
    (public_header_stands_alone, [("csrc/include/trm_edge/a.h", "#include <vector>")]),
    (bindings_are_short, [("csrc/python/a.cc", "\n" * 200)]),
    (build_file_is_short, [("CMakeLists.txt", "\n" * 250)]),
    (
        version_has_one_home,
        [
            ("trm_edge/a.py", f'__version__ = "{trm_edge.__version__}"'),
            ("pyproject.toml", f'version = "{trm_edge.__version__}"'),
            ("csrc/include/trm_edge/a.h", f'#define TRM_VERSION "{trm_edge.__version__}"'),
        ],
    ),
]


@pytest.mark.parametrize("rule", [rule for rule, _ in RULES], ids=lambda rule: rule.__name__)
def test_the_tree_keeps_the_rule(rule: Rule, top: Path) -> None:
    assert rule(top) == []


@pytest.mark.parametrize(
    ("rule", "name", "text"), [(rule, name, text) for rule, plants in RULES for name, text in plants]
)
def test_the_rule_finds_a_planted_violation(rule: Rule, name: str, text: str, tmp_path: Path) -> None:
    clean = {
        "trm_edge/ok.py": "import json\n\nimport numpy as np\n\nfrom .spec import TrmSpec\n",
        "trm_edge/backends/ok.py": "from ..inputs import Array\n\n\ndef f():\n    import onnxruntime\n",
        "export/ok.py": "import torch\n\nfrom trm_edge.bundle import Bundle\n\nfrom .official import load\n",
        "calib/ok.py": "from trm_edge import load\n",
        "csrc/core/ok.cc": '#include "core/kernels.h"\n#include <vector>\n',
        "csrc/cpu/ok.cc": '#include "core/kernels.h"\n#include <immintrin.h>\n',
        "csrc/python/ok.cc": '#include <pybind11/numpy.h>\n#include "trm_edge/trm_edge.h"\n',
        "csrc/include/trm_edge/ok.h": "#include <stdint.h>\n",
        "CMakeLists.txt": f"project(trm_edge VERSION {trm_edge.__version__})\n",
    }
    for path, content in clean.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    assert rule(tmp_path) == []
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(text + "\n")
    assert rule(tmp_path) != []


def test_the_rules_see_the_files(top: Path) -> None:
    assert {"refiner.py", "host.py", "spec.py"} <= {file.name for file in _python_files(top, "trm_edge")}
    assert any(name == "onnxruntime" for name, _, _ in imports(top / "trm_edge/backends/onnx_runtime.py"))
    assert any(name == "core/session.h" for _, name in includes(top, "csrc/core"))
    assert any(name == "trm_edge/trm_edge.h" for _, name in includes(top, "csrc/python"))
