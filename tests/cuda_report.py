"""Registers, spills and shared memory of the CUDA kernels, as ptxas reports them; checks them where no GPU is at hand.

    python tests/cuda_report.py                       every target of cmake/cuda.cmake that this nvcc knows
    python tests/cuda_report.py --targets 86,90a --json report.json

Ends with 0 where all is well, 1 where a limit is broken or a source does not compile, and 2 where an argument is wrong
or no nvcc is found.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

SPILL_BYTES = 0  # a spill goes through local memory in the innermost loops
STACK_BYTES = 0  # a frame does so too: an array whose index the compiler does not know
REGISTERS = 255  # 256 threads with as many fill a multiprocessor's register file
PLAIN_REGISTERS = 128  # kernels of plain.cu have 128 threads, and four CTAs are to fit on a multiprocessor
SHARED_BYTES = 48 * 1024  # what every GPU grants a kernel that does not ask for more

ROOT = Path(__file__).resolve().parents[1]
CSRC = ROOT / "csrc"
TARGET_LIST = ROOT / "cmake" / "cuda.cmake"
NVCC_FOLDER = "/usr/local/cuda/bin"
# As cmake/cuda.cmake compiles them.
FLAGS = ["-std=c++17", "-O3", f"-I{CSRC}", "-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra,-Werror"]


@dataclass(frozen=True)
class Usage:
    """What one kernel of a source takes on one target; sizes are in bytes, those of a frame and spills with callees."""

    source: str
    kernel: str
    target: str
    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    shared: int
    barriers: int

    def violations(self) -> list[str]:
        """Return a line for every limit that this breaks."""
        registers = PLAIN_REGISTERS if self.source == "plain.cu" else REGISTERS
        found = [
            ("bytes of spill stores", self.spill_stores, SPILL_BYTES),
            ("bytes of spill loads", self.spill_loads, SPILL_BYTES),
            ("bytes of stack frame", self.stack, STACK_BYTES),
            ("registers", self.registers, registers),
            ("bytes of static shared memory", self.shared, SHARED_BYTES),
        ]
        where = f"{self.source} {self.kernel} on sm_{self.target}"
        return [f"{where}: {value} {what}, at most {most}" for what, value, most in found if value > most]


@dataclass(frozen=True)
class Failure:
    """A source that does not compile for a target, and what nvcc says."""

    source: str
    target: str
    output: str


@dataclass
class Report:
    """The kernels of all sources on all targets, and what did not compile."""

    targets: list[str]
    kernels: list[Usage] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def violations(self) -> list[str]:
        """Return a line for every limit that is broken."""
        return [line for usage in self.kernels for line in usage.violations()]


# ---- nvcc ------------------------------------------------------------------------------------------------------------


def find_nvcc() -> str | None:
    """Return the path of nvcc: $CUDACXX (a file or its folder), on the PATH, or where the toolkit installs it."""
    named = os.environ.get("CUDACXX", "")
    places = [shutil.which(named), shutil.which("nvcc", path=named)] if named else []
    places += [shutil.which("nvcc"), shutil.which("nvcc", path=NVCC_FOLDER)]
    return next((place for place in places if place), None)


def known_targets(nvcc: str) -> list[str]:
    """Return the project's targets that this nvcc knows; it lists 90a as sm_90."""
    match = re.search(r"set\(all_cuda_targets ([^)]*)\)", TARGET_LIST.read_text())
    if match is None:
        raise RuntimeError(f"{TARGET_LIST} sets no all_cuda_targets")
    listed = subprocess.run([nvcc, "--list-gpu-code"], check=True, capture_output=True, text=True).stdout
    known = {name.removeprefix("sm_").rstrip("a") for name in listed.split()}
    return [target for target in match[1].split() if target.rstrip("a") in known]


def compile_source(nvcc: str, source: Path, target: str, folder: str) -> tuple[bool, str, float]:
    """Return whether nvcc compiles a source for a target, its output with the report of ptxas, and the seconds."""
    start = time.monotonic()
    code, out = f"-gencode=arch=compute_{target},code=sm_{target}", Path(folder) / f"{source.stem}_{target}.cubin"
    command = [nvcc, "-cubin", *FLAGS, "-Xptxas", "-v", code, "-o", str(out), str(source)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode == 0, done.stdout, time.monotonic() - start


# ---- The output of ptxas ---------------------------------------------------------------------------------------------


def parse(text: str, source: str, target: str) -> list[Usage]:
    """Return the kernels in the output of ``ptxas -v``, in its order."""
    frame = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
    parts = [part.split("'", 1) for part in text.split("Compiling entry function '")[1:]]
    labels = label([name for name, _ in parts])
    found = []
    for name, part in parts:
        registers, frames = re.search(r"Used (\d+) registers", part), frame.findall(part)
        if registers is None or not frames:
            raise ValueError(f"ptxas reports no registers or no frame of {name}")
        stack, stores, loads = (sum(map(int, column)) for column in zip(*frames, strict=True))
        shared, barriers = re.search(r"(\d+) bytes smem", part), re.search(r"used (\d+) barriers", part)
        found.append(
            Usage(
                source=source,
                kernel=labels[name],
                target=target,
                registers=int(registers[1]),
                stack=stack,
                spill_stores=stores,
                spill_loads=loads,
                shared=int(shared[1]) if shared else 0,
                barriers=int(barriers[1]) if barriers else 0,
            )
        )
    return found


def label(mangled: Sequence[str]) -> dict[str, str]:
    """Return short names such as ``persistent<512, 2>``, or the mangled ones of kernels that would share one."""
    if mangled and shutil.which("c++filt"):
        text = subprocess.run(["c++filt", *mangled], check=True, capture_output=True, text=True).stdout
        short = [shorten_signature(line) for line in text.splitlines()]
    else:
        short = [shorten_mangled(name) for name in mangled]
    times = Counter(short)
    return {name: own if times[own] == 1 else name for name, own in zip(mangled, short, strict=True)}


def shorten_signature(signature: str) -> str:
    """Return the name in a demangled signature, without namespaces, return type and parameters."""
    text = re.sub(r"\w+::", "", signature.replace("(anonymous namespace)::", ""))
    start = depth = 0
    for i, character in enumerate(text):
        depth += (character == "<") - (character == ">")
        if depth == 0 and character == " ":
            start = i + 1
        if depth == 0 and character == "(":
            return text[start:i]
    return text[start:]


def shorten_mangled(mangled: str) -> str:
    """Return the same of a mangled name whose template arguments are whole numbers; others stay as they are."""
    rest, name = re.sub("^_ZN?", "", mangled), ""
    while length := re.match(r"\d+", rest):
        end = length.end() + int(length[0])
        name, rest = rest[length.end() : end], rest[end:]
    if match := re.match(r"I((?:L[a-z]\d+E)+)E", rest):
        arguments = re.findall(r"L([a-z])(\d+)E", match[1])
        values = [str(bool(int(value))).lower() if kind == "b" else value for kind, value in arguments]
        return f"{name}<{', '.join(values)}>"
    return mangled if rest.startswith("I") or not name else name


# ---- The report ------------------------------------------------------------------------------------------------------


def build_report(nvcc: str, targets: Sequence[str]) -> Report:
    """Compile every source for every target, saying so on stderr."""
    report = Report(list(targets))
    jobs = [(source, target) for source in sorted((CSRC / "cuda").glob("*.cu")) for target in targets]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        compiled = pool.map(lambda job: compile_source(nvcc, *job, folder), jobs)
        for i, ((source, target), (good, output, seconds)) in enumerate(zip(jobs, compiled, strict=True)):
            if good:
                kernels = parse(output, source.name, target)
                report.kernels += kernels
                text = source.read_text()
                if not kernels and ("__global__" in text or "kernels.cuh" in text):
                    good, output = False, f"no kernels in the output of ptxas:\n{output}"
            told = f"{source.name} for sm_{target}: {seconds:.1f} s{'' if good else ', failed'}"
            print(f"[{i + 1}/{len(jobs)}] {told}", file=sys.stderr, flush=True)
            if not good:
                report.failures.append(Failure(source.name, target, output))
    return report


def table(report: Report) -> list[str]:
    """Return the lines of kernels by targets; shared memory and barriers are the most of all targets."""
    cells = {(u.source, u.kernel, u.target): _cell(u) for u in report.kernels}
    rows = [["kernel", "smem", "barriers", *(f"sm_{target}" for target in report.targets)]]
    for source in sorted({u.source for u in report.kernels}):
        rows.append([source])
        mine = [u for u in report.kernels if u.source == source]
        for kernel in sorted({u.kernel for u in mine}, key=_by_number):
            shared = max(u.shared for u in mine if u.kernel == kernel)
            barriers = max(u.barriers for u in mine if u.kernel == kernel)
            values = [cells.get((source, kernel, target), "-") for target in report.targets]
            rows.append([f"  {kernel}", str(shared), str(barriers), *values])
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(rows[0]))]
    return ["  ".join([row[0].ljust(widths[0]), *_right(row[1:], widths[1:])]).rstrip() for row in rows]


def _cell(usage: Usage) -> str:
    spills = f" ({usage.spill_stores}/{usage.spill_loads})" if usage.spill_stores or usage.spill_loads else ""
    return f"{usage.registers}{spills}"


def _by_number(name: str) -> list[str | int]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _right(values: Iterable[str], widths: Iterable[int]) -> list[str]:
    return [value.rjust(width) for value, width in zip(values, widths, strict=False)]


def print_report(report: Report) -> None:
    """Print the table, the limits and what breaks them."""
    print("registers (bytes of spill stores/loads, where there are any)")
    print("\n".join(table(report)))
    print(f"\nat most: {SPILL_BYTES} bytes of spills, {STACK_BYTES} bytes of stack frame,", end=" ")
    print(f"{REGISTERS} registers ({PLAIN_REGISTERS} in plain.cu), {SHARED_BYTES} bytes of static shared memory")
    for line in report.violations():
        print(line)
    for failure in report.failures:
        print(f"{failure.source} on sm_{failure.target} failed:\n{failure.output}")
    print(f"{len(report.violations())} limits broken, {len(report.failures)} compilations failed")


def write_json(report: Report, path: Path) -> None:
    """Write all numbers, the lines of broken limits, and the output of compilations that failed."""
    content = asdict(report) | {"violations": report.violations()}
    path.write_text(json.dumps(content, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", help="compute capabilities, separated by commas, e.g. 86,90a; default: all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers to this file")
    given = parser.parse_args(arguments)
    if given.json and not given.json.absolute().parent.is_dir():
        parser.error(f"--json: there is no folder {given.json.parent}")
    nvcc = find_nvcc()
    if nvcc is None:
        message = f"no nvcc in $CUDACXX, on the PATH or in {NVCC_FOLDER}; install NVIDIA's CUDA toolkit"
        parser.exit(2, f"{message} (its packages cuda-nvcc and cuda-cudart-dev are enough); no GPU is needed\n")
    try:
        known = known_targets(nvcc)
    except (OSError, subprocess.CalledProcessError) as error:
        parser.exit(2, f"{nvcc} does not say which targets it knows: {error}\n")
    if not known:
        parser.exit(2, f"{nvcc} knows none of the project's targets\n")
    targets = known
    if given.targets is not None:
        targets = list(dict.fromkeys(name.strip().removeprefix("sm_") for name in given.targets.split(",")))
        if unknown := [repr(target) for target in targets if target not in known]:
            parser.error(f"--targets: {', '.join(unknown)} unknown; this nvcc and the project know {', '.join(known)}")
    report = build_report(nvcc, targets)
    print_report(report)
    if given.json:
        write_json(report, given.json)
    return 1 if report.violations() or report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
