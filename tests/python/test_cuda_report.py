"""``tests/cuda_report.py`` reads what ptxas says, names what breaks a limit, and says what it needs."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[1] / "cuda_report.py"
CXXFILT = shutil.which("c++filt")
SCOPE = "_ZN3trm4cuda40_GLOBAL__N__"

# Shortened output of nvcc 13.0 with -Xptxas -v: fused.cu with a kernel that spills, and two kernels of plain.cu.
PERSISTENT = f"{SCOPE}c92c184b_8_fused_cu_fc41778810persistentILi512ELi2EEEvNS0_6ParamsE"
START = f"{SCOPE}c92c184b_8_fused_cu_fc41778812start_kernelILi64ELi1EEEvNS0_6ParamsE"
FUSED = f"""\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '{PERSISTENT}' for 'sm_90a'
ptxas info    : Function properties for {PERSISTENT}
    16 bytes stack frame, 16 bytes spill stores, 32 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 16 bytes cumulative stack size
ptxas info    : Compile time = 714.482 ms
ptxas info    : Compiling entry function '{START}' for 'sm_90a'
ptxas info    : Function properties for {START}
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 0 barriers
ptxas info    : Compile time = 22.573 ms
"""
ADD_NORM = f"{SCOPE}65ed570f_8_plain_cu_f89a0cd78add_normEPfPKfif"
TRANSPOSE = f"{SCOPE}65ed570f_8_plain_cu_f89a0cd79transposeEPKfiiPf"
PLAIN = f"""\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '{ADD_NORM}' for 'sm_90a'
ptxas info    : Function properties for {ADD_NORM}
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 16 bytes smem
ptxas info    : Compile time = 19.759 ms
ptxas info    : Compiling entry function '{TRANSPOSE}' for 'sm_90a'
ptxas info    : Function properties for {TRANSPOSE}
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 16 registers, used 0 barriers
ptxas info    : Compile time = 5.395 ms
"""
# A function that is not inlined is reported after the kernel that calls it; here it was given spills.
CALLS = """\
ptxas info    : Compiling entry function 'caller' for 'sm_90a'
ptxas info    : Function properties for caller
    160 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 0 barriers, 160 bytes cumulative stack size
ptxas info    : Compile time = 5.756 ms
ptxas info    : Function properties for _ZN36_GLOBAL__N__93d78b12_4_n_cu_5a21a1676helperEPfi
    0 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
"""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script, with no nvcc to be found."""
    spec = importlib.util.spec_from_file_location("cuda_report", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "cuda_report", module)
    spec.loader.exec_module(module)
    monkeypatch.delenv("CUDACXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(module, "NVCC_FOLDER", str(tmp_path / "cuda"))
    return module


@pytest.fixture
def sources(script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of sources, and an nvcc on the PATH that prints the text of the source; or fails where that says so."""
    nvcc = tmp_path / "nvcc"
    nvcc.write_text(
        """#!/bin/sh
if [ "$1" = --list-gpu-code ]; then echo sm_80; echo sm_86; echo sm_88; echo sm_90; exit 0; fi
for source; do :; done
while read -r line; do
    case $line in error*) echo "$line" >&2; exit 2;; esac
    echo "$line" >&2
done < "$source"
"""
    )
    nvcc.chmod(0o755)
    folder = tmp_path / "csrc" / "cuda"
    folder.mkdir(parents=True)
    monkeypatch.setattr(script, "CSRC", folder.parent)
    return folder


# ---- The output of ptxas ---------------------------------------------------------------------------------------------


def test_the_numbers_of_every_kernel_are_read(script: ModuleType) -> None:
    persistent, start = script.parse(FUSED, "fused.cu", "90a")
    assert persistent == script.Usage("fused.cu", "persistent<512, 2>", "90a", 255, 16, 16, 32, 0, 1)
    assert start == script.Usage("fused.cu", "start_kernel<64, 1>", "90a", 40, 0, 0, 0, 0, 0)
    add_norm, transpose = script.parse(PLAIN, "plain.cu", "90a")
    assert add_norm == script.Usage("plain.cu", "add_norm", "90a", 32, 0, 0, 0, 16, 1)
    assert transpose == script.Usage("plain.cu", "transpose", "90a", 16, 0, 0, 0, 0, 0)
    assert script.parse("ptxas info    : 0 bytes gmem\n", "device.cu", "90a") == []


def test_a_kernel_answers_for_the_functions_it_calls(script: ModuleType) -> None:
    (caller,) = script.parse(CALLS, "fused.cu", "90a")
    assert (caller.stack, caller.spill_stores, caller.spill_loads) == (160, 8, 4)


def test_output_without_numbers_is_an_error(script: ModuleType) -> None:
    with pytest.raises(ValueError, match=START):
        script.parse(FUSED.replace("Used 40 registers", "Used few"), "fused.cu", "90a")


def test_names_are_short(script: ModuleType) -> None:
    signature = "void trm::cuda::(anonymous namespace)::wide<512, (trm::Mode)1>(trm::cuda::Params, float (*)(int))"
    assert script.shorten_signature(signature) == "wide<512, (Mode)1>"
    assert script.shorten_signature("plain_name") == "plain_name"
    assert script.shorten_mangled(PERSISTENT) == "persistent<512, 2>"
    assert script.shorten_mangled("_Z4wideILi64ELb1EEvPf") == "wide<64, true>"
    assert script.shorten_mangled("_Z4wideIfEvPf") == "_Z4wideIfEvPf"
    assert script.shorten_mangled("plain_name") == "plain_name"


@pytest.mark.skipif(CXXFILT is None, reason="needs c++filt")
def test_a_demangler_gives_the_same_names(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [PERSISTENT, START, ADD_NORM, TRANSPOSE, "plain_name"]
    own = script.label(names)
    monkeypatch.setenv("PATH", str(Path(CXXFILT or "").parent))
    assert script.label(names) == own
    assert script.label(["_Z4wideIfEvPf"]) == {"_Z4wideIfEvPf": "wide<float>"}


def test_overloads_keep_names_of_their_own(script: ModuleType) -> None:
    assert script.label(["_Z3addPf", "_Z3addPfi", "_Z3topPf"]) == {
        "_Z3addPf": "_Z3addPf",
        "_Z3addPfi": "_Z3addPfi",
        "_Z3topPf": "top",
    }


# ---- Limits ----------------------------------------------------------------------------------------------------------


def test_a_broken_limit_is_named_with_kernel_and_target(script: ModuleType) -> None:
    persistent, start = script.parse(FUSED, "fused.cu", "90a")
    assert persistent.violations() == [
        "fused.cu persistent<512, 2> on sm_90a: 16 bytes of spill stores, at most 0",
        "fused.cu persistent<512, 2> on sm_90a: 32 bytes of spill loads, at most 0",
        "fused.cu persistent<512, 2> on sm_90a: 16 bytes of stack frame, at most 0",
    ]
    assert start.violations() == []


def test_kernels_of_plain_have_fewer_registers(script: ModuleType) -> None:
    def usage(source: str, registers: int, shared: int) -> list[str]:
        lines: list[str] = script.Usage(source, "add", "75", registers, 0, 0, 0, shared, 0).violations()
        return lines

    assert usage("plain.cu", 128, 49152) == usage("fused.cu", 255, 0) == []
    assert usage("plain.cu", 129, 0) == ["plain.cu add on sm_75: 129 registers, at most 128"]
    assert usage("fused.cu", 9, 49153) == ["fused.cu add on sm_75: 49153 bytes of static shared memory, at most 49152"]


# ---- The whole script ------------------------------------------------------------------------------------------------


def test_a_report_within_the_limits(script: ModuleType, sources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (sources / "plain.cu").write_text(PLAIN)
    (sources / "device.cu").write_text("")
    file = sources / "report.json"
    assert script.main(["--targets", "sm_90a,86", "--json", str(file)]) == 0
    said = capsys.readouterr()
    assert [line.split() for line in said.out.splitlines()[1:5]] == [
        ["kernel", "smem", "barriers", "sm_90a", "sm_86"],
        ["plain.cu"],
        ["add_norm", "16", "1", "32", "32"],
        ["transpose", "0", "0", "16", "16"],
    ]
    assert "0 limits broken, 0 compilations failed" in said.out
    assert len(said.err.splitlines()) == 4
    report = json.loads(file.read_text())
    assert report["targets"] == ["90a", "86"] and report["violations"] == report["failures"] == []
    assert [(u["kernel"], u["target"], u["registers"]) for u in report["kernels"]][:2] == [
        ("add_norm", "90a", 32),
        ("transpose", "90a", 16),
    ]


def test_a_report_beyond_the_limits(script: ModuleType, sources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (sources / "fused.cu").write_text(FUSED)
    assert script.main(["--targets", "90a"]) == 1
    said = capsys.readouterr().out
    assert "255 (16/32)" in said
    assert "fused.cu persistent<512, 2> on sm_90a: 16 bytes of spill stores, at most 0" in said


@pytest.mark.parametrize("text", ["error: no such type\n", "__global__ void add() {}\n"])
def test_a_source_that_does_not_compile_is_shown(
    script: ModuleType, sources: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (sources / "plain.cu").write_text(PLAIN)
    (sources / "fused.cu").write_text(text)
    assert script.main([]) == 1
    said = capsys.readouterr().out
    assert text in said and "0 limits broken, 3 compilations failed" in said
    assert "fused.cu on sm_80 failed" in said and "fused.cu on sm_90a failed" in said and "add_norm" in said


@pytest.mark.parametrize("targets", ["88", "90", "100", "", "86,12"])
def test_an_unknown_target_is_an_error(
    script: ModuleType, sources: Path, capsys: pytest.CaptureFixture[str], targets: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        script.main(["--targets", targets])
    assert ended.value.code == 2
    assert f"'{targets.split(',')[-1]}' unknown" in (said := capsys.readouterr().err)
    assert "80, 86, 90a" in said


def test_no_nvcc_is_an_error(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        script.main([])
    assert ended.value.code == 2
    assert "no nvcc" in (said := capsys.readouterr().err) and "install NVIDIA's CUDA toolkit" in said


def test_an_nvcc_that_does_not_run_is_an_error(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nvcc = tmp_path / "broken"
    nvcc.write_text("#!/bin/sh\nexit 3\n")
    nvcc.chmod(0o755)
    monkeypatch.setenv("CUDACXX", str(nvcc))
    with pytest.raises(SystemExit) as ended:
        script.main([])
    assert ended.value.code == 2
    assert f"{nvcc} does not say which targets it knows" in capsys.readouterr().err


def test_a_named_nvcc_goes_before_the_one_on_the_path(
    script: ModuleType, sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert script.find_nvcc() == str(tmp_path / "nvcc")
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / "nvcc").rename(other / "nvcc")
    assert script.find_nvcc() is None
    for named in (other, other / "nvcc"):
        monkeypatch.setenv("CUDACXX", str(named))
        assert script.find_nvcc() == str(other / "nvcc")
