"""The counting example of the bpf(2) manual page in Python, with the kernel's macros.

    python docs/examples/counting.py [CAPTURE]

Loads the program on the simulator, replays CAPTURE (pcaps/session.pcap) and prints the counts for every second of it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from netbpf.abi.maps import MapType
from netbpf.isa.builders import (
    BPF_ADD,
    BPF_ALU64_IMM,
    BPF_B,
    BPF_CALL_FUNC,
    BPF_DW,
    BPF_EXIT_INSN,
    BPF_JEQ,
    BPF_JMP_IMM,
    BPF_LD_ABS,
    BPF_LD_MAP_IDX,
    BPF_MOV64_IMM,
    BPF_MOV64_REG,
    BPF_REG_0,
    BPF_REG_1,
    BPF_REG_2,
    BPF_REG_6,
    BPF_REG_10,
    BPF_STX_MEM,
    BPF_W,
    BPF_XADD,
    BPF_FUNC_map_lookup_elem,
    assemble,
)
from netbpf.maps.spec import MapSpec
from netbpf.packet.open import open_capture
from netbpf.program import MapDecl, ProgramSpec
from netbpf.replay.core import Replay
from netbpf.replay.session import Session

IPPROTO_TCP, IPPROTO_UDP = 6, 17


def counter(protocol: int) -> tuple[bytes, bytes]:
    """A map entry: the protocol, counted 0 times."""
    return protocol.to_bytes(4, "little"), bytes(8)


COUNTS = MapDecl(MapSpec(MapType.HASH, 4, 8, 2, name="counts"), (counter(IPPROTO_TCP), counter(IPPROTO_UDP)))

PROGRAM = ProgramSpec(
    assemble(
        BPF_MOV64_REG(BPF_REG_6, BPF_REG_1),  # r6 = r1
        BPF_LD_ABS(BPF_B, 14 + 9),  # r0 = ip->proto
        BPF_STX_MEM(BPF_W, BPF_REG_10, BPF_REG_0, -4),  # *(u32 *)(fp - 4) = r0
        BPF_MOV64_REG(BPF_REG_2, BPF_REG_10),  # r2 = fp
        BPF_ALU64_IMM(BPF_ADD, BPF_REG_2, -4),  # r2 = r2 - 4
        BPF_LD_MAP_IDX(BPF_REG_1, 0),  # r1 = the first map
        BPF_CALL_FUNC(BPF_FUNC_map_lookup_elem),  # r0 = map_lookup(r1, r2)
        BPF_JMP_IMM(BPF_JEQ, BPF_REG_0, 0, 2),  # if (r0 == 0) goto pc+2
        BPF_MOV64_IMM(BPF_REG_1, 1),  # r1 = 1
        BPF_XADD(BPF_DW, BPF_REG_0, BPF_REG_1, 0, 0),  # lock *(u64 *)r0 += r1
        BPF_MOV64_IMM(BPF_REG_0, 0),  # r0 = 0
        BPF_EXIT_INSN(),  # return r0
    ),
    name="counting",
    maps=(COUNTS,),
)


def main(capture: str) -> None:
    with Session(PROGRAM) as session, open_capture(capture) as reader:
        replay = Replay(session.loaded, session.maps)
        for interval in replay.run(reader):
            print(interval.line)
        print(replay.finish().line)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else str(Path(__file__).parents[2] / "pcaps" / "session.pcap"))
