"""How fast the verifier walks: a counting loop of 200,000 instructions, and the counting example as a typical filter.

    python -m benchmarks.verifier

CPU time, so that other work on the machine counts less; the memory is that of the whole process at its peak.
"""

from __future__ import annotations

import resource
import time
from pathlib import Path

from netbpf.isa.instruction import Program
from netbpf.sources.asm import parse
from netbpf.verifier.check import verify
from netbpf.verifier.env import LoadRequest, MapInfo, VerifierResult

LOOP = """
    r0 = 0
    r1 = 0
again:
    r1 += 1
    r2 = r1
    if r1 < 66000 goto again
    r0 = r2
    exit
"""
EXAMPLE = Path(__file__).parents[1] / "scenarios" / "counting.s"
ROUNDS = 20


def request(text: str, name: str) -> LoadRequest:
    """A program text as BPF_PROG_LOAD would hand it to the verifier, its maps by index."""
    spec = parse(text, name)
    insns: Program = spec.insns
    return LoadRequest(insns, fd_array_maps=tuple(MapInfo(decl.spec, i) for i, decl in enumerate(spec.maps)))


def timed(load: LoadRequest) -> tuple[VerifierResult, float]:
    start = time.process_time()
    result = verify(load)
    return result, time.process_time() - start


def main() -> None:
    result, seconds = timed(request(LOOP, "loop.s"))
    walked = result.stats.insn_processed
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rate = f"{walked / seconds:,.0f}/s, {peak_mb:.0f} MB at most"
    print(f"loop: errno {result.errno}, {walked} instructions in {seconds:.2f} s: {rate}")
    runs = sorted(timed(request(EXAMPLE.read_text(), str(EXAMPLE)))[1] for _ in range(ROUNDS))
    print(f"counting example: {1e3 * runs[ROUNDS // 2]:.2f} ms (median of {ROUNDS})")


if __name__ == "__main__":
    main()
