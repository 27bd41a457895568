"""Helper calls in native code. A helper with a row in NATIVE is compiled; any other calls back into Python.

A call back stores R1..R5 in Args and calls ``i64 callback(ptr args, i64 helper id, i64 pc)``; it sets ``Args.fault`` when
Python failed, and the run ends there.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from netbpf.abi.classic import CLASSIC_FUNC_NAMES
from netbpf.abi.helpers import FUNC_IDS
from netbpf.engine.llvm.abi import ARGS, CALL_BACK_META
from netbpf.engine.llvm.lower import BPF_MAX_LOOPS, FUNC_TAG
from netbpf.engine.llvm.map_calls import MAP_CALLS, native_map
from netbpf.engine.llvm.packet_calls import PACKET_CALLS
from netbpf.engine.llvm.shape import ARRAYS, PER_CPU
from netbpf.engine.llvm.tail_calls import emit_tail_call
from netbpf.env import JIFFY_NS

if TYPE_CHECKING:
    from netbpf.engine.llvm.lower import SubprogLowerer


def emit_helper(s: SubprogLowerer, pc: int, func_id: int) -> None:
    """Call helper ``func_id`` with R1..R5; R0 is its result."""
    body = NATIVE.get(func_id)
    if body is None and not _has_body(func_id):
        raise s.unsupported(pc)
    if body is None or not body(s, pc):
        call_back(s, pc, func_id)


def _has_body(func_id: int) -> bool:
    from netbpf.engine.interp.helpers import BODIES

    return func_id in BODIES


def emit_call_register(s: SubprogLowerer, pc: int, register: int) -> None:
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


def _callees(s: SubprogLowerer) -> range:
    return range(1, len(s.owner.subprogs))


def call_back(s: SubprogLowerer, pc: int, func_id: int | str) -> None:
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


def arg(s: SubprogLowerer, name: str) -> str:
    """The value of an Args field."""
    s.owner.used_args.add(name)
    return s.f.load(64, s.f.gep("%a", ARGS[name]), 8)


# --- the world --------------------------------------------------------------------------------------------------------------
def _now(s: SubprogLowerer, pc: int) -> bool:
    s.set(0, arg(s, "now_ns"))
    return True


def _coarse(s: SubprogLowerer, pc: int) -> bool:
    now = arg(s, "now_ns")
    s.set(0, s.f.op(f"sub i64 {now}, {s.f.op(f'urem i64 {now}, {JIFFY_NS}')}"))
    return True


def _jiffies(s: SubprogLowerer, pc: int) -> bool:
    s.set(0, s.f.op(f"udiv i64 {arg(s, 'now_ns')}, {JIFFY_NS}"))
    return True


def _random(s: SubprogLowerer, pc: int) -> bool:
    """xorshift64*, the same steps as SteppedEnv.random_u32."""
    f = s.f
    x = arg(s, "rng_state")
    for shift, by in (("lshr", 12), ("shl", 25), ("lshr", 27)):
        x = f.op(f"xor i64 {x}, {f.op(f'{shift} i64 {x}, {by}')}")
    f.store(64, x, f.gep("%a", ARGS["rng_state"]), 8)
    s.set(0, f.op(f"lshr i64 {f.op(f'mul i64 {x}, {0x2545F4914F6CDD1D}')}, 32"))
    return True


def _cpu_id(s: SubprogLowerer, pc: int) -> bool:
    s.set(0, arg(s, "cpu_id"))
    return True


def _zero(s: SubprogLowerer, pc: int) -> bool:
    s.set(0, "0")
    return True


# --- callbacks of the program's own --------------------------------------------------------------------------------------
def _callback(s: SubprogLowerer, pc: int, register: int) -> int:
    """Index of the subprogram that R names, or -1."""
    known = s.known(pc, register)
    return s.owner.start_of[known.value] if known and known.kind == "func" else -1


def _loop(s: SubprogLowerer, pc: int) -> bool:
    """bpf_loop(nr, callback, ctx, flags): how often the callback ran, at most BPF_MAX_LOOPS."""
    target = _callback(s, pc, 2)
    if target < 0:
        raise s.unsupported(pc)
    f = s.f
    count = f.op(f"and i64 {s.get(1)}, 4294967295")
    ctx, flags = s.get(3), s.get(4)
    slot = f"%loop{pc}"
    f.lines.insert(2, f"  {slot} = alloca i64")
    begin, head, body, on, done = (f.fresh_label(n) for n in ("begin", "head", "body", "on", "done"))
    bad = f.select(f.op(f"icmp ne i64 {flags}, 0"), 64, str(-errno.EINVAL), str(-errno.E2BIG))
    s.set(0, bad)
    valid = f.op(f"and i1 {f.op(f'icmp eq i64 {flags}, 0')}, {f.op(f'icmp ule i64 {count}, {BPF_MAX_LOOPS}')}")
    f.cond(valid, begin, done)
    f.label(begin)
    f.store(64, "0", slot, 8)
    f.label(head)
    n = f.load(64, slot, 8)
    s.set(0, n)
    f.cond(f.op(f"icmp ult i64 {n}, {count}"), body, done)
    f.label(body)
    result = s.call_subprog(pc, target, [n, ctx])
    s.leave_on_fault()
    after = f.op(f"add i64 {n}, 1")
    f.store(64, after, slot, 8)
    s.set(0, after)
    f.cond(f.op(f"icmp eq i64 {result}, 0"), on, done)
    f.label(on)
    f.br(head)
    f.label(done)
    return True


def _for_each(s: SubprogLowerer, pc: int) -> bool:
    """bpf_for_each_map_elem(map, callback, ctx, flags) on array kinds: one call per index; others call back."""
    m, target = native_map(s, pc, ARRAYS), _callback(s, pc, 2)
    if m is None or m.number < 0 or target < 0:
        return False
    f = s.f
    ctx, flags = s.get(3), s.get(4)
    key, per_cpu = f"%each{pc}", m.spec.map_type in PER_CPU
    f.lines.insert(2, f"  {key} = alloca i64")
    begin, head, body, on, done = (f.fresh_label(n) for n in ("begin", "head", "body", "on", "done"))
    cpu = arg(s, "cpu_id") if per_cpu else "0"
    s.set(0, str(-errno.EINVAL))
    f.cond(f.op(f"icmp eq i64 {flags}, 0"), begin, done)
    f.label(begin)
    f.store(64, "0", key, 8)
    f.label(head)
    n = f.load(64, key, 8)
    s.set(0, n)
    f.cond(f.op(f"icmp ult i64 {n}, {m.spec.max_entries}"), body, done)
    f.label(body)
    value = f.op(f"call i64 @lookup{m.suffix}(ptr {m.base}, ptr {key}, i64 {cpu})")
    result = s.call_subprog(pc, target, [s.map_handle(m.number), f.op(f"ptrtoint ptr {key} to i64"), value, ctx])
    s.leave_on_fault()
    after = f.op(f"add i64 {n}, 1")
    f.store(64, after, key, 8)
    s.set(0, after)
    f.cond(f.op(f"icmp eq i64 {result}, 0"), on, done)
    f.label(on)
    f.br(head)
    f.label(done)
    return True


def _id(name: str) -> int:
    return FUNC_IDS[name]


NATIVE: Final[dict[int, Callable[[SubprogLowerer, int], bool]]] = {
    **{_id(name): body for name, body in MAP_CALLS.items()},
    **{_id(name): body for name, body in PACKET_CALLS.items()},
    _id("ktime_get_ns"): _now,
    _id("ktime_get_boot_ns"): _now,
    _id("ktime_get_tai_ns"): _now,
    _id("ktime_get_coarse_ns"): _coarse,
    _id("jiffies64"): _jiffies,
    _id("get_prandom_u32"): _random,
    _id("get_smp_processor_id"): _cpu_id,
    _id("get_numa_node_id"): _zero,
    _id("tail_call"): emit_tail_call,
    _id("loop"): _loop,
    _id("for_each_map_elem"): _for_each,
}
