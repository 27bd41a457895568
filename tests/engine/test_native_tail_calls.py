"""Tail calls in native code: both engines go the same way, whatever user space does to the array between packets."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.engines import (
    CHECKED,
    INTERP,
    NATIVE,
    Outcome,
    map_bytes,
    new_env,
    proved_program,
    random_chain,
    run_loaded,
    with_functions,
)
from support.running import TCP_FRAME, loopback_skb, unproved

from netbpf.abi.context import SK_BUFF_FIELDS
from netbpf.engine.interp.engine import InterpEngine
from netbpf.engine.llvm.engine import NativeEngine
from netbpf.engine.llvm.program import NativeProgram
from netbpf.errors import EngineFault, InternalError
from netbpf.host.loader import LoadedSpec, load_spec
from netbpf.host.sim.host import SimHost
from netbpf.isa.instruction import Instruction as I
from netbpf.maps.create import create
from netbpf.maps.spec import MapSpec
from netbpf.packet.batch import PacketBatch
from netbpf.packet.record import Record
from netbpf.sources.asm import parse

HEAD = """
.map progs prog_array key=4 value=4 entries=4 {{
{slots}}}
.map seen array key=4 value=8 entries=1
"""
COUNT = """
    r6 = r1
    *(u32 *)(r10 - 4) = 0
    r2 = r10
    r2 += -4
    r1 = map[seen]
    call bpf_map_lookup_elem
    if r0 == 0 goto out
    r7 = r0
    r1 = *(u64 *)(r0 + 0)
    r1 *= 3
    r1 += {add}
    *(u64 *)(r0 + 0) = r1
"""
JUMP = """
    r1 = r6
    r2 = map[progs]
    r3 = {index}
    call bpf_tail_call
"""
END = """
    r0 = *(u64 *)(r7 + 0)
    exit
out:
    r0 = 0
    exit
"""
LEAF = COUNT.format(add=7) + END


def text(main: str, **others: str) -> str:
    """``others``, put into the array from 0 on."""
    slots = "".join(f"    {n}: &{name}\n" for n, name in enumerate(others))
    return HEAD.format(slots=slots) + main + "".join(f"\n.program {name}\n{body}" for name, body in others.items())


def step(add: int, index: int | str) -> str:
    return COUNT.format(add=add) + JUMP.format(index=index) + END


class Running:
    """A text loaded on a host of its own, live on one engine."""

    def __init__(self, engine: Any, source: str) -> None:
        self.env = new_env()
        self.process = SimHost(env=self.env).process()
        self.fds: LoadedSpec = load_spec(self.process, with_functions(parse(source)))
        self.program = self.process.program(self.fds.prog_fd)
        self.loaded = engine.load(self.program, self.env)

    def run(self) -> Outcome:
        skb = loopback_skb(TCP_FRAME)
        try:
            r0: int | str = self.loaded.run_one(skb)
        except EngineFault as fault:
            r0 = f"{fault.pc}: {fault.insn_text}"
        lines = tuple(str(line) for line in self.loaded.trace.drain())
        maps = tuple(map_bytes(m) for m in self.program.maps)
        return Outcome(r0, maps, lines, bytes(skb.cb), (self.env.now_ns, self.env.rng_state))

    def put(self, index: int, name: str) -> None:
        fd = self.fds.other_fds[name]
        self.process.map_update_elem(self.fds.map_fds["progs"], index.to_bytes(4, "little"), fd.to_bytes(4, "little"))

    def delete(self, index: int) -> None:
        self.process.map_delete_elem(self.fds.map_fds["progs"], index.to_bytes(4, "little"))

    def load(self, name: str, body: str) -> None:
        """A further program, on the maps that are there."""
        from netbpf.host.loader import by_descriptor

        insns = parse(HEAD.format(slots="") + body).insns
        maps = list(self.fds.map_fds.values())
        self.fds.other_fds[name] = self.process.prog_load(by_descriptor(insns, maps), name=name)

    def unload(self, name: str) -> None:
        self.process.close(self.fds.other_fds.pop(name))


ENGINES: Any = (INTERP, NATIVE, CHECKED)


def same(source: str, play: Callable[[Running], None] = lambda r: None, runs: int = 2, engines: Any = ENGINES) -> list[Outcome]:
    """Both engines over ``runs`` packets, with ``play`` after each; what they gave."""
    found = []
    for engine in engines:
        running = Running(engine, source)
        outcomes = []
        for _ in range(runs):
            outcomes.append(running.run())
            play(running)
        found.append(outcomes)
    assert found[1] == found[0], "native"
    assert found[2] == found[0], "checked"
    return found[0]


@pytest.mark.parametrize("index", [0, 3, 4, -1])
def test_a_slot_that_holds_nothing_or_is_none_falls_through(index: int) -> None:
    (first, _) = same(text(step(1, index), leaf=LEAF))
    assert first.r0 == (10 if index == 0 else 1)


def test_a_chain_ends_in_its_last_program() -> None:
    (first, _) = same(text(step(1, 0), a=step(2, 1), b=step(3, 2), c=LEAF))
    assert first.r0 == ((1 * 3 + 2) * 3 + 3) * 3 + 7


def test_cycles_end_after_33_calls_and_begin_anew_with_each_packet() -> None:
    def play(r: Running) -> None:
        r.process.map_update_elem(r.fds.map_fds["seen"], bytes(4), bytes(8))

    outcomes = same(text(step(1, 0), a=step(2, 1), b=step(3, 0)), play)
    value = 1
    for n in range(33):
        value = (value * 3 + 2 + n % 2) % (1 << 64)
    assert [o.r0 for o in outcomes] == [value, value]


def test_an_index_from_the_packet() -> None:
    body = COUNT.format(add=1) + "    r0 = *(u8 *)skb[23]\n    r8 = r0\n" + JUMP.format(index="r8") + END
    same(text(body, **{f"p{n}": step(n, n + 1) for n in range(4)}))
    same(text(body.replace("r8 = r0", "r8 = r0\n    r8 &= 3"), **{f"p{n}": step(n, n + 1) for n in range(4)}))


def test_user_space_changes_the_array_between_packets() -> None:
    source = text(step(1, 2), a=step(2, 1), b=LEAF)
    steps = iter(range(3 * 12))

    def play(r: Running) -> None:
        n = next(steps) % 12
        if n < 6:
            r.put(2, ("a", "b")[n % 2])
        elif n == 6:
            r.delete(1)
        elif n == 7:
            r.load("later", step(9, 0))
            r.put(1, "later")
        elif n == 8:
            r.unload("later")  # the array still holds it
        elif n == 9:
            r.delete(2)
        elif n == 10:
            r.put(2, "a")

    outcomes = same(source, play, runs=12)
    assert len({o.maps[0] for o in outcomes}) >= 5


@pytest.fixture
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.usefixtures("own_cache")
def test_many_programs_come_and_go() -> None:
    """More than the table has rows, ids that fall on the same row, and none that is still called forgotten."""
    steps = iter(range(3 * 60))

    def play(r: Running) -> None:
        n = next(steps) % 60
        r.load(f"p{n}", step(2, 1 + n % 3))
        r.put(0, f"p{n}")
        r.unload(f"p{n}")

    engines = (INTERP, NativeEngine(), NativeEngine(checked=True))
    same(text(step(1, 0), leaf=LEAF, keep=step(5, 3)), play, 60, engines)


@pytest.mark.usefixtures("own_cache")
def test_programs_that_no_array_holds_are_forgotten() -> None:
    running = Running(NativeEngine(), text(step(1, 0), leaf=LEAF))
    for _ in range(60):
        running.load("next", step(3, 1))
        running.put(0, "next")
        running.unload("next")
        running.run()
    assert len(running.loaded._targets.members) < 25


SUBPROGRAM = """
    r6 = r1
    call sub
    r0 += {more}
    exit
sub:
    *(u64 *)(r10 - 8) = 5
    r6 = r1
{jump}
    r0 = 1000
    exit
"""


def test_in_a_subprogram_the_others_result_goes_to_the_caller() -> None:
    main = SUBPROGRAM.format(more=1, jump=JUMP.format(index=0))
    assert same(text(main, a=SUBPROGRAM.format(more=10, jump=JUMP.format(index=1)), b=LEAF))[0].r0 == 7 + 11


def test_functions_that_call_their_own_program_nest_33_deep() -> None:
    main = SUBPROGRAM.format(more=1, jump=JUMP.format(index=0))
    assert [o.r0 for o in same(text(main, a=main))] == [1034, 1034]


def test_in_a_callback_it_ends_the_callback() -> None:
    """No verifier lets it through; the engines agree all the same."""
    told = []
    for engine in (INTERP, NATIVE):
        programs: Any = create(MapSpec(3, 4, 4, 1))
        seen: Any = create(MapSpec(2, 4, 8, 1))
        count = (I(0x18, 7, 6, 0, 1), I(0), I(0xB7, 8, imm=1), I(0xDB, 7, 8), I(0x79, 0, 7), I(0x55, 0, off=1, imm=3), I(0x95))
        programs.put(bytes(4), unproved((*count, I(0xB7, 0), I(0x95)), (programs, seen), prog_id=2))
        loop = (I(0xB7, 1, imm=5), I(0x18, 2, 4, 0, 5), I(0), I(0xB7, 3), I(0xB7, 4), I(0x85, imm=181), I(0x95))
        callback = (I(0x18, 2, 5), I(0), I(0xB7, 3), I(0x85, imm=12), I(0xB7, 0, imm=1), I(0x95))
        loaded = engine.load(unproved((*loop, *callback), (programs, seen), prog_id=1), new_env())
        told.append([(loaded.run_one(loopback_skb(TCP_FRAME)), map_bytes(seen)) for _ in range(2)])
    assert told[0] == told[1]


def test_clock_random_numbers_cb_and_trace_are_shared() -> None:
    main = COUNT.format(add=1) + "    call bpf_get_prandom_u32\n    *(u32 *)(r6 + 48) = r0\n" + JUMP.format(index=0) + END
    other = (
        COUNT.format(add=2)
        + """
    r8 = *(u32 *)(r6 + 48)
    call bpf_get_prandom_u32
    r0 += r8
    *(u32 *)(r6 + 52) = r0
    *(u32 *)(r10 - 8) = 0x7825
    r1 = r10
    r1 += -8
    r2 = 3
    r3 = r8
    call bpf_trace_printk
    call bpf_ktime_get_ns
    *(u32 *)(r6 + 56) = r0
"""
        + JUMP.format(index=1)
        + END
    )
    third = COUNT.format(add=3) + "    call bpf_get_prandom_u32\n    *(u32 *)(r6 + 60) = r0\n" + END
    outcomes = same(text(main, a=other, b=third), runs=3)
    assert all(len(o.trace) == 1 for o in outcomes)


SOCKET = """
    r8 = *(u64 *)(r6 + 168)
    if r8 == 0 goto out
    r8 = *(u32 *)(r8 + 4)
    *(u64 *)(r7 + 0) = r8
"""
SAY = """
    *(u32 *)(r10 - 8) = 0x7825
    r1 = r10
    r1 += -8
    r2 = 3
    r3 = 5
    call bpf_trace_printk
"""


def test_a_target_that_runs_checked_may_read_the_packets_socket() -> None:
    """The first program, unchecked, has no regions until the other is met in the middle of its run."""
    outcomes = same(text(step(1, 0), a=COUNT.format(add=2) + SOCKET + SAY + END))
    assert all(o.r0 == 2 and o.trace for o in outcomes)


@pytest.mark.parametrize("checked_leaf", [False, True])
@pytest.mark.parametrize(("slot", "found"), [(8, 82), (400, 83)])
def test_the_other_program_goes_on_in_the_same_frame(slot: int, found: int, checked_leaf: bool) -> None:
    """As on the kernel, a privileged program that reads what it has not written finds what the others left there, else zero."""
    over = "    r0 = 0\n    exit\n"
    main = "    r6 = r1\n    *(u64 *)(r10 - 16) = 77\n    *(u64 *)(r10 - 256) = 5\n" + JUMP.format(index=0) + over
    between = f"    r6 = r1\n    *(u64 *)(r10 - {slot}) = 1\n" + JUMP.format(index=1) + over
    reads = "".join(f"    r1 = *(u64 *)(r10 - {at})\n    r9 += r1\n" for at in (16, 256, 400, 504))
    leaf = f"    r9 = 0\n{reads}{SAY if checked_leaf else ''}    r0 = r9\n    exit\n"
    assert [o.r0 for o in same(text(main, between=between, leaf=leaf))] == [found, found]


# --- faults -----------------------------------------------------------------------------------------------------------------
def _faulty(target: tuple[I, ...], hops: int) -> Any:
    """An unproved program that reaches ``target`` by ``hops`` further tail calls, in subprograms."""
    programs: Any = create(MapSpec(3, 4, 4, 4))
    maps = (programs, create(MapSpec(2, 4, 8, 1)))

    def hop(index: int) -> tuple[I, ...]:
        jump = (I(0x18, 2, 5), I(0), I(0xB7, 3, imm=index), I(0x85, imm=12), I(0xB7, 0, imm=1), I(0x95))
        return (I(0x85, 0, 1, imm=2), I(0x07, 0, imm=1), I(0x95), *jump)

    for n in range(hops):
        programs.put(n.to_bytes(4, "little"), unproved(hop(n + 1), maps, prog_id=n + 2))
    programs.put(hops.to_bytes(4, "little"), unproved(target, maps, prog_id=9))
    return unproved(hop(0), maps, prog_id=1)


FAULTS = {
    "a load past the stack": (I(0xBF, 6, 1), I(0x79, 0, 10, 8), I(0x95)),
    "a store through nothing": (I(0xB7, 2), I(0x7B, 2, 1), I(0x95)),
    "an endless loop": (I(0xB7, 0), I(0x05, off=-1), I(0x95)),
    "a helper without a body": (I(0xB7, 7, imm=9999), I(0x8D, 7), I(0x95)),
    "the tail call's number in a register": (I(0xB7, 7, imm=12), I(0x18, 2, 5), I(0), I(0xB7, 3), I(0x8D, 7), I(0x95)),
    "a tail call through nothing": (I(0xB7, 2), I(0xB7, 3), I(0x85, imm=12), I(0x95)),
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_fault_behind_tail_calls_is_told_as_the_interpreter_tells_it(what: str) -> None:
    told = []
    for engine in (InterpEngine(insn_limit=100_000), NATIVE):
        loaded = engine.load(_faulty(FAULTS[what], 2), new_env())
        for _ in range(2):
            with pytest.raises(EngineFault) as raised:
                loaded.run_one(loopback_skb(TCP_FRAME))
            told.append((raised.value.pc, raised.value.insn_text))
    assert len(set(told)) == 1


@pytest.mark.parametrize("field", ["mark", "tc_index", "priority", "tc_classid", "queue_mapping", "tstamp", "cb"])
def test_what_a_later_program_writes_to_the_context_is_gone_with_the_packet(field: str) -> None:
    at = next(f.off for f in SK_BUFF_FIELDS if f.name == field)
    size = "u64" if field == "tstamp" else "u32"
    word = f"*({size} *)(r6 + {at})"
    leaf = f".type sched_cls\n    r6 = r1\n    r0 = {word}\n    r2 = 5\n    {word} = r2\n    exit\n"
    source = ".type sched_cls\n" + text("    r6 = r1\n" + JUMP.format(index=0) + "    r0 = 9\n    exit\n", leaf=leaf)
    batch = PacketBatch.from_records([Record(n, n, 60, bytes(60), 1, 0, n % 3) for n in range(1, 9)])
    want, got, checked = (Running(engine, source).loaded.run(batch).verdict for engine in ENGINES)
    assert got == checked == want


def test_a_fault_behind_a_tail_call_ends_a_batch() -> None:
    loaded = NATIVE.load(_faulty(FAULTS["a store through nothing"], 1), new_env())
    batch = PacketBatch.from_records([Record(n, n, 60, bytes(60)) for n in range(1, 4)])
    for _ in range(2):
        with pytest.raises(EngineFault, match="a NULL pointer") as raised:
            loaded.run(batch)
        assert raised.value.pc == 1


def test_a_fault_in_a_cycle_names_the_program_that_failed() -> None:
    """The failing program runs twice at once, on the same Args: it calls the other, which calls it again."""
    told = []
    for engine in (INTERP, NATIVE):
        programs: Any = create(MapSpec(3, 4, 4, 2))
        maps = (programs, create(MapSpec(2, 4, 8, 1)))
        value = (I(0x18, 7, 6, 0, 1), I(0), I(0x79, 8, 7), I(0x07, 8, imm=1), I(0x7B, 7, 8), I(0xBF, 6, 1))

        def jump(index: int) -> tuple[I, ...]:
            return (I(0xBF, 1, 6), I(0x18, 2, 5), I(0), I(0xB7, 3, imm=index), I(0x85, imm=12), I(0x95))

        failing = (*value, I(0xA5, 8, off=2, imm=3), I(0x79, 0, 10, 64), I(0x95), I(0x85, 0, 1, imm=1), I(0x95), *jump(1))
        other = (I(0xBF, 6, 1), I(0x85, 0, 1, imm=1), I(0x95), *jump(0))
        programs.put(bytes(4), unproved(failing, maps, prog_id=2))
        programs.put(b"\1\0\0\0", unproved(other, maps, prog_id=3))
        loaded = engine.load(unproved(other, maps, prog_id=1), new_env())
        with pytest.raises(EngineFault) as raised:
            loaded.run_one(loopback_skb(TCP_FRAME))
        told.append((raised.value.pc, raised.value.insn_text))
    assert told[0] == told[1]
    assert told[0][0] == 7


def test_an_array_holds_loaded_programs_only() -> None:
    programs: Any = create(MapSpec(3, 4, 4, 1))
    with pytest.raises(InternalError):
        programs.put(bytes(4), unproved((I(0xB7, 0), I(0x95))))


# --- any programs ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(4))
def test_random_programs_that_reach_each_other(seed: int) -> None:
    """As scripts/engine_fuzz.py --chains has them, which tries more; the array changes between packets."""
    rng, engine = random.Random(seed), (NATIVE, CHECKED)[seed % 2]
    record = random_chain(rng)
    skbs = [loopback_skb(rng.randbytes(64)) for _ in range(20)]
    programs = [proved_program(record) for _ in range(2)]
    assert None not in programs
    want, got = (run_loaded(e.load, p, skbs) for e, p in zip((INTERP, engine), programs, strict=True) if p is not None)
    assert got == want


# --- no Python on the way -----------------------------------------------------------------------------------------------------
def test_python_is_asked_once_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    find = NativeProgram.find_target
    monkeypatch.setattr(NativeProgram, "find_target", lambda self, m, index: (asked.append(index), find(self, m, index))[1])
    running = Running(NATIVE, text(step(1, 0), a=step(2, 1), b=LEAF))
    for _ in range(5):
        running.run()
    running.put(2, "b")
    running.put(0, "b")
    running.run()
    assert asked == [0, 1]


@pytest.mark.usefixtures("own_cache")
def test_the_second_start_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    source = text(step(1, 0), a=step(2, 1), b=LEAF)
    first = Running(NativeEngine(), source).run()

    def compiled(*_: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr("netbpf.engine.llvm.program._compile", compiled)
    assert Running(NativeEngine(), source).run() == first
