"""Reads and writes of ``__sk_buff`` in native code: a row of abi.context to a word of Meta, or to the packet's pointers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from netbpf.abi.context import CTX_RULES, KEPT_BYTES, SK_BUFF_FIELDS, CtxField
from netbpf.engine.llvm.abi import META
from netbpf.isa.instruction import Instruction
from netbpf.isa.opcodes import SIZE_BYTES, bpf_size

if TYPE_CHECKING:
    from netbpf.engine.llvm.lowerer import Lowerer
    from netbpf.engine.llvm.subprog import SubprogCode

# fields whose bytes lie in Meta as they lie in __sk_buff
_BYTES: Final = {"cb": "cb0", "remote_ip6": "remote_ip6_0", "local_ip6": "local_ip6_0"}


def is_sk_buff(prog_type: int) -> bool:
    """Whether programs of this type run on ``__sk_buff``, the one context that has code here."""
    return prog_type in CTX_RULES and CTX_RULES[prog_type].struct == "__sk_buff"


def writable(owner: Lowerer) -> frozenset[str]:
    """The words of Meta that programs of this type may write, such as one that a tail call leads to."""
    return CTX_RULES[owner.program.prog_type].writable - _BYTES.keys()


def _field(s: SubprogCode, off: int, size: int) -> CtxField | None:
    """The field that holds these bytes, if programs of this type may see it."""
    hidden = CTX_RULES[s.owner.program.prog_type].hidden
    rows = (row for row in SK_BUFF_FIELDS if row.off <= off and off + size <= row.off + row.size and row.name not in hidden)
    return next(rows, None)


def _ctx_offset(s: SubprogCode, pc: int, register: int, off: int) -> int:
    known = s.known(pc, register)
    return off + (known.value if known and known.kind == "ctx" else 0)


def is_pointer(s: SubprogCode, pc: int, i: Instruction) -> bool:
    """Whether a load from the context gives an address."""
    row = _field(s, _ctx_offset(s, pc, i.src, i.off), SIZE_BYTES[bpf_size(i.code)])
    return row is not None and row.name in CTX_RULES[s.owner.program.prog_type].pointers


def emit_ctx_load(s: SubprogCode, pc: int, i: Instruction) -> str | None:
    """The loaded value, zero-extended to 64 bits; None where nothing can be read so, which no verifier lets through.

    A narrow load is shifted down only when it is narrower than what the kernel keeps of the field (KEPT_BYTES).
    """
    size = SIZE_BYTES[bpf_size(i.code)]
    off, bits = _ctx_offset(s, pc, i.src, i.off), 8 * size
    row = _field(s, off, size)
    if row is None:
        return None
    if row.name in CTX_RULES[s.owner.program.prog_type].pointers:
        return _pointer(s, row.name)
    if row.name in _BYTES:
        s.owner.used_meta.add(row.name)
        return s.f.zext(s.f.load(bits, s.f.gep("%meta", META[_BYTES[row.name]] + off - row.off)), bits)
    value = "%len" if row.name == "len" else s.owner.meta(s.f, row.name)
    if size == row.size:
        return value
    if off != row.off and size < KEPT_BYTES.get(row.name, row.size):
        value = s.f.op(f"lshr i64 {value}, {8 * (off - row.off)}")
    return s.f.op(f"and i64 {value}, {(1 << bits) - 1}")


def _pointer(s: SubprogCode, name: str) -> str:
    """data, data_meta, data_end; the socket that owns the packet, 0 where none does."""
    if name == "sk":
        return s.owner.meta(s.f, "sk")
    s.owner.wants_flat = True
    start = s.f.op("ptrtoint ptr %pkt to i64")
    return s.f.op(f"add i64 {start}, %cap") if name == "data_end" else start


def emit_ctx_store(s: SubprogCode, pc: int, i: Instruction, value: str, bits: int) -> bool:
    """cb[] takes any bytes; any other writable field its whole word. False where nothing can be written so."""
    off = _ctx_offset(s, pc, i.dst, i.off)
    row = _field(s, off, bits // 8)
    if row is None or row.name not in CTX_RULES[s.owner.program.prog_type].writable:
        return False
    s.owner.used_meta.add(row.name)
    if row.name in _BYTES:
        s.f.store(bits, value, s.f.gep("%meta", META[_BYTES[row.name]] + off - row.off))
    else:
        s.owner.written_meta.add(row.name)
        s.f.store(64, s.f.zext(value, bits), s.f.gep("%meta", META[row.name]), 8)
    return True
