"""Reads and writes of ``__sk_buff`` in native code: a row of abi.context to a word of Meta."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netbpf.abi.context import SK_BUFF_FIELDS, CtxField
from netbpf.engine.llvm.abi import META
from netbpf.isa.instruction import Instruction
from netbpf.isa.opcodes import SIZE_BYTES, bpf_size

if TYPE_CHECKING:
    from netbpf.engine.llvm.lower import SubprogLowerer

# fields whose bytes lie in Meta as they lie in __sk_buff
_BYTES = {"cb": "cb0", "remote_ip6": "remote_ip6_0", "local_ip6": "local_ip6_0"}


def field_at(off: int) -> CtxField:
    """The field that holds byte ``off`` of the context."""
    return next(row for row in SK_BUFF_FIELDS if row.off <= off < row.off + row.size)


def _ctx_offset(s: SubprogLowerer, pc: int, register: int, off: int) -> int:
    known = s.known(pc, register)
    return off + (known.value if known and known.kind == "ctx" else 0)


def emit_ctx_load(s: SubprogLowerer, pc: int, i: Instruction) -> str:
    """The loaded value, zero-extended to 64 bits."""
    off, bits = _ctx_offset(s, pc, i.src, i.off), 8 * SIZE_BYTES[bpf_size(i.code)]
    row = field_at(off)
    if row.name in _BYTES:
        s.owner.used_meta.add(row.name)
        return s.f.zext(s.f.load(bits, s.f.gep("%meta", META[_BYTES[row.name]] + off - row.off)), bits)
    if row.name == "sk":
        return s.owner.meta(s.f, "has_sk")
    value = "%len" if row.name == "len" else s.owner.meta(s.f, row.name)
    if off != row.off:
        value = s.f.op(f"lshr i64 {value}, {8 * (off - row.off)}")
    return value if bits == 64 else s.f.op(f"and i64 {value}, {(1 << bits) - 1}")


def emit_ctx_store(s: SubprogLowerer, pc: int, i: Instruction, value: str, bits: int) -> None:
    """cb[] takes any bytes; any other writable field its whole word."""
    off = _ctx_offset(s, pc, i.dst, i.off)
    row = field_at(off)
    s.owner.used_meta.add(row.name)
    if row.name in _BYTES:
        s.f.store(bits, value, s.f.gep("%meta", META[_BYTES[row.name]] + off - row.off))
    else:
        s.f.store(64, s.f.zext(value, bits), s.f.gep("%meta", META[row.name]), 8)
