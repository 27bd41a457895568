"""How fast the verifier walks, beside the running kernel's: processed instructions a second, and the memory it took.

    python -m benchmarks.verifier [--rounds 5] [--profile]

(a) a counting loop of 100,000 rounds, (b) loops with branches, spills and calls, (c) 17 independent branches whose 2^17 paths
do not fold, up to the limit of a million instructions, (d) the counting example, whole, as one load. ``--profile`` prints
where the time of (b) goes. Without root the kernel's column is left out.
"""

from __future__ import annotations

import argparse
import cProfile
import ctypes
import os
import pstats
import re
import resource
import statistics
import struct
import time

from netbpf.isa.instruction import Program, encode
from netbpf.sources.asm import parse
from netbpf.verifier.check import verify
from netbpf.verifier.env import BPF_LOG_STATS, LoadRequest

_BPF, _PROG_LOAD = {"x86_64": 321, "aarch64": 280}.get(os.uname().machine, -1), 5

COUNTING_LOOP = "r1 = 0\nl: r1 += 1\nif r1 < 100000 goto l\nr0 = 0\nexit"
MIXED = """
    r6 = 0
l:  *(u64 *)(r10 - 8) = r6
    call bpf_get_prandom_u32
    r7 = r0
    r7 &= 255
    r1 = *(u64 *)(r10 - 8)
    r7 += r1
    r7 >>= 2
    if r7 > 100 goto big
    r7 += 3
big: *(u64 *)(r10 - 16) = r7
    r2 = *(u8 *)(r10 - 16)
    r6 += 1
    if r6 < 3000 goto l
    r0 = 0
    exit
"""
FILTER = """
    r6 = r1
    r0 = *(u16 *)skb[12]
    if r0 != 0x800 goto drop
    r0 = *(u8 *)skb[23]
    if r0 == 6 goto tcp
    if r0 != 17 goto drop
tcp: *(u32 *)(r10 - 4) = r0
    r0 = *(u16 *)skb[20]
    r0 &= 0x1fff
    if r0 != 0 goto drop
    r0 = *(u8 *)skb[14]
    r0 &= 15
    r0 <<= 2
    r7 = r0
    r0 = *(u16 *)skb[r7 + 16]
    if r0 == 443 goto keep
    r0 = *(u16 *)skb[r7 + 14]
    if r0 == 443 goto keep
drop: r0 = 0
    exit
keep: r0 = 0xffff
    exit
"""


def _paths() -> str:
    lines = ["r6 = r1", "r7 = 0"]
    for k in range(17):
        lines += [f"r2 = *(u32 *)(r6 + {(0, 4, 8, 12, 16)[k % 5]})", "r7 <<= 1", f"if r2 > {1000 + k} goto +1", "r7 += 1"]
    return "\n".join([*lines, "r7 &= 131071", "r3 = r10", "r3 += r7", "r0 = 0", "exit"])


PROGRAMS = {"counting loop": COUNTING_LOOP, "mixed loop": MIXED, "2^17 paths": _paths(), "a filter": FILTER}


def _kernel(insns: Program) -> float | None:
    """Seconds that the running kernel's verifier took; None where it may not be asked."""
    code, log = ctypes.create_string_buffer(encode(insns)), ctypes.create_string_buffer(1 << 20)
    lic = ctypes.create_string_buffer(b"GPL")
    addresses = [ctypes.addressof(buffer) for buffer in (code, lic, log)]
    attr = struct.pack("<IIQQIIQ", 1, len(insns), addresses[0], addresses[1], BPF_LOG_STATS, 1 << 20, addresses[2])
    fd = ctypes.CDLL(None).syscall(_BPF, _PROG_LOAD, ctypes.create_string_buffer(attr, 128), 128)
    if fd >= 0:
        os.close(fd)
    took = re.search(rb"verification time (\d+) usec", log.value)
    return int(took[1]) / 1e6 if took else None


def _ours(insns: Program, rounds: int) -> tuple[int, float]:
    """(processed instructions, median seconds of CPU)."""
    times, processed = [], 0
    for _ in range(rounds):
        start = time.process_time()
        processed = verify(LoadRequest(insns)).stats.insn_processed
        times.append(time.process_time() - start)
    return processed, statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    print(f"{'program':16}{'processed':>11}{'seconds':>10}{'insns/s':>11}{'kernel s':>10}{'ratio':>8}{'MB so far':>11}")
    for name, text in PROGRAMS.items():
        insns = parse(text).insns
        kernel = _kernel(insns)
        processed, seconds = _ours(insns, args.rounds)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        beside = f"{kernel:10.4f}{seconds / kernel:8.1f}" if kernel else f"{'-':>10}{'-':>8}"
        print(f"{name:16}{processed:11}{seconds:10.4f}{processed / seconds:11.0f}{beside}{memory:11}")
    if args.profile:
        profile = cProfile.Profile()
        profile.runcall(verify, LoadRequest(parse(MIXED).insns))
        pstats.Stats(profile).sort_stats("tottime").print_stats(20)


if __name__ == "__main__":
    main()
