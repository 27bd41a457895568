"""Helper calls in native code. A helper with a row in NATIVE is compiled; any other calls back into Python.

A call back stores R1..R5 in Args and calls ``i64 callback(ptr args, i64 helper id, i64 pc)``; it sets ``Args.fault`` when
Python failed, and the run ends there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from netbpf.abi.classic import CLASSIC_FUNC_NAMES
from netbpf.abi.helpers import FUNC_IDS
from netbpf.engine.interp.helpers.tasks import ROOT_CGROUP_ID
from netbpf.engine.llvm.abi import ARGS, CALL_BACK_META
from netbpf.engine.llvm.callbacks import CALLBACKS
from netbpf.engine.llvm.map_calls import MAP_CALLS
from netbpf.engine.llvm.memory_calls import MEMORY_CALLS
from netbpf.engine.llvm.packet_calls import PACKET_CALLS
from netbpf.engine.llvm.ring_calls import RING_CALLS
from netbpf.engine.llvm.subprog import FUNC_TAG
from netbpf.engine.llvm.tail_calls import emit_tail_call
from netbpf.env import JIFFY_NS

if TYPE_CHECKING:
    from netbpf.engine.llvm.subprog import SubprogCode


def emit_helper(s: SubprogCode, pc: int, func_id: int) -> None:
    """Call helper ``func_id`` with R1..R5; R0 is its result."""
    body = NATIVE.get(func_id)
    if body is None and not _has_body(func_id):
        raise s.unsupported(pc)
    if body is None or not body(s, pc):
        call_back(s, pc, func_id)


def _has_body(func_id: int) -> bool:
    from netbpf.engine.interp.helpers import BODIES

    return func_id in BODIES


def emit_call_register(s: SubprogCode, pc: int, register: int) -> None:
    """Call what a register holds: a subprogram's name, or the number of a helper, which Python finds."""
    f, held = s.f, s.get(register)
    done, helper = f.fresh_label("called"), f.fresh_label("helper")
    f.do(f"switch i64 {held}, label %{helper} [ {' '.join(f'i64 {FUNC_TAG | k}, label %callee{pc}_{k}' for k in _callees(s))} ]")
    f.open = False
    for k in _callees(s):
        f.label(f"callee{pc}_{k}")
        s.set(0, s.call_subprog(pc, k, [s.get(r) for r in range(1, 6)]))
        s.leave_on_fault()
        f.br(done)
    f.label(helper)
    call_back(s, pc, held)
    f.label(done)


def _callees(s: SubprogCode) -> range:
    return range(1, len(s.owner.subprogs))


def call_back(s: SubprogCode, pc: int, func_id: int | str) -> None:
    f = s.f
    s.owner.called_back = s.owner.wants_flat = True
    if func_id in CLASSIC_FUNC_NAMES:  # these look at more of the sk_buff than its bytes
        s.owner.used_meta.update(CALL_BACK_META)
    for r in range(1, 6):
        f.store(64, s.get(r), f.gep("%a", ARGS[f"r{r}"]), 8)
    f.store(64, "%cap", f.gep("%a", ARGS["skb_cap"]), 8)
    f.store(64, "%len", f.gep("%a", ARGS["skb_len"]), 8)
    f.store(64, f.op("ptrtoint ptr %pkt to i64"), f.gep("%a", ARGS["skb_pkt"]), 8)
    f.store(64, f.op("ptrtoint ptr %meta to i64"), f.gep("%a", ARGS["meta"]), 8)
    target = f.op(f"load ptr, ptr {f.gep('%a', ARGS['callback'])}, align 8")
    s.set(0, f.op(f"call i64 {target}(ptr %a, i64 {func_id}, i64 {pc})"))
    s.leave_on_fault()


def arg(s: SubprogCode, name: str) -> str:
    """The value of an Args field."""
    s.owner.used_args.add(name)
    return s.f.load(64, s.f.gep("%a", ARGS[name]), 8)


# --- the world --------------------------------------------------------------------------------------------------------------
def _now(s: SubprogCode, pc: int) -> bool:
    s.set(0, arg(s, "now_ns"))
    return True


def _coarse(s: SubprogCode, pc: int) -> bool:
    now = arg(s, "now_ns")
    s.set(0, s.f.op(f"sub i64 {now}, {s.f.op(f'urem i64 {now}, {JIFFY_NS}')}"))
    return True


def _jiffies(s: SubprogCode, pc: int) -> bool:
    s.set(0, s.f.op(f"udiv i64 {arg(s, 'now_ns')}, {JIFFY_NS}"))
    return True


def _random(s: SubprogCode, pc: int) -> bool:
    """xorshift64*, the same steps as SteppedEnv.random_u32."""
    f = s.f
    x = arg(s, "rng_state")
    for shift, by in (("lshr", 12), ("shl", 25), ("lshr", 27)):
        x = f.op(f"xor i64 {x}, {f.op(f'{shift} i64 {x}, {by}')}")
    f.store(64, x, f.gep("%a", ARGS["rng_state"]), 8)
    s.set(0, f.op(f"lshr i64 {f.op(f'mul i64 {x}, {0x2545F4914F6CDD1D}')}, 32"))
    return True


def _cpu_id(s: SubprogCode, pc: int) -> bool:
    s.set(0, arg(s, "cpu_id"))
    return True


def _zero(s: SubprogCode, pc: int) -> bool:
    s.set(0, "0")
    return True


def _root_cgroup(s: SubprogCode, pc: int) -> bool:
    s.set(0, str(ROOT_CGROUP_ID))
    return True


def _id(name: str) -> int:
    return FUNC_IDS[name]


NATIVE: Final[dict[int, Callable[[SubprogCode, int], bool]]] = {
    **{_id(name): body for name, body in MAP_CALLS.items()},
    **{_id(name): body for name, body in RING_CALLS.items()},
    **{_id(name): body for name, body in CALLBACKS.items()},
    **{_id(name): body for name, body in MEMORY_CALLS.items()},
    **{_id(name): body for name, body in PACKET_CALLS.items()},
    _id("ktime_get_ns"): _now,
    _id("ktime_get_boot_ns"): _now,
    _id("ktime_get_tai_ns"): _now,
    _id("ktime_get_coarse_ns"): _coarse,
    _id("jiffies64"): _jiffies,
    _id("get_prandom_u32"): _random,
    _id("get_smp_processor_id"): _cpu_id,
    _id("get_numa_node_id"): _zero,
    _id("get_current_pid_tgid"): _zero,
    _id("get_current_uid_gid"): _zero,
    _id("get_cgroup_classid"): _zero,
    _id("get_current_cgroup_id"): _root_cgroup,
    _id("tail_call"): emit_tail_call,
}
