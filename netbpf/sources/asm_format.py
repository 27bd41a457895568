"""ProgramSpec -> the text that ``asm.parse`` reads back as the very same program.

Instructions are in the kernel's words where these say everything about the slot, else in ``.insn``: each line is read
back by the parser's own grammar before it is used, so no field is ever lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from netbpf.abi.maps import MAP_KINDS
from netbpf.abi.prog_types import ProgType
from netbpf.errors import SourceError, UsageError
from netbpf.isa import opcodes as op
from netbpf.isa.cfg import call_target, insn_starts, jump_target
from netbpf.isa.disasm import Names, format_insn
from netbpf.isa.instruction import Instruction
from netbpf.maps.spec import MapSpec
from netbpf.program import SOCKET_VIEW, MapDecl, ProgramSpec
from netbpf.sources.asm_decl import PROG_FLAGS, new_scope
from netbpf.sources.asm_insn import CALLX, REGISTERS, InsnReader
from netbpf.sources.lexer import Cursor, Line, quote

_WORD = re.compile(r"[A-Za-z_$][A-Za-z0-9_.$]*\Z|\.[A-Za-z0-9_.$]+\Z")
_PC_RELATIVE = re.compile(r"pc[+-]\d+\Z")
_SUBPROG = re.compile(r"subprog\[[+-]\d+\]\Z")


def format_program(spec: ProgramSpec, *, labels: bool = True, numbers: bool = False, opcodes: bool = False) -> str:
    """The text of ``spec``: its directives, maps and instructions, each line ended.

    ``labels`` names jump targets ``L<pc>`` and subprograms ``F<pc>`` where pc-relative numbers would stand; ``numbers``
    puts ``12:`` in front of instructions, ``opcodes`` their first byte as ``(b7)``, both as the kernel's log has them.
    """
    listing = (labels, numbers, opcodes)
    lines = [*_header(spec), *(_named(spec.name)), *_maps(spec.maps), *_body(spec, listing), *_btf(spec.btf), *_footer(spec)]
    for other in spec.others:
        lines += _other(spec, other, listing)
    return "".join(f"{line}\n" for line in lines)


def _other(spec: ProgramSpec, other: ProgramSpec, listing: tuple[bool, bool, bool]) -> Iterator[str]:
    """A further program of the text; its maps and BTF only where they are not the first program's."""
    if other.others:
        raise UsageError(f"program {other.name!r} has programs of its own: text has no words for that")
    own = other.maps != spec.maps or other.btf != spec.btf
    yield ""
    yield f".program {_name(other.name)}{' own' if own else ''}"
    yield from _header(other)
    if own:
        yield from _maps(other.maps)
        yield from _btf(other.btf)
    yield from _body(other, listing)
    yield from _footer(other)


def _body(spec: ProgramSpec, listing: tuple[bool, bool, bool]) -> Iterator[str]:
    if spec.insns:
        yield ""
        yield from _Listing(spec, *listing).lines()


# --- what is not an instruction -------------------------------------------------------------------------------------------


def _header(spec: ProgramSpec) -> Iterator[str]:
    known = spec.prog_type in set(ProgType)
    yield f".type {ProgType(spec.prog_type).name.lower() if known else spec.prog_type}"
    yield f".license {quote(spec.license)}"
    if spec.prog_flags:
        yield f".flags {_flag_names(spec.prog_flags)}"
    if spec.expected_attach_type:
        yield f".attach_type {spec.expected_attach_type}"


def _named(name: str) -> Iterator[str]:
    if name:
        yield f".name {_name(name)}"


def _btf(btf: bytes) -> Iterator[str]:
    for i in range(0, len(btf), 64):
        yield f'.btf hex"{btf[i : i + 64].hex()}"'


def _footer(spec: ProgramSpec) -> Iterator[str]:
    for func_row in spec.func_info:
        yield ".func_info " + ", ".join(map(str, func_row))
    for line_row in spec.line_info:
        yield ".line_info " + ", ".join(map(str, line_row))
    for pc, text in spec.source_lines:
        yield f".source_line {pc} {quote(text)}"
    if spec.view != SOCKET_VIEW:
        yield f".view {spec.view}"
    for insn in spec.classic:
        yield f".classic {insn.code:#04x}, {insn.jt}, {insn.jf}, {insn.k:#x}"


def _name(name: str) -> str:
    return name if _WORD.match(name) and name not in REGISTERS else quote(name)


def _flag_names(flags: int) -> str:
    named = [name for name, bit in PROG_FLAGS.items() if flags & bit]
    rest = flags & ~sum(PROG_FLAGS[name] for name in named)
    return " | ".join([*named, *([hex(rest)] if rest else [])])


def _maps(maps: Sequence[MapDecl]) -> Iterator[str]:
    for decl in maps:
        pin = f" pin={quote(decl.pin_path)}" if decl.pin_path else ""
        head = f".map {_name(decl.spec.name)} {_map_spec(decl.spec)}{' frozen' if decl.frozen else ''}{pin}"
        if not (decl.contents or decl.slots):
            yield head
            continue
        yield head + " {"
        for key, value in decl.contents:
            yield f"    {_datum(key, decl.spec.key_size)}: {_datum(value, decl.spec.value_size)}"
        for key, name in decl.slots:
            yield f"    {_datum(key, decl.spec.key_size)}: &{_name(name)}"
        yield "}"


def _map_spec(spec: MapSpec) -> str:
    kind = MAP_KINDS.get(spec.map_type)
    words = [kind.name if kind is not None else str(spec.map_type)]
    words += [f"key={spec.key_size}", f"value={spec.value_size}", f"entries={spec.max_entries}"]
    if spec.map_flags:
        words.append(f"flags={spec.map_flags:#x}")
    rare = (("extra", spec.map_extra), ("numa", spec.numa_node), ("btf_key", spec.btf_key_type_id),
            ("btf_value", spec.btf_value_type_id))  # fmt: skip
    words += [f"{word}={value}" for word, value in rare if value]
    if spec.inner is not None:
        name = f" name={_name(spec.inner.name)}" if spec.inner.name else ""
        words.append(f"inner({_map_spec(spec.inner)}{name})")
    return " ".join(words)


def _datum(data: bytes, size: int) -> str:
    """A number where the bytes are as many as one and are small, else hexadecimal bytes."""
    if len(data) == size and 0 < size <= 8:
        return str(int.from_bytes(data, "little"))
    return f'hex"{data.hex()}"'


# --- instructions -----------------------------------------------------------------------------------------------------------


class _Listing:
    """The instructions of one program as lines."""

    def __init__(self, spec: ProgramSpec, labels: bool, numbers: bool, opcodes: bool) -> None:
        self.insns, self.numbers, self.opcodes = spec.insns, numbers, opcodes
        self.map_names = self._unique_names(spec.maps)
        self.names = Names(imm64=self._imm64)
        self.starts = insn_starts(spec.insns)
        self.labels = self._labels() if labels else {}
        self.scope = new_scope()
        self.scope.map_index = {name: index for index, name in self.map_names.items()}

    @staticmethod
    def _unique_names(maps: Sequence[MapDecl]) -> dict[int, str]:
        """Names by which a map can be called: words that are the first map's of that name."""
        first: dict[str, int] = {}
        for index, decl in enumerate(maps):
            first.setdefault(decl.spec.name, index)
        return {index: name for name, index in first.items() if _name(name) == name}

    def _labels(self) -> dict[int, str]:
        """A label for every instruction that is jumped to (L) or called (F)."""
        begins = set(self.starts)
        found: dict[int, str] = {}
        for pc in self.starts:
            if (target := jump_target(pc, self.insns[pc])) in begins and target is not None:
                found.setdefault(target, f"L{target}")
        for pc in self.starts:
            if (target := call_target(pc, self.insns[pc])) in begins and target is not None:
                found[target] = f"F{target}"
        return found

    def lines(self) -> Iterator[str]:
        for pc in self.starts:
            if pc in self.labels:
                yield f"{self.labels[pc]}:"
            yield from self._insn(pc)

    def _insn(self, pc: int) -> Iterator[str]:
        insn, following = self.insns[pc], None
        if op.is_ld_imm64(insn.code) and pc + 1 < len(self.insns):
            following = self.insns[pc + 1]
        slots = (insn,) if following is None else (insn, following)
        text = self._text(insn, following)
        if self._reads_as(text, slots):
            yield self._numbered(pc, insn, self._with_label(pc, text))
            return
        for i, slot in enumerate(slots):
            yield self._numbered(pc + i, None, ".insn " + " ".join(map(str, (f"{slot.code:#04x}", *slot[1:]))))

    def _numbered(self, pc: int, insn: Instruction | None, text: str) -> str:
        number = f"{pc}: " if self.numbers else ""
        byte = f"({insn.code:02x}) " if self.opcodes and insn is not None else ""
        return f"    {number}{byte}{text}"

    def _text(self, insn: Instruction, following: Instruction | None) -> str:
        if insn.code == CALLX:
            return f"callx r{insn.dst}"
        words = format_insn(insn, following, names=self.names)
        return words[5:] if words.startswith("(") else words

    def _reads_as(self, text: str, slots: tuple[Instruction, ...]) -> bool:
        """Whether the parser makes the same slots of ``text``."""
        try:
            cursor = Cursor(Line(1, text, text), "<formatted>")
            return InsnReader(cursor, self.scope, 0).read() == slots and not self.scope.fixups
        except SourceError:
            return False
        finally:
            self.scope.fixups.clear()

    def _with_label(self, pc: int, text: str) -> str:
        insn = self.insns[pc]
        target = jump_target(pc, insn)
        if target is None:
            target = call_target(pc, insn)
        if target is None or target not in self.labels:
            return text
        label = self.labels[target]
        if op.is_ld_imm64(insn.code):
            return _SUBPROG.sub(f"subprog[{label}]", text)
        return _PC_RELATIVE.sub(label, text)

    def _imm64(self, insn: Instruction, value: int) -> str | None:
        low, high = insn.imm, value >> 32
        high = high - (1 << 32) if high >> 31 else high
        match insn.src:
            case op.BPF_PSEUDO_MAP_FD:
                return f"map[fd:{low}]"
            case op.BPF_PSEUDO_MAP_VALUE:
                return f"map[fd:{low}][0]{high:+d}"
            case op.BPF_PSEUDO_MAP_IDX:
                return f"map[{self._map_name(low)}]"
            case op.BPF_PSEUDO_MAP_IDX_VALUE:
                return f"map[{self._map_name(low)}][0]{high:+d}"
            case op.BPF_PSEUDO_BTF_ID:
                return f"btf[id:{low}]{f'{high:+d}' if high else ''}"
            case op.BPF_PSEUDO_FUNC:
                return f"subprog[{low:+d}]"
        return f"{value:#x} ll"

    def _map_name(self, index: int) -> str:
        return self.map_names.get(index, f"idx:{index}")
