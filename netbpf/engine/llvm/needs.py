"""Which programs run checked whatever the engine was told. Knows tables only."""

from __future__ import annotations

from typing import Final

from netbpf.isa import funcs
from netbpf.isa.opcodes import BPF_CALL, BPF_JMP
from netbpf.program import VerifiedProgram

READ_ANYWHERE: Final = frozenset(
    {
        funcs.BPF_FUNC_probe_read_kernel,
        funcs.BPF_FUNC_probe_read_kernel_str,
        funcs.BPF_FUNC_snprintf,
        funcs.BPF_FUNC_trace_printk,
        funcs.BPF_FUNC_trace_vprintk,
    }
)
"""Helpers that read through addresses nobody proved: of any argument, or where a format says so."""


def needs_checks(program: VerifiedProgram) -> bool:
    """Whether no verifier saw the program, or it calls a helper of READ_ANYWHERE."""
    called = {i.imm for i in program.insns if i.code == BPF_JMP | BPF_CALL and i.src == 0}
    return not program.proved or bool(called & READ_ANYWHERE)
