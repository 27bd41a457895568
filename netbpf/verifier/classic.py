"""The proof of a translated classic filter.

The kernel proves none: what bpf_check_classic demands is enough for it, and so it is here. What engines want to know of each
instruction is plain from how filters are translated: R6 is the context, R10 the frame, and nothing else points anywhere. The
verifier decides about a translation, as about any program, only where its words are wanted. Knows no source of filters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from netbpf.ints import round_up
from netbpf.isa.opcodes import BPF_LDX, BPF_REG_FP, BPF_ST, BPF_STX, bpf_class
from netbpf.program import InsnFacts, ProgramSpec, Subprog, VerifiedProgram

if TYPE_CHECKING:
    from netbpf.isa.instruction import Instruction
    from netbpf.verifier.env import VerifierResult



def verify_classic(spec: ProgramSpec, *, log_level: int = 0) -> VerifierResult:
    """Decide about the translation in ``spec``; it has no maps."""
    from netbpf.verifier.check import verify
    from netbpf.verifier.env import LoadRequest

    return verify(LoadRequest(spec.insns, name=spec.name, log_level=log_level, classic=True))


def prove_classic(spec: ProgramSpec) -> VerifiedProgram:
    """The translation in ``spec`` with the facts of each instruction, as ``verify_classic`` finds them."""
    facts = tuple(_facts(insn) for insn in spec.insns)
    lowest = min((f.stack_off for f in facts if f.stack_off is not None), default=0)
    subprogs = (Subprog(0, len(spec.insns), round_up(-lowest, 8)),)
    return VerifiedProgram(spec.insns, spec.prog_type, (), subprogs, facts, name=spec.name)


def _facts(insn: Instruction) -> InsnFacts:
    cls = bpf_class(insn.code)
    if cls not in (BPF_LDX, BPF_ST, BPF_STX):
        return InsnFacts(seen=True)
    in_frame = (insn.src if cls == BPF_LDX else insn.dst) == BPF_REG_FP
    return InsnFacts(seen=True, ptr="stack", stack_off=insn.off) if in_frame else InsnFacts(seen=True, ptr="ctx")
