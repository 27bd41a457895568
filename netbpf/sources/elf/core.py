"""CO-RE: what a compiler recorded of fields, types and enumerators, answered by the types of the kernel that runs.

A record names a local type, a path of accessors ("0:1:2") and a question. The local path is spelled out in names, looked for in
every type of the kernel with that name (less a ``___flavor``), and the answer is written into one instruction. Where nothing
matches and the question is not "is it there", the instruction is poisoned: refused by the verifier unless it is dead code.
Knows types and single instructions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from netbpf.btf import (
    KIND_ARRAY,
    KIND_ENUM,
    KIND_ENUM64,
    KIND_FLOAT,
    KIND_FUNC_PROTO,
    KIND_FWD,
    KIND_INT,
    KIND_PTR,
    KIND_STRUCT,
    KIND_UNION,
    Btf,
    BtfType,
    Member,
)
from netbpf.ints import s32
from netbpf.isa.instruction import Instruction
from netbpf.isa.opcodes import (
    BPF_ALU,
    BPF_ALU64,
    BPF_CALL,
    BPF_JMP,
    BPF_LDX,
    BPF_ST,
    BPF_STX,
    BPF_X,
    BYTES_SIZE,
    SIZE_BYTES,
    bpf_class,
    bpf_size,
    is_ld_imm64,
)

# enum bpf_core_relo_kind
(
    FIELD_BYTE_OFFSET, FIELD_BYTE_SIZE, FIELD_EXISTS, FIELD_SIGNED, FIELD_LSHIFT_U64, FIELD_RSHIFT_U64, TYPE_ID_LOCAL,
    TYPE_ID_TARGET, TYPE_EXISTS, TYPE_SIZE, ENUMVAL_EXISTS, ENUMVAL_VALUE, TYPE_MATCHES,
) = range(13)  # fmt: skip
_FIELDS: Final = range(FIELD_BYTE_OFFSET, FIELD_RSHIFT_U64 + 1)
_EXISTENCE: Final = frozenset({FIELD_EXISTS, TYPE_EXISTS, ENUMVAL_EXISTS, TYPE_MATCHES, TYPE_ID_TARGET, TYPE_SIZE})
_COMPOSITE: Final = frozenset({KIND_STRUCT, KIND_UNION})
_ENUMS: Final = frozenset({KIND_ENUM, KIND_ENUM64})
POISON_CALL: Final = 195896080  # 0xbad2310 reads "bad relo"; no helper has this number
MAX_ACCESSORS: Final = 64
MAX_DEPTH: Final = 32
_S16: Final = range(-(1 << 15), 1 << 15)


class CoreError(Exception):
    """Why a record cannot be answered; the caller adds where it stands."""


class Step(NamedTuple):
    """One accessor of a path: ``number`` of an array element, or of a member ``name``; ``type_id`` of what it leads through."""

    type_id: int
    number: int
    name: str


class Spot(NamedTuple):
    """Where a path leads: ``bit_offset`` from the root's beginning; ``type_id`` there; bits of a bit field, else 0."""

    bit_offset: int
    type_id: int
    bitfield_size: int


class Answer(NamedTuple):
    """``value`` for the instruction (None: poison it); ``is_field_of`` (bytes, signed, is a pointer) of a whole field."""

    value: int | None
    field: tuple[int, bool, bool] | None = None


def essential(name: str) -> str:
    """A name without its flavor: ``sk_buff___old`` means sk_buff."""
    at = name.rfind("___")
    return name[:at] if at > 0 else name


class Core:
    """Answers records of ``local``'s types. ``target`` gives the kernel's types when they are first needed."""

    def __init__(self, local: Btf, target: Callable[[], Btf]) -> None:
        self.local, self._load = local, target
        self._target: Btf | None = None
        self._names: dict[str, list[int]] = {}
        self._answers: dict[tuple[int, str, int], tuple[Answer, Answer]] = {}

    def apply(self, code: list[Instruction], pc: int, row: tuple[int, ...]) -> None:
        """Write the answer to a record (slot, type id, access string, kind) into ``code[pc]``. Raises CoreError."""
        key = row[1], self.local.string(row[2]), row[3]
        if key not in self._answers:
            self._answers[key] = self._ask(*key)
        local, answer = self._answers[key]
        patch(code, pc, local, answer)

    # --- asking -------------------------------------------------------------------------------------------------------
    def _ask(self, type_id: int, access: str, kind: int) -> tuple[Answer, Answer]:
        """(what the local types say, what the kernel's say)."""
        local_type = self.local.type(type_id)
        if local_type is None or not 0 <= kind <= TYPE_MATCHES:
            raise CoreError(f"record of kind {kind} for type {type_id}")
        accessors = _accessors(access)
        if kind == TYPE_ID_LOCAL:
            return Answer(type_id), Answer(type_id)
        if kind in _FIELDS:
            steps, spot = local_path(self.local, type_id, accessors)
            local = field_answer(self.local, steps, spot, kind)
            return local, self._agree(kind, self._field_answers(steps, kind))
        if kind in (ENUMVAL_EXISTS, ENUMVAL_VALUE):
            name, value = enumerator(self.local, type_id, accessors[0])
            local = Answer(1 if kind == ENUMVAL_EXISTS else value)
            return local, self._agree(kind, self._enum_answers(type_id, essential(name), kind))
        local = Answer(_type_answer(self.local, type_id, kind))
        return local, self._agree(kind, self._type_answers(type_id, kind))

    def _agree(self, kind: int, answers: Iterator[Answer]) -> Answer:
        """The one answer of all candidates; none: 0 where the question allows it, else poison."""
        found = set(answers)
        if len({a.value for a in found}) > 1:
            raise CoreError(f"types of the same name in the kernel answer differently: {sorted(str(a.value) for a in found)}")
        if found:
            return min(found, key=lambda a: a.field or (0, False, False))
        return Answer(0 if kind in _EXISTENCE else None)

    def target(self) -> Btf:
        """The kernel's types."""
        if self._target is None:
            self._target = self._load()
        return self._target

    def _candidates(self, type_id: int) -> list[int]:
        """The kernel's types with the root's name and kind."""
        t = self.local.types[self.local.skip_modifiers(type_id) if self.local.types[type_id].name_off == 0 else type_id]
        if not self._names:
            target = self.target()
            for i, row in enumerate(target.types):
                if row.name_off and row.kind in _NAMED:
                    self._names.setdefault(essential(target.string(row.name_off)), []).append(i)
        name = essential(self.local.string(t.name_off))
        target = self.target()
        return [i for i in self._names.get(name, []) if name and same_kind(t, target.types[i])]

    def _field_answers(self, steps: list[Step], kind: int) -> Iterator[Answer]:
        target = self.target()
        for candidate in self._candidates(steps[0].type_id):
            found = target_path(self.local, steps, target, candidate)
            if found is not None:
                yield field_answer(target, *found, kind)

    def _enum_answers(self, type_id: int, name: str, kind: int) -> Iterator[Answer]:
        target = self.target()
        for candidate in self._candidates(type_id):
            for other, value in enumerators(target, candidate):
                if essential(other) == name:
                    yield Answer(1 if kind == ENUMVAL_EXISTS else value)

    def _type_answers(self, type_id: int, kind: int) -> Iterator[Answer]:
        target = self.target()
        match = matches if kind == TYPE_MATCHES else compatible
        for candidate in self._candidates(type_id):
            if match(self.local, type_id, target, candidate, MAX_DEPTH):
                yield Answer(_type_answer(target, candidate, kind))


_NAMED: Final = frozenset({KIND_INT, KIND_STRUCT, KIND_UNION, KIND_ENUM, KIND_ENUM64, KIND_FWD, KIND_FLOAT, 8})  # 8: typedef


def _type_answer(btf: Btf, type_id: int, kind: int) -> int:
    if kind == TYPE_SIZE:
        return btf.size(type_id)
    return type_id if kind == TYPE_ID_TARGET else 1


def _accessors(text: str) -> list[int]:
    parts = text.split(":", MAX_ACCESSORS)
    if len(parts) > MAX_ACCESSORS or not all(p.isascii() and p.isdigit() and len(p) < 10 for p in parts):
        raise CoreError(f"access string {text[:80]!r}")
    return [int(p) for p in parts]


# --- paths ------------------------------------------------------------------------------------------------------------
def _member(btf: Btf, type_id: int, index: int) -> Member | None:
    t = btf.types[type_id]
    return btf.member(type_id, index) if t.kind in _COMPOSITE and index < len(t.rows) else None


def local_path(btf: Btf, root: int, accessors: list[int]) -> tuple[list[Step], Spot]:
    """The steps of an access string and where it leads. The first accessor is an index of the root as an array."""
    type_id = btf.skip_modifiers(root)
    steps, bits, bitfield = [Step(root, accessors[0], "")], accessors[0] * btf.size(type_id) * 8, 0
    for index in accessors[1:]:
        type_id = btf.skip_modifiers(type_id)
        t = btf.type(type_id)
        if t is not None and t.kind == KIND_ARRAY:
            steps.append(Step(type_id, index, ""))
            type_id = t.rows[0][0]
            bits += index * btf.size(type_id) * 8
            continue
        m = _member(btf, type_id, index) if t is not None else None
        if m is None:
            raise CoreError(f"accessor {index} leads nowhere in type {type_id}")
        if m.name:
            steps.append(Step(type_id, index, m.name))
        bits, type_id, bitfield = bits + m.bit_offset, m.type_id, m.bitfield_size
    return steps, Spot(bits, type_id, bitfield)


def target_path(local: Btf, steps: list[Step], target: Btf, root: int) -> tuple[list[Step], Spot] | None:
    """The same path by names among the kernel's types, from ``root``; None where it is not there."""
    bits, type_id, bitfield = steps[0].number * target.size(root) * 8, root, 0
    found = [Step(root, steps[0].number, "")]
    for step in steps[1:]:
        type_id = target.skip_modifiers(type_id)
        t = target.type(type_id)
        if t is None:
            return None
        if not step.name:
            if t.kind != KIND_ARRAY or (t.rows[0][2] and step.number >= t.rows[0][2]):
                return None
            found.append(Step(type_id, step.number, ""))
            type_id = t.rows[0][0]
            bits += step.number * target.size(type_id) * 8
            continue
        hit = find_member(target, type_id, step.name, MAX_DEPTH)
        mine = _member(local, step.type_id, step.number)
        if hit is None or mine is None or not fields_compatible(local, mine.type_id, target, hit[0].type_id, MAX_DEPTH):
            return None
        m, offset = hit
        found.append(Step(type_id, 0, step.name))
        bits, type_id, bitfield = bits + offset, m.type_id, m.bitfield_size
    return found, Spot(bits, type_id, bitfield)


def find_member(btf: Btf, type_id: int, name: str, depth: int) -> tuple[Member, int] | None:
    """The member of that name and its offset in bits, looked for within members that have no name too."""
    type_id = btf.skip_modifiers(type_id)
    t = btf.type(type_id)
    if t is None or t.kind not in _COMPOSITE or not depth:
        return None
    for m in btf.members(type_id):
        if m.name == name:
            return m, m.bit_offset
        inner = find_member(btf, m.type_id, name, depth - 1) if not m.name else None
        if inner is not None:
            return inner[0], m.bit_offset + inner[1]
    return None


def field_answer(btf: Btf, steps: list[Step], spot: Spot, kind: int) -> Answer:
    """What ``kind`` asks of the field at ``spot``."""
    if kind == FIELD_EXISTS:
        return Answer(1)
    type_id = btf.skip_modifiers(spot.type_id)
    t = btf.type(type_id)
    if t is None:
        raise CoreError(f"type {spot.type_id} of a field is missing")
    size = btf.size(type_id)
    if len(steps) == 1 or not steps[-1].name:  # an element of an array or the root itself
        whole: tuple[int, int] = (spot.bit_offset // 8, size)
        bits, at = size * 8, 0
    else:
        whole = container(spot, size)
        bits = spot.bitfield_size or size * 8
        at = spot.bit_offset - whole[0] * 8
    signed = t.kind == KIND_INT and bool(t.rows[0][0] >> 24 & 1)
    if kind == FIELD_BYTE_OFFSET:
        field = None if spot.bitfield_size else (size, signed, t.kind == KIND_PTR)
        return Answer(whole[0], field)
    if kind == FIELD_BYTE_SIZE:
        return Answer(whole[1])
    if kind == FIELD_SIGNED:
        return Answer(int(signed or (t.kind in _ENUMS and t.kind_flag)))
    return Answer(64 - (bits + at) if kind == FIELD_LSHIFT_U64 else 64 - bits)


def container(spot: Spot, size: int) -> tuple[int, int]:
    """(offset, size) in bytes of the aligned number that holds a field."""
    if not spot.bitfield_size or not size:
        return spot.bit_offset // 8, size
    at = spot.bit_offset // 8 // size * size
    while spot.bit_offset + spot.bitfield_size - at * 8 > size * 8:
        if size >= 8:
            raise CoreError("a bit field that lies across two 8-byte numbers")
        size *= 2
        at = spot.bit_offset // 8 // size * size
    return at, size


# --- enumerations and whole types -------------------------------------------------------------------------------------
def enumerators(btf: Btf, type_id: int) -> Iterator[tuple[str, int]]:
    """(name, value as u64) of every enumerator."""
    t = btf.type(btf.skip_modifiers(type_id))
    if t is None or t.kind not in _ENUMS:
        return
    for row in t.rows:
        value = row[1] | row[2] << 32 if t.kind == KIND_ENUM64 else row[1]
        yield btf.string(row[0]), value % (1 << 64)


def enumerator(btf: Btf, type_id: int, index: int) -> tuple[str, int]:
    rows = list(enumerators(btf, type_id))
    if index >= len(rows):
        raise CoreError(f"enumerator {index} of type {type_id}, which has {len(rows)}")
    return rows[index]


def same_kind(a: BtfType, b: BtfType) -> bool:
    return a.kind == b.kind or (a.kind in _ENUMS and b.kind in _ENUMS)


def fields_compatible(a: Btf, a_id: int, b: Btf, b_id: int, depth: int) -> bool:
    """Whether a field of one type may be read where the other stands: the same kind, arrays of such, enums of one name."""
    left, right = a.type(a.skip_modifiers(a_id)), b.type(b.skip_modifiers(b_id))
    if left is None or right is None or not depth:
        return False
    if left.kind in _COMPOSITE and right.kind in _COMPOSITE:
        return True
    if not same_kind(left, right):
        return False
    if left.kind in (KIND_FWD, *_ENUMS):
        names = essential(a.string(left.name_off)), essential(b.string(right.name_off))
        return not all(names) or names[0] == names[1]
    if left.kind == KIND_ARRAY:
        return fields_compatible(a, left.rows[0][0], b, right.rows[0][0], depth - 1)
    return left.kind in (KIND_INT, KIND_PTR, KIND_FLOAT)


def compatible(a: Btf, a_id: int, b: Btf, b_id: int, depth: int) -> bool:
    """Whether two types are alike by kind: through pointers, arrays and parameters; names and members do not count."""
    left, right = a.type(a.skip_modifiers(a_id)), b.type(b.skip_modifiers(b_id))
    if left is None or right is None or not depth or not same_kind(left, right):
        return False
    if left.kind == KIND_PTR:
        return compatible(a, left.size_or_type, b, right.size_or_type, depth - 1)
    if left.kind == KIND_ARRAY:
        return compatible(a, left.rows[0][0], b, right.rows[0][0], depth - 1)
    if left.kind == KIND_FUNC_PROTO:
        pairs = [(left.size_or_type, right.size_or_type), *zip(_params(left), _params(right), strict=False)]
        return len(left.rows) == len(right.rows) and all(compatible(a, x, b, y, depth - 1) for x, y in pairs)
    return True


def _params(t: BtfType) -> list[int]:
    return [row[1] for row in t.rows]


def matches(a: Btf, a_id: int, b: Btf, b_id: int, depth: int) -> bool:
    """Whether every named member and enumerator of the first type is in the second, by name and alike."""
    if not compatible(a, a_id, b, b_id, depth):
        return False
    a_id, b_id = a.skip_modifiers(a_id), b.skip_modifiers(b_id)
    if a.types[a_id].kind in _ENUMS:
        return {essential(n) for n, _ in enumerators(a, a_id)} <= {essential(n) for n, _ in enumerators(b, b_id)}
    if a.types[a_id].kind not in _COMPOSITE:
        return True
    for m in a.members(a_id):
        hit = find_member(b, b_id, m.name, MAX_DEPTH) if m.name else None
        if m.name and (hit is None or not fields_compatible(a, m.type_id, b, hit[0].type_id, MAX_DEPTH)):
            return False
    return True


# --- instructions -----------------------------------------------------------------------------------------------------
def patch(code: list[Instruction], pc: int, local: Answer, answer: Answer) -> None:
    """Write ``answer`` where ``local``'s value stands. Raises CoreError where it does not stand there or does not fit."""
    insn = code[pc]
    if answer.value is None:
        _poison(code, pc)
        return
    value, kind = answer.value, bpf_class(insn.code)
    if is_ld_imm64(insn.code):
        if pc + 1 >= len(code):
            raise CoreError("the second half of a 64-bit load is missing")
        low, high = value & 0xFFFF_FFFF, value >> 32 & 0xFFFF_FFFF
        code[pc], code[pc + 1] = insn._replace(imm=s32(low), src=0), code[pc + 1]._replace(imm=s32(high))
    elif kind in (BPF_ALU, BPF_ALU64) and not insn.code & BPF_X:
        code[pc] = insn._replace(imm=s32(value))
    elif kind in (BPF_LDX, BPF_ST, BPF_STX):
        if value not in _S16:
            raise CoreError(f"offset {value} does not fit in an instruction")
        code[pc] = _resized(insn, local, answer)._replace(off=value)
    else:
        raise CoreError(f"a record for an instruction of code {insn.code:#04x}")


def _resized(insn: Instruction, local: Answer, answer: Answer) -> Instruction:
    """The load or store with the width of the kernel's field, where that is another."""
    if local.field is None or answer.field is None or local.field[0] == answer.field[0]:
        return insn
    if SIZE_BYTES[bpf_size(insn.code)] != local.field[0]:
        return insn
    size, signed, is_pointer = answer.field
    if size not in BYTES_SIZE or ((signed or local.field[1]) and not (is_pointer and local.field[2])):
        raise CoreError(f"a field of {local.field[0]} bytes has {size} in the kernel, and its sign would be lost")
    return insn._replace(code=insn.code & ~0x18 | BYTES_SIZE[size])


def _poison(code: list[Instruction], pc: int) -> None:
    call = Instruction(BPF_JMP | BPF_CALL, imm=POISON_CALL)
    if is_ld_imm64(code[pc].code) and pc + 1 < len(code):
        code[pc + 1] = call
    code[pc] = call
