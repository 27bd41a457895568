"""A plugin of bpf_conformance (github.com/Alan-Jowett/bpf_conformance): one raw program, on the interpreter or as native code.

    bpf_conformance_plugin [MEMORY] [--engine interp|native] [OPTION...] [--elf] < PROGRAM

MEMORY is one argument of hex pairs, absent where a test has none; PROGRAM is the instructions as hex pairs, or with ``--elf`` an
object file. R1 is the memory's address, R2 its length, no verifier runs. Prints R0 in hex and exits 0, or says on stderr what
went wrong and exits 1. Options it does not know are passed over, as the runner hands on what it was given. Started once per
test, so it imports little.
"""

from __future__ import annotations

import sys

ENGINES = ("interp", "native")


def main(argv: list[str]) -> int:
    from netbpf.errors import NetbpfError, UsageError

    memory = bytearray.fromhex(argv.pop(0)) if argv and not argv[0].startswith("-") else bytearray()
    engine = "interp"
    try:
        if "--engine" in argv:
            engine = "".join(argv[argv.index("--engine") + 1 :][:1])
        if engine not in ENGINES:
            raise UsageError(f"--engine {engine}: {' or '.join(ENGINES)}")
        data = bytes.fromhex(sys.stdin.read())
        if "--elf" in argv:
            data = code_of(data)
        print(f"{run(data, memory, engine):x}")
    except (NetbpfError, ValueError) as failure:
        print(failure, file=sys.stderr)
        return 1
    return 0


def code_of(data: bytes) -> bytes:
    """The instructions of an object: of its .text section, or where the code is in another, of its one program."""
    from netbpf.sources.elf.reader import ElfFile

    elf = ElfFile(data, "<stdin>")
    code = [section for section in elf.sections if section.is_code]
    if [section.name for section in code] == [".text"]:
        return elf.content(code[0])
    from netbpf.isa.instruction import encode
    from netbpf.sources.elf import read_object

    return encode(read_object(data, "<stdin>").insns)


def find_llvmlite() -> None:
    """Started without site-packages, for speed; llvmlite lies there, and is imported only where the cache has no code."""
    import os

    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for prefix in (os.path.join(root, ".venv"), sys.prefix):
        for packages in ("site-packages", "dist-packages"):
            sys.path.append(os.path.join(prefix, "lib", version, packages))


def run(program: bytes, memory: bytearray, engine: str) -> int:
    """R0 of a raw program."""
    if engine == "native":
        from netbpf.engine.llvm.compiler import begin
        from netbpf.engine.llvm.effort import HASTY

        find_llvmlite()
        begin(effort=HASTY)
    from netbpf.env import SystemEnv
    from netbpf.isa.instruction import decode
    from netbpf.program import VerifiedProgram

    raw = VerifiedProgram.unproved(decode(program))
    if engine == "native":
        from netbpf.engine.llvm.program import NativeProgram

        return NativeProgram(raw, SystemEnv(), effort=HASTY).run_memory(memory)
    from netbpf.engine.interp.engine import InterpEngine

    return InterpEngine().load(raw, SystemEnv()).run_memory(memory)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
