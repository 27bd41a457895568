#!/usr/bin/env python3
"""How fast the reference interpreter is: instructions a second by kind of instruction, packets a second of whole programs.

Run: benchmarks/interp.py [rounds]. CPU time, the best of the rounds (5). ``hook`` is the same loop with a hook that counts.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

from netbpf.engine.interp.engine import InterpLoaded
from netbpf.engine.interp.watch import InsnCounts
from netbpf.env import SteppedEnv
from netbpf.isa import builders as b
from netbpf.isa.instruction import Instruction
from netbpf.isa.opcodes import (
    BPF_ADD,
    BPF_AND,
    BPF_B,
    BPF_DW,
    BPF_H,
    BPF_JEQ,
    BPF_JNE,
    BPF_LSH,
    BPF_W,
    BPF_XOR,
)
from netbpf.maps.base import Map
from netbpf.maps.create import create
from netbpf.maps.spec import MapSpec
from netbpf.packet.batch import PacketBatch
from netbpf.packet.receive import receive
from netbpf.program import InsnFacts, Subprog, VerifiedProgram

R0, R1, R2, R3, R4, R6, R10 = 0, 1, 2, 3, 4, 6, 10
HASH, ARRAY = 1, 2
LOOPS = 20_000
PACKETS = 20_000
MAP_LOOKUP, KTIME = 1, 5


def counting_loop(*body: Instruction | Sequence[Instruction]) -> list[Instruction | Sequence[Instruction]]:
    """``body`` LOOPS times, counted down in R6."""
    length = len(b.assemble(*body))
    back = -(length + 2)
    loop = [*body, b.BPF_ALU64_IMM(BPF_ADD, R6, -1), b.BPF_JMP_IMM(BPF_JNE, R6, 0, back)]
    return [b.BPF_MOV64_IMM(R6, LOOPS), *loop, b.BPF_MOV64_IMM(R0, 0), b.BPF_EXIT_INSN()]


def made(items: Sequence[Instruction | Sequence[Instruction]], maps: tuple[Map, ...] = ()) -> VerifiedProgram:
    """A program as the verifier would hand it over, context loads known."""
    insns = b.assemble(*items)
    facts = tuple(InsnFacts(seen=True, ptr="ctx" if i.code & 7 == 1 and i.src == R6 else "") for i in insns)
    return VerifiedProgram(insns, 1, maps, (Subprog(0, len(insns), 512),), facts)


def loops() -> dict[str, VerifiedProgram]:
    one = create(MapSpec(ARRAY, 4, 8, 4))
    value = b.BPF_LD_MAP_IDX_VALUE(R2, 0, 0)
    array_map = create(MapSpec(ARRAY, 4, 8, 1)), one
    key = [b.BPF_ST_MEM(BPF_W, R10, -4, 0)]
    lookup = [
        b.BPF_LD_MAP_IDX(R1, 0), b.BPF_MOV64_REG(R2, R10), b.BPF_ALU64_IMM(BPF_ADD, R2, -4), b.BPF_CALL_FUNC(MAP_LOOKUP),
    ]  # fmt: skip
    return {
        "arithmetic": made(
            counting_loop(
                b.BPF_ALU64_IMM(BPF_ADD, R0, 7),
                b.BPF_ALU64_REG(BPF_XOR, R1, R0),
                b.BPF_MOV64_REG(R2, R1),
                b.BPF_ALU32_IMM(BPF_ADD, R2, 3),
            )
        ),
        "stack": made(
            counting_loop(
                b.BPF_STX_MEM(BPF_DW, R10, R0, -8),
                b.BPF_LDX_MEM(BPF_W, R1, R10, -8),
                b.BPF_STX_MEM(BPF_B, R10, R1, -16),
                b.BPF_LDX_MEM(BPF_DW, R2, R10, -16),
            )
        ),
        "map value": made(
            [
                value,
                *counting_loop(
                    b.BPF_LDX_MEM(BPF_DW, R1, R2, 0), b.BPF_STX_MEM(BPF_DW, R2, R1, 0), b.BPF_STX_XADD(BPF_DW, R2, R1, 0)
                ),
            ],
            array_map[:1],
        ),
        "helper": made(counting_loop(b.BPF_CALL_FUNC(KTIME))),
        "map lookup": made([*key, *counting_loop(*lookup)], array_map[:1]),
    }


def counting_example() -> VerifiedProgram:
    """The bpf(2) manual page's program: packets by IP protocol."""
    return made(
        [
            b.BPF_MOV64_REG(R6, R1), b.BPF_LD_ABS(BPF_B, 23), b.BPF_STX_MEM(BPF_W, R10, R0, -4), b.BPF_MOV64_REG(R2, R10),
            b.BPF_ALU64_IMM(BPF_ADD, R2, -4), b.BPF_LD_MAP_IDX(R1, 0), b.BPF_CALL_FUNC(MAP_LOOKUP),
            b.BPF_JMP_IMM(BPF_JEQ, R0, 0, 2), b.BPF_MOV64_IMM(R1, 1), b.BPF_STX_XADD(BPF_DW, R0, R1, 0), b.BPF_MOV64_IMM(R0, 0),
            b.BPF_EXIT_INSN(),
        ],
        (create(MapSpec(ARRAY, 4, 8, 256)),),
    )  # fmt: skip


def port_filter() -> VerifiedProgram:
    """``ip and tcp dst port 443``, with a look at the context first."""
    return made(
        [
            b.BPF_MOV64_REG(R6, R1), b.BPF_LDX_MEM(BPF_W, R0, R6, 16), b.BPF_JMP_IMM(BPF_JNE, R0, 8, 10), b.BPF_LD_ABS(BPF_B, 23),
            b.BPF_JMP_IMM(BPF_JNE, R0, 6, 8), b.BPF_LD_ABS(BPF_B, 14), b.BPF_ALU64_IMM(BPF_AND, R0, 15),
            b.BPF_ALU64_IMM(BPF_LSH, R0, 2),
            b.BPF_MOV64_REG(7, R0), b.BPF_LD_IND(BPF_H, 7, 16), b.BPF_JMP_IMM(BPF_JNE, R0, 443, 2), b.BPF_MOV64_IMM(R0, 0x40000),
            b.BPF_EXIT_INSN(), b.BPF_MOV64_IMM(R0, 0), b.BPF_EXIT_INSN(),
        ]
    )  # fmt: skip


def batch_of_packets() -> PacketBatch:
    frame = bytes.fromhex("0200000000010200000000020800450000280000400040060000") + bytes(8) + b"\x12\x34\x01\xbb" + bytes(40)
    rows = [(0, len(frame), len(frame), i * 1000, 0, 0) for i in range(PACKETS)]
    return PacketBatch.from_rows(frame, 1, 1, rows)


def best(work: Callable[[], object], rounds: int) -> float:
    """CPU seconds."""
    found = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        work()
        found = min(found, time.process_time() - start)
    return found


def count(loaded: InterpLoaded, skb: object) -> int:
    counts = InsnCounts()
    loaded.watch(counts)
    loaded.run_one(skb)  # type: ignore[arg-type]  # whatever the batch gave
    loaded.watch(None)
    return counts.total


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    batch = batch_of_packets()
    skb = receive(batch.record(0))
    assert skb is not None
    for name, program in loops().items():
        loaded = InterpLoaded(program, SteppedEnv(1))
        n = count(loaded, skb)
        plain = best(lambda loaded=loaded: loaded.run_one(skb), rounds)  # type: ignore[misc]  # bound now
        print(f"{name:24} {n / plain / 1e6:6.2f} M insns/s  {plain / n * 1e9:6.0f} ns an insn")
    for name, program in (("counting example", counting_example()), ("port filter", port_filter())):
        loaded = InterpLoaded(program, SteppedEnv(1))
        n = count(loaded, skb)
        alone = best(lambda loaded=loaded: [loaded.run_one(skb) for _ in range(PACKETS)], rounds)  # type: ignore[misc]
        whole = best(lambda loaded=loaded: loaded.run(batch), rounds)  # type: ignore[misc]
        print(
            f"{name:24} {PACKETS / whole / 1e3:6.0f} k packets/s from a batch, {PACKETS / alone / 1e3:.0f} k the program alone "
            f"({n} insns, {n * PACKETS / alone / 1e6:.2f} M insns/s)"
        )


if __name__ == "__main__":
    main()
