"""What the proof knows at one point of one path: registers, stack, frames, references. No rule lives here.

**Register and slot states are values.** A RegState or StackSlot that stands in a FuncState is never changed in place:
copy it, change the copy, put the copy back (``regs[i] = new``). So states share them freely: copying a FuncState copies
references, and two states that share an object are equal there (``a is b``) without a look. Whoever made a copy may
change it until it is stored. FuncState and VerifierState are the mutable objects, owned by the path being walked.

Names are the kernel's (struct bpf_reg_state, bpf_func_state, bpf_verifier_state).
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from netbpf.ints import S32_MAX, S32_MIN, S64_MAX, S64_MIN, U32_MAX, U64_MAX


class Tnum(NamedTuple):
    """Tracked number: bits known to be one in ``value``, unknown bits in ``mask``; both u64, ``value & mask == 0``."""

    value: int
    mask: int


TNUM_UNKNOWN: Final = Tnum(0, U64_MAX)
TNUM_ZERO: Final = Tnum(0, 0)

# --- enum bpf_reg_type: base types ------------------------------------------------------------------------------
NOT_INIT: Final = 0
SCALAR_VALUE: Final = 1
PTR_TO_CTX: Final = 2
CONST_PTR_TO_MAP: Final = 3
PTR_TO_MAP_VALUE: Final = 4
PTR_TO_MAP_KEY: Final = 5
PTR_TO_STACK: Final = 6
PTR_TO_PACKET_META: Final = 7
PTR_TO_PACKET: Final = 8
PTR_TO_PACKET_END: Final = 9
PTR_TO_FLOW_KEYS: Final = 10
PTR_TO_SOCKET: Final = 11
PTR_TO_SOCK_COMMON: Final = 12
PTR_TO_TCP_SOCK: Final = 13
PTR_TO_TP_BUFFER: Final = 14
PTR_TO_XDP_SOCK: Final = 15
PTR_TO_BTF_ID: Final = 16
PTR_TO_MEM: Final = 17
PTR_TO_ARENA: Final = 18
PTR_TO_BUF: Final = 19
PTR_TO_FUNC: Final = 20
CONST_PTR_TO_DYNPTR: Final = 21

# --- enum bpf_type_flag: modifiers, or-ed to a base type ---------------------------------------------------------
BPF_BASE_TYPE_BITS: Final = 8
BASE_TYPE_MASK: Final = (1 << BPF_BASE_TYPE_BITS) - 1
PTR_MAYBE_NULL: Final = 1 << 8
MEM_RDONLY: Final = 1 << 9
MEM_RINGBUF: Final = 1 << 10
MEM_USER: Final = 1 << 11
MEM_PERCPU: Final = 1 << 12
OBJ_RELEASE: Final = 1 << 13
PTR_UNTRUSTED: Final = 1 << 14
MEM_UNINIT: Final = 1 << 15
DYNPTR_TYPE_LOCAL: Final = 1 << 16
DYNPTR_TYPE_RINGBUF: Final = 1 << 17
MEM_FIXED_SIZE: Final = 1 << 18
MEM_ALLOC: Final = 1 << 19
PTR_TRUSTED: Final = 1 << 20
MEM_RCU: Final = 1 << 21
NON_OWN_REF: Final = 1 << 22
DYNPTR_TYPE_SKB: Final = 1 << 23
DYNPTR_TYPE_XDP: Final = 1 << 24
MEM_ALIGNED: Final = 1 << 25
MEM_WRITE: Final = 1 << 26
DYNPTR_TYPE_SKB_META: Final = 1 << 27

PTR_TO_MAP_VALUE_OR_NULL: Final = PTR_TO_MAP_VALUE | PTR_MAYBE_NULL


def base_type(t: int) -> int:
    return t & BASE_TYPE_MASK


def type_flag(t: int) -> int:
    return t & ~BASE_TYPE_MASK


def type_may_be_null(t: int) -> bool:
    return t & PTR_MAYBE_NULL != 0


# --- enum bpf_stack_slot_type: one per byte of a slot ------------------------------------------------------------
STACK_INVALID: Final = 0
STACK_SPILL: Final = 1
STACK_MISC: Final = 2
STACK_ZERO: Final = 3
STACK_DYNPTR: Final = 4
STACK_ITER: Final = 5
STACK_IRQ_FLAG: Final = 6

BPF_REG_SIZE: Final = 8
MAX_CALL_FRAMES: Final = 8
# in RegState.id: linked to the id's base at the constant distance `off`, added in 64 or in 32 bits
BPF_ADD_CONST64: Final = 1 << 31
BPF_ADD_CONST32: Final = 1 << 30
BPF_ADD_CONST: Final = BPF_ADD_CONST64 | BPF_ADD_CONST32


class RegState:
    """One register or spilled register. Bounds: smin/smax s64, umin/umax u64, s32_*/u32_* for the low half.

    ``ext`` holds the rare, kind-specific part and is immutable: (dynptr type, first_slot, dynptr_id), iterator state ...;
    None for most registers.
    """

    __slots__ = (
        "type",
        "off",
        "range",
        "map_ptr",
        "map_uid",
        "mem_size",
        "subprogno",
        "btf_id",
        "var_off",
        "smin_value",
        "smax_value",
        "umin_value",
        "umax_value",
        "s32_min_value",
        "s32_max_value",
        "u32_min_value",
        "u32_max_value",
        "id",
        "ref_obj_id",
        "frameno",
        "precise",
        "ext",
    )

    type: int
    off: int
    range: int
    map_ptr: Any  # a MapInfo of verifier.env
    map_uid: int
    mem_size: int
    subprogno: int
    btf_id: int
    var_off: Tnum
    smin_value: int
    smax_value: int
    umin_value: int
    umax_value: int
    s32_min_value: int
    s32_max_value: int
    u32_min_value: int
    u32_max_value: int
    id: int
    ref_obj_id: int
    frameno: int
    precise: bool
    ext: Any

    def __init__(self, type: int = NOT_INIT) -> None:
        self.type = type
        self.off = self.range = self.map_uid = self.mem_size = self.subprogno = self.btf_id = 0
        self.map_ptr = None
        self.var_off = TNUM_UNKNOWN
        self.smin_value, self.smax_value = S64_MIN, S64_MAX
        self.umin_value, self.umax_value = 0, U64_MAX
        self.s32_min_value, self.s32_max_value = S32_MIN, S32_MAX
        self.u32_min_value, self.u32_max_value = 0, U32_MAX
        self.id = self.ref_obj_id = self.frameno = 0
        self.precise = False
        self.ext = None

    def copy(self) -> RegState:
        """A private copy, free to be changed until it is stored in a state."""
        r = RegState.__new__(RegState)
        r.type = self.type
        r.off = self.off
        r.range = self.range
        r.map_ptr = self.map_ptr
        r.map_uid = self.map_uid
        r.mem_size = self.mem_size
        r.subprogno = self.subprogno
        r.btf_id = self.btf_id
        r.var_off = self.var_off
        r.smin_value = self.smin_value
        r.smax_value = self.smax_value
        r.umin_value = self.umin_value
        r.umax_value = self.umax_value
        r.s32_min_value = self.s32_min_value
        r.s32_max_value = self.s32_max_value
        r.u32_min_value = self.u32_min_value
        r.u32_max_value = self.u32_max_value
        r.id = self.id
        r.ref_obj_id = self.ref_obj_id
        r.frameno = self.frameno
        r.precise = self.precise
        r.ext = self.ext
        return r


class StackSlot(NamedTuple):
    """Eight bytes of stack: ``slot_type[i]`` is the STACK_* of the byte at fp - 8*(spi+1) + i; ``spilled_ptr`` is what a
    spill (or dynptr, iterator) left there, else a NOT_INIT register."""

    slot_type: bytes
    spilled_ptr: RegState


REG_NOT_INIT: Final = RegState(NOT_INIT)
SLOT_INVALID: Final = StackSlot(bytes(8), REG_NOT_INIT)


class RefState(NamedTuple):
    """An acquired reference or held lock. ``type`` is one of REF_TYPE_*."""

    type: int
    id: int
    insn_idx: int
    ptr: Any = None


REF_TYPE_PTR: Final = 2
REF_TYPE_IRQ: Final = 4
REF_TYPE_LOCK: Final = 8
REF_TYPE_RES_LOCK: Final = 16
REF_TYPE_RES_LOCK_IRQ: Final = 32


class FuncState:
    """One frame. ``stack[spi]`` covers fp-8*(spi+1) .. fp-8*spi; ``allocated_stack == 8 * len(stack)``."""

    __slots__ = (
        "regs",
        "stack",
        "callsite",
        "frameno",
        "subprogno",
        "async_entry_cnt",
        "callback_ret_range",
        "in_callback_fn",
        "in_async_callback_fn",
        "in_exception_callback_fn",
        "callback_depth",
    )

    def __init__(self, callsite: int, frameno: int, subprogno: int) -> None:
        self.regs: list[RegState] = [REG_NOT_INIT] * 11
        self.stack: list[StackSlot] = []
        self.callsite, self.frameno, self.subprogno = callsite, frameno, subprogno
        self.async_entry_cnt = 0
        self.callback_ret_range: tuple[int, int] = (0, 0)
        self.in_callback_fn = self.in_async_callback_fn = self.in_exception_callback_fn = False
        self.callback_depth = 0

    def copy(self) -> FuncState:
        f = FuncState.__new__(FuncState)
        f.regs = self.regs[:]
        f.stack = self.stack[:]
        f.callsite, f.frameno, f.subprogno = self.callsite, self.frameno, self.subprogno
        f.async_entry_cnt, f.callback_ret_range = self.async_entry_cnt, self.callback_ret_range
        f.in_callback_fn, f.in_async_callback_fn = self.in_callback_fn, self.in_async_callback_fn
        f.in_exception_callback_fn, f.callback_depth = self.in_exception_callback_fn, self.callback_depth
        return f


class VerifierState:
    """A whole machine state: frames, references, and where it stands in the exploration."""

    __slots__ = (
        "frame",
        "curframe",
        "refs",
        "active_locks",
        "active_preempt_locks",
        "active_irq_id",
        "active_lock_id",
        "active_lock_ptr",
        "active_rcu_lock",
        "speculative",
        "in_sleepable",
        "cleaned",
        "parent",
        "branches",
        "insn_idx",
        "first_insn_idx",
        "last_insn_idx",
        "jmp_history",
        "dfs_depth",
        "callback_unroll_depth",
        "may_goto_depth",
        "equal_state",
        "insn_hist_start",
        "hit_cnt",
        "miss_cnt",
        "in_free_list",
        "bt_done",
    )

    def __init__(self) -> None:
        self.frame: list[FuncState] = []
        self.curframe = 0
        self.refs: tuple[RefState, ...] = ()
        self.active_locks = self.active_preempt_locks = self.active_irq_id = self.active_lock_id = 0
        self.active_lock_ptr: Any = None
        self.active_rcu_lock = self.speculative = self.in_sleepable = self.cleaned = False
        self.parent: VerifierState | None = None
        self.branches = 0
        self.insn_idx = self.first_insn_idx = self.last_insn_idx = 0
        self.jmp_history: list[Any] = []
        self.dfs_depth = self.callback_unroll_depth = self.may_goto_depth = 0
        self.equal_state: VerifierState | None = None
        self.insn_hist_start = 0
        self.hit_cnt = self.miss_cnt = 0  # of a checkpoint: how often it pruned a path, how often it did not
        self.in_free_list = False
        self.bt_done: set[Any] | None = None  # precision's: what was chased back from where in this state's history

    def copy(self) -> VerifierState:
        """A state of its own, sharing registers and slots; ``jmp_history`` starts empty and ``branches`` at 0."""
        s = VerifierState.__new__(VerifierState)
        s.frame = [f.copy() for f in self.frame]
        s.curframe, s.refs = self.curframe, self.refs
        s.active_locks, s.active_preempt_locks = self.active_locks, self.active_preempt_locks
        s.active_irq_id, s.active_lock_id, s.active_lock_ptr = self.active_irq_id, self.active_lock_id, self.active_lock_ptr
        s.active_rcu_lock, s.speculative, s.in_sleepable = self.active_rcu_lock, self.speculative, self.in_sleepable
        s.cleaned, s.parent, s.branches = False, self.parent, 0
        s.insn_idx, s.first_insn_idx, s.last_insn_idx = self.insn_idx, self.first_insn_idx, self.last_insn_idx
        s.jmp_history = []
        s.dfs_depth, s.callback_unroll_depth = self.dfs_depth, self.callback_unroll_depth
        s.may_goto_depth, s.equal_state, s.insn_hist_start = self.may_goto_depth, self.equal_state, self.insn_hist_start
        s.hit_cnt = s.miss_cnt = 0
        s.in_free_list = False
        s.bt_done = None
        return s


def cur_func(state: VerifierState) -> FuncState:
    """The frame being executed."""
    return state.frame[state.curframe]
