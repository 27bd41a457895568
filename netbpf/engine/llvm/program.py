"""A program as native code: the code of a variant, found in the cache or compiled, and runs of it on one packet at a time, with
what they call back for. Knows no LLVM; that is ``compile``'s. Windows and batches are ``windows``'.
"""

from __future__ import annotations

import _thread
import ctypes
import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from netbpf import __version__
from netbpf.engine.base import UnsupportedProgram
from netbpf.engine.llvm import cache
from netbpf.engine.llvm.abi import (
    ARGS,
    ARGS_BYTES,
    CALL_BACK_META,
    META,
    META_BYTES,
    TARGET_ROW,
)
from netbpf.engine.llvm.digest import sha256
from netbpf.engine.llvm.effort import THOROUGH
from netbpf.engine.llvm.handles import Handles
from netbpf.engine.llvm.objfile import BadObject, MappedCode
from netbpf.engine.llvm.variant import Variant
from netbpf.engine.trace import TraceBuffer
from netbpf.env import Env
from netbpf.errors import EngineFault, InternalError, NetbpfError
from netbpf.ints import bswap
from netbpf.isa.instruction import encode
from netbpf.program import VerifiedProgram

if TYPE_CHECKING:  # programs without packets and maps start without
    from netbpf.engine.llvm.targets import Targets
    from netbpf.maps.base import Map
    from netbpf.packet.device import Device
    from netbpf.packet.skbuff import SkBuff

NEVER_NS: Final = 0xFFFF_FFFF_FFFF_FFFF
UNPROVED_LOOP_LIMIT: Final = 100_000_000
BPF_PROG_TYPE_SOCKET_FILTER: Final = 1
FAULT_ARGS: Final = ("fault_kind", "fault_pc", "fault_address", "fault_size", "fault_access")
SCRATCH_BYTES: Final = 1 << 19  # longer than any captured Ethernet frame
_NO_TARGETS: Final = (ctypes.c_uint64 * len(TARGET_ROW))()  # a table of one row for no program
_COMPILING: Final = _thread.allocate_lock()  # one at a time: cores of a replay may find at once that they want other code
_ENTRY: Final = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)


class NativeUnavailable(NetbpfError):
    """This platform has no llvmlite and the cache no code: the caller may take the interpreter."""


class _Socket(NamedTuple):
    """A struct bpf_sock that a program may read: its bytes, and the row of the regions of a checked program."""

    data: Any
    row: int


class Code:
    """Native code of one variant, callable."""

    def __init__(self, program: VerifiedProgram, variant: Variant, use_cache: bool) -> None:
        entry, self.mapped = self._find(program, variant, use_cache)
        self.calls_back, self.is_checked = entry.calls_back, entry.is_checked
        functions = self.mapped.functions
        if "run" not in functions:
            raise InternalError("native code without a function run")
        self.run = _ENTRY(functions["run"])
        self.enter = _ENTRY(functions["enter"]) if "enter" in functions else None

    def _find(self, program: VerifiedProgram, variant: Variant, use_cache: bool) -> tuple[cache.Entry, MappedCode]:
        key = cache_key(program, variant) if use_cache else ""
        entry = cache.read(key) if use_cache else None
        if entry is not None:
            try:
                return entry, MappedCode(entry.code)
            except BadObject:
                pass  # written by a version that emitted what this one cannot map: compile afresh
        entry = _compile(program, variant)
        mapped = MappedCode(entry.code)
        if use_cache:
            cache.write(key, entry)
        return entry, mapped


def _compile(program: VerifiedProgram, variant: Variant) -> cache.Entry:
    from netbpf.engine.llvm.compiler import compile_object
    from netbpf.engine.llvm.module import module

    made = module(program, variant)
    try:
        code = compile_object(made.text, effort=variant.effort)
    except ImportError as e:
        raise NativeUnavailable(f"the native engine needs llvmlite, which is not here ({e}); pip install llvmlite") from e
    return cache.Entry(code, made.calls_back, made.is_checked)


def cache_key(program: VerifiedProgram, variant: Variant) -> str:
    """Digest of all that native code depends on: program, proved facts, map shapes, variant, this engine, CPU family."""
    facts = [(f.ptr, f.map_index, f.inner_of) for f in program.facts]
    told = (
        encode(program.insns), program.proved, facts, program.subprogs, _map_shapes(program),
        program.prog_type, variant, __version__, _own_sources(), os.uname().machine,
    )  # fmt: skip
    return sha256(repr(told).encode()).hexdigest()


def _map_shapes(program: VerifiedProgram) -> list[Any]:
    if not program.maps:
        return []
    from netbpf.engine.llvm.shape import map_shape

    return [map_shape(m) for m in program.maps]


def _own_sources() -> list[tuple[str, int, int]]:
    """What tells one version of this folder from another."""
    found, own = [], os.path.dirname(__file__)
    for folder in (own, os.path.join(own, "kernels")):
        with os.scandir(folder) as files:
            found += [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.name.endswith(".py")]
    return sorted(found)


def _is_on_sk_buff(prog_type: int) -> bool:
    from netbpf.abi.context import CTX_RULES

    rules = CTX_RULES.get(prog_type)
    return rules is not None and rules.struct == "__sk_buff"


class NativeProgram:
    """A program as native code. Each variant of the packet loop is made when first needed.

    ``device`` is what packets of a batch or window come in on (None: the default one), ``view`` who looks at them
    (``packet.receive``). ``effort``: of optimising (``effort``).
    """

    def __init__(
        self,
        program: VerifiedProgram,
        env: Env,
        *,
        trace: TraceBuffer | None = None,
        device: Device | None = None,
        use_cache: bool = True,
        checked: bool = False,
        view: str = "packet_raw",
        effort: int = THOROUGH,
    ) -> None:
        if program.prog_type != BPF_PROG_TYPE_SOCKET_FILTER and not _is_on_sk_buff(program.prog_type):
            raise UnsupportedProgram(f"the native engine runs programs on an sk_buff, not of type {program.prog_type}")
        self.program, self.env, self._device, self._use_cache, self._checked = program, env, device, use_cache, checked
        self.view, self._effort = view, effort
        self.trace = TraceBuffer() if trace is None else trace
        self._codes: dict[Variant, Code] = {}
        self._args = (ctypes.c_uint64 * (ARGS_BYTES // 8))()
        self.args_address = ctypes.addressof(self._args)
        self._prepared: object = None  # what Args and Meta hold for windows; None when they served something else
        self._meta = (ctypes.c_uint64 * (META_BYTES // 8))()
        self._scratch = ctypes.create_string_buffer(SCRATCH_BYTES)
        self._maps = (ctypes.c_uint64 * max(1, len(program.maps)))(*[m.address for m in program.maps])
        self._trace_clock = hasattr(env, "set_time")
        self._set("scratch", ctypes.addressof(self._scratch))
        self._set("maps", ctypes.addressof(self._maps))
        self.handles = Handles(program)
        self._set("handles", self.handles.table_address)
        self.regions: Any = None  # of a checked program, and of one whose tail calls lead to one
        self._is_mapped = False  # whether the regions have the maps of this program
        self._bridge: Any = None
        self._active: Code | None = None  # what is running, for call backs
        self._skb: SkBuff | None = None  # the packet of run_one
        self._sock: _Socket | None = None  # and its socket
        self._targets: Targets | None = None
        self.tell_targets(ctypes.addressof(_NO_TARGETS), 0)

    @property
    def device(self) -> Device:
        if self._device is None:
            from netbpf.packet.device import DEFAULT_DEVICE

            self._device = DEFAULT_DEVICE
        return self._device

    @device.setter
    def device(self, device: Device) -> None:
        self._device = device

    # --- the argument block --------------------------------------------------------------------------------------------
    def _set(self, name: str, value: int) -> None:
        self._args[ARGS[name] >> 3] = value

    def _set_all(self, **values: int) -> None:
        for name, value in values.items():
            self._set(name, value)

    def _get(self, name: str) -> int:
        return self._args[ARGS[name] >> 3]

    def _set_meta(self, name: str, value: int) -> None:
        self._meta[META[name] >> 3] = value

    def _code(self, variant: Variant) -> Code:
        code = self._codes.get(variant)
        if code is None:
            with _COMPILING:
                code = self._codes.get(variant)
                if code is None:
                    code = self._codes[variant] = Code(self.program, variant, self._use_cache)
        if code.is_checked and not self._is_mapped:
            self._map_regions()
        if code.calls_back and self._bridge is None:
            from netbpf.engine.llvm.bridge import Bridge

            self._bridge = Bridge(self, self.trace)
            self._set("callback", self._bridge.address)
        return code

    def _variant(self, kind: str) -> Variant:
        return Variant(kind, trace_clock=self._trace_clock, checked=self._checked, effort=self._effort)

    def _map_regions(self) -> None:
        from netbpf.engine.llvm.regions import Regions

        self._is_mapped = True
        self.regions = Regions() if self._targets is None else self._targets.regions()
        self.handles.on_new = self._tell_map
        for address, m in self.handles.known():
            self._tell_map(address, m)
        self.tell_regions()

    def _tell_map(self, address: int, m: Map) -> None:
        self.regions.add_map(m)
        self.tell_regions()

    def tell_regions(self) -> None:
        """The table of regions may have moved."""
        for member in (self, *(() if self._targets is None else self._targets.members)):
            member._set_all(regions=self.regions.address, n_regions=self.regions.count)

    def adopt_regions(self, regions: Any) -> None:
        """Share the regions of a checked program that a tail call has led to."""
        self.regions = regions
        self._sock = self._as_region(self._sock)

    def _call(self, code: Code) -> int:
        env: Any = self.env
        if self._trace_clock:
            self._set("now_ns", env.now_ns)
            self._set("rng_state", env.rng_state)
        else:
            self._set("now_ns", env.ktime_ns())
            self._set("rng_state", self._get("rng_state") or env.random_u32() << 32 | env.random_u32() | 1)
        self._set("cpu_id", env.cpu_id())
        if self._targets is not None:
            self._targets.sweep()
        result = self._enter_native(code, code.run)
        if self._trace_clock:
            env.now_ns, env.rng_state = self._get("now_ns"), self._get("rng_state")
        return result

    def _enter_native(self, code: Code, function: Any) -> int:
        """Run a function of ``code``; what it returned. Raises what ended the run."""
        if code.calls_back or code.is_checked:
            self._set_all(fault=0, fault_kind=0, depth=0, budget=UNPROVED_LOOP_LIMIT)
        if self.regions is not None:
            self.regions.forget_frames()
        self._active = code
        result = int(function(self.args_address))
        if code.calls_back or code.is_checked:
            self._raise_fault()
        return result

    def _raise_fault(self) -> None:
        """Raise what this program failed with, or one that tail calls led to."""
        if not self._get("fault"):
            return
        culprit = self if self._targets is None else self._targets.member_at(self._get("culprit"))
        if culprit._bridge is not None:
            culprit._bridge.raise_fault()
        from netbpf.engine.llvm.faults import native_fault

        raise native_fault(culprit, {name: culprit._get(name) for name in FAULT_ARGS})

    def fault(self, pc: int, message: str, address: int | None = None) -> EngineFault:
        """An EngineFault that names the instruction at ``pc``."""
        from netbpf.isa.disasm import format_insn

        insns = self.program.insns
        text = format_insn(insns[pc], insns[pc + 1] if pc + 1 < len(insns) else None) if pc < len(insns) else "past the end"
        return EngineFault(message, pc=pc, insn_text=text, address=address)

    def sync_env(self) -> Any:
        """Bring the Env to where native code is, for a call back; ``take_env`` brings its changes back."""
        if self._trace_clock:
            env: Any = self.env
            env.now_ns, env.rng_state = self._get("now_ns"), self._get("rng_state")

    def take_env(self) -> None:
        if self._trace_clock:
            env: Any = self.env
            self._set("rng_state", env.rng_state)

    # --- one packet ----------------------------------------------------------------------------------------------------
    def run_memory(self, memory: bytearray) -> int:
        """Run with R1 the address of ``memory``, 0 when it is empty, and R2 its length, as suites for raw programs do; R0.

        Raises EngineFault.
        """
        code = self._code(self._variant("memory"))
        self._prepared = None
        address, keep = address_of(memory)
        row = self.regions.add("the program's memory", address, len(memory)) if memory and self.regions is not None else None
        self._set_all(r1=address, r2=len(memory), tail_calls=0, skb_cap=0, skb_len=0, meta=ctypes.addressof(self._meta))
        if row is not None:
            self.tell_regions()
        try:
            return self._call(code)
        finally:
            del keep
            if row is not None:
                self.regions.drop(row)

    def run_one(self, skb: SkBuff) -> int:
        """Run once; the full 64-bit R0. Raises EngineFault."""
        code = self._code(self._variant("one"))
        head = ctypes.create_string_buffer(skb.head, max(len(skb.head), 1))
        self._prepared = None
        self._describe(skb)
        self._sock = self._as_region(self._describe_socket(skb))
        self._set("meta", ctypes.addressof(self._meta))
        self._set("skb_pkt", ctypes.addressof(head) + skb.data_off)
        self._set("skb_len", skb.len)
        self._set("skb_cap", min(len(skb.head) - skb.data_off, skb.len) & NEVER_NS)
        self._set("tail_calls", 0)
        self._skb = skb
        try:
            r0 = self._call(code)
        finally:
            sock, self._skb, self._sock = self._sock, None, None
            if sock is not None and self.regions is not None:
                self.regions.drop(sock.row)
        at = META["cb0"]
        skb.cb[:] = bytes(memoryview(self._meta).cast("B")[at : at + 20])
        return r0

    def _describe_socket(self, skb: SkBuff) -> _Socket | None:
        """The socket that owns the packet into memory of its own; None where there is none."""
        self._set_meta("sk", 0)
        if not skb.has_sk:
            return None
        from netbpf.engine.interp.context import bpf_sock

        data = ctypes.create_string_buffer(bpf_sock(skb))
        self._set_meta("sk", ctypes.addressof(data))
        return _Socket(data, -1)

    def _as_region(self, sock: _Socket | None) -> _Socket | None:
        """The same socket, with a row where there are regions."""
        if sock is None or self.regions is None:
            return sock
        row = self.regions.add("struct bpf_sock", ctypes.addressof(sock.data), len(sock.data) - 1, writable=False)
        self.tell_regions()
        return sock._replace(row=row)

    def _describe(self, skb: SkBuff) -> None:
        """The sk_buff into Meta."""
        from netbpf.packet.context import FIELD_VALUES, WORD_VALUES, context_value

        for name in FIELD_VALUES:
            if name in META:
                self._set_meta(name, context_value(skb, name))
        for name in ("data_off", "mac_header", "network_header", "transport_header", "sk_cookie", "sk_uid"):
            self._set_meta(name, getattr(skb, name) & NEVER_NS)
        raw = memoryview(self._meta).cast("B")
        for name, first, words in (("cb", "cb0", 5), ("remote_ip6", "remote_ip6_0", 4), ("local_ip6", "local_ip6_0", 4)):
            for word in range(words):
                at = META[first] + 4 * word
                raw[at : at + 4] = WORD_VALUES[name](skb, word).to_bytes(4, "little")

    # --- what call backs ask for -----------------------------------------------------------------------------------------
    def current_skb(self) -> SkBuff:
        """The packet at hand in a call back."""
        root = self if self._targets is None else self._targets.root
        if root._skb is not None:
            return root._skb
        from netbpf.packet.skbuff import SkBuff

        frame = ctypes.string_at(self._get("skb_pkt"), self._get("skb_cap"))
        meta = self._get("meta")
        proto, present, tpid, network = (
            ctypes.c_uint64.from_address(meta + META[name]).value for name in (*CALL_BACK_META, "network_header")
        )
        skb = SkBuff(frame, self._get("skb_len"), network_header=network, mark=root.device.mark)
        skb.protocol, skb.vlan_present, skb.vlan_proto = bswap(proto, 2), present, bswap(tpid, 2)
        return skb

    def call_subprog(self, index: int, regs: tuple[int, ...]) -> int:
        """Run a subprogram for a helper that takes a callback; its R0."""
        if self._active is None or self._active.enter is None:
            raise InternalError("a callback without a program running")
        self._set("subprog", index)
        for n, value in enumerate(regs, 1):
            self._set(f"r{n}", value)
        self.take_env()
        result = int(self._active.enter(self.args_address))
        self._raise_fault()
        self.sync_env()
        return result

    # --- tail calls ------------------------------------------------------------------------------------------------------
    def find_target(self, programs: Any, index: int) -> None:
        """Have the program at ``index`` of a program array in the table of targets."""
        from netbpf.engine.llvm.targets import Targets, program_of

        if self._targets is None:
            self._targets = Targets(self)
        held = programs.get(index)
        if held is not None:
            self._targets.add(program_of(held))

    def tell_targets(self, table_address: int, mask: int) -> None:
        """Where the table of targets is now."""
        self._set_all(targets=table_address, target_mask=mask)

    def new_target(self, program: VerifiedProgram) -> NativeProgram:
        """What runs a program that tail calls lead to, beside this one."""
        made = NativeProgram(
            program,
            self.env,
            trace=self.trace,
            device=self.device,
            use_cache=self._use_cache,
            checked=self._checked,
            effort=self._effort,
        )
        made._targets = self._targets
        made._active = made._code(made._variant("tail"))
        return made

    def tail_entry(self) -> int:
        """Address of the code that a tail call enters."""
        assert self._active is not None
        return self._active.mapped.functions["run"]


def address_of(buffer: Any) -> tuple[int, Any]:
    """Address of a bytes-like object's first byte, and what keeps it there while used."""
    if isinstance(buffer, bytes):
        return ctypes.cast(ctypes.c_char_p(buffer), ctypes.c_void_p).value or 0, buffer
    view = memoryview(buffer)
    if not view.nbytes:
        return 0, view
    if view.readonly:
        data = view.tobytes()
        return address_of(data)[0], data
    pin = (ctypes.c_char * view.nbytes).from_buffer(view)
    return ctypes.addressof(pin), pin
