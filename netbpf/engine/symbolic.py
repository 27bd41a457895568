"""What a program does with one packet, as terms: every path through it, with what it asks of the packet and what it does to maps.

Terms are tuples. A number: ("n", value). What only the packet tells: ("in", ...), and operations on terms: ("op", ...). A byte
of a term: ("byte", term, k); bytes together: ("cat", bytes). Pointers: ("stack", frame, off), ("ctx", off), ("map", index),
("value", map, key, off). What a map's value held before: ("load", map, key, off, size, writes before). Knows no engine.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field, replace
from typing import Any, Final

from netbpf.abi.helpers import FUNC_IDS, HELPERS
from netbpf.abi.maps import MapType
from netbpf.errors import NetbpfError
from netbpf.ints import s32, s64, u64
from netbpf.isa import opcodes as op
from netbpf.isa.instruction import Instruction, imm64
from netbpf.program import VerifiedProgram

Term = tuple[Any, ...]
Key = tuple[int, Term]  # a map's index and the key in it
Slot = tuple[int, int]  # offset and size in a value

MAX_STEPS: Final = 400_000
MAX_PATHS: Final = 400
ZERO: Final[Term] = ("n", 0)
INDEXED: Final = frozenset({MapType.ARRAY, MapType.PERCPU_ARRAY})
HASHED: Final = frozenset({MapType.HASH, MapType.PERCPU_HASH})
SIZES: Final = op.SIZE_BYTES
FUNC_NAMES: Final = {number: name for name, number in FUNC_IDS.items()}
OF_PACKET: Final = frozenset(
    "ktime_get_ns ktime_get_boot_ns ktime_get_tai_ns ktime_get_coarse_ns jiffies64 get_smp_processor_id get_numa_node_id "
    "get_socket_cookie get_socket_uid get_netns_cookie".split()
)
"""Helpers whose result depends on the packet, its time and the machine alone."""


class Unproved(NetbpfError):
    """What keeps a program's effects from being told."""


@dataclass
class Effect:
    """What a path does to one key: ``found`` whether it was there at the first look (None: never asked), ``made`` the bytes of a
    value it put there, ``added`` the terms added to slots."""

    found: bool | None = None
    made: tuple[Term, ...] | None = None
    added: dict[Slot, tuple[Term, ...]] = field(default_factory=dict)


@dataclass
class Path:
    """A path on its way; at its end, ``r0`` and what it did."""

    pc: int
    regs: list[Term | None]
    stack: dict[tuple[int, int], Term] = field(default_factory=dict)
    frames: tuple[tuple[int, tuple[Term | None, ...]], ...] = ()
    asked: dict[Term, bool] = field(default_factory=dict)
    effects: dict[Key, Effect] = field(default_factory=dict)
    last_looked: dict[int, Term] = field(default_factory=dict)  # by map: the key of the last operation on it
    r0: Term = ZERO

    def fork(self) -> Path:
        effects = {k: replace(e, added=dict(e.added)) for k, e in self.effects.items()}
        return replace(
            self, regs=list(self.regs), stack=dict(self.stack), asked=dict(self.asked), effects=effects,
            last_looked=dict(self.last_looked),
        )  # fmt: skip

    def effect(self, key: Key) -> Effect:
        return self.effects.setdefault(key, Effect())


def number(value: int) -> Term:
    return ("n", u64(value))


def is_number(term: Term) -> bool:
    return bool(term[0] == "n")


def loads_in(term: Any) -> set[int]:
    """The maps whose values a term depends on."""
    if not isinstance(term, tuple):
        return set()
    found = {term[1]} if term and term[0] == "load" else set()
    return found.union(*(loads_in(part) for part in term)) if term else found


def joined(parts: tuple[Term, ...]) -> Term:
    """A number of bytes as one term."""
    if all(is_number(b) for b in parts):
        return number(sum(b[1] << 8 * k for k, b in enumerate(parts)))
    first = parts[0]
    if first[0] == "byte" and first[2] == 0 and all(b == ("byte", first[1], k) for k, b in enumerate(parts)):
        term: Term = first[1]
        return term if len(parts) == 8 or width_of(term) <= len(parts) else ("op", "low", len(parts), term)
    return ("cat", parts)


def width_of(term: Term) -> int:
    """How many bytes a term can fill."""
    if term[0] == "in" and term[1] in ("pkt", "ctx", "fixed"):
        return int(term[-1])
    if term[0] == "op" and term[1] == "low":
        return int(term[2])
    if term[0] == "cat":
        return len(term[1])
    return max(1, (term[1].bit_length() + 7) // 8) if is_number(term) else 8


def byte_of(term: Term, k: int) -> Term:
    if is_number(term):
        return number(term[1] >> 8 * k & 0xFF)
    if term[0] == "cat":
        return term[1][k] if k < len(term[1]) else ZERO
    if k >= width_of(term):
        return ZERO
    return ("byte", term[3] if term[0] == "op" and term[1] == "low" else term, k)


class Explorer:
    """All paths of a program. ``written``: maps whose values some path changes; those of others are facts like the packet's."""

    def __init__(self, program: VerifiedProgram, written: set[int], updated: set[int]) -> None:
        self.program, self.insns, self.written, self.updated = program, program.insns, written, updated
        self.now_written, self.now_updated = set[int](), set[int]()
        self.done: list[Path] = []
        self.work: list[Path] = []
        self.steps = 0

    def explore(self) -> list[Path]:
        """Every path, ended. Raises Unproved."""
        self.work.append(Path(0, [None, ("ctx", 0), *([None] * 8), ("stack", 0, 0)]))
        while self.work:
            path: Path | None = self.work.pop()
            while path is not None:
                self.steps += 1
                if self.steps > MAX_STEPS or len(self.done) + len(self.work) > MAX_PATHS:
                    raise Unproved("it has too many paths to look at each")
                path = self._step(path)
        return self.done

    # --- one instruction -------------------------------------------------------------------------------------------------
    def _step(self, p: Path) -> Path | None:
        i = self.insns[p.pc]
        cls = op.bpf_class(i.code)
        if cls in (op.BPF_ALU, op.BPF_ALU64):
            p.regs[i.dst] = self._alu(p, i, 64 if cls == op.BPF_ALU64 else 32)
        elif op.is_ld_imm64(i.code):
            p.regs[i.dst] = self._constant(i, p.pc)
            p.pc += 1
        elif cls == op.BPF_LD:
            self._packet_load(p, i)
        elif cls == op.BPF_LDX:
            p.regs[i.dst] = self._load(p, self._reg(p, i.src), i)
        elif cls in (op.BPF_ST, op.BPF_STX):
            self._store(p, i)
        else:
            return self._jump(p, i)
        p.pc += 1
        return p

    def _reg(self, p: Path, r: int) -> Term:
        term = p.regs[r]
        if term is None:
            raise Unproved(f"insn {p.pc} reads a register whose value is not followed")
        return term

    def _constant(self, i: Instruction, pc: int) -> Term:
        following = self.insns[pc + 1]
        if i.src == op.BPF_PSEUDO_MAP_IDX:
            return ("map", i.imm)
        if i.src == op.BPF_PSEUDO_MAP_IDX_VALUE:
            return ("value", i.imm, ZERO, following.imm)
        if i.src:
            raise Unproved(f"insn {pc} takes the address of a function")
        return number(imm64(i, following))

    def _alu(self, p: Path, i: Instruction, bits: int) -> Term:
        what, source = op.bpf_op(i.code), op.bpf_src(i.code)
        right = self._reg(p, i.src) if source == op.BPF_X and what not in (op.BPF_END, op.BPF_NEG) else number(i.imm)
        if what == op.BPF_MOV and not i.off:
            return right if bits == 64 else low(right, 4)
        left = self._reg(p, i.dst) if what != op.BPF_MOV else ZERO
        if left[0] in ("stack", "ctx", "value") or right[0] in ("stack", "ctx", "value", "map"):
            return self._moved(p, what, left, right, bits)
        if is_number(left) and is_number(right):
            folded = fold(what, left[1], right[1], bits, i)
            if folded is not None:
                return number(folded)
        if what in (op.BPF_ADD, op.BPF_OR, op.BPF_XOR, op.BPF_LSH, op.BPF_RSH, op.BPF_SUB) and right == ZERO:
            return left if bits == 64 else low(left, 4)
        return ("op", what, bits, i.off, source if what == op.BPF_END else 0, left, right)

    def _moved(self, p: Path, what: int, left: Term, right: Term, bits: int) -> Term:
        """A pointer plus a number."""
        if what == op.BPF_ADD and is_number(left):
            left, right = right, left
        if bits != 64 or what not in (op.BPF_ADD, op.BPF_SUB) or not is_number(right) or left[0] == "map":
            raise Unproved(f"insn {p.pc} moves a pointer by what is not known")
        by = s64(right[1]) if what == op.BPF_ADD else -s64(right[1])
        return (*left[:-1], left[-1] + by)

    # --- memory ----------------------------------------------------------------------------------------------------------
    def _bytes(self, p: Path, at: Term, size: int) -> tuple[Term, ...]:
        """Bytes of the stack."""
        if at[0] != "stack":
            raise Unproved(f"insn {p.pc} takes bytes that are not on the stack")
        found = tuple(p.stack.get((at[1], at[2] + k), ZERO) for k in range(size))  # what was never written reads as zero
        if any(b[0] in ("pointer", "rest") for b in found):
            raise Unproved(f"insn {p.pc} takes a pointer apart")
        return found

    def _put(self, p: Path, at: Term, parts: tuple[Term, ...]) -> None:
        for k, b in enumerate(parts):
            p.stack[at[1], at[2] + k] = b

    def _load(self, p: Path, base: Term, i: Instruction) -> Term:
        size, off = SIZES[op.bpf_size(i.code)], i.off
        if base[0] == "stack":
            at = (base[0], base[1], base[2] + off)
            whole = p.stack.get((at[1], at[2]))
            rest = [p.stack.get((at[1], at[2] + k), ZERO) for k in range(1, size)]
            if size == 8 and whole is not None and whole[0] == "pointer" and rest == [("rest",)] * 7:
                term: Term = whole[1]
                return term
            found = joined(self._bytes(p, at, size))
        elif base[0] == "ctx":
            found = ("in", "ctx", base[1] + off, size)
        elif base[0] == "value":
            found = self._load_value(p, base, off, size)
        else:
            raise Unproved(f"insn {p.pc} loads from where is not known")
        return found if op.bpf_mode(i.code) != op.BPF_MEMSX else ("op", "sext", size, found)

    def _load_value(self, p: Path, base: Term, off: int, size: int) -> Term:
        _, index, key, at = base
        if index not in self.written:
            return ("in", "fixed", index, key, at + off, size)
        slot = (at + off, size)
        return ("load", index, key, *slot, len(p.effect((index, key)).added.get(slot, ())))

    def _store(self, p: Path, i: Instruction) -> None:
        base, size = self._reg(p, i.dst), SIZES[op.bpf_size(i.code)]
        if op.bpf_class(i.code) == op.BPF_STX and op.bpf_mode(i.code) == op.BPF_ATOMIC:
            self._atomic(p, i, base, size)
            return
        value = number(i.imm) if op.bpf_class(i.code) == op.BPF_ST else self._reg(p, i.src)
        if base[0] == "stack":
            at = ("stack", base[1], base[2] + i.off)
            if value[0] in ("stack", "ctx", "value", "map"):
                self._put(p, at, (("pointer", value), *([("rest",)] * 7)))
            else:
                self._put(p, at, tuple(byte_of(value, k) for k in range(size)))
            return
        if base[0] != "value":
            raise Unproved(f"insn {p.pc} stores to the context")
        self._store_value(p, base, i.off, size, value)

    def _store_value(self, p: Path, base: Term, off: int, size: int, value: Term) -> None:
        """A store that adds to what was loaded from the same place."""
        _, index, key, at = base
        if any(e.added for (other, k), e in p.effects.items() if other == index and k != key):
            raise Unproved(f"insn {p.pc} stores to map {self._name(index)} after adding to a value that may be the same")
        old = self._load_value(p, base, off, size)
        terms = summed(value, 8 * size)
        if old not in terms:
            raise Unproved(f"insn {p.pc} overwrites a value of map {self._name(index)}")
        terms.remove(old)
        self._add(p, index, key, (at + off, size), tuple(terms))

    def _atomic(self, p: Path, i: Instruction, base: Term, size: int) -> None:
        if base[0] != "value" or i.imm != op.BPF_ADD:
            fetches = i.imm & op.BPF_FETCH
            what = "uses the old value of an atomic operation" if fetches else "is an atomic operation that is no addition"
            raise Unproved(f"insn {p.pc} {what}")
        _, index, key, at = base
        self._add(p, index, key, (at + i.off, size), (self._reg(p, i.src),))

    def _add(self, p: Path, index: int, key: Term, slot: Slot, terms: tuple[Term, ...]) -> None:
        if any(loads_in(t) & self.written for t in terms):
            raise Unproved(f"insn {p.pc} adds what it read from a map")
        if any(t[0] in ("stack", "ctx", "value", "map") for t in terms):
            raise Unproved(f"insn {p.pc} keeps a pointer in a map")
        self.now_written.add(index)
        effect = p.effect((index, key))
        effect.added[slot] = (*effect.added.get(slot, ()), *terms)

    def _packet_load(self, p: Path, i: Instruction) -> None:
        size = SIZES[op.bpf_size(i.code)]
        off = number(s32(i.imm))
        if op.bpf_mode(i.code) == op.BPF_IND:
            x = self._reg(p, i.src)
            off = number(s32(x[1] + i.imm)) if is_number(x) else ("op", "ind", x, i.imm)
        self._pure(p, off)
        if self._ask(p, ("in packet", off, size)):
            p.regs[0] = ("in", "pkt", off, size)
            p.regs[1:6] = [None] * 5
        else:
            p.regs[0] = ZERO
            p.pc = self._exit_of(p)

    def _exit_of(self, p: Path) -> int:
        """A failed packet load leaves its function with 0; the pc before an exit."""
        exit_pc = next((pc for pc, i in enumerate(self.insns) if i.code == op.BPF_JMP | op.BPF_EXIT), -1)
        if p.frames:
            raise Unproved(f"insn {p.pc} loads from the packet in a function")
        return exit_pc - 1

    def _pure(self, p: Path, term: Term) -> Term:
        if loads_in(term) & self.written:
            raise Unproved(f"insn {p.pc} lets what it read from a map decide")
        return term

    def _ask(self, p: Path, question: Term) -> bool:
        """Whether it holds on this path; where that is open, another path goes the other way."""
        known = p.asked.get(question)
        if known is None:
            other = p.fork()
            other.asked[question] = False
            self.work.append(other)
            known = p.asked[question] = True
        return known

    # --- jumps and calls -------------------------------------------------------------------------------------------------
    def _jump(self, p: Path, i: Instruction) -> Path | None:
        what, cls = op.bpf_op(i.code), op.bpf_class(i.code)
        if what == op.BPF_CALL:
            self._call(p, i)
        elif what == op.BPF_EXIT:
            return self._exit(p)
        elif what == op.BPF_JA:
            p.pc += i.imm if cls == op.BPF_JMP32 else i.off
        elif what == op.BPF_JCOND:
            raise Unproved(f"insn {p.pc} is a may_goto")
        elif self._branch(p, i, what, 64 if cls == op.BPF_JMP else 32):
            p.pc += i.off
        p.pc += 1
        return p

    def _branch(self, p: Path, i: Instruction, what: int, bits: int) -> bool:
        left = self._reg(p, i.dst)
        right = self._reg(p, i.src) if op.bpf_src(i.code) == op.BPF_X else number(i.imm)
        if left[0] in ("value", "stack", "ctx", "map") and right == ZERO and what in (op.BPF_JEQ, op.BPF_JNE):
            return what == op.BPF_JNE
        if bits == 32:
            left, right = low(left, 4), low(right, 4)
        if is_number(left) and is_number(right):
            return compare(what, left[1], right[1], bits)
        self._pure(p, left)
        self._pure(p, right)
        return self._ask(p, ("branch", what, bits, left, right))

    def _exit(self, p: Path) -> Path | None:
        r0 = self._reg(p, 0)
        if not p.frames:
            p.r0 = self._pure(p, r0)
            self.done.append(p)
            return None
        back, saved = p.frames[-1]
        p.frames = p.frames[:-1]
        p.regs[1:6] = [None] * 5
        p.regs[6:11] = list(saved)
        p.pc = back
        return p

    def _call(self, p: Path, i: Instruction) -> None:
        if i.src == op.BPF_PSEUDO_CALL:
            p.frames = (*p.frames, (p.pc + 1, tuple(p.regs[6:11])))
            p.stack = {at: term for at, term in p.stack.items() if at[0] != len(p.frames)}
            p.regs[6:11] = [None, None, None, None, ("stack", len(p.frames), 0)]
            p.pc += i.imm
            return
        name = FUNC_NAMES.get(i.imm, "") if i.src == 0 else ""
        body = getattr(self, f"_call_{name}", None)
        if name in OF_PACKET:
            p.regs[0] = ("in", name)
        elif body is not None:
            body(p)
        else:
            known = HELPERS.get(i.imm)
            raise Unproved(f"insn {p.pc} calls {f'bpf_{known.name}' if known else 'a function'}")
        p.regs[1:6] = [None] * 5

    def _name(self, index: int) -> str:
        return repr(self.program.maps[index].spec.name)

    def _key(self, p: Path) -> Key:
        """The map in R1 and the key that R2 points to."""
        held = self._reg(p, 1)
        if held[0] != "map":
            raise Unproved(f"insn {p.pc} uses a map that was found in another")
        key = joined(self._bytes(p, self._reg(p, 2), self.program.maps[held[1]].spec.key_size))
        return int(held[1]), self._pure(p, key)

    def _call_map_lookup_elem(self, p: Path) -> None:
        index, key = self._key(p)
        spec = self.program.maps[index].spec
        there = ("value", index, key, 0)
        if spec.map_type in INDEXED:
            found = key[1] < spec.max_entries if is_number(key) else self._ask(p, ("index", index, key))
        elif spec.map_type not in HASHED:
            raise Unproved(f"insn {p.pc} looks into map {self._name(index)}, whose kind remembers who looked or is no table")
        elif index not in self.updated:
            found = self._ask(p, ("present", index, key))
        else:
            found = self._presence(p, index, key)
        p.last_looked[index] = key
        p.regs[0] = there if found else ZERO

    def _presence(self, p: Path, index: int, key: Term) -> bool:
        """Whether a key is there, which earlier packets decide: both are looked at."""
        effect = p.effect((index, key))
        if effect.made is not None:
            return True
        if effect.found is None:
            other = p.fork()
            other.effect((index, key)).found = False
            self.work.append(other)
            effect.found = True
        return effect.found

    def _call_map_update_elem(self, p: Path) -> None:
        index, key = self._key(p)
        spec, flags, effect = self.program.maps[index].spec, self._reg(p, 4), p.effect((index, key))
        if spec.map_type not in HASHED or flags not in (ZERO, number(1)):
            raise Unproved(f"insn {p.pc} overwrites a value of map {self._name(index)}")
        self.now_written.add(index)
        self.now_updated.add(index)
        if index in self.updated and (effect.found is not False or effect.made is not None or p.last_looked.get(index) != key):
            raise Unproved(f"insn {p.pc} overwrites a value of map {self._name(index)} if there is one")
        value = self._bytes(p, self._reg(p, 3), spec.value_size)
        for b in value:
            self._pure(p, b)
        effect.made = value
        p.regs[0] = ZERO  # that the map was not full is asked for when maps are merged

    def _call_skb_load_bytes(self, p: Path) -> None:
        offset, to, size = self._reg(p, 2), self._reg(p, 3), self._reg(p, 4)
        if not is_number(size) or to[0] != "stack":
            raise Unproved(f"insn {p.pc} copies a number of bytes that is not known")
        self._pure(p, offset)
        if self._ask(p, ("bytes in packet", offset, size)):
            self._put(p, to, tuple(("in", "skb", offset, k, 1) for k in range(size[1])))
            p.regs[0] = ZERO
        else:
            self._put(p, to, (ZERO,) * size[1])
            p.regs[0] = number(-errno.EFAULT)


def low(term: Term, size: int) -> Term:
    """The low bytes of a term."""
    if is_number(term):
        return number(term[1] & ((1 << 8 * size) - 1))
    return term if width_of(term) <= size else ("op", "low", size, term)


def summed(term: Term, bits: int) -> list[Term]:
    """The terms that a sum of at least so many bits is made of."""
    if term[0] == "op" and term[1] == op.BPF_ADD and term[2] >= bits:
        return [*summed(term[5], bits), *summed(term[6], bits)]
    return [term]


def fold(what: int, left: int, right: int, bits: int, i: Instruction) -> int | None:
    """An operation on two numbers, None for one that is left a term."""
    mask = (1 << bits) - 1
    left, right = left & mask, right & mask
    if what in (op.BPF_LSH, op.BPF_RSH):
        shift = right & bits - 1
        return (left << shift if what == op.BPF_LSH else left >> shift) & mask
    simple = {
        op.BPF_ADD: left + right, op.BPF_SUB: left - right, op.BPF_MUL: left * right, op.BPF_AND: left & right,
        op.BPF_OR: left | right, op.BPF_XOR: left ^ right,
    }  # fmt: skip
    return simple[what] & mask if what in simple and not i.off else None


def compare(what: int, left: int, right: int, bits: int) -> bool:
    """A conditional jump on two numbers."""
    a, b = (s64(left), s64(right)) if bits == 64 else (s32(left), s32(right))
    results = {
        op.BPF_JEQ: left == right, op.BPF_JNE: left != right, op.BPF_JGT: left > right, op.BPF_JGE: left >= right,
        op.BPF_JLT: left < right, op.BPF_JLE: left <= right, op.BPF_JSET: bool(left & right),
        op.BPF_JSGT: a > b, op.BPF_JSGE: a >= b,
        op.BPF_JSLT: a < b, op.BPF_JSLE: a <= b,
    }  # fmt: skip
    return results[what]
