"""Every helper of a socket filter in native code, called by a program of its own: the same R0, maps, trace and stack bytes."""

from __future__ import annotations

import pytest
from support.engines import CHECKED, INTERP, NATIVE, run_loaded
from support.programs_of import loaded_program
from support.running import FRAMES, loopback_skb, unproved
from test_engine_tables import WITHOUT_BODY, of_socket_filters

from netbpf.abi.helpers import FUNC_IDS
from netbpf.engine.interp.engine import InterpEngine
from netbpf.env import SteppedEnv
from netbpf.errors import EngineFault
from netbpf.isa.instruction import Instruction as I
from netbpf.isa.instruction import Program
from netbpf.isa.opcodes import BPF_PSEUDO_FUNC, BPF_PSEUDO_MAP_IDX
from netbpf.maps.create import create
from netbpf.maps.spec import MapSpec
from netbpf.packet.skbuff import SkBuff
from netbpf.program import InsnFacts, Subprog, VerifiedProgram

BUF = "    r1 = r10\n    r1 += -64\n"
NO_ARGUMENTS = """
    get_current_ancestor_cgroup_id get_current_cgroup_id get_current_pid_tgid get_current_uid_gid get_numa_node_id
    get_prandom_u32 get_smp_processor_id jiffies64 ktime_get_boot_ns ktime_get_coarse_ns ktime_get_ns ktime_get_tai_ns
""".split()
ON_CONTEXT = ["get_cgroup_classid", "get_netns_cookie", "get_socket_cookie", "get_socket_uid"]
TEXTS = {
    **{name: f"    r1 = 0\n    call bpf_{name}\n    exit\n" for name in NO_ARGUMENTS},
    **{name: f"    call bpf_{name}\n    exit\n" for name in ON_CONTEXT},
    "get_current_comm": BUF + "    r2 = 16\n    call bpf_get_current_comm\n    r0 = *(u64 *)(r10 - 64)\n    exit\n",
    "get_ns_current_pid_tgid": "    r1 = 1\n    r2 = 1\n    r3 = r10\n    r3 += -64\n    r4 = 8\n"
    "    call bpf_get_ns_current_pid_tgid\n    exit\n",
    "skb_load_bytes_relative": "    r2 = 2\n    r3 = r10\n    r3 += -64\n    r4 = 8\n    r5 = 1\n"
    "    call bpf_skb_load_bytes_relative\n    r0 = *(u64 *)(r10 - 64)\n    exit\n",
    "skb_load_bytes": "    r2 = 2\n    r3 = r10\n    r3 += -64\n    r4 = 8\n"
    "    call bpf_skb_load_bytes\n    r0 = *(u64 *)(r10 - 64)\n    exit\n",
    **{
        name: BUF + f"    r2 = 8\n    r3 = 4096\n    call bpf_{name}\n    exit\n"
        for name in ("probe_read_kernel", "probe_read_kernel_str", "probe_read_user", "probe_read_user_str")
    },
    "trace_printk": "    r2 = 0x0a752520\n    *(u64 *)(r10 - 64) = r2\n" + BUF + "    r2 = 8\n    r3 = 77\n"
    "    call bpf_trace_printk\n    exit\n",
    **{
        name: "    r2 = 0x20373331\n    *(u64 *)(r10 - 64) = r2\n"
        + BUF
        + f"    r2 = 8\n    r3 = 0\n    r4 = r10\n    r4 += -8\n    call bpf_{name}\n    r0 = *(u64 *)(r10 - 8)\n    exit\n"
        for name in ("strtol", "strtoul")
    },
    "map_lookup_percpu_elem": ".map m percpu_array key=4 value=8 entries=4\n    *(u32 *)(r10 - 64) = 2\n    r1 = map[m]\n"
    "    r2 = r10\n    r2 += -64\n    r3 = 0\n    call bpf_map_lookup_percpu_elem\n    if r0 == 0 goto out\n    r1 = 5\n"
    "    *(u64 *)(r0 + 0) = r1\n    r0 = 9\nout:\n    exit\n",
    "perf_event_output": ".map m perf_event_array key=4 value=4 entries=1\n    r2 = map[m]\n    r3 = 0\n"
    "    *(u64 *)(r10 - 64) = 7\n    r4 = r10\n    r4 += -64\n    r5 = 8\n    call bpf_perf_event_output\n    exit\n",
}
ELSEWHERE = {  # in this file below, in test_native_maps.py, or in the programs of the vectors and the fuzzer
    "map_lookup_elem", "map_update_elem", "map_delete_elem", "map_push_elem", "map_pop_elem", "map_peek_elem", "ringbuf_output",
    "ringbuf_reserve", "ringbuf_submit", "ringbuf_discard", "ringbuf_query", "for_each_map_elem", "loop", "tail_call",
    "dynptr_data", "dynptr_from_mem", "dynptr_read", "dynptr_write", "ringbuf_reserve_dynptr", "ringbuf_submit_dynptr",
    "ringbuf_discard_dynptr", "kptr_xchg", "spin_lock", "spin_unlock", "snprintf", "trace_vprintk", "strncmp",
}  # fmt: skip


def test_every_helper_is_called_somewhere() -> None:
    assert set(of_socket_filters()) - WITHOUT_BODY == set(TEXTS) | ELSEWHERE


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_a_helper_does_what_it_does_in_the_interpreter(name: str) -> None:
    skbs = [loopback_skb(frame) for frame in FRAMES.values()]
    want = run_loaded(INTERP.load, loaded_program(TEXTS[name]), skbs)
    for engine in (NATIVE, CHECKED):
        assert run_loaded(engine.load, loaded_program(TEXTS[name]), skbs) == want


# --- callbacks and tail calls, whose programs no text of ours writes --------------------------------------------------------
def call(name: str) -> I:
    return I(0x85, imm=FUNC_IDS[name])


def callback_program(*, over_map: bool) -> Program:
    """bpf_loop(5, add, fp-8, 0), or bpf_for_each_map_elem(map 0, add, fp-8, 0); then R0 << 32 | the sum at fp-8."""
    func = 12 if over_map else 11
    first = [I(0x18, 1, BPF_PSEUDO_MAP_IDX), I(0)] if over_map else [I(0xB7, 1, imm=5)]
    at = 1 + len(first)
    main = [
        I(0x7A, 10, 0, -8), *first, I(0x18, 2, BPF_PSEUDO_FUNC, 0, func - at), I(0), I(0xBF, 3, 10), I(0x07, 3, imm=-8),
        I(0xB7, 4), call("for_each_map_elem" if over_map else "loop"), I(0x67, 0, imm=32), I(0x79, 1, 10, -8), I(0x4F, 0, 1),
        I(0x95),
    ]  # fmt: skip
    ctx = 4 if over_map else 2
    add = [I(0x79, 5, ctx), I(0x07, 5, imm=3), I(0x7B, ctx, 5), I(0xB7, 0), I(0x95)]
    assert len(main) == func + 1, len(main)
    return tuple(main[:func] + [main[func]] + add)


@pytest.mark.parametrize("kind", [0, 1, 2, 6, 9])
def test_callbacks(kind: int) -> None:
    insns = callback_program(over_map=bool(kind))
    spec = MapSpec(kind, 4, 8, 6, name="m")

    def program() -> VerifiedProgram:
        maps = (create(spec),) if kind else ()
        for key in (b"\1\0\0\0", b"\3\0\0\0"):
            for live in maps:
                live.update(key, bytes(8))
        start = next(pc for pc, i in enumerate(insns) if i.code == 0x95) + 1
        subprogs = (Subprog(0, start, 8), Subprog(start, len(insns), 0, "", True))
        facts = tuple(InsnFacts(seen=True) for _ in insns)
        return VerifiedProgram(insns, 1, maps, subprogs, facts)

    skbs = [loopback_skb(FRAMES["tcp"])]
    want = run_loaded(INTERP.load, program(), skbs)
    assert isinstance(want[0].r0, int)
    assert want[0].r0 & 0xFF
    for engine in (NATIVE, CHECKED):
        assert run_loaded(engine.load, program(), skbs) == want


def test_a_tail_call_goes_on_in_the_other_program_and_ends_after_33() -> None:
    def program() -> VerifiedProgram:
        progs = create(MapSpec(3, 4, 4, 3, name="progs"))
        counter = create(MapSpec(2, 4, 8, 1, name="counter"))
        body = (
            I(0xBF, 6, 1), I(0x18, 1, 2, 0, 1), I(0), I(0xB7, 2, imm=1), I(0xDB, 1, 2, 0, 0), I(0xBF, 1, 6),
            I(0x18, 2, BPF_PSEUDO_MAP_IDX), I(0), I(0xB7, 3, imm=1), call("tail_call"), I(0xB7, 0, imm=77), I(0x95),
        )  # fmt: skip
        body = tuple(i._replace(src=6) if i.code == 0x18 and i.src == 2 else i for i in body)
        made = VerifiedProgram(body, 1, (progs, counter), (Subprog(0, len(body), 0),), (), prog_id=9)
        progs.put(b"\1\0\0\0", made)  # type: ignore[attr-defined]
        return made

    skbs = [loopback_skb(FRAMES["tcp"])] * 2
    want = run_loaded(INTERP.load, program(), skbs)
    assert want[0].r0 == 77
    assert want[0].maps[1][0] == 34
    for engine in (NATIVE, CHECKED):
        assert run_loaded(engine.load, program(), skbs) == want


# --- faults -----------------------------------------------------------------------------------------------------------------
FAULTS = {
    "a load past the stack": (I(0x79, 0, 10, 8), I(0x95)),
    "a store below the stack": (I(0xBF, 2, 10), I(0x07, 2, imm=-600), I(0x7B, 2, 1, 0), I(0x95)),
    "a load from nowhere": (I(0xB7, 2, imm=64), I(0x79, 0, 2, 0), I(0x95)),
    "endless calls": (I(0x85, 0, 1, 0, 0), I(0x85, 0, 1, 0, -1), I(0x95)),
    "an endless loop": (I(0x05, off=-1), I(0x95)),
    "a run past the end": (I(0xB7, 0),),
    "a packet load without the context": (I(0xB7, 6), I(0x20), I(0x95)),
    "a field that is hidden": (I(0x61, 0, 1, 76), I(0x95)),
}


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_faults_name_the_instruction_that_the_interpreter_names(name: str) -> None:
    program, skb = unproved(FAULTS[name]), SkBuff(bytes(64), 64)
    pcs = []
    for engine in (InterpEngine(insn_limit=1000), NATIVE):
        loaded = engine.load(program, SteppedEnv())
        with pytest.raises(EngineFault) as fault:
            loaded.run_one(skb)
        pcs.append(fault.value.pc)
        assert fault.value.insn_text
    assert pcs[0] == pcs[1]
