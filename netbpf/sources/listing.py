"""A program as a listing: its instructions in the words of bpftool or of the kernel's log, maps by their names, the lines of its
source above them, as its BTF or its text tells them. Knows blueprints of programs; nothing loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from netbpf.btf import (
    KIND_ARRAY,
    KIND_CONST,
    KIND_ENUM,
    KIND_ENUM64,
    KIND_FUNC_PROTO,
    KIND_FWD,
    KIND_PTR,
    KIND_RESTRICT,
    KIND_STRUCT,
    KIND_TYPE_TAG,
    KIND_UNION,
    KIND_VOLATILE,
    Btf,
)
from netbpf.isa.cfg import insn_starts
from netbpf.isa.disasm import Names, format_insn, xlated_imm64
from netbpf.isa.instruction import Instruction, Program, encode
from netbpf.isa.opcodes import BPF_PSEUDO_MAP_IDX, BPF_PSEUDO_MAP_IDX_VALUE, is_ld_imm64
from netbpf.program import ProgramSpec

_TAGS: Final = {KIND_STRUCT: "struct", KIND_UNION: "union", KIND_ENUM: "enum", KIND_ENUM64: "enum"}
_QUALIFIERS: Final = {KIND_CONST: "const ", KIND_VOLATILE: "volatile ", KIND_RESTRICT: "restrict "}
MAX_DEPTH: Final = 32


def listing(spec: ProgramSpec, style: str, *, opcodes: bool = False, source: bool = True) -> Iterator[str]:
    """The lines of a program in ``style`` xlated or log; ``opcodes`` adds the bytes of each instruction below it, ``source`` what
    ``lines_above`` tells."""
    numbered = "{:4d}: {}" if style == "xlated" else "{}: {}"
    above = lines_above(spec, style) if source else {}
    for pc, text in insn_texts(spec.insns, [decl.spec.name for decl in spec.maps]).items():
        yield from above.get(pc, ())
        yield numbered.format(pc, text)
        if opcodes:
            slots = spec.insns[pc : pc + 2] if is_ld_imm64(spec.insns[pc].code) else spec.insns[pc : pc + 1]
            yield f"       {encode(slots).hex(' ')}"


def insn_texts(insns: Program, map_names: Sequence[str]) -> dict[int, str]:
    """The text of the instruction at each pc, ``(07) r2 += -4``; a map that is told by its index is called by its name."""
    names = Names(imm64=lambda insn, value: _map_name(map_names, insn, value))
    return {pc: format_insn(insns[pc], insns[pc + 1] if pc + 1 < len(insns) else None, names=names) for pc in insn_starts(insns)}


def _map_name(map_names: Sequence[str], insn: Instruction, value: int) -> str | None:
    """Maps by the names their declarations give; the rest as bpftool says it."""
    index, offset = value & 0xFFFF_FFFF, value >> 32
    if index >= len(map_names) or insn.src not in (BPF_PSEUDO_MAP_IDX, BPF_PSEUDO_MAP_IDX_VALUE):
        return xlated_imm64(insn, value)
    return f"map[{map_names[index]}]" + ("" if insn.src == BPF_PSEUDO_MAP_IDX else f"[0]+{offset}")


def lines_above(spec: ProgramSpec, style: str) -> dict[int, list[str]]:
    """What stands above an instruction: its C source as BTF tells it, or the line that a source without BTF had."""
    if not spec.btf:
        return {pc: [f"; {text}"] for pc, text in spec.source_lines}
    return source_lines(spec, style)


def source_lines(spec: ProgramSpec, style: str) -> dict[int, list[str]]:
    """What stands above each pc: the function that begins there (style xlated), then the source line; a line that two
    instructions in a row share is told once. Style log says file and line behind it."""
    btf, above = Btf.parse(spec.btf), dict[int, list[str]]()
    if style == "xlated":
        for pc, type_id in spec.func_info:
            above.setdefault(pc, []).append(f"{signature(btf, type_id)}:")
    last = ""
    for pc, file_off, text_off, line_col in spec.line_info:
        text = btf.string(text_off).strip()
        where = f" @ {btf.string(file_off).rsplit('/', 1)[-1]}:{line_col >> 10}" if style == "log" else ""
        if text and (text + where != last or pc in above):
            above.setdefault(pc, []).append(f"; {text}{where}")
        last = text + where
    return above


def signature(btf: Btf, func_id: int) -> str:
    """``int count(struct __sk_buff * skb)`` for the id of a FUNC."""
    func = btf.type(func_id)
    proto = btf.type(func.size_or_type) if func is not None else None
    if func is None or proto is None or proto.kind != KIND_FUNC_PROTO:
        return f"<type {func_id}>"
    params = ", ".join(declare(btf, m.type_id, m.name) for m in btf.members(func.size_or_type))
    return f"{declare(btf, proto.size_or_type, '')} {btf.string(func.name_off)}({params})"


def declare(btf: Btf, type_id: int, name: str, depth: int = MAX_DEPTH) -> str:
    """A declaration of ``name`` in C, its parts in bpftool's order and spacing."""
    t = btf.type(type_id)
    if t is None or not depth:
        return f"<type {type_id}> {name}".rstrip()
    if t.kind == KIND_PTR:
        return declare(btf, t.size_or_type, f"* {name}".rstrip(), depth - 1)
    if t.kind == KIND_ARRAY:
        return declare(btf, t.rows[0][0], f"{name}[{t.rows[0][2]}]", depth - 1)
    if t.kind in _QUALIFIERS:
        return _QUALIFIERS[t.kind] + declare(btf, t.size_or_type, name, depth - 1)
    if t.kind == KIND_TYPE_TAG:
        return declare(btf, t.size_or_type, name, depth - 1)
    if t.kind == KIND_FUNC_PROTO:
        return declare(btf, t.size_or_type, f"({name})()", depth - 1)
    tag = ("union" if t.kind_flag else "struct") if t.kind == KIND_FWD else _TAGS.get(t.kind, "")
    base = "void" if type_id == 0 else f"{tag} {btf.string(t.name_off) or '(anon)'}".strip()
    return f"{base} {name}".rstrip()
