"""The one mutable object of a verification (struct bpf_verifier_env), what goes in and what comes out. No rule lives here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from netbpf.btf import Btf
from netbpf.isa.instruction import Instruction, Program
from netbpf.maps.base import Map
from netbpf.maps.spec import MapSpec
from netbpf.program import VerifiedProgram
from netbpf.verifier.state import VerifierState

BPF_LOG_LEVEL1 = 1
BPF_LOG_LEVEL2 = 2
BPF_LOG_STATS = 4
BPF_LOG_LEVEL = BPF_LOG_LEVEL1 | BPF_LOG_LEVEL2
BPF_COMPLEXITY_LIMIT_INSNS = 1_000_000
BPF_COMPLEXITY_LIMIT_JMP_SEQ = 8192
BPF_COMPLEXITY_LIMIT_STATES = 64
BPF_MAXINSNS = 4096
BPF_MAX_SUBPROGS = 256


class Reject(Exception):
    """The program is refused with ``errno`` (positive). The reason was already written to the log with ``verbose``.

    ``insn_idx`` names the instruction where no path is being walked. Internal to the verifier: ``check.verify`` turns it into a
    VerifierResult.
    """

    def __init__(self, errno: int, insn_idx: int | None = None) -> None:
        super().__init__(errno)
        self.errno, self.insn_idx = errno, insn_idx


@dataclass(frozen=True, slots=True)
class Privileges:
    """What the loading process may do, as bpf_check derives it: ``bpf_capable`` (CAP_BPF), and what CAP_PERFMON gives.

    CAP_SYS_ADMIN implies both. See ``Privileges.from_caps``.
    """

    bpf_capable: bool = True
    allow_ptr_leaks: bool = True
    allow_uninit_stack: bool = True
    bypass_spec_v1: bool = True
    bypass_spec_v4: bool = True

    @classmethod
    def from_caps(cls, cap_bpf: bool, cap_perfmon: bool) -> Privileges:
        return cls(cap_bpf, cap_perfmon, cap_perfmon, cap_perfmon, cap_perfmon)


@dataclass(eq=False, slots=True)
class MapInfo:
    """A map as the verifier sees it: ``spec`` and what the program can reach through it. Compared by identity.

    ``map`` is the live map when there is one (None when only asking for a verdict). ``log_name`` is what the log prints
    after ``map=``. ``frozen`` and ``contents`` (bytes of a frozen read-only array's single value area) let loads from
    read-only data become constants. ``btf_record`` holds what BTF told of a value: spin lock, timer ... offsets by name.
    """

    spec: MapSpec
    index: int = 0
    map: Map | None = None
    frozen: bool = False
    contents: bytes | None = None
    inner: MapInfo | None = None
    btf_record: dict[str, int] = field(default_factory=dict)
    address: int = 0
    bypass_spec_v1: bool | None = None  # whether its creator had CAP_PERFMON; None: as the loader

    @property
    def log_name(self) -> str:
        return self.spec.name


@dataclass(slots=True)
class LoadRequest:
    """BPF_PROG_LOAD after the syscall resolved its pointers and descriptors.

    In ``insns`` every map reference is BPF_PSEUDO_MAP_FD/IDX (or _VALUE) with an imm that is a key of ``fd_maps`` (for FD)
    or an index of ``fd_array_maps`` (for IDX). An fd that is not a map is a key with value None: the verifier words that error.
    """

    insns: Program
    prog_type: int = 1
    license_gpl: bool = True
    prog_flags: int = 0
    expected_attach_type: int = 0
    log_level: int = 0
    name: str = ""
    privileges: Privileges = field(default_factory=Privileges)
    fd_maps: dict[int, MapInfo | None] = field(default_factory=dict)
    fd_array_maps: tuple[MapInfo | None, ...] = ()
    fd_array: tuple[int, ...] = ()  # descriptors, keys of fd_maps, that IDX counts in; in place of fd_array_maps
    nr_cpu_ids: int = 2  # bounds what bpf_get_smp_processor_id may return
    btf: bytes = b""
    func_info: tuple[tuple[int, int], ...] = ()
    line_info: tuple[tuple[int, int, int, int], ...] = ()
    classic: bool = False  # a translated classic filter: it may call what abi.classic_helpers lists


@dataclass(slots=True)
class Stats:
    """The numbers of the log's last lines."""

    insn_processed: int = 0
    max_states_per_insn: int = 0
    total_states: int = 0
    peak_states: int = 0
    longest_mark_read_walk: int = 0
    verification_ns: int = 0
    stack_depths: tuple[int, ...] = ()


@dataclass(slots=True)
class VerifierResult:
    """``errno`` 0 and ``program`` set, or a positive errno, and the reason in ``log`` and ``diagnosis``.

    ``diagnosis`` is JSON-ready: kind, insn, register, message, path, registers, hint.
    """

    errno: int
    log: str
    stats: Stats
    program: VerifiedProgram | None = None
    diagnosis: dict[str, Any] | None = None


class InsnAux:
    """What is known of one instruction (struct bpf_insn_aux_data); the source of ``program.InsnFacts``.

    Found before the walk: ``prune_point``, ``jmp_point``, ``force_checkpoint``, ``calls_callback`` (control flow),
    ``live_regs_before`` (mask), ``scc`` (loop number), ``map_index`` and ``map_off`` (LD_IMM64), fastcall marks. Found by
    the walk: the rest. ``ptr_type``: NOT_INIT until an access is seen, then the register type. ``facts_kind``: base kind of
    the pointer (state.PTR_TO_*), -1 where paths differ. ``seen``: how often walked, speculatively or not.
    """

    __slots__ = (
        "alu_state",
        "alu_limit",
        "calls_callback",
        "call_with_percpu_alloc_ptr",
        "const_key",
        "differs_at",
        "facts_kind",
        "facts_map",
        "fastcall_pattern",
        "fastcall_spills_num",
        "force_checkpoint",
        "jmp_point",
        "live_numbers",
        "live_regs_before",
        "loop_inline",
        "map_index",
        "map_key_state",
        "map_off",
        "map_ptr",
        "map_ptr_state",
        "map_ptr_unpriv",
        "nospec",
        "nospec_result",
        "prune_point",
        "ptr_type",
        "sanitize_stack_spill",
        "scc",
        "seen",
        "stack_off",
        "storage",
        "zext_dst",
    )

    def __init__(self) -> None:
        self.alu_state = self.alu_limit = 0
        self.calls_callback = self.force_checkpoint = self.jmp_point = self.prune_point = False
        self.call_with_percpu_alloc_ptr = False
        self.const_key: int | None = None
        self.differs_at = 0  # prune's: the register that last told two states here apart
        self.facts_kind = 0
        self.facts_map = -1
        self.fastcall_pattern = False
        self.fastcall_spills_num = 0
        self.live_numbers: tuple[int, ...] | None = None  # the same, one by one
        self.live_regs_before = 0
        self.loop_inline: Any = None
        self.map_index = -1
        self.map_key_state: Any = 0
        self.map_off = 0
        self.map_ptr: MapInfo | None = None
        self.map_ptr_state: Any = 0
        self.map_ptr_unpriv = False  # that map was created without CAP_PERFMON
        self.nospec = self.nospec_result = False
        self.ptr_type = 0
        self.sanitize_stack_spill = False
        self.scc = 0
        self.seen = 0
        self.stack_off: int | None = None
        self.storage: dict[str, Any] | None = None
        self.zext_dst = False


@dataclass(slots=True)
class SubprogInfo:
    """struct bpf_subprog_info."""

    start: int
    stack_depth: int = 0
    name: str = ""
    has_tail_call: bool = False
    tail_call_reachable: bool = False
    has_ld_abs: bool = False
    is_cb: bool = False
    is_async_cb: bool = False
    is_exception_cb: bool = False
    is_global: bool = False
    args: tuple[Any, ...] = ()
    args_cached: bool = False
    called: bool = False
    changes_pkt_data: bool = False
    might_sleep: bool = False
    keep_fastcall_stack: bool = False
    fastcall_stack_off: int = 0
    postorder_start: int = 0
    func_type_id: int = 0  # its FUNC in the program's BTF
    unreliable: bool = False  # its BTF was seen not to fit


class VerifierEnv:
    """State of one verification. Rooms add the attributes that are theirs alone in their own ``init_*(env)`` functions."""

    def __init__(self, request: LoadRequest) -> None:
        p = request.privileges
        self.request = request
        self.prog_type = request.prog_type
        self.insns: list[Instruction] = list(request.insns)
        self.insn_aux: list[InsnAux] = [InsnAux() for _ in request.insns]
        self.allow_ptr_leaks, self.allow_uninit_stack = p.allow_ptr_leaks, p.allow_uninit_stack
        self.bypass_spec_v1, self.bypass_spec_v4, self.bpf_capable = p.bypass_spec_v1, p.bypass_spec_v4, p.bpf_capable
        self.strict_alignment = request.prog_flags & 3 == 1  # BPF_F_ANY_ALIGNMENT wins over BPF_F_STRICT_ALIGNMENT
        self.test_state_freq = p.bpf_capable and bool(request.prog_flags & 8)
        self.test_reg_invariants = bool(request.prog_flags & 128)
        self.maps: list[MapInfo] = []
        self.map_numbers: dict[MapInfo, int] = {}  # their places in ``maps``
        self.subprogs: list[SubprogInfo] = []
        self.insn_idx = 0
        self.prev_insn_idx = 0
        self.cur_state: VerifierState | None = None
        self.stack: list[Any] = []  # pending (state, insn_idx, prev_insn_idx, log position)
        self.explored_states: list[list[Any]] = []  # hash buckets of checkpoints
        self.explored_main: list[list[Any]] = []  # the same by instruction, for an outermost frame
        self.id_gen = 0
        self.stats = Stats()
        self.log_level = request.log_level
        self.log: list[str] = []
        self.scratched_regs = 0
        self.scratched_stack_slots = 0
        self.prev_log_pos = 0
        self.prev_insn_print_pos = 0
        self.log_end_pos = 0  # characters in ``log``
        self.btf_string: Callable[[int], str] | None = None  # a string of the program's BTF by offset, once BTF was read
        self.prev_linfo: tuple[int, int, int, int] | None = None
        self.seen_direct_write = False
        self.seen_exception = False
        self.extra: dict[str, Any] = {}
        # exploration (check, path, prune, precision)
        self.jmps_processed = 0
        self.prev_jmps_processed = 0
        self.prev_insn_processed = 0
        self.explored_states_size = 0
        self.free_list_size = 0
        self.num_backedges = 0
        self.explore_alu_limits = False
        self.cur_hist_ent: Any = None  # the entry of the current instruction in cur_state.jmp_history, or None
        self.do_print_state = False  # print the whole state before the next instruction
        self.btf: Btf | None = None  # the program's BTF, when function or line records came with it
        self.liveness: Any = None  # verifier.liveness.StackLiveness
        self.back_table: list[tuple[int, int, int, int, bool]] = []  # precision's: what each instruction does, backwards
        self.successors: list[tuple[int, ...]] = []  # of every instruction, within its function
        self.postorder: list[int] = []
        self.scc_visits: dict[tuple[tuple[int, ...], int], Any] = {}  # (callsites, loop) -> prune.SccVisit

    def new_id(self) -> int:
        """++env->id_gen: ids are never 0."""
        self.id_gen += 1
        return self.id_gen
