"""Control flow and helpers without a kernel beside: calls, callbacks, tail calls, hooks, records, the trace buffer, batches."""

from __future__ import annotations

import errno
from collections.abc import Iterable

import pytest
from support.running import TCP_FRAME, loopback_skb, unproved

from netbpf.abi.helpers import FUNC_IDS
from netbpf.engine.interp import jump
from netbpf.engine.interp.engine import InterpEngine, InterpLoaded
from netbpf.engine.interp.machine import CLOBBERED
from netbpf.engine.interp.watch import Change, InsnCounts, StepRecorder, chain
from netbpf.env import SteppedEnv
from netbpf.errors import EngineFault
from netbpf.isa.instruction import Instruction as I
from netbpf.isa.opcodes import BPF_PSEUDO_FUNC, BPF_PSEUDO_MAP_IDX
from netbpf.maps.base import Map
from netbpf.maps.create import create
from netbpf.maps.perf_buffer import PerfBuffer
from netbpf.maps.spec import MapSpec
from netbpf.packet.batch import PacketBatch
from netbpf.packet.record import Record
from netbpf.packet.skbuff import SkBuff

HASH, ARRAY, PROG_ARRAY, PERF_EVENT_ARRAY, PERCPU_ARRAY, ARRAY_OF_MAPS, QUEUE, RINGBUF, BLOOM = 1, 2, 3, 4, 6, 12, 22, 27, 30
EXIT = I(0x95)
FETCH_R0 = I(0x79, 0, 10, -8)


def call(name: str) -> I:
    return I(0x85, imm=FUNC_IDS[name])


def mov(dst: int, imm: int) -> I:
    return I(0xB7, dst, imm=imm)


def map_ptr(reg: int, index: int = 0) -> tuple[I, I]:
    return I(0x18, reg, BPF_PSEUDO_MAP_IDX, 0, index), I(0)


def stack_ptr(reg: int, off: int) -> tuple[I, I]:
    return I(0xBF, reg, 10), I(0x07, reg, imm=off)


def load(insns: Iterable[I], maps: tuple[Map, ...] = (), env: SteppedEnv | None = None) -> InterpLoaded:
    return InterpEngine().load(unproved(tuple(insns), maps), env or SteppedEnv(5_000_000_007))


def run(insns: Iterable[I], maps: tuple[Map, ...] = ()) -> int:
    r0 = load(insns, maps).run_one(loopback_skb(TCP_FRAME))
    return r0 - (1 << 64) if r0 >> 63 else r0


# --- calls --------------------------------------------------------------------------------------------------------------
def test_a_call_keeps_r6_to_r10_and_passes_r1_to_r5() -> None:
    main = [
        mov(6, 6),
        mov(1, 1),
        mov(2, 2),
        I(0xBF, 9, 10),
        I(0x85, 0, 1, imm=5),
        I(0x0F, 0, 6),
        I(0x1D, 9, 10, 1),
        mov(0, -1),
        EXIT,
        EXIT,
    ]
    callee = [mov(6, 100), mov(9, 0), I(0xBF, 0, 1), I(0x0F, 0, 2), EXIT]
    assert run(main[:9] + callee) == 9


def test_an_indirect_call_takes_a_subprogram_or_a_helper() -> None:
    assert run([I(0x18, 3, BPF_PSEUDO_FUNC, 0, 4), I(0), I(0x8D, 3), I(0x07, 0, imm=1), EXIT, mov(0, 33), EXIT]) == 34
    assert run([mov(3, 5), I(0x8D, 3), EXIT]) == 5_000_000_007
    with pytest.raises(EngineFault, match="helper unknown#9999 has no body"):
        run([mov(3, 9999), I(0x8D, 3), EXIT])


def test_helpers_clobber_r1_to_r5() -> None:
    assert run([mov(3, 7), call("get_numa_node_id"), I(0xBF, 0, 3), EXIT]) == CLOBBERED[0] - (1 << 64)


# --- callbacks ------------------------------------------------------------------------------------------------------------
def loop_program(count: int, flags: int = 0, stop_at: int = 1000, *, is_sum: bool = False) -> list[I]:
    """bpf_loop over a callback that adds its index to the caller's stack; R0 is the helper's, or the sum."""
    result = FETCH_R0 if is_sum else I(0x05)
    return [
        I(0x7A, 10, 0, -8), mov(1, count), I(0x18, 2, BPF_PSEUDO_FUNC, 0, 7), I(0), *stack_ptr(3, -8), mov(4, flags),
        call("loop"), result, EXIT,
        I(0x79, 3, 2), I(0x0F, 3, 1), I(0x7B, 2, 3), mov(0, 0), I(0xA5, 1, 0, 1, stop_at), mov(0, 1), EXIT,
    ]  # fmt: skip


def test_loop_calls_back_with_the_index_until_it_is_told_to_stop() -> None:
    assert run(loop_program(10)) == 10
    assert run(loop_program(10, stop_at=3)) == 4
    assert run(loop_program(0)) == 0
    assert run(loop_program(5, is_sum=True)) == 10
    assert run(loop_program(10, flags=1)) == -errno.EINVAL
    assert run(loop_program((8 << 20) + 1)) == -errno.E2BIG


def each_program(flags: int = 0, stop: int = 0) -> list[I]:
    """bpf_for_each_map_elem: the callback sums keys and values into the caller's stack."""
    return [
        I(0x7A, 10, 0, -8), *map_ptr(1), I(0x18, 2, BPF_PSEUDO_FUNC, 0, 9), I(0), *stack_ptr(3, -8), mov(4, flags),
        call("for_each_map_elem"), I(0x67, 0, imm=32), I(0x79, 1, 10, -8), I(0x4F, 0, 1), EXIT,
        I(0x61, 5, 2), I(0x79, 1, 3), I(0x0F, 5, 1), I(0x79, 1, 4), I(0x0F, 1, 5), I(0x7B, 4, 1), mov(0, stop), EXIT,
    ]  # fmt: skip


def test_each_element_is_visited() -> None:
    array, table = create(MapSpec(ARRAY, 4, 8, 4)), create(MapSpec(HASH, 4, 8, 10))
    for i in range(4):
        array.memory[8 * i] = 10
        table.update(bytes([i + 1, 0, 0, 0]), bytes([100]) + bytes(7))
    assert run(each_program(), (array,)) == 4 << 32 | 40 + 6
    assert run(each_program(), (table,)) == 4 << 32 | 400 + 10
    assert run(each_program(stop=1), (array,)) == 1 << 32 | 10


def test_each_cpu_has_its_own_value() -> None:
    live = create(MapSpec(PERCPU_ARRAY, 4, 8, 1), n_cpus=3)
    lookup = [
        I(0x62, 10, 0, -4),
        *stack_ptr(2, -4),
        *map_ptr(1),
        call("map_lookup_elem"),
        I(0x15, 0, 0, 1),
        I(0x7A, 0, 0, 0, 7),
        EXIT,
    ]
    InterpEngine().load(unproved(tuple(lookup), (live,)), SteppedEnv(1, cpu=2)).run_one(loopback_skb(TCP_FRAME))
    assert live.lookup_user(bytes(4)) == bytes(16) + bytes([7]) + bytes(7)
    other = [I(0x62, 10, 0, -4), *stack_ptr(2, -4), *map_ptr(1), mov(3, 2), call("map_lookup_percpu_elem"), I(0x79, 0, 0), EXIT]
    assert run(other, (live,)) == 7
    other[5] = mov(3, 3)
    assert run([*other[:7], EXIT], (live,)) == 0


def test_may_goto_ends_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jump, "BPF_MAX_LOOPS", 100)
    assert run([mov(0, 0), I(0x07, 0, imm=1), I(0xE5, off=1), I(0x05, off=-3), EXIT]) == 101


# --- tail calls -----------------------------------------------------------------------------------------------------------
def tail_call(index: int, otherwise: int = -1) -> list[I]:
    return [*map_ptr(2), mov(3, index), call("tail_call"), mov(0, otherwise), EXIT]


def test_tail_calls_go_on_in_another_program_at_most_33_times() -> None:
    programs = create(MapSpec(PROG_ARRAY, 4, 4, 4))
    counter = create(MapSpec(ARRAY, 4, 8, 1))
    count = [I(0x62, 10, 0, -4), I(0xBF, 6, 1), *stack_ptr(2, -4), *map_ptr(1, 1), call("map_lookup_elem"), mov(1, 1)]
    again = unproved((*count, I(0xDB, 0, 1), I(0xBF, 1, 6), *tail_call(0, 5)), (programs, counter), prog_id=1)
    programs.put(bytes(4), again)  # type: ignore[attr-defined]  # a program array's own
    assert InterpEngine().load(again, SteppedEnv()).run_one(loopback_skb(TCP_FRAME)) == 5
    assert counter.memory[0] == 34
    assert run(tail_call(1), (programs,)) == -1
    assert run(tail_call(4), (programs,)) == -1


def test_a_tail_call_in_a_subprogram_returns_to_its_caller() -> None:
    programs = create(MapSpec(PROG_ARRAY, 4, 4, 1))
    programs.put(bytes(4), unproved((mov(0, 42), EXIT), prog_id=1))  # type: ignore[attr-defined]  # a program array's own
    assert run([I(0x85, 0, 1, imm=2), I(0x07, 0, imm=100), EXIT, *tail_call(0)], (programs,)) == 142


def test_a_fault_behind_a_tail_call_names_the_instruction_of_that_program() -> None:
    programs = create(MapSpec(PROG_ARRAY, 4, 4, 1))
    programs.put(bytes(4), unproved((mov(0, 1), I(0x79, 0, 10), EXIT), prog_id=1))  # type: ignore[attr-defined]  # its own
    with pytest.raises(EngineFault, match=r"insn 1 \(\(79\) r0 = \*\(u64 \*\)\(r10 \+0\)\)"):
        run(tail_call(0), (programs,))


# --- maps of other kinds --------------------------------------------------------------------------------------------------
def test_an_inner_map_is_found_and_used() -> None:
    inner_spec = MapSpec(ARRAY, 4, 8, 1)
    outer, inner = create(MapSpec(ARRAY_OF_MAPS, 4, 4, 2, inner=inner_spec)), create(inner_spec, map_id=3)
    inner.memory[0] = 99
    outer.put(bytes(4), inner)  # type: ignore[attr-defined]  # a map of maps' own

    def nested(key: int) -> list[I]:
        again = [I(0xBF, 1, 0), I(0x62, 10, 0, -4), *stack_ptr(2, -4), call("map_lookup_elem"), I(0x79, 0, 0), EXIT]
        return [
            I(0x62, 10, 0, -4, key),
            *stack_ptr(2, -4),
            *map_ptr(1),
            call("map_lookup_elem"),
            I(0x15, 0, 0, len(again) - 1),
            *again,
        ]

    assert run(nested(0), (outer,)) == 99
    assert run(nested(1), (outer,)) == 0


def test_queues_and_bloom_filters() -> None:
    queue, bloom = create(MapSpec(QUEUE, 0, 8, 1)), create(MapSpec(BLOOM, 0, 8, 10))
    push = [I(0x7A, 10, 0, -8, 5), *map_ptr(1), *stack_ptr(2, -8), mov(3, 0), call("map_push_elem"), EXIT]
    pop = [
        I(0x7A, 10, 0, -8, 1),
        *map_ptr(1),
        *stack_ptr(2, -8),
        call("map_pop_elem"),
        I(0x67, 0, imm=8),
        I(0x79, 1, 10, -8),
        I(0x4F, 0, 1),
        EXIT,
    ]
    assert [run(push, (queue,)), run(push, (queue,))] == [0, -errno.E2BIG]
    assert [run(pop, (queue,)), run(pop, (queue,))] == [5, -errno.ENOENT << 8]
    peek = [I(0x7A, 10, 0, -8, 5), *map_ptr(1), *stack_ptr(2, -8), call("map_peek_elem"), EXIT]
    assert [run(peek, (bloom,)), run(push, (bloom,)), run(peek, (bloom,))] == [-errno.ENOENT, 0, 0]


# --- records --------------------------------------------------------------------------------------------------------------
def reserve(size: int, *then: I) -> list[I]:
    return [
        *map_ptr(1),
        mov(2, size),
        mov(3, 0),
        call("ringbuf_reserve"),
        I(0x55, 0, 0, 1),
        EXIT,
        I(0xBF, 6, 0),
        *then,
        mov(0, 1),
        EXIT,
    ]


@pytest.mark.parametrize(("helper", "records"), [("ringbuf_submit", [b"\x07" + bytes(11)]), ("ringbuf_discard", [])])
def test_a_reserved_record_is_a_region_until_it_is_committed(helper: str, records: list[bytes]) -> None:
    ring = create(MapSpec(RINGBUF, 0, 0, 4096))
    end = (I(0xBF, 1, 6), mov(2, 0), call(helper))
    assert run(reserve(12, I(0x7A, 6, 0, 0, 7), I(0x62, 6, 0, 8), *end), (ring,)) == 1
    assert ring.consume() == records  # type: ignore[attr-defined]  # a ring buffer's own
    with pytest.raises(EngineFault, match=r"offset 12 of a record of the map with id 0 \(12 bytes\), 1 bytes past its end"):
        run(reserve(12, I(0x72, 6, 0, 12)), (create(MapSpec(RINGBUF, 0, 0, 4096)),))
    with pytest.raises(EngineFault, match="write of 1 bytes"):
        run(reserve(12, *end, I(0x72, 6, 0, 0)), (create(MapSpec(RINGBUF, 0, 0, 4096)),))
    assert run(reserve(5000), (ring,)) == 0


def test_ring_buffer_output_and_query() -> None:
    ring = create(MapSpec(RINGBUF, 0, 0, 4096))
    out = [I(0x7A, 10, 0, -8, 5), *map_ptr(1), *stack_ptr(2, -8), mov(3, 8), mov(4, 0), call("ringbuf_output"), EXIT]
    assert run(out, (ring,)) == 0
    assert run([*map_ptr(1), mov(2, 0), call("ringbuf_query"), EXIT], (ring,)) == 16
    out[6] = mov(4, 8)
    assert run(out, (ring,)) == -errno.EINVAL
    assert ring.consume() == [bytes([5]) + bytes(7)]  # type: ignore[attr-defined]  # a ring buffer's own


def test_perf_output_takes_bytes_of_the_packet() -> None:
    events = create(MapSpec(PERF_EVENT_ARRAY, 4, 4, 2))

    def out(flags_high: int) -> list[I]:
        return [
            I(0x7A, 10, 0, -8, 5), *map_ptr(2), I(0x18, 3, imm=-1), I(0, imm=flags_high), *stack_ptr(4, -8), mov(5, 8),
            call("perf_event_output"), EXIT,
        ]  # fmt: skip

    assert run(out(0), (events,)) == -errno.ENOENT
    buffer = PerfBuffer(cpu=0)
    events.put(bytes(4), buffer)  # type: ignore[attr-defined]  # a perf event array's own
    assert [run(out(0), (events,)), run(out(4), (events,)), run(out(59), (events,))] == [0, 0, -errno.EFAULT]
    samples = [record.raw for record in buffer.consume()]
    assert samples[0].startswith(bytes([5]) + bytes(7))
    assert samples[1].startswith(bytes([5]) + bytes(7) + TCP_FRAME[14:18])


# --- text and time --------------------------------------------------------------------------------------------------------
def test_trace_printk_writes_a_line_with_time_and_cpu() -> None:
    text = int.from_bytes(b"n=%d %x\0", "little")
    fmt = [I(0x18, 1, imm=_s32(text)), I(0, imm=_s32(text >> 32)), I(0x7B, 10, 1, -8), *stack_ptr(1, -8)]
    loaded = load([*fmt, mov(2, 8), mov(3, -5), mov(4, 255), call("trace_printk"), EXIT])
    assert loaded.run_one(loopback_skb(TCP_FRAME)) == len("n=-5 ff")
    (line,) = loaded.trace
    assert (line.ts_ns, line.cpu, line.text) == (5_000_000_007, 0, "n=-5 ff")
    assert str(line) == "[000]      5.000000: bpf_trace_printk: n=-5 ff"
    assert [entry.text for entry in loaded.trace.drain()] == ["n=-5 ff"]
    assert len(loaded.trace) == 0
    assert run([*fmt, mov(2, 7), call("trace_printk"), EXIT]) == -errno.EINVAL  # no NUL within 7 bytes


def _s32(v: int) -> int:
    return (v & 0xFFFF_FFFF ^ 0x8000_0000) - 0x8000_0000


@pytest.mark.parametrize(
    ("helper", "value"),
    [
        ("ktime_get_ns", 5_000_000_007), ("ktime_get_boot_ns", 5_000_000_007), ("ktime_get_tai_ns", 5_000_000_007),
        ("ktime_get_coarse_ns", 5_000_000_000), ("jiffies64", 1250), ("get_smp_processor_id", 0), ("get_numa_node_id", 0),
        ("get_current_pid_tgid", 0), ("get_current_uid_gid", 0), ("get_current_cgroup_id", 1), ("get_cgroup_classid", 0),
        ("get_socket_cookie", 0), ("get_socket_uid", 0),
    ],
)  # fmt: skip
def test_what_the_machine_tells(helper: str, value: int) -> None:
    assert run([call(helper), EXIT]) == value


def test_what_comes_from_a_wire_belongs_to_no_socket() -> None:
    skb = SkBuff(TCP_FRAME, len(TCP_FRAME), sk_cookie=5, sk_uid=1000)
    assert load([call("get_socket_uid"), EXIT]).run_one(skb) == 65534
    assert load([call("get_socket_cookie"), EXIT]).run_one(skb) == 0
    assert load([I(0x79, 0, 1, 168), EXIT]).run_one(skb) == 0
    skb.has_sk = True
    assert load([call("get_socket_uid"), EXIT]).run_one(skb) == 1000
    assert load([call("get_socket_cookie"), EXIT]).run_one(skb) == 5


def test_random_numbers_are_the_environments() -> None:
    expected = SteppedEnv(seed=9)
    loaded = load([call("get_prandom_u32"), EXIT], env=SteppedEnv(seed=9))
    assert [loaded.run_one(loopback_skb(TCP_FRAME)) for _ in range(5)] == [expected.random_u32() for _ in range(5)]


# --- hooks ----------------------------------------------------------------------------------------------------------------
COUNTDOWN = [mov(0, 3), I(0x07, 0, imm=-1), I(0x55, 0, 0, -2), EXIT]


def test_a_hook_sees_every_instruction_and_its_absence_none() -> None:
    loaded, counts, steps = load(COUNTDOWN), InsnCounts(), StepRecorder()
    loaded.watch(chain(counts, steps))
    loaded.run_one(loopback_skb(TCP_FRAME))
    loaded.watch(None)
    loaded.run_one(loopback_skb(TCP_FRAME))
    assert dict(counts.by_pc) == {0: 1, 1: 3, 2: 3, 3: 1}
    assert [step.pc for step in steps.steps] == [0, 1, 2, 1, 2, 1, 2, 3]
    changes = [changed for _, changed in steps.with_changes()]
    assert changes[:3] == [(Change(0, 3),), (Change(0, 2),), ()]


def test_a_hook_may_change_registers_and_sees_callbacks_and_tail_calls() -> None:
    loaded = load(COUNTDOWN)

    def hook(pc: int, regs: list[int]) -> None:
        if pc == 3:
            regs[0] = 77

    loaded.watch(hook)
    assert loaded.run_one(loopback_skb(TCP_FRAME)) == 77
    counts = InsnCounts()
    looping = load(loop_program(10))
    looping.watch(counts)
    looping.run_one(loopback_skb(TCP_FRAME))
    assert counts.by_pc[10] == 10
    programs = create(MapSpec(PROG_ARRAY, 4, 4, 1))
    target = unproved((mov(0, 42), EXIT), prog_id=1)
    programs.put(bytes(4), target)  # type: ignore[attr-defined]  # a program array's own
    steps = StepRecorder()
    jumping = load(tail_call(0), (programs,))
    jumping.watch(steps)
    jumping.run_one(loopback_skb(TCP_FRAME))
    assert [jumping.locate(step.pc) for step in list(steps.steps)[-2:]] == [(target, 0), (target, 1)]


# --- batches --------------------------------------------------------------------------------------------------------------
def test_a_batch_gives_verdicts_and_moves_the_clock() -> None:
    env = SteppedEnv()
    loaded = load([I(0xBF, 6, 1), call("ktime_get_ns"), EXIT], env=env)
    records = [Record(i + 1, ts, 72, TCP_FRAME) for i, ts in enumerate((0, 10, 72, 100))]
    records.append(Record(5, 7, 5, b"short"))  # no socket sees it
    out = loaded.run(PacketBatch.from_records(records))
    assert list(out.verdict) == [0, 10, 72, 100, 0]
    assert list(out.kept) == [0, 10, 72, 72, 0]
    assert list(out.trimmed) == [0, 1, 0, 0, 0]
