"""Random calls of every helper a socket filter may get, each argument of a fitting kind most times and of any kind sometimes."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from netbpf.abi import arg_types as at
from netbpf.abi.helpers import HELPERS, HelperProto
from netbpf.isa.builders import (
    BPF_ADD,
    BPF_ALU64_IMM,
    BPF_ALU64_REG,
    BPF_AND,
    BPF_B,
    BPF_CALL_FUNC,
    BPF_DW,
    BPF_EXIT_INSN,
    BPF_JMP_IMM,
    BPF_JNE,
    BPF_LD_MAP_FD,
    BPF_LD_MAP_VALUE,
    BPF_LDX_MEM,
    BPF_MOV64_IMM,
    BPF_MOV64_REG,
    BPF_ST_MEM,
    BPF_STX_MEM,
    BPF_W,
    Insns,
    flatten,
)
from netbpf.isa.instruction import Instruction, encode

# name: (type, key bytes, value bytes, entries, flags)
_MAPS: dict[str, tuple[str, int, int, int, int]] = {
    "array": ("array", 4, 16, 4, 0),
    "hash": ("hash", 8, 16, 4, 0),
    "percpu": ("percpu_array", 4, 8, 2, 0),
    "progs": ("prog_array", 4, 4, 4, 0),
    "perf": ("perf_event_array", 4, 4, 2, 0),
    "queue": ("queue", 0, 8, 4, 0),
    "ring": ("ringbuf", 0, 0, 4096, 0),
    "trie": ("lpm_trie", 8, 8, 4, 1),
    "bloom": ("bloom_filter", 0, 8, 4, 0),
    "cgroups": ("cgroup_array", 4, 4, 2, 0),
    "readonly": ("array", 4, 16, 2, 0x80),
    "writeonly": ("array", 4, 16, 2, 0x100),
}
MAPS: dict[str, dict[str, Any]] = {
    name: {"type": kind, "key_size": key, "value_size": value, "max_entries": entries, "map_flags": flags}
    for name, (kind, key, value, entries, flags) in _MAPS.items()
}
MAPS["rodata"] = {
    "type": "array",
    "key_size": 4,
    "value_size": 32,
    "max_entries": 1,
    "map_flags": 0x80,
    "internal": ".rodata",
    "contents": {"00000000": b"%d hello\0".hex()},
}
_FITTING_MAP = {
    "tail_call": "progs",
    "perf_event_output": "perf",
    "perf_event_read": "perf",
    "perf_event_read_value": "perf",
    "map_push_elem": "queue",
    "map_pop_elem": "queue",
    "map_peek_elem": "queue",
    "ringbuf_output": "ring",
    "ringbuf_reserve": "ring",
    "ringbuf_query": "ring",
    "ringbuf_reserve_dynptr": "ring",
    "map_lookup_percpu_elem": "percpu",
    "current_task_under_cgroup": "cgroups",
}
GIVEN = [proto for proto in HELPERS.values() if proto.cap is not None]
VALUE_SLOT, RECORD_SLOT = -256, -200


class Calls:
    """A program being written: R6 the context, R7 a map value, R8 and R9 an unknown and a bounded number."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.insns: list[Instruction] = []
        self.relocs: list[list[Any]] = []

    def put(self, *items: Insns) -> None:
        self.insns += flatten(*items)

    def map(self, reg: int, name: str) -> None:
        self.relocs.append([len(self.insns), name])
        self.put(BPF_LD_MAP_FD(reg, 0))

    def value(self, reg: int, name: str, off: int) -> None:
        self.relocs.append([len(self.insns), name])
        self.put(BPF_LD_MAP_VALUE(reg, 0, off))

    def unless_null(self) -> None:
        self.put(BPF_JMP_IMM(BPF_JNE, 0, 0, 2), BPF_MOV64_IMM(0, 0), BPF_EXIT_INSN())

    def record(self, flags: int = 0) -> dict[str, Any]:
        return {
            "prog_type": "socket_filter",
            "flags": flags,
            "insns": encode(self.insns).hex(),
            "map_relocs": self.relocs,
            "maps": {name: MAPS[name] for name in {name for _, name in self.relocs}},
        }


def _stack(p: Calls, reg: int) -> None:
    p.put(BPF_MOV64_REG(reg, 10), BPF_ALU64_IMM(BPF_ADD, reg, p.rng.choice((-8, -16, -4, -24, -32, -40, -64, -512, -520, 0))))


def _moved_stack(p: Calls, reg: int) -> None:
    p.put(BPF_MOV64_REG(reg, 10), BPF_ALU64_IMM(BPF_ADD, reg, -32), BPF_ALU64_REG(BPF_ADD, reg, 9))


def _map_value(p: Calls, reg: int) -> None:
    p.put(BPF_MOV64_REG(reg, 7), BPF_ALU64_IMM(BPF_ADD, reg, p.rng.choice((0, 0, 0, 4, 8, 12, -4))))


def _moved_value(p: Calls, reg: int) -> None:
    p.put(BPF_MOV64_REG(reg, 7), BPF_ALU64_REG(BPF_ADD, reg, 9))


def _number(p: Calls, reg: int) -> None:
    p.put(BPF_MOV64_IMM(reg, p.rng.choice((0, 1, 2, 4, 8, 16, 24, 32, -1, 64, 512, 513, 1 << 29))))


KINDS: dict[str, Callable[[Calls, int], None]] = {
    "context": lambda p, reg: p.put(BPF_MOV64_REG(reg, 6)),
    "moved context": lambda p, reg: p.put(BPF_MOV64_REG(reg, 6), BPF_ALU64_IMM(BPF_ADD, reg, p.rng.choice((4, -4)))),
    "stack": _stack,
    "moved stack": _moved_stack,
    "map": lambda p, reg: p.map(reg, p.rng.choice(list(MAPS))),
    "value": _map_value,
    "moved value": _moved_value,
    "text": lambda p, reg: p.value(reg, "rodata", p.rng.choice((0, 0, 4, 31))),
    "number": _number,
    "bounded": lambda p, reg: p.put(BPF_MOV64_REG(reg, 9)),
    "unknown": lambda p, reg: p.put(BPF_MOV64_REG(reg, 8)),
    "nothing": lambda p, reg: None,
    "record": lambda p, reg: p.put(BPF_LDX_MEM(BPF_DW, reg, 10, RECORD_SLOT)),
    "socket": lambda p, reg: p.put(BPF_LDX_MEM(BPF_DW, reg, 6, 168)),
}
_MEMORY = ("stack", "stack", "value", "moved value", "record", "moved stack", "text")
FITTING: dict[int, tuple[str, ...]] = {
    at.ARG_PTR_TO_MAP_KEY: _MEMORY,
    at.ARG_PTR_TO_MAP_VALUE: _MEMORY,
    at.ARG_PTR_TO_MEM: _MEMORY,
    at.ARG_CONST_SIZE: ("number", "number", "bounded", "unknown"),
    at.ARG_CONST_SIZE_OR_ZERO: ("number", "number", "bounded", "unknown"),
    at.ARG_CONST_ALLOC_SIZE_OR_ZERO: ("number",),
    at.ARG_PTR_TO_CTX: ("context",) * 8 + ("moved context",),
    at.ARG_ANYTHING: ("number", "number", "bounded", "unknown", "value"),
    at.ARG_PTR_TO_RINGBUF_MEM: ("record",),
    at.ARG_PTR_TO_CONST_STR: ("text",),
    at.ARG_PTR_TO_DYNPTR: ("stack",),
    at.ARG_PTR_TO_SOCK_COMMON: ("socket",),
    at.ARG_PTR_TO_BTF_ID_SOCK_COMMON: ("socket",),
}


def _begin(p: Calls) -> None:
    """R6 to R9, and some of the stack written in several ways."""
    p.put(BPF_MOV64_REG(6, 1), BPF_LDX_MEM(BPF_W, 8, 6, 0), BPF_MOV64_REG(9, 8))
    p.put(BPF_ALU64_IMM(BPF_AND, 9, p.rng.choice((7, 8, 15, 31))))
    for off in (-8, -16, -24, -32):
        way = p.rng.randrange(8)
        if way < 4:
            p.put(BPF_ST_MEM(BPF_DW, 10, off, p.rng.choice((0, 0, 1, 5))))
        elif way < 7:
            p.put(BPF_STX_MEM(p.rng.choice((BPF_DW, BPF_DW, BPF_W, BPF_B)), 10, p.rng.choice((6, 8, 9)), off))
    p.put(BPF_ST_MEM(BPF_DW, 10, VALUE_SLOT, 0), BPF_MOV64_REG(2, 10), BPF_ALU64_IMM(BPF_ADD, 2, VALUE_SLOT))
    p.map(1, p.rng.choice(("array", "hash")))
    p.put(BPF_CALL_FUNC(1), BPF_MOV64_REG(7, 0))
    if p.rng.random() < 0.9:
        p.unless_null()


def _reserve(p: Calls) -> None:
    p.map(1, "ring")
    p.put(BPF_MOV64_IMM(2, p.rng.choice((8, 16, 24))), BPF_MOV64_IMM(3, 0), BPF_CALL_FUNC(131))
    p.put(BPF_STX_MEM(BPF_DW, 10, 0, RECORD_SLOT))
    if p.rng.random() < 0.85:
        p.unless_null()


def _call(p: Calls, proto: HelperProto) -> None:
    for i, kind in enumerate(proto.args):
        base = kind & 0xFF
        if p.rng.random() < 0.06:
            name = p.rng.choice(list(KINDS))
        elif base == at.ARG_CONST_MAP_PTR:
            p.map(i + 1, _FITTING_MAP.get(proto.name) or p.rng.choice(("array", "hash", "percpu", "readonly", "writeonly")))
            continue
        else:
            name = p.rng.choice(FITTING.get(base, tuple(KINDS)))
        KINDS[name](p, i + 1)
    p.put(BPF_CALL_FUNC(proto.id))


def random_calls(rng: random.Random) -> dict[str, Any]:
    """A record, in the form scripts/verifier_records reads, of a program that calls helpers."""
    p = Calls(rng)
    _begin(p)
    reserved = rng.random() < 0.3
    if reserved:
        _reserve(p)
    else:
        p.put(BPF_ST_MEM(BPF_DW, 10, RECORD_SLOT, 0))
    for _ in range(rng.choice((1, 1, 2, 3))):
        _call(p, rng.choice(GIVEN))
        after = rng.randrange(10)
        if after == 0:
            p.put(BPF_LDX_MEM(rng.choice((BPF_B, BPF_W, BPF_DW)), rng.choice((0, 1)), 10, rng.choice((-8, -16, -24, -32, -4))))
        elif after == 1:
            p.unless_null()
    if reserved and rng.random() < 0.8:
        p.put(BPF_LDX_MEM(BPF_DW, 1, 10, RECORD_SLOT), BPF_MOV64_IMM(2, 0), BPF_CALL_FUNC(rng.choice((132, 133))))
    p.put(BPF_MOV64_IMM(0, 0), BPF_EXIT_INSN())
    return p.record(rng.choice((0, 0, 8)))
