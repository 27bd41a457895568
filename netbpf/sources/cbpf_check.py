"""May a classic filter be attached? The rules of the kernel's bpf_check_classic, and of libpcap's own validator.

A filter that passes can't leave its program, loop, divide by a constant zero or read scratch memory it did not write.
"""

from __future__ import annotations

import errno

from netbpf.abi.classic import ANCILLARY_NAMES
from netbpf.abi.net import SKF_AD_OFF
from netbpf.errors import ProgramRejected
from netbpf.ints import s32, u32
from netbpf.isa.classic import (
    ALLOWED_CODES,
    BPF_A,
    BPF_MAXINSNS,
    BPF_MEMWORDS,
    BPF_RET,
    CONDITIONAL_JUMPS,
    ClassicProgram,
    SockFilter,
    is_abs_load,
)
from netbpf.isa.opcodes import (
    BPF_ALU,
    BPF_DIV,
    BPF_JA,
    BPF_JMP,
    BPF_K,
    BPF_LD,
    BPF_LDX,
    BPF_LSH,
    BPF_MEM,
    BPF_MOD,
    BPF_RSH,
    BPF_ST,
    BPF_STX,
)

_RETURNS = frozenset({BPF_RET | BPF_K, BPF_RET | BPF_A})
_STORES = frozenset({BPF_ST, BPF_STX})
_SCRATCH_LOADS = frozenset({BPF_LD | BPF_MEM, BPF_LDX | BPF_MEM})
_DIVISIONS = frozenset({BPF_ALU | BPF_DIV | BPF_K, BPF_ALU | BPF_MOD | BPF_K})
_SHIFTS = frozenset({BPF_ALU | BPF_LSH | BPF_K, BPF_ALU | BPF_RSH | BPF_K})
_ALL_WRITTEN = (1 << BPF_MEMWORDS) - 1


def check_classic(insns: ClassicProgram) -> None:
    """What the kernel's bpf_check_classic demands. Raises ProgramRejected(EINVAL) naming the first offence."""
    _check_length(insns)
    for pc, insn in enumerate(insns):
        _check_insn(insn, pc, len(insns))
    if insns[-1].code not in _RETURNS:
        raise _refuse(len(insns) - 1, "the last instruction is no 'ret'")
    _check_scratch(insns)


def check_savefile(insns: ClassicProgram) -> None:
    """What libpcap's validator (of 1.11) demands of a filter on a savefile: as the kernel, but a filter may be longer, ``ja`` may
    go backwards, ancillary offsets are plain ones and scratch memory starts as zeros. Raises ProgramRejected(EINVAL)."""
    if not insns:
        raise ProgramRejected(errno.EINVAL, "a classic filter has at least 1 instruction\n")
    for pc, insn in enumerate(insns):
        _check_savefile_insn(insn, pc, len(insns))
    if insns[-1].code not in _RETURNS:
        raise _refuse(len(insns) - 1, "the last instruction is no 'ret'")


def _check_savefile_insn(insn: SockFilter, pc: int, count: int) -> None:
    if insn.code == BPF_JMP | BPF_JA:
        target = pc + 1 + s32(insn.k)
        if target == pc or not 0 <= target < count:
            raise _refuse(pc, f"jump to insn {target}, {'itself' if target == pc else 'outside the filter'}")
    elif not is_abs_load(insn.code):
        _check_insn(insn, pc, count)


def defused(insns: ClassicProgram) -> ClassicProgram:
    """A filter that passes ``check_savefile`` and does what libpcap's interpreter does with ``insns``, unvalidated, on every path
    that comes to none of the instructions which the validator refuses; those return 0 here."""
    end = SockFilter(BPF_RET | BPF_K, 0, 0, 0)
    return (*(insn if _is_allowed(insn, pc, len(insns)) else end for pc, insn in enumerate(insns)), end)


def _is_allowed(insn: SockFilter, pc: int, count: int) -> bool:
    try:
        _check_savefile_insn(insn, pc, count)
    except ProgramRejected:
        return False
    return True


def ancillary(insn: SockFilter) -> int | None:
    """The SKF_AD_* number of an ancillary load, known or not; None for any other instruction."""
    if is_abs_load(insn.code) and insn.k >= u32(SKF_AD_OFF):
        return insn.k - u32(SKF_AD_OFF)
    return None


def _refuse(pc: int, why: str) -> ProgramRejected:
    return ProgramRejected(errno.EINVAL, f"insn {pc}: {why}\n")


def _check_length(insns: ClassicProgram) -> None:
    if not 1 <= len(insns) <= BPF_MAXINSNS:
        raise ProgramRejected(errno.EINVAL, f"a classic filter has 1 to {BPF_MAXINSNS} instructions, not {len(insns)}\n")


def _check_insn(insn: SockFilter, pc: int, count: int) -> None:
    code, k = insn.code, insn.k
    if code not in ALLOWED_CODES:
        raise _refuse(pc, f"unknown opcode {code:#x}")
    if code in _DIVISIONS and k == 0:
        raise _refuse(pc, "division by zero")
    if code in _SHIFTS and k >= 32:
        raise _refuse(pc, f"a shift by {k} bits")
    if (code in _STORES or code in _SCRATCH_LOADS) and k >= BPF_MEMWORDS:
        raise _refuse(pc, f"M[{k}]: there are {BPF_MEMWORDS} words of scratch memory")
    if code == BPF_JMP | BPF_JA and k >= count - pc - 1:
        raise _refuse(pc, f"jump to insn {pc + 1 + s32(k)}, outside the filter or backwards")
    if code in CONDITIONAL_JUMPS and pc + 1 + max(insn.jt, insn.jf) >= count:
        raise _refuse(pc, f"jump to insn {pc + 1 + max(insn.jt, insn.jf)}, outside the filter")
    number = ancillary(insn)
    if number is not None and number not in ANCILLARY_NAMES:
        raise _refuse(pc, f"unknown ancillary data SKF_AD_OFF+{number}")


def _check_scratch(insns: ClassicProgram) -> None:
    """No path may read a scratch word before it wrote it. Jumps go forward only, so one pass sees every path."""
    written_before = [_ALL_WRITTEN] * len(insns)  # of the paths that jump there; a bit for each word
    written = 0
    for pc, insn in enumerate(insns):
        written &= written_before[pc]
        if insn.code in _STORES:
            written |= 1 << insn.k
        elif insn.code in _SCRATCH_LOADS and not written >> insn.k & 1:
            raise _refuse(pc, f"M[{insn.k}] may be read before it is written")
        elif insn.code == BPF_JMP | BPF_JA:
            written_before[pc + 1 + insn.k] &= written
            written = _ALL_WRITTEN
        elif insn.code in CONDITIONAL_JUMPS:
            for distance in (insn.jt, insn.jf):
                written_before[pc + 1 + distance] &= written
            written = _ALL_WRITTEN
