"""Opcode fields of RFC 9669 and the legacy packet loads, as linux/bpf.h and linux/bpf_common.h name them.

Tables only. ``code`` is one byte; its low three bits are the class:

    ALU, ALU64, JMP, JMP32:  | op (4) | source (1) | class (3) |
    LD, LDX, ST, STX:        | mode (3) | size (2) | class (3) |
"""

from __future__ import annotations

from typing import Final

# class
BPF_LD: Final = 0x00
BPF_LDX: Final = 0x01
BPF_ST: Final = 0x02
BPF_STX: Final = 0x03
BPF_ALU: Final = 0x04
BPF_JMP: Final = 0x05
BPF_JMP32: Final = 0x06
BPF_ALU64: Final = 0x07

# size of LD, LDX, ST, STX
BPF_W: Final = 0x00
BPF_H: Final = 0x08
BPF_B: Final = 0x10
BPF_DW: Final = 0x18

# mode of LD, LDX, ST, STX
BPF_IMM: Final = 0x00
BPF_ABS: Final = 0x20
BPF_IND: Final = 0x40
BPF_MEM: Final = 0x60
BPF_MEMSX: Final = 0x80
BPF_ATOMIC: Final = 0xC0

# source of ALU and JMP
BPF_K: Final = 0x00
BPF_X: Final = 0x08

# op of ALU and ALU64
BPF_ADD: Final = 0x00
BPF_SUB: Final = 0x10
BPF_MUL: Final = 0x20
BPF_DIV: Final = 0x30  # off 1: signed
BPF_OR: Final = 0x40
BPF_AND: Final = 0x50
BPF_LSH: Final = 0x60
BPF_RSH: Final = 0x70
BPF_NEG: Final = 0x80
BPF_MOD: Final = 0x90  # off 1: signed
BPF_XOR: Final = 0xA0
BPF_MOV: Final = 0xB0  # off 8, 16, 32: sign-extending
BPF_ARSH: Final = 0xC0
BPF_END: Final = 0xD0  # class ALU: BPF_TO_LE/BPF_TO_BE; class ALU64: bswap
BPF_TO_LE: Final = 0x00
BPF_TO_BE: Final = 0x08

# op of JMP and JMP32
BPF_JA: Final = 0x00  # class JMP: off; class JMP32 (gotol): imm
BPF_JEQ: Final = 0x10
BPF_JGT: Final = 0x20
BPF_JGE: Final = 0x30
BPF_JSET: Final = 0x40
BPF_JNE: Final = 0x50
BPF_JSGT: Final = 0x60
BPF_JSGE: Final = 0x70
BPF_CALL: Final = 0x80
BPF_EXIT: Final = 0x90
BPF_JLT: Final = 0xA0
BPF_JLE: Final = 0xB0
BPF_JSLT: Final = 0xC0
BPF_JSLE: Final = 0xD0
BPF_JCOND: Final = 0xE0  # may_goto, src 0

# imm of STX | ATOMIC
BPF_FETCH: Final = 0x01
BPF_XCHG: Final = 0xE0 | BPF_FETCH
BPF_CMPXCHG: Final = 0xF0 | BPF_FETCH
BPF_LOAD_ACQ: Final = 0x100
BPF_STORE_REL: Final = 0x110

# src of LD | IMM | DW
BPF_PSEUDO_MAP_FD: Final = 1
BPF_PSEUDO_MAP_VALUE: Final = 2
BPF_PSEUDO_BTF_ID: Final = 3
BPF_PSEUDO_FUNC: Final = 4
BPF_PSEUDO_MAP_IDX: Final = 5
BPF_PSEUDO_MAP_IDX_VALUE: Final = 6

# src of JMP | CALL
BPF_PSEUDO_CALL: Final = 1
BPF_PSEUDO_KFUNC_CALL: Final = 2

# registers
BPF_REG_0: Final = 0
BPF_REG_1: Final = 1
BPF_REG_2: Final = 2
BPF_REG_3: Final = 3
BPF_REG_4: Final = 4
BPF_REG_5: Final = 5
BPF_REG_6: Final = 6
BPF_REG_7: Final = 7
BPF_REG_8: Final = 8
BPF_REG_9: Final = 9
BPF_REG_10: Final = 10
MAX_BPF_REG: Final = 11
BPF_REG_FP: Final = 10

MAX_BPF_STACK: Final = 512

SIZE_BYTES: Final[dict[int, int]] = {BPF_B: 1, BPF_H: 2, BPF_W: 4, BPF_DW: 8}
BYTES_SIZE: Final[dict[int, int]] = {n: s for s, n in SIZE_BYTES.items()}


def bpf_class(code: int) -> int:
    return code & 0x07


def bpf_size(code: int) -> int:
    return code & 0x18


def bpf_mode(code: int) -> int:
    return code & 0xE0


def bpf_op(code: int) -> int:
    return code & 0xF0


def bpf_src(code: int) -> int:
    return code & 0x08


def is_ld_imm64(code: int) -> bool:
    """The only instruction of two slots."""
    return code == BPF_LD | BPF_IMM | BPF_DW


def is_ld_abs(code: int) -> bool:
    return code & 0xE7 == BPF_LD | BPF_ABS


def is_ld_ind(code: int) -> bool:
    return code & 0xE7 == BPF_LD | BPF_IND
