"""Directives of a program text: what is not an instruction (docs/assembly.md has the language).

    .type socket_filter          .license "GPL"        .name count       .flags BPF_F_STRICT_ALIGNMENT
    .const ETH_HLEN = 14
    .map counts hash key=4 value=8 entries=2 {
        6: 0
        17: 0
    }
    .program tail                       ; another program of the same text begins (``asm`` cuts there)

Reads words into a :class:`Declarations`; whether a map is possible is the host's to say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

from netbpf.abi import maps as abi_maps
from netbpf.abi.maps import MAP_KIND_BY_NAME, MAP_KINDS
from netbpf.abi.prog_types import ProgType
from netbpf.ints import U32_MAX, U64_MAX, round_up
from netbpf.isa import funcs
from netbpf.isa.classic import SockFilter
from netbpf.isa.instruction import Instruction
from netbpf.maps.spec import MapSpec
from netbpf.program import SOCKET_VIEW, VIEWS, MapDecl
from netbpf.sources.asm_insn import REGISTERS, Scope
from netbpf.sources.lexer import IDENT, NUMBER, STRING, Cursor, Line, Token, byte_string, did_you_mean, expression, number, string

PROG_FLAGS: Final = {
    "BPF_F_STRICT_ALIGNMENT": 1,
    "BPF_F_ANY_ALIGNMENT": 2,
    "BPF_F_TEST_RND_HI32": 4,
    "BPF_F_TEST_STATE_FREQ": 8,
    "BPF_F_SLEEPABLE": 16,
    "BPF_F_XDP_HAS_FRAGS": 32,
    "BPF_F_XDP_DEV_BOUND_ONLY": 64,
    "BPF_F_TEST_REG_INVARIANTS": 128,
}
_PACKET_BASES: Final = {"SKF_AD_OFF": -0x1000, "SKF_NET_OFF": -0x100000, "SKF_LL_OFF": -0x200000}
_UPDATE_FLAGS: Final = {"BPF_ANY": 0, "BPF_NOEXIST": 1, "BPF_EXIST": 2, "BPF_F_LOCK": 4}
_MAX_INNER: Final = 8


@cache
def builtin_constants() -> dict[str, int]:
    """Constants every text knows: map and program flags, update flags, SKF_*_OFF."""
    map_flags = {name: value for name, value in vars(abi_maps).items() if name.startswith("BPF_") and isinstance(value, int)}
    return {**map_flags, **PROG_FLAGS, **_PACKET_BASES, **_UPDATE_FLAGS}


@cache
def _helpers() -> dict[str, int]:
    names = vars(funcs).items()
    return {name.removeprefix("BPF_FUNC_"): number for name, number in names if name.startswith("BPF_FUNC_")}


def new_scope() -> Scope:
    """A scope with the built-in constants and every helper's name."""
    return Scope(dict(builtin_constants()), _helpers())


class Declarations:
    """What the directives of one program said. ``open_map`` is the index of the map whose contents are being read, or -1."""

    def __init__(self, scope: Scope, maps: Sequence[MapDecl] = (), btf: bytes = b"") -> None:
        self.scope = scope
        self.prog_type = int(ProgType.SOCKET_FILTER)
        self.license = "GPL"
        self.view = SOCKET_VIEW
        self.name = ""
        self.prog_flags = self.expected_attach_type = 0
        self.maps = list(maps)
        self.btf = btf
        self.func_info: list[tuple[int, int]] = []
        self.line_info: list[tuple[int, int, int, int]] = []
        self.source_lines: list[tuple[int, str]] = []
        self.insns: list[Instruction] = []
        self.classic: list[SockFilter] = []
        self.open_map = -1
        self.open_at: tuple[Cursor, Token] | None = None

    def directive(self, cursor: Cursor) -> None:
        """Read a line that begins with a directive's name. Raises SourceError."""
        token = cursor.next()
        handler = _DIRECTIVES.get(token.text)
        if handler is None:
            cursor.fail(token, f"unknown directive '{token.text}'{did_you_mean(token.text, _DIRECTIVES)}")
        handler(self, cursor)

    def define(self, cursor: Cursor, name: Token) -> None:
        """``NAME = expression`` with the cursor behind the sign."""
        if name.text in REGISTERS:
            cursor.fail(name, f"'{name.text}' is a register and can't be a constant")
        value = expression(cursor, self.scope.constants)
        cursor.end()
        old = self.scope.constants.get(name.text)
        if old is not None and old != value:
            cursor.fail(name, f"'{name.text}' is {old} already")
        self.scope.constants[name.text] = value

    # --- contents of maps -------------------------------------------------------------------------------------------------

    def entry(self, cursor: Cursor) -> None:
        """A line between the braces of a map: ``key: value``, or the closing brace."""
        if cursor.accept("}"):
            cursor.end()
            self.open_map, self.open_at = -1, None
            return
        decl = self.maps[self.open_map]
        key = self._data(cursor, decl.spec.key_size, "key")
        cursor.expect(":", "the key")
        if cursor.accept("&"):
            name = _name(cursor, "the name of a map or program")
            decl = decl._replace(slots=(*decl.slots, (key, name)))
        else:
            value = self._data(cursor, decl.spec.value_size, "value", _value_sizes(decl.spec))
            decl = decl._replace(contents=(*decl.contents, (key, value)))
        cursor.end()
        self.maps[self.open_map] = decl

    def _data(self, cursor: Cursor, size: int, what: str, multiple: int = 0) -> bytes:
        """``6``, ``u16 80, u16 443``, ``"eth0", ...``: exactly ``size`` bytes (or a multiple of ``multiple``)."""
        start = cursor.token
        if start.kind != STRING and start.text not in _TYPED:
            value = expression(cursor, self.scope.constants, f"a {what}")
            return _integer(cursor, start, value, size, "little")
        out = self._datum(cursor)
        while cursor.accept(","):
            if cursor.accept("..."):
                out = out.ljust(size, b"\0")
                break
            out += self._datum(cursor)
        if len(out) != size and not (multiple and out and len(out) % multiple == 0):
            hint = "; end with ', ...' to fill with zeros" if len(out) < size else ""
            cursor.fail(start, f"this {what} has {len(out)} bytes, the map's has {size}{hint}")
        return out

    def _datum(self, cursor: Cursor) -> bytes:
        token = cursor.token
        if token.kind == STRING:
            return byte_string(cursor)
        if token.text not in _TYPED:
            cursor.fail(token, f"expected one of {', '.join(_TYPED)} or a string{did_you_mean(token.text, _TYPED)}")
        cursor.next()
        size, order = _TYPED[token.text]
        at = cursor.token
        return _integer(cursor, at, expression(cursor, self.scope.constants), size, order)


def read_datum(text: str, size: int) -> bytes:
    """The bytes that ``text`` says as the KEY or VALUE of a map's entry does: exactly ``size``. Raises SourceError."""
    cursor = Cursor(Line(1, text, text), "<text>")
    data = Declarations(new_scope())._data(cursor, size, "text")
    cursor.end()
    return data


def _integer(cursor: Cursor, token: Token, value: int, size: int, order: str) -> bytes:
    bits = 8 * size
    if (size and not -(1 << (bits - 1)) <= value < 1 << bits) or (not size and value):
        cursor.fail(token, f"{value} does not fit {size} bytes")
    return (value & ((1 << bits) - 1)).to_bytes(size, "big" if order == "big" else "little")


def _value_sizes(spec: MapSpec) -> int:
    """What a per-CPU value's length is a multiple of; 0 for other kinds."""
    kind = MAP_KINDS.get(spec.map_type)
    return round_up(spec.value_size, 8) if kind is not None and kind.per_cpu else 0


_TYPED: Final = {
    "u8": (1, "little"),
    "u16": (2, "little"),
    "u32": (4, "little"),
    "u64": (8, "little"),
    "be16": (2, "big"),
    "be32": (4, "big"),
    "be64": (8, "big"),
}


# --- .map -------------------------------------------------------------------------------------------------------------------

_MAP_FIELDS: Final = {
    "key": "key_size",
    "value": "value_size",
    "entries": "max_entries",
    "flags": "map_flags",
    "extra": "map_extra",
    "numa": "numa_node",
    "btf_key": "btf_key_type_id",
    "btf_value": "btf_value_type_id",
}
_FIELD_LIMIT: Final = {"map_extra": U64_MAX}


def _map(decls: Declarations, cursor: Cursor) -> None:
    start = cursor.token
    name = _name(cursor, "the map's name")
    options: dict[str, Any] = {}
    spec = _map_spec(cursor, decls.scope, name, options)
    if cursor.accept("{"):
        if not cursor.ended():
            cursor.fail(cursor.token, "contents go on lines of their own, one 'key: value' each, up to '}'")
        decls.open_map, decls.open_at = len(decls.maps), (cursor, start)
    cursor.end()
    decls.scope.map_index.setdefault(name, len(decls.maps))
    decls.maps.append(MapDecl(spec, **options))


def _map_spec(cursor: Cursor, scope: Scope, name: str, options: dict[str, Any], depth: int = 0) -> MapSpec:
    """``hash key=4 value=8 entries=2 flags=.. inner(...) frozen pin="..."`` after the name. ``options`` gets what is the
    declaration's and not the spec's."""
    map_type = _map_type(cursor, scope)
    fields: dict[str, Any] = {"key_size": 0, "value_size": 0, "max_entries": 0, "name": name}
    while cursor.token.kind == IDENT:
        word = cursor.next()
        if word.text == "inner":
            fields["inner"] = _inner(cursor, scope, depth)
        elif word.text == "name" and depth:
            cursor.expect("=", "'name'")
            fields["name"] = _name(cursor, "a name")
        elif word.text == "frozen" and not depth:
            options["frozen"] = True
        elif word.text == "pin" and not depth:
            cursor.expect("=", "'pin'")
            options["pin_path"] = string(cursor, "a path in quotes")
        else:
            field_name = _map_field(cursor, word)
            fields[field_name] = _map_number(cursor, scope, word)
    return MapSpec(map_type, **fields)


def _inner(cursor: Cursor, scope: Scope, depth: int) -> MapSpec:
    opening = cursor.expect("(", "'inner'")
    if depth >= _MAX_INNER:
        cursor.fail(opening, "maps are nested too deep")
    spec = _map_spec(cursor, scope, "", {}, depth + 1)
    cursor.expect(")")
    return spec


def _map_type(cursor: Cursor, scope: Scope) -> int:
    token = cursor.token
    if token.kind == IDENT and token.text in MAP_KIND_BY_NAME:
        cursor.next()
        return int(MAP_KIND_BY_NAME[token.text].type)
    if token.kind == IDENT:
        cursor.fail(token, f"'{token.text}' is no kind of map{did_you_mean(token.text, MAP_KIND_BY_NAME)}")
    return expression(cursor, scope.constants, "a kind of map")


def _map_field(cursor: Cursor, word: Token) -> str:
    if word.text not in _MAP_FIELDS:
        known = (*_MAP_FIELDS, "inner", "frozen", "pin")
        cursor.fail(word, f"a map has no '{word.text}'{did_you_mean(word.text, known)}: {', '.join(known)}")
    cursor.expect("=", f"'{word.text}'")
    return _MAP_FIELDS[word.text]


def _map_number(cursor: Cursor, scope: Scope, word: Token) -> int:
    token = cursor.token
    value = expression(cursor, scope.constants)
    if not 0 <= value <= _FIELD_LIMIT.get(_MAP_FIELDS[word.text], U32_MAX):
        cursor.fail(token, f"{word.text}={value} does not fit its field")
    return value


def _name(cursor: Cursor, what: str) -> str:
    if cursor.token.kind == STRING:
        return string(cursor, what)
    return cursor.ident(what).text


# --- the other directives -----------------------------------------------------------------------------------------------------


def _type(decls: Declarations, cursor: Cursor) -> None:
    token = cursor.token
    if cursor.peek().text == ",":  # GNU as: .type main,@function
        _ignored(decls, cursor)
        return
    if token.kind == IDENT and token.text not in decls.scope.constants:
        names = {t.name.lower(): int(t) for t in ProgType}
        if token.text.lower() not in names:
            cursor.fail(token, f"'{token.text}' is no program type{did_you_mean(token.text, names)}")
        cursor.next()
        decls.prog_type = names[token.text.lower()]
    else:
        decls.prog_type = _u32(decls, cursor)
    cursor.end()


def _license(decls: Declarations, cursor: Cursor) -> None:
    """A quoted string, or the words up to the end of the line: ``.license Dual BSD/GPL``."""
    if cursor.token.kind == STRING:
        decls.license = string(cursor)
        cursor.end()
        return
    first = cursor.token
    if cursor.ended():
        cursor.fail(first, "expected the license")
    while not cursor.ended():
        cursor.next()
    decls.license = cursor.line.blanked[first.column - 1 : cursor.token.column - 1]


def _program_name(decls: Declarations, cursor: Cursor) -> None:
    decls.name = _name(cursor, "the program's name")
    cursor.end()


def _flags(decls: Declarations, cursor: Cursor) -> None:
    decls.prog_flags = _u32(decls, cursor)
    cursor.end()


def _attach_type(decls: Declarations, cursor: Cursor) -> None:
    decls.expected_attach_type = _u32(decls, cursor)
    cursor.end()


def _const(decls: Declarations, cursor: Cursor) -> None:
    name = cursor.ident("a constant's name")
    if not cursor.accept(","):  # .equ NAME, value
        cursor.expect("=", f"'{name.text}'")
    decls.define(cursor, name)


def _insn(decls: Declarations, cursor: Cursor) -> None:
    """``.insn code dst src off imm``: one slot by its fields; ``off`` and ``imm`` signed, trailing zeros may be left out."""
    fields = []
    for what, low, high in _INSN_FIELDS:
        if what != "code" and cursor.ended():
            fields.append(0)
            continue
        token = cursor.token
        sign = -1 if cursor.accept("-") else 1
        if cursor.token.kind != NUMBER:
            cursor.fail(cursor.token, f"expected the {what} of a raw slot")
        value = sign * number(cursor)
        if not low <= value <= high:
            cursor.fail(token, f"{what} {value} is not within {low} to {high}")
        fields.append(value)
    cursor.end()
    decls.insns.append(Instruction(*fields))


_INSN_FIELDS: Final = (
    ("code", 0, 0xFF),
    ("dst", 0, 15),
    ("src", 0, 15),
    ("off", -(1 << 15), (1 << 15) - 1),
    ("imm", -(1 << 31), (1 << 31) - 1),
)


def _btf(decls: Declarations, cursor: Cursor) -> None:
    if cursor.token.kind != STRING:
        cursor.fail(cursor.token, 'expected hex"..."')
    decls.btf += byte_string(cursor)
    cursor.end()


def _func_info(decls: Declarations, cursor: Cursor) -> None:
    pc, type_id = (_row_number(decls, cursor, i) for i in range(2))
    cursor.end()
    decls.func_info.append((pc, type_id))


def _line_info(decls: Declarations, cursor: Cursor) -> None:
    pc, file_off, line_off, line_col = (_row_number(decls, cursor, i) for i in range(4))
    cursor.end()
    decls.line_info.append((pc, file_off, line_off, line_col))


def _source_line(decls: Declarations, cursor: Cursor) -> None:
    pc = _u32(decls, cursor)
    decls.source_lines.append((pc, string(cursor)))
    cursor.end()


def _classic(decls: Declarations, cursor: Cursor) -> None:
    """``.classic code, jt, jf, k``: an instruction of the classic filter that this program translates."""
    fields = []
    for i, limit in enumerate((0xFFFF, 0xFF, 0xFF, U32_MAX)):
        token = cursor.token
        fields.append(_row_number(decls, cursor, i))
        if fields[-1] > limit:
            cursor.fail(token, f"{fields[-1]} does not fit its field")
    cursor.end()
    decls.classic.append(SockFilter(*fields))


def _view(decls: Declarations, cursor: Cursor) -> None:
    """``.view file``: who looks at the packets that the program is for."""
    word = cursor.ident("a view")
    if word.text not in VIEWS:
        cursor.fail(word, f"'{word.text}' is no view: {', '.join(VIEWS)}")
    cursor.end()
    decls.view = word.text


def _row_number(decls: Declarations, cursor: Cursor, index: int) -> int:
    if index:
        cursor.expect(",")
    return _u32(decls, cursor)


def _u32(decls: Declarations, cursor: Cursor) -> int:
    token = cursor.token
    value = expression(cursor, decls.scope.constants)
    if not 0 <= value <= U32_MAX:
        cursor.fail(token, f"{value} does not fit 32 bits")
    return value


def _ignored(decls: Declarations, cursor: Cursor) -> None:
    """What compilers write for a linker, and one program needs none of."""
    while not cursor.ended():
        cursor.next()


def program_head(cursor: Cursor) -> tuple[str, bool]:
    """``.program NAME [own]``: the name, and whether the program shares no maps and no BTF with the first."""
    cursor.expect(".program")
    name = _name(cursor, "the program's name")
    own = cursor.accept("own") is not None
    cursor.end()
    return name, own


def _section(decls: Declarations, cursor: Cursor) -> None:
    """A compiler's section of code, ``.section socket,"ax",@progbits``, holds the program; others hold data."""
    words = [cursor.next().text for _ in range(3)]
    if words[1] == "," and "x" in words[2].strip('"'):
        _ignored(decls, cursor)
    else:
        _data(decls, cursor)


def _data(decls: Declarations, cursor: Cursor) -> None:
    cursor.fail(cursor.tokens[0], "one text is one program: data and its sections need an object file (.o)")


_IGNORED: Final = (".text", ".globl", ".global", ".p2align", ".align", ".size", ".file", ".ident", ".addrsig", ".loc")
_CFI: Final = (".cfi_startproc", ".cfi_endproc", ".cfi_sections", ".cfi_def_cfa", ".cfi_offset")


_DIRECTIVES: Final[dict[str, Callable[[Declarations, Cursor], None]]] = {
    ".map": _map,
    ".type": _type,
    ".license": _license,
    ".name": _program_name,
    ".flags": _flags,
    ".attach_type": _attach_type,
    ".const": _const,
    ".equ": _const,
    ".set": _const,
    ".insn": _insn,
    ".btf": _btf,
    ".func_info": _func_info,
    ".line_info": _line_info,
    ".source_line": _source_line,
    ".classic": _classic,
    ".view": _view,
    ".section": _section,
    **dict.fromkeys((*_IGNORED, *_CFI), _ignored),
    **dict.fromkeys((".data", ".bss", ".byte", ".short", ".long", ".quad", ".asciz", ".ascii", ".zero", ".comm"), _data),
}
