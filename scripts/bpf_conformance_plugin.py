"""A plugin of bpf_conformance (github.com/Alan-Jowett/bpf_conformance): one raw program on the reference interpreter.

    bpf_conformance_plugin [MEMORY] [OPTION...] < PROGRAM

MEMORY is one argument of hex pairs, absent where a test has none; PROGRAM is the instructions as hex pairs, or with ``--elf`` an
object file. R1 is the memory's address, R2 its length, no verifier runs. Prints R0 in hex and exits 0, or says on stderr what
went wrong and exits 1. Started once per test, so it imports little.
"""

from __future__ import annotations

import sys


def main(argv: list[str]) -> int:
    from netbpf.errors import NetbpfError, UsageError

    memory = bytearray.fromhex(argv.pop(0)) if argv and not argv[0].startswith("-") else bytearray()
    try:
        if "--elf" in argv:
            raise UsageError("--elf: this version reads no object files, give the instructions as hex")
        print(f"{run(bytes.fromhex(sys.stdin.read()), memory):x}")
    except (NetbpfError, ValueError) as failure:
        print(failure, file=sys.stderr)
        return 1
    return 0


def run(program: bytes, memory: bytearray) -> int:
    """R0 of a raw program."""
    from netbpf.engine.interp.engine import InterpEngine
    from netbpf.env import SystemEnv
    from netbpf.isa.instruction import decode
    from netbpf.program import VerifiedProgram

    return InterpEngine().load(VerifiedProgram.unproved(decode(program)), SystemEnv()).run_memory(memory)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
