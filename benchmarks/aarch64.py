"""Static analysis of the aarch64 microkernels, where no such processor is at hand: instruction counts, and llvm-mca.

    python benchmarks/aarch64.py                      needs aarch64-linux-gnu-g++, c++filt and llvm-mca
    python benchmarks/aarch64.py --cpu cortex-a55,neoverse-n1

For every precision it takes the innermost loop of a full tile, one step along k, out of the compiler's assembly, counts
its instructions and lets llvm-mca simulate it with its model of each processor, all loads hitting L1. No time is
measured here. LLVM lends several cores (cortex-a76, a78, neoverse-n1 in LLVM 14) the model of an older, narrower one.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

CSRC = Path(__file__).resolve().parents[1] / "csrc"
# As CMakeLists.txt compiles them.
FLAGS = ["-std=c++17", "-O3", "-fPIC", "-ffp-contract=fast", "-fno-math-errno", "-Wno-psabi"]
ISAS = {"neon": [], "neondot": ["-march=armv8.2-a+dotprod"]}
MULTIPLY = re.compile(r"(fmla|sdot|smull2?|smlal2?)$")
LOAD = re.compile(r"ld[a-z0-9]*$")
STEPS = 200  # iterations to simulate


@dataclass(frozen=True)
class Loop:
    """The instructions of one step of a microkernel whose tile has ``rows`` rows."""

    precision: str
    rows: int
    instructions: list[str]


def assembly(isa: str) -> str:
    """Return the compiler's assembly of one instruction set's kernels, names demangled."""
    source = CSRC / "cpu" / f"isa_{isa}.cc"
    command = ["aarch64-linux-gnu-g++", *FLAGS, *ISAS[isa], f"-I{CSRC}", f"-I{CSRC}/include", "-S", str(source), "-o-"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return subprocess.run(["c++filt"], input=text, check=True, capture_output=True, text=True).stdout


def loops(text: str) -> list[Loop]:
    """Return the innermost loop of the tallest tile of each precision, in the product that adds to the residual."""
    found: dict[str, Loop] = {}
    name = r"run_tile<(\d+), \S*PanelProduct<\S*?(Fp32|Bf16|Int8), \S*AddResidual"
    for part in re.split(r"\n(?=[^\s.#][^\n]*:\n)", text):
        head, _, body = part.partition("\n")
        match = re.search(name, head.replace("trm::(anonymous namespace)::", ""))
        if not match:
            continue
        rows, precision = int(match[1]), match[2]
        loop = Loop(precision, rows, _hottest(body.splitlines()))
        if precision not in found or rows > found[precision].rows:
            found[precision] = loop
    return [found[precision] for precision in ("Fp32", "Bf16", "Int8")]


def _hottest(lines: list[str]) -> list[str]:
    """Return the loop without inner labels that multiplies most."""
    labels: dict[str, int] = {}
    best: list[str] = []
    for i, line in enumerate(lines):
        if match := re.match(r"(\.L\w+):", line):
            labels[match[1]] = i
        branch = re.match(r"\s+(?:b\S*|cbn?z)\s.*?(\.L\w+)$", line)
        if not branch or branch[1] not in labels:
            continue
        inside = lines[labels[branch[1]] + 1 : i + 1]
        if any(other.startswith(".L") for other in inside):
            continue
        loop = [other for other in inside if re.match(r"\s+[a-z]", other)]
        if count(loop, MULTIPLY) > count(best, MULTIPLY):
            best = loop
    return best


def count(instructions: list[str], kind: re.Pattern[str]) -> int:
    """Return how many instructions are of a kind."""
    return sum(bool(kind.match(line.split()[0])) for line in instructions)


def simulated_cycles(loop: Loop, cpu: str) -> float:
    """Return llvm-mca's cycles of one step."""
    command = ["llvm-mca", "-mtriple=aarch64", f"-mcpu={cpu}", "-mattr=+dotprod", f"-iterations={STEPS}"]
    text = "\n".join(loop.instructions)
    report = subprocess.run(command, input=text, check=True, capture_output=True, text=True).stdout
    match = re.search(r"Total Cycles:\s+(\d+)", report)
    if match is None:
        raise RuntimeError(f"llvm-mca printed no cycles:\n{report[:500]}")
    return int(match[1]) / STEPS


def main() -> None:
    """Print a row for each instruction set and precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", default="cortex-a55,cortex-a76", help="models of llvm-mca, separated by commas")
    cpus = parser.parse_args().cpu.split(",")
    print("one step along k of a full tile; multiply-adds are those of the scalars")
    heads = "".join(f"{'cycles ' + cpu:>22}" for cpu in cpus)
    print(f"{'kernel':<14}{'rows':>5}{'multiply-adds':>15}{'instructions':>14}{'multiplying':>13}{'loads':>7}{heads}")
    for isa in ISAS:
        for loop in loops(assembly(isa)):
            group = {"Fp32": 1, "Bf16": 2, "Int8": 4}[loop.precision]
            work = loop.rows * 8 * group  # a panel is two vectors of four words
            cycles = "".join(f"{simulated_cycles(loop, cpu):22.1f}" for cpu in cpus)
            print(
                f"{isa + ' ' + loop.precision.lower():<14}{loop.rows:5d}{work:15d}{len(loop.instructions):14d}"
                f"{count(loop.instructions, MULTIPLY):13d}{count(loop.instructions, LOAD):7d}{cycles}"
            )


if __name__ == "__main__":
    main()
